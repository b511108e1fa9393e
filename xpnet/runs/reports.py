"""What the commands say about a trained model: evaluation, predictions, figures."""

from __future__ import annotations

import csv
import io
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import metrics
from ..backend import get_backend
from ..data import Dataset
from ..data import load as load_data
from ..data.columns import Column, Table
from ..data.spelling import Spelling
from ..data.table_sources import is_table, read_table
from ..errors import ConfigError, DataError, XpnetError
from ..mlp import MLP
from ..storage.strictjson import dumps_json
from ..tabular import TabularPreprocessing
from ..tabular.recipes import no_column
from ..tabular.targets import units_of
from .continuing import check_same_data
from .data import check_files_are_there, load_run_data, table_name, transform_file
from .folder import RunFolder, open_model
from .importance import REPEATS, column_importance
from .notes import note
from .scores import own_units, score, target_name

STDIN = "-"
_CALLED = "standard input"
_ROWS = 1 << 16  # rows of a table whose features are in memory at a time
_TONES = (0.25, 64.0)  # how many standard deviations of pictures white may be from black


class NoTestSet(ConfigError):
    """The data of a run have no test part."""


def evaluation_data(
    model: MLP, folder: RunFolder | None, *, data: str | None = None, data_dir: str | None = None,
    labels: str | None = None, target: str | None = None, unknown: str = "refuse",
) -> tuple[Any, Any, str]:  # fmt: skip
    """Return samples, targets and a name: the test part of what is named, else of the run's own data."""
    if model.tabular is not None:
        return _evaluation_table(model, folder, data=data, labels=labels, target=target, unknown=unknown)
    task = model.task or "classification"
    if data is None:
        if labels or target:
            raise ConfigError("--labels and --target belong to --data FILE, which is missing")
        if folder is None:
            raise ConfigError("a model file does not know its data: name a data set or file with --data")
        found = own_data(model, folder, data_dir=data_dir)
    else:
        found = load_data(
            data, data_dir=data_dir, labels=labels, target=target, task=task, classes=model.classes
        )
        found = _as_learnt(model, found)
    x, y = (found.x_test, found.y_test) if found.x_test is not None else (found.x_train, found.y_train)
    part = "test" if found.x_test is not None else "all"
    if data is None and found.x_test is None:
        raise NoTestSet(f"{found.name} has no test set; name one with --data FILE")
    _check_fits(model, found)
    _note_fractions(model, x)
    if model.task == "classification" and model.classes is not None and tuple(found.classes) != model.classes:
        y = np.array([model.classes.index(name) for name in found.classes])[y]  # numbered as the model does
    return x, y, f"{found.name} ({part}, {len(x)} examples)"


def own_data(model: MLP, folder: RunFolder, *, data_dir: str | None = None) -> Dataset:
    """Load the data of a run as its network learnt them.

    Raises
    ------
    DataError
        They are gone, or others than those of the training.
    """
    config = folder.config()
    config.data_dir = data_dir or config.data_dir
    check_files_are_there(config, folder.path)
    prepared = TabularPreprocessing.from_metadata(model.tabular) if model.tabular else None
    # what scales the targets is what the model says, not the file
    data = load_run_data(replace(config, scale_target=False), prepared=prepared, say=note)
    data = data if prepared is not None else _as_learnt(model, data)
    check_same_data(folder, config, data)
    return data


def _as_learnt(model: MLP, data: Dataset) -> Dataset:
    """Return data whose targets are in their own units with those that the network learnt."""
    return data if model.task != "regression" else data.with_scaled_targets(*units_of(model))


def _evaluation_table(
    model: MLP, folder: RunFolder | None, *, data: str | None, labels: str | None, target: str | None,
    unknown: str,
) -> tuple[Any, Any, str]:  # fmt: skip
    prepare = TabularPreprocessing.from_metadata(model.tabular or {})
    own = prepare.target_.name if prepare.target_ else None
    if labels is not None:
        raise ConfigError(f"--labels belongs to NPY and IDX files; this model finds them in column {own!r}")
    if target not in (None, own):
        raise ConfigError(f"this model predicts column {own!r}, not {target!r}; leave --target out")
    if data is not None:
        _check_table(prepare, data)
        drop = folder is not None and folder.config().drop_missing_target
        x, y = transform_file(prepare, data, model.dtype, note, unknown, drop=drop)
        return x, y, f"{table_name(data)} (all, {len(x)} examples)"
    if folder is None:
        raise ConfigError("a model file does not know its data: name a table with --data")
    found = own_data(model, folder)
    if found.x_test is None:
        raise NoTestSet(f"{found.name} has no test set; name one with --data FILE")
    return found.x_test, found.y_test, f"{found.name} (test, {len(found.x_test)} examples)"


