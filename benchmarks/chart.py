"""A chart of every side's time divided by xpnet's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .results import BASE, ratios, select, short

# Okabe and Ito's colours, told apart by all kinds of colour vision; hatches help where there is no colour
_COLOURS = {
    "torch": ("#D55E00", ""), "torch.compile": ("#E69F00", "//"), "jax.jit": ("#0072B2", ""),
    "jax.scan": ("#56B4E9", "\\\\"), "sklearn": ("#009E73", ""), "keras": ("#CC79A7", ""), "floor": ("#555555", "xx"),
    "reference": ("#F0E442", ".."),
}  # fmt: skip


def chart(
    document: dict[str, Any],
    path: str | Path,
    *,
    rows: list[str] | None = None,
    setting: str,
    base: str = BASE,
) -> None:
    """Draw bars of each side's time divided by xpnet's, row by row, 800 pixels wide.

    Raises
    ------
    ValueError
        Nothing is left to draw.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    results = [
        r
        for r in select(document, rows, setting)
        if base in r["sides"] and r["kind"] in ("step", "epoch", "predict", "accuracy")
    ]
    names = [n for n in _COLOURS if n != "reference" and any(n in r["sides"] for r in results)]
    if not names:
        raise ValueError("no result has xpnet and another side to draw")
    heights = [sum(n in r["sides"] for n in names) for r in results]
    figure, axes = plt.subplots(figsize=(8, 1.6 + 0.17 * sum(heights) + 0.22 * len(results)), dpi=100)
    y, ticks = 0.0, []
    for r, count in zip(results, heights, strict=True):
        ticks.append(y + (count - 1) / 2)
        for name in (n for n in names if n in r["sides"]):
            value = ratios(r, name, base)
            assert value is not None
            colour, hatch = _COLOURS[name]
            axes.barh(
                y, value.medians, height=0.9, color=colour, hatch=hatch, edgecolor="white", linewidth=0.3
            )
            axes.plot([value.low, value.high], [y, y], color="black", linewidth=1)
            axes.annotate(f"{value.medians:.2g}", (max(value.medians, value.high), y), xytext=(3, 0),
                          textcoords="offset points", va="center", fontsize=7)  # fmt: skip
            y += 1
        y += 1.3
    axes.set_yticks(ticks, [short(r["row"]) for r in results], fontsize=9)
    axes.set_ylim(y - 0.9, -1.0)  # the first row on top, no empty margins
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    axes.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    axes.set_xticks(
        [v for v in (0.25, 0.5, 1, 2, 5, 10, 20, 50) if axes.get_xlim()[0] <= v <= axes.get_xlim()[1]]
    )
    axes.axvline(1.0, color="black", linewidth=1.2)
    label = "one thread" if setting == "1" else "all threads"
    axes.set_xlabel(
        f"time / {base}'s time, {label}; right of 1: slower than {base} (line: quartiles)", fontsize=9, x=1.0,
        ha="right",
    )  # fmt: skip
    handles = [
        plt.Rectangle((0, 0), 1, 1, facecolor=_COLOURS[n][0], hatch=_COLOURS[n][1], edgecolor="white")
        for n in names
    ]
    labels = [n if n != "floor" else "bare matmuls" for n in names]
    figure.legend(handles, labels, loc="upper center", ncol=min(len(names), 7), fontsize=8, frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    meta = document["meta"]
    axes.set_title(
        f"{meta['cpu']}, {meta['date'][:10]}, commit {meta['commit']}",
        fontsize=8,
        color="#444444",
        loc="right",
    )
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.3 / figure.get_figheight()))
    figure.savefig(path)
    plt.close(figure)
