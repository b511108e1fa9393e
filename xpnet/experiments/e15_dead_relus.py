"""Dead ReLUs when the learning rate is too high.

One large step can push a ReLU to where its weighted sum is negative for every picture. Then its slope is 0 and
its weights get no gradient. In the first layer that is for good, since the pictures never change; in the second a
unit may wake up when the first layer changes under it. A unit counts as dead here if no picture gives its
incoming weights any gradient. First 20 updates or so at a far too high rate, then a normal one.
"""

import numpy as np

import xpnet
from xpnet.testing import trace

from .lab import COLOURS, Lab, classifier

CLAIM = "Too high a rate kills ReLUs, in the first layer for good; leaky ReLU and maxout recover."

NETS = {"relu": "ReLU", "leaky_relu:0.1": "leaky ReLU (0.1)", "maxout": "maxout (2 pieces)"}
HIDDEN = (100, 100)
SHOCK = 4.0  # learning rate; the gradient is clipped to norm 2, so that the numbers stay finite


def dead(net: xpnet.MLP, x: np.ndarray, y: np.ndarray) -> list[float]:
    """Share of dead units of each hidden layer on a batch of pictures."""
    result = []
    for layer, width in zip(trace(net, x, y), HIDDEN, strict=False):  # hidden layers come first
        rows = np.abs(layer.gradients["weight"]).max(axis=1)  # one row per unit; maxout: per piece and unit
        result.append(float((rows.reshape(-1, width) == 0).all(axis=0).mean()))
    return result


def run(lab: Lab) -> None:
    pictures = lab.pictures()
    train, test = (pictures.x_train, pictures.y_train), (pictures.x_test, pictures.y_test)
    probe = pictures.x_train[:1000], pictures.y_train[:1000]
    few = slice(0, 2000)  # enough for the shock
    epochs = 10 if lab.quick else 3 if lab.data == "mnist" else 40
    shares, accuracy = {}, {}
    lab.say(
        "  share of dead units (hidden layer 1, 2)    before        after the shock   after training on   accuracy"
    )
    for name, title in NETS.items():
        net = classifier(pictures, *HIDDEN, activation=name, device=lab.device)
        stages = [dead(net, *probe)]
        xpnet.fit(net, (train[0][few], train[1][few]), optimizer=xpnet.SGD(lr=SHOCK), epochs=1, batch_size=100,
                  clip_norm=2.0)  # fmt: skip
        stages.append(dead(net, *probe))
        xpnet.fit(net, train, optimizer=xpnet.SGD(lr=0.05), epochs=epochs, batch_size=50, clip_norm=2.0)
        stages.append(dead(net, *probe))
        shares[title], accuracy[title] = stages, xpnet.evaluate(net, test)["accuracy"]
        cells = "     ".join(f"{a:6.1%} {b:6.1%}" for a, b in stages)
        lab.say(f"  {title:38} {cells}       {accuracy[title]:8.2%}")
    lab.record(dead=shares, accuracy=accuracy)
    relu, leaky, maxout = shares.values()
    lab.claim(
        "at the start few units are dead (less than 15 %)", max(max(s[0]) for s in shares.values()) < 0.15
    )
    lab.claim("the shock kills more than half of the ReLUs of the first layer", relu[1][0] > 0.5)
    lab.claim("they stay dead while the net trains on", relu[2][0] > 0.9 * relu[1][0])
    lab.claim("leaky ReLU and maxout have none in the end", max(*leaky[2], *maxout[2]) < 0.02)
    best = min(accuracy["leaky ReLU (0.1)"], accuracy["maxout (2 pieces)"])
    lab.claim("and end with higher accuracy", best > accuracy["ReLU"])

    figure, axes = lab.figure(1, 2, height=3.0, sharey=True)
    for k, ax in enumerate(axes[0]):
        for j, ((title, stages), colour, hatch) in enumerate(
            zip(shares.items(), COLOURS, ("", "//", ".."), strict=False)
        ):
            heights = [100 * stage[k] for stage in stages]
            bars = ax.bar(np.arange(3) + 0.28 * (j - 1), heights, width=0.24, color=colour, hatch=hatch, label=title,
                          edgecolor="white")  # fmt: skip
            ax.bar_label(bars, fmt="%.0f", fontsize=8)
        ax.set_xticks(range(3), ["before", "after the shock", "after training"])
        ax.set(title=f"hidden layer {k + 1}", ylim=(0, 105))
    axes[0, 0].set_ylabel("dead units (%)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    lab.save(figure, "dead_relus")
