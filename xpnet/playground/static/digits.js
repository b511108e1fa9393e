// The second tab: draw a digit, see what the network makes of it.

import { get, post, send } from "./api.js";
import { $, complain, element, onTheme, sharp, theme } from "./look.js";

const SIDE = 140; // pixels of the drawing that is sent
const PEN = 0.055; // radius, of the width of the pad
const KEY = "xpnet-drawing";

export class DigitsTab {
  start() {
    this.pad = $("pad");
    this.ink = new OffscreenCanvas(SIDE, SIDE);
    this.g = this.ink.getContext("2d", { willReadFrequently: true });
    this.pen = null;
    this.restore();
    this.listen();
    onTheme(() => this.paint());
    new ResizeObserver(() => this.paint()).observe(this.pad);
    $("wipe").onclick = () => this.wipe();
    $("digits-start").onclick = () => this.open();
  }

  // Called when the tab is shown: the network is trained at first use.
  async open() {
    try {
      this.show(await post("/api/digits/start"));
      this.watch();
      this.ask();
    } catch (error) {
      complain(error.message);
    }
  }

  async watch() {
    if (this.watching) return;
    this.watching = true;
    try {
      while (this.status.state === "training" && !$("digits").hidden) {
        await new Promise((resolve) => setTimeout(resolve, 300));
        const before = this.status.epoch;
        this.show(await get("/api/digits"));
        if (this.status.epoch !== before || this.status.state !== "training") this.ask();
      }
    } catch (error) {
      complain(error.message);
    } finally {
      this.watching = false;
    }
  }

  show(status) {
    this.status = status;
    const right = status.accuracy === null ? "" : ` ${(100 * status.accuracy).toFixed(1)} % of the test digits are read correctly.`;
    const layers = status.sizes ? ` Network: ${status.sizes.join("–")}.` : "";
    const words = `${status.text}${status.state === "training" && status.epochs ? ` Epoch ${status.epoch} of ${status.epochs}.` : ""}${right}${layers}`;
    $("digits-status").textContent = words || "The network is not trained yet.";
    const progress = $("digits-progress");
    progress.hidden = status.state !== "training";
    if (status.epochs) progress.value = status.epoch / status.epochs;
    else progress.removeAttribute("value");
    $("digits-start").hidden = status.state !== "failed";
  }

  // --- asking: one question at a time, always the newest drawing --------------------------------
  async ask() {
    if (this.asking) return (this.again = true);
    this.asking = true;
    try {
      do {
        this.again = false;
        const drawing = this.drawing();
        if (!drawing || !this.status?.reads) this.blank();
        else this.answer(await send("/api/digits/read", drawing, "application/octet-stream"));
      } while (this.again);
    } catch (error) {
      complain(error.message);
    } finally {
      this.asking = false;
    }
  }

  drawing() {
    const pixels = this.g.getImageData(0, 0, SIDE, SIDE).data;
    const ink = new Uint8Array(SIDE * SIDE);
    let any = false;
    for (let i = 0; i < ink.length; i++) {
      ink[i] = pixels[4 * i + 3];
      any ||= ink[i] > 30;
    }
    return any ? ink : null;
  }

  blank() {
    $("answer").replaceChildren("–", element("small", { textContent: this.drawing() ? "the network is still learning" : "nothing is drawn yet" }));
    $("probabilities").replaceChildren();
    $("hidden").replaceChildren();
    $("sample-size").textContent = "input";
    const [g, width, height] = sharp($("sample"));
    g.clearRect(0, 0, width, height);
  }

  answer(found) {
    const best = found.probabilities.indexOf(Math.max(...found.probabilities));
    const share = (p) => (p >= 0.9995 && p < 1 ? "> 99.9 %" : `${(100 * p).toFixed(1)} %`);
    const words = `with ${share(found.probabilities[best])}`;
    if ($("answer").textContent !== found.classes[best] + words) $("answer").replaceChildren(found.classes[best], element("small", { textContent: words }));
    const list = $("probabilities");
    if (list.children.length !== found.classes.length)
      list.replaceChildren(
        ...found.classes.map((name) =>
          element("li", {}, element("span", { textContent: name }), element("div", { className: "track" }, element("div", { className: "fill" })), element("span", { className: "share" })),
        ),
      );
    found.probabilities.forEach((p, i) => {
      const item = list.children[i];
      item.classList.toggle("best", i === best);
      item.querySelector(".fill").style.width = `${100 * p}%`;
      item.querySelector(".share").textContent = share(p);
    });
    const [rows, columns] = found.input.shape;
    $("sample-size").textContent = `input: ${rows} × ${columns} pixels`;
    cells($("sample"), rows, columns, found.input.ink, 1);
    this.hidden(found.layers);
  }

