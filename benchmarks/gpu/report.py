"""The findings of all parts as one Markdown page."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from .cases import CASES, Case

#: Relative difference of the losses after `CHECK_STEPS` steps that the arithmetic may cause.
TOLERANCE = {"float32": 1e-3, "tf32": 1e-2, "bf16": 3e-2}
#: Share of the rate of large products that the largest network should reach.
SHARE_OF_PEAK = 0.75


def markdown(document: dict[str, Any]) -> str:
    """The page: what ran, the goals, the steps side by side, then each part's findings."""
    parts = document["parts"]
    lines = [f"# GPU check, {document['date']}", ""]
    device = _first(parts, "versions", "device")
    if device:
        lines += [", ".join(f"{k} {v}" for k, v in device.items() if not k.endswith("_bytes")), ""]
    lines += [
        "xpnet " + document["xpnet"] + (f", commit {document['commit']}" if document["commit"] else ""),
        "",
    ]
    apart = not_captured(parts)
    if apart:
        lines += [
            "**NOT CAPTURED.** These were no graphs: their times are those of launches one by one. Why is among what "
            "the part wrote to stderr, below.",
            "", *(f"- {text}" for text in apart), "",
        ]  # fmt: skip
    lines += ["| part | result | seconds |", "|---|---|---|"]
    lines += [f"| {p['name']}: {p['what']} | {p['status']} | {p['seconds']:.0f} |" for p in parts]
    lines += ["", "## Goals", "", *goals(parts), "", "## Training steps", "", *steps(parts)]
    for part in parts:
        if part["findings"] and part["name"] not in _STEP_PARTS:
            lines += ["", f"## {part['name']}", "", *table(part["findings"])]
        if part.get("stderr"):
            lines += [
                "",
                f"## {part['name']}: {part['status']}, stderr",
                "",
                "```",
                part["stderr"].rstrip(),
                "```",
            ]
    return "\n".join(lines) + "\n"


def not_captured(parts: Iterable[dict[str, Any]]) -> list[str]:
    """What should have been a graph and was not: the part, and what it says of itself."""
    found = []
    for part in parts:
        for f in part["findings"]:
            missing = [key for key in ("captured", "captured_all") if f.get(key) is False]
            if missing:
                name = {"captured": "a step", "captured_all": "all steps of a call"}
                what = ", ".join(name[key] if "captured_all" in f else "the work" for key in missing)
                said = ", ".join(f"{k} {v}" for k, v in f.items() if isinstance(v, str))
                found.append(f"{part['name']}: {said}: {what}")
    return found


def refusals(algorithms: Iterable[dict[str, Any]]) -> list[str]:
    """Products whose bias, with what follows it, is a launch of its own, and why."""
    found = []
    for a in algorithms:
        if "product" in a and a["algorithm"] is None:
            size = re.search(r"m=(\d+), n=(\d+), k=(\d+), batch=(\d+)", a["product"])
            shape = "x".join(size.groups()) if size else a["product"]
            found.append(f"bias of {shape}, {a['precision']}, in a launch of its own: {a['why']}")
    return found


_STEP_PARTS = ("xpnet", "torch", "torch.compile", "torch.graph", "jax.scan")


