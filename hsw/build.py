"""From a composed config to an agent that is ready to train."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from hydra.errors import InstantiationException
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from hsw.agent import Agent
from hsw.agent.initial_weights import begin_from
from hsw.cli.main import describe
from hsw.config.choices import check_actions
from hsw.config.hydra_versions import instantiate
from hsw.config.places import words_to_allow
from hsw.config.plain import SPACES
from hsw.config.targets import resolve_target
from hsw.device import require_precision
from hsw.env import VectorEnv
from hsw.errors import ConfigError, CorruptError, HswError, ResourceError
from hsw.network.forward import adapt
from hsw.ranks import current
from hsw.run.folder import RunFolder
from hsw.run.logger import Logger
from hsw.run.metrics import LoggerLike
from hsw.run.provenance import record_session
from hsw.run.rank_parts import RankParts
from hsw.run.services import Run
from hsw.run.status import JobOutcome, write_status
from hsw.seeding import ENV, EVAL_ENV, derive_seed, rank_seed, seed_everything
from hsw.spaces import SpaceSpec, policy_space, read_space, space_config
from hsw.template import StateError

SESSION = ("num_train_steps", "checkpoint_interval", "device", "threads")  # what a session may have of its own


def make_run(
    config: DictConfig, folder: RunFolder, resume: bool = False, recorded: dict[str, Any] | None = None
) -> Agent:
    """Build the run that a checked config describes, in its folder.

    Args:
        config: Checked.
        folder: The run's.
        resume: Restore its newest checkpoint.
        recorded: What status.json says beside how the run goes, which training itself then keeps there; None leaves
            it to the caller.

    Returns:
        The agent, ready to train; its environment is the caller's to close.
    """
    torch.set_num_threads(config.threads)
    options: dict[str, Any] = {
        "checkpoint_interval": config.checkpoint_interval,
        "checkpoint_keep": config.checkpoint_keep,
        "quiet": config.quiet,
    }
    loggers = build_loggers(config.logger)
    if current().size > 1:
        options["parts"] = RankParts(current(), folder.checkpoints)
    run = Run(folder, loggers, **options) if recorded is None else RecordedRun(folder, recorded, loggers, **options)
    agent = build_agent(config, run, run.load() if resume else None)
    try:
        saved: Any = {**cast(Any, OmegaConf.to_container(config, resolve=True)), "resume": None}
        folder.write_text("config.yaml", OmegaConf.to_yaml(OmegaConf.create(saved)))
        record_session(folder.path, resume, {key: config[key] for key in SESSION})
    except BaseException:
        agent.env.abandon()
        raise
    if config.get("profile"):
        agent.profile(folder.path)
    run.config = saved
    run.trusts = words_to_allow(saved, config.allow, folder.path)
    run.agent = agent
    return agent


def make_follower(config: DictConfig, folder: Path, resume: bool) -> Agent:
    """As make_run, for a rank after the first: it writes nothing but its part of the checkpoints.

    Args:
        config: Checked.
        folder: The run's, which rank 0 owns.
        resume: Restore the newest checkpoint.
    """
    torch.set_num_threads(config.threads)
    parts = RankParts(current(), folder / "checkpoints")
    keep = config.checkpoint_keep
    run = Run(checkpoint_interval=config.checkpoint_interval, checkpoint_keep=keep, parts=parts)
    agent = build_agent(config, run, run.load() if resume else None)
    run.agent = agent
    return agent


def outcome_of(agent: Agent | None, error: BaseException | None) -> JobOutcome:
    """How a run went that has ended."""
    outcome = JobOutcome("done", 0)
    if error is not None:
        outcome.status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        (outcome.error, outcome.exit_code), outcome.cause = describe(error), error
    if agent is not None:
        outcome.steps, outcome.score = agent.step, agent.last_score
        outcome.seconds = round(agent.services.logger.elapsed, 3)
    return outcome


class RecordedRun(Run):
    """Services that keep status.json as the command does, and own the folder while the agent trains.

    Args:
        folder: The run's, which this process owns.
        recorded: What status.json says beside how the run goes.
        logger, options: As in Run.
    """

    def __init__(self, folder: RunFolder, recorded: dict[str, Any], logger: Any, **options: Any) -> None:
        super().__init__(folder, logger, **options)
        self._path, self._recorded, self._owned = folder.path, recorded, True
        self._recorded["run"] = folder.run_id

    def start(self, num_train_steps: int, step: int) -> None:
        if not self._owned:
            self.folder, self._owned = RunFolder(self._path, self._recorded["run"]), True
        self._recorded["num_train_steps"] = num_train_steps
        write_status(self._path, {"status": "running", **self._recorded})
        super().start(num_train_steps, step)

    def finish(self, error: BaseException | None) -> None:
        super().finish(error)
        if self.folder and self._owned:  # training may have been refused because another process has it
            with contextlib.suppress(*([ResourceError] if error else [])):  # the error is what counts
                write_status(self._path, {**self._recorded, **outcome_of(self.agent, error).as_status()})
            self.folder.close()
            self._owned = False


def build_env(config: DictConfig, training: bool = True, **changes: Any) -> VectorEnv:
    """The training environment, or one for evaluation: other seeds, test levels, at most as many as its episodes."""
    seed = derive_seed(rank_seed(config.seed), ENV) if training else derive_seed(config.seed, EVAL_ENV)
    changes.setdefault("seed", seed)
    if not training:
        changes.setdefault("num_envs", min(config.env.num_envs, config.eval_episodes))
        if config.env.get("backend") == "async":
            changes["backend"] = "sync"
    # kwargs arrive as plain lists and dicts: environments know nothing of OmegaConf.
    env: VectorEnv = build(config.env, "all", training=training, **changes)
    return env


def build_agent(config: DictConfig, run: Run, state: dict[str, Any] | None = None) -> Agent:
    """Build what a config names, and continue where a state was taken if there is one.

    Writes the two space keys into the config, and nothing else.

    Raises:
        ConfigError: If the spaces in the config (a resumed run's) are not the environment's.
    """
    require_precision(config.get("precision", "fp32"), config.device)
    seed_everything(config.seed)
    env = build_env(config)
    if state and not env.exact:  # it would begin again with the episodes that the run has seen
        env.close()
        env = build_env(config, seed=derive_seed(rank_seed(config.seed), ENV, state["step"]))
    try:
        for key in SPACES:
            space = space_config(getattr(env, key))
            if OmegaConf.is_missing(config, key) or config[key] is None:
                with open_dict(config):
                    config[key] = space
            elif _comparable(key, config[key]) != _comparable(key, space):
                raise ConfigError(f"the environment's {key} is {space}, and the run's was {config[key]}")
        check_actions(resolve_target(config.network._target_, config.allow), env.action_space.type)
        policy = build(config.network)
        adapt_networks(policy, config)
        algorithm = build(config.algorithm, policy=policy)
        storage = build(config.storage)
        if not hasattr(storage, "generate_batches"):  # a create_factory
            storage = storage(config.device, policy, algorithm)
        eval_env: Callable[[], VectorEnv] = lambda: build_env(config, training=False)
        parts: dict[str, Any] = {"policy": policy, "algorithm": algorithm, "storage": storage, **build_extras(config)}
        agent: Agent = build(config.agent, env=env, eval_env=eval_env, run=run, **parts)
        agent.num_train_steps = config.num_train_steps
        run.built_from = fingerprint(config)
        if state:
            restore(agent, state, run.restored_from in (None, run.built_from))
        elif config.get("init_from"):
            begin_from(agent, Path(config.init_from))
        return agent
    except BaseException:
        env.abandon()
        raise


def adapt_networks(policy: Any, config: DictConfig) -> None:
    """Make a policy's networks compute as a config says; one of hsw 0.1 says nothing."""
    if isinstance(policy, torch.nn.Module):
        adapt(policy, config.get("precision") == "bf16", bool(config.get("compile")))


def _comparable(key: str, space: Any) -> SpaceSpec:
    """A space as policies see it: an older run's config may have the dtype of the environment's own actions."""
    try:
        spec = read_space(space)
    except ValueError as error:
        raise ConfigError(f"{key} cannot be read: {error}") from error
    return policy_space(spec) if key == "action_space" else spec


def build_extras(config: DictConfig) -> dict[str, Any]:
    """What every loop takes beside its parts; a config of hsw 0.1 has none of it."""
    callbacks = config.get("callbacks") or {}
    extras: dict[str, Any] = {"callbacks": {name: build(node) for name, node in callbacks.items()}}
    for key in ("augmentation", "intrinsic_reward"):
        if config.get(key) is not None:  # agent.intrinsic_reward counts where the root has none
            extras[key] = build(config[key])
    if config.get("pool") is not None:  # of whose kind there is one for each training
        extras["pool"] = lambda crew: build(config.pool, crew=crew)
    return extras


def restore(agent: Agent, state: dict[str, Any], same: bool) -> None:
    """Continue where a state was taken.

    Args:
        agent: Built.
        state: Loaded.
        same: It was saved by a run of this config, as far as is known.

    Raises:
        ConfigError: If it is of another config.
        CorruptError: If it is of this one and cannot be restored.
        EnvError, ResourceError: What restoring met in the environment or the machine.
    """
    try:
        agent.load_state_dict(state)
    except StateError as error:
        raise error if same else ConfigError(str(error)) from None
    except HswError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and any(word in str(error) for word in ("memory", "CUDA", "HIP")):
            raise  # the machine's
        detail = str(error).partition("\n")[0]
        raise CorruptError(f"the saved state cannot be restored: {type(error).__name__}: {detail}") from error


def fingerprint(config: DictConfig) -> str:
    """A checksum of all in a config that decides what its states look like."""
    plain: Any = OmegaConf.to_container(config, resolve=True)
    parts = {group: plain.get(group) for group in ("env", "network", "storage", "algorithm")}
    for node in filter(None, parts.values()):
        node.pop("device", None)  # which a resumed run may change
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


# Targets that are given something when the part is made that they belong to: the space, or the environment to wrap.
_LATER = ("encoder", "distribution", "wrappers", "eval_wrappers")


def build_loggers(node: DictConfig) -> LoggerLike:
    """The loggers that a config names: one target, or several by name."""
    if "_target_" in node:
        logger: Logger = build(node)
        return logger
    return {str(name): build(one) for name, one in node.items() if one is not None}


def build(node: DictConfig, convert: str = "none", /, **objects: Any) -> Any:
    """Instantiate a target; objects are handed to it as they are. A constructor's ValueError is a ConfigError.

    Raises:
        ConfigError: If the constructor refuses its arguments.
    """
    name = node._target_
    try:
        return instantiate(_with_partials(node), _partial_=True, _convert_=convert)(**objects)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from error
    except InstantiationException as error:  # a target within it, which Hydra builds first
        if isinstance(error.__cause__, HswError):
            raise error.__cause__ from error
        if isinstance(error.__cause__, ValueError):
            raise ConfigError(f"{name}: {error.__cause__}") from error
        raise


def _with_partials(node: DictConfig) -> DictConfig:
    """The node, its targets in _LATER as functions that still take what they are given."""
    node = node.copy()
    with open_dict(node):
        for key in _LATER:
            value = node.get(key)
            for part in value if isinstance(value, ListConfig) else [value]:
                if isinstance(part, DictConfig) and "_target_" in part:
                    part.update({"_partial_": True, "_convert_": "all"})
    return node
