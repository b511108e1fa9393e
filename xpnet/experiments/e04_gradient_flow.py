"""Gradients on their way down through ten layers.

The gradient of a deep net is a product with one factor f'(z) per layer. The sigmoid's slope is at most 1/4, so
the product shrinks on its way to the first layer; the ReLU's is 0 or 1, and He's initial weights keep its size.
"""

import numpy as np

import xpnet
from xpnet.testing import trace

from .lab import COLOURS, STYLES, Lab

CLAIM = "Gradient norms per layer at the start: the sigmoid's vanish with depth, the ReLU's do not."


def gradient_norms(activation: str, depth: int, width: int, seeds: range, device: str = "cpu") -> np.ndarray:
    """Norm of dJ/dW of each layer, first layer first; the median over a population of starts."""
    g = np.random.default_rng(0)
    x, y = g.normal(size=(200, width)), g.integers(0, 10, 200)
    nets = xpnet.MLP([width, *[width] * depth, 10], activation=activation, n_models=len(seeds), seed=seeds[0],
                     dtype="float64", device=device)  # fmt: skip
    layers = trace(nets, x, y)
    norms = [np.linalg.norm(layer.gradients["weight"], axis=(-2, -1)) for layer in layers]
    return np.median(norms, axis=1)


def run(lab: Lab) -> None:
    depth, width, starts = 10, 50, range(4 if lab.quick else 30)
    norms = {
        name: gradient_norms(name, depth, width, starts, lab.device) for name in ("sigmoid", "tanh", "relu")
    }
    lab.say(
        f"  {depth} hidden layers of {width} units, median over {len(starts)} starts (seeds 0 to {starts[-1]})"
    )
    lab.say("  layer   " + "  ".join(f"{name:>9}" for name in norms))
    for i, row in enumerate(zip(*norms.values(), strict=True), 1):
        lab.say(f"  {i:5d}   " + "  ".join(f"{value:9.2e}" for value in row))
    ratio = {name: values[0] / values[-1] for name, values in norms.items()}
    lab.say("  first / last: " + ", ".join(f"{name} {r:.2g}" for name, r in ratio.items()))
    lab.record(norms=norms, first_to_last=ratio)
    lab.claim("sigmoid: the first layer's gradient is below 1 % of the last one's", ratio["sigmoid"] < 0.01)
    lab.claim("ReLU: it is not", ratio["relu"] > 0.1)
    lab.claim("tanh: it is not either", ratio["tanh"] > 0.1)

    figure, axes = lab.figure(height=3.2)
    ax = axes[0, 0]
    for (name, values), colour, style, marker in zip(norms.items(), COLOURS, STYLES, "os^", strict=False):
        ax.semilogy(range(1, len(values) + 1), values, color=colour, linestyle=style, marker=marker, markersize=4,
                    label={"relu": "ReLU"}.get(name, name))  # fmt: skip
    ax.set(xlabel="layer (1 is next to the input)", ylabel=r"gradient norm $\|\partial J/\partial W\|$")
    ax.set_xticks(range(1, depth + 2))
    ax.legend()
    lab.save(figure, "gradient_flow")
