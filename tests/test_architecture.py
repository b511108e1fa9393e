"""Who may import whom: only the seam knows the array library, and imports point downwards."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import xpnet

PACKAGE = Path(xpnet.__file__).parent

#: The mathematics: it asks the back end for everything, so it runs on every array library.
SEAMLESS = ("layers", "losses", "optim", "metrics", "activations")

#: From the ground up; a module imports its own level or lower ones. A package stands for its unnamed modules.
LEVELS = [
    {"errors"},
    {"rng", "specs", "storage", "training.signals", "training.defaults"},
    {"backend"},
    {"activations", "interchange", "metrics", "notebook", "params", "schedules", "workspace"},
    {
        "checkpoint",
        "data",
        "init",
        "layers",
        "losses",
        "memory",
        "optim",
        "training.classweight",
        "training.history",
    },
    {"mlp"},
    {"training.examples", "training.tally", "training.update"},
    {"training.passes"},
    {"training.step"},
    {"callbacks", "conformance", "diagnostics", "testing", "training"},
    {"train"},
    {"logs", "plots", "populations", "tabular"},  # applications
    {"estimators"},
    {"exchange", "runs"},
    {"doctor", "info", "parity", "sweep"},
    {"experiments", "playground"},
    {"cli", "__main__"},
]
RANK = {name: rank for rank, names in enumerate(LEVELS) for name in names}
APPLICATION = RANK["plots"]
ROOT = "(xpnet itself)"


@dataclass(frozen=True)
class Import:
    """One imported module: as seen from `importer`, at `line`."""

    importer: str
    line: int
    module: str  # absolute
    typing_only: bool
    deferred: bool  # inside a function


def _module_name(path: Path) -> str:
    parts = ("xpnet", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(path: Path) -> Iterator[Import]:
    name = _module_name(path)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]

    def walk(node: ast.AST, typing_only: bool, deferred: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(name, node.lineno, alias.name, typing_only, deferred)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            for alias in node.names:
                full = f"{base}.{alias.name}"
                known = full.startswith("xpnet.") and _is_module(full)
                yield Import(name, node.lineno, full if known else base, typing_only, deferred)
        inside = deferred or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        guarded = typing_only or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        for child in ast.iter_child_nodes(node):
            yield from walk(child, guarded, inside)

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), False, False)


def _is_module(name: str) -> bool:
    path = PACKAGE.joinpath(*name.split(".")[1:])
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


FILES = sorted(PACKAGE.rglob("*.py"))
IMPORTS = [i for path in FILES for i in _imports(path)]


def _part(module: str) -> str:
    """Name in `LEVELS` of a module of this package, or of the package that it is in."""
    parts = module.split(".")
    if (exactly := ".".join(parts[1:3])) in RANK:
        return exactly
    return parts[1] if len(parts) > 1 else ROOT


def _rank(module: str) -> int:
    return RANK[_part(module)]


def _show(imports: list[Import]) -> str:
    return "\n".join(f"{i.importer}, line {i.line}: imports {i.module}" for i in imports)


def _is(i: Import, *libraries: str) -> bool:
    return i.module.partition(".")[0] in libraries


def test_the_reader_of_imports_sees_them():
    seen = {(i.importer, i.module) for i in IMPORTS}
    assert {
        ("xpnet.mlp.model", "numpy"), ("xpnet.layers", "xpnet.rng"), ("xpnet.layers", "xpnet.activations"),
        ("xpnet", "xpnet.mlp"), ("xpnet.backend.cpu", "xpnet.backend.program"),
        ("xpnet.backend.cpu", "xpnet.rng"),
        ("xpnet.backend.cpu", "xpnet.backend"), ("xpnet.data.sources", "xpnet.data.download"),
    } <= seen  # fmt: skip
    assert any(i.deferred for i in IMPORTS if i.module == "scipy.special")
    assert any(i.typing_only for i in IMPORTS if i.importer == "xpnet.callbacks")


@pytest.mark.parametrize("name", SEAMLESS)
def test_mathematics_knows_no_array_library(name):
    wrong = [
        i for i in IMPORTS
        if i.importer == f"xpnet.{name}"
        and _is(i, "numpy", "cupy", "cupyx", "torch", "jax", "scipy", "array_api_compat", "array_api_strict")
    ]  # fmt: skip
    assert not wrong, _show(wrong)


def test_names_inside_the_package_are_relative_but_in_the_leaves():
    absolute = [
        f"{path}, line {node.lineno}"
        for path in FILES
        if not {"experiments", "playground"} & set(path.parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and not node.level and str(node.module).startswith("xpnet")
    ]
    assert not absolute, absolute


def test_only_the_cuda_back_end_imports_cupy():
    wrong = [
        i
        for i in IMPORTS
        if _is(i, "cupy", "cupyx", "cuda") and not i.importer.startswith("xpnet.backend.cuda")
    ]
    assert not wrong, _show(wrong)


def test_every_module_has_a_level():
    assert {_part(_module_name(path)) for path in FILES} - {ROOT} == {
        name.partition(".")[0] for name in RANK
    } | {name for name in RANK if "." in name}


def test_imports_point_downwards():
    wrong = [
        i for i in IMPORTS
        if _is(i, "xpnet") and "xpnet" not in (i.importer, i.module) and _rank(i.module) > _rank(i.importer)
    ]  # fmt: skip
    assert not wrong, _show(wrong)


def test_only_applications_import_the_package_itself():
    wrong = [
        i for i in IMPORTS
        if i.module == "xpnet" and i.importer != "xpnet" and _rank(i.importer) < APPLICATION
        and not i.typing_only
    ]  # fmt: skip
    assert not wrong, _show(wrong)


def test_nothing_imports_the_command_or_the_leaves():
    leaves = {"cli": {"__main__"}, "experiments": {"cli", "__main__"}, "playground": {"cli", "__main__"}}
    wrong = [
        i for i in IMPORTS
        if i.module.startswith("xpnet.") and (leaf := _part(i.module)) in leaves
        and _part(i.importer) not in {leaf, *leaves[leaf]}
    ]  # fmt: skip
    assert not wrong, _show(wrong)


def test_no_cycles_on_import():
    graph: dict[str, set[str]] = {}
    for i in IMPORTS:
        if _is(i, "xpnet") and not i.deferred and not i.typing_only and i.module not in ("xpnet", i.importer):
            # a package's own __init__ runs before its modules, which may import names defined by then
            if i.importer.startswith(i.module + "."):
                continue
            graph.setdefault(i.importer, set()).add(i.module)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"modules import each other: {' <- '.join(error.args[1])}")


def test_testing_does_not_need_the_strict_namespace():
    wrong = [i for i in IMPORTS if _is(i, "array_api_strict", "pytest", "hypothesis")]
    assert not wrong, _show(wrong)


HEAVY = (
    "cupy", "sklearn", "scipy", "matplotlib", "rich", "click", "pooch", "PIL", "safetensors", "pandas",
    "torch", "array_api_compat", "array_api_strict",
)  # fmt: skip


@pytest.mark.parametrize("statement", ["import xpnet", "import xpnet, xpnet.testing"])
def test_import_loads_numpy_and_nothing_heavier(statement):
    code = f"import sys\n{statement}\nprint(*sorted({{n.partition('.')[0] for n in sys.modules}}))"
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    loaded = set(done.stdout.split())
    assert {"numpy", "xpnet"} <= loaded
    assert not loaded & set(HEAVY)


def test_public_names_exist():
    assert len(set(xpnet.__all__)) == len(xpnet.__all__)
    for name in xpnet.__all__:
        assert getattr(xpnet, name) is not None
