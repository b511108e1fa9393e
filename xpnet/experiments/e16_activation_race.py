"""ReLU against tanh and sigmoid: the same net, how many epochs to the same loss?"""

import numpy as np

import xpnet

from .lab import COLOURS, STYLES, Lab, Watch, classifier

CLAIM = "The same net reaches a given loss in fewer epochs with ReLU than with tanh, and with tanh than with sigmoid."


def run(lab: Lab) -> None:
    pictures = lab.pictures()
    mnist = lab.data == "mnist"
    epochs, goal = (6, 0.2) if mnist else (20 if lab.quick else 60, 0.3)
    per_epoch = -(-len(pictures.x_train) // 50)
    looks = 100 if mnist else 29
    reached: dict[str, float] = {}
    curves: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name in ("relu", "tanh", "sigmoid"):
        net = classifier(pictures, 100, 100, activation=name, device=lab.device)
        watch = Watch((pictures.x_test[:2000], pictures.y_test[:2000]), every=looks)
        xpnet.fit(net, (pictures.x_train, pictures.y_train), optimizer=xpnet.SGD(lr=0.05), epochs=epochs,
                  batch_size=50, callbacks=[watch])  # fmt: skip
        below = np.flatnonzero(watch.column(1) < goal)
        reached[name] = watch.column(0)[below[0]] / per_epoch if below.size else np.inf
        curves[name] = watch.column(0) / per_epoch, watch.column(1)
        when = f"after {reached[name]:.1f} epochs" if below.size else f"not within {epochs} epochs"
        lab.say(f"  {name:8} training loss below {goal}: {when}; at the end {watch.rows[-1][1]:.3f}")
    lab.record(goal=goal, epochs_to_goal=reached, epochs=epochs)
    lab.claim("ReLU is there before tanh", reached["relu"] < reached["tanh"])
    lab.claim("tanh is there before sigmoid", reached["tanh"] < reached["sigmoid"])

    figure, axes = lab.figure(height=3.0)
    ax = axes[0, 0]
    for (name, (x, loss)), colour, style in zip(curves.items(), COLOURS, STYLES, strict=False):
        ax.semilogy(x, loss, color=colour, linestyle=style, label={"relu": "ReLU"}.get(name, name))
    ax.axhline(goal, color="black", linewidth=0.8, linestyle=":", label=f"loss {goal}")
    ax.set(xlabel="epochs", ylabel="training loss (nats)")
    ax.legend()
    lab.save(figure, "race")
