"""Many random starts of a small and a large net.

A small net may get stuck at a loss far from its best; a large one has many minima, all about as good. Each size
is one population, which trains all starts in the same matrix products.
"""

import numpy as np

import xpnet

from .lab import BLUE, RED, Lab, two_moons

CLAIM = "The spread of the final loss over random starts is wide for a small net and narrow for a large one."

SMALL, LARGE = 3, 50


def run(lab: Lab) -> None:
    starts, epochs = (30, 250) if lab.quick else (200, 1000)
    x, y = two_moons(200, noise=0.4, seed=1)
    losses = {}
    lab.say(f"  final training loss of {starts} starts (seeds 0 to {starts - 1})")
    lab.say("  hidden units     best    median     worst   standard deviation   5 % to 95 %")
    for width in (SMALL, LARGE):
        nets = xpnet.MLP([2, width, 2], activation="tanh", n_models=starts, seed=0, device=lab.device)
        xpnet.fit(nets, (x, y), optimizer=xpnet.Adam(lr=0.03), l2=1e-3, epochs=epochs, batch_size=len(x))
        losses[width] = np.array(xpnet.evaluate(nets, (x, y))["loss"])
        low, middle, high = np.quantile(losses[width], [0.05, 0.5, 0.95])
        lab.say(f"  {width:12d}   {losses[width].min():6.4f}    {middle:6.4f}    {losses[width].max():6.4f}"
                f"   {losses[width].std():18.5f}   {high - low:11.5f}")  # fmt: skip
    spread = {width: float(values.std()) for width, values in losses.items()}
    ranges = {w: float(np.quantile(v, 0.95) - np.quantile(v, 0.05)) for w, v in losses.items()}
    lab.record(spread=spread, range_5_to_95=ranges, median={w: np.median(v) for w, v in losses.items()},
               worst={w: v.max() for w, v in losses.items()})  # fmt: skip
    for what, of in (("standard deviation", spread), ("5 % to 95 % range", ranges)):
        times = of[SMALL] / of[LARGE]
        lab.claim(
            f"the small net's {what} is more than 10 times the large net's ({times:.0f} times)", times > 10
        )
    lab.claim("the large net's median loss is lower", np.median(losses[LARGE]) < np.median(losses[SMALL]))

    figure, axes = lab.figure(height=3.0)
    ax = axes[0, 0]
    bins = np.linspace(0, max(v.max() for v in losses.values()) * 1.02, 45)
    for (width, values), colour, hatch in zip(losses.items(), (RED, BLUE), ("", "///"), strict=True):
        ax.hist(values, bins=bins, color=colour, alpha=0.75, hatch=hatch, label=f"{width} hidden units",
                edgecolor="white")  # fmt: skip
    ax.set(xlabel="final training loss (nats)", ylabel=f"starts (of {starts}, logarithmic)", yscale="log")
    ax.set_ylim(0.7, 2 * starts)
    ax.legend()
    lab.save(figure, "random_starts")
