"""One self-contained HTML page about a run: settings, environment, data, curves, scores, mistakes.

Figures are inside the page, nothing is loaded from elsewhere, and no script runs. Every text that comes from the user
(names of columns, classes, files) is escaped.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import fields
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__, plots
from ..errors import ConfigError, XpnetError
from ..mlp import MLP
from ..storage import atomic
from ..storage.strictjson import loads_json
from ..tabular import TabularPreprocessing
from .config import TrainConfig
from .data import split
from .folder import ENVIRONMENT, REPORT, RESULT, RunFolder, open_model
from .reports import NoTestSet, class_names, evaluation_data, own_data, report_scores
from .scores import own_units, target_name

__all__ = ["write_report"]

_MISTAKES = 15  # rows of the table of mistakes
_DPI = 160


def write_report(
    run: str | Path, out: str | Path | None = None, *, device: str = "cpu", **options: Any
) -> Path:
    """Write the page of a run folder; returns its path.

    Parameters
    ----------
    run : path
        A run folder.
    out : path, optional
        The page; ``report.html`` in the run folder where omitted.
    device : str, default "cpu"
        Where the test is computed.
    **options
        ``data``, ``data_dir``, ``labels``, ``target``, ``unknown``: the data to test on, as for
        `xpnet.runs.reports.evaluation_data`; the run's own test set, or else its validation set, where omitted.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    ConfigError
        `run` is a model file, or `out` does not end in .html.
    XpnetError
        The page cannot be written, or matplotlib is not installed.

    Examples
    --------
    >>> write_report("runs/digits")  # doctest: +SKIP
    PosixPath('runs/digits/report.html')
    """
    model, folder = open_model(run, device=device)
    if folder is None:
        raise ConfigError(
            f"{run} is a model file; a report needs the run folder, with its settings and epochs"
        )
    target = folder / REPORT if out is None else Path(out)
    if target.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"the report is an HTML page: expected a name ending in .html, found {target}")
    if target.is_dir():
        raise ConfigError(f"{target} is a folder; name a file with --out")
    page = _page(model, folder, options)
    atomic.write_text_atomic(target, page)
    return target


def _page(model: MLP, folder: RunFolder, options: dict[str, Any]) -> str:
    config = folder.config()
    result, environment = _record(folder, RESULT), _record(folder, ENVIRONMENT)
    history = folder.metrics()
    judged, why_not = _judged(model, folder, config, options)
    scores = {} if judged is None else report_scores(model, *judged)
    sections = [
        _summary(model, result, scores, history),
        _note(why_not),
        _section("Training", _training(history, model, result)),
        _section("Answers", _answers(model, judged, scores)),
        _section("Data", _data(model, config)),
        _section("Network", _network(model)),
        _section("Settings", _settings(config)),
        _section("Environment", _pairs(environment)),
    ]
    title = escape(f"{Path(config.data).name}: {folder.path.name}")
    started = escape(str(environment.get("started", "")))
    return _PAGE.format(
        title=title, style=_STYLE, body="\n".join(s for s in sections if s),
        about=f"xpnet {escape(str(environment.get('xpnet', __version__)))}"
        + (f" · run started {started}" if started else ""),
    )  # fmt: skip


# --- what is known ------------------------------------------------------------------------------
Judged = tuple[np.ndarray, np.ndarray, str]


def _record(folder: RunFolder, name: str) -> dict[str, Any]:
    try:
        found = loads_json((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _judged(
    model: MLP, folder: RunFolder, config: TrainConfig, options: dict[str, Any]
) -> tuple[Judged | None, str | None]:
    """Samples and targets to judge by, or why there are none; data that were asked for must be there."""
    if model.n_models is not None:
        return None, "This is a population; a report judges single networks."
    try:
        try:
            x, y, name = evaluation_data(model, folder, **options)
        except NoTestSet:
            data = own_data(model, folder)
            validation = split(data, config)[1]
            if validation is None:
                return None, "The data of this run have neither a test nor a validation part."
            (x, y), name = validation, f"{data.name} (validation, {len(validation[0])} examples)"
        return (np.asarray(x), np.asarray(y), name), None
    except XpnetError as error:
        if options.get("data"):
            raise
        return None, f"The data of this run could not be loaded, so nothing is judged here: {error}"


# --- sections -----------------------------------------------------------------------------------
def _summary(
    model: MLP, result: dict[str, Any], scores: dict[str, Any], history: Sequence[dict[str, Any]]
) -> str:
    tiles: list[tuple[str, str]] = []
    if scores.get("accuracy") is not None:
        tiles.append(("accuracy", f"{scores['accuracy']:.2%}"))
    for key, label in (("rmse", "RMSE"), ("mae", "MAE"), ("r2", "R²")):
        if scores.get(key) is not None:
            tiles.append((label, f"{scores[key]:.4f}" if key == "r2" else f"{scores[key]:,.6g}"))
    if "calibration_error" in scores:
        tiles.append(("calibration error", f"{scores['calibration_error']:.2%}"))
    if "loss" in scores:
        tiles.append(("loss", f"{scores['loss']:.4g}"))
    tiles.append(("parameters", f"{model.n_parameters:,}"))
    best = result.get("best_epoch")
    tiles.append((f"best of {len(history)} epochs", str(best)) if best else ("epochs", str(len(history))))
    if isinstance(result.get("seconds"), (int, float)):
        tiles.append(("training time", f"{result['seconds']:.1f} s"))
    on = f"<p class='muted'>Judged on {escape(scores['data'])}.</p>" if "data" in scores else ""
    unfinished = (
        "" if result else "<p class='note'>This run has not finished: there is no result.json yet.</p>"
    )
    shown = "".join(
        f"<div><b>{escape(value)}</b><span>{escape(label)}</span></div>" for label, value in tiles
    )
    return f"<div class='tiles'>{shown}</div>{on}{unfinished}"


def _note(text: str | None) -> str:
    return "" if text is None else f"<p class='note'>{escape(text)}</p>"


def _training(history: Sequence[dict[str, Any]], model: MLP, result: dict[str, Any]) -> str:
    if not history:
        return "<p>No epoch has been finished yet.</p>"
    figure = plots.curves(history, loss=model.loss, best_epoch=result.get("best_epoch"))
    return _figure(figure, "Loss and score over the epochs, for training and validation data")


def _answers(model: MLP, judged: Judged | None, scores: dict[str, Any]) -> str:
    if judged is None:
        return ""
    x, y, _ = judged
    if model.task == "regression":
        truth, predicted = own_units(model, y), np.asarray(model.predict(x), dtype=np.float64)
        figure = plots.regression(truth, predicted, name=target_name(model))
        parts = [_figure(figure, "Predicted against true values, and residuals")]
        if truth.shape[1] == 1:
            parts.append(_worst(truth[:, 0], predicted[:, 0]))
        return "".join(parts)
    if "confusion_matrix" not in scores:
        return ""
    names, predicted = class_names(model), model.predict(x)
    rows = [
        [escape(r["class"]), *(_share(r[k]) for k in ("precision", "recall", "f1")), f"{r['support']:,}"]
        for r in scores["report"]
    ]
    parts = [
        _figure(plots.confusion(scores["confusion_matrix"], names), "Confusion matrix"),
        _table(("class", "precision", "recall", "F1", "examples"), rows, numbers=(1, 2, 3, 4)),
    ]
    labels = y if y.ndim == 1 else y.argmax(axis=-1)
    shape = tuple(n for n in model.preprocessing.sample_shape if n > 1) if model.preprocessing else ()
    if model.loss == "hinge":
        return "".join(parts)
    sure = model.predict_proba(x)[np.arange(len(x)), predicted]
    if len(shape) == 2:
        figure = plots.mistakes(x, labels, predicted, sure, names, shape)
        return "".join([*parts, _figure(figure, "The mistakes made with the most confidence")])
    return "".join([*parts, _mistakes(labels, predicted, sure, names)])


def _mistakes(labels: np.ndarray, predicted: np.ndarray, sure: np.ndarray, names: Sequence[str]) -> str:
    wrong = np.flatnonzero(labels != predicted)
    if not len(wrong):
        return f"<p>No mistakes among {len(labels):,} examples.</p>"
    worst = wrong[np.argsort(-sure[wrong], kind="stable")][:_MISTAKES]
    rows = [
        [f"{i}", escape(names[labels[i]]), escape(names[predicted[i]]), f"{sure[i]:.1%}"]
        for i in worst.tolist()
    ]
    head = f"<h3>The {len(worst)} most confident of {len(wrong):,} mistakes</h3>"
    return head + _table(("example", "true", "said", "probability"), rows, numbers=(0, 3))


def _worst(truth: np.ndarray, predicted: np.ndarray) -> str:
    worst = np.argsort(-np.abs(predicted - truth), kind="stable")[:_MISTAKES].tolist()
    rows = [
        [f"{i}", *(f"{v:,.6g}" for v in (truth[i], predicted[i], predicted[i] - truth[i]))] for i in worst
    ]
    head = f"<h3>The {len(worst)} largest errors</h3>"
    return head + _table(("example", "true", "predicted", "residual"), rows, numbers=(0, 1, 2, 3))


def _data(model: MLP, config: TrainConfig) -> str:
    facts: dict[str, Any] = {"data": config.data, "task": model.task}
    if model.classes:
        shown = ", ".join(model.classes[:40]) + (", ..." if len(model.classes) > 40 else "")
        facts[f"{len(model.classes)} classes"] = shown
    if model.tabular is None:
        if model.preprocessing:
            facts["shape of a sample"] = " × ".join(map(str, model.preprocessing.sample_shape))
        return _pairs(facts)
    keys = ("column", "type", "role", "missing", "features", "use")
    described = TabularPreprocessing.from_metadata(model.tabular).describe()
    rows = [
        [escape(str(row[key])) if row[key] or key not in keys[3:5] else "" for key in keys]
        for row in described
    ]
    return _pairs(facts) + _table(keys, rows, numbers=(3, 4))


def _network(model: MLP) -> str:
    text = _pairs({"layers": " → ".join(layer.label for layer in model.layers), "loss": model.loss})
    shape = tuple(n for n in model.preprocessing.sample_shape if n > 1) if model.preprocessing else ()
    if len(shape) != 2 or model.n_models is not None:
        return text
    first = next(v for k, v in model.get_weights().items() if k.endswith("weight"))
    return text + _figure(plots.first_layer(first, shape), "Weights of the first layer, one picture per unit")


def _settings(config: TrainConfig) -> str:
    default, groups = TrainConfig(), {}  # type: ignore[var-annotated]
    for f in fields(config):
        value = getattr(config, f.name)
        if value is not None:
            changed = value != getattr(default, f.name) and not f.metadata.get("auto")
            shown = ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
            text = f"<b>{escape(shown)}</b>" if changed else escape(shown)
            groups.setdefault(f.metadata["group"], []).append((escape(f.name), text))
    parts = [f"<div><h3>{escape(group)}</h3>{_rows(rows)}</div>" for group, rows in groups.items()]
    note = "Bold: other than the default. Where that is auto, nothing is bold."
    return f"<div class='columns'>{''.join(parts)}</div><p class='muted'>{note}</p>"


# --- pieces of HTML -----------------------------------------------------------------------------
def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>" if content else ""


def _figure(figure: Any, text: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    image = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"<figure><img alt='{escape(text)}' src='data:image/png;base64,{image}'></figure>"


def _table(titles: Iterable[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[int] = ()) -> str:
    """Lay out cells that are HTML already."""

    def line(cells: Iterable[str], tag: str) -> str:
        shown = [f"<{tag}{' class=n' if k in numbers else ''}>{cell}</{tag}>" for k, cell in enumerate(cells)]
        return f"<tr>{''.join(shown)}</tr>"

    head, body = line(map(escape, titles), "th"), "".join(line(row, "td") for row in rows)
    return f"<div class='wide'><table><thead>{head}</thead><tbody>{body}</tbody></table></div>"


def _rows(rows: Iterable[tuple[str, str]]) -> str:
    return (
        "<table class='pairs'>" + "".join(f"<tr><th>{k}</th><td>{v}</td></tr>" for k, v in rows) + "</table>"
    )


def _pairs(facts: dict[str, Any]) -> str:
    return _rows(
        (escape(k.replace("_", " ")), escape(_plain(v))) for k, v in facts.items() if v not in (None, "")
    )


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_plain(v)}" for k, v in value.items())
    if isinstance(value, list):
        words = all(isinstance(v, str) for v in value)
        return (" " if words else "; ").join(_plain(v) for v in value)
    return str(value)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header><h1>{title}</h1><p class="muted">{about}</p></header>
<main>
{body}
</main>
</body>
</html>
"""

