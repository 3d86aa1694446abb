"""An actor: steps a vector of environments with the newest weights, and fills slots of shared memory."""

from __future__ import annotations

import contextlib
import copy
import logging
import multiprocessing
import os
import pickle
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any

import cloudpickle
import numpy as np
import torch
from torch import Tensor

from hsw import ending
from hsw.agent.protocols import ActingPolicy, ActorMemory, ActorPolicy, Weighted
from hsw.env import VectorEnv
from hsw.env.episode import become_worker
from hsw.errors import ConfigError, HswError, NonFiniteError
from hsw.seeding import ACTOR, ENV, derive_seed, seed_everything
from hsw.spaces import tree_map
from hsw.storage.rows import share

log = logging.getLogger("hsw")

# Columns of Actor.stats.
HEARTBEAT, WAITING = range(2)  # rows stepped; seconds spent without slots


class SharedWeights:
    """A policy's weights and buffers by version, in shared memory; a reader never sees half of one version.

    The writer fills the half that the present version does not use and then counts up, so a reader's copy is whole
    unless the version changed meanwhile; then it copies again. Numbers keep their dtypes: batch norm counts in int64.

    Args:
        policy: Whose weights.
    """

    def __init__(self, policy: Weighted) -> None:
        sizes = {dtype: sum(map(torch.numel, tensors)) for dtype, tensors in _tensors(policy).items()}
        self._halves = {dtype: share(torch.zeros(2, size, dtype=dtype)) for dtype, size in sizes.items()}
        self._version = share(torch.zeros((), dtype=torch.int64))

    @property
    def version(self) -> int:
        return int(self._version)

    def publish(self, policy: Weighted) -> None:
        """Make the policy's weights the next version. One process publishes.

        Raises:
            NonFiniteError: If they hold NaN or infinite numbers; no actor gets to see those.
        """
        version = self.version + 1
        for dtype, tensors in _tensors(policy).items():
            whole = torch.cat([tensor.detach().flatten() for tensor in tensors])
            if dtype.is_floating_point and not torch.isfinite(whole.sum(dtype=torch.float32)):
                raise NonFiniteError("the networks hold NaN or infinite numbers")
            self._halves[dtype][version % 2].copy_(whole)
        self._version.fill_(version)

    def fetch(self, policy: Weighted) -> int:
        """Copy the newest weights into a policy. Returns their version."""
        while True:
            version = self.version
            copies = {dtype: halves[version % 2].clone() for dtype, halves in self._halves.items()}
            if self.version == version:
                break
        for dtype, tensors in _tensors(policy).items():
            parts = torch.split(copies[dtype], [tensor.numel() for tensor in tensors])
            for tensor, part in zip(tensors, parts, strict=True):
                tensor.data.copy_(part.view(tensor.shape))
        return version


def _tensors(policy: Weighted) -> dict[torch.dtype, list[Tensor]]:
    found: dict[torch.dtype, list[Tensor]] = {}
    for tensor in (*policy.parameters(), *policy.buffers()):
        found.setdefault(tensor.dtype, []).append(tensor)
    return found


