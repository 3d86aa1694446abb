"""What a run has learnt, outside of its training."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from hsw.agent.evaluation import evaluate
from hsw.agent.weights import load_policy
from hsw.build import adapt_networks, build, build_env, fingerprint
from hsw.config.plugins import only_trusted
from hsw.config.resolved import check, load_config
from hsw.config.targets import check_env_modules
from hsw.device import has_bf16, resolve_device
from hsw.directory import is_file, lines_of
from hsw.env.stream import ObsStream
from hsw.errors import ConfigError, CorruptError
from hsw.network import Policy
from hsw.network.actor_critic import Memory
from hsw.run.checkpoint import Loaded, list_checkpoints, load_newest, read_meta, read_state
from hsw.template import StateError
from hsw.transfer import to_device

log = logging.getLogger("hsw")


class TrainedPolicy:
    """The networks of a run, with the statistics and the memory that they act with.

    Attributes:
        config: The run's, resolved.
        step: Of the checkpoint, in environment steps.
        policy: The networks themselves, a torch module that takes what the environment's adapter gives.
        folder: The run's.
        statistics: With which observations are normalised, by their parts; empty where they are not.
    """

    def __init__(
        self, folder: Path, config: DictConfig, policy: Policy, statistics: dict[str, Any], step: int, device: str
    ) -> None:
        self.folder, self.config, self.policy, self.step = folder, config, policy, step
        self.device = resolve_device(device)
        self.statistics = statistics
        self._stream: ObsStream | None = None
        self._memory: Memory | None = None
        self._last_actions: torch.Tensor | None = None
        self._fresh: np.ndarray | None = None  # where an episode begins, [B]; None before the first of a batch

    def act(self, obs: Any, deterministic: bool = True, rewards: Any = None) -> Any:
        """Actions for observations as the environment gives them, in the form in which it takes actions.

        Observations are stacked and normalised as in training. A policy with a memory, or with stacked frames,
        remembers from call to call: call `reset` where episodes begin.

        Args:
            obs: One observation or a batch, [*shape] or [B, *shape], or a dict of them. Later calls have the same B.
            deterministic: Take the most likely action instead of a sample.
            rewards: Of the step before, a number or [B]; of use to policies that take the last reward in only.

        Returns:
            An action, or [B] of them: NumPy, within the bounds, in the dtype of the environment's action space.

        Raises:
            ConfigError: If obs has another shape, or the last rewards are needed and missing.
        """
        stream = self._stream = self._stream or ObsStream(self._make_env())
        batch, single = stream.batched(obs)
        size = len(next(iter(batch.values())) if isinstance(batch, dict) else batch)
        if self._fresh is None or (size != len(self._fresh) and not self.remembers):
            self._begin(stream, size)
        if self._fresh is None or size != len(self._fresh):
            raise ConfigError(f"these are {size} observations, and the episodes remembered are others; reset() first")
        self._remember(rewards)
        with torch.inference_mode():
            tensors = to_device(stream(batch, self._fresh), self.device)
            actions, _ = self.policy.act(tensors, deterministic, *([self._memory] if self._memory else []))
        self._last_actions, self._fresh = actions, np.zeros(size, bool)
        taken = stream.actions_to_env(actions.cpu().numpy())
        return taken[0] if single else taken

    def normalized(self, obs: Any) -> Any:
        """Observations as the networks take them, [B, *shape] or a dict of them.

        Args:
            obs: Stacked already, as environments of the run give them that do not normalise.
        """
        self._stream = self._stream or ObsStream(self._make_env())
        return self._stream.normalized(obs)

    def reset(self, ended: Any = None) -> None:
        """The next observation begins an episode.

        Args:
            ended: Of which of the batch's environments, bool [B]; None for all, and B may then be another.
        """
        if ended is None or self._fresh is None:
            self._fresh = None
            return
        self._fresh = self._fresh | np.asarray(ended, bool).reshape(self._fresh.shape)

    @property
    def remembers(self) -> bool:
        """Whether an action depends on more than the present observation."""
        return self._memory is not None or (self._stream is not None and self._stream.stacks)

    def evaluate(
        self, num_episodes: int = 20, deterministic: bool | None = None, seed: int | None = None, **options: Any
    ) -> dict[str, Any]:
        """Play whole episodes on seeds (and levels) that the run did not train on.

        Args:
            num_episodes: How many.
            deterministic: Take the most likely action; None does as the run's config says.
            seed: Root of the episodes' seeds; None takes the run's.
            options: Further ones of the environment, and on_step as in hsw.agent.evaluation.evaluate.

        Returns:
            mean, std, min, max, returns and lengths, and success where the environment tells it.

        Raises:
            ConfigError: If an argument is wrong.
        """
        if num_episodes < 1:
            raise ConfigError(f"{num_episodes} episodes cannot be played; it must be at least 1")
        deterministic = self.config.eval_deterministic if deterministic is None else deterministic
        config = self.config.copy()
        config.eval_episodes = num_episodes
        config.seed = config.seed if seed is None else seed
        on_step = options.pop("on_step", None)
        with only_trusted(config):
            env = build_env(config, training=False, **options)
        try:
            env.load_obs_statistics(self.statistics)
            scores = evaluate(self.policy, env, num_episodes, deterministic, config.seed, self.device, on_step=on_step)
        finally:
            env.close()
        assert scores is not None  # nothing stops it
        return scores

    @property
    def metrics(self) -> Any:
        """The rows of metrics.jsonl: a pandas.DataFrame where pandas is installed, else a list of dicts."""
        rows: list[dict[str, Any]] = []
        path = self.folder / "metrics.jsonl"
        if is_file(self.folder, path.name):
            with path.open("rb") as file:
                self._read_rows(lines_of(file), rows)
        try:
            import pandas
        except ImportError:
            return rows
        return pandas.DataFrame(rows)

    def _read_rows(self, lines: Iterator[bytes], rows: list[dict[str, Any]]) -> None:
        try:
            for line in lines:
                try:
                    rows.append(dict(json.loads(line)))
                except (ValueError, TypeError, RecursionError):  # the last line of a run that was killed may be torn
                    log.warning("%s has a line that is not a row of metrics; it is left out", self.folder)
        except ValueError as error:
            raise CorruptError(f"{self.folder / 'metrics.jsonl'} cannot be read: {error}") from error

    def _make_env(self) -> Any:
        """An environment of which the spaces and the adapter's settings are asked, and nothing else."""
        with only_trusted(self.config):
            env = build_env(self.config, training=False, num_envs=1)
        env.load_obs_statistics(self.statistics)
        env.close()
        return env

    def _begin(self, stream: ObsStream, size: int) -> None:
        stream.begin(size)
        self._memory = self.policy.initial_memory(size)
        self._fresh, self._last_actions = np.ones(size, bool), None

    def _remember(self, rewards: Any) -> None:
        """Take the memory past the step between the last call and this one."""
        if self._memory is None or self._last_actions is None:
            return
        assert self._fresh is not None
        if rewards is None and getattr(self.policy, "last_action_reward", False) and not self._fresh.all():
            raise ConfigError("this policy takes in the last reward; act(obs, rewards=<of the step before>)")
        told = np.zeros(len(self._fresh)) if rewards is None else rewards
        last = torch.as_tensor(np.array(told, np.float32).reshape(len(self._fresh)), device=self.device)
        valid = torch.from_numpy(~self._fresh).to(self.device)
        self._memory.remember(self._last_actions, last, valid)