_STYLE = """
:root { --ground: #f6f7f9; --card: #ffffff; --text: #1b2330; --muted: #5b6675; --line: #dfe3e8; --accent: #0072b2;
  --note: #fff4dc; }
@media (prefers-color-scheme: dark) { :root { --ground: #14181e; --card: #1d232b; --text: #e6eaf0; --muted: #9aa6b5;
  --line: #323b47; --accent: #6cb8e6; --note: #3a3018; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 62rem; background: var(--ground); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { margin: 0; font-size: 1.7rem; overflow-wrap: anywhere; }
h2 { margin: 0 0 .9rem; font-size: 1.15rem; }
h3 { margin: 1.1rem 0 .4rem; font-size: .95rem; color: var(--muted); font-weight: 600; }
.muted { color: var(--muted); margin: .3rem 0 0; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1.2rem 1.4rem;
  margin-top: 1.2rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(7.6rem, 1fr)); gap: .8rem;
  margin: 1.4rem 0 .6rem; }
.tiles div { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .7rem .9rem; }
.tiles b { display: block; font-size: 1.3rem; color: var(--accent); font-variant-numeric: tabular-nums;
  white-space: nowrap; }
.tiles span { color: var(--muted); font-size: .85rem; }
.note { background: var(--note); border-radius: 8px; padding: .7rem 1rem; overflow-wrap: anywhere; }
figure { margin: .4rem 0 1rem; padding: .5rem; background: #ffffff; border-radius: 8px; text-align: center; }
figure img { max-width: 100%; width: 50rem; height: auto; display: block; margin: 0 auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { text-align: left; padding: .32rem .7rem .32rem 0; border-bottom: 1px solid var(--line); vertical-align: top;
  overflow-wrap: break-word; }
.pairs td { overflow-wrap: anywhere; }
th { color: var(--muted); font-weight: 600; }
.n { text-align: right; white-space: nowrap; padding-right: 1.2rem; }
.pairs th { width: 12rem; font-weight: 500; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)); gap: 0 2rem; }
.columns h3 { text-transform: capitalize; margin-top: .4rem; }
.columns .pairs th { width: 9.5rem; }
@media print { body { background: #fff; max-width: none; padding: 0; font-size: 11px; }
  :root { --ground: #fff; --card: #fff; --text: #000; --muted: #444; --line: #bbb; --accent: #004b7c; --note: #f3f3f3; }
  section { border: 0; border-top: 1px solid var(--line); border-radius: 0; padding: .8rem 0; }
  figure, tr, .tiles { break-inside: avoid; } h2, h3 { break-after: avoid; } }
"""
