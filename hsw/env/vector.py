"""The one vector-environment adapter: whatever the backend, the loops see the same time and the same statistics."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from hsw.env.actions import ActionCast
from hsw.env.autoreset import in_next_step_mode
from hsw.env.counts import Episode, EpisodeCounts, Step, differing, dtypes_of
from hsw.env.finite import check_finite, check_rewards
from hsw.env.frames import FrameStack, picture
from hsw.env.goals import GoalFunction, GoalFunctions, LazyGoals
from hsw.env.history import RunningEpisodes
from hsw.env.masks import MaskSource, find_masks, warn_if_unused
from hsw.env.normalize import RewardNormalizer, RunningMoments, make_obs_normalizers, normalized_space, share
from hsw.errors import EnvError
from hsw.ranks import current
from hsw.spaces import SpaceSpec, policy_space, tree_map
from hsw.template import Array, Axis, Maybe, hold, space_template, template_of


class VectorEnv:
    """N environments in the NEXT_STEP convention.

    obs[t + 1] is always where step t led. The step after a done is a reset: its action is ignored, its reward is 0 and
    valid is False; it enters no statistic.

    Args:
        backend: A gymnasium.vector.VectorEnv, or what has its reset, step and close, in NEXT_STEP mode. A single
            environment may be in SAME_STEP or DISABLED mode.
        observation_space, action_space: Of one environment.
        exact: The backend's environments are EpisodeEnvs, which can rebuild a running episode on resume.
        timeout: Seconds after which an environment counts as hung; None waits for ever.
        action_start, action_dtype: First action of a Discrete or MultiDiscrete space (policies count from 0), and
            the dtype in which it takes actions (None: the space's).
        frame_stack: Number of frames that make an observation.
        normalize_obs: Normalise observations by their running mean and standard deviation.
        normalize_reward: Divide rewards by the standard deviation of their discounted return.
        clip_reward: Clip rewards to ±this (after normalising).
        discount: Of the return by which rewards are normalised.
        training: False freezes the observation statistics and leaves rewards as they are.
        stateful: The environments are EpisodeEnvs with wrappers whose state goes into checkpoints.
        goals: A goal environment's functions, or what finds them (or None) when they are first asked for.
        action_mask: Where masks of actions come from, see hsw.env.masks.
    """

    def __init__(
        self,
        backend: Any,
        observation_space: SpaceSpec,
        action_space: SpaceSpec,
        *,
        exact: bool = False,
        timeout: float | None = None,
        action_start: Any = 0,
        action_dtype: Any = None,
        frame_stack: int = 1,
        normalize_obs: bool = False,
        normalize_reward: bool = False,
        clip_reward: float | None = None,
        discount: float = 0.99,
        training: bool = True,
        stateful: bool = False,
        goals: GoalFunctions | Callable[[], GoalFunctions | None] | None = None,
        action_mask: MaskSource = "auto",
    ) -> None:
        self._backend = in_next_step_mode(backend, timeout)
        self.num_envs = int(backend.num_envs)
        self.action_space = policy_space(action_space)
        self.action_cast = ActionCast(action_space, action_start, action_dtype)
        self._dtypes = dtypes_of(observation_space)
        self.exact = exact
        self.training = training
        self._stateful = stateful
        self.remake: Callable[..., VectorEnv] | None = None  # remake(seed=...) builds it anew, in any process
        self._goals = LazyGoals(goals, self._backend.here)
        self.clip_reward = clip_reward
        self.raw_observation_space, self.frame_stack = observation_space, frame_stack
        self.masks = find_masks(action_mask, observation_space, action_space)
        self._warns_of_masks = self.masks is None and action_mask == "auto"
        own = self.masks.rest if self.masks else observation_space
        self._frames = FrameStack(own, self.num_envs, frame_stack) if frame_stack > 1 else None
        spec = self._frames.spec if self._frames else own
        self._obs_normalizers = make_obs_normalizers(spec, training) if normalize_obs else {}
        spec = normalized_space(spec) if normalize_obs else spec
        self.observation_space = self.masks.space(spec) if self.masks else spec
        self._reward_normalizer = RewardNormalizer(self.num_envs, discount) if normalize_reward else None
        self._counts = EpisodeCounts(self.num_envs, getattr(backend, "counts_games", False))
        self._obs: Any = None  # the backend's last observation
        self._dones = np.zeros(self.num_envs, bool)
        self._restart: Any = None
        self._running = RunningEpisodes(self.num_envs)

    @property
    def compute_reward(self) -> GoalFunction | None:
        """(achieved, desired, info) to rewards, see GoalFunctions; None unless this is a goal environment.

        Goals and rewards are the environment's own: not normalised, not clipped.
        """
        return self._goals.found and self._goals.found.compute_reward

    @property
    def compute_terminated(self) -> GoalFunction | None:
        """(achieved, desired, info) to terminateds, see GoalFunctions; None where the goal ends no episode."""
        return self._goals.found and self._goals.found.compute_terminated

    def guarded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A person's function, as one of the environments': with their time limit, its errors told as theirs."""
        return partial(self._backend.here, name, function)

    @property
    def backend(self) -> Any:
        """What steps the environments, as it was given."""
        return self._backend.backend

    def reset(self) -> Any:
        """Start every environment. Returns the first observations, [N, *shape] or a dict of them."""
        obs = self._backend.reset()
        if self._obs is not None:  # the running episodes are given up
            self._running.give_up()
            self._dones[:] = False
            self._counts.give_up()
            if self._reward_normalizer:
                self._reward_normalizer.returns[:] = 0.0
        if self._warns_of_masks:
            warn_if_unused(self._backend.reset_info, self.action_space)
            self._warns_of_masks = False
        return self._first(obs)

    def step(self, actions: np.ndarray) -> Step:
        """Advance every environment by one row.

        Args:
            actions: [N, *action_shape]; discrete ones count from 0, continuous ones are clipped to the bounds.

        Raises:
            EnvError: If an environment raises, exits, dies, hangs, or returns a NaN.
        """
        if self._restart is not None:
            return self._restart_row()
        env_actions = self.action_cast(actions, self.num_envs)
        obs, rewards, terminateds, truncateds, info = self._backend.step(env_actions)
        valid = ~self._dones
        rewards = rewards * valid
        terminateds, truncateds = terminateds & valid, truncateds & valid
        dones = terminateds | truncateds
        check_rewards(rewards, self._counts.lengths)
        self._backend.resets = self._counts.add(rewards, dones, valid, truncateds, info)
        if self.exact:
            self._running.remember(env_actions, valid)
        self._dones = dones
        obs = self._observe(obs, ~valid, dones, terminateds, info)
        if self.training and self._reward_normalizer:
            rewards = self._reward_normalizer(rewards, dones, valid)
        if self.training and self.clip_reward is not None:
            rewards = np.clip(rewards, -self.clip_reward, self.clip_reward)
        return Step(obs, rewards.astype(np.float32, copy=False), terminateds, truncateds, valid, info)

    def pop_episodes(self) -> list[Episode]:
        """The episodes finished since the last call."""
        return self._counts.pop()

    def running_episodes(self) -> list[Episode]:
        """Every environment's running episode, so far."""
        return self._counts.running()

    def frame(self) -> np.ndarray | None:
        """What the first environment looks like, uint8 [H, W, 3]: rendered, or else its pixel observation."""
        return picture(self._backend.render(), self._obs)

    def close(self) -> None:
        """End the environments; a worker that does not answer is killed."""
        self._backend.close()

    def abandon(self) -> None:
        """Close after an error, which is what counts: what goes wrong now is a warning."""
        try:
            self.close()
        except EnvError as error:
            warnings.warn(str(error), stacklevel=2)

    def obs_statistics(self) -> dict[str, Any]:
        """The observation statistics, which an evaluation environment takes over."""
        return {key: normalizer.moments.state_dict() for key, normalizer in self._obs_normalizers.items()}

    def load_obs_statistics(self, state: dict[str, Any]) -> None:
        """Take over what obs_statistics returned.

        Raises:
            StateError: If it is of other observations.
        """
        hold(template_of(self.obs_statistics()), state, "env/obs_statistics")
        for key, normalizer in self._obs_normalizers.items():
            normalizer.moments.load_state_dict(state[key])

    def share_statistics(self) -> None:
        """Make the statistics of observations and rewards those of all ranks' environments; all ranks call this."""
        share(self._moments())

    def _moments(self) -> list[RunningMoments]:
        rewards = [self._reward_normalizer.moments] if self._reward_normalizer else []
        return [*(normalizer.moments for normalizer in self._obs_normalizers.values()), *rewards]

    def state_dict(self) -> dict[str, Any]:
        """All that continues the run: statistics, and how to rebuild the running episodes."""
        state: dict[str, Any] = {
            "obs_statistics": self.obs_statistics(),
            "obs": None if self._obs is None else tree_map(torch.from_numpy, self._obs),
            "dones": torch.from_numpy(self._dones.copy()),
            **self._counts.state_dict(),
            **self._running.state_dict(),
        }
        if self._reward_normalizer:
            state["reward_normalizer"] = self._reward_normalizer.state_dict()
        if current().size > 1:
            state["unshared"] = [moments.unshared() for moments in self._moments()]
        if self._stateful:
            state["wrappers"] = list(self._backend.call("wrapper_states"))
        return {**state, "frames": torch.from_numpy(self._frames.frames.copy())} if self._frames else state

    def state_template(self) -> Any:
        """What a saved state must look like."""
        n, own = self.num_envs, self.state_dict()
        counts = Array((n,), torch.int64, low=0)
        wrappers = {"wrappers": [template_of(state, vary=True) for state in own["wrappers"]]} if self._stateful else {}
        return {
            **template_of(own),
            **wrappers,
            "obs": Maybe(space_template(self.raw_observation_space, n)),
            "actions": Maybe(Array((Axis("actions"), n, *self.action_space.shape), self.action_cast.torch_dtype)),
            **dict.fromkeys(("lengths", "episode_numbers", "starts"), counts),
        }

    def load_state_dict(self, state: dict[str, Any]) -> str | None:
        """Continue where state_dict was taken.

        Returns:
            None if the environments are exactly where they were, else a sentence that says what differs.
        """
        self.load_obs_statistics(state["obs_statistics"])
        if self._reward_normalizer:
            self._reward_normalizer.load_state_dict(state["reward_normalizer"])
        for moments, saved in zip(self._moments(), state.get("unshared", ()), strict=False):
            moments.load_unshared(saved)
        if not self.exact:
            # Fresh episodes. The next step hands them over as a reset row, so that nothing flows across.
            self._restart = self._backend.reset()
            if self._reward_normalizer:
                self._reward_normalizer.returns[:] = 0.0
            return "these environments cannot be restored and start fresh episodes; this resume is not exact"
        self._dones = state["dones"].numpy().copy()
        self._counts.load_state_dict(state)
        self._running.load_state_dict(state)
        if self._frames:
            self._frames.frames[:] = state["frames"].numpy()
        if self._stateful and "wrappers" in state:
            self._backend.call("load_wrapper_states", state["wrappers"])
        self._obs = tree_map(np.array, self._backend.reset({"replay": self._running.replays()}))
        if different := differing(self._obs, state["obs"]):
            return f"environment {different[0]} did not return to its observation; this resume is not exact"
        return None

    # -- one row ----------------------------------------------------------------------------------------------------

    def _first(self, obs: Any) -> Any:
        """The observations that a reset of all environments gave."""
        none = np.zeros(self.num_envs, bool)
        return self._observe(obs, ~none, none, none, self._backend.reset_info)

    def _observe(
        self, obs: Any, fresh: np.ndarray, dones: np.ndarray, terminateds: np.ndarray, info: dict[str, Any]
    ) -> Any:
        # A copy of our own: some backends and environments write the next observation over the last.
        self._obs = obs = tree_map(np.array, obs, self._dtypes)
        check_finite(obs, self._counts.lengths)
        mask = None
        if self.masks:
            obs, mask = self.masks.split(obs, info, terminateds)
        if self._frames:
            obs = self._frames(obs, fresh)
        obs = self.normalized(obs, ~dones)  # one that ends an episode starts no row in which an action counts
        return obs if self.masks is None else self.masks.join(obs, mask)

    def normalized(self, obs: Any, starts_row: np.ndarray | None = None) -> Any:
        """Observations, [B, *shape] or a dict of them, as the policy takes them.

        Args:
            obs: Stacked already.
            starts_row: Which of them count in the statistics, bool [B], while training; None for none.
        """
        if not self._obs_normalizers:
            return obs
        if whole := self._obs_normalizers.get(""):
            return whole(obs, starts_row)
        return {key: self._obs_normalizers[key](part, starts_row) for key, part in obs.items()}

    @property
    def frame_axis(self) -> int | None:
        """Along which axis of an observation frames are stacked; None where they are not."""
        return self._frames.axis if self._frames else None

    def actions_to_env(self, actions: np.ndarray) -> np.ndarray:
        """A policy's actions, [B, *action_shape], as the environments take them: clipped, from their first one on."""
        return self.action_cast(actions, len(actions))

    def _restart_row(self) -> Step:
        obs, self._restart = self._first(self._restart), None
        ended, cut, valid = np.zeros((3, self.num_envs), bool)
        return Step(obs, np.zeros(self.num_envs, np.float32), ended, cut, valid, {})
