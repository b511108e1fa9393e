"""Digits with one hidden layer of 500 ReLUs and a little L2."""

import numpy as np

import xpnet

from .lab import BLUE, RED, Lab, classifier

CLAIM = "784-500-10 with ReLU and L2 reaches 98 % or better on MNIST digits it has not seen."


def run(lab: Lab) -> None:
    pictures = lab.pictures()
    epochs = 15 if lab.quick else 10 if lab.data == "mnist" else 60
    net = classifier(pictures, 500, activation="relu", device=lab.device)
    history = xpnet.fit(
        net, (pictures.x_train, pictures.y_train), validation=(pictures.x_test, pictures.y_test),
        optimizer=xpnet.Adam(lr=3e-3), schedule="one_cycle", l2=1e-5, epochs=epochs, batch_size=128,
        restore_best=False,  # the test digits are only looked at, never used to choose
    )  # fmt: skip
    lab.say("  epoch   train loss   train accuracy   test loss   test accuracy")
    for r in history[:: max(1, epochs // 10)]:
        lab.say(f"  {r['epoch']:5d}   {r['train_loss']:10.4f}   {r['train_accuracy']:14.2%}"
                f"   {r['valid_loss']:9.4f}   {r['valid_accuracy']:13.2%}")  # fmt: skip
    final = history[-1]
    goal = 0.98 if lab.data == "mnist" else 0.95
    lab.record(test_accuracy=final["valid_accuracy"], test_loss=final["valid_loss"], epochs=epochs,
               parameters=net.n_parameters)  # fmt: skip
    lab.claim(
        f"{goal:.0%} or better on test digits ({final['valid_accuracy']:.2%})",
        final["valid_accuracy"] >= goal,
    )

    figure, axes = lab.figure(1, 2, height=2.9)
    for ax, what, factor, label in (
        (axes[0, 0], "loss", 1.0, "loss (nats)"), (axes[0, 1], "accuracy", 100.0, "accuracy (%)"),
    ):  # fmt: skip
        for part, name, colour, style in (("train", "training", BLUE, "--"), ("valid", "test", RED, "-")):
            values = factor * np.array(history.column(f"{part}_{what}"))
            ax.plot(range(1, epochs + 1), values, color=colour, linestyle=style, label=name)
        ax.set(xlabel="epoch", ylabel=label)
        ax.legend()
    axes[0, 0].set_yscale("log")
    lab.save(figure, "hidden_layer")
