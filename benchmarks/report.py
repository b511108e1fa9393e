"""From the JSON of `benchmarks.compare`, or of pytest-benchmark, to a Markdown table and a chart.

scripts/bench_report out.json                                    # the table, on standard output
scripts/bench_report out.json --chart docs/figures/speed.png --rows small 784-500-10 --threads 1
scripts/bench_report out.json --append benchmarks/RESULTS.md     # keep it in the history
scripts/bench_report out.json --into README.md                   # between the two marks
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

from .grid import PEERS, VARIANTS, Goal
from .results import BASE, ratios, select
from .statistics import Ratio, quartiles, verdict

BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"


def variants(result: dict[str, Any]) -> list[str]:
    """The variants of xpnet that a result has."""
    return [name for name in VARIANTS if name in result["sides"]]


def judged(result: dict[str, Any]) -> list[tuple[str, Goal, Ratio, str]]:
    """Goals of a result that can be judged: the variant of xpnet, the goal, the ratio and the verdict."""
    rows = []
    for variant in variants(result):
        stands_for = {BASE: variant, "bare steps": f"{variant}, bare steps"}
        for entry in result["goals"]:
            goal = Goal(**entry)
            r = ratios(result, stands_for.get(goal.over, goal.over), stands_for.get(goal.under, goal.under))
            if r is not None:
                rows.append((variant, goal, r, verdict(goal.met(r.medians), goal.met(r.minima))))
    return rows


def seconds(value: float) -> str:
    """A time in a unit that suits it.

    Examples
    --------
    >>> seconds(0.00123), seconds(12e-6)
    ('1.23 ms', '12 µs')
    """
    for factor, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "µs")):
        if value * factor >= 1.0:
            return f"{value * factor:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"


def lines(result: dict[str, Any]) -> list[str]:
    """A result for people who watch: each side's time and its ratio to xpnet, then the goals."""
    out = [f"\n{result['row']}  [{result['kind']}, threads: {result['threads']}]"]
    for name, data in result["sides"].items():
        low, high = quartiles(data["samples"])
        line = f"  {name:14} {seconds(median(data['samples'])):>9}  (min {seconds(min(data['samples']))}, "
        line += f"quartiles {seconds(low)} to {seconds(high)}, {len(data['samples'])} x {data['per_sample']})"
        for variant in variants(result):
            if name not in (*VARIANTS, *(f"{v}, bare steps" for v in VARIANTS)):
                line += f"  / {variant}: {ratios(result, name, variant)}"
        out.append(line)
    if "flops" in result:
        for name in (*variants(result), *(n for n in ("floor",) if n in result["sides"])):
            speed = result["flops"] / median(result["sides"][name]["samples"]) / 1e9
            out.append(f"  {name}: {speed:.1f} GFLOP/s")
    for name in result.get("disagree", ()):
        loss = result["loss_after_20"]
        first = next(iter(loss))
        out.append(
            f"  {name}: NOT TIMED, its loss after 20 steps is {loss[name]:.6g}, {first}'s {loss[first]:.6g}"
        )
    for side, runs in result.get("runs", {}).items():
        missed = [r["accuracy"] for r in runs if r["seconds"] is None]
        epochs = [r["epochs"] for r in runs]
        out.append(f"  {side}: {epochs} epochs" + (f"; target missed at {missed}" if missed else ""))
    out += [f"  {text}" for text in extra(result)]
    out += [f"  {variant}: goal {goal.text}: {r}: {word}" for variant, goal, r, word in judged(result)]
    out += [f"  {name} skipped: {reason}" for name, reason in result["skipped"].items()]
    return out


def extra(result: dict[str, Any]) -> list[str]:
    """What start-up, memory and accuracy results have to say besides ratios."""
    sides, out = result["sides"], []
    for command, limit in result.get("beyond_numpy", {}).items():
        base = sides["import numpy"]["samples"]
        by_median = median(sides[command]["samples"]) - median(base)
        by_minimum = min(sides[command]["samples"]) - min(base)
        word = verdict(by_median <= limit, by_minimum <= limit)
        out.append(
            f"{command}: {by_median:.3f} s beyond NumPy (min {by_minimum:.3f}), goal <= {limit} s: {word}"
        )
    if "needed" in result:
        need = result["needed"]
        total = sum(need.values())
        share = result["traced"] / total
        bare = result["traced"] / (total - need["gradients"])
        out.append("needed: " + ", ".join(f"{k} {v / 2**20:.1f}" for k, v in need.items()) + " MiB")
        out.append(
            f"xpnet asks for {result['traced'] / 2**20:.1f} MiB: {share:.2f} x that, {bare:.2f} x without the "
            f"gradients; goal <= {result['limit']}: {'met' if share <= result['limit'] else 'missed'}"
        )
        out += [f"{side}: the process grows by {b / 2**20:.0f} MiB" for side, b in result["grown"].items()]
    if "limit_seconds" in result and "sklearn" not in sides:
        for name in variants(result):
            middle = median(sides[name]["samples"])
            word = "met" if middle <= result["limit_seconds"] else "missed"
            out.append(f"{name}: median {middle:.2f} s, goal <= {result['limit_seconds']:g} s: {word}")
    return out


