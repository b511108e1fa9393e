"""What README and docs say must be so: code runs, links lead somewhere, commands exist."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import numpy as np
import pytest

import xpnet
from xpnet.cli import commands

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "benchmarks").glob("*.md")),
    *(p for p in sorted(DOCS.rglob("*.md")) if DOCS / "generated" not in p.parents),
]  # fmt: skip


def test_python_blocks_of_the_readme_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    assert len(blocks) >= 3
    namespace: dict = {"np": np, "xpnet": xpnet}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)
    assert (tmp_path / "circle.safetensors").exists()
    accuracy = float(capsys.readouterr().out.splitlines()[0])
    assert accuracy > 0.9


def _run_blocks(page, kinds, namespace):
    """Run the code blocks of a page in order: ```python is xpnet's, ```py that of another library."""
    blocks = re.findall(r"^```(python|py)\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M)
    assert {kind for kind, _ in blocks} >= set(kinds)
    for kind, block in blocks:
        if kind in kinds:
            exec(compile(block, page.name, "exec"), namespace)
    return namespace


@pytest.mark.parametrize("name", ["index", "coming-from-pytorch", "coming-from-keras"])
def test_python_blocks_of_a_page_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    history = _run_blocks(DOCS / f"{name}.md", ["python"], {})["history"]
    assert max(history.column("valid_accuracy")) > 0.9


def test_both_sides_of_coming_from_scikit_learn_run(capsys):
    _run_blocks(DOCS / "coming-from-scikit-learn.md", ["python", "py"], {})
    theirs, ours = (float(line.split()[0]) for line in capsys.readouterr().out.splitlines()[:2])
    assert theirs > 0.9 and ours > 0.9


@pytest.mark.filterwarnings("ignore")  # what other libraries deprecate is their business
@pytest.mark.parametrize(
    ("name", "library"), [("coming-from-pytorch", "torch"), ("coming-from-keras", "keras")]
)
def test_the_other_side_of_a_page_runs(name, library, capsys):
    pytest.importorskip(library)
    _run_blocks(DOCS / f"{name}.md", ["python", "py"], {})
    assert float(capsys.readouterr().out.splitlines()[0]) > 0.9


def test_every_page_is_in_the_index():
    listed = set(re.findall(r"^([\w/-]+)$", (DOCS / "index.md").read_text(encoding="utf-8"), re.M))
    assert {p.stem for p in DOCS.glob("*.md")} - {"index"} <= listed


def _links(page):
    """Files and anchors that a page leads to, without addresses on the web."""
    for target in re.findall(r"\]\(([^)\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not re.match("[a-z]+:", target):
            name, _, anchor = target.partition("#")
            yield page.parent / name if name else page, anchor


def _anchors(page):
    """What the headings of a page are called in links."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    headings = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", h) for h in re.findall(r"^#+ (.*)$", text, re.M))
    return {re.sub(r"[^\w\- ]", "", h.strip().lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for file, anchor in _links(page):
        assert file.exists(), f"{page.name}: {file}"
        assert not anchor or anchor in _anchors(file), f"{page.name}: {file}#{anchor}"


def test_the_source_distribution_has_what_the_pages_lead_to():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packed = {*settings["tool"]["hatch"]["build"]["targets"]["sdist"]["include"], "pyproject.toml"}
    for page in PAGES:
        for file, _ in _links(page):
            assert file.resolve().relative_to(ROOT).parts[0] in packed, f"{page.name}: {file}"


def _commands(page):
    for block in re.findall(
        r"^```(?:sh|bash|console)?\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M
    ):
        for line in block.splitlines():
            if line.removeprefix("$ ").startswith("xpnet "):
                yield shlex.split(line.removeprefix("$ "), comments=True)[1:]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_and_options_exist(page):
    for words in _commands(page):
        command = commands().get(words[0])
        if words[0].startswith("-"):
            continue
        assert command is not None, f"{page.name}: xpnet {' '.join(words)}"
        known = {opt for p in command.params for opt in (*p.opts, *p.secondary_opts)} | {"--help", "-h"}
        for word in words[1:]:
            if word.startswith("--"):
                assert word.partition("=")[0] in known, f"{page.name}: xpnet {' '.join(words)}"


def test_files_named_in_the_house_plan_exist():
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    house = text.split("```")[1]
    for name in re.findall(r"\b([a-z_]+\.py)\b", house):
        assert list((ROOT / "xpnet").rglob(name)) or (ROOT / name).is_file(), name


def test_version_has_a_changelog():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "[Unreleased]" in text or f"[{xpnet.__version__}]" in text
