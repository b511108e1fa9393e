"""The cheese festival: a perceptron decides.

Three questions, answered 1 (yes) or 0 (no): is the weather good, does a friend come along, is it near a
station? A perceptron weighs them 6, 2 and 2 and says yes if the sum exceeds its threshold; its bias is minus
the threshold.
"""

from itertools import product

import numpy as np

import xpnet

from .lab import BLUE, RED, Lab

CLAIM = "Weights 6, 2, 2: with threshold 5 only the weather decides; with 3 the weather or both others do."


def perceptron(weights: list[float], threshold: float, device: str = "cpu") -> xpnet.MLP:
    neuron = xpnet.MLP([len(weights), 1], output_activation="step", device=device)
    neuron.set_weights({"layers.0.weight": np.array([weights]), "layers.0.bias": np.array([-threshold])})
    return neuron


def run(lab: Lab) -> None:
    x = np.array(list(product([0, 1], repeat=3)))
    weather, friend, station = x.T
    answers = {t: perceptron([6, 2, 2], t, lab.device).outputs(x)[:, 0].astype(int) for t in (5, 3)}

    lab.say("  weather  friend  station   6x1+2x2+2x3   threshold 5   threshold 3")
    for row, at5, at3 in zip(x, answers[5], answers[3], strict=True):
        yes, no = "go", "stay"
        lab.say(f"  {row[0]:7d}  {row[1]:6d}  {row[2]:7d}   {row @ [6, 2, 2]:11d}   "
                f"{yes if at5 else no:>11}   {yes if at3 else no:>11}")  # fmt: skip
    lab.record(threshold_5=answers[5], threshold_3=answers[3])
    lab.claim("with threshold 5 the answer is the weather's", (answers[5] == weather).all())
    either = weather | (friend & station)
    lab.claim("with threshold 3 it is: weather, or friend and station", (answers[3] == either).all())

    figure, axes = lab.figure(height=2.9)
    ax = axes[0, 0]
    total = x @ [6, 2, 2]
    ax.bar(range(8), total, color=["#BBBBBB" if t <= 3 else "#777777" for t in total], width=0.6)
    for t, colour, style in ((5, RED, "--"), (3, BLUE, "-")):
        ax.axhline(t, color=colour, linestyle=style, label=f"threshold {t}: go above the line")
    names = ["".join(n for n, v in zip("WFS", row, strict=True) if v) or "none" for row in x]
    ax.set_xticks(range(8), names)
    ax.set(
        xlabel="what holds: W good weather, F friend, S station",
        ylabel="weighted sum (no unit)",
        ylim=(0, 11),
    )
    ax.legend(loc="upper left")
    lab.save(figure, "perceptron")
