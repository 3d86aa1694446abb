"""Replay with goals in hindsight."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np

from hsw.bounds import Range
from hsw.errors import ConfigError, EnvError
from hsw.spaces import SpaceLike
from hsw.storage.records import Field
from hsw.storage.replay import ReplayStorage
from hsw.storage.ring import Ring
from hsw.template import Each, StateError, Whole

GOAL_KEYS = ("achieved_goal", "desired_goal", "observation")
STRATEGIES = ("future", "final", "episode")


class HerReplayStorage(ReplayStorage):
    """Hindsight experience replay (Andrychowicz et al. 2017, arXiv:1707.01495).

    Of each batch a part of num_goals / (num_goals + 1) is given another goal: what was achieved by a step of the same
    episode. Its reward is that of the new goal. Transitions are drawn uniformly from whole episodes and from what there
    is yet of the running ones; an episode leaves as a whole as soon as its first transition is overwritten.

    Args:
        observation_space: A Dict with observation, achieved_goal and desired_goal.
        action_space, device, storage_size, num_envs, batch_size: See ReplayStorage.
        goal_selection_strategy: The goal is achieved by a step drawn from this one to the episode's last ("future"), by
            the last ("final"), or by any step of the episode ("episode").
        num_goals: Goals in hindsight for each real one; 0 is a replay without hindsight.
        reward_fn: reward_fn(achieved_goals, desired_goals, info) gives the rewards of V transitions from arrays
            [V, *goal_shape]; info is a dict of arrays, empty unless copy_info_dict. None takes the environment's
            compute_reward.
        copy_info_dict: Keep the numbers in info, those of the first row's keys.
        discount: Per environment step.
        terminated_fn: The same for terminations. None takes the environment's compute_terminated, if it has one.
        recompute_terminateds: False keeps the flags of the real goal.
        memory: See ReplayStorage.

    Raises:
        ConfigError: If there is no such strategy, the observations have no goals, or it cannot fit in memory.
    """

    needs_goals = True  # few environments have them

    def __init__(
        self,
        observation_space: SpaceLike,
        action_space: SpaceLike,
        device: str = "cpu",
        storage_size: Annotated[int, Range(1)] = 1_000_000,
        num_envs: Annotated[int, Range(1)] = 1,
        batch_size: Annotated[int, Range(1)] = 1024,
        goal_selection_strategy: Literal["future", "final", "episode"] = "future",
        num_goals: Annotated[int, Range(0)] = 4,
        reward_fn: Callable[..., Any] | None = None,
        copy_info_dict: bool = False,
        *,
        discount: Annotated[float, Range(0, 1)] = 0.99,
        terminated_fn: Callable[..., Any] | None = None,
        recompute_terminateds: bool = True,
        memory: Literal["ram", "disk"] = "ram",
    ) -> None:
        self.copy_info_dict = copy_info_dict  # first: it adds to the record
        sizes = storage_size, num_envs, batch_size
        super().__init__(observation_space, action_space, device, *sizes, discount=discount, memory=memory)
        if goal_selection_strategy not in STRATEGIES:
            raise ConfigError(
                f"goal_selection_strategy={goal_selection_strategy} does not exist; take {', '.join(STRATEGIES)}"
            )
        missing = set(GOAL_KEYS) - set(self.observation_space.spaces)
        if missing:
            raise ConfigError(
                f"hindsight needs Dict observations with {', '.join(GOAL_KEYS)}; missing: {', '.join(sorted(missing))}"
            )
        achieved, desired = (self.observation_space.spaces[key] for key in GOAL_KEYS[:2])
        if "Dict" in (achieved.type, desired.type) or achieved.shape != desired.shape:
            raise ConfigError(
                f"achieved_goal and desired_goal must be arrays of one shape, not {achieved.shape} and {desired.shape}"
            )
        self.goal_selection_strategy, self.num_goals = goal_selection_strategy, num_goals
        self.reward_fn, self.terminated_fn = reward_fn, terminated_fn
        self.recompute_terminateds = recompute_terminateds

    def attach(self, env: Any) -> None:
        """Take the environment's compute_reward and compute_terminated, unless functions were given.

        Raises:
            ConfigError: If there is no reward function, or the environment changes its rewards.
        EnvError: If the environment fails when it is asked for them; also from what draws a batch, if they do.
        """
        if getattr(env, "clip_reward", None) is not None:
            raise ConfigError("env.clip_reward would clip the rewards of real goals only; set it to null")
        guarded = getattr(env, "guarded", lambda name, function: function)  # an environment's own are that already
        self.reward_fn = guarded("reward_fn", self.reward_fn) if self.reward_fn else env.compute_reward
        self.terminated_fn = (
            guarded("terminated_fn", self.terminated_fn) if self.terminated_fn else env.compute_terminated
        )
        self._check_reward_fn()

    def _check_reward_fn(self) -> None:
        if self.reward_fn is None:
            raise ConfigError(
                "hindsight needs rewards for new goals; give reward_fn, or an environment that has compute_reward"
            )

    # -- storing ----------------------------------------------------------------------------------------------------

    def _fields(self, sample: dict[str, Any]) -> list[Field]:
        info = _columns(sample.get("info")) if self.copy_info_dict else {}
        self._info_keys = list(info)
        kept = [(f"info/{key}", part.dtype.name, part.shape[1:]) for key, part in info.items()]
        return [*super()._fields(sample), *kept]

    def init_tensors(self, sample: dict[str, Any]) -> None:
        super().init_tensors(sample)
        assert self.ring is not None
        self._lengths = np.zeros(len(self.ring.memory), np.int32)  # of the episode that begins in a place
        self._oldest = self.ring.lows()  # the first row of each env's oldest whole episode
        # An episode that is longer than the ring is cut, and what follows of it is cut more often, so that there is
        # always something to draw.
        self._limits = np.full(self.num_envs, self.capacity)

    def _write_info(self, info: Any) -> None:
        if not self._info_keys:
            return
        columns = _columns(info)
        assert self.ring is not None
        for key in self._info_keys:
            self.ring.row[f"info/{key}"] = columns.get(key, 0)

    def _store(self, ring: Ring, envs: np.ndarray) -> None:
        ring.append(envs)
        # No row overwrites the beginnings of two episodes, because an episode takes two places or more.
        gone = self._oldest < ring.lows()
        if np.count_nonzero(gone):
            self._oldest[gone] += self._lengths[ring.places(gone, self._oldest[gone])] + 1
        steps = ring.steps[envs]
        self._lengths[ring.places(envs, ring.heads[envs] - steps)] = steps
        dones = ring.row["terminateds"][envs] | ring.row["truncateds"][envs]
        ends = dones | (steps >= self._limits[envs])
        if not np.count_nonzero(ends):
            return
        if (cut := ends & ~dones).any():
            warnings.warn(
                f"an episode is longer than the {self.capacity} transitions that its environment's replay holds; its "
                "hindsight goals come from parts of it",
                stacklevel=3,
            )
            self._limits[envs[cut]] = max(1, self.capacity // 8)
        self._limits[envs[dones]] = self.capacity
        ring.end(envs[ends])

    def truncate(self) -> None:
        super().truncate()
        if self.ring is not None:
            self._limits[:] = self.capacity

    def reset(self) -> None:
        super().reset()
        if self.ring is not None:
            self._restored(self.ring)

    # -- drawing ----------------------------------------------------------------------------------------------------

    def _firsts(self) -> np.ndarray:
        return self._oldest

    def _batch(self, ring: Ring, places: np.ndarray, **fields: np.ndarray) -> Any:
        self._check_reward_fn()
        pairs = ring.pairs(places)
        records, following = pairs[:, 0], pairs[:, 1]
        virtual = self._num_virtual(len(places))
        if virtual:
            distances = self._goal_distances(ring, places[:virtual], records["offsets"][:virtual])
            goals = ring.records(ring.moved(places[:virtual], distances))["observations/achieved_goal"]
            pairs["observations/desired_goal"][:virtual] = goals[:, None]
            self._recompute(records[:virtual], following[:virtual])
        discounts = np.full(len(places), self.discount, np.float32)
        return self._to_batch(records, following, records, discounts, **fields)

    def _num_virtual(self, size: int) -> int:
        """How many of a batch get another goal: the fraction, rounded at random so that small batches get theirs."""
        return int(size * self.num_goals / (self.num_goals + 1) + self.random.random())

    def _goal_distances(self, ring: Ring, places: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """How many rows after each transition is the observation whose achieved goal it gets.

        Row t's transition leads to the observation in row t + 1, so the goal that step t achieved is one row away.
        """
        offsets = offsets.astype(np.int64)
        lengths = self._lengths.take(ring.moved(places, -offsets))
        if self.goal_selection_strategy == "final":
            distances: np.ndarray = lengths - offsets
            return distances
        draws = self.random.random(len(places))
        if self.goal_selection_strategy == "future":
            distances = 1 + (draws * (lengths - offsets)).astype(np.int64)
        else:
            distances = 1 - offsets + (draws * lengths).astype(np.int64)
        return distances

    def _recompute(self, records: np.ndarray, following: np.ndarray) -> None:
        """Rewards, and terminations where they can be, of transitions that have new goals."""
        goals = following["observations/achieved_goal"], following["observations/desired_goal"]
        info = {key: records[f"info/{key}"] for key in self._info_keys}
        assert self.reward_fn is not None
        records["rewards"] = _one_each("reward_fn", self.reward_fn(*goals, info), len(records))
        if self.recompute_terminateds and self.terminated_fn is not None:
            records["terminateds"] = _one_each("terminated_fn", self.terminated_fn(*goals, info), len(records))

    # -- the life cycle ---------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "limits": self._limits.tolist() if self.ring is not None else []}

    def state_template(self) -> Any:
        return {**super().state_template(), "limits": Each(Whole(1), most=self.num_envs)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        if self.ring is not None:
            if len(state["limits"]) not in (0, self.num_envs):
                raise StateError(f"the saved storage/limits must be a list of {self.num_envs}")
            self._limits[:] = state["limits"] or self.capacity

    def _restored(self, ring: Ring) -> None:
        """Lengths and beginnings of the episodes that stand in the ring as a whole."""
        self._limits[:] = self.capacity
        if (full := ring.steps >= self.capacity).any():  # begun in a larger ring, or in a replay without hindsight
            ring.end(np.flatnonzero(full))
        self._oldest = ring.heads - ring.steps
        lows = ring.lows()
        for n in range(self.num_envs):
            rows = np.arange(lows[n], ring.heads[n])
            places = ring.places(n, rows)
            offsets = ring.offsets[places]
            begins = rows[offsets == 0]
            if len(begins):
                self._oldest[n] = begins[0]
            whole = (offsets >= 0) & (rows - offsets >= self._oldest[n])
            # In the order of time: an episode's last transition is the one that tells.
            self._lengths[ring.places(n, rows[whole] - offsets[whole])] = offsets[whole] + 1


def _one_each(name: str, values: Any, size: int) -> np.ndarray:
    """What a function gave for size transitions, [size]."""
    array = np.asarray(values)
    if array.size != size:
        raise ConfigError(f"{name} gave {array.shape} for {size} transitions; it must give one value for each")
    if array.dtype.kind not in "biuf":
        raise EnvError(f"{name} gave {array.dtype} for {size} transitions; it must give one number for each")
    if not np.isfinite(array.astype(np.float32, copy=False)).all():
        bad = array.reshape(-1)[~np.isfinite(array.reshape(-1).astype(np.float32))][0]
        raise EnvError(f"{name} gave {bad} for a transition under another goal; rewards must be finite")
    return array.reshape(-1)


def _columns(info: Any) -> dict[str, np.ndarray]:
    """The numbers in Gymnasium's vector dict, or in a list of dicts, as arrays [N, ...]."""
    if isinstance(info, list | tuple):
        keys = dict.fromkeys(key for part in info for key in part)
        zeros = {key: np.zeros_like(next(part[key] for part in info if key in part)) for key in keys}
        info = {key: np.stack([np.asarray(part.get(key, zeros[key])) for part in info]) for key in keys}
    arrays = {key: np.asarray(value) for key, value in (info or {}).items() if not key.startswith("_")}
    return {key: array for key, array in arrays.items() if array.dtype.kind in "biuf" and array.ndim}
