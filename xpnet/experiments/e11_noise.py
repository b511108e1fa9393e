"""What does a trained net say to noise?

Every pixel is drawn at random. There is no digit, but a net that can only choose among ten answers gives one,
and often with confidence: training never showed it anything that is not a digit.
"""

import numpy as np

import xpnet

from .lab import BLUE, Lab, classifier

CLAIM = "Shown pictures of pure noise, the net still answers, often with confidence."


def run(lab: Lab) -> None:
    pictures = lab.pictures()
    net = classifier(pictures, 100, activation="relu", device=lab.device)
    epochs = 5 if lab.data == "mnist" else 60
    xpnet.fit(
        net,
        (pictures.x_train, pictures.y_train),
        optimizer=xpnet.Adam(lr=2e-3),
        epochs=epochs,
        batch_size=100,
    )
    accuracy = xpnet.evaluate(net, (pictures.x_test, pictures.y_test))["accuracy"]
    g = np.random.default_rng(0)
    top = round(1 / pictures.scale)
    noise = g.integers(0, top + 1, (1000, *pictures.sample_shape)).astype(np.uint8)
    p = net.predict_proba(noise)
    sure, said = p.max(axis=1), p.argmax(axis=1)
    counts = np.bincount(said, minlength=10)
    lab.say(f"  test accuracy {accuracy:.2%}")
    lab.say(
        f"  1,000 noise pictures: median confidence {np.median(sure):.1%}; {np.mean(sure > 0.9):.1%} above 90 %"
    )
    lab.say(
        "  answers: " + ", ".join(f"{c} x {n}" for c, n in zip(pictures.classes, counts, strict=True) if n)
    )
    lab.record(test_accuracy=accuracy, median_confidence=np.median(sure), share_above_90=np.mean(sure > 0.9),
               answers=counts)  # fmt: skip
    lab.claim("the median confidence on noise is above 50 %, chance being 10 %", np.median(sure) > 0.5)
    lab.claim("more than one in ten noise pictures gets an answer above 90 %", np.mean(sure > 0.9) > 0.1)

    figure, axes = lab.figure(2, 4, height=3.6, height_ratios=(3, 2))
    for k in range(4):
        axes[0, k].imshow(noise[k], cmap="gray", vmin=0, vmax=top)
        axes[0, k].set(title=f'"a {pictures.classes[said[k]]}", {sure[k]:.0%} sure')
        axes[0, k].set_xticks([])
        axes[0, k].set_yticks([])
        axes[1, k].bar(range(10), 100 * p[k], color=BLUE)
        axes[1, k].set_xticks(range(10), pictures.classes, fontsize=7)
        axes[1, k].set(xlabel="digit", ylim=(0, 105))
    axes[1, 0].set_ylabel("probability (%)")
    lab.save(figure, "noise")
