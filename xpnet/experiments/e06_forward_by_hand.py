"""The forward pass by hand: node by node, and as matrices.

The net has 3 inputs, 4 hidden units and 2 outputs, all sigmoid: 20 weights and 6 biases. First every node is
computed on its own, a_j = f(sum_i w_ji x_i + b_j); then the same in one line per layer, a = f(W x + b).
"""

import math

import numpy as np

import xpnet
from xpnet.testing import trace

from .lab import BLUE, RED, Lab

CLAIM = "The 3-4-2 net computed node by node equals the matrix form f(W x + b) and the library."

W1 = np.array([[0.1, 0.2, -0.3], [0.4, -0.5, 0.6], [-0.7, 0.8, 0.9], [0.3, -0.2, 0.1]])
B1 = np.array([0.1, -0.1, 0.2, 0.0])
W2 = np.array([[0.5, -0.4, 0.3, 0.2], [-0.6, 0.1, 0.7, -0.8]])
B2 = np.array([0.05, -0.05])
X = np.array([1.0, 0.5, -1.0])


def network(device: str = "cpu") -> xpnet.MLP:
    net = xpnet.MLP(
        [3, 4, 2], activation="sigmoid", output_activation="sigmoid", dtype="float64", device=device
    )
    net.set_weights({"layers.0.weight": W1, "layers.0.bias": B1, "layers.1.weight": W2, "layers.1.bias": B2})
    return net


def node(weights: np.ndarray, bias: float, inputs: list[float]) -> tuple[float, float]:
    """One neuron in plain Python: z = sum_i w_i x_i + b and a = 1 / (1 + exp(-z))."""
    z = sum(float(w) * x for w, x in zip(weights, inputs, strict=True)) + bias
    return z, 1.0 / (1.0 + math.exp(-z))


def run(lab: Lab) -> None:
    by_hand, inputs = [], [float(v) for v in X]
    lab.say(f"  x = {X}")
    for layer, (w, b) in enumerate(((W1, B1), (W2, B2)), 1):
        nodes = []
        for j, (row, bias) in enumerate(zip(w, b, strict=True), 1):
            z, a = node(row, float(bias), inputs)
            terms = " ".join(f"{v:+g}*({i:.4g})" for v, i in zip(row, inputs, strict=True))
            lab.say(f"  layer {layer}, node {j}: z = {terms} {bias:+g} = {z:+.6f}   a = {a:.6f}")
            nodes.append((z, a))
        by_hand.append(nodes)
        inputs = [a for _, a in nodes]

    def f(z: np.ndarray) -> np.ndarray:
        return 1.0 / (1.0 + np.exp(-z))

    a1 = f(W1 @ X + B1)
    a2 = f(W2 @ a1 + B2)
    net = network(lab.device)
    layers = trace(net, X[None], [[0.0, 0.0]], loss="squared_error")
    lab.say("  matrix form: a1 = f(W1 x + b1) = " + np.array2string(a1, precision=6))
    lab.say("               a2 = f(W2 a1 + b2) = " + np.array2string(a2, precision=6))
    lab.say("  the library: " + np.array2string(layers[-1].y[0], precision=6))
    hand = [np.array(nodes)[:, 1] for nodes in by_hand]
    gap_matrix = max(float(np.abs(h - m).max()) for h, m in zip(hand, (a1, a2), strict=True))
    gap_library = max(float(np.abs(h - layer.y[0]).max()) for h, layer in zip(hand, layers, strict=True))
    lab.record(
        hidden=a1, output=a2, parameters=net.n_parameters, gap_matrix=gap_matrix, gap_library=gap_library
    )
    lab.claim("3-4-2 has 26 learnable numbers", net.n_parameters == 26)
    lab.claim("node by node and matrix form agree to 1e-15", gap_matrix < 1e-15)
    lab.claim("so does the library", gap_library < 1e-15)

    figure, axes = lab.figure(height=3.6)
    draw_net(axes[0, 0], [X, a1, a2], [W1, W2])
    lab.save(figure, "forward")


def draw_net(ax, values, weights) -> None:
    """Draw the net with the value of each node; line width is the size of a weight, colour its sign."""
    for column, (w, left, right) in enumerate(zip(weights, values[:-1], values[1:], strict=True)):
        for j in range(len(right)):
            for i in range(len(left)):
                ax.plot([column, column + 1], [_height(i, left), _height(j, right)], zorder=1,
                        color=BLUE if w[j, i] > 0 else RED, linewidth=0.4 + 3 * abs(w[j, i]),
                        linestyle="-" if w[j, i] > 0 else "--", alpha=0.75)  # fmt: skip
    for column, nodes in enumerate(values):
        for i, value in enumerate(nodes):
            ax.scatter(column, _height(i, nodes), s=1500, color="white", edgecolors="black", zorder=2)
            ax.text(column, _height(i, nodes), f"{value:.3f}", ha="center", va="center", zorder=3)
    for sign, colour, style in (("positive", BLUE, "-"), ("negative", RED, "--")):
        ax.plot([], [], color=colour, linestyle=style, label=f"{sign} weight")
    ax.set_xticks(range(3), ["inputs x", r"hidden $a^{(1)}$", r"outputs $a^{(2)}$"])
    ax.set_yticks([])
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.set(xlim=(-0.3, 2.3), ylim=(-2.0, 2.0))
    ax.legend(loc="lower right")


def _height(i: int, nodes: np.ndarray) -> float:
    return (len(nodes) - 1) / 2 - i
