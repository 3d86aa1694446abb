"""A report's data as markdown, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any
from urllib.parse import quote

from hsw.analysis.estimates import Estimate
from hsw.analysis.figures import interval, number, steps_of, time_of
from hsw.analysis.groups import short_value
from hsw.analysis.report_data import Report, Study, Table, plain

_FIGURES = ("mean", "median", "iqm", "optimality_gap")
_MOST_TOLD = 3  # keys that a line tells of


def to_json(report: Report) -> str:
    """All of it."""
    return json.dumps(plain(report), indent=1, allow_nan=False)


def to_csv(report: Report) -> str:
    """One row per group of each table, then one per run; `kind` tells which."""
    bounds = [f"{figure}{end}" for figure in _FIGURES for end in ("", "_low", "_high")]
    reached = ["threshold", "reached", "reached_of", "steps_to_threshold", "seconds_to_threshold"]
    better = ["improvement_over", "improvement", "improvement_low", "improvement_high"]
    columns = [
        "kind",
        "study",
        "env",
        "group",
        "num_seeds",
        "seeds",
        "not_counted",
        *bounds,
        "steps",
        "seconds",
        "speed",
    ]
    columns += [*reached, *better, "run", "seed", "status", "counted", "budget", "score", "notes", "verified"]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for study in report.studies:
        for table in study.tables:
            over = table.improvement[0].over if table.improvement else None
            improvements = {one.group: one for one in table.improvement if one.over == over}
            for row in table.groups:
                line: dict[str, Any] = {"kind": "group", "study": study.folder, "env": " ".join(table.envs)}
                line |= {key: getattr(row, key) for key in ("group", "not_counted", "steps", "seconds", "speed")}
                line |= {"num_seeds": len(row.seeds), "seeds": " ".join(map(str, row.seeds))}
                for figure in _FIGURES:
                    line |= _ends(figure, getattr(row, figure))
                if row.reached:
                    of = (table.threshold, row.reached.runs, row.reached.of, row.reached.steps, row.reached.seconds)
                    line |= dict(zip(reached, of, strict=True))
                if row.group in improvements:
                    line |= {"improvement_over": over, **_ends(better[1], improvements[row.group].estimate)}
                writer.writerow({key: spreadsheet_safe(value) for key, value in line.items()})
        for run in study.runs:
            line = {**asdict(run), "kind": "run", "study": study.folder, "notes": "; ".join(run.notes)}
            writer.writerow({key: spreadsheet_safe(value) for key, value in line.items()})
    return text.getvalue().rstrip("\n")


def _ends(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    if estimate is None:
        return {}
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def to_markdown(report: Report) -> str:
    """For people: tables, what varied, and every run that does not count with the reason."""
    lines = ["# Report", ""]
    for study in report.studies:
        lines += [f"## {as_text(study.folder)}", "", *_about(study, report.keys), ""]
        for table in study.tables:
            lines += [*_table(table), ""]
        rest = [run for run in study.runs if not run.counted or run.notes or run.status != "done"]
        if rest:
            lines += ["### Runs to know about", ""]
            lines += as_rows(("run", "group", "env", "seed", "status", "counted", "steps", "last score", "why"))
            for run in rest:
                known = (run.run, run.group, run.env, run.seed, run.status, "yes" if run.counted else "no")
                steps = f"{run.steps or 0:,} of {run.budget:,}" if run.budget is not None else run.steps
                lines += as_rows((*known, steps, number(run.score), "; ".join(run.notes)), head=False)
            lines.append("")
        if study.curves:
            lines += [f"![Learning curves: mean over seeds, 95 % bootstrap interval]({quote(study.curves)})", ""]
    lines.append(
        f"Scores are the {report.metric} of the last evaluation. Brackets are 95 % percentile intervals of a "
        f"bootstrap over seeds, stratified by task ({report.reps:,} resamples, seed {report.seed}), by rliable. "
        "IQM is the mean of the middle half of the scores; the median is that of the tasks' means, or of the seeds "
        "where there is one task. Steps and times are the median run's; its steps/s are of training alone, without "
        "start-up and evaluations."
    )
    if report.command is not None:
        lines += ["", f"Made by {as_code(report.command)}."]
    return "\n".join(lines)


def _about(study: Study, keys: bool) -> list[str]:
    counted = sum(run.counted for run in study.runs)
    lines = [f"- {len(study.runs)} run folders, of which {counted} count."]
    lines += [f"- Command: {as_code(study.command)}."] if study.command else []
    lines.append(f"- Varied besides the seed: {differing(study, keys, as_code, as_text)}.")
    for what, runs in _verified(study).items():
        lines.append(f"- Verified, {as_text(what)}: {as_text(', '.join(runs))}.")
    versions = [f"{key} {values[0]}" for key, values in study.versions.items() if len(values) == 1]
    if versions:
        lines.append(f"- Ran with {as_text(', '.join(versions))}.")
    if study.presets:
        told = [f"{group}: {' or '.join(names)}" for group, names in study.presets.items()]
        one = len({tuple(names) for names in study.presets.values()}) == 1
        lines.append(
            f"- Preset: {as_text(' or '.join(next(iter(study.presets.values()))) if one else '; '.join(told))}."
        )
    return lines + [f"- Note: {as_text(note)}." for note in study.notes]


def _verified(study: Study) -> dict[str, list[str]]:
    """What reruns have shown, and of which runs."""
    found: dict[str, list[str]] = {}
    for run in study.runs:
        if run.verified is not None:
            found.setdefault(run.verified, []).append(run.run)
    return found


def differing(study: Study, keys: bool, code: Callable[[str], str] = str, text: Callable[[str], str] = str) -> str:
    """What differs between a study's runs, in a line.

    Args:
        study: Whose runs they are.
        keys: Whether all of the keys are listed elsewhere.
        code, text: Write a key, and its values.
    """
    told = [
        f"{code(key)} ({text(', '.join(_values(key, values)))})"
        for key, values in list(study.varied.items())[: None if keys else _MOST_TOLD]
    ]
    more = len(study.varied) - len(told)
    return (", ".join(told) or "nothing") + (f"; {len(study.varied)} keys in all, which --keys lists" if more else "")


def _values(key: str, values: Sequence[str]) -> list[str]:
    short = [short_value(key, value, values) for value in values]
    return [*short[:4], "..."] if len(short) > 5 else short


def _table(table: Table) -> list[str]:
    gap, threshold = table.gamma is not None, table.threshold
    normalised = "; ".join(f"{env} {number(low)} to {number(high)}" for env, (low, high) in table.ranges.items())
    one = table.envs[0] if len(table.envs) == 1 else f"{len(table.envs)} tasks"
    lines = [f"### {as_text(one)}: {table.metric}" + (", normalised" if normalised else ""), ""]
    if normalised:
        lines += [f"0 and 1 are: {as_text(normalised)}.", ""]
    head = ["group", "seeds", "mean", "median", "IQM"]
    head += [f"optimality gap to {number(table.gamma)}"] if gap else []
    head += ["steps", "time", "steps/s"]
    if threshold is not None:
        head += [f"steps to {number(threshold)}", f"time to {number(threshold)}", "reached by"]
    lines += as_rows(head)
    for row in table.groups:
        more = f" (+{row.not_counted} not counted)" if row.not_counted else ""
        cells = [row.group, f"{len(row.seeds)}{more}"]
        cells += [interval(getattr(row, figure)) for figure in _FIGURES[: 4 if gap else 3]]
        cells += [steps_of(row.steps), time_of(row.seconds), steps_of(row.speed)]
        if row.reached is not None:
            reached = row.reached
            cells += [steps_of(reached.steps), time_of(reached.seconds), f"{reached.runs} of {reached.of}"]
        lines += as_rows(cells, head=False)
    if table.improvement:
        lines += ["", *as_rows(("a run of", "beats one of", "with probability"))]
        for pair in table.improvement:
            lines += as_rows((pair.group, pair.over, interval(pair.estimate)), head=False)
    notes = [f"- {as_text(note)}." for note in table.notes]
    if threshold is not None:
        source = "evaluation" if table.threshold_of == "evaluations" else "mean of the last 100 training episodes"
        notes.append(f"- The threshold counts as reached at the first {source} of at least {number(threshold)}.")
    return [*lines, *([""] if notes else []), *notes]


def as_rows(cells: Iterable[Any], head: bool = True) -> list[str]:
    texts = ["-" if cell is None or cell == "" else as_text(str(cell)) for cell in cells]
    return [f"| {' | '.join(texts)} |", *(["|" + "---|" * len(texts)] if head else [])]


def _plain(text: str) -> str:
    """On one line and without a terminal's own characters."""
    return "".join(char if char.isprintable() else " " for char in text)


def as_text(text: str) -> str:
    """Text from files, that no part of it is taken for markdown."""
    return re.sub(r"([\\`*<|]|\b_|_\b|\](?=\())", r"\\\1", _plain(text))


def as_code(text: str) -> str:
    return f"`{_plain(text).replace('`', chr(39))}`"


def spreadsheet_safe(value: Any) -> Any:
    """No formula of a spreadsheet."""
    if not isinstance(value, str):
        return value
    text = _plain(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


FORMATS: dict[str, Callable[[Report], str]] = {"md": to_markdown, "csv": to_csv, "json": to_json}
