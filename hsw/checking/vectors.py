"""Environments side by side: in this process and in workers, through hsw's own adapter and its guards."""

from __future__ import annotations

from typing import Any

import numpy as np
from omegaconf import DictConfig

from hsw.build import build_env
from hsw.checking.findings import Finding
from hsw.checking.play import same
from hsw.env import VectorEnv
from hsw.errors import ConfigError, EnvError

_ROWS = 64


def check_backends(config: DictConfig) -> list[Finding]:
    """Step environments one after another in this process, and in one worker process each: the rows must be equal."""
    sync = _rows(build_env(config, **_changes(config, "sync")))
    if isinstance(sync, Finding):
        return [sync]
    if "backend" not in config.env:
        return []
    workers = _rows(build_env(config, **_changes(config, "async")), sync[1])
    if isinstance(workers, Finding):
        return [workers]
    for number, (row, other) in enumerate(zip(sync[0], workers[0], strict=True)):
        names = ("the observation", "the reward", "terminated", "truncated")
        if differs := [name for name, one, two in zip(names, row, other, strict=True) if not same(one, two)]:
            told = f"environments in one process and in processes of their own differ in {differs[0]} of row {number}"
            return [Finding("shared-state", told, "keep what an episode changes in the instance, and seed it in reset")]
    return []


def _changes(config: DictConfig, backend: str) -> dict[str, Any]:
    return {"num_envs": 2, **({"backend": backend} if "backend" in config.env else {})}


def _rows(env: VectorEnv, actions: list[Any] | None = None) -> tuple[list[Any], list[Any]] | Finding:
    """Rows of a vector environment and the actions that were taken; or what its guards noticed."""
    rows: list[Any] = []
    taken: list[Any] = []
    rng = np.random.default_rng(0)
    try:
        obs = env.reset()
        for number in range(_ROWS):
            taken.append(_draw(env, obs, rng) if actions is None else actions[number])
            step = env.step(taken[-1])
            obs = step.obs
            rows.append((step.obs, step.rewards, step.terminateds, step.truncateds))
        env.close()
    except EnvError as error:
        env.abandon()
        place = str(error).rpartition(" at ")[2] if " at " in str(error) else ""
        return Finding("raises", str(error), "mend what hsw's own guard refuses", place)
    return rows, taken


def _draw(env: VectorEnv, obs: Any, rng: np.random.Generator) -> np.ndarray:
    """A random action for each environment, as a policy gives them: choices count from 0."""
    space, n = env.action_space, env.num_envs
    if not space.nvec:
        return (
            rng.integers(0, 2, (n, *space.shape)) if space.type == "MultiBinary" else rng.normal(size=(n, *space.shape))
        )
    masks = obs["action_mask"] if env.observation_space.masked else np.ones((n, sum(space.nvec)), np.int8)
    parts = np.split(masks, np.cumsum(space.nvec)[:-1], axis=1)
    chosen = [[rng.choice(np.flatnonzero(row)) if row.any() else 0 for row in part] for part in parts]
    return np.array(chosen).T.reshape(n, *space.shape)


def check_vector(config: DictConfig) -> list[Finding]:
    """A backend that steps its environments by itself: what hsw's guards notice, and its rows after episodes' ends."""
    try:
        env = build_env(config, num_envs=min(4, config.env.num_envs))
    except ConfigError as error:
        return [Finding("construction", str(error), "mend what the sentence names")]
    found: list[Finding] = []
    raw: list[Any] = []
    _watch(env.backend, raw)
    rng = np.random.default_rng(0)
    try:
        obs, before = env.reset(), np.zeros(env.num_envs, bool)
        for _ in range(500):
            step = env.step(_draw(env, obs, rng))
            obs = step.obs
            told = raw[-1]
            if (again := before & (told[1] | told[2])).any():
                message = f"environment {int(np.argmax(again))} says done twice: in the row after its episode's end too"
                advice = "in NEXT_STEP mode that row is a reset: its reward is 0 and both its flags are False"
                found.append(Finding("done-twice", message, advice))
                break
            if (before & (told[0] != 0)).any():
                message = "the row after an episode's end pays a reward, and must be a reset that pays 0"
                found.append(Finding("reward-at-reset", message, "return 0 there, in NEXT_STEP mode"))
                break
            before = step.terminateds | step.truncateds
        env.close()
    except EnvError as error:
        env.abandon()
        found.append(Finding("raises", str(error), "mend what hsw's own guard refuses"))
    return found


def _watch(backend: Any, rows: list[Any]) -> None:
    """Keep what a backend's steps return of rewards and flags."""
    original = backend.step

    def step(actions: Any) -> Any:
        told = original(actions)
        rows[:] = [tuple(np.array(part) for part in told[1:4])]
        return told

    backend.step = step