def _check_table(prepare: TabularPreprocessing, path: str | Path) -> None:
    if not is_table(path):
        raise DataError(
            f"{path}: this model takes tables (.csv, .tsv, .parquet) with the columns {', '.join(prepare.columns)}"
        )


def _check_fits(model: MLP, data: Dataset) -> None:
    if data.n_features != model.sizes[0]:
        raise DataError(
            f"the model takes {model.sizes[0]} numbers per sample, but {data.name} has {data.n_features}"
        )
    if model.task != "regression" and data.task == "classification" and model.classes is not None:
        unknown = sorted(set(data.classes) - set(model.classes))
        if unknown:
            raise DataError(f"{data.name} has classes that the model does not know: {', '.join(unknown[:5])}")


def evaluate_run(
    run: str | Path, *, device: str = "cpu", importance: bool = False, **options: Any
) -> dict[str, Any]:
    """Return loss and accuracy on a test set, for classes the report and confusion matrix, and what is asked for."""
    model, folder = open_model(run, device=device)
    x, y, name = evaluation_data(model, folder, **options)
    scores = {"run": str(run), **report_scores(model, x, y, name)}
    return scores | ({"importance": column_importance(model, x, y)} if importance else {})


def report_scores(model: MLP, x: Any, y: Any, name: str) -> dict[str, Any]:
    """Return the name of the data, loss and accuracy, and for classes the report and the confusion matrix."""
    scores: dict[str, Any] = {"data": name, **score(model, x, y)}
    if model.task == "classification" and model.n_models is None:
        predicted, names = model.predict(x), class_names(model)
        matrix = _confusion(model, y, predicted)
        if model.loss_function().link is not None:
            sure = model.predict_proba(x)[np.arange(len(predicted)), predicted]
            scores |= metrics.calibration(sure, predicted == _labels(y))
        scores |= {
            "classes": names, "report": metrics.class_report(matrix, names),
            "confusion_matrix": matrix.astype(int).tolist(),
        }  # fmt: skip
    return scores


def class_names(model: MLP) -> list[str]:
    """Names of the classes, in the order of the outputs."""
    return list(model.classes or map(str, range(max(model.sizes[-1], 2))))


def _labels(y: Any) -> np.ndarray:
    """Indices of classes (N,), also of soft labels (N, C)."""
    return np.asarray(y) if np.ndim(y) == 1 else np.argmax(y, axis=-1)


def _confusion(model: MLP, y: Any, predicted: np.ndarray) -> np.ndarray:
    be = get_backend("cpu")
    n = max(model.sizes[-1], 2)
    return be.to_numpy(
        metrics.confusion_matrix(be, be.asarray(_labels(y), "int64"), be.asarray(predicted), n)
    )


def as_text(scores: dict[str, Any]) -> str:
    """Lay an evaluation out for people."""
    lines = [f"{scores['run']} on {scores['data']}", f"loss      {_mean(scores['loss']):.6g}"]
    if scores["accuracy"] is not None:
        lines.append(f"accuracy  {_mean(scores['accuracy']):.2%}")
    if "confidence" in scores:
        lines.append(
            f"confidence {scores['confidence']:.2%} on average; calibration error {scores['calibration_error']:.2%}"
        )
    if "rmse" in scores:
        lines += [f"RMSE      {scores['rmse']:.6g}", f"MAE       {scores['mae']:.6g}"]
        lines.append("R²        " + ("undefined" if scores["r2"] is None else f"{scores['r2']:.4f}"))
    if "report" in scores:
        width = max(5, *(len(n) for n in scores["classes"]))
        lines += ["", f"{'class':>{width}}  precision  recall      f1  support"]
        for row in scores["report"]:
            cells = "  ".join(_share(row[k], w) for k, w in (("precision", 9), ("recall", 6), ("f1", 6)))
            lines.append(f"{row['class']:>{width}}  {cells}  {row['support']:>7}")
        lines += ["", "confusion matrix (rows: true, columns: predicted)"]
        cell = max(len(str(v)) for row in scores["confusion_matrix"] for v in row)
        cell = max(cell, *(len(n) for n in scores["classes"])) if len(scores["classes"]) <= 12 else cell
        if len(scores["classes"]) <= 12:
            lines.append(" " * width + "  " + " ".join(n.rjust(cell) for n in scores["classes"]))
        for name, row in zip(scores["classes"], scores["confusion_matrix"], strict=True):
            lines.append(f"{name:>{width}}  " + " ".join(str(v).rjust(cell) for v in row))
    return "\n".join(lines + _importance_lines(scores.get("importance", [])))