# --- Markdown ---------------------------------------------------------------------------------------
def heading(meta: dict[str, Any]) -> str:
    """Hardware, versions, date and commit, in one paragraph."""
    versions = ", ".join(f"{name} {version}" for name, version in meta["versions"].items())
    memory = f", {meta['memory_gib']} GiB" if meta.get("memory_gib") else ""
    busy = f" (load {meta['load']} at the start)" if meta.get("load") is not None else ""
    return (
        f"{meta['date']}, commit {meta['commit']}. {meta['cpu']}, {meta['cpus']} processors{busy}{memory}, "
        f"{meta['system']}. Python {meta['python']}, {versions}; NumPy's BLAS: {meta['blas']}."
    )


def markdown(document: dict[str, Any], *, rows: list[str] | None = None, setting: str | None = None) -> str:
    """The tables of a document, with the paragraph that says where it ran."""
    if "benchmarks" in document:
        return _pytest_markdown(document)
    parts = [heading(document["meta"])]
    for threads in dict.fromkeys(r["threads"] for r in document["results"]):
        for kind in dict.fromkeys(r["kind"] for r in document["results"]):
            chosen = [r for r in select(document, rows, threads) if r["kind"] == kind]
            if chosen and setting in (None, threads):
                parts.append(_table(chosen, kind, threads))
    goals = _goals(select(document, rows, setting))
    return "\n\n".join(parts + ([goals] if goals else [])) + "\n"


def _table(results: list[dict[str, Any]], kind: str, threads: str) -> str:
    title = f"**{kind}**, {'one thread' if threads == '1' else 'all threads'}"
    if kind in ("memory", "start"):
        body = [f"- {r['row']}: {text}" for r in results for text in extra(r)]
        if kind == "start":
            body += [
                f"- {n}: {seconds(median(d['samples']))}" for r in results for n, d in r["sides"].items()
            ]
        return f"{title}\n\n" + "\n".join(body)
    found = [v for v in VARIANTS if any(v in r["sides"] for r in results)]
    tables = [_ratio_table(results, variant) for variant in found]
    extras = [f"- {text}" for r in results for text in extra(r)]
    note = (
        "Times divided by that of xpnet in the second column: ratio of medians (ratio of minima; quartiles of the "
        "rounds). Above 1, xpnet is faster."
    )
    return "\n\n".join([f"{title}. {note}", *tables, *(["\n".join(extras)] if extras else [])])


def _ratio_table(results: list[dict[str, Any]], base: str) -> str:
    others = [n for n in (*PEERS, "reference") if any(n in r["sides"] for r in results)]
    bare = any(f"{base}, bare steps" in r["sides"] for r in results)
    floor = any("floor" in r["sides"] for r in results)
    head = [
        "row",
        base,
        *(["step / floor"] if floor else []),
        *(["epoch / bare steps"] if bare else []),
        *others,
    ]
    table = [head, ["---"] * len(head)]
    for r in results:
        if base not in r["sides"]:
            continue
        cells = [r["row"], seconds(median(r["sides"][base]["samples"]))]
        cells += [_cell(ratios(r, base, "floor"))] if floor else []
        cells += [_cell(ratios(r, base, f"{base}, bare steps"))] if bare else []
        cells += [_cell(ratios(r, n, base)) for n in others]
        table.append(cells)
    return "\n".join("| " + " | ".join(c) + " |" for c in table)


def _cell(r: Ratio | None) -> str:
    return "" if r is None else f"{r.medians:.2f} ({r.minima:.2f}; {r.low:.2f}–{r.high:.2f})"


