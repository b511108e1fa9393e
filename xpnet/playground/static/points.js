// The first tab: data, network, training.

import { begin, get, post, resume, send } from "./api.js";
import { drawCurve } from "./curves.js";
import { $, CLASSES, complain, css, element, onTheme, pointColour, trace } from "./look.js";
import { Network } from "./network.js";
import { Plane } from "./plane.js";

const CHOICES = {
  lr: [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 100],
  l1: [0, 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1],
  l2: [0, 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3],
  batch_size: [1, 4, 8, 16, 32, 64, 128, 2000],
};
const TEXT = { "batch_size-2000": "all points" };
const LABELS = { waiting: "", ready: "Press play to train.", playing: "Training.", paused: "Paused." };

export class PointsTab {
  async start() {
    this.limits = await get("/api/limits");
    this.brush = 0;
    this.drawn = []; // points that are still to be sent
    this.flying = []; // and those on their way
    this.work = Promise.resolve();
    this.plane = new Plane(this.limits.plane, {
      add: (x, y) => this.add(x, y),
      remove: (i) => this.change("points", () => ({ rows: this.rows().filter((_, k) => k !== i) })),
      choose: (c) => this.choose(c),
    });
    this.network = new Network({
      resize: (hidden) => this.set({ hidden }),
      look: (unit) => this.plane.look(unit),
    });
    this.fields();
    this.show(await resume());
    onTheme(() => this.redraw());
    new ResizeObserver(() => this.curves()).observe($("loss-curve"));
    document.addEventListener("visibilitychange", () => document.hidden || this.refresh());
    document.addEventListener("keydown", (event) => this.shortcut(event));
    document.documentElement.dataset.ready = "yes"; // for those who wait for the page
  }

  path(what = "") {
    return `/api/sessions/${this.id}${what && `/${what}`}`;
  }

  rows() {
    return this.state.points.rows.map(([x, y, c]) => [x, y, c]);
  }

  // --- asking, one after the other -------------------------------------------------------------
  ask(request) {
    const before = this.take(); // what was drawn before this was asked for
    const done = this.work.then(async () => {
      try {
        await this.flush(before);
        this.show(await request());
        complain("");
      } catch (error) {
        await this.trouble(error);
      }
    });
    this.work = done;
    return done;
  }

  change(what, body = () => ({})) {
    return this.ask(() => post(this.path(what), body()));
  }

  set(changes) {
    return this.change("settings", () => changes);
  }

  async trouble(error) {
    if (error.status === 404 && this.id) {
      this.show(await begin());
      complain("xpnet no longer knew this page, so a new one has begun.");
      return;
    }
    if (this.state) this.fill(); // fields show again what is true
    complain(error.message);
  }

  async refresh() {
    if (!this.id) return;
    await this.ask(() => get(this.path()));
  }

