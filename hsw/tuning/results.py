"""What a study came to, as text and as csv. Nothing in the table differs when a study is repeated."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from hsw.analysis.estimates import Estimate
from hsw.output import one_line
from hsw.run.folder import write_whole
from hsw.tuning.confirm import Confirmed, best_trials
from hsw.tuning.journal import Journal
from hsw.tuning.trials import Plan

_WORDS = {"COMPLETE": "done", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}


def trial_line(trial: FrozenTrial) -> str:
    """A trial that has ended, as one line while others go on."""
    values = ", ".join(_cell(value) for value in trial.values or ())
    params = "  ".join(f"{name}={_cell(value)}" for name, value in trial.params.items())
    return f"trial {trial.number}: {_WORDS[trial.state.name]}  {values or _note(trial)}  {params}"


class Results:
    """The figures of a study.

    Args:
        plan, journal: Of it.
        limit: How many trials count.
    """

    def __init__(self, plan: Plan, journal: Journal, limit: int) -> None:
        self.plan, self.journal, self.limit = plan, journal, limit
        self.confirmed: list[Confirmed] = []

    def trials(self) -> list[FrozenTrial]:
        return self.journal.trials()[: self.limit]

    def ended(self) -> list[FrozenTrial]:
        """Those with a score."""
        return [trial for trial in self.trials() if trial.state == TrialState.COMPLETE]

    def first_error(self) -> tuple[str, int]:
        """What the first trial that failed ended with."""
        failed = [trial for trial in self.trials() if trial.state == TrialState.FAIL]
        return (_note(failed[0]), int(failed[0].user_attrs.get("code", 1))) if failed else ("there was none", 1)

    def best(self) -> tuple[FrozenTrial, Confirmed | None]:
        """The trial with the best score on fresh seeds, or, without any, on its own."""
        rows = [row for row in self.confirmed if row.number is not None and row.estimate is not None]
        if rows:
            row = max(rows, key=lambda row: row.estimate.value if row.estimate else 0.0)
            return self.trials()[row.number or 0], row
        return best_trials(self.trials(), self.journal.directions, 1)[0], None

    def table(self) -> str:
        """For a terminal, the best first, and then those that have no score."""
        rows = [self._row(trial) for trial in self._order()]
        return aligned([self._columns(), *rows])

    def markdown(self) -> str:
        rows = [self._row(trial) for trial in self._order()]
        return as_markdown([self._columns(), *rows])

    def _order(self) -> list[FrozenTrial]:
        states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING, TrialState.FAIL)
        return sorted(self.trials(), key=lambda t: (states.index(t.state), -(t.values or [0.0])[0], t.number))

    def _columns(self) -> list[str]:
        second = {"none": [], "time": ["seconds"], "steps": ["steps to threshold"]}[self.plan.settings.second]
        names = [parameter.name for parameter in self.plan.space]
        return ["trial", "state", "score", *second, *names, "scores of seeds", "note"]

    def _row(self, trial: FrozenTrial) -> list[str]:
        values = [_cell(value) for value in trial.values or ()]
        width = len(self.journal.directions)
        scores = " ".join(_cell(score) for score in trial.user_attrs.get("scores", ()))
        params = [_cell(trial.params.get(parameter.name)) for parameter in self.plan.space]
        values = (values + [""] * width)[:width]
        return [str(trial.number), _WORDS[trial.state.name], *values, *params, scores, one_line(_note(trial))]

    def fresh(self) -> list[list[str]]:
        """The table of the best on fresh seeds, with what their tuning score promised too much."""
        rows = [["", "score when tuned", "IQM on fresh seeds", "95 % interval", "tuned - fresh", "fresh seeds", "note"]]
        for row in self.confirmed:
            found = row.estimate
            gap = _cell(row.tuned - found.value) if found and row.tuned is not None else ""
            note = "; ".join(f"seed {seed} failed: {one_line(error)}" for seed, error in sorted(row.errors.items()))
            figures = [_cell(found.value), interval(found)] if found else ["", ""]
            rows.append([row.name, _cell(row.tuned), *figures, gap, str(len(row.scores)), note])
        return rows

    def endings(self, used: str) -> list[str]:
        """What stands below the table."""
        trial, row = self.best()
        parts = [aligned(self.fresh())] if self.confirmed else []
        said = f"best: trial {trial.number}"
        if row is None:
            said += ", by its own seeds alone: its score is too high by what luck gave it"
        else:
            said += f", {self.compared(row)}"
        return [*parts, f"{said}\n{used}"]

    def compared(self, row: Confirmed) -> str:
        """How the best stands to the configuration that nothing was varied in."""
        base = next((one.estimate for one in self.confirmed if one.number is None), None)
        found = row.estimate
        assert found is not None  # Results.best
        text = f"{found.value:.6g} {interval(found)} on fresh seeds"
        if base is None:
            return text
        against = f"the defaults' {base.value:.6g} {interval(base)}"
        if found.low is not None and base.high is not None and found.low > base.high:
            return f"{text}, better than {against}"
        better = "above" if found.value > base.value else "not above"
        return f"{text}, {better} {against}, and the intervals overlap; more seeds would tell"

    def write_csv(self) -> None:
        """trials.csv, with everything that the journal has of each trial."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerows([self._columns(), *([_safe(cell) for cell in self._row(trial)] for trial in self.trials())])
        write_whole(self.journal.folder / "trials.csv", out.getvalue().encode())


def _note(trial: FrozenTrial) -> str:
    return str(trial.user_attrs.get("error") or trial.user_attrs.get("pruned") or "")


def interval(found: Estimate) -> str:
    return f"[{found.low:.6g}, {found.high:.6g}]" if found.low is not None and found.high is not None else ""


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return format(value, ".6g") if isinstance(value, float) else str(value)


def _safe(text: str) -> str:
    """What is no formula of a spreadsheet."""
    try:
        float(text)
    except ValueError:
        return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
    return text


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns of text; a column without anything in it is left out."""
    kept = [n for n in range(len(rows[0])) if n == 0 or any(row[n] for row in rows[1:])]
    widths = [max(len(row[n]) for row in rows) for n in kept]
    lines = ["  ".join(row[n].ljust(width) for n, width in zip(kept, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def as_markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])
