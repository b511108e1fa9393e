"""Regularisation: 20 hidden units and three strengths of L2.

All strengths and all seeds are one population: lambda is a number per member.
"""

import numpy as np

import xpnet

from .lab import Lab, boundary_length, scorer, show_boundary, two_moons

CLAIM = "The decision boundary becomes smoother, that is shorter, as lambda grows."

STRENGTHS = (0.001, 0.01, 0.1)


def run(lab: Lab) -> None:
    starts, epochs = (4, 400) if lab.quick else (20, 2000)
    x, y = two_moons(120, noise=0.6, seed=1)
    xt, yt = two_moons(2000, noise=0.6, seed=2)
    nets = xpnet.MLP(
        [2, 20, 2], activation="tanh", n_models=3 * starts, seed=[*range(starts)] * 3, device=lab.device
    )
    xpnet.fit(nets, (x, y), optimizer=xpnet.Adam(lr=0.03), l2=np.repeat(STRENGTHS, starts), epochs=epochs,
              batch_size=len(x))  # fmt: skip
    train, test = (np.array(xpnet.evaluate(nets, part)["accuracy"]) for part in ((x, y), (xt, yt)))
    each = np.array([boundary_length(scorer(nets.member(m))) for m in range(3 * starts)])
    length, train, test = (np.median(v.reshape(3, starts), axis=1) for v in (each, train, test))

    lab.say(f"  medians over {starts} starts of each strength")
    lab.say("  lambda    boundary length   train accuracy   test accuracy")
    for row in zip(STRENGTHS, length, train, test, strict=True):
        lab.say("  {:6g}    {:15.2f}   {:14.1%}   {:13.1%}".format(*row))
    lab.record(strengths=STRENGTHS, boundary_length=length, train_accuracy=train, test_accuracy=test)
    lab.claim("the boundary gets shorter with each larger lambda", length[0] > length[1] > length[2])

    figure, axes = lab.figure(1, 3, height=2.9, sharey=True)
    for k, (ax, strength) in enumerate(zip(axes[0], STRENGTHS, strict=True)):
        group = each[k * starts : (k + 1) * starts]
        typical = k * starts + int(np.argsort(group)[starts // 2])
        show_boundary(ax, scorer(nets.member(typical)), x, y, rf"$\lambda$ = {strength:g}")
        ax.label_outer()
    axes[0, 0].legend(loc="lower left", frameon=True, handletextpad=0.1)
    lab.save(figure, "regularisation")