def _goals(results: list[dict[str, Any]]) -> str:
    rows = [
        f"| {r['row']} | {r['threads']} | {v} | {goal.text} | {value.medians:.2f} ({value.minima:.2f}) | {word} |"
        for r in results
        for v, goal, value, word in judged(r)
    ]
    if not rows:
        return ""
    head = ["| row | threads | side | goal | medians (minima) | |", "|---|---|---|---|---|---|"]
    return "\n".join(["Goals: met or missed where medians and minima agree, else unclear.", "", *head, *rows])


def _pytest_markdown(document: dict[str, Any]) -> str:
    machine = document["machine_info"]
    cpu = machine.get("cpu", {})
    name = cpu.get("brand_raw") if isinstance(cpu, dict) else cpu
    out = [
        f"{document['datetime'][:16]}, commit {document['commit_info']['id'][:7]}. {name or machine['processor']}, "
        f"{machine['system']} {machine['machine']}. Python {machine['python_version']}.",
        "",
        "pytest-benchmark times each row by itself: rows are not interleaved, so no ratios are made of them.",
        "",
        "| benchmark | median | min | interquartile range | rounds |",
        "|---|---|---|---|---|",
    ]
    for b in document["benchmarks"]:
        s = b["stats"]
        times = " | ".join(seconds(s[k]) for k in ("median", "min", "iqr"))
        out.append(f"| {b['name']} | {times} | {s['rounds']} |")
    return "\n".join(out) + "\n"


# --- the chart --------------------------------------------------------------------------------------
# --- the command ------------------------------------------------------------------------------------
def load(paths: list[str]) -> dict[str, Any]:
    """Read one document, or several of `benchmarks.compare` joined under the first one's heading.

    Raises
    ------
    ValueError
        A file is neither, or the documents come from different commits or machines.
    """
    documents = [json.loads(Path(p).read_text()) for p in paths]
    for path, document in zip(paths, documents, strict=True):
        if "benchmarks" not in document and document.get("schema") != 1:
            raise ValueError(f"{path} is neither from benchmarks.compare nor from pytest-benchmark")
    first = documents[0]
    for path, document in zip(paths[1:], documents[1:], strict=True):
        for key in ("commit", "cpu", "versions", "blas"):
            if document["meta"][key] != first["meta"][key]:
                raise ValueError(f"{path} has another {key} than {paths[0]}; report it by itself")
        first["results"] += document["results"]
    return first


def insert(path: Path, text: str) -> None:
    """Replace what stands between the two marks in a file.

    Raises
    ------
    ValueError
        The file lacks them.
    """
    old = path.read_text()
    if BEGIN not in old or END not in old:
        raise ValueError(f"{path} has no place for the table: put {BEGIN} and {END} on lines of their own")
    head, _, rest = old.partition(BEGIN)
    path.write_text(f"{head}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")


def main(arguments: list[str] | None = None) -> int:
    """Write the table and the chart that the command line asks for."""
    parser = argparse.ArgumentParser(prog="scripts/bench_report", description=__doc__.partition("\n\n")[0])
    parser.add_argument(
        "json", nargs="+", help="from `python -m benchmarks.compare --json` or `pytest --benchmark-json`"
    )
    parser.add_argument(
        "--rows", nargs="+", metavar="WORD", help="only groups, or rows whose name has this part"
    )
    parser.add_argument("--threads", choices=("1", "all"), help="only this setting (chart: 1 by default)")
    parser.add_argument("--chart", metavar="PNG", help="draw the ratios there")
    parser.add_argument("--base", choices=VARIANTS, default=BASE, help="the chart's 1 (default: xpnet)")
    parser.add_argument("--out", metavar="FILE", help="write the table there instead of standard output")
    parser.add_argument("--append", metavar="FILE", help="add the table to a history, under its date")
    parser.add_argument("--into", metavar="FILE", help=f"put the table between {BEGIN} and {END}")
    options = parser.parse_args(arguments)
    try:
        document = load(options.json)
        text = markdown(document, rows=options.rows, setting=options.threads)
        if options.chart:
            from .chart import chart  # needs matplotlib

            chart(
                document, options.chart, rows=options.rows, setting=options.threads or "1", base=options.base
            )
        if options.into:
            insert(Path(options.into), text)
    except (OSError, ValueError) as error:
        print(f"bench_report: {error}", file=sys.stderr)
        return 1
    if options.append:
        meta = document.get("meta") or {
            "date": document["datetime"][:10],
            "commit": document["commit_info"]["id"][:7],
        }
        with open(options.append, "a") as file:
            file.write(f"\n## {meta['date'][:10]}, commit {meta['commit']}\n\n{text}")
    if options.out:
        Path(options.out).write_text(text)
    elif not (options.append or options.into):
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
