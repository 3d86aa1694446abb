"""A goal environment's functions of goals against its own steps: hindsight learns from what they say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from hsw.checking.contract import Tap
from hsw.checking.findings import Finding
from hsw.checking.play import Played, copied, draw_action, mask_of, method_place, same
from hsw.env.goals import read_goals
from hsw.errors import EnvError

_REWARD, _END = "compute_reward", "compute_terminated"


@dataclass(frozen=True)
class _Step:
    """A step's goals, and what the environment without its wrappers, and with them, said of it."""

    number: int
    achieved: np.ndarray
    desired: np.ndarray
    info: Any
    rewards: tuple[float, ...]  # of each layer, from the environment itself outwards
    terminated: bool


def check_goals(played: Played, steps: int = 200) -> list[Finding]:
    """Hold compute_reward and compute_terminated against what the steps paid and how they ended.

    Raises:
        EnvError: What the environment raises.
    """
    space, base = played.env.observation_space, played.layers[0]
    if not isinstance(space, gym.spaces.Dict) or not {"achieved_goal", "desired_goal"} <= set(space.spaces):
        return []
    if not callable(getattr(base, _REWARD, None)):
        return []  # it may be trained without hindsight
    taken = list(_steps(played, steps))
    found = [*_of_rewards(played, taken), *_of_batches(played, taken)]
    once: dict[str, Finding] = {}
    for one in found:
        once.setdefault(one.code, one)
    return list(once.values())


def _steps(played: Played, count: int) -> Iterator[_Step]:
    tap, rng = Tap(played), np.random.default_rng(0)
    over, episode, number = True, 0, 0
    obs: Any = None
    info: Any = None
    for _ in range(count):
        if over:
            obs, info = played.reset(episode)
            episode, number = episode + 1, 0
        obs, _, terminated, truncated, info = played.step(draw_action(played.env.action_space, rng, mask_of(obs, info)))
        number, over = number + 1, bool(terminated) or bool(truncated)
        goals = np.array(obs["achieved_goal"]), np.array(obs["desired_goal"])
        rewards = tuple(float(np.asarray(told[1])) for told in tap.returned.values() if len(told) == 5)
        yield _Step(number, *goals, copied(info), rewards, bool(tap.returned[0][2]))


def _of_rewards(played: Played, taken: list[_Step]) -> Iterator[Finding]:
    """Each step by itself, with the info that it came with."""
    base: Any = played.layers[0]
    for step in taken:
        given = step.achieved.copy(), step.desired.copy()
        try:
            told = float(np.asarray(base.compute_reward(*given, step.info)).item())
        except (TypeError, ValueError) as error:
            raise EnvError(f"{_REWARD} of one pair of goals fails: {error} at {played.place(_REWARD)}") from error
        if not (same(given[0], step.achieved) and same(given[1], step.desired)):
            yield played.fault("goal-changed", f"{_REWARD} writes into the goals it is given", "copy them", _REWARD)
        for index, reward in enumerate(step.rewards):
            if np.isclose(told, reward, rtol=1e-5, atol=1e-6):
                continue
            said = f"step {step.number} pays {reward:g}, and {_REWARD} of its goals says {told:g}"
            advice = f"let both come of one function: hindsight learns from {_REWARD} beside what steps paid"
            place = method_place(type(played.layers[index]), "step") if index else played.place(_REWARD)
            yield Finding("goal-reward", said, advice, place)
            return


def _of_batches(played: Played, taken: list[_Step]) -> Iterator[Finding]:
    """All goals at once, later than their steps and in another order: as a replay asks."""
    order = np.random.default_rng(1).permutation(len(taken))
    steps = [taken[index] for index in order]
    goals = np.stack([step.achieved for step in steps]), np.stack([step.desired for step in steps])
    paid = np.array([step.rewards[0] for step in steps], np.float32)
    why = _otherwise(played, goals, paid, {})
    advice = "let it be a function of its arguments alone, of goals [*, goal_shape] to [*]"
    numbers = [key for key in steps[0].info if all(_is_number(step.info.get(key)) for step in steps)]
    stored = {key: np.array([step.info[key] for step in steps]) for key in numbers}
    if why and stored and not _otherwise(played, goals, paid, stored):
        told = f"{_REWARD} needs info, which hindsight stores only when told"
        yield played.fault("goal-info", told, f"with HER, storage.info_keys=[{','.join(stored)}]", _REWARD, note=True)
        return
    if why:
        yield played.fault("goal-function", f"{_REWARD} of a batch of goals, asked later, {why}", advice, _REWARD)
        return
    functions = read_goals(played.layers[0], goals[0].shape[1:])
    if functions is None or functions.compute_terminated is None:
        return
    ends = functions.compute_terminated(*goals, {})
    for step, end in zip(steps, ends, strict=True):
        if step.terminated != end:
            said = f"step {step.number} says terminated={step.terminated}, and {_END} of its goals the opposite"
            yield played.fault("goal-terminated", said, "let both come of one function", _END)
            return


def _otherwise(played: Played, goals: tuple[np.ndarray, np.ndarray], paid: np.ndarray, info: Any) -> str:
    """How the rewards of goals differ from those that steps paid, in words; empty if they do not."""
    try:
        functions = read_goals(played.layers[0], goals[0].shape[1:])
        assert functions is not None
        rewards = functions.compute_reward(*goals, info)
    except Exception as error:  # a person's own code
        return f"fails: {type(error).__name__}: {error}"
    return "" if np.allclose(rewards, paid, rtol=1e-5, atol=1e-6) else "says otherwise than the steps paid"


def _is_number(value: Any) -> bool:
    return np.ndim(value) == 0 and np.asarray(value).dtype.kind in "biuf"
