"""Learning curves of a study's groups, one panel per environment."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from hsw.analysis.groups import Group
from hsw.analysis.results import Point, RunResult
from hsw.directory import Directory
from hsw.errors import ConfigError

_NUM_STEPS = 200
_REPS = 1000


def points_of(run: RunResult, evaluations: bool) -> list[Point]:
    return run.evaluations if evaluations else run.training


def has_curve(runs: Sequence[RunResult]) -> bool:
    """Whether the runs' evaluations show how they learned: there was more than the one at the end, in each."""
    return all(len(run.evaluations) > 1 for run in runs)


def band(
    curves: Sequence[Sequence[Point]], seed: int = 0, axis: Literal["step", "seconds"] = "step"
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean curve over seeds, with the 95 % percentile interval of a bootstrap over seeds at each step.

    Args:
        curves: One per seed, not empty. Each seed logs at steps of its own: all are read at the same ones, between
            the last beginning and the first end.
        seed: Of the bootstrap.
        axis: Over which the mean is taken; every point has it.

    Returns:
        steps, or seconds, mean, low and high, [200] each; [1] where the curves have one point in common. With one
        seed low and high are the mean.
    """
    arrays = [np.array([(getattr(point, axis), point.value) for point in curve], float).T for curve in curves]
    begin, end = max(steps[0] for steps, _ in arrays), min(steps[-1] for steps, _ in arrays)
    steps = np.linspace(min(begin, end), end, _NUM_STEPS if begin < end else 1)
    values = np.stack([np.interp(steps, *array) for array in arrays])  # [seeds, steps]
    samples = np.random.default_rng(seed).integers(len(values), size=(_REPS, len(values)))
    weights = np.stack([(samples == n).mean(1) for n in range(len(values))], 1)  # how often a resample drew each seed
    low, high = np.percentile(weights @ values, (2.5, 97.5), axis=0)
    return steps, values.mean(0), low, high


def draw(groups: Sequence[Group], envs: Sequence[str], metric: str, title: str, path: Path, seed: int = 0) -> None:
    """Write the curves of the counted runs as a picture, see picture()."""
    drawn = picture(groups, envs, metric, title, seed, path.suffix[1:] or "png")
    with Directory.open(path.parent, create=True) as directory:
        directory.replace(path.name, drawn)  # a link of that name is not followed


def picture(
    groups: Sequence[Group], envs: Sequence[str], metric: str, title: str, seed: int = 0, kind: str = "png"
) -> bytes:
    """The curves of the counted runs.

    Raises:
        ConfigError: If matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(f"curves need the extra report ({error}): pip install 'hsw[report]'") from error
    columns = min(len(envs), 4)
    rows = -(-len(envs) // columns)
    figure = Figure(figsize=(max(6, 4 * columns), 3.4 * rows + 0.6 + 0.12 * len(groups)), layout="constrained")
    FigureCanvasAgg(figure)
    for panel, env in enumerate(envs):
        axes = figure.add_subplot(rows, columns, panel + 1)
        runs = [run for group in groups for run in group.counted.get(env, {}).values()]
        evaluations = has_curve(runs)
        for n, group in enumerate(groups):
            curves = [points_of(run, evaluations) for run in group.counted.get(env, {}).values()]
            curves = [curve for curve in curves if curve]
            if curves:
                steps, mean, low, high = band(curves, seed)
                color, label = f"C{n}", group.label.replace("$", r"\$")
                if len(steps) == 1:  # a line would not be seen
                    axes.errorbar(
                        steps, mean, [mean - low, high - mean], color=color, marker="o", capsize=3, label=label
                    )
                    continue
                axes.plot(steps, mean, color=color, linestyle=("-", "--", ":")[n // 10 % 3], label=label)
                axes.fill_between(steps, low, high, color=color, alpha=0.2, linewidth=0)
        source = "evaluation" if evaluations else "last 100 training episodes"
        axes.set(xlabel="environment steps", ylabel=f"{metric}, {source}")
        axes.set_title(env, parse_math=False)
        axes.grid(alpha=0.3)
    handles = {
        label: line for axes in figure.axes for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    if handles:
        figure.legend(
            handles.values(),
            handles.keys(),
            loc="outside lower center",
            fontsize="small",
            ncols=2 if max(map(len, handles)) < 35 else 1,
        )
    figure.suptitle(f"{title}\nmean over seeds and its 95 % bootstrap interval", fontsize="medium", parse_math=False)
    drawn = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # a box stands for it
        figure.savefig(drawn, dpi=110, format=kind)
    return drawn.getvalue()