def _findings(parts: Iterable[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return next((p["findings"] for p in parts if p["name"] == name), [])


def _first(parts: Iterable[dict[str, Any]], name: str, key: str) -> dict[str, Any]:
    return next((f for f in _findings(parts, name) if key in f), {})


def _measured(parts: Iterable[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    parts = list(parts)
    return {(f["case"], f["side"]): f for name in _STEP_PARTS for f in _findings(parts, name) if "us" in f}


def disagree(case: Case, found: dict[tuple[str, str], dict[str, Any]]) -> list[str]:
    """The sides whose loss is not xpnet's."""
    own = found.get((case.name, "xpnet"))
    if own is None:
        return []
    limit = TOLERANCE[case.precision]
    return [
        side for side in _STEP_PARTS[1:]
        if (f := found.get((case.name, side))) and not abs(f["loss"] - own["loss"]) <= limit * abs(own["loss"])
    ]  # fmt: skip


def steps(parts: list[dict[str, Any]]) -> list[str]:
    """Microseconds per step of every side, and what they are beside xpnet's."""
    found = _measured(parts)
    lines = [f"| case | {' | '.join(_STEP_PARTS)} | xpnet in epochs |", "|---" * (len(_STEP_PARTS) + 2) + "|"]
    notes = []
    for case in CASES:
        own = found.get((case.name, "xpnet"))
        wrong = disagree(case, found)
        cells = []
        for side in _STEP_PARTS:
            f = found.get((case.name, side))
            if f is None:
                cells.append("not measured")
            elif side in wrong:
                cells.append(f"loss {f['loss']:.5f}: not compared")
            else:
                ratio = f" ({f['us'] / own['us']:.2f}x)" if own and side != "xpnet" else ""
                cells.append(f"{f['us']:.1f} µs{ratio}")
        epochs = f"{own['us_in_epochs']:.1f} µs" if own and "us_in_epochs" in own else "-"
        lines.append(
            f"| {case.name}, batch {case.batch}, {case.precision} | {' | '.join(cells)} | {epochs} |"
        )
        warm = [f"{s} {found[case.name, s]['warm_up_s']:.1f}" for s in _STEP_PARTS if (case.name, s) in found]
        notes += [f"- {case.name}: seconds of warm-up: {', '.join(warm)}"] if warm else []
        notes += [f"- {case.name}: {text}" for text in refusals(own.get("algorithms", []) if own else [])]
    errors = [f for name in _STEP_PARTS for f in _findings(parts, name) if "error" in f]
    notes += [f"- {f['side']}, {f['case']}: {f['error']}" for f in errors]
    return [*lines, "", *notes]


def goals(parts: list[dict[str, Any]]) -> list[str]:
    """Each goal with what was measured, and whether it was met; never a guess."""
    found = _measured(parts)
    lines = ["| goal | measured | |", "|---|---|---|"]
    for case in CASES:
        own = found.get((case.name, "xpnet"))
        if case.goal_us is not None:
            each = " a model" if case.n_models else ""
            kernel = [f for f in _findings(parts, "resident") if f["case"] == case.name and f["one_kernel"]]
            got = own and min(
                own["us_per_model"], own.get("us_in_epochs", float("inf")) / (case.n_models or 1),
                *(f["us_per_model"] for f in kernel),
            )  # fmt: skip
            lines.append(_goal(f"{case.name}, batch {case.batch}: <= {case.goal_us:g} µs a step{each}", got, "µs",
                               got is not None and got <= case.goal_us))  # fmt: skip
        peers = [found[case.name, s]["us"] for s in ("torch.graph", "jax.scan") if (case.name, s) in found]
        factor = 2.0 if case.n_models else 1.5
        if case.goal_us is not None and case.sizes[:2] in ((784, 500), (784, 128)):
            ratio = min(peers) / own["us"] if own and peers else None
            lines.append(_goal(f"{case.name}: >= {factor:g} times the faster of PyTorch and JAX", ratio, "times",
                               ratio is not None and ratio >= factor))  # fmt: skip
    large, peak = found.get((CASES[-1].name, "xpnet")), _peak(parts)
    share = large["tflops"] / peak if large and peak else None
    lines.append(_goal(f"{CASES[-1].name}: >= {SHARE_OF_PEAK:.0%} of the measured rate of products",
                       None if share is None else 100 * share, "%",
                       share is not None and share >= SHARE_OF_PEAK))  # fmt: skip
    seconds = [f["seconds"] for f in _findings(parts, "accuracy") if f.get("reached")]
    best = sorted(seconds)[len(seconds) // 2] if seconds else None
    lines.append(_goal("MNIST to 98 % of the test digits: <= 0.1 s after warm-up", best, "s",
                       best is not None and best <= 0.1))  # fmt: skip
    for name, limit in (("first", 6.0), ("second", 3.0)):
        found_process = next((f for f in _findings(parts, "process") if f.get("process") == name), {})
        rest = found_process.get("rest_s")
        lines.append(_goal(f"process, {name} time: <= {limit:g} s beside epochs like the last", rest, "s",
                           rest is not None and rest <= limit))  # fmt: skip
    return lines


def _peak(parts: list[dict[str, Any]]) -> float | None:
    rates = [f["tflops"] for f in _findings(parts, "peaks") if "tflops" in f and "bf16" in f["precision"]]
    return max(rates) if rates else None


def _goal(text: str, got: float | None, unit: str, met: bool) -> str:
    if got is None:
        return f"| {text} | not measured | |"
    return f"| {text} | {got:.3g} {unit} | {'met' if met else 'missed'} |"


def table(findings: list[dict[str, Any]]) -> list[str]:
    """Findings as tables, one for each set of keys that follow each other."""
    lines: list[str] = []
    before: tuple[str, ...] = ()
    for finding in findings:
        finding = {
            k: v for k, v in finding.items() if k != "algorithms"
        }  # too long for a cell: report.json has them
        keys = tuple(finding)
        if keys != before:
            lines += ["", f"| {' | '.join(keys)} |", "|---" * len(keys) + "|"]
            before = keys
        lines.append(f"| {' | '.join(_cell(v) for v in finding.values())} |")
    return lines[1:]


def _cell(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")[:300]
