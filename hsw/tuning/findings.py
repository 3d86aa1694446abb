"""What a study tells beside its best trial: which parameters mattered, where each did well, and how it went on."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence

import numpy as np
import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from hsw.run.folder import write_whole
from hsw.secrets import redact
from hsw.tuning.results import Results, as_markdown
from hsw.tuning.space import Parameter
from hsw.tuning.trials import Plan

_FEWEST = 4  # trials that say something of a parameter
_PARTS = 4  # of an interval


def importances(trials: Sequence[FrozenTrial]) -> dict[str, float]:
    """How much of the difference between good trials and others each parameter makes (PED-ANOVA, Watanabe et al. 2023,
    arXiv:2304.10255); empty of too few trials.

    Args:
        trials: With a score, the first of their values.
    """
    if len(trials) < _FEWEST or len({trial.values[0] for trial in trials}) < 2:
        return {}
    study = optuna.create_study(direction="maximize")
    for trial in trials:
        study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.COMPLETE,
                value=trial.values[0],
                params=trial.params,
                distributions=trial.distributions,
            )
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dict(get_param_importances(study, evaluator=PedAnovaImportanceEvaluator()))


def slices(parameter: Parameter, trials: Sequence[FrozenTrial]) -> list[list[str]]:
    """The scores of the trials in each part of a parameter's range, or with each choice."""
    rows = [[parameter.name, "trials", "best", "median"]]
    values = [trial.params[parameter.name] for trial in trials]
    scores = np.array([trial.values[0] for trial in trials])
    if parameter.kind == "choice" or len(set(values)) <= _PARTS:
        parts = [(str(value), np.array([one == value for one in values])) for value in sorted(set(values))]
    else:
        numbers = np.array(values, float)
        scaled = np.log(numbers) if parameter.log else numbers
        low, high = (np.log(end) if parameter.log else end for end in (parameter.low, parameter.high))
        ends = np.linspace(low, high, _PARTS + 1)
        place = np.clip(np.searchsorted(ends, scaled, "right") - 1, 0, _PARTS - 1)
        shown = np.exp(ends) if parameter.log else ends
        parts = [(f"{shown[n]:.4g} to {shown[n + 1]:.4g}", place == n) for n in range(_PARTS)]
    for name, inside in parts:
        some = scores[inside]
        figures = [f"{some.max():.6g}", f"{np.median(some):.6g}"] if len(some) else ["", ""]
        rows.append([name, str(len(some)), *figures])
    return rows


def history(trials: Sequence[FrozenTrial]) -> list[list[str]]:
    """Each trial that was better than all before it."""
    rows, best = [["trial", "score"]], -float("inf")
    for trial in trials:
        if trial.values[0] > best:
            best = trial.values[0]
            rows.append([str(trial.number), f"{best:.6g}"])
    return rows


def cost(results: Results) -> str:
    """What the study took."""
    told = [one for trial in results.trials() for one in trial.user_attrs.values() if isinstance(one, dict)]
    told += [one for one in results.journal.study.user_attrs.values() if isinstance(one, dict)]
    seconds = sum(float(one.get("time") or 0.0) for one in told)
    return f"{len(told)} jobs, {seconds / 3600:.2f} hours of running altogether"


def write_report(plan: Plan, results: Results, used: str) -> None:
    """report.md, and tuning.png where matplotlib is installed."""
    trials, folder = results.ended(), results.journal.folder
    parts = [f"# Tuning of {folder.name}", f"{cost(results)}.", "## Trials", results.markdown()]
    if results.confirmed:
        parts += ["## On fresh seeds", as_markdown(results.fresh())]
    _, row = results.best()
    parts += ([results.compared(row)[0].upper() + results.compared(row)[1:] + "."] if row else []) + [used]
    found = importances(trials)
    parts.append("## Importances")
    if found:
        rows = [["parameter", "importance (PED-ANOVA)"], *([name, f"{value:.3f}"] for name, value in found.items())]
        parts.append(as_markdown(rows))
    else:
        parts.append(f"{len(trials)} trials with a score, or all with the same one, say nothing of them.")
    parts.append("## Slices")
    parts += [as_markdown(slices(parameter, trials)) for parameter in plan.space]
    parts += ["## History", "Trials that were better than all before them:", as_markdown(history(trials))]
    if _draw(plan, trials, results):
        parts.append("![history and slices](tuning.png)")
    write_whole(folder / "report.md", (redact("\n\n".join(parts)) + "\n").encode("utf-8", "backslashreplace"))


def _draw(plan: Plan, trials: Sequence[FrozenTrial], results: Results) -> bool:
    """History and slices as a picture. Returns whether it could be drawn."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    panels = 1 + len(plan.space)
    columns = min(panels, 4)
    lines = -(-panels // columns)
    figure = Figure(figsize=(3.6 * columns, 3.0 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    numbers, scores = [trial.number for trial in trials], [trial.values[0] for trial in trials]
    axes = figure.add_subplot(lines, columns, 1)
    axes.plot(numbers, scores, "o", markersize=3)
    axes.step(numbers, np.maximum.accumulate(scores), where="post")
    axes.set(xlabel="trial", ylabel="score")
    for panel, parameter in enumerate(plan.space, 2):
        axes = figure.add_subplot(lines, columns, panel)
        values = [trial.params[parameter.name] for trial in trials]
        points = axes.scatter(values, scores, c=numbers, s=12)
        axes.set_xscale("log" if parameter.log else "linear") if parameter.kind != "choice" else None
        axes.set_xlabel(parameter.name, parse_math=False)
    if plan.space:
        figure.colorbar(points, ax=figure.axes, label="trial")
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=110, format="png")
    write_whole(results.journal.folder / "tuning.png", drawn.getvalue())
    return True
