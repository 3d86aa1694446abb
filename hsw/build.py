"""From a composed config to an agent that is ready to train."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from hsw.agent import Agent
from hsw.env import VectorEnv
from hsw.errors import ConfigError
from hsw.faces import conf_folder, refuse_secrets
from hsw.run.check import check_config, find_targets
from hsw.run.pairs import check_pairs, owner
from hsw.run.run import Run
from hsw.run.settings import CHANGEABLE, Settings
from hsw.run.targets import resolve_target
from hsw.seeding import ENV, EVAL_ENV, derive_seed, seed_everything
from hsw.spaces import space_config
from hsw.storage import Storage

_TAG = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
_SPACES = ("observation_space", "action_space")


def check(config: DictConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """Check everything that can be checked before anything is built.

    Returns:
        The plain config, and the target of each group.

    Raises:
        ConfigError: For the first thing that is wrong.
    """
    config = config.copy()
    with open_dict(config):
        for key in _SPACES:  # read from the environment, which is not built yet
            if OmegaConf.is_missing(config, key):
                config[key] = None
    try:
        plain: Any = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).splitlines()[0]) from error
    refuse_secrets(f"{path}={value}" for path, value in _leaves(plain))  # those that an interpolation read
    allowed = plain.get("allow", ())
    targets = find_targets(plain, Settings, allowed)
    check_pairs(targets, _choices())  # first: a preset's values for other parts would be called misspelt
    check_config(plain, Settings, targets, allowed)
    if not _TAG.fullmatch(plain["tag"]):
        raise ConfigError("tag must be 1 to 64 letters, digits, dots, dashes and underscores, and not begin with a dot")
    if plain["storage"].get("num_envs", plain["env"]["num_envs"]) != plain["env"]["num_envs"]:
        raise ConfigError(
            f"storage.num_envs={plain['storage']['num_envs']} must be env.num_envs={plain['env']['num_envs']}; "
            "leave it to its interpolation"
        )
    owner(targets["agent"]).check(plain)
    return plain, targets


def identity(config: DictConfig) -> dict[str, Any]:
    """What makes a run what it is: values by dotted name, without what a resumed run may change and its copies."""
    config = config.copy()
    with open_dict(config):
        for key in (*CHANGEABLE, *_SPACES):
            config[key] = None
    plain: Any = OmegaConf.to_container(config, resolve=True)
    return {path: value for path, value in _leaves(plain) if path not in (*CHANGEABLE, *_SPACES)}


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node


def _choices() -> dict[str, dict[str, Any]]:
    """The target of every choice of network and storage in conf/."""
    found: dict[str, dict[str, Any]] = {}
    for group in ("network", "storage"):
        found[group] = {}
        for path in sorted(Path(conf_folder(), group).glob("*.yaml")):
            node: Any = OmegaConf.load(path)
            if "_target_" in node:
                found[group][path.stem] = resolve_target(node._target_)
    return found


def build_env(config: DictConfig, training: bool = True, **changes: Any) -> VectorEnv:
    """The training environment, or one for evaluation: other seeds, test levels, at most as many as its episodes."""
    changes.setdefault("seed", derive_seed(config.seed, ENV if training else EVAL_ENV))
    if not training:
        changes.setdefault("num_envs", min(config.env.num_envs, config.eval_episodes))
        if config.env.get("backend") == "async":
            changes["backend"] = "sync"
    # kwargs arrive as plain lists and dicts: environments know nothing of OmegaConf.
    return build(config.env, "all", training=training, **changes)


def build_agent(config: DictConfig, run: Run, state: dict[str, Any] | None = None) -> Agent:
    """Build what a config names, and continue where a state was taken if there is one.

    Writes the two space keys into the config, and nothing else.

    Raises:
        ConfigError: If the spaces in the config (a resumed run's) are not the environment's.
    """
    seed_everything(config.seed)
    env = build_env(config)
    if state and not env.exact:  # it would begin again with the episodes that the run has seen
        env.close()
        env = build_env(config, seed=derive_seed(config.seed, ENV, state["step"]))
    try:
        for key in _SPACES:
            space = space_config(getattr(env, key))
            if OmegaConf.is_missing(config, key) or config[key] is None:
                with open_dict(config):
                    config[key] = space
            elif config[key] != OmegaConf.create(space):  # a saved one has lists where a new one has tuples
                raise ConfigError(f"the environment's {key} is {space}, and the run's was {config[key]}")
        policy = build(config.network)
        algorithm = build(config.algorithm, policy=policy)
        storage = build(config.storage)
        if not isinstance(storage, Storage):  # a create_factory
            storage = storage(config.device, policy, algorithm)
        eval_env: Callable[[], VectorEnv] = lambda: build_env(config, training=False)
        agent = build(
            config.agent, env=env, eval_env=eval_env, policy=policy, algorithm=algorithm, storage=storage, run=run
        )
        agent.num_train_steps = config.num_train_steps
        if state:
            agent.load_state_dict(state)
        return agent
    except BaseException:
        env.close()
        raise


def build(node: DictConfig, convert: str = "none", /, **objects: Any) -> Any:
    """Instantiate a target; objects are handed to it as they are. A constructor's ValueError is a ConfigError.

    Raises:
        ConfigError: If the constructor refuses its arguments.
    """
    partial = instantiate(node, _partial_=True, _convert_=convert)
    try:
        return partial(**objects)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{node._target_}: {error}") from error
