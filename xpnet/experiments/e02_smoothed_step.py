"""The sigmoid is a smoothed step, so that small changes have small effects.

A perceptron flips or does not; a sigmoid neuron moves a little. To first order its output changes by the sum
of dout/dw dw over all weights, and that is what makes learning by small changes possible.
"""

import numpy as np

import xpnet
from xpnet.testing import trace

from .lab import BLUE, GREEN, RED, Lab

CLAIM = "A small change of the weights changes the output by the sum of dout/dw dw, up to second order."


def run(lab: Lab) -> None:
    neuron = xpnet.MLP([3, 1], output_activation="sigmoid", dtype="float64", device=lab.device)
    start = {"layers.0.weight": np.array([[0.6, -1.1, 0.4]]), "layers.0.bias": np.array([0.2])}
    neuron.set_weights(start)
    x = np.array([[0.5, 1.0, -2.0]])
    out = neuron.outputs(x).item()

    # With squared error (h - y)^2 / 2 and the target y = out - 1, dJ/dh is 1: the gradients are dout/dw.
    (layer,) = trace(neuron, x, [[out - 1.0]], loss="squared_error")
    direction = {"weight": np.array([[0.5, -1.0, 1.0]]), "bias": np.array([0.25])}
    slope = sum(float((layer.gradients[k] * direction[k]).sum()) for k in direction)

    sizes = np.array([0.5, 0.25, 0.1, 0.05, 0.025, 0.01])
    real = []
    for size in sizes:
        neuron.set_weights({f"layers.0.{k}": start[f"layers.0.{k}"] + size * d for k, d in direction.items()})
        real.append(neuron.outputs(x).item() - out)
    predicted = sizes * slope
    error = np.abs(np.array(real) - predicted)
    lab.say(f"  output {out:.6f}; sum of dout/dw dw = {slope:.6f} per unit of change")
    lab.say("    size    predicted        real       error")
    for row in zip(sizes, predicted, real, error, strict=True):
        lab.say("  {:6.3f}  {:11.7f} {:11.7f}  {:10.2e}".format(*row))
    order = float(np.log(error[-2] / error[-1]) / np.log(sizes[-2] / sizes[-1]))
    lab.record(output=out, slope=slope, sizes=sizes, predicted=predicted, real=real, order=order)
    lab.claim(f"the error of the prediction falls as the square of the change (order {order:.2f})",
              1.9 < order < 2.1)  # fmt: skip

    z = np.linspace(-6, 6, 401)
    figure, axes = lab.figure(1, 2, height=3.0)
    left, right = axes[0]
    for sharpness, colour, style in ((1, BLUE, "-"), (4, GREEN, "-.")):
        unit = xpnet.MLP([1, 1], output_activation="sigmoid")
        unit.set_weights({"layers.0.weight": np.array([[sharpness]]), "layers.0.bias": np.array([0.0])})
        label = "sigmoid(z)" if sharpness == 1 else f"sigmoid({sharpness}z)"
        left.plot(z, unit.outputs(z[:, None])[:, 0], color=colour, linestyle=style, label=label)
    left.plot(z, z > 0, color=RED, linestyle="--", label="step(z)")
    left.set(xlabel="weighted sum z", ylabel="output", title="step and sigmoid")
    left.legend(loc="lower right")
    right.plot(
        sizes,
        predicted,
        color=RED,
        linestyle="--",
        label=r"predicted: $\sum\,\Delta w\;\partial y/\partial w$",
    )
    right.plot(sizes, real, color=BLUE, marker="o", markersize=4, linestyle="", label="real change")
    right.set(
        xlabel="size of the change of the weights", ylabel="change of the output", title="a small change"
    )
    right.legend()
    lab.save(figure, "smoothed_step")
