"""The tables of docs/scale.md, between its marks."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

COSTS = (
    ("`env(E)`, a row of E environments", "env", "E"),
    ("`act(E)`, the policy's choice", "act", "E"),
    ("`store(E)`, writing the row", "store", "E"),
    ("`fetch`, the newest weights, once a set", "fetch", ""),
    ("`take(B)`, a batch out of its slots", "take", "B"),
    ("`update(B)`, the learner", "update", "B"),
    ("`publish`, the weights", "publish", ""),
    ("`receive(A)`, the pool, a full rollout", "receive", "A"),
    ("`put(A)`, the pool, a free slot", "put", "A"),
    ("`look(A)`, the pool, at all actors", "look", "A"),
)


def written(page: Path, results: dict[str, Any]) -> None:
    """Write each table that there are results for between its marks."""
    text = page.read_text()
    for name, table in {"costs": costs, "validation": validation, "forecast": forecast}.items():
        if name in results:
            before, begin, rest = text.partition(f"<!-- {name}: made by benchmarks.scale -->\n")
            _, end, after = rest.partition(f"<!-- end of {name} -->")
            if not end:
                raise SystemExit(f"{page} has no marks for {name}")
            text = f"{before}{begin}{table(results)}\n{end}{after}"
    page.write_text(text)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _head(*cells: str) -> list[str]:
    return [_row(*cells), _row(*["---"] * len(cells))]


def _micro(cost: Any, of: str) -> str:
    if not isinstance(cost, dict):
        return f"{cost * 1e6:,.0f}"
    each = cost["each"] * 1e6
    return f"{cost['fixed'] * 1e6:,.0f} + {each:,.{2 if each < 10 else 0}f} {of}"


def costs(results: dict[str, Any]) -> str:
    """What was measured, a column for each workload."""
    where, found = results["machine"], results["costs"]
    lines = [
        f"{where['cpu']}, {where['cores']} cores, {where['date']}, load {where['load']:.1f}; one thread, µs of CPU.",
        "",
        *_head("cost", *found),
        *[_row(label, *[_micro(one[key], of) for one in found.values()]) for label, key, of in COSTS],
    ]
    for label, key in (("a rollout, kB", "rollout_bytes"), ("the weights, kB", "weight_bytes")):
        lines.append(_row(label, *[f"{one[key] / 1e3:,.0f}" for one in found.values()]))
    lines.append(_row("`v`, share of rows that are steps", *[f"{one['valid']:.2f}" for one in found.values()]))
    return "\n".join(lines)


def validation(results: dict[str, Any]) -> str:
    """Runs beside what was said of them."""
    found, errors = results["validation"], []
    lines = [
        f"Runs of {found['seconds']:g} s, the second half of each; {found['date']}, load {found['load']:.1f}.",
        "Others are the sessions (or tasks, where the system shares its cores among those) that wanted a core then.",
        "",
        *_head(
            *("workload", "actors", "others", "measured steps/s", "simulated", "error", "formula", "first limit"),
            *("learner idle, measured (simulated)", "actors idle, measured (simulated)"),
        ),
    ]
    for row in found["rows"]:
        simulated = row["simulated"]
        errors.append(error := simulated["steps_per_second"] / row["measured"] - 1)
        idle = zip(row["measured_idle"], (simulated["learner_idle"], simulated["actors_idle"]), strict=True)
        shown = [f"{one:.2f} ({other:.2f})" if one is not None else "-" for one, other in idle]
        speeds = f"{row['measured']:,.0f}", f"{simulated['steps_per_second']:,.0f}", f"{error:+.0%}"
        who = row["workload"], str(row["actors"]), f"{row['others']:.1f}"
        lines.append(_row(*who, *speeds, f"{row['formula']:,.0f}", row["first"], *shown))
    sizes = [abs(error) for error in errors]
    told = f"The simulation's error: median {statistics.median(sizes):.0%}, largest {max(sizes):.0%}."
    return "\n".join([*lines, "", told])


def forecast(results: dict[str, Any]) -> str:
    """Machines that are not here."""
    lines = _head(
        *("workload", "machines", "actors", "steps/s, simulated", "formula", "first limit, then"),
        *("learner idle", "actors idle", "policy lag"),
    )
    for row in results["forecast"]:
        simulated, order = row["simulated"], sorted(row["limits"], key=row["limits"].get)
        shares = (
            f"{simulated['learner_idle']:.2f}",
            f"{simulated['actors_idle']:.2f}",
            f"{simulated['policy_lag']:,.1f}",
        )
        who = row["workload"], row["where"], f"{row['actors']:,}"
        speeds = f"{simulated['steps_per_second']:,.0f}", f"{row['formula']:,.0f}"
        lines.append(_row(*who, *speeds, ", ".join(order[:2]), *shares))
    return "\n".join(lines)
