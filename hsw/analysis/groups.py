"""A study's runs, grouped by what varied between them besides the seed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from hsw.analysis.results import RunResult

# Where a run lives, how it reports and where it computes; the spaces follow from the environment, the parts' own tags,
# seeds and devices are copies of the root's, and what a preset sets stands in the keys themselves.
CANNOT_MATTER = re.compile(
    r"(resume|quiet|allow|fail_fast|checkpoint_interval|checkpoint_keep|preset|threads|profile|logger|pool)(\.|$)"
    r"|distributed_timeout$"
    r"|(\w+\.)?(seed|device|observation_space|action_space)(\.|$)|\w+\.tag$"
)
_TASK = ("env.id", "env.game")
_ALGORITHM = "algorithm._target_"
_ENV = ""  # beside the config's keys
_PREFERRED = (_ALGORITHM, "env._target_", "storage._target_", "network._target_", "agent._target_")
_UNFINISHED = ("unfinished", "interrupted", "running")


@dataclass
class Group:
    """Runs that differ in their seeds and tasks only.

    Attributes:
        label: The values of the fewest keys that tell the groups apart.
        counted: The runs that enter the figures, by environment and seed.
        left_out: Why others do not, by environment and the run's name.
    """

    label: str
    counted: dict[str, dict[int, RunResult]] = field(default_factory=dict)
    left_out: dict[str, dict[str, str]] = field(default_factory=dict)

    def seeds(self, envs: Iterable[str]) -> list[int]:
        """Those that are counted on each of these environments."""
        sets = [set(self.counted.get(env, ())) for env in envs]
        return sorted(set.intersection(*sets)) if sets else []


def group_runs(runs: Sequence[RunResult], unfinished: bool = False) -> tuple[list[Group], dict[str, list[str]]]:
    """Group runs whose config could be read; the others are in no group.

    Two runs on one environment are of one group if every key that can matter has the same value in both. Groups of
    different environments are one if their labels are: a preset may give each environment values of its own.

    Args:
        runs: In the report's order.
        unfinished: Also count runs that did not end, at their last evaluation.

    Returns:
        The groups in the order of their first runs, and the values of each key that varied, the telling keys first.
    """
    runs = [run for run in runs if run.env is not None]
    keys = sorted({key for run in runs for key in run.config if not CANNOT_MATTER.match(key)})
    table = {run.name: {key: run.config.get(key, "-") for key in keys} | {_ENV: str(run.env)} for run in runs}
    varied = {key: values for key in keys if len(values := _distinct(table[run.name][key] for run in runs)) > 1}
    chosen = _telling_keys(runs, table, varied)
    if _kinds(table, [*chosen, _ALGORITHM]) > _kinds(table, chosen):
        chosen.insert(0, _ALGORITHM)  # each environment has one only, and none may pass for another's
    groups: dict[tuple[str, ...], Group] = {}
    for run in runs:
        groups.setdefault(_values(table[run.name], chosen), Group(_label(chosen, run.config, varied)))
    for run in sorted(runs, key=lambda run: run.status != "done"):  # of two with one seed, the one that ended counts
        group = groups[_values(table[run.name], chosen)]
        counts = run.status == "done" or (unfinished and run.status in _UNFINISHED)
        assert run.env is not None  # filtered above
        assert run.seed is not None  # read together with env
        same_seed, left_out = group.counted.setdefault(run.env, {}), group.left_out.setdefault(run.env, {})
        if not counts or run.score is None:
            left_out[run.name] = run.status if not counts else "no score"
        elif run.seed in same_seed:  # the same numbers again, which would make the interval too narrow
            left_out[run.name] = f"seed {run.seed} is also in {same_seed[run.seed].name}"
        else:
            same_seed[run.seed] = run
    first = (*chosen, *_TASK, *_PREFERRED)
    order = sorted(varied, key=lambda key: first.index(key) if key in first else len(first))
    return list(groups.values()), {key: varied[key] for key in order}


def keep_common(groups: Iterable[Group], envs: Sequence[str]) -> None:
    """Leave out the runs whose seed does not count on each of these environments."""
    for group in groups:
        common = set(group.seeds(envs))
        seeds = {env: set(group.counted.get(env, ())) for env in envs}
        for env in envs:
            for seed in sorted(seeds[env] - common):
                lacking = ", ".join(other for other in envs if seed not in seeds[other])
                run = group.counted[env].pop(seed)
                group.left_out.setdefault(env, {})[run.name] = f"seed {seed} does not count on {lacking}"


def _values(row: dict[str, str], keys: Iterable[str]) -> tuple[str, ...]:
    return tuple(row.get(key, "-") for key in keys)


def _kinds(table: dict[str, dict[str, str]], keys: Sequence[str]) -> int:
    """How many kinds of runs these keys make."""
    return len({_values(row, keys) for row in table.values()})


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _telling_keys(
    runs: Sequence[RunResult], table: dict[str, dict[str, str]], varied: dict[str, list[str]]
) -> list[str]:
    """The fewest keys, found greedily, that tell apart whatever differs on the same environment."""
    by_env = {env: [run.name for run in runs if run.env == env] for env in {run.env for run in runs}}
    keys = [key for key in varied if any(len({table[name][key] for name in names}) > 1 for names in by_env.values())]
    # Targets first, then the root's keys, then the parts'; a copy that an interpolation made comes after its source.
    keys.sort(key=lambda key: (_PREFERRED.index(key) if key in _PREFERRED else len(_PREFERRED), key.count("."), key))

    def told_apart(some: Sequence[str]) -> int:
        return _kinds(table, [_ENV, *some])

    chosen: list[str] = []
    while told_apart(chosen) < told_apart(keys):
        gains = {key: told_apart([*chosen, key]) - told_apart(chosen) for key in keys if key not in chosen}
        targets = [key for key in _PREFERRED if gains.get(key)]
        chosen.append(targets[0] if targets else max(gains, key=lambda key: gains[key]))
    return chosen


def _label(chosen: Sequence[str], config: dict[str, str], varied: dict[str, list[str]]) -> str:
    if not chosen:
        return short_value(_ALGORITHM, config.get(_ALGORITHM, "all"), ())
    names = [key.removesuffix("._target_").rpartition(".")[2] for key in chosen]
    return " ".join(
        f"{name if names.count(name) == 1 else key}={short_value(key, config.get(key, '-'), varied.get(key, ()))}"
        for key, name in zip(chosen, names, strict=True)
    )


def short_value(key: str, value: str, others: Sequence[str]) -> str:
    """A target's class, unless two of them have the same name."""
    if not key.endswith("_target_"):
        return value
    short = value.rpartition(".")[2]
    return value if sum(other.rpartition(".")[2] == short for other in others) > 1 else short
