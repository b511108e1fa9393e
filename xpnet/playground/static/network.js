// The network: a tile per unit with its output over the plane, and lines as thick as their weights.

import { $, CLASSES, NEGATIVE, POSITIVE, bytes, css, element, ramp, sharp, theme, trace } from "./look.js";

export class Network {
  constructor({ resize, look }) {
    this.net = $("net");
    this.edges = $("edges");
    this.shape = "";
    this.tiles = []; // per layer: canvases
    this.resize = resize;
    this.look = look;
    this.frame = null;
    new ResizeObserver(() => this.lines()).observe(this.net);
  }

  // Make the tiles anew where the architecture is another.
  build(sizes, limits) {
    if (sizes.join() === this.shape) return;
    const focused = document.activeElement?.dataset?.control;
    this.shape = sizes.join();
    this.net.replaceChildren(this.edges);
    this.tiles = [];
    const hidden = sizes.slice(1, -1);
    const largest = Math.max(2, ...hidden);
    this.net.style.setProperty("--tile", `${largest > 12 ? 30 : largest > 8 ? 38 : largest > 6 ? 46 : 52}px`);
    const caption = (text) => element("p", { className: "count", textContent: text });
    this.inputs = ["x₁", "x₂"].map((name) => element("button", { className: "unit", type: "button", tabIndex: -1, disabled: true, "aria-label": `input ${name}` }, element("canvas", { width: 30, height: 30 })));
    this.net.append(element("div", { className: "layer" }, caption("input"), ...this.inputs));
    hidden.forEach((width, l) => {
      const change = (by) => () => this.resize(hidden.map((w, i) => (i === l ? w + by : w)));
      const button = (text, label, by, off) =>
        element("button", { type: "button", textContent: text, disabled: off, onclick: change(by), "aria-label": `${label} layer ${l + 1}`, "data-control": `${text}${l}` });
      const count = element(
        "div", { className: "count" },
        button("−", "One unit fewer in hidden", -1, width <= 1),
        element("span", { textContent: `${width}` }),
        button("+", "One unit more in hidden", 1, width >= limits.width),
      );
      const units = Array.from({ length: width }, (_, u) => {
        const tile = element("button", { className: "unit", type: "button", "aria-label": `Hidden layer ${l + 1}, unit ${u + 1}: show it large` }, element("canvas", { width: 30, height: 30 }));
        const on = () => this.look([l, u]);
        const off = () => this.look(null);
        tile.onpointerenter = on;
        tile.onfocus = on;
        tile.onpointerleave = off;
        tile.onblur = off;
        return tile;
      });
      this.tiles.push(units);
      this.net.append(element("div", { className: "layer" }, count, ...units));
    });
    this.outputs = CLASSES.slice(0, sizes.at(-1)).map((c, i) => element("button", { className: "unit", type: "button", tabIndex: -1, disabled: true, "aria-label": `output of class ${i + 1}` }, element("canvas", { width: 60, height: 60 })));
    this.net.append(element("div", { className: "layer" }, caption("output"), ...this.outputs));
    if (focused) this.net.querySelector(`[data-control="${focused}"]`)?.focus();
  }

  show(frame) {
    this.frame = frame;
    const colours = ramp(theme().plane);
    const { n, layers } = frame.units;
    layers.forEach((layer, l) => {
      const all = bytes(layer.bytes);
      this.tiles[l]?.forEach((tile, u) => paint(tile.firstChild, n, (k) => colours[all[u * n * n + k]]));
    });
    this.inputs?.forEach((tile, i) => {
      const value = (k) => (i ? 1 - (2 * Math.floor(k / n) + 1) / n : (2 * (k % n) + 1) / n - 1);
      paint(tile.firstChild, n, (k) => colours[Math.round(128 + 127 * value(k))]);
    });
    const page = theme().plane;
    const grid = bytes(frame.grid.bytes);
    this.outputs?.forEach((tile, c) => {
      const { rgb, shape } = CLASSES[c];
      const size = frame.grid.n;
      paint(tile.firstChild, size, (k) => page.map((p, i) => p + 0.75 * (grid[c * size * size + k] / 255) * (rgb[i] - p)));
      const g = tile.firstChild.getContext("2d");
      trace(g, shape, 10, 50, 6);
      g.fillStyle = css(rgb);
      g.strokeStyle = css(page);
      g.fill();
      g.stroke();
    });
    $("parameters").textContent = `${frame.parameters} weights and biases`;
    this.lines();
  }

  lines() {
    if (!this.frame) return;
    const [g, width, height] = sharp(this.edges);
    g.clearRect(0, 0, width, height);
    const origin = this.net.getBoundingClientRect();
    const columns = [...this.net.querySelectorAll(".layer")].map((layer) =>
      [...layer.querySelectorAll(".unit")].map((tile) => {
        const box = tile.getBoundingClientRect();
        return { left: box.left - origin.left, right: box.right - origin.left, y: box.top + box.height / 2 - origin.top };
      }),
    );
    this.frame.weights.forEach((matrix, l) => {
      const largest = Math.max(1e-9, ...matrix.flat().map(Math.abs));
      matrix.forEach((row, o) =>
        row.forEach((w, i) => {
          const [a, b] = [columns[l]?.[i], columns[l + 1]?.[o]];
          if (!a || !b) return;
          const share = Math.abs(w) / largest;
          g.strokeStyle = css(w < 0 ? NEGATIVE : POSITIVE, 0.15 + 0.75 * share);
          g.lineWidth = 0.4 + 3.4 * share;
          const middle = (a.right + b.left) / 2;
          g.beginPath();
          g.moveTo(a.right, a.y);
          g.bezierCurveTo(middle, a.y, middle, b.y, b.left, b.y);
          g.stroke();
        }),
      );
    });
  }
}

function paint(canvas, n, colour) {
  if (canvas.width !== n) Object.assign(canvas, { width: n, height: n });
  const g = canvas.getContext("2d");
  const image = g.createImageData(n, n);
  for (let k = 0; k < n * n; k++) {
    image.data.set(colour(k), 4 * k);
    image.data[4 * k + 3] = 255;
  }
  g.putImageData(image, 0, 0);
}