def load_trained(
    folder: Path, checkpoint: str | int = "last", allow: Sequence[str] = (), device: str = "cpu"
) -> TrainedPolicy:
    """Load the networks that a run saved; its config is checked first, and nothing in the folder is executed.

    Args:
        folder: The run's.
        checkpoint: "last", "best" of the run's own evaluations, or the step of one that was kept.
        allow: Packages that the run's config may name beside hsw's own.
        device: Where the networks compute.

    Raises:
        ConfigError: If there is no run, or no such checkpoint.
        CorruptError: If the run cannot be read or names what it may not.
    """
    config = load_config(folder)
    config.allow = list(allow)
    try:
        plain, _ = check(config)
        check_env_modules(plain, config.allow)
    except ConfigError as error:
        raise CorruptError(f"the config of {folder} cannot be run: {error}") from error
    torch.set_num_threads(config.threads)
    state, meta, complaints, _ = _read(folder, checkpoint)
    for complaint in complaints:
        log.warning("%s; the checkpoint before it is used", complaint)
    policy = build(config.network).to(resolve_device(device))
    try:
        load_policy(policy, state.get("policy", {}))
        statistics, step = state["env"]["obs_statistics"], meta["step"]
    except StateError as error:
        raise error if meta.get("built_from") in (None, fingerprint(config)) else ConfigError(str(error)) from None
    except (KeyError, TypeError) as error:
        raise CorruptError(f"the checkpoint in {folder} has no statistics of observations, or no step") from error
    policy.eval()
    adapt_networks(policy, config)
    if config.precision == "bf16" and not has_bf16(resolve_device(device)):
        log.warning("the run's networks compute in bf16, which %s does not have; they do so in fp32 here", device)
    return TrainedPolicy(folder, config, policy, statistics, step, device)


def _read(folder: Path, checkpoint: str | int) -> Loaded:
    if checkpoint in ("last", "best"):
        return load_newest(folder / ("best" if checkpoint == "best" else "checkpoints"), rows=False)
    kept: dict[Any, Path] = {}
    for number in list_checkpoints(folder / "checkpoints"):
        path = folder / "checkpoints" / f"{number:06d}"
        kept[read_meta(path).get("step", -1)] = path
    if checkpoint not in kept:
        steps = ", ".join(map(str, sorted(kept))) or "none"
        raise ConfigError(f"there is no checkpoint of step {checkpoint} in {folder}; last, best, or of steps {steps}")
    path = kept[int(checkpoint)]
    return Loaded(*read_state(path, rows=False), [], path)
