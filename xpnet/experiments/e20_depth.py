"""Depth: one to five hidden layers with the same number of parameters.

Each depth gets the width that makes the parameter count as equal as whole numbers allow. The random starts of
one depth are a population.
"""

import numpy as np

import xpnet

from .lab import BLUE, GREEN, Lab, classifier

CLAIM = "Accuracy against depth at equal size: for digits and a plain MLP, depth beyond two changes little."


def width_for(depth: int, inputs: int, outputs: int, parameters: int) -> int:
    """The width of `depth` equal hidden layers that comes nearest to a number of parameters."""

    def count(w: int) -> int:
        return (inputs + 1) * w + (depth - 1) * (w + 1) * w + (w + 1) * outputs

    return min(range(2, 2000), key=lambda w: abs(count(w) - parameters))


def run(lab: Lab) -> None:
    pictures = lab.pictures()
    mnist = lab.data == "mnist"
    starts, epochs = (2, 25) if lab.quick else (3, 5) if mnist else (5, 60)
    goal = 100_000 if mnist else 20_000
    accuracy, sizes = {}, {}
    lab.say(f"  {starts} starts each, {epochs} epochs; mean (lowest to highest) test accuracy")
    for depth in range(1, 6):
        width = width_for(depth, pictures.n_features, pictures.n_classes, goal)
        nets = classifier(pictures, *[width] * depth, activation="relu", n_models=starts, device=lab.device)
        xpnet.fit(nets, (pictures.x_train, pictures.y_train), optimizer=xpnet.Adam(lr=2e-3), schedule="cosine",
                  epochs=epochs, batch_size=100)  # fmt: skip
        a = np.array(xpnet.evaluate(nets, (pictures.x_test, pictures.y_test))["accuracy"])
        accuracy[depth], sizes[depth] = a, nets.n_parameters
        lab.say(f"  {depth} hidden, width {width:4d}, {nets.n_parameters:7,d} parameters:"
                f"  {a.mean():.2%} ({a.min():.2%} to {a.max():.2%})")  # fmt: skip
    means = {depth: float(a.mean()) for depth, a in accuracy.items()}
    lab.record(accuracy=accuracy, mean=means, parameters=sizes)
    spread = max(means.values()) - min(means.values())
    gap = max(abs(n - goal) for n in sizes.values()) / goal
    lab.claim(f"the nets are equal in size to 2 % ({gap:.1%})", gap < 0.02)
    lab.claim(f"all depths learn: {min(means.values()):.2%} or better", min(means.values()) > 0.93)
    lab.claim(
        f"the best and the worst depth differ by less than 2 points ({100 * spread:.2f})", spread < 0.02
    )

    figure, axes = lab.figure(height=2.9)
    ax = axes[0, 0]
    for depth, a in accuracy.items():
        ax.plot([depth] * len(a), 100 * a, color=GREEN, marker="o", markersize=4, linestyle="", alpha=0.7,
                label="one start" if depth == 1 else None)  # fmt: skip
    ax.plot(list(means), [100 * m for m in means.values()], color=BLUE, marker="s", label=f"mean of {starts}")
    ax.set_xticks(range(1, 6))
    ax.set(xlabel="hidden layers", ylabel="test accuracy (%)")
    ax.legend()
    lab.save(figure, "depth")
