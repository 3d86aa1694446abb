"""What a key meant before it existed, so that folders of earlier versions stay the runs that they were.

A key that a stored config lacks takes the value that the earlier version computed with, and a job whose key has that
value is the job that it was before: the key stays out of its identity. A new key of conf/ gets a line here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hsw.config.targets import resolve_target
from hsw.signatures import signature_of

Node = dict[str, Any]


@dataclass(frozen=True)
class Key:
    """One key, and what it meant when it was not there.

    Attributes:
        name: Dotted: a key of the root, or of a group.
        value: That earlier versions computed with, or a function of the whole config that tells it.
        targets: The group's targets that have the key, in full; empty: all, and what the constructor itself
            does without the key is what it meant, so that nothing has to be filled in.
        idle: Whether any value makes no difference in this node.
    """

    name: str
    value: Any = None
    targets: tuple[str, ...] = ()
    idle: Callable[[Node], bool] = lambda node: False

    @property
    def group(self) -> str:
        return self.name.rpartition(".")[0]

    @property
    def leaf(self) -> str:
        return self.name.rpartition(".")[2]

    def before(self, config: Node) -> Any:
        """What earlier versions computed with, in this config."""
        return self.value(config) if callable(self.value) else self.value


def _every_update(algorithm: Node) -> bool:
    """A value phase that follows every update has no order."""
    return bool(algorithm.get("value_freq", 1) == 1)


def _processes(root: Node) -> Node | None:
    """Actors were processes, where there were actors."""
    agent = root.get("agent")
    actors = isinstance(agent, dict) and agent.get("_target_") == "hsw.agent.DistributedAgent"
    return {"_target_": "hsw.agent.ProcessPool"} if actors else None


def _masks(root: Node) -> str:
    """A part of observations called action_mask was one like others; without one, there is nothing to choose."""
    space = root.get("observation_space")
    parts = space.get("spaces") if isinstance(space, dict) else None
    return "none" if isinstance(parts, dict) and "action_mask" in parts else "auto"


_REPLAYS = tuple(f"hsw.storage.{name}" for name in ("ReplayStorage", "HerReplayStorage", "PrioritizedReplayStorage"))
KEYS = (
    # since 0.2.0
    Key("callbacks", {}),
    Key("augmentation"),
    Key("pool", _processes),
    Key("intrinsic_reward"),
    Key("init_from"),
    Key("preset", idle=lambda node: True),  # its values count, and not what they are called
    Key("checkpoint_keep", 2),
    Key("learners", 1),
    Key("precision", "fp32"),
    Key("compile", False),
    Key("profile", False),
    Key("distributed_timeout", 300.0),
    Key("env.wrappers", []),
    Key("env.eval_wrappers"),
    Key("env.action_mask", _masks, targets=("hsw.env.make_env",)),
    Key("network.distribution", "auto"),
    Key("storage.memory", "ram", targets=_REPLAYS, idle=lambda node: True),  # the run is the same
    Key("algorithm.entropy_schedule", "constant"),
    Key("algorithm.value_clip_range", "clip_range", targets=("hsw.algorithm.DAAC",)),
    Key("algorithm.value_phase_first", False, targets=("hsw.algorithm.DAAC",), idle=_every_update),
)


def fill_in(config: Node) -> None:
    """Give a stored config the keys that it lacks, with what they meant."""
    for key in KEYS:
        node = config.get(key.group) if key.group else config
        if isinstance(node, dict) and key.leaf not in node and (not key.group or _takes(key, node)):
            node[key.leaf] = key.before(config)


def leave_out(config: Node) -> None:
    """Take out of a plain config what says no more than that a key is as if it were not there."""
    told: list[tuple[Node, str]] = []
    for key in KEYS:
        node = config.get(key.group) if key.group else config
        if not isinstance(node, dict) or key.leaf not in node or (key.targets and not _has(key, node)):
            continue
        value, before = node[key.leaf], key.before(config)
        if key.idle(node) or (value == before and isinstance(value, bool) == isinstance(before, bool)):
            told.append((node, key.leaf))
    for node, leaf in told:
        del node[leaf]


def _takes(key: Key, node: Node) -> bool:
    return _has(key, node) and key.leaf in signature_of(resolve_target(node["_target_"])).hints


def _has(key: Key, node: Node) -> bool:
    return node.get("_target_") in key.targets
