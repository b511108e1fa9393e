"""Over-fitting, and what dropout, L1, L2 and early stopping do.

Few pictures, a large net, and to make it plain a fifth of the training labels replaced by random ones, which can
only be learnt by heart. The validation pictures say when to stop; the test pictures are used once, at the end.
"""

import numpy as np

import xpnet

from .lab import BLUE, RED, Lab, classifier

CLAIM = (
    "Without help the training loss keeps falling while the validation loss rises; each of the four helps."
)


def run(lab: Lab) -> None:
    pictures = lab.pictures()
    n, held = (1000, 5000) if lab.data == "mnist" else (200, 600)
    g = np.random.default_rng(0)
    labels = np.where(g.random(n) < 0.2, g.integers(0, 10, n), pictures.y_train[:n])
    train = pictures.x_train[:n], labels
    valid = pictures.x_train[-held:], pictures.y_train[-held:]
    test = pictures.x_test, pictures.y_test
    epochs = 60 if lab.quick else 100
    helps: dict[str, tuple[dict, dict]] = {
        "nothing": ({}, {}),
        "dropout 0.5": ({"dropout": 0.5, "input_dropout": 0.2}, {}),
        "L1": ({}, {"l1": 3e-4}),
        "L2": ({}, {"l2": 1e-2}),
        "early stopping": ({}, {"patience": 5, "monitor": "valid_loss", "restore_best": True}),
    }
    lab.say(f"  {n} pictures to train, a fifth with random labels; {held} to validate; 200 hidden units")
    lab.say("                     validation loss              test")
    lab.say("                  lowest (epoch)   final      loss   accuracy")
    curves, final, lowest, accuracy = {}, {}, {}, {}
    for name, (of_net, of_fit) in helps.items():
        net = classifier(pictures, 200, activation="relu", device=lab.device, **of_net)
        options = {"restore_best": False, **of_fit}
        history = xpnet.fit(net, train, validation=valid, optimizer=xpnet.Adam(lr=2e-3), epochs=epochs,
                            batch_size=50, **options)  # fmt: skip
        curves[name] = np.array(history.column("train_loss")), np.array(history.column("valid_loss"))
        lowest[name] = float(curves[name][1].min())
        scores, kept = xpnet.evaluate(net, test), xpnet.evaluate(net, valid)["loss"]
        final[name], accuracy[name] = kept, scores["accuracy"]
        at = int(curves[name][1].argmin()) + 1
        lab.say(f"  {name:14}  {lowest[name]:6.4f} {f'({at})':>7}  {kept:6.4f}    {scores['loss']:6.4f}"
                f"   {scores['accuracy']:8.2%}")  # fmt: skip
    lab.record(final_validation_loss=final, lowest_validation_loss=lowest, test_accuracy=accuracy)
    apart = float(curves["nothing"][0][-1] / curves["nothing"][1][-1])
    lab.claim(
        f"without help the training loss ends far below the validation loss ({apart:.1%} of it)", apart < 0.5
    )
    rise = final["nothing"] / lowest["nothing"]
    lab.claim(f"and the validation loss rises from its lowest point (by {rise - 1:.0%})", rise > 1.02)
    for name in list(helps)[1:]:
        lab.claim(f"{name}: a lower validation loss in the end", final[name] < final["nothing"])

    figure, axes = lab.figure(2, 3, height=4.6, sharex=True, sharey=True)
    for ax, (name, (of_train, of_valid)) in zip(axes.flat, curves.items(), strict=False):
        ax.semilogy(range(1, len(of_train) + 1), of_train, color=BLUE, linestyle="--", label="training loss")
        ax.semilogy(range(1, len(of_valid) + 1), of_valid, color=RED, label="validation loss")
        ax.axhline(
            lowest["nothing"], color="black", linewidth=0.8, linestyle=":", label="lowest without help"
        )
        ax.set(title=name)
    bottom = 0.8 * min(float(of_train.min()) for of_train, _ in curves.values())
    for ax in (*axes[1, :2], axes[0, 2]):
        ax.set_xlabel("epoch")
    axes[0, 2].tick_params(labelbottom=True)
    for ax in axes[:, 0]:
        ax.set_ylabel("loss (nats)")
    axes[0, 0].set_ylim(bottom, 3)
    axes[1, 2].set_axis_off()
    axes[1, 2].legend(*axes[0, 0].get_legend_handles_labels(), loc="center")
    lab.save(figure, "overfitting")
