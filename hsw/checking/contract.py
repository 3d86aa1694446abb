"""Episodes of one environment, each of its layers watched: values, flags, ends, and what is handed out twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np

from hsw.checking.findings import Finding
from hsw.checking.play import Played, arrays, copied, draw_action, mask_of, method_place, same
from hsw.checking.values import (
    Fault,
    faults_of_info,
    faults_of_obs,
    faults_of_space,
    faults_of_step,
    info_size,
)
from hsw.errors import EnvError
from hsw.seeding import derive_seed

_KEPT = 64  # observations of which a reference is kept


class Tap:
    """Remembers what each layer of an environment returned last, and whether a step reset it by itself."""

    def __init__(self, played: Played) -> None:
        self.layers = played.layers
        self.returned: dict[int, Any] = {}
        self.reset_within: str = ""
        self._depth = 0
        for index, layer in enumerate(self.layers):
            for method in ("reset", "step"):
                self._watch(index, layer, method)

    def _watch(self, index: int, layer: gym.Env[Any, Any], method: str) -> None:
        original = getattr(layer, method)

        def watched(*args: Any, **kwargs: Any) -> Any:
            stepping = method == "step"
            if not stepping and self._depth and not self.reset_within:
                self.reset_within = method_place(type(layer), "step")
            self._depth += stepping
            try:
                result = self.returned[index] = original(*args, **kwargs)
            finally:
                self._depth -= stepping
            return result

        setattr(layer, method, watched)

    def guilty(self, method: str, faults: Callable[[gym.Env[Any, Any], Any], list[Fault]]) -> Iterator[Finding]:
        """Each fault, with the innermost layer that has it."""
        seen: set[str] = set()
        for index, layer in enumerate(self.layers):
            for fault in faults(layer, self.returned[index]) if index in self.returned else ():
                if fault.code not in seen:
                    seen.add(fault.code)
                    yield Finding(*fault, place=method_place(type(layer), method))


@dataclass
class Ended:
    """How one episode ended."""

    length: int
    terminated: bool
    truncated: bool
    last: Any


@dataclass
class Seen:
    """What many episodes showed."""

    ended: list[Ended] = field(default_factory=list)
    steps: int = 0
    paid: bool = False
    moved: bool = False
    sizes: list[int] = field(default_factory=list)  # of info, in the longest episode
    running: list[Any] = field(default_factory=list)  # observations after which the episode went on


def check_contract(played: Played, seconds: float, most: int = 5000) -> tuple[list[Finding], Seen]:
    """Play episodes and look at everything that comes.

    Raises:
        EnvError: What the environment raises.
    """
    found = [
        Finding(*fault, place=method_place(type(played.layers[0]), "__init__"))
        for name in ("observation_space", "action_space")
        for fault in faults_of_space(getattr(played.env, name, None), name)
    ]
    if found:
        return found, Seen()
    tap, seen = Tap(played), Seen()
    begin, episode = time.monotonic(), 0
    while (time.monotonic() - begin < seconds and seen.steps < most and len(seen.ended) < 30) or episode < 3:
        found += _episode(played, tap, seen, episode, begin + seconds)
        episode += 1
        if len({(one.code, one.place) for one in found}) > 8 or (seen.steps >= most):
            break
    if tap.reset_within:
        advice = "leave the reset to whoever steps: return the last observation and the flags, and nothing else"
        told = "step resets the environment by itself, so that the episode's last observation is lost"
        found.append(Finding("reset-within-step", told, advice, tap.reset_within))
    return found + list(_of_all(played, seen)), seen


def _episode(played: Played, tap: Tap, seen: Seen, number: int, end: float) -> list[Finding]:
    rng = np.random.default_rng(number)
    obs, info = played.reset(derive_seed(7, number))
    found = list(tap.guilty("reset", lambda layer, told: list(_of_reset(layer, told))))
    kept = [("reset", obs, copied(obs))]
    sizes: list[int] = []
    length = 0
    while length < 2000 and (time.monotonic() < end or length < 120):
        action = draw_action(played.env.action_space, rng, mask_of(obs, info))
        given = copied(action)
        before = kept[-1][2]
        obs, reward, terminated, truncated, info = played.step(given)
        length += 1
        seen.steps += 1
        found += tap.guilty("step", lambda layer, told: list(_of_step(layer, told)))
        if isinstance(given, np.ndarray) and not same(given, action):
            advice = "work on a copy: action = np.array(action)"
            found.append(played.fault("action-changed", "step writes into the action that it is given", advice))
        seen.paid |= bool(np.any(reward))
        now = copied(obs)
        seen.moved |= not same(before, now)
        if length % 16 == 1 and not any(one.code.startswith("info") for one in found):
            sizes.append(info_size(info))
        found += _reused(played, kept, obs)
        kept = [*kept[-_KEPT:], ("step", obs, now)]
        if terminated or truncated:
            seen.ended.append(Ended(length, bool(terminated), bool(truncated), now))
            found += _both(played, tap)
            break
        if len(seen.running) < 2000:
            seen.running.append(now)
        if len(found) > 200:
            break
    if len(sizes) > len(seen.sizes):
        seen.sizes = sizes
    return found


def _of_reset(layer: gym.Env[Any, Any], told: Any) -> Iterator[Fault]:
    if isinstance(told, tuple) and len(told) == 2:
        yield from faults_of_obs(layer.observation_space, told[0])
        yield from faults_of_info(told[1])


def _of_step(layer: gym.Env[Any, Any], told: Any) -> Iterator[Fault]:
    if isinstance(told, tuple) and len(told) == 5:
        yield from faults_of_obs(layer.observation_space, told[0])
        yield from faults_of_step(*told[1:4])
        yield from faults_of_info(told[4])


def _reused(played: Played, kept: list[tuple[str, Any, Any]], obs: Any) -> Iterator[Finding]:
    """Whether an observation that was handed out has changed since."""
    for method, earlier, copy in reversed(kept):
        if same(earlier, copy):
            continue
        mine = {id(array) for _, array in arrays(earlier)}
        shared = any(id(array) in mine for _, array in arrays(obs))
        how = "is the same array, written over," if shared else "changes"
        told = f"the observation that {method} returned {how} when the environment is stepped on"
        yield played.fault("reused-buffer", told, "return a copy: obs.copy()", method)
        return


def _both(played: Played, tap: Tap) -> Iterator[Finding]:
    """Flags of the step that ended an episode, layer by layer."""
    inner: tuple[bool, bool] | None = None
    for index, layer in enumerate(tap.layers):
        told = tap.returned.get(index)
        if not (isinstance(told, tuple) and len(told) == 5):
            continue
        terminated, truncated = bool(told[2]), bool(told[3])
        place = method_place(type(layer), "step")
        limit = isinstance(layer, gym.wrappers.TimeLimit)
        if terminated and truncated and inner != (True, True) and not limit:
            advice = (
                "set truncated only where time is up and the task has not ended: truncated = late and not terminated"
            )
            told_both = (
                "one step says terminated and truncated, which are two ends: one that counts and one that does not"
            )
            yield Finding("terminated-and-truncated", told_both, advice, place)
        if inner == (False, True) and terminated:
            told_as = f"{type(layer).__name__} says terminated where the environment within says truncated"
            yield Finding("time-limit-as-termination", told_as, "hand on both flags as they are", place)
        inner = terminated, truncated


def _of_all(played: Played, seen: Seen) -> Iterator[Finding]:
    yield from _time_limit(played, seen)
    if seen.sizes and seen.sizes[-1] > 4 * seen.sizes[0] and seen.sizes[-1] > seen.sizes[0] + 1024:
        told = f"info grows as the episode goes on: {seen.sizes[0]:,} bytes at first, {seen.sizes[-1]:,} at last"
        yield played.fault("info-grows", told, "give what is new in each step, and the whole at the end only")
    if not seen.ended:
        told = f"no episode ended within {seen.steps:,} random steps"
        yield played.fault(
            "endless", told, "register it with max_episode_steps, if it has no end of its own", note=True
        )
    if not seen.paid:
        told = f"every reward was 0 in {seen.steps:,} random steps"
        yield played.fault("no-reward", told, "check that a policy that explores can find one", note=True)
    if not seen.moved:
        told = f"no observation differed from the one before in {seen.steps:,} steps"
        yield played.fault("constant-obs", told, "check that the observation is drawn anew in each step", note=True)


def _time_limit(played: Played, seen: Seen) -> Iterator[Finding]:
    """An environment that always terminates after the same number of steps, and where that is a clock's."""
    lengths = {one.length for one in seen.ended if one.terminated and not one.truncated}
    if len(seen.ended) < 3 or len(lengths) != 1 or any(not one.terminated for one in seen.ended):
        return
    (length,) = lengths
    base = played.layers[0]
    spec = getattr(played.env, "spec", None)
    names = [name for name, value in vars(base).items() if _is_clock(name) and type(value) is int and value == length]
    clock = f"self.{names[0]}" if names else ""
    if spec is not None and spec.max_episode_steps == length:
        clock = f"max_episode_steps of {spec.id}"
    hidden = any(same(one.last, other) for one in seen.ended for other in seen.running)
    if not clock and not hidden:
        return
    why = f", which is {clock}" if clock else ", in places where others went on"
    told = f"each of {len(seen.ended)} episodes terminated after exactly {length} steps{why}: a time limit is no end"
    advice = "return truncated=True there and terminated=False, so that what would come after is still valued"
    yield played.fault("time-limit-as-termination", told, advice)


def _is_clock(name: str) -> bool:
    words = name.lower().strip("_")
    limits = ("max_steps", "max_episode_steps", "max_episode_length", "episode_length", "max_length", "max_timesteps")
    return words in (*limits, "time_limit", "horizon", "limit", "timeout", "max_t", "t_max", "max_step", "num_steps")


def check_after_the_end(played: Played, seed: int) -> list[Finding]:
    """What a step does once the episode is over; hsw takes none, and Gymnasium says nothing of it."""
    episode = played.play(seed, steps=2000)
    if not episode.rows or not bool(episode.rows[-1].terminated):
        return []
    try:
        _, reward, terminated, truncated, _ = played.step(episode.actions[-1])
    except EnvError:
        return []
    advice = "nothing, with hsw; other libraries may step there: keep the flags up and pay nothing until reset"
    if not (terminated or truncated):
        told = "a step after the episode's end goes on as if there had been none"
        return [played.fault("step-after-done", told, advice, note=True)]
    if np.any(np.asarray(reward, dtype=np.float64)):
        told = f"a step after the episode's end says done twice, and pays {reward} again"
        return [played.fault("done-twice", told, advice, note=True)]
    return []
