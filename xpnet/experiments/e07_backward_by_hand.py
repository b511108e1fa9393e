"""Back-propagation by hand: every array, with its formula.

The 3-4-2 net of E6 with the squared error J = |a2 - t|^2 / 2. The chain rule, from the output backwards:

    dJ/da2 = a2 - t                 dJ/dz2 = dJ/da2 * a2 (1 - a2)
    dJ/dW2 = dJ/dz2 a1^T            dJ/db2 = dJ/dz2
    dJ/da1 = W2^T dJ/dz2            dJ/dz1 = dJ/da1 * a1 (1 - a1)
    dJ/dW1 = dJ/dz1 x^T             dJ/db1 = dJ/dz1
"""

import numpy as np

import xpnet
from xpnet.testing import check_gradients, trace

from .e06_forward_by_hand import B1, B2, W1, W2, X, network
from .lab import Lab

CLAIM = "Hand-derived gradients equal the library's and the numerical ones."

TARGET = np.array([1.0, 0.0])
RATE = 0.5


def by_hand() -> dict[str, np.ndarray]:
    """All intermediate arrays of one step, in the order in which they are computed."""

    def f(z: np.ndarray) -> np.ndarray:
        return 1.0 / (1.0 + np.exp(-z))

    s = {"z1": W1 @ X + B1}
    s["a1"] = f(s["z1"])
    s["z2"] = W2 @ s["a1"] + B2
    s["a2"] = f(s["z2"])
    s["dJ/da2"] = s["a2"] - TARGET
    s["dJ/dz2"] = s["dJ/da2"] * s["a2"] * (1 - s["a2"])
    s["dJ/dW2"] = np.outer(s["dJ/dz2"], s["a1"])
    s["dJ/db2"] = s["dJ/dz2"]
    s["dJ/da1"] = W2.T @ s["dJ/dz2"]
    s["dJ/dz1"] = s["dJ/da1"] * s["a1"] * (1 - s["a1"])
    s["dJ/dW1"] = np.outer(s["dJ/dz1"], X)
    s["dJ/db1"] = s["dJ/dz1"]
    return s


FORMULAS = {
    "z1": "W1 x + b1", "a1": "f(z1)", "z2": "W2 a1 + b2", "a2": "f(z2)", "dJ/da2": "a2 - t",
    "dJ/dz2": "dJ/da2 * a2 (1 - a2)", "dJ/dW2": "dJ/dz2 a1^T", "dJ/db2": "dJ/dz2", "dJ/da1": "W2^T dJ/dz2",
    "dJ/dz1": "dJ/da1 * a1 (1 - a1)", "dJ/dW1": "dJ/dz1 x^T", "dJ/db1": "dJ/dz1",
}  # fmt: skip


def run(lab: Lab) -> None:
    steps = by_hand()
    for name, array in steps.items():
        text = np.array2string(array, precision=6, suppress_small=True, prefix=" " * 34, max_line_width=110)
        lab.say(f"  {name:6} = {FORMULAS[name]:22} = {text}")

    net = network(lab.device)
    hidden, output = trace(net, X[None], TARGET[None], loss="squared_error")
    assert hidden.z is not None and output.z is not None and hidden.dz is not None and output.dz is not None
    library = {
        "z1": hidden.z[0], "a1": hidden.y[0], "z2": output.z[0], "a2": output.y[0], "dJ/da2": output.dy[0],
        "dJ/dz2": output.dz[0], "dJ/dW2": output.gradients["weight"], "dJ/db2": output.gradients["bias"],
        "dJ/da1": hidden.dy[0], "dJ/dz1": hidden.dz[0], "dJ/dW1": hidden.gradients["weight"],
        "dJ/db1": hidden.gradients["bias"],
    }  # fmt: skip
    gap = max(float(np.abs(library[name] - steps[name]).max()) for name in steps)
    numerical = check_gradients(net, X[None], TARGET[None], loss="squared_error")
    central = check_gradients(net, X[None], TARGET[None], loss="squared_error", method="central")
    before = 0.5 * float((steps["dJ/da2"] ** 2).sum())
    xpnet.fit(net, (X[None], TARGET[None]), loss="squared_error", optimizer=xpnet.SGD(lr=RATE), epochs=1)
    after = 0.5 * float(((net.outputs(X[None])[0] - TARGET) ** 2).sum())
    moved = net.get_weights()["layers.0.weight"] - (W1 - RATE * steps["dJ/dW1"])
    lab.say(f"  by hand and library differ by at most {gap:.1e}; library and complex step by {numerical:.1e}, "
            f"and central differences by {central:.1e}")  # fmt: skip
    lab.say(f"  one step w <- w - {RATE} dJ/dw takes the loss from {before:.6f} to {after:.6f}")
    lab.record(
        steps=steps, gap=gap, complex_step=numerical, central=central, loss_before=before, loss_after=after
    )
    lab.claim("every array by hand equals the library's to 1e-15", gap < 1e-15)
    lab.claim(
        "the numerical gradients agree (1e-14 complex step, 1e-9 central)",
        numerical < 1e-14 and central < 1e-9,
    )
    lab.claim("one SGD step by hand equals the library's, and the loss falls",
              np.abs(moved).max() < 1e-15 and after < before)  # fmt: skip

    figure, axes = lab.figure(1, 2, height=2.9, width_ratios=(3, 4))
    for ax, name, w in ((axes[0, 0], "dJ/dW1", steps["dJ/dW1"]), (axes[0, 1], "dJ/dW2", steps["dJ/dW2"])):
        limit = float(np.abs(w).max())
        image = ax.imshow(w, cmap="RdBu_r", vmin=-limit, vmax=limit)
        for (j, i), value in np.ndenumerate(w):
            ax.text(i, j, f"{value:+.4f}", ha="center", va="center", fontsize=8,
                    color="white" if abs(value) > 0.65 * limit else "black")  # fmt: skip
        ax.set_xticks(range(w.shape[1]), range(1, w.shape[1] + 1))
        ax.set_yticks(range(w.shape[0]), range(1, w.shape[0] + 1))
        ax.set(title=name, xlabel="from unit i", ylabel="to unit j")
        figure.colorbar(image, ax=ax, shrink=0.8)
    lab.save(figure, "gradients")