  // While the network learns: ask for what is new, as fast as it can be drawn.
  async follow() {
    if (this.following) return;
    this.following = true;
    try {
      while (this.state.frame.playing && !document.hidden) {
        const frame = await get(this.path(`frame?since=${this.state.frame.version}`));
        if (frame.version >= this.state.frame.version) this.showFrame(frame);
        await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve, 15)));
      }
    } catch (error) {
      await this.trouble(error);
    } finally {
      this.following = false;
    }
  }

  // --- points ----------------------------------------------------------------------------------
  add(x, y) {
    const row = [Math.round(x * 1000) / 1000, Math.round(y * 1000) / 1000, this.brush];
    this.drawn.push(row);
    this.plane.show(null, [...this.plane.rows, [...row, 0]]);
    this.timer ??= setTimeout(() => {
      this.timer = undefined;
      const rows = this.take();
      this.work = this.work.then(() => this.flush(rows).catch((error) => this.trouble(error)));
    }, 120);
  }

  take() {
    const rows = this.drawn.splice(0);
    this.flying.push(...rows);
    return rows;
  }

  async flush(rows) {
    if (!rows.length) return;
    try {
      this.show(await post(this.path("points"), { rows, add: true }), rows);
    } finally {
      this.flying = this.flying.filter((row) => !rows.includes(row));
    }
  }

  choose(c) {
    this.brush = c;
    $("brushes").querySelectorAll("input")[c].checked = true;
  }

  async upload(file) {
    if (file.size > this.limits.csv_bytes) {
      complain(`${file.name} has ${Math.ceil(file.size / 1024)} KiB; at most ${this.limits.csv_bytes / 1024} KiB are read.`);
      return;
    }
    await this.ask(async () => {
      try {
        return await send(this.path("csv"), await file.arrayBuffer(), "text/csv");
      } catch (error) {
        error.message = `${file.name}: ${error.message}`;
        throw error;
      }
    });
  }

  generate(name) {
    return this.change("preset", () => ({
      name, n: Number($("n").value), noise: Number($("noise").value), classes: Number($("classes").value),
      seed: Number($("seed").value),
    }));
  }

  // --- showing ---------------------------------------------------------------------------------
  show(state, arrived = []) {
    this.state = state;
    this.id = state.id;
    this.network.build(state.architecture, this.limits);
    this.plane.show(null, [...state.points.rows, ...[...this.flying, ...this.drawn].filter((row) => !arrived.includes(row)).map((row) => [...row, 0])]);
    this.fill();
    this.showFrame(state.frame);
    this.follow();
  }

  showFrame(frame) {
    this.state.frame = frame;
    this.plane.show(frame);
    this.network.show(frame);
    this.curves();
    $("epoch").textContent = frame.epoch.toLocaleString("en");
    const play = $("play");
    play.classList.toggle("on", frame.playing);
    play.setAttribute("aria-label", frame.playing ? "Pause" : "Play");
    const { kind, text } = frame.message;
    const message = $("message");
    const words = text || (kind === "paused" || (kind === "ready" && frame.epoch > 0) ? LABELS.paused : LABELS[kind]) || "";
    if (message.textContent !== words) message.textContent = words;
    message.className = `message ${kind}`;
    for (const part of ["train", "valid"]) {
      const last = (name) => frame.curves[`${part}_${name}`].at(-1);
      const [accuracy, loss] = [last("accuracy"), last("loss")];
      $(`${part}-accuracy`).textContent = accuracy == null ? "–" : `${(100 * accuracy).toFixed(1)} %`;
      $(`${part}-loss`).textContent = loss == null ? "no loss yet" : `loss ${loss < 1e-3 || loss >= 1e4 ? loss.toExponential(1) : loss.toFixed(3)}`;
    }
  }

  curves() {
    if (!this.state) return;
    drawCurve($("loss-curve"), this.state.frame.curves, "loss", "");
    drawCurve($("accuracy-curve"), this.state.frame.curves, "accuracy", "%");
  }

  redraw() {
    this.showFrame(this.state.frame);
    this.thumbnails();
  }

  // --- fields ----------------------------------------------------------------------------------
  fields() {
    const option = (name) => (v) => new Option(TEXT[`${name}-${v}`] ?? `${v}`.replaceAll("_", " "), v);
    for (const [name, values] of Object.entries({ ...CHOICES, activation: this.limits.activations, optimizer: this.limits.optimizers })) {
      $(name).append(...values.map(option(name)));
      $(name).addEventListener("change", () => this.set({ [name]: name in CHOICES ? Number($(name).value) : $(name).value }));
    }
    $("speed").addEventListener("change", () => this.set({ speed: $("speed").value }));
    $("seed").addEventListener("change", () => this.set({ seed: Number($("seed").value) }).then(() => this.recipe && this.again()));
    const range = (id, show, act) => {
      $(id).addEventListener("input", show);
      $(id).addEventListener("change", act);
      show();
    };
    range("noise", () => ($("noise-value").textContent = Number($("noise").value).toFixed(2)), () => this.again());
    range("held_out", () => ($("held-value").textContent = `${Math.round(100 * $("held_out").value)} %`), () => this.set({ held_out: Number($("held_out").value) }));
    for (const id of ["classes", "n"]) $(id).addEventListener("change", () => this.again());
    $("clear").onclick = () => this.change("points", () => ({ rows: [] }));
    $("csv").onchange = async () => {
      const [file] = $("csv").files;
      $("csv").value = "";
      if (file) await this.upload(file);
    };
    $("play").onclick = () => this.change("play", () => ({ playing: !this.state.frame.playing }));
    $("step").onclick = () => this.change("step", () => ({ epochs: 1 }));
    $("reset").onclick = () => this.change("reset");
    const layers = (by) => () => {
      const { hidden } = this.state.settings;
      this.set({ hidden: by > 0 ? [...hidden, hidden.at(-1) ?? 4] : hidden.slice(0, -1) });
    };
    $("more-layers").onclick = layers(1);
    $("fewer-layers").onclick = layers(-1);
    this.makeBrushes();
    this.makePresets();
  }

  get recipe() {
    return this.state.points.recipe; // null for points that were drawn or uploaded
  }

  again() {
    return this.recipe && this.generate(this.recipe.name);
  }

  // Put what the server says into the fields.
  fill() {
    const { settings, points } = this.state;
    for (const name of [...Object.keys(CHOICES), "activation", "optimizer", "speed", "seed"]) {
      const field = $(name);
      const value = String(settings[name]);
      if (field.options && ![...field.options].some((o) => o.value === value)) field.append(new Option(value, value));
      if (field !== document.activeElement || field.value !== value) field.value = value;
    }
    $("held_out").value = settings.held_out;
    $("held-value").textContent = `${Math.round(100 * settings.held_out)} %`;
    $("layers").textContent = settings.hidden.length;
    $("fewer-layers").disabled = !settings.hidden.length;
    $("more-layers").disabled = settings.hidden.length >= this.limits.layers;
    $("note").hidden = !points.note;
    $("note").textContent = points.note;
    if (points.recipe) {
      for (const name of ["n", "noise"]) $(name).value = points.recipe[name];
      $("noise-value").textContent = points.recipe.noise.toFixed(2);
      if (!this.limits.two_classes.includes(points.recipe.name)) $("classes").value = points.recipe.classes;
    }
    $("classes").disabled = this.limits.two_classes.includes(points.recipe?.name);
    $("presets").querySelectorAll("button").forEach((b) => {
      const on = b.dataset.preset === points.recipe?.name;
      b.classList.toggle("on", on);
      b.setAttribute("aria-pressed", on);
    });
    $("brushes").querySelectorAll("span").forEach((span, c) => (span.textContent = points.names[c] ?? `${c + 1}`));
  }

  makeBrushes() {
    CLASSES.forEach((c, i) => {
      const mark = element("canvas", { width: 36, height: 36 });
      Object.assign(mark.style, { width: "18px", height: "18px" });
      const g = mark.getContext("2d");
      trace(g, c.shape, 18, 18, 11);
      g.fillStyle = css(pointColour(i));
      g.fill();
      const input = element("input", { type: "radio", name: "brush", checked: i === 0, onchange: () => (this.brush = i), "aria-label": `Class ${i + 1}` });
      $("brushes").append(element("label", {}, input, mark, element("span", { textContent: `${i + 1}` })));
    });
  }

  makePresets() {
    for (const name of this.limits.presets) {
      const picture = element("canvas", { width: 88, height: 88 });
      const button = element("button", { type: "button", "data-preset": name, onclick: () => this.generate(name) }, picture, name);
      $("presets").append(button);
    }
    this.thumbnails();
  }

  thumbnails() {
    const around = (r, a) => [r * Math.cos(a), r * Math.sin(a)];
    const shapes = {
      blobs: (k, t) => [0.45 * (k ? -1 : 1) + 0.3 * Math.cos(9 * t), 0.45 * (k ? -1 : 1) + 0.3 * Math.sin(23 * t)],
      circles: (k, t) => around(k ? 0.78 : 0.25, 6.28 * t),
      moons: (k, t) => (k ? [0.35 - 0.55 * Math.cos(3.14 * t), 0.12 - 0.6 * Math.sin(3.14 * t)] : [-0.2 + 0.55 * Math.cos(3.14 * t), -0.12 + 0.6 * Math.sin(3.14 * t)]),
      spirals: (k, t) => around(0.85 * Math.sqrt(t), 9 * Math.sqrt(t) + 3.14 * k),
      xor: (k, t, i) => [(i % 2 ? 1 : -1) * (0.2 + 0.6 * t), ((i + k) % 2 ? 1 : -1) * (0.2 + 0.6 * ((7 * t) % 1))],
    };
    $("presets").querySelectorAll("button").forEach((button) => {
      const g = button.firstChild.getContext("2d");
      g.clearRect(0, 0, 88, 88);
      for (let k = 0; k < 2; k++)
        for (let i = 0; i < 22; i++) {
          const [x, y] = shapes[button.dataset.preset]?.(k, (i + 0.5) / 22, i) ?? [0, 0];
          trace(g, CLASSES[k].shape, 44 + 40 * x, 44 - 40 * y, 3.6);
          g.fillStyle = css(pointColour(k));
          g.fill();
        }
    });
  }

  shortcut(event) {
    if ($("points").hidden || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, select, textarea")) return;
    const button = { p: "play", s: "step", r: "reset" }[event.key.toLowerCase()];
    if (button) $(button).click();
  }
}
