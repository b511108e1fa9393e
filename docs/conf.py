"""Sphinx: the built documentation. `scripts/build_docs` runs it; every warning is an error there.

The pages are the Markdown files of this folder as they are. Made on each build, below `generated/`: a page per
public name (from the tables of api.rst), and a page per program of the gallery with what it prints and draws.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import xpnet

DOCS = Path(__file__).parent
GENERATED = DOCS / "generated"

project = "xpnet"
author = "The xpnet maintainers"
project_copyright = "The xpnet maintainers, BSD-3-Clause"
version = release = xpnet.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "myst_parser",
]
source_suffix = {".rst": "restructuredtext", ".md": "markdown"}
root_doc = "index"
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates"]
default_role = "py:obj"  # `name` in a docstring links to that name where there is a page for it
suppress_warnings = ["ref.python"]  # a parameter may be called like the attributes of several classes

autosummary_generate = True
autodoc_typehints = "none"  # the Parameters sections say more
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_custom_sections = [("Attributes", "params_style")]
python_use_unqualified_type_names = True

myst_heading_anchors = 3

html_theme = "furo"
html_title = f"xpnet {release}"
html_static_path = ["_static"]
html_css_files = ["xpnet.css"]
html_show_sourcelink = False

#: Files elsewhere in the project that are pages too.
_INCLUDED = {
    "changelog": "CHANGELOG.md",
    "contributing": "CONTRIBUTING.md",
    "results": "benchmarks/RESULTS.md",
    "results-experiments": "benchmarks/RESULTS-experiments.md",
    "results-history": "benchmarks/RESULTS-history.md",
}


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", lambda app: _write_pages())
    app.connect("source-read", _adapt)
    app.connect("autodoc-process-docstring", _escape, priority=400)  # before napoleon


def _write_pages() -> None:
    """Write the pages of the gallery, and those that include a file from elsewhere."""
    (GENERATED / "gallery").mkdir(parents=True, exist_ok=True)
    for name, path in _INCLUDED.items():
        text = (DOCS.parent / path).read_text(encoding="utf-8")
        _write(GENERATED / f"{name}.md", _relink(text, (DOCS.parent / path).parent, GENERATED))
    programs = sorted((DOCS / "gallery").glob("*.py"))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for path, text in zip(programs, pool.map(_example, programs), strict=True):
            _write(GENERATED / "gallery" / f"{path.stem}.md", text)


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text(encoding="utf-8") != text:  # an equal page is not built again
        path.write_text(text, encoding="utf-8")


def _example(path: Path) -> str:
    """One page of the gallery: the program, and what it printed and drew just now."""
    source = path.read_text(encoding="utf-8")
    title, _, text = (ast.get_docstring(ast.parse(source)) or "").partition("\n")
    code = re.sub(r" +# fmt: skip", "", source.split('"""', 2)[2].strip())
    settings = {"PYTHONPATH": str(DOCS.parent), "PYTHONIOENCODING": "utf-8", "OPENBLAS_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, str(path)], cwd=folder, capture_output=True, encoding="utf-8", check=False,
            env={**os.environ, **settings},
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{path} failed:\n{done.stderr}")
        figures = []
        for figure in sorted(Path(folder).glob("*.png"), key=lambda p: p.stat().st_mtime_ns):  # as drawn
            shutil.copy(figure, GENERATED / "gallery" / f"{path.stem}-{figure.name}")
            figures.append(f"![{figure.stem}]({path.stem}-{figure.name})\n")
    where = f"Run it with `python docs/gallery/{path.name}`."
    return "\n".join([
        f"# {title.rstrip('.')}\n", text.strip() + "\n", f"```python\n{code}\n```\n", "It prints\n",
        f"```text\n{done.stdout.rstrip()}\n```\n", *figures, where, "",
    ])  # fmt: skip


def _adapt(app: Any, docname: str, content: list[str]) -> None:
    """Make links that suit a browser of the repository suit the built pages, and add tables of contents."""
    page = DOCS / docname
    if GENERATED not in page.parents:
        content[0] = _relink(content[0], page.parent, page.parent)
    if docname == "gallery/README":
        names = re.findall(r"/gallery/(\w+)\.md\)", content[0])
        content[0] += _contents(f"../generated/gallery/{name}" for name in names)
    elif docname == "tutorial/README":
        for language in ("en", "zh"):
            pages = sorted((DOCS / "tutorial" / language).glob("*.md"))
            content[0] += _contents(f"{language}/{page.stem}" for page in pages)


def _contents(pages: Any) -> str:
    return "\n```{toctree}\n:hidden:\n\n" + "\n".join(pages) + "\n```\n"


def _relink(text: str, there: Path, here: Path) -> str:
    """Turn the links of a text that lies in folder `there` into those of a page in folder `here`.

    Links to files of the repository that are no pages become plain text.
    """

    def change(link: re.Match[str]) -> str:
        words, target, rest = link.groups()
        if re.match(r"[a-z]+:", target) or target.startswith("#"):
            return link[0]
        file, hash_, anchor = target.partition("#")
        aim = (there / file).resolve()
        for name, path in _INCLUDED.items():
            if aim == DOCS.parent / path:
                aim = GENERATED / f"{name}.md"
        if aim.parent == DOCS / "gallery" and aim.suffix == ".py":
            aim = GENERATED / "gallery" / f"{aim.stem}.md"
        if DOCS not in aim.parents:
            return words
        return f"[{words}]({os.path.relpath(aim, here)}{hash_}{anchor}{rest})"

    return re.sub(r"\[([^\[\]]*)\]\(([^()\s]+)([^()]*)\)", change, text)


def _escape(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are read as text too: |w| is a length there, and (*shape) no emphasis."""
    for i, line in enumerate(lines):
        line = re.sub(r":(?:term|ref):`([^`<]+?)(?: *<[^`]*>)?`", r"\1", line)  # of scikit-learn's own pages
        lines[i] = line
        if not line.lstrip().startswith((">>>", "...", "*")):
            parts = re.split(r"(`+[^`]*`+)", line)
            parts[::2] = [re.sub(r"(?<!\\)\||\*(?=\w)(?![\w ]+\w\*)", r"\\\g<0>", p) for p in parts[::2]]
            lines[i] = "".join(parts)
