"""The HTML page of a run: what is in it, and what never gets in."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from xpnet.errors import ConfigError
from xpnet.runs.config import TrainConfig
from xpnet.runs.report_page import write_report
from xpnet.runs.run import train

EVIL = '<script>alert("x")</script>'


@pytest.fixture(autouse=True)
def here(elsewhere: None) -> None:
    pytest.importorskip("matplotlib")


class Page(HTMLParser):
    """Checks that tags nest, and collects tags, addresses and text."""

    void = ("meta", "img")

    def __init__(self, text: str):
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.stack, self.stack

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [v for k, v in attrs if k in ("src", "href") and v]
        assert not [k for k, _ in attrs if k.startswith("on")]
        if tag not in self.void:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.text += data


def page(config: TrainConfig, out: str = "run", **options) -> Page:
    train(config, out, quiet=True)
    path = write_report(out, **options)
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"https?://|@import|url\(", text), "something from elsewhere"
    found = Page(text)
    assert "script" not in found.tags and all(a.startswith("data:image/png;base64,") for a in found.addresses)
    for address in found.addresses:
        assert base64.b64decode(address.partition(",")[2]).startswith(b"\x89PNG")
    return found


def write_table(classes: bool) -> None:
    rng = np.random.default_rng(0)
    rows = [f'"{EVIL.replace(chr(34), chr(34) * 2)}",town,y']
    for _ in range(120):
        x = rng.normal()
        label = f"<b>{'up' if x > 0 else 'down'}</b>" if classes else f"{3 * x + 10:.3f}"
        rows.append(f"{x:.3f},{rng.choice(['<i>A', 'B&B'])},{label}")
    Path("t.csv").write_text("\n".join(rows) + "\n")


def test_a_classification_with_names_that_look_like_html() -> None:
    write_table(classes=True)
    found = page(TrainConfig(data="t.csv", hidden=[4], epochs=2))
    assert EVIL in found.text and "<b>up</b>" in found.text and "<i>A, B&B" in found.text
    assert "b" in found.tags and "i" not in found.tags  # the page's own b, none of the user's i
    assert len(found.addresses) == 2  # curves, confusion
    assert "t (test, 12 examples)" in found.text and "precision" in found.text
    for word in ("Training", "Answers", "Data", "Network", "Settings", "Environment", "numpy", "batch_size"):
        assert word in found.text


def test_a_regression_shows_residuals_and_the_largest_errors() -> None:
    write_table(classes=False)
    found = page(TrainConfig(data="t.csv", hidden=[4], epochs=2, test_fraction=0.0, valid_fraction=0.1))
    assert len(found.addresses) == 2  # curves, residuals
    assert "t (validation, 12 examples)" in found.text  # no test part
    assert "RMSE" in found.text and "The 12 largest errors" in found.text and "learnt as (y " in found.text


def test_pictures_show_weights_and_mistakes() -> None:
    config = TrainConfig(hidden=[4], epochs=1)
    found = page(config)
    assert len(found.addresses) == 4  # curves, confusion, mistakes, first layer
    assert "8 × 8" in found.text
    train(config, "run", overwrite=True, quiet=True)
    assert not Path("run/report.html").exists()  # it was about another run


def test_without_its_data_a_run_still_has_a_page() -> None:
    write_table(classes=False)
    train(TrainConfig(data="t.csv", hidden=[4], epochs=2), "run", quiet=True)
    Path("t.csv").unlink()
    found = Page(write_report("run", "elsewhere.html").read_text(encoding="utf-8"))
    assert (
        "could not be loaded, so nothing is judged here: " in found.text
        and "t.csv: no such file" in found.text
    )
    assert len(found.addresses) == 1 and "largest errors" not in found.text
    with pytest.raises(ConfigError, match=r"expected a name ending in \.html"):
        write_report("run", "page.txt")