  hidden(layers) {
    const box = $("hidden");
    const made = layers.map((layer, l) => {
      const n = layer.values.length;
      const columns = Math.ceil(Math.sqrt(n));
      const rows = Math.ceil(n / columns);
      let figure = box.children[l];
      if (figure?.dataset.units !== String(n)) {
        const canvas = element("canvas", { role: "img" });
        const cell = Math.max(4, Math.min(25, Math.floor(202 / columns)));
        Object.assign(canvas.style, { width: `${cell * columns + 2}px`, height: `${cell * rows + 2}px` });
        figure = element("figure", { "data-units": n }, canvas, element("figcaption", { textContent: `hidden layer ${l + 1}: ${n} units` }));
      }
      return [figure, rows, columns, layer.values];
    });
    if ([...box.children].some((child, i) => child !== made[i]?.[0]) || box.children.length !== made.length) box.replaceChildren(...made.map(([figure]) => figure));
    made.forEach(([figure, rows, columns, values]) => {
      const active = values.filter((v) => v > 0.01).length;
      figure.firstChild.setAttribute("aria-label", `${active} of ${values.length} units are active`);
      cells(figure.firstChild, rows, columns, values, Math.max(...values.map(Math.abs), 1e-9));
    });
  }

  // --- drawing ---------------------------------------------------------------------------------
  wipe() {
    this.g.clearRect(0, 0, SIDE, SIDE);
    this.changed();
  }

  stroke(from, to) {
    this.g.lineCap = "round";
    this.g.lineJoin = "round";
    this.g.lineWidth = 2 * PEN * SIDE;
    this.g.beginPath();
    this.g.moveTo(from[0] * SIDE, from[1] * SIDE);
    this.g.lineTo(to[0] * SIDE + 0.01, to[1] * SIDE);
    this.g.stroke();
    this.changed();
  }

  changed() {
    this.paint();
    this.ask();
    clearTimeout(this.saving);
    this.saving = setTimeout(() => this.save(), 150);
  }

  paint() {
    const [g, width, height] = sharp(this.pad);
    if (!width) return;
    g.clearRect(0, 0, width, height);
    g.imageSmoothingQuality = "high";
    g.drawImage(this.ink, 0, 0, width, height);
    g.globalCompositeOperation = "source-in";
    g.fillStyle = theme().ink;
    g.fillRect(0, 0, width, height);
    g.globalCompositeOperation = "source-over";
    if (this.pen && document.activeElement === this.pad) {
      g.strokeStyle = theme().valid;
      g.lineWidth = this.down ? 3 : 1.5;
      g.beginPath();
      g.arc(this.pen[0] * width, this.pen[1] * height, PEN * width + 3, 0, 2 * Math.PI);
      g.stroke();
    }
  }

  save() {
    const drawing = this.drawing();
    try {
      if (drawing) sessionStorage.setItem(KEY, btoa(String.fromCharCode(...drawing)));
      else sessionStorage.removeItem(KEY);
    } catch {
      // without storage a reload begins with an empty pad
    }
  }

  restore() {
    let text = null;
    try {
      text = sessionStorage.getItem(KEY);
    } catch {
      return;
    }
    if (text?.length !== Math.ceil((SIDE * SIDE) / 3) * 4) return;
    const raw = atob(text);
    const image = this.g.createImageData(SIDE, SIDE);
    for (let i = 0; i < SIDE * SIDE; i++) image.data[4 * i + 3] = raw.charCodeAt(i);
    this.g.putImageData(image, 0, 0);
  }

  listen() {
    let last = null;
    const under = (event) => {
      const box = this.pad.getBoundingClientRect();
      return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    };
    this.pad.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      this.pad.setPointerCapture(event.pointerId);
      this.pen = null;
      last = under(event);
      this.stroke(last, last);
    });
    this.pad.addEventListener("pointermove", (event) => {
      if (!last || !this.pad.hasPointerCapture(event.pointerId)) return;
      for (const moved of event.getCoalescedEvents?.() ?? [event]) {
        const here = under(moved);
        this.stroke(last, here);
        last = here;
      }
    });
    const up = () => (last = null);
    this.pad.addEventListener("pointerup", up);
    this.pad.addEventListener("pointercancel", up);
    this.pad.addEventListener("focus", () => this.paint());
    this.pad.addEventListener("blur", () => this.paint());
    this.pad.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      const here = this.pen ?? [0.5, 0.5];
      if (move) {
        const limit = (v) => Math.max(0.03, Math.min(0.97, v));
        this.pen = [limit(here[0] + 0.03 * move[0]), limit(here[1] + 0.03 * move[1])];
        if (this.down) this.stroke(here, this.pen);
      } else if (event.key === " ") {
        this.pen = here;
        this.down = !this.down;
        if (this.down) this.stroke(here, here);
      } else if (event.key === "Delete" || event.key === "Backspace") this.wipe();
      else return;
      event.preventDefault();
      this.paint();
    });
  }
}

// A grid of squares: the stronger the colour, the larger the magnitude.
function cells(canvas, rows, columns, values, largest) {
  const [g, width, height] = sharp(canvas);
  if (!width) return;
  const look = theme();
  g.clearRect(0, 0, width, height);
  const [w, h] = [width / columns, height / rows];
  const gap = w > 10 ? 1 : 0;
  values.forEach((v, i) => {
    g.globalAlpha = Math.min(1, Math.abs(v) / largest);
    g.fillStyle = v < 0 ? look.valid : rows * columns > values.length || gap ? look.train : look.ink;
    g.fillRect((i % columns) * w, Math.floor(i / columns) * h, w - gap + (gap ? 0 : 0.4), h - gap + (gap ? 0 : 0.4));
  });
  g.globalAlpha = 1;
}
