"""EnvPool as a backend. It resets in NEXT_STEP mode and takes its seed when it is made."""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from hsw.env.goals import GoalFunctions, fetch_goals
from hsw.errors import ConfigError
from hsw.seeding import derive_seed
from hsw.spaces import SpaceSpec, read_space


def make_envpool_backend(
    task: str, num_envs: int, seed: int, kwargs: dict[str, Any]
) -> tuple[Any, SpaceSpec, SpaceSpec]:
    """Build an EnvPool and read its spaces.

    Args:
        task: EnvPool's task id.
        num_envs: N.
        seed: EnvPool derives one seed per environment from it.
        kwargs: EnvPool's options for the task.

    Raises:
        ConfigError: If EnvPool is not installed, or knows no such task or option.
    """
    _preload_qt()  # EnvPool looks for Qt when it is imported
    try:
        import envpool
    except ImportError:
        raise ConfigError("EnvPool is not installed; pip install 'hsw[envpool]'") from None
    tasks = envpool.list_all_envs()
    if task not in tasks:
        import difflib

        near = ", ".join(difflib.get_close_matches(task, tasks, 3)) or "envpool.list_all_envs() lists them"
        raise ConfigError(f"EnvPool has no task {task}; near to it: {near}")
    try:
        pool = envpool.make(
            task, env_type="gymnasium", num_envs=num_envs, seed=derive_seed(seed), num_threads=0, **kwargs
        )
    except TypeError as error:
        raise ConfigError(f"EnvPool's {task} does not take {sorted(kwargs)}: {error}") from error
    goals = None
    if task.startswith("Fetch"):  # EnvPool tells no compute_reward
        goals = fetch_goals(pool.spec.config.reward_type, pool.spec.config.distance_threshold)
    return _Pool(pool, num_envs, goals), read_space(pool.observation_space), read_space(pool.action_space)


class _Pool:
    """What the adapter needs of an EnvPool."""

    def __init__(self, pool: Any, num_envs: int, goals: GoalFunctions | None) -> None:
        self._pool, self.num_envs, self.goals = pool, num_envs, goals
        self.counts_games = hasattr(pool.spec.config, "episodic_life")  # Atari's: its infos tell of whole games

    def reset(self) -> Any:
        return self._pool.reset()

    def step(self, actions: np.ndarray) -> Any:
        return self._pool.step(actions)

    def close(self) -> None:
        self._pool.close()


def _preload_qt() -> None:
    """Procgen links against Qt 5; where the system has none, the PyQt5-Qt5 wheel brings it."""
    spec = importlib.util.find_spec("PyQt5")
    if spec is None or not spec.submodule_search_locations:
        return
    folder = Path(spec.submodule_search_locations[0], "Qt5", "lib")
    for name in ("libicudata.so.56", "libicuuc.so.56", "libicui18n.so.56", "libQt5Core.so.5", "libQt5Gui.so.5"):
        if (folder / name).exists():
            ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL)
