from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import pytest

from hsw.bounds import Range
from hsw.config.check import check_config, find_targets
from hsw.config.words import nearest
from hsw.errors import ConfigError


@dataclass
class Root:
    seed: Annotated[int, Range(0)]
    name: str | None
    storage: dict[str, Any]


STORAGE = {
    "_target_": "hsw.storage.RolloutStorage",
    "observation_space": None,
    "action_space": None,
    "num_steps": 8,
    "discount": 0.9,
}


def checked(changes: dict[str, Any] | None = None, **root: Any) -> None:
    config = {"seed": 1, "name": None, "storage": {**STORAGE, **(changes or {})}, **root}
    check_config(config, Root, find_targets(config, Root))


def test_a_right_config_passes() -> None:
    checked()
    checked({"discount": 1}, name="word")
    checked({"_target_": "hsw.storage.RolloutStorage.create_factory", "size": 8})


@pytest.mark.parametrize(
    ("storage", "root", "message"),
    [
        ({}, {"sed": 1}, "there is no sed; did you mean seed?"),
        ({"num_step": 8}, {}, "there is no storage.num_step; did you mean storage.num_steps?"),
        ({}, {"seed": -1}, "seed=-1 must be at least 0"),
        ({}, {"seed": 1.5}, "seed=1.5 must be a whole number"),
        ({}, {"seed": True}, "seed=true must be a whole number"),
        ({}, {"seed": None}, "seed=null must be a whole number"),
        ({}, {"name": 3}, "name=3 must be a word or null"),
        ({}, {"name": "???"}, "name is missing; set name=<value>"),
        ({"num_steps": 0}, {}, "storage.num_steps=0 must be at least 1"),
        ({"num_steps": "many"}, {}, "storage.num_steps=many must be a whole number"),
        ({"discount": 2}, {}, "storage.discount=2 must be in [0, 1]"),
        ({"discount": float("nan")}, {}, "storage.discount=nan must be in [0, 1]"),
        ({"_target_": "os.system"}, {}, "_target_=os.system is not allowed"),
        ({"device": {"_target_": "os.system"}}, {}, "_target_=os.system is not allowed"),
        ({}, {"storage": {"num_steps": 8}}, "storage must be a choice of conf/storage"),
        ({}, {"storage": None}, "storage must be a choice of conf/storage"),
    ],
)
def test_a_wrong_config_is_refused_with_what_would_be_right(storage: Any, root: Any, message: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        checked(storage, **root)
    assert message in str(refusal.value)


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ConfigError, match="seed is missing"):
        find_targets({"name": None, "storage": STORAGE}, Root)


def test_nearest_prefers_the_same_key_of_another_group() -> None:
    assert nearest("agent.lr", ["agent.tag", "algorithm.lr"]) == "algorithm.lr"
    assert nearest("storage.num_step", ["storage.num_steps", "env.num_envs"]) == "storage.num_steps"
    assert nearest("zzz", ["seed"]) is None
