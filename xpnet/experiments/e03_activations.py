"""Activation functions, their slopes, and where gradients vanish."""

import numpy as np

import xpnet
from xpnet.testing import trace

from .lab import BLUE, RED, Lab

CLAIM = "Sigmoid and tanh saturate on both sides, ReLU on the left, where leaky ReLU keeps a slope of 1 %."

NAMES = ("sigmoid", "tanh", "relu", "leaky_relu", "softplus", "elu", "gelu", "silu", "softsign")
FLAT = 0.05  # of the steepest slope: below that the function counts as saturated


def curve(name: str, z: np.ndarray, device: str = "cpu") -> tuple[np.ndarray, np.ndarray]:
    """Return f(z) and f'(z) of one neuron with weight 1 and bias 0, from the library's own step."""
    neuron = xpnet.MLP([1, 1], output_activation=name, dtype="float64", device=device)
    neuron.set_weights({"layers.0.weight": np.array([[1.0]]), "layers.0.bias": np.array([0.0])})
    y = neuron.outputs(z[:, None])
    (layer,) = trace(neuron, z[:, None], y - 1.0, loss="squared_error")  # h - y = 1, so dJ/dz = f'(z) / B
    assert layer.dz is not None
    return y[:, 0], layer.dz[:, 0] * len(z)


def run(lab: Lab) -> None:
    z = np.linspace(-8, 8, 321 if lab.quick else 1601)
    flat = {}
    lab.say("  name          steepest   saturated (slope < 5 % of it)")
    for name in NAMES:
        y, slope = curve(name, z, lab.device)
        saturated = np.abs(slope) < FLAT * np.abs(slope).max()
        alive = z[~saturated]
        flat[name] = (alive[0] if saturated[0] else None, alive[-1] if saturated[-1] else None)
        where = [f"below {alive[0]:.2f}"] if saturated[0] else []
        where += [f"above {alive[-1]:.2f}"] if saturated[-1] else []
        lab.say(f"  {name:12} {np.abs(slope).max():9.3f}   {', '.join(where) or 'nowhere'}")

        figure, axes = lab.figure(height=2.7)
        ax = axes[0, 0]
        ax.plot(z, y, color=BLUE, label="f(z)")
        ax.plot(z, slope, color=RED, linestyle="--", label="f'(z)")
        low, high = max(y.min(), -2.0), min(y.max(), 3.0)
        ax.set(
            xlabel="weighted sum z",
            ylabel="value",
            title=name,
            ylim=(min(low, 0) - 0.15, max(high, 1) + 0.15),
        )
        ax.fill_between(z, 0, 1, where=saturated, color="#DDDDDD", transform=ax.get_xaxis_transform(),
                        label="saturated")  # fmt: skip
        ax.legend(loc="upper left")
        lab.save(figure, name)

    figure, grid = lab.figure(3, 3, height=5.6, sharex=True)
    for ax, name in zip(grid.flat, NAMES, strict=True):
        y, slope = curve(name, z, lab.device)
        ax.plot(z, y, color=BLUE, label="f(z)")
        ax.plot(z, slope, color=RED, linestyle="--", label="f'(z)")
        saturated = np.abs(slope) < FLAT * np.abs(slope).max()
        ax.fill_between(z, 0, 1, where=saturated, color="#DDDDDD", transform=ax.get_xaxis_transform(),
                        label="saturated")  # fmt: skip
        ax.set(title=name, ylim=(-1.2, 2.2))
    for ax in grid[-1]:
        ax.set_xlabel("weighted sum z")
    for ax in grid[:, 0]:
        ax.set_ylabel("value")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    lab.save(figure, "overview")

    lab.record(saturated={name: list(ends) for name, ends in flat.items()})
    lab.claim(
        "sigmoid and tanh saturate on both sides", all(None not in flat[n] for n in ("sigmoid", "tanh"))
    )
    lab.claim("ReLU saturates on the left only", flat["relu"][0] is not None and flat["relu"][1] is None)
    # leaky ReLU's slope on the left is 1 %, small but never zero
    lab.claim(
        "leaky ReLU keeps a slope of 0.01 on the left", np.isclose(curve("leaky_relu", z)[1].min(), 0.01)
    )
