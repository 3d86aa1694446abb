"""All checks of an environment: each in a process of its own that begins without a trace of the others."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from omegaconf import DictConfig

from hsw.build import build_env
from hsw.checking.children import ChildFailed, in_child
from hsw.checking.contract import check_after_the_end, check_contract
from hsw.checking.findings import Finding, Report
from hsw.checking.goals import check_goals
from hsw.checking.play import Episode, Played, copied, first_difference
from hsw.checking.seeds import check_seeds, reference
from hsw.checking.vectors import check_backends, check_vector
from hsw.env.serial import SerialVectorEnv
from hsw.errors import ConfigError, EnvError

_STEPS = 200
Check = Callable[[], list[Finding] | dict[str, float]]


def check_environment(config: DictConfig, seconds: float = 5.0, speed: bool = True) -> Report:
    """Look at the environment that a config names.

    Args:
        config: Composed and checked.
        seconds: For which random episodes are played.
        speed: Measure it.

    Raises:
        ConfigError: If there is no such environment.
    """
    report = Report()
    single = partial(_single, config)
    begun = _in_child(report, "construction", partial(_begin, single))
    if begun is None:
        return report
    if not isinstance(begun, Episode):
        report.skipped["single environments"] = "they are stepped by a backend of their own"
        checks: dict[str, Check] = {"vector": partial(check_vector, config)}
    else:
        twin = _in_child(report, "episode", partial(reference, single, begun.actions, _STEPS))
        checks = {
            "contract": partial(_contract, single, seconds),
            "seeds": partial(_seeds, single, begun, twin or begun),
            "aliasing": partial(_aliasing, single),
            "goals": partial(_goals, single),
            "closing": partial(_closing, single),
            "rendering": partial(_rendering, config, begun),
            "backends": partial(check_backends, config),
            **({"speed": partial(_speed, single)} if speed else {}),
        }
    try:
        report.merge(in_child(_all, checks, seconds=300.0))
    except ChildFailed:  # one of them ended the process; each has one of its own then
        for name, check in checks.items():
            report.merge(_in_child(report, name, partial(_all, {name: check})) or Report())
    return report


def _all(checks: dict[str, Check]) -> Report:
    report = Report()
    for name, check in checks.items():
        try:
            told = check()
        except (EnvError, ConfigError) as error:
            report.add([_raised(error)])
        else:
            if isinstance(told, dict):
                report.figures.update(told)
            else:
                report.checked(name, told)
    return report


def _raised(error: Exception) -> Finding:
    message, at, place = str(error).rpartition(" at ")
    return Finding("raises", message if at else str(error), "mend what raises or is refused there", place if at else "")


def _single(config: DictConfig, **changes: Any) -> Any:
    plain = {key: value for key, value in changes.items() if key in config.env or key == "render_mode"}
    if "backend" in config.env and config.env.backend == "async":
        plain["backend"] = "sync"
    return build_env(config, num_envs=1, **plain)


def _in_child(report: Report, name: str, check: Callable[[], Any]) -> Any:
    """What a check returns; its failure is a finding, and None."""
    try:
        return in_child(check, seconds=120.0)
    except ChildFailed as error:
        if error.kind == "ConfigError" and name == "construction":
            raise ConfigError(str(error)) from None
        if error.kind in ("EnvError", "EnvHangs"):
            report.add([_raised(error)])
        elif error.kind and not error.place:
            raise RuntimeError(f"{name} could not be checked: {error.details}") from None
        elif error.kind:
            told = f"{error.kind} while {name} was checked: {error}"
            report.add([Finding("raises", told, "mend what raises there", error.place)])
        else:
            advice = "step it by itself under a debugger: it ends or blocks the process that it is in"
            report.add([Finding("process-ends", f"while {name} was checked, it {error}", advice)])
        return None


def _begin(make: Callable[[], Any]) -> Episode | str:
    """A first episode; of environments that a backend steps by itself, only that they can be built."""
    vector = make()
    vector.abandon()
    if not isinstance(vector.backend, SerialVectorEnv):
        return "vector"
    return reference(make, None, _STEPS)


def _contract(make: Callable[[], Any], seconds: float) -> list[Finding]:
    played = Played(make)
    found, _ = check_contract(played, seconds)
    fresh = Played(make)
    return found + check_after_the_end(fresh, 3)


def _goals(make: Callable[[], Any]) -> list[Finding]:
    return check_goals(Played(make))


def _seeds(make: Callable[[], Any], alone: Episode, twin: Episode) -> list[Finding]:
    used = Played(make)
    for seed in range(3):
        used.play(seed, steps=300, draw=seed)
    return check_seeds(make, used, alone, twin)


def _aliasing(make: Callable[[], Any]) -> list[Finding]:
    """An environment must not mind what becomes of the observations that it gave."""

    def overwrite(obs: Any) -> None:
        for array in obs.values() if isinstance(obs, dict) else (obs,):
            if isinstance(array, np.ndarray) and array.flags.writeable and array.dtype.kind in "biuf":
                array[...] = 0

    left, touched = Played(make), Played(make)
    one = left.play(11, steps=50)
    differs = first_difference(one, touched.play(11, one.actions, touch=overwrite))
    if not differs:
        return []
    told = f"writing into an observation changes the environment itself: {differs} is another"
    return [left.fault("reused-buffer", told, "return a copy: self.state.copy()")]


def _closing(make: Callable[[], Any]) -> list[Finding]:
    threads, files = set(threading.enumerate()), _open_files()
    played = Played(make)
    played.play(1, steps=20)
    found = []
    for time_ in ("close", "a second close"):
        try:
            played.call("close", played.env.close)
        except EnvError as error:
            advice = "let close do nothing where there is nothing to close"
            found.append(played.fault("close", f"{time_} fails: {error}", advice, "close"))
            break
    left = [thread.name for thread in set(threading.enumerate()) - threads if thread.is_alive()]
    if left:
        told = f"close leaves threads running: {', '.join(left)}"
        found.append(played.fault("close", told, "stop and join them in close", "close"))
    elif (more := _open_files() - files) > 3:
        told = f"close leaves {more} files open"
        found.append(played.fault("close", told, "close in close what __init__ or reset has opened", "close"))
    return found


def _open_files() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def _rendering(config: DictConfig, alone: Episode) -> list[Finding]:
    """Where rgb_array is declared, it must give pixels, and change nothing."""
    plain = Played(partial(_single, config))
    modes = (plain.env.metadata or {}).get("render_modes", [])
    plain.close()
    if "rgb_array" not in modes:
        return []
    advice = "take render_mode in __init__, and return uint8 [H, W, 3] from render; or declare no rgb_array"
    try:
        played = Played(partial(_single, config, render_mode="rgb_array"))
        played.reset(1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frame = played.call("render", played.env.render)
    except (EnvError, ConfigError) as error:
        libraries = "site-packages" in str(error) or "DependencyNotInstalled" in str(error)
        told = f"render_mode=rgb_array is declared, and fails: {error}"
        return [plain.fault("render", told, advice, "render", note=libraries)]
    if not (isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3):
        told = f"render gives {_told(frame)} where rgb_array is declared"
        of_library = "site-packages" in played.place("render")  # nothing that is trained depends on it
        return [played.fault("render", told, advice, "render", note=of_library)]
    differs = first_difference(alone, played.play(12345, alone.actions, touch=lambda _: played.env.render()))
    if differs:
        told = f"rendering changes the episode: {differs} is another than without"
        return [played.fault("render-changes", told, "let render read the state and draw nothing at random", "render")]
    return []


def _told(frame: Any) -> str:
    return f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__


def _speed(make: Callable[[], Any]) -> dict[str, float]:
    from hsw.env import make_env

    own = _steps_per_second(make)
    return {
        "steps/s": own,
        "CartPole's": _steps_per_second(lambda: make_env("CartPole-v1", num_envs=1)),
    }


def _steps_per_second(make: Callable[[], Any], seconds: float = 0.4) -> float:
    env: gym.Env[Any, Any] = (played := Played(make)).env
    rng_actions = list(played.drawn_actions(64))
    played.reset(0)
    begin, steps = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        _, _, terminated, truncated, _ = env.step(copied(rng_actions[steps % 64]))
        steps += 1
        if terminated or truncated:
            env.reset(seed=steps)
    return steps / (time.perf_counter() - begin)