def _importance_lines(found: list[dict[str, Any]]) -> list[str]:
    if not found:
        return []
    key = next(k for k in found[0] if k.endswith("_fall"))
    width = max(len("column"), *(len(entry["column"]) for entry in found))
    title = "R² falls" if key == "r2_fall" else "accuracy falls"
    lines = [f"\nimportance: with one column shuffled ({REPEATS} times), how much the loss rises"]
    lines.append(f"{'column':>{width}}  loss rises   ± std  {title}")
    for entry in found:
        fall = entry[key]
        shown = "-" if fall is None else f"{fall:.4f}" if key == "r2_fall" else f"{fall:.2%}"
        numbers = f"{entry['loss_rise']:>10.4f}  {entry['loss_rise_std']:>6.4f}"
        lines.append(f"{entry['column']:>{width}}  {numbers}  {shown:>{len(title)}}")
    return lines


def _mean(value: Any) -> float:
    return float(np.mean(value))


def _share(value: float | None, width: int) -> str:
    return ("-" if value is None else f"{value:.1%}").rjust(width)


def predict_files(
    run: str | Path, files: Sequence[str], *, top: int = 1, ids: Sequence[str] = (), invert: Any = "auto",
    device: str = "cpu", unknown: str = "refuse",
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Yield one answer per sample; the file ``-`` is a CSV file on standard input.

    That is {"name", "predictions": [{"class", "probability"}]} for classes, or {"name", "values"}; with `ids`, names of
    columns of tables, also {"id": {column: text}}.
    """
    from ..data import load_inputs

    model, _ = open_model(run, device=device)
    if model.n_models is not None:
        raise ConfigError("this is a population; predict with one of its members (model.member(m).save(...))")
    if top > 1 and model.task != "classification":
        raise ConfigError(f"--top {top}: {run} was trained for {model.task}, so there are no classes to rank")
    if ids and model.tabular is None:
        raise ConfigError(f"--id {ids[0]}: {run} takes no tables, so there are no columns that name samples")
    with _standard_input(STDIN in files) as called:
        there = [next(iter(called)) if file == STDIN else file for file in files]
        try:
            if model.tabular is not None:
                for x, names, keys in _table_inputs(model, there, unknown, ids, called):
                    for answer, key in zip(_answers(model, x, names, top), keys, strict=True):
                        yield answer | key
                return
            shape = model.preprocessing.sample_shape if model.preprocessing else (model.sizes[0],)
            x, names = load_inputs(there, sample_shape=shape, invert=invert, white=_white(model))
            _note_fractions(model, x)
            yield from _answers(model, x, [_as_called(name, called) for name in names], top)
        except XpnetError as error:
            raise type(error)(_as_called(str(error), called)) from error


def _brightest(model: MLP) -> float | None:
    """What the pixels that a model takes can hold, such as 255; None where it takes other numbers."""
    prepare = model.preprocessing
    if (
        prepare is None
        or not isinstance(prepare.scale, float)
        or np.any(prepare.shift)
        or prepare.scale >= 1.0
    ):
        return None
    return float(round(1.0 / prepare.scale))


def _white(model: MLP) -> float | None:
    """The number that white has among the samples of a model.

    Pictures of real numbers are taken for tones of 0 to 255, too, unless these would lie far outside what was measured.
    """
    if model.preprocessing is not None and model.preprocessing.white is not None:
        return model.preprocessing.white
    if (brightest := _brightest(model)) is not None:
        return brightest
    scale = 1.0 if model.preprocessing is None else model.preprocessing.scale
    measured = isinstance(scale, float) and scale != 1.0
    return None if measured and not _TONES[0] < 255.0 * scale < _TONES[1] else 255.0


def _note_fractions(model: MLP, x: np.ndarray) -> None:
    """Say where samples for a model of pixels look as if they had been brought to 0..1 already."""
    brightest = _brightest(model)
    if brightest is not None and x.dtype.kind == "f" and 0.0 < x.max() <= 1.0 and x.min() >= 0.0:
        note(
            f"no pixel is above 1, but the model takes 0 to {brightest:g} and scales them itself; if they were divided "
            f"by {brightest:g} already, answers are wrong: give them as they were"
        )


def _as_called(text: str, called: Mapping[str, str]) -> str:
    """A text with the names of files as people know them."""
    for path, name in called.items():
        text = text.replace(path, name)
    return text


@contextmanager
def _standard_input(wanted: bool) -> Iterator[dict[str, str]]:
    """Yield the name of a CSV file with what comes on standard input, and what messages call it, or nothing.

    It is a file because a table may have to be read twice.
    """
    if not wanted:
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="xpnet-") as folder:
        path = Path(folder, "standard-input.csv")
        with open(path, "wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        yield {str(path): _CALLED}


def as_csv(answers: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of a CSV file with a header: name and values, or name, class and probability, by rank.

    Columns that name the rows ("id") stand in place of the name.

    Examples
    --------
    >>> answers = [{"name": "a", "predictions": [{"class": "cat", "probability": 0.75}]}, {"name": "b", "predictions": [
    ...     {"class": "dog", "probability": 1.0}]}]
    >>> print(*as_csv(answers), sep="")
    name,prediction,probability
    a,cat,0.75
    b,dog,1.0
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    for k, answer in enumerate(answers):
        own = answer.get("id", {"name": answer["name"]})
        if k == 0:
            writer.writerow([*own, *_csv_columns(answer)])
        cells = answer.get("values") or [cell for p in answer["predictions"] for cell in p.values()]
        writer.writerow([*own.values(), *cells])
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()


def _csv_columns(answer: dict[str, Any]) -> list[str]:
    found = answer.get("values") or answer["predictions"]
    ranks = [(f"_{k}" if k > 1 else "", each) for k, each in enumerate(found, 1)]
    if "values" in answer:
        return [f"prediction{rank}" for rank, _ in ranks]
    return [f"{'prediction' if key == 'class' else key}{rank}" for rank, p in ranks for key in p]


def _table_inputs(
    model: MLP, files: Sequence[str], unknown: str, ids: Sequence[str], called: Mapping[str, str]
) -> Iterator[tuple[np.ndarray, list[str], list[dict[str, Any]]]]:
    """Yield features, names and `ids`, some rows at a time; every file is checked before the first answer."""
    prepare = TabularPreprocessing.from_metadata(model.tabular or {})
    for path in files:
        _check_table(prepare, path)
    tables = [prepare.table(path) for path in files]
    keys = [_keys(path, ids) for path in files]
    for path, table in zip(files, tables, strict=True):
        for _, part in _parts(table):
            prepare.transform(part, dtype=model.dtype, unknown=unknown)
        for text in prepare.notes(table, unknown=unknown):
            note(f"{called.get(path, path)}: {text}")
    for path, table, own in zip(files, tables, keys, strict=True):
        for start, part in _parts(table):
            rows = range(start, start + part.n_rows)
            names = [f"{called.get(path, path)}[{i}]" for i in rows]
            x = prepare.transform(part, dtype=model.dtype, unknown=unknown)
            yield x, names, [{"id": {c.name: c.shown(i) for c in own}} if own else {} for i in rows]


def _keys(path: str, ids: Sequence[str]) -> list[Column]:
    """The columns `ids` of a table, as they are written there."""
    if not ids:
        return []
    table = read_table(path, text=ids, only=ids, spelling=Spelling(missing=()))
    for name in ids:
        if name not in table.columns:
            raise no_column(table, name)
    return [table[name] for name in ids]


def _parts(table: Table) -> Iterator[tuple[int, Table]]:
    for start in range(0, table.n_rows, _ROWS):
        yield start, table.take(slice(start, start + _ROWS))


def _answers(model: MLP, x: np.ndarray, names: list[str], top: int) -> Iterator[dict[str, Any]]:
    if model.task != "classification":
        for name, values in zip(names, model.predict(x), strict=True):
            yield {"name": name, "values": values.tolist()}
        return
    scores = _scores(model, x)
    classes = class_names(model)
    best = np.argsort(-scores, axis=-1, kind="stable")[:, :top]
    kind = "score" if model.loss == "hinge" else "probability"
    for name, row, order in zip(names, scores, best, strict=True):
        yield {"name": name, "predictions": [{"class": classes[k], kind: float(row[k])} for k in order]}


def _scores(model: MLP, x: np.ndarray) -> np.ndarray:
    if model.loss != "hinge":
        return model.predict_proba(x)
    h = model.outputs(x)
    return np.concatenate([-h, h], axis=-1) if h.shape[-1] == 1 else h


def answer_lines(answers: Iterable[dict[str, Any]], form: str) -> Iterator[str]:
    """Yield the lines of what `predict_files` found, as "text", "json" or "csv"."""
    if form == "csv":
        yield from as_csv(answers)
        return
    for answer in answers:
        yield (dumps_json(answer) if form == "json" else answer_line(answer)) + "\n"


def answer_line(answer: dict[str, Any]) -> str:
    """One line for people."""
    name = ", ".join(answer["id"].values()) if "id" in answer else answer["name"]
    if "values" in answer:
        return f"{name}: {', '.join(f'{v:g}' for v in answer['values'])}"
    said = [
        f"{p['class']} ({p['probability']:.1%})"
        if "probability" in p
        else f"{p['class']} (score {p['score']:.3g})"
        for p in answer["predictions"]
    ]
    return f"{name}: {', '.join(said)}"


def plot_run(run: str | Path, out: str | Path | None, *, device: str = "cpu", **options: Any) -> list[str]:
    """Draw what there is to draw about a run; returns the paths of the figures."""
    from .. import plots

    model, folder = open_model(run, device=device)
    if folder is None and out is None:
        raise ConfigError("a model file has no folder for figures: name one with --out")
    target = Path(out) if out is not None else Path(run) / "plots"
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise XpnetError(f"cannot create {target}: {error.strerror}; choose another --out") from error
    paths = []
    history = folder.metrics() if folder is not None else []
    if history:
        plots.curves(history, target / "curves.png", loss=model.loss)
        paths.append("curves.png")
    paths += _plot_weights(model, target)
    if model.n_models is None and (folder is not None or options.get("data")):
        try:
            x, y, _ = evaluation_data(model, folder, **options)
        except NoTestSet:
            if model.task == "classification":
                raise
        else:
            paths += _plot_answers(model, np.asarray(x), np.asarray(y), target)
    return [str(target / p) for p in paths]


def _plot_weights(model: MLP, target: Path) -> list[str]:
    from .. import plots

    shape = model.preprocessing.sample_shape if model.preprocessing else ()
    if len([n for n in shape if n > 1]) != 2 or model.n_models is not None:
        return []
    first = next(v for k, v in model.get_weights().items() if k.endswith("weight"))
    plots.first_layer(first, tuple(n for n in shape if n > 1), target / "first_layer.png")
    return ["first_layer.png"]


def _plot_answers(model: MLP, x: np.ndarray, y: np.ndarray, target: Path) -> list[str]:
    from .. import plots

    if model.task == "regression":
        name = target_name(model)
        plots.regression(own_units(model, y), model.predict(x), target / "regression.png", name=name)
        return ["regression.png"]
    if model.task != "classification":
        return []
    classes, predicted = class_names(model), model.predict(x)
    plots.confusion(_confusion(model, y, predicted).astype(int), classes, target / "confusion.png")
    shape = tuple(n for n in model.preprocessing.sample_shape if n > 1) if model.preprocessing else ()
    if len(shape) != 2 or model.loss == "hinge":
        return ["confusion.png"]
    p = model.predict_proba(x)[np.arange(len(x)), predicted]
    plots.mistakes(x, y, predicted, p, classes, shape, target / "mistakes.png")
    return ["confusion.png", "mistakes.png"]
