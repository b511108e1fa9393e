// Colours, markers and canvases that all parts of the page share.

const dark = matchMedia("(prefers-color-scheme: dark)");

// Okabe and Ito (2008): colours that colour-blind readers tell apart. Shapes tell the classes apart as well.
export const CLASSES = [
  { rgb: [0, 114, 178], shape: "circle" },
  { rgb: [213, 94, 0], shape: "triangle" },
  { rgb: [0, 158, 115], shape: "square" },
  { rgb: [204, 121, 167], shape: "diamond" },
];
// Points are brighter on a dark page; regions, which lie under them, are not.
export const pointColour = (c) => CLASSES[c].rgb.map((v) => (dark.matches ? v + 0.3 * (255 - v) : v));
export const NEGATIVE = [230, 159, 0];
export const POSITIVE = [44, 143, 209];

export const css = (rgb, alpha = 1) => `rgb(${rgb[0]} ${rgb[1]} ${rgb[2]} / ${alpha})`;
export const $ = (id) => document.getElementById(id);

export function theme() {
  const style = getComputedStyle(document.documentElement);
  const name = (n) => style.getPropertyValue(n).trim();
  return {
    plane: dark.matches ? [20, 27, 34] : [255, 255, 255],
    ink: name("--ink"), soft: name("--soft"), line: name("--line"), train: name("--train"), valid: name("--valid"),
  };
}
export const onTheme = (redraw) => dark.addEventListener("change", redraw);

export function element(tag, options = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name in made && name !== "list") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

// A canvas as sharp as the screen; coordinates are those of the page.
export function sharp(canvas) {
  const box = canvas.getBoundingClientRect();
  const ratio = window.devicePixelRatio || 1;
  const width = Math.round(box.width * ratio);
  const height = Math.round(box.height * ratio);
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const g = canvas.getContext("2d");
  g.setTransform(ratio, 0, 0, ratio, 0, 0);
  return [g, box.width, box.height];
}

export function bytes(text) {
  const raw = atob(text);
  const found = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) found[i] = raw.charCodeAt(i);
  return found;
}

export function trace(g, shape, x, y, r) {
  g.beginPath();
  if (shape === "circle") g.arc(x, y, r, 0, 2 * Math.PI);
  else if (shape === "square") g.rect(x - 0.88 * r, y - 0.88 * r, 1.76 * r, 1.76 * r);
  else {
    const corners = shape === "triangle" ? [[0, -1.2], [1.1, 0.8], [-1.1, 0.8]] : [[0, -1.3], [1.05, 0], [0, 1.3], [-1.05, 0]];
    corners.forEach(([a, b], i) => (i ? g.lineTo(x + a * r, y + b * r) : g.moveTo(x + a * r, y + b * r)));
    g.closePath();
  }
}

// Orange below zero, blue above; `value` from -1 to 1.
export function diverging(value, middle) {
  const end = value < 0 ? NEGATIVE : POSITIVE;
  const t = Math.min(1, Math.abs(value)) ** 0.8;
  return [0, 1, 2].map((i) => middle[i] + t * (end[i] - middle[i]));
}

// The 256 colours of a byte in which 128 is zero.
export function ramp(middle) {
  return Array.from({ length: 256 }, (_, v) => diverging((v - 128) / 127, middle));
}

export function complain(message) {
  const box = $("alert");
  box.hidden = !message;
  box.firstElementChild.textContent = message || "";
}
