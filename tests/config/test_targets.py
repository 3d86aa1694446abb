from __future__ import annotations

import pytest

from hsw.config.targets import check_env_modules, packages_to_allow, resolve_target
from hsw.errors import ConfigError

REFUSED = [
    "os.system",
    "builtins.eval",
    "subprocess.Popen",
    "pickle.loads",
    "torch.load",
    "torch.hub.load",
    "torch.nn.functional.torch.load",
    "torch.nn.Module.__init__",
    "torch.optim.Adam.__init__",
    "hsw.config.targets.resolve_target",
    "hsw.run.checkpoint.load_newest",
    "hsw.train.main",
    "hsw.train.os.system",
    "hsw.env.make.gym.make",
    "hsw.env.make.gym.logger.warn",
    "hsw.storage.RolloutStorage.update",
    "gymnasium.make",
    "gymnasium.envs.registration.load_env_creator",
    "",
]


@pytest.mark.parametrize("name", REFUSED)
def test_what_could_run_anything_is_no_target(name: str) -> None:
    with pytest.raises(ConfigError, match="_target_="):
        resolve_target(name)


@pytest.mark.parametrize(
    "name",
    [
        "hsw.env.make_env",
        "hsw.agent.OnPolicyAgent",
        "hsw.storage.RolloutStorage",
        "hsw.storage.RolloutStorage.create_factory",
        "hsw.run.logger.LocalLogger",
        "torch.optim.Adam",
        "torch.nn.ReLU",
        "gymnasium.spaces.Box",
    ],
)
def test_classes_functions_and_factories_are_targets(name: str) -> None:
    assert callable(resolve_target(name))


def test_another_package_needs_to_be_allowed() -> None:
    with pytest.raises(ConfigError, match="--allow my_package "):
        resolve_target("tests.envs.Counter")
    assert resolve_target("tests.envs.Counter", ["tests"]).__name__ == "Counter"
    assert resolve_target("tests.envs.Counter", ["tests.envs"]).__name__ == "Counter"
    with pytest.raises(ConfigError):
        resolve_target("tests.envs.Counter", ["tests.env"])
    with pytest.raises(ConfigError):
        resolve_target("tests.envs.sys.exit", ["tests"])


def test_a_target_that_does_not_exist_is_said_to_be_missing() -> None:
    for name in ("hsw.storage.Rolout", "hsw.nothing.Here", "torch.optim.Adamm", "no_such_package.Thing"):
        with pytest.raises(ConfigError, match=f"_target_={name} does not exist"):
            resolve_target(name, ["no_such_package"])


def test_an_env_id_that_imports_a_module_is_trusted_only_when_allowed() -> None:
    config = {"env": {"_target_": "hsw.env.make_env", "id": "my_pkg.module:MyEnv-v0"}}
    with pytest.raises(ConfigError, match="--allow my_pkg "):
        check_env_modules(config, [])
    check_env_modules(config, ["my_pkg"])
    check_env_modules({"env": {"_target_": "hsw.env.make_env", "id": "CartPole-v1"}}, [])


def test_what_an_env_id_imports_is_among_the_packages_to_allow() -> None:
    config = {"env": {"_target_": "hsw.env.make_env", "id": "my_pkg.envs:Maze-v0"}}
    assert packages_to_allow(config, ["mine"]) == ["mine", "my_pkg"]
    assert packages_to_allow(config, ["my_pkg"]) == ["my_pkg"]
    own = {"env": {"_target_": "hsw.env.make_env", "id": "hsw.env.catch:Catch-v0"}}
    assert packages_to_allow(own, []) == []
