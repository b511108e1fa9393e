"""One neuron as a linear classifier: logistic regression and the support vector machine.

The neuron is the same, w . x + b; only the loss differs. Cross-entropy makes it logistic regression, the hinge
loss with a little L2 a linear support vector machine.
"""

import numpy as np

import xpnet

from .lab import Lab, scorer, show_boundary

CLAIM = "One unit, two losses: both find a separating line; the hinge loss cares only about points near it."


def blobs(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    g = np.random.default_rng(seed)
    y = np.arange(n) % 2
    return g.normal(size=(n, 2)) * [0.7, 1.0] + np.where(y[:, None] == 1, [1.6, 0.9], [-1.6, -0.9]), y


def run(lab: Lab) -> None:
    x, y = blobs(200, seed=3)
    xt, yt = blobs(2000, seed=4)
    figure, axes = lab.figure(1, 2, height=3.4)
    accuracies, angles, far = {}, {}, {}
    for ax, (loss, title) in zip(
        axes[0],
        {"binary_cross_entropy": "logistic regression", "hinge": "linear SVM (hinge)"}.items(),
        strict=True,
    ):
        neuron = xpnet.MLP([2, 1], device=lab.device)
        xpnet.fit(neuron, (x, y), loss=loss, task="classification", optimizer=xpnet.Adam(lr=0.05), l2=0.01,
                  epochs=60 if lab.quick else 300, batch_size=50)  # fmt: skip
        w, b = neuron.get_weights()["layers.0.weight"][0], neuron.get_weights()["layers.0.bias"][0]
        accuracies[loss] = xpnet.evaluate(neuron, (xt, yt))["accuracy"]
        angles[loss] = float(np.degrees(np.arctan2(w[1], w[0])))
        margin = (2 * y - 1) * neuron.outputs(x)[:, 0]
        far[loss] = float((margin >= 1).mean())
        lab.say(f"  {title:20} {w[0]:+.3f} x1 {w[1]:+.3f} x2 {b:+.3f} > 0; accuracy on new points "
                f"{accuracies[loss]:.2%}; {far[loss]:.0%} of the points have a margin over 1")  # fmt: skip
        show_boundary(ax, scorer(neuron), x, y, title)
        if loss == "hinge":
            t = np.linspace(-4, 4, 2)
            for level in (-1, 1):
                ax.plot(t, (level - b - w[0] * t) / w[1], color="black", linewidth=0.9, linestyle="--",
                        label="margin, score ±1" if level == 1 else None)  # fmt: skip
            ax.legend(loc="lower right", frameon=True)
    lab.record(accuracy=accuracies, angle_degrees=angles, share_with_margin_over_1=far)
    lab.claim("both are right on at least 95 % of new points", min(accuracies.values()) >= 0.95)
    lab.claim("their lines are within 10 degrees of each other", abs(np.diff(list(angles.values()))[0]) < 10)
    lab.save(figure, "linear_classifier")
