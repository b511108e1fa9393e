"""Full-batch, mini-batch and single-sample descent on one loss surface.

One linear neuron tells pictures of 1 from pictures of 0 by a single number, the ink in the middle. It has one
weight and one bias, so that the loss (squared error) is a surface that can be drawn.
"""

import numpy as np

import xpnet

from .lab import COLOURS, STYLES, Lab

CLAIM = "The full batch goes straight down, single samples stagger; per pass over the data they get further."


class Path(xpnet.Callback):
    """Weight and bias after every update."""

    def __init__(self) -> None:
        self.points: list[tuple[float, float]] = []

    def on_train_start(self, trainer: xpnet.Trainer) -> None:
        self._note(trainer)

    def on_step_end(self, trainer: xpnet.Trainer) -> None:
        self._note(trainer)

    def _note(self, trainer: xpnet.Trainer) -> None:
        w = trainer.model.get_weights()
        self.points.append((w["layers.0.weight"].item(), w["layers.0.bias"].item()))


def run(lab: Lab) -> None:
    pictures = lab.pictures()
    chosen = np.flatnonzero(pictures.y_train < 2)[:200]
    height, width = pictures.sample_shape
    middle = pictures.x_train[chosen, height // 4 : -(height // 4), 3 * width // 8 : -(3 * width // 8)]
    ink = middle.mean(axis=(1, 2)) * pictures.scale
    x, y = ((ink - ink.mean()) / ink.std())[:, None], 2.0 * pictures.y_train[chosen][:, None] - 1.0

    def loss(w: np.ndarray, b: np.ndarray) -> np.ndarray:
        return 0.5 * np.mean((w[..., None] * x[:, 0] + b[..., None] - y[:, 0]) ** 2, axis=-1)

    slope, height_at_0 = np.polyfit(x[:, 0], y[:, 0], 1)
    lowest = float(loss(slope, height_at_0))
    passes = 40
    paths, straight, first = {}, {}, {}
    lab.say(f"  {len(x)} pictures, {passes} passes, learning rate 0.05")
    lab.say("  batch size   updates   straightness   loss after 1 pass   after all")
    for name, batch in {"full batch": len(x), "mini-batch of 20": 20, "single samples": 1}.items():
        neuron = xpnet.MLP([1, 1], dtype="float64", device=lab.device)
        neuron.set_weights({"layers.0.weight": np.array([[-1.5]]), "layers.0.bias": np.array([1.5])})
        path = Path()
        xpnet.fit(neuron, (x, y), loss="squared_error", optimizer=xpnet.SGD(lr=0.05), epochs=passes,
                  batch_size=batch, callbacks=[path])  # fmt: skip
        p = np.array(path.points)
        per_pass = len(x) // batch
        along = loss(p[:, 0], p[:, 1])
        down = int(np.argmax(along <= lowest + 0.1 * (along[0] - lowest)))  # 90 % of the way down
        lengths = np.linalg.norm(np.diff(p[: down + 1], axis=0), axis=1)
        straight[name] = float(np.linalg.norm(p[down] - p[0]) / lengths.sum())  # 1: a straight line
        paths[name] = p
        first[name] = float(loss(*p[per_pass]))
        lab.say(f"  {batch:10d}   {len(p) - 1:7d}   {straight[name]:12.3f}   {first[name]:17.4f}"
                f"   {float(loss(*p[-1])):9.4f}")  # fmt: skip
    full, mini, single = straight.values()
    lab.record(straightness=straight, loss_after_one_pass=first)
    lab.claim("straightness of the way down: full batch > mini-batch > single samples", full > mini > single)
    lab.claim(
        "after one pass single samples are lower than the full batch",
        first["single samples"] < first["full batch"],
    )

    figure, axes = lab.figure(1, 2, height=3.5)
    left, right = axes[0]
    every = np.concatenate(list(paths.values()))
    low, high = every.min(axis=0) - 0.3, every.max(axis=0) + 0.3
    w, b = np.meshgrid(np.linspace(low[0], high[0], 80), np.linspace(low[1], high[1], 80))
    levels = np.geomspace(max(float(loss(w, b).min()), 1e-3), float(loss(w, b).max()), 14)
    left.contour(w, b, loss(w, b), levels=levels, colors="#BBBBBB", linewidths=0.8)
    for (name, p), colour, style in list(zip(paths.items(), COLOURS, STYLES, strict=False))[::-1]:
        thin = name == "single samples"
        left.plot(*p.T, color=colour, linewidth=0.5 if thin else 1.5, marker="o" if not thin else "", markersize=2.5,
                  alpha=0.7 if thin else 1.0)  # fmt: skip
        curve = loss(p[:, 0], p[:, 1])
        right.semilogy(np.linspace(0, passes, len(curve)), curve, color=colour, linestyle="-" if thin else style,
                       linewidth=0.7 if thin else 1.7, label=name)  # fmt: skip
    left.plot(*paths["full batch"][0], color="black", marker="*", markersize=10, linestyle="")
    left.annotate("start", paths["full batch"][0], xytext=(6, 6), textcoords="offset points")
    left.set(xlabel="weight w", ylabel="bias b", title="the paths")
    right.set(xlabel="passes over the data", ylabel="loss (squared error)", title="the loss of all pictures")
    right.legend()
    lab.save(figure, "three_descents")
