// The large picture: regions of the classes, or one unit; the points; and drawing with mouse, finger and keys.

import { $, CLASSES, bytes, css, pointColour, ramp, sharp, theme, trace } from "./look.js";

const PIXELS = 300; // of the picture of the regions, before it is stretched

export class Plane {
  constructor(half, { add, remove, choose }) {
    this.half = half;
    this.rows = [];
    this.frame = null;
    this.unit = null; // [layer, unit] shown instead of the answer
    this.cross = null;
    this.canvas = $("plane");
    this.picture = new OffscreenCanvas(PIXELS, PIXELS);
    this.act = { add, remove, choose };
    this.listen();
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  show(frame, rows) {
    if (frame) this.frame = frame;
    if (rows) this.rows = rows;
    this.paint();
    this.draw();
  }

  look(unit) {
    this.unit = unit;
    $("result-title").textContent = unit ? `Hidden layer ${unit[0] + 1}, unit ${unit[1] + 1}` : "Answer";
    this.paint();
    this.draw();
  }

  paint() {
    if (!this.frame) return;
    const image = new ImageData(PIXELS, PIXELS);
    const layer = this.unit && this.frame.units.layers[this.unit[0]];
    if (layer && this.unit[1] < layer.units) this.paintUnit(image.data, layer);
    else this.paintClasses(image.data);
    this.picture.getContext("2d").putImageData(image, 0, 0);
  }

  paintUnit(out, layer) {
    const n = this.frame.units.n;
    const all = bytes(layer.bytes).subarray(this.unit[1] * n * n);
    const colours = ramp(theme().plane);
    interpolate(n, (i, j, corners, a, b) => {
      const [p, q, r, s] = corners;
      const v = Math.round((1 - b) * ((1 - a) * all[p] + a * all[q]) + b * ((1 - a) * all[r] + a * all[s]));
      const at = 4 * (j * PIXELS + i);
      out.set(colours[v], at);
      out[at + 3] = 255;
    });
  }

  paintClasses(out) {
    const { n, classes } = this.frame.grid;
    const all = bytes(this.frame.grid.bytes);
    const page = theme().plane;
    const best = new Uint8Array(PIXELS * PIXELS);
    interpolate(n, (i, j, corners, a, b) => {
      const [p, q, r, s] = corners;
      let [first, second, winner] = [-1, -1, 0];
      for (let c = 0; c < classes; c++) {
        const o = c * n * n;
        const v = (1 - b) * ((1 - a) * all[o + p] + a * all[o + q]) + b * ((1 - a) * all[o + r] + a * all[o + s]);
        if (v > first) [second, first, winner] = [first, v, c];
        else if (v > second) second = v;
      }
      const sure = 0.07 + 0.37 * ((first - Math.max(second, 0)) / 255);
      const { rgb } = CLASSES[winner];
      const at = 4 * (j * PIXELS + i);
      for (let k = 0; k < 3; k++) out[at + k] = page[k] + sure * (rgb[k] - page[k]);
      out[at + 3] = 255;
      best[j * PIXELS + i] = winner;
    });
    const line = page[0] > 128 ? 40 : 235;
    for (let j = 1; j < PIXELS; j++)
      for (let i = 1; i < PIXELS; i++) {
        const k = j * PIXELS + i;
        if (best[k] !== best[k - 1] || best[k] !== best[k - PIXELS])
          for (let c = 0; c < 3; c++) out[4 * k + c] = 0.35 * out[4 * k + c] + 0.65 * line;
      }
  }

  draw() {
    const [g, width, height] = sharp(this.canvas);
    if (!width) return;
    const look = theme();
    g.imageSmoothingEnabled = true;
    g.drawImage(this.picture, 0, 0, width, height);
    g.strokeStyle = look.soft;
    g.globalAlpha = 0.35;
    g.lineWidth = 1;
    g.beginPath();
    g.moveTo(width / 2, 0);
    g.lineTo(width / 2, height);
    g.moveTo(0, height / 2);
    g.lineTo(width, height / 2);
    g.stroke();
    g.globalAlpha = 1;
    g.fillStyle = look.soft;
    g.font = "11px system-ui, sans-serif";
    g.textAlign = "right";
    g.fillText(`x₁ = ${this.half}`, width - 4, height / 2 - 4);
    g.textAlign = "left";
    g.fillText(`x₂ = ${this.half}`, width / 2 + 4, 12);
    const r = Math.max(2.6, Math.min(4.6, 60 / Math.sqrt(this.rows.length + 1)));
    for (const [x, y, label, held] of this.rows) {
      const { shape } = CLASSES[label];
      const rgb = pointColour(label);
      trace(g, shape, ...this.place(x, y, width, height), r);
      g.fillStyle = held ? css(look.plane, 0.85) : css(rgb);
      g.strokeStyle = held ? css(rgb) : css(look.plane, 0.9);
      g.lineWidth = held ? 1.7 : 1;
      g.fill();
      g.stroke();
    }
    if (this.cross && document.activeElement === this.canvas) {
      const [x, y] = this.place(...this.cross, width, height);
      g.strokeStyle = look.ink;
      g.lineWidth = 2;
      g.beginPath();
      g.moveTo(x - 11, y);
      g.lineTo(x + 11, y);
      g.moveTo(x, y - 11);
      g.lineTo(x, y + 11);
      g.stroke();
    }
  }

  place(x, y, width, height) {
    return [(x / this.half + 1) * 0.5 * width, (1 - y / this.half) * 0.5 * height];
  }

  under(event) {
    const box = this.canvas.getBoundingClientRect();
    const limit = (v) => Math.max(-this.half, Math.min(this.half, Math.round(v * 1000) / 1000));
    return [
      limit((((event.clientX - box.left) / box.width) * 2 - 1) * this.half),
      limit((1 - ((event.clientY - box.top) / box.height) * 2) * this.half),
    ];
  }

  nearest(x, y, within) {
    let [found, least] = [-1, within];
    this.rows.forEach(([a, b], i) => {
      const d = Math.hypot(a - x, b - y);
      if (d < least) [found, least] = [i, d];
    });
    return found;
  }

  erase(x, y, within = 0.25) {
    const i = this.nearest(x, y, within);
    if (i >= 0) this.act.remove(i);
  }

  listen() {
    const { canvas } = this;
    let last = null;
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("pointerdown", (event) => {
      const here = this.under(event);
      if (event.button === 2 || event.shiftKey) return this.erase(...here);
      if (event.button !== 0) return;
      canvas.setPointerCapture(event.pointerId);
      last = here;
      this.cross = null;
      this.act.add(...here);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!last || !canvas.hasPointerCapture(event.pointerId)) return;
      for (const moved of event.getCoalescedEvents?.() ?? [event]) {
        const here = this.under(moved);
        if (Math.hypot(here[0] - last[0], here[1] - last[1]) < 0.16) continue;
        last = here;
        // a drag scatters points beside its path, as a spray can does
        const beside = () => (Math.random() - 0.5) * 0.3;
        const inside = (v) => Math.max(-this.half, Math.min(this.half, v));
        this.act.add(inside(here[0] + beside()), inside(here[1] + beside()));
      }
    });
    const up = () => (last = null);
    canvas.addEventListener("pointerup", up);
    canvas.addEventListener("pointercancel", up);
    canvas.addEventListener("blur", () => this.draw());
    canvas.addEventListener("focus", () => this.draw());
    canvas.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
      const [x, y] = this.cross ?? [0, 0];
      if (move) {
        const by = (event.shiftKey ? 5 : 1) * 0.1;
        const limit = (v) => Math.max(-this.half, Math.min(this.half, Math.round(v * 100) / 100));
        this.cross = [limit(x + by * move[0]), limit(y + by * move[1])];
      } else if (event.key === "Enter" || event.key === " ") this.act.add(x, y);
      else if (event.key === "Delete" || event.key === "Backspace") this.erase(x, y, 1);
      else if (/^[1-4]$/.test(event.key)) this.act.choose(event.key - 1);
      else return;
      event.preventDefault();
      event.stopPropagation();
      this.draw();
    });
  }
}

// Calls use(i, j, corners, a, b) for every pixel: the four squares of an n x n map around it, and the weights.
function interpolate(n, use) {
  const cell = (k) => {
    const t = Math.max(0, Math.min(n - 1, ((k + 0.5) / PIXELS) * n - 0.5));
    const low = Math.min(n - 2, Math.floor(t));
    return [low, t - low];
  };
  const cells = Array.from({ length: PIXELS }, (_, k) => cell(k));
  const corners = [0, 0, 0, 0];
  for (let j = 0; j < PIXELS; j++) {
    const [row, b] = cells[j];
    for (let i = 0; i < PIXELS; i++) {
      const [column, a] = cells[i];
      const p = row * n + column;
      corners[0] = p;
      corners[1] = p + 1;
      corners[2] = p + n;
      corners[3] = p + n + 1;
      use(i, j, corners, a, b);
    }
  }
}
