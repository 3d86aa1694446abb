"""An actor: steps a vector of environments with the newest weights, and fills slots, wherever it runs."""

from __future__ import annotations

import contextlib
import copy
import logging
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import cloudpickle
import numpy as np
import torch

from hsw.agent.protocols import ActingPolicy, ActorMemory, ActorPolicy
from hsw.agent.publication import SharedWeights
from hsw.env import VectorEnv
from hsw.errors import ConfigError
from hsw.seeding import ACTOR, ENV, derive_seed, seed_everything
from hsw.spaces import tree_map
from hsw.storage.rows import share

log = logging.getLogger("hsw")

# Columns of Actor.stats.
HEARTBEAT, WAITING = range(2)  # rows stepped; seconds spent without slots


class Recipe:
    """What acting takes, in a form that reaches other processes and machines.

    Args:
        policy: A copy acts, on the CPU.
        make_env: make_env(seed=...) builds an actor's N environments.
        storage: What rollouts are written into.

    Raises:
        ConfigError: If the policy or make_env cannot reach another process.
    """

    def __init__(self, policy: ActingPolicy, make_env: Callable[..., VectorEnv], storage: ActorMemory) -> None:
        # The policy by value: each of its tensors would take a file descriptor if it were shared.
        self._policy, self._make_env = _pickled(copy.deepcopy(policy).cpu()), _pickled(make_env)
        # What others set on the storage from now on need not reach other processes.
        self.storage = copy.copy(storage)

    def make_env(self, seed: int) -> VectorEnv:
        env: VectorEnv = pickle.loads(self._make_env)(seed=seed)
        return env

    def live(self, seed: int, index: int, life: tuple[int, ...]) -> VectorEnv:
        """Give this process the streams of random numbers of one life of one actor. Returns its environments.

        Args:
            seed: The run's.
            index: Which actor.
            life: Number of the run's start, and of this actor's: no life repeats another.
        """
        torch.set_num_threads(1)
        seed_everything(derive_seed(seed, ACTOR, index, *life))
        return self.make_env(derive_seed(seed, ENV, index, *life))

    def collector(self, env: VectorEnv) -> Collector:
        return Collector(pickle.loads(self._policy), env, self.storage)

    def elsewhere(self, num_slots: int) -> Recipe:
        """The same with a storage of its own, still without memory, for where this one's is not seen."""
        other = copy.copy(self)
        other.storage = blank = copy.copy(self.storage)
        blank.num_storages, blank.storages = num_slots, {}
        if hasattr(blank, "core"):
            blank.core = ()
        return other


class Collector:
    """Fills one set of slots after another.

    Args:
        policy: Acts.
        env: N environments in NEXT_STEP mode.
        storage: What is written into.
    """

    def __init__(self, policy: ActorPolicy, env: VectorEnv, storage: ActorMemory) -> None:
        policy.train(False)
        self.policy, self._env, self._storage = policy, env, storage
        self._memory: Any = policy.initial_memory(env.num_envs)
        self._obs = env.reset()
        self._slots = np.zeros(0, int)
        self._t = self._version = 0

    @contextlib.contextmanager
    def acting(self) -> Iterator[None]:
        """The context of step, in which the weights stay as they are."""
        with self.policy.acting(), torch.no_grad():
            yield

    @property
    def initial_state(self) -> tuple[torch.Tensor, ...]:
        """The policy's state for N environments, a tuple of [1, N, H]."""
        core: tuple[torch.Tensor, ...] = self._memory.core
        return core

    def begin(self, slots: Sequence[int], version: int) -> None:
        """Go over to N slots, which are filled together, with weights of this version."""
        self._storage.set_initial_state(slots, self._memory.core)
        self._slots = np.array(slots)  # once, and not in every field of every row
        self._t, self._version = 0, version

    def step(self) -> bool:
        """Step once. Returns whether the slots are full."""
        policy, env, memory = self.policy, self._env, self._memory
        seen = self._seen()
        actions, extras = policy.act(tree_map(torch.from_numpy, self._obs), False, memory)
        step = env.step(actions.numpy())
        episodes = np.zeros((2, env.num_envs))
        for episode in env.pop_episodes():
            episodes[:, episode.env_index] = episode.episode_return, episode.length
        transition = {
            **seen,
            **extras,
            "actions": actions,
            "rewards": step.rewards,
            "terminateds": step.terminateds,
            "truncateds": step.truncateds,
            "valid": step.valid,
            "episode_returns": episodes[0],
            "episode_lengths": episodes[1],
            "versions": np.full(env.num_envs, self._version),
        }
        self._storage.add(self._slots, self._t, transition)
        memory.remember(actions, torch.from_numpy(step.rewards), torch.from_numpy(step.valid))
        self._obs = step.obs
        self._t += 1
        if self._t < self._storage.num_steps:
            return False
        # Where the last step led: also the next rollout's first row.
        self._storage.add(self._slots, self._t, self._seen())
        return True

    def _seen(self) -> dict[str, Any]:
        """What is known before an action."""
        memory = self._memory
        last = {"last_actions": memory.last_actions, "last_rewards": memory.last_rewards, "starts": memory.starts}
        return {"obs": self._obs, **last}


class Actor(Recipe):
    """An actor that sees the learner's shared memory, as a process of its machine does.

    Args:
        policy, make_env, storage: As in Recipe.
        weights: Where the newest weights are.
        num_actors: Of all actors.
    """

    def __init__(
        self,
        policy: ActingPolicy,
        make_env: Callable[..., VectorEnv],
        storage: ActorMemory,
        weights: SharedWeights,
        num_actors: int,
    ) -> None:
        super().__init__(policy, make_env, storage)
        self.weights = weights
        self.stats = share(torch.zeros(num_actors, 2, dtype=torch.float64))

    def run(self, env: VectorEnv, actor_idx: int, free_queue: Any, full_queue: Any) -> None:
        """Fill slots until None comes from free_queue.

        Args:
            env: N environments in NEXT_STEP mode.
            actor_idx: This actor's row of stats.
            free_queue: get gives a slot to fill; N of them are filled together.
            full_queue: put takes a slot that is full.
        """
        collector = self.collector(env)
        stats = self.stats[actor_idx].numpy()
        while True:
            asked = time.monotonic()
            slots = list(islice(iter(free_queue.get, None), env.num_envs))
            if len(slots) < env.num_envs:
                return
            stats[WAITING] += time.monotonic() - asked
            version = self.weights.fetch(collector.policy)  # which stays as it is while it acts
            with collector.acting():
                collector.begin(slots, version)
                full = False
                while not full:
                    full = collector.step()
                    stats[HEARTBEAT] += 1
            for slot in slots:
                full_queue.put(slot)


def _pickled(part: Any) -> bytes:
    """What cannot be imported elsewhere, such as a function of a script, goes by value."""
    try:
        return bytes(cloudpickle.dumps(part))
    except Exception as error:  # pickle's errors have no common base
        raise ConfigError(f"what actors need cannot reach their processes: {error}") from error
