// A small chart of two lines over the epochs: training (solid) and held out (dashed).

import { sharp, theme } from "./look.js";

function nice(top) {
  const power = 10 ** Math.floor(Math.log10(top));
  return [1, 2, 2.5, 5, 10].map((f) => f * power).find((v) => v >= top * 0.999);
}

const short = (value) => value >= 1e6 ? value.toExponential(0) : (value >= 10_000 ? `${+(value / 1000).toPrecision(3)}k` : `${+value.toPrecision(3)}`);

export function drawCurve(canvas, curves, name, unit) {
  const [g, width, height] = sharp(canvas);
  const look = theme();
  const percent = unit === "%";
  const lines = ["train", "valid"].map((part) => curves[`${part}_${name}`].map((v) => (v === null ? null : percent ? 100 * v : v)));
  const known = lines.flat().filter((v) => v !== null && Number.isFinite(v));
  g.clearRect(0, 0, width, height);
  const [left, right, top, bottom] = [38, 8, 18, 20];
  const high = percent ? 100 : nice(Math.max(...known, 1e-3));
  const low = percent && known.length ? Math.max(0, 10 * Math.floor((Math.min(...known, 90) - 1) / 10)) : 0;
  const last = Math.max(curves.epoch.at(-1) ?? 0, 10);
  const x = (epoch) => left + (epoch / last) * (width - left - right);
  const y = (v) => top + (1 - (Math.min(v, high) - low) / (high - low)) * (height - top - bottom);

  g.font = "11px system-ui, sans-serif";
  g.fillStyle = look.soft;
  g.textAlign = "left";
  g.fillText(percent ? "accuracy (%)" : "loss", 2, 11);
  g.textAlign = "right";
  g.strokeStyle = look.line;
  g.lineWidth = 1;
  for (const v of [low, (low + high) / 2, high]) {
    g.beginPath();
    g.moveTo(left, y(v));
    g.lineTo(width - right, y(v));
    g.stroke();
    g.fillText(short(v), left - 5, y(v) + 4);
  }
  g.textAlign = "left";
  g.fillText("0", left, height - 6);
  g.textAlign = "right";
  g.fillText(`epoch ${short(last)}`, width - right, height - 6);

  lines.forEach((values, i) => {
    g.strokeStyle = i ? look.valid : look.train;
    g.setLineDash(i ? [5, 3] : []);
    g.lineWidth = 2;
    g.lineJoin = "round";
    g.beginPath();
    let down = false;
    values.forEach((v, k) => {
      if (v === null || !Number.isFinite(v)) return (down = false);
      if (down) g.lineTo(x(curves.epoch[k]), y(v));
      else g.moveTo(x(curves.epoch[k]), y(v));
      down = true;
    });
    g.stroke();
  });
  g.setLineDash([]);
  const now = lines.map((values) => values.at(-1));
  const say = (v) => (v === null || v === undefined ? "none" : percent ? `${v.toFixed(1)} percent` : v.toPrecision(3));
  canvas.setAttribute("aria-label", `${percent ? "Accuracy" : "Loss"} after ${curves.epoch.at(-1) ?? 0} epochs: training ${say(now[0])}, held out ${say(now[1])}`);
}
