"""Capacity: one hidden layer of 3, 6 and 20 units.

Each width is a population of networks that differ only in their seed, trained at once. The drawn boundary is
that of the member with the median loss.
"""

import numpy as np

import xpnet

from .lab import Lab, boundary_length, scorer, show_boundary, two_moons

CLAIM = "More hidden units fit the training points more closely, with a longer boundary."

WIDTHS = (3, 6, 20)


def run(lab: Lab) -> None:
    members, epochs = (5, 400) if lab.quick else (25, 1500)
    x, y = two_moons(120, noise=0.6, seed=1)
    xt, yt = two_moons(2000, noise=0.6, seed=2)
    figure, axes = lab.figure(1, 3, height=2.9, sharey=True)
    loss, accuracy, test, length = {}, {}, {}, {}
    lab.say(f"  medians over {members} starts of each width")
    lab.say("  hidden units   train loss   train accuracy   test accuracy   boundary length")
    for ax, width in zip(axes[0], WIDTHS, strict=True):
        nets = xpnet.MLP([2, width, 2], activation="tanh", n_models=members, seed=0, device=lab.device)
        xpnet.fit(nets, (x, y), optimizer=xpnet.Adam(lr=0.03), epochs=epochs, batch_size=len(x))
        scores = xpnet.evaluate(nets, (x, y))
        loss[width] = np.median(scores["loss"])
        accuracy[width] = np.median(scores["accuracy"])
        test[width] = np.median(xpnet.evaluate(nets, (xt, yt))["accuracy"])
        length[width] = np.median([boundary_length(scorer(nets.member(m))) for m in range(members)])
        typical = nets.member(int(np.argsort(scores["loss"])[members // 2]))
        lab.say(f"  {width:12d}   {loss[width]:10.4f}   {accuracy[width]:14.1%}   {test[width]:13.1%}"
                f"   {length[width]:15.1f}")  # fmt: skip
        show_boundary(ax, scorer(typical), x, y, f"{width} hidden units")
        ax.label_outer()
    axes[0, 0].legend(loc="lower left", frameon=True, handletextpad=0.1)
    lab.record(train_loss=loss, train_accuracy=accuracy, test_accuracy=test, boundary_length=length)
    lab.claim("the training loss falls from 3 to 6 to 20 units", loss[3] > loss[6] > loss[20])
    lab.claim("the boundary of 20 units is longer than that of 3", length[20] > length[3])
    lab.save(figure, "capacity")
