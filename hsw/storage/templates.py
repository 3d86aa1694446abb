"""What the saved states of the storages must look like."""

from __future__ import annotations

from typing import Any

import torch

from hsw.template import (
    AllOrNone,
    Anything,
    Array,
    Axis,
    Exactly,
    Maybe,
    Named,
    Rows,
    Whole,
    space_template,
    template_of,
)


def rollout_template(storage: Any, fields: tuple[str, ...]) -> dict[str, Any]:
    """Of a rollout: up to num_steps rows of these fields, what an update made of a full one, and the generator."""
    steps, num_envs = storage.num_steps, storage.num_envs
    rows = Axis("rows", steps)
    one = Array((rows, num_envs), torch.float32)
    data = dict.fromkeys(fields, one)
    data |= dict.fromkeys(("terminateds", "truncateds", "valid"), Array(one.shape, torch.bool))
    data["obs"] = space_template(storage.observation_space, Axis("rows", steps, plus=1), num_envs)
    data["actions"] = space_template(storage.action_space, rows, num_envs)
    if "core" in fields:  # of a policy that remembers
        width = getattr(storage.actor, "core_dim", Axis("core"))
        data["core"] = Array((*one.shape, width), torch.float32)
    made = dict.fromkeys(("advantages", "returns"), Array((steps, num_envs), torch.float32))
    made["values"] = Array((steps + 1, num_envs), torch.float32)
    if "intrinsic_values" in fields:  # of a second stream
        made |= {"intrinsic_values": made["values"], "intrinsic_returns": made["returns"]}
    generator = template_of(storage.generator.get_state())
    return {"data": AllOrNone(data), "made": AllOrNone(made), "generator": generator}


def replay_template(num_envs: int, capacity: int) -> dict[str, Any]:
    """Of a replay: the ring, if there is one yet, and the state of NumPy's PCG64."""
    ring = {
        "layout": Anything(),  # the ring compares it with its own
        "rows": Rows(num_envs, capacity + 1),
        "pending": Array((num_envs, Axis("bytes")), torch.uint8),
        "steps": [Whole(high=2**31 - 1)] * num_envs,
    }
    half = Whole(high=2**128 - 1)
    random = {
        "bit_generator": Exactly("PCG64"),
        "state": {"state": half, "inc": half},
        "has_uint32": Whole(high=1),
        "uinteger": Whole(high=2**32 - 1),
    }
    return {"ring": Maybe(ring), "random": random}


def distributed_template(storage: Any) -> dict[str, Any]:
    """Of slots in shared memory: those that were begun, and the generator."""
    leading = Axis("slots", storage.num_storages), storage.num_steps + 1
    data: dict[str, Any] = {
        "obs": space_template(storage.observation_space, *leading),
        **dict.fromkeys(("actions", "last_actions"), space_template(storage.action_space, *leading)),
        "core": Named(Array((leading[0], 1, 1, Axis("core")), torch.float32), most=16),
        "rows": Array((), torch.int64, low=0, high=storage.num_storages * leading[1]),
    }
    floats = ("rewards", "last_rewards", "episode_returns", *storage.extras())
    data |= dict.fromkeys(floats, Array(leading, torch.float32))
    data |= dict.fromkeys(("terminateds", "truncateds", "valid", "starts"), Array(leading, torch.bool))
    data |= dict.fromkeys(("episode_lengths", "versions"), Array(leading, torch.int64))
    return {"data": AllOrNone(data), "generator": template_of(storage.generator.get_state())}