class Actor:
    """What an actor needs, wherever it runs.

    Args:
        policy: A copy acts, on the CPU.
        make_env: make_env(seed=...) builds an actor's N environments.
        storage: Where rollouts go.
        weights: Where the newest weights are.
        num_actors: Of all actors.

    Raises:
        ConfigError: If the policy or make_env cannot reach another process.
    """

    def __init__(
        self,
        policy: ActingPolicy,
        make_env: Callable[..., VectorEnv],
        storage: ActorMemory,
        weights: SharedWeights,
        num_actors: int,
    ) -> None:
        # The policy by value: each of its tensors would take a file descriptor if it were shared.
        self._policy, self._make_env = _pickled(copy.deepcopy(policy).cpu()), _pickled(make_env)
        # What others set on the storage from now on need not reach other processes.
        self.storage, self.weights = copy.copy(storage), weights
        self.stats = share(torch.zeros(num_actors, 2, dtype=torch.float64))

    def make_env(self, seed: int) -> VectorEnv:
        env: VectorEnv = pickle.loads(self._make_env)(seed=seed)
        return env

    def run(self, env: VectorEnv, actor_idx: int, free_queue: Any, full_queue: Any) -> None:
        """Fill slots until None comes from free_queue.

        Args:
            env: N environments in NEXT_STEP mode.
            actor_idx: This actor's row of stats.
            free_queue: get gives a slot to fill; N of them are filled together.
            full_queue: put takes a slot that is full.
        """
        policy: ActorPolicy = pickle.loads(self._policy)
        policy.train(False)
        stats = self.stats[actor_idx].numpy()
        memory: Any = policy.initial_memory(env.num_envs)
        obs = env.reset()
        while True:
            asked = time.monotonic()
            slots = list(islice(iter(free_queue.get, None), env.num_envs))
            if len(slots) < env.num_envs:
                return
            stats[WAITING] += time.monotonic() - asked
            version = self.weights.fetch(policy)
            self.storage.set_initial_state(slots, memory.core)
            places = np.array(slots)  # once, and not in every field of every row
            with policy.acting(), torch.no_grad():
                for t in range(self.storage.num_steps):
                    obs = self._row(env, policy, obs, memory, places, t, version)
                    stats[HEARTBEAT] += 1
            # Where the last step led: also the next rollout's first row.
            self.storage.add(places, self.storage.num_steps, self._seen(obs, memory))
            for slot in slots:
                full_queue.put(slot)

    def _row(self, env: VectorEnv, policy: ActorPolicy, obs: Any, memory: Any, slots: Any, t: int, version: int) -> Any:
        seen = self._seen(obs, memory)
        actions, extras = policy.act(tree_map(torch.from_numpy, obs), False, memory)
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
            "versions": np.full(env.num_envs, version),
        }
        self.storage.add(slots, t, transition)
        memory.remember(actions, torch.from_numpy(step.rewards), torch.from_numpy(step.valid))
        return step.obs

    @staticmethod
    def _seen(obs: Any, memory: Any) -> dict[str, Any]:
        """What is known before an action."""
        last = {"last_actions": memory.last_actions, "last_rewards": memory.last_rewards, "starts": memory.starts}
        return {"obs": obs, **last}


def _pickled(part: Any) -> bytes:
    """What cannot be imported elsewhere, such as a function of a script, goes by value."""
    try:
        return bytes(cloudpickle.dumps(part))
    except Exception as error:  # pickle's errors have no common base
        raise ConfigError(f"what actors need cannot reach their processes: {error}") from error


class PipeQueue:
    """An end of a pipe with the face of a queue. Slots arrive in lists, so that few messages fill no pipe."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._arrived: deque[int | None] = deque()
        self.put = connection.send

    def get(self) -> int | None:
        if not self._arrived:
            self._arrived.extend(self._connection.recv())
        return self._arrived.popleft()


def main(actor: Actor, seed: int, actor_idx: int, life: tuple[int, ...], connection: Any) -> None:
    """The process of an actor.

    Args:
        actor: See Actor.
        seed: The run's; each life of each actor has streams of random numbers of its own.
        actor_idx: Which actor.
        life: Number of the run's start, and of this actor's.
        connection: To the pool. The error with which the process ends is sent, as a sentence and a traceback.
    """
    become_worker()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    seed_everything(derive_seed(seed, ACTOR, actor_idx, *life))
    queue = PipeQueue(connection)
    try:
        env = actor.make_env(derive_seed(seed, ENV, actor_idx, *life))
        with contextlib.closing(env):
            actor.run(env, actor_idx, queue, queue)
    except (EOFError, BrokenPipeError, ConnectionResetError):  # the pool is gone
        return
    except BaseException as error:
        sentence = str(error) if isinstance(error, HswError) else f"{type(error).__name__}: {error}"
        with contextlib.suppress(OSError):
            connection.send((sentence, traceback.format_exc()))
        if ending.strays:  # they would keep the process alive, and the pool waiting for its end
            ending.leave(1)


def _end_with_parent() -> None:
    """End this process when the trainer's does, however that ends and whatever hangs here.

    The kernel's signal does not serve: the parent that it knows is the forkserver, which waits for the actors.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
