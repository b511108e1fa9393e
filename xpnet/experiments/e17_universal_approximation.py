"""Universal approximation in one dimension.

A sum of indicators can follow any continuous function: every step of a staircase is one unit with the step
activation, its weight the height of the step. Training a net of tanh units does the same far better. Each
width is a population of random starts.
"""

import numpy as np

import xpnet

from .lab import BLUE, RED, Lab

CLAIM = "The error against a wiggly function falls with the number of hidden units, built or trained."


def wiggly(x: np.ndarray) -> np.ndarray:
    return np.sin(2 * x) + 0.5 * np.sin(5 * x + 1)


def staircase(units: int, device: str = "cpu") -> xpnet.MLP:
    """A net that is a sum of indicators: unit k switches on at e_k and lifts the output to f(middle of step k)."""
    ends = np.linspace(-2, 2, units + 1)
    heights = wiggly((ends[:-1] + ends[1:]) / 2)
    net = xpnet.MLP([1, units, 1], activation="step", dtype="float64", device=device)
    ends[0] = -10.0  # on from the start
    net.set_weights({"layers.0.weight": np.ones((units, 1)), "layers.0.bias": -ends[:-1],
                     "layers.1.weight": np.diff(heights, prepend=0.0)[None], "layers.1.bias": np.zeros(1)})  # fmt: skip
    return net


def run(lab: Lab) -> None:
    widths = (2, 8, 32) if lab.quick else (1, 2, 4, 8, 16, 32, 64)
    starts, epochs = (3, 500) if lab.quick else (10, 4000)
    x = np.linspace(-2, 2, 200)[:, None]
    y = wiggly(x)
    fine = np.linspace(-2, 2, 1001)[:, None]
    built, trained, best = {}, {}, {}
    lab.say(f"  root mean square error; trained: median (best) of {starts} starts")
    lab.say("  hidden units   staircase     trained        best")
    for width in widths:
        built[width] = np.sqrt(np.mean((staircase(width, lab.device).outputs(fine) - wiggly(fine)) ** 2))
        nets = xpnet.MLP([1, width, 1], activation="tanh", n_models=starts, seed=0, device=lab.device)
        xpnet.fit(nets, (x, y), loss="squared_error", optimizer=xpnet.Adam(lr=0.02), schedule="cosine",
                  epochs=epochs, batch_size=50)  # fmt: skip
        errors = np.sqrt(np.mean((nets.outputs(fine) - wiggly(fine)) ** 2, axis=(1, 2)))
        trained[width], best[width] = np.median(errors), errors.min()
        lab.say(f"  {width:12d}   {built[width]:9.4f}   {trained[width]:9.4f}   {best[width]:9.4f}")
        if width == 8:
            shown = nets.member(int(errors.argmin())).outputs(fine)
    lab.record(widths=widths, staircase=built, trained_median=trained, trained_best=best)
    low, high = widths[0], widths[-1]
    times = 2 if lab.quick else 10
    lab.claim("the staircase's error falls at every doubling", all(np.diff([built[w] for w in widths]) < 0))
    lab.claim(
        f"the trained net's median error falls more than {times} times from {low} to {high} units",
        trained[low] > times * trained[high],
    )
    lab.claim("with 8 units the trained net beats the staircase more than twice", 2 * trained[8] < built[8])

    figure, axes = lab.figure(1, 2, height=3.1)
    left, right = axes[0]
    left.plot(fine, wiggly(fine), color="black", linewidth=3, alpha=0.35, label="target")
    left.plot(fine, staircase(8).outputs(fine), color=RED, linestyle="--", label="8 indicators")
    left.plot(fine, shown, color=BLUE, label="8 tanh units, trained")
    left.set(xlabel="x", ylabel="y", title="eight hidden units", ylim=(-1.7, 3.0))
    left.legend(loc="upper left")
    right.loglog(
        widths, list(built.values()), color=RED, linestyle="--", marker="s", markersize=4, label="staircase"
    )
    right.loglog(
        widths, list(trained.values()), color=BLUE, marker="o", markersize=4, label="trained (median)"
    )
    right.set_xticks(widths, widths)
    right.set_yticks([0.02, 0.05, 0.1, 0.2, 0.5, 1.0], ["0.02", "0.05", "0.1", "0.2", "0.5", "1"])
    right.minorticks_off()
    right.set(xlabel="hidden units", ylabel="root mean square error", title="error")
    right.legend()
    lab.save(figure, "approximation")
