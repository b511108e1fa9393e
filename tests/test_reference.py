"""The API reference: every public name has a page, and a docstring with its parameters, result and an example."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import xpnet

API = (Path(__file__).parent.parent / "docs" / "api.rst").read_text(encoding="utf-8")
LISTED = re.findall(r"^   ([A-Za-z][\w.]+)$", API, re.M)

#: Modules of which every function and class in `__all__` must be listed.
MODULES = (
    "backend", "checkpoint", "data", "estimators", "exchange", "logs", "plots", "populations",
    "runs.report_page", "tabular", "testing",
)  # fmt: skip

#: What other modules of xpnet take from these, and nobody else needs.
INTERNAL = {"backend.Array", "logs.make_log", "populations.Member", "populations.read_configurations"}

#: Annotations of functions with nothing to return.
NOTHING = ("None", None, inspect.Signature.empty)


def _named(path: str) -> Any:
    """The object that ``xpnet.<path>`` names."""
    parts = ("xpnet." + path).split(".")
    for i in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:i]))
        except ModuleNotFoundError:
            continue
        for part in parts[i:]:
            found = getattr(found, part)
        return found
    raise AssertionError(path)


def _is_listed_kind(found: Any) -> bool:
    return inspect.isclass(found) or inspect.isfunction(found)


def _public_names() -> list[str]:
    result: list[str] = []
    for name in ("xpnet", *(f"xpnet.{module}" for module in MODULES)):
        module = importlib.import_module(name)
        result += [f"{name}.{n}".removeprefix("xpnet.") for n in module.__all__]
    return [name for name in result if name not in INTERNAL]


def test_editors_and_type_checkers_see_the_modules_of_public_names():
    modules = {path.partition(".")[0] for path in LISTED if "." in path}
    assert len(modules) > 10 and modules <= set(dir(xpnet))
    tree = ast.parse(Path(xpnet.__file__).read_text(encoding="utf-8"))
    (checked,) = (n for n in tree.body if isinstance(n, ast.If))
    imported = {
        a.asname for n in checked.body if isinstance(n, ast.ImportFrom) and not n.module for a in n.names
    }
    assert modules <= imported


def test_every_public_name_is_in_the_reference():
    listed = {id(_named(path)) for path in LISTED}
    missing = [p for p in _public_names() if _is_listed_kind(_named(p)) and id(_named(p)) not in listed]
    assert not missing, f"add to docs/api.rst: {', '.join(missing)}"


def test_no_name_is_listed_twice():
    assert len(LISTED) == len(set(LISTED))
    assert len(LISTED) == len({id(_named(path)) for path in LISTED})


@pytest.mark.parametrize("path", LISTED)
def test_docstring_is_complete(path):
    found = _named(path)
    doc = inspect.getdoc(found) or ""

    def has(section: str) -> bool:
        return re.search(rf"^{section}\n-{{{len(section)}}}$", doc, re.M) is not None

    first = doc.partition("\n")[0]
    assert first.rstrip("`").endswith((".", ":", "}")), f"the first line is no sentence: {first!r}"
    if inspect.isclass(found) and issubclass(found, BaseException):
        return
    parameters = [p for p in inspect.signature(found).parameters if p != "self"]
    if parameters:
        assert has("Parameters") or (inspect.isclass(found) and has("Attributes")), "no section Parameters"
    if inspect.isfunction(found) and inspect.signature(found).return_annotation not in NOTHING:
        assert has("Returns"), "no section Returns"
    assert has("Examples") and ">>>" in doc, "no section Examples"


@pytest.mark.parametrize("path", [p for p in LISTED if inspect.isfunction(_named(p))])
def test_every_parameter_is_described(path):
    found = _named(path)
    section = (inspect.getdoc(found) or "").partition("Parameters\n----------\n")[2]
    section = re.split(r"\n\n\w+\n---+\n", section)[0]
    described = {
        name.strip().lstrip("*")
        for line in section.splitlines()
        if line and not line.startswith(" ")
        for name in line.partition(":")[0].split(",")
    }
    taken = inspect.signature(found).parameters.values()
    assert {p.name for p in taken if p.name != "options"} <= described  # options are named one by one


def _documented_defaults(path: str) -> Iterator[tuple[str, Any]]:
    """Each parameter of a function or class whose documentation says ``default VALUE``, with that value."""
    section = (inspect.getdoc(_named(path)) or "").partition("Parameters\n----------\n")[2]
    section = re.split(r"\n\n\w+\n---+\n", section)[0]
    for names, text in re.findall(r"^([\w, ]+) : .*\bdefault (\S.*)$", section, re.M):
        listed = names.split(", ")
        values = re.split(r", | and ", text) if len(listed) > 1 else [text]
        for name, value in zip(listed, values if len(values) > 1 else values * len(listed), strict=True):
            if value not in ("MLP", "NaN"):  # no literals
                yield name, ast.literal_eval(value)


@pytest.mark.parametrize("path", [p for p in LISTED if callable(_named(p)) and any(_documented_defaults(p))])
def test_documented_defaults_are_the_defaults(path):
    parameters = inspect.signature(_named(path)).parameters
    documented = dict(_documented_defaults(path))
    assert documented == {name: parameters[name].default for name in documented}
