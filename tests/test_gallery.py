"""The gallery: every example runs, says what its page promises, and has a page."""

from __future__ import annotations

import ast
import re
import runpy
from pathlib import Path

import pytest

GALLERY = Path(__file__).parent.parent / "docs" / "gallery"
EXAMPLES = sorted(GALLERY.glob("*.py"))

#: Per example: a pattern, and the range of the number it catches (or None where it has only to be there).
EXPECTED = {
    "first_network": [(r"accuracy ([\d.]+)", (0.93, 1.0))],
    "regression_units": [(r"typical error: ([\d.]+) ms", (0.0, 60.0)), (r"predicts the same: True", None)],
    "own_files": [
        (r"rents: \[([\d.]+)", (1100.0, 1400.0)), (r"district +category +feature", None), (r"'bar'", None),
    ],
    "many_models": [(r"lr 0.1 +validation accuracy ([\d.]+)", (0.9, 1.0)), (r"lr 0.001 .* ([\d.]+) \+", (0.5, 0.9))],
    "pipeline_and_search": [(r"test ([\d.]+)", (0.9, 1.0))],
    "layers_and_dropout": [(r"maxout:3 96->64", None), (r"test accuracy ([\d.]+)", (0.9, 1.0))],
    "schedules_and_stopping": [(r"constant +early_stopping", None), (r"OneCycle .* ([\d.]+)", (0.2, 0.45))],
    "own_callback": [(r"epoch  1: .* balanced ([\d.]+)", (0.5, 0.95)), (r"balanced enough", None)],
    "own_loss": [
        (r"gradient: (\S+)", (0.0, 1e-12)), (r"squared_error .* ([\d.]+)", (0.4, 2.0)),
        (r"log_cosh .* ([\d.]+)", (0.0, 0.3)),
    ],
    "own_parts": [
        (r"gradient: (\S+)", (0.0, 1e-12)), (r"test accuracy ([\d.]+)", (0.9, 1.0)), (r"from the file: True", None),
    ],
    "own_array_library": [(r"(\d+) results compared", (1000, 1e6)), (r"array_api_strict", None)],
    "save_and_resume": [
        (r"bit for bit: True", None), (r"predicts the same: True", None), (r"one wrong bit: .*checksum", None),
    ],
    "look_inside": [(r"biases of -2 +0.* (\d+)% +\d+%", (90, 100)), (r"dW \(8, 64\)", None)],
    "plots": [(r"(\d+) mistakes", (5, 60))],
    "labels_and_weights": [
        (r"=None .*finds (\d+)%", (20, 60)), (r"=balanced .*finds (\d+)%", (65, 100)),
        (r"soft labels .* by ([\d.]+)", (0.0, 0.02)),
    ],
}  # fmt: skip


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_example_runs(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(path), run_name="__main__")
    printed = capsys.readouterr().out
    for pattern, bounds in EXPECTED[path.stem]:
        found = re.search(pattern, printed)
        assert found, f"{pattern!r} is not in\n{printed}"
        if bounds:
            assert bounds[0] <= float(found[1]) <= bounds[1], found[0]
    if path.stem == "plots":
        assert {p.name for p in tmp_path.glob("*.png")} == {
            "curves.png", "confusion.png", "first_layer.png", "mistakes.png"
        }  # fmt: skip


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_example_says_what_it_shows(path):
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    title, empty, text = (*doc.split("\n"), "", "")[:3]
    assert title.endswith(".") and not empty and text, (
        "a title with a full stop, an empty line, an explanation"
    )


def test_index_lists_every_example_once():
    listed = re.findall(r"\]\((\w+)\.py\)", (GALLERY / "README.md").read_text(encoding="utf-8"))
    assert sorted(listed) == [p.stem for p in EXAMPLES]
