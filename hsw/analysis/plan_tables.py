"""A plan as markdown or JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict

from hsw.analysis.figures import number
from hsw.analysis.plans import Asked, Cost, Plan, PlanTable
from hsw.analysis.power import MARGIN
from hsw.analysis.tables import as_code, as_rows, as_text


def to_json(plan: Plan) -> str:
    """All of it."""
    return json.dumps(asdict(plan), indent=1, allow_nan=False)


def to_markdown(plan: Plan) -> str:
    """For people."""
    asked = plan.asked
    lines = ["# Plan", ""]
    for study in plan.studies:
        lines += [f"## {as_text(study.folder)}", ""]
        for table in study.tables:
            lines += [*_table(table, asked), ""]
    lines.append(
        f"A difference is shown where the report's {100 * (1 - asked.alpha):g} % interval of the probability that a "
        "run of one group beats one of the other leaves out one half. Power is the share of "
        f"{asked.reps:,} simulated studies (seed {asked.seed}) that show the planned difference of means, false "
        "alarms the share that show one where there is none; what is enough has a power of at least "
        f"{asked.power:g} and at most {asked.alpha + MARGIN:g} false alarms. Simulated scores scatter as the pilot's "
        "last evaluations do, with a spread as uncertain as so few seeds leave it. The pilot's runs are part of the "
        "study to be; times are those of its median run."
    )
    lines += ["", f"Made by {as_code(plan.command)}."] if plan.command is not None else []
    return "\n".join(lines)


def _table(table: PlanTable, asked: Asked) -> list[str]:
    one = table.envs[0] if len(table.envs) == 1 else f"{len(table.envs)} tasks"
    lines = [f"### {as_text(one)}: {asked.metric}" + (", normalised" if table.ranges else ""), ""]
    at_a_time = "one at a time" if asked.jobs == 1 else f"{asked.jobs} at a time"
    lines += as_rows(("a run of", "beats one of", "by", "seeds each", "pilot", "new runs", "computing", at_a_time))
    for pair in table.comparisons:
        pilots = [
            f"{number(m)} ± {number(d)} ({n})" for m, d, n in zip(pair.means, pair.deviations, pair.pilots, strict=True)
        ]
        cells = [pair.group, pair.over, number(pair.difference), pair.seeds or f"more than {asked.most}"]
        lines += as_rows(
            [*cells, " and ".join(pilots if pair.pilots[0] else pilots[1:]), *_costs(pair.cost)], head=False
        )
    if len(table.comparisons) > 1:
        lines += as_rows(["all of them", *[None] * 4, *_costs(table.cost)], head=False)
    for pair in table.comparisons:
        lines += ["", f"{as_text(pair.group)} against {as_text(pair.over)}:", ""]
        lines += as_rows(("seeds each", "power", "false alarms"))
        for power in pair.powers:
            lines += as_rows((power.seeds, f"{power.power:.3f}", f"{power.false_alarms:.3f}"), head=False)
    notes = [f"- {table.not_counted} runs do not count; the report says why."] if table.not_counted else []
    if any(pair.seeds is None for pair in table.comparisons):
        notes.append(
            f"- Where {asked.most} seeds are not enough, the cost is that of {asked.most}; --most allows more."
        )
    return [*lines, *([""] if notes else []), *notes]


def _costs(cost: Cost) -> list[str]:
    return [str(cost.runs), _time(cost.seconds), _time(cost.elapsed)]


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


FORMATS: dict[str, Callable[[Plan], str]] = {"md": to_markdown, "json": to_json}
