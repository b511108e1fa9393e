"""The net of the films: 784-16-16-10, sigmoid, squared error, plain SGD.

One hopes that the first hidden layer looks for strokes. It does not: its weights, drawn as images, look like
noise with a few blobs. As a measure, neighbouring pixels of a digit are alike, those of the weights hardly.
"""

import numpy as np

import xpnet

from .lab import BLUE, RED, Lab, classifier

CLAIM = "13,002 parameters learn MNIST to 93 % or better; the first layer's weights do not look like strokes."


def neighbours_alike(images: np.ndarray) -> float:
    """Correlation of pixels with their right and lower neighbours, over images (N, H, W)."""
    across = np.corrcoef(images[:, :, 1:].ravel(), images[:, :, :-1].ravel())[0, 1]
    down = np.corrcoef(images[:, 1:].ravel(), images[:, :-1].ravel())[0, 1]
    return float((across + down) / 2)


def run(lab: Lab) -> None:
    pictures = lab.pictures()
    epochs = 60 if lab.quick else 20 if lab.data == "mnist" else 200
    net = classifier(pictures, 16, 16, activation="sigmoid", output_activation="sigmoid", device=lab.device)
    history = xpnet.fit(
        net, (pictures.x_train, pictures.y_train), validation=(pictures.x_test, pictures.y_test),
        loss="squared_error", task="classification", optimizer=xpnet.SGD(lr=3.0), epochs=epochs, batch_size=10,
        restore_best=False,
    )  # fmt: skip
    accuracy = history[-1]["valid_accuracy"]
    shape = pictures.sample_shape
    weights = net.get_weights()["layers.0.weight"].reshape(-1, *shape)
    # pixels that are ever dark: the others keep their random start, since they are multiplied by zero
    used = pictures.x_train.max(axis=0) > 0
    inside = np.where(used, weights, 0.0)
    of_digits = neighbours_alike(pictures.x_train[:2000].astype(float))
    of_weights = neighbours_alike(inside)
    lab.say(f"  {net.n_parameters:,} parameters; test accuracy {accuracy:.2%} after {epochs} epochs")
    lab.say(f"  neighbouring pixels correlate {of_digits:.2f} in digits, {of_weights:.2f} in the weights")
    lab.record(parameters=net.n_parameters, test_accuracy=accuracy, epochs=epochs, digits=of_digits,
               weights=of_weights, accuracy_by_epoch=history.column("valid_accuracy"))  # fmt: skip
    if lab.data == "mnist":
        lab.claim("13,002 parameters", net.n_parameters == 13002)
    goal = 0.93 if lab.data == "mnist" else 0.85
    lab.claim(f"learns: {goal:.0%} or better ({accuracy:.2%})", accuracy >= goal)
    lab.claim(
        "neighbouring weights are less alike than neighbouring pixels of digits", of_weights < of_digits - 0.1
    )

    figure, axes = lab.figure(4, 4, height=6.0)
    limit = float(np.quantile(np.abs(weights), 0.99))
    for ax, image in zip(axes.flat, weights, strict=True):
        drawn = ax.imshow(image, cmap="RdBu_r", vmin=-limit, vmax=limit)
        ax.set_xticks([])
        ax.set_yticks([])
    figure.colorbar(drawn, ax=axes, shrink=0.7, label="weight (no unit)")
    figure.suptitle("weights into the 16 units of the first hidden layer")
    lab.save(figure, "weights")

    figure, axes = lab.figure(height=2.8)
    ax = axes[0, 0]
    for part, name, colour, style in (("train", "training", BLUE, "--"), ("valid", "test", RED, "-")):
        values = 100 * np.array(history.column(f"{part}_accuracy"))
        ax.plot(range(1, epochs + 1), values, color=colour, linestyle=style, label=name)
    ax.set(xlabel="epoch", ylabel="accuracy (%)")
    ax.legend()
    lab.save(figure, "curves")
