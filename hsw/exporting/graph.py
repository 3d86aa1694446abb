"""A policy from an environment's observation to the environment's action, as one function of tensors."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hsw.env import VectorEnv
from hsw.env.normalize import ObsNormalizer
from hsw.network import Policy
from hsw.network.actor_critic import Memory
from hsw.network.distribution import Bernoulli, Categorical, MultiCategorical
from hsw.spaces import SpaceSpec, join_mask, split_mask
from hsw.trained import TrainedPolicy

ROWS = 3  # of the examples with which a graph is traced


class Port(NamedTuple):
    """An input or output.

    Attributes:
        name: As it is called in the file.
        example: With ROWS environments.
        batch: Which axis counts them.
    """

    name: str
    example: Tensor
    batch: int = 0

    @property
    def told(self) -> dict[str, Any]:
        """For policy.json: its name, dtype, and shape, in which "batch" may be any size."""
        shape: list[int | str] = list(self.example.shape)
        shape[self.batch] = "batch"
        return {"name": self.name, "dtype": str(self.example.dtype).removeprefix("torch."), "shape": shape}


class ActingGraph(nn.Module):
    """The most likely action for a batch of observations, with all that stands between the two.

    Inputs are an observation, or the parts of one, as the environment gives them: frames stacked, nothing normalised.
    Of a policy with a memory there follow `start` (bool [B]: an episode begins), `last_reward` [B], `last_action` (what
    `next_last_action` was), and the states that it carries. Outputs are `action`, as the environment takes it, then
    what it was chosen by if it is a choice (`logits`, or `q_values`), and what the next call takes, as `next_<name>`.

    Args:
        trained: The networks and the statistics of a run.
        env: Of the run, which does not normalise; it may be closed.
    """

    def __init__(self, trained: TrainedPolicy, env: VectorEnv) -> None:
        super().__init__()
        self.policy, self.space, self._cast = trained.policy, env.observation_space, env.action_cast
        self.keys = [name for name, _ in parts(self.space)]
        self.frame_axis = env.frame_axis
        self.normalised = list(trained.statistics)
        for index, moments in enumerate(trained.statistics.values()):
            self.register_buffer(f"mean_{index}", moments["mean"].double())
            self.register_buffer(f"var_{index}", moments["var"].double())
        self.memory = self.policy.initial_memory(ROWS)
        self.carried: dict[str, int] = {}
        self.inputs = self._input_ports()
        with torch.no_grad():
            outputs = self(*(port.example for port in self.inputs))
        self.outputs = [
            Port(name, value, self.carried.get(name.removeprefix("next_"), 0))
            for name, value in zip(self._told, outputs, strict=True)
        ]

    def _input_ports(self) -> list[Port]:
        ports = [Port(name, part.empty(ROWS).zero_()) for name, part in parts(self.space)]
        if self.memory is None:
            return ports
        with torch.no_grad():
            actions, _ = self.policy.act(self._observation([port.example for port in ports]), True)
        self.carried = _carried(self.policy, actions)
        ports.append(Port("start", torch.ones(ROWS, dtype=torch.bool)))
        ports.append(Port("last_reward", torch.zeros(ROWS)))
        ports.append(Port("last_action", torch.zeros_like(actions)))
        return ports + [Port(name, _leaf(self.memory, name).clone(), axis) for name, axis in self.carried.items()]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        obs = self._observation(inputs[: len(self.keys)])
        memory: Memory | None = None
        if self.memory is not None:
            start, reward, action, *states = inputs[len(self.keys) :]
            memory = copy.copy(self.memory)
            for name, state in zip(self.carried, states, strict=True):
                _set_leaf(memory, name, state)
            memory.remember(action, reward, ~start)
        with telling(self.policy) as told:
            actions, _ = self.policy.act(obs, True, *([memory] if memory else []))
        found = {"action": self._cast.tensors(actions), **told}
        if memory is not None:
            found["next_last_action"] = actions
            found |= {f"next_{name}": _leaf(memory, name) for name in self.carried}
        self._told = list(found)
        return tuple(found.values())

    def _observation(self, values: Any) -> Any:
        """What the policy takes, of the parts of an observation."""
        obs = _nested(self.space, dict(zip(self.keys, values, strict=True)))
        rest, mask = split_mask(obs) if self.space.masked else (obs, None)
        if self.normalised == [""]:
            rest = self._scaled(rest, 0)
        elif self.normalised:
            rest = {key: self._scaled(rest[key], index) for index, key in enumerate(self.normalised)}
        return join_mask(rest, mask) if self.space.masked else rest

    def _scaled(self, part: Tensor, index: int) -> Tensor:
        mean, var = getattr(self, f"mean_{index}"), getattr(self, f"var_{index}")
        scaled = (part - mean) / torch.sqrt(var + 1e-8)
        clipped: Tensor = scaled.clamp(-ObsNormalizer.clip, ObsNormalizer.clip)
        return clipped.float()


def parts(space: SpaceSpec, name: str = "obs") -> Iterator[tuple[str, SpaceSpec]]:
    """The parts of an observation by their names in a graph: obs, or obs.<key> of a Dict."""
    if space.type != "Dict":
        yield name, space
        return
    for key in sorted(space.spaces):
        yield from parts(space.spaces[key], f"{name}.{key}")


def _nested(space: SpaceSpec, named: dict[str, Any], name: str = "obs") -> Any:
    if space.type != "Dict":
        return named[name]
    return {key: _nested(part, named, f"{name}.{key}") for key, part in space.spaces.items()}


@contextmanager
def telling(policy: Policy) -> Iterator[dict[str, Tensor]]:
    """Within it, what the policy chooses discrete actions by is noted as it acts."""
    told: dict[str, Tensor] = {}
    patched: list[tuple[Any, str]] = []

    def note(owner: Any, method: str, name: str, number: int | None) -> None:
        original = getattr(owner, method)

        def noting(*arguments: Any, **named: Any) -> Any:
            result = original(*arguments, **named)
            told[name] = result if number is None else arguments[number]
            return result

        owner.__dict__[method] = noting
        patched.append((owner, method))

    distribution = getattr(policy, "distribution", None)
    if isinstance(distribution, Bernoulli | Categorical | MultiCategorical):
        note(distribution, "choose", "logits", 0)
    elif hasattr(policy, "target_values"):
        note(policy, "values", "q_values", None)
    try:
        yield told
    finally:
        for owner, method in patched:
            del owner.__dict__[method]


def _carried(policy: Policy, actions: Tensor) -> dict[str, int]:
    """What of a memory lasts from one observation to the next, and which axis of it counts environments.

    Args:
        policy: Whose memory it is.
        actions: Of ROWS environments.
    """
    memory, larger = policy.initial_memory(ROWS), policy.initial_memory(ROWS + 1)
    assert memory is not None
    assert larger is not None
    names = [name for name, value in _leaves(memory) if value.numel()]
    for name in names:
        _set_leaf(memory, name, torch.ones_like(_leaf(memory, name)))
    memory.remember(
        torch.zeros_like(actions),
        actions.new_zeros(ROWS, dtype=torch.float32),
        actions.new_ones(ROWS, dtype=torch.bool),
    )
    lasting = {name: _leaf(memory, name) for name in names if bool((_leaf(memory, name) == 1).all())}
    shapes = {name: zip(value.shape, _leaf(larger, name).shape, strict=True) for name, value in lasting.items()}
    return {name: next(axis for axis, (a, b) in enumerate(sizes) if a != b) for name, sizes in shapes.items()}


def _leaves(memory: Memory) -> Iterator[tuple[str, Tensor]]:
    for name, value in vars(memory).items():
        if isinstance(value, Tensor):
            yield name, value
        elif isinstance(value, tuple | list):
            for index, item in enumerate(value):
                yield f"{name}.{index}", item


def _leaf(memory: Memory, name: str) -> Tensor:
    key, _, index = name.partition(".")
    value = getattr(memory, key)
    leaf: Tensor = value[int(index)] if index else value
    return leaf


def _set_leaf(memory: Memory, name: str, value: Tensor) -> None:
    key, _, index = name.partition(".")
    if index:
        own = list(getattr(memory, key))
        own[int(index)] = value
        setattr(memory, key, tuple(own))
    else:
        setattr(memory, key, value)
