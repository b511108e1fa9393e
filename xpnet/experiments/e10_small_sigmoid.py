"""The net of the films: 784-16-16-10, sigmoid, squared error, plain SGD.

One hopes that the first hidden layer looks for strokes. Its weights, drawn as images, are mostly blobs of both
signs; some units hold one short bar among them, none looks like a digit or a part of one. As a measure, each
unit's weights are compared with 10,000 training pictures: even the most similar one is not similar, while every
test picture has a near double among them.
"""

import numpy as np

import xpnet

from .lab import BLUE, RED, Lab, classifier

CLAIM = "13,002 parameters learn MNIST to 93 % or better; its first weights look like no digit, mostly like blobs."


def best_match(images: np.ndarray, pictures: np.ndarray) -> np.ndarray:
    """Largest absolute correlation (N,) of each image (N, I) with any of the pictures (K, I)."""

    def standard(rows: np.ndarray) -> np.ndarray:
        rows = rows - rows.mean(axis=1, keepdims=True)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    return np.abs(standard(images) @ standard(pictures).T).max(axis=1)


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
    used = (pictures.x_train.max(axis=0) > 0).ravel()
    shown = pictures.x_train[:10_000].reshape(-1, used.size)[:, used].astype(float)
    of_weights = float(np.median(best_match(weights.reshape(16, -1)[:, used], shown)))
    new = pictures.x_test[:300].reshape(-1, used.size)[:, used].astype(float)
    of_digits = float(np.median(best_match(new, shown)))
    lab.say(f"  {net.n_parameters:,} parameters; test accuracy {accuracy:.2%} after {epochs} epochs")
    lab.say(f"  correlation with the most similar training picture (median): {of_digits:.2f} for test pictures, "
            f"{of_weights:.2f} for the weights of a unit")  # fmt: skip
    lab.record(parameters=net.n_parameters, test_accuracy=accuracy, epochs=epochs, match_of_digits=of_digits,
               match_of_weights=of_weights, accuracy_by_epoch=history.column("valid_accuracy"))  # fmt: skip
    if lab.data == "mnist":
        lab.claim("13,002 parameters", net.n_parameters == 13002)
    goal = 0.93 if lab.data == "mnist" else 0.85
    lab.claim(f"learns: {goal:.0%} or better ({accuracy:.2%})", accuracy >= goal)
    lab.claim("no training picture looks like a unit's weights (correlation below 0.6)", of_weights < 0.6)
    lab.claim("while test pictures do have a double among them (above 0.7)", of_digits > 0.7)

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
