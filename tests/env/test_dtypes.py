"""Environments keep their dtypes and policies have theirs: float32 numbers, and choices that count from 0."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from hsw.build import build_agent
from hsw.env import as_vector_env, make_env
from hsw.env.actions import ActionCast
from hsw.errors import ConfigError
from hsw.run.services import Run
from hsw.spaces import read_space, space_config
from tests.env.dtypes import ACTIONS, OBSERVATIONS, Typed
from tests.runs import agent_of, compose, tiny

RECIPES = ("ppo", "daac", "sac", "her_sac", "impala")
BOXES = ("float64", "float16", "whole")


def typed(backend="sync", **kwargs):
    return make_env("tests.env.dtypes:Typed-v0", backend, 2, kwargs)


@pytest.mark.parametrize("backend", ["sync", "async"])
@pytest.mark.parametrize("actions", ACTIONS)
def test_actions_arrive_in_the_environments_own_dtype(actions, backend):
    env = typed(backend, actions=actions)
    env.reset()
    space = env.action_space
    drawn = torch.full((2, *space.shape), 7.3 if actions in BOXES else 1).to(space.torch_dtype)
    for _ in range(7):  # the environment refuses what is not in its space
        env.step(drawn.numpy())
    env.close()
    assert space.torch_dtype == {**dict.fromkeys(BOXES, torch.float32), "binary": torch.int8}.get(actions, torch.int64)


@pytest.mark.parametrize("obs", OBSERVATIONS)
def test_observations_are_stored_in_the_dtype_of_their_space(obs):
    env = typed(obs=obs)
    assert env.reset().dtype == env.observation_space.dtype
    assert env.observation_space.dtype == ("int64" if obs == "uint8 each" else obs)


def test_a_vector_environment_that_returns_another_dtype_is_cast_to_its_space():
    class Wide(gym.vector.SyncVectorEnv):
        def step(self, actions):
            obs, *rest = super().step(actions)
            return obs.astype(np.float64), *rest

    env = as_vector_env(Wide([lambda: Typed(obs="float32")] * 2))
    env.reset()
    assert env.step(np.zeros((2, 2))).obs.dtype == np.float32


def test_numbers_are_clipped_in_the_environments_dtype():
    cast = ActionCast(read_space(ACTIONS["float64"]))
    assert cast(np.full((1, 2), 0.1, np.float32), 1).tolist() == [[0.1, np.float32(0.1)]]


def test_whole_numbers_are_rounded_and_not_wrapped():
    cast = ActionCast(read_space(gym.spaces.Box(0, 255, (3,), np.uint8)))
    assert cast(np.array([[-7.0, 2.6, 300.0]]), 1).tolist() == [[0, 3, 255]]


@pytest.mark.parametrize(
    ("recipe", "actions", "obs"),
    [
        *((recipe, "float64", "float64") for recipe in RECIPES),
        *((recipe, "float64", "float16") for recipe in RECIPES),
        *((recipe, "uint8 each", "uint8 each") for recipe in ("ppo", "daac", "impala")),
        *((recipe, "int32", "float64") for recipe in ("ppo", "impala")),
        *((recipe, "whole", "uint8 each") for recipe in ("ppo", "sac")),
        ("ppo", "binary", "float64"),
    ],
)
def test_every_agent_learns_from_every_dtype(recipe, actions, obs):
    kwargs = [f"+env.kwargs.actions='{actions}'", f"+env.kwargs.obs='{obs}'"]
    goals = ["+env.kwargs.goals=true"] * (recipe == "her_sac")
    small = ["agent.num_actors=1", "agent.num_learners=1"] * (recipe == "impala")
    with agent_of(f"agent={recipe}", "env=gym", "env.id=tests.env.dtypes:Typed-v0", *kwargs, *goals, *small) as agent:
        if recipe == "impala":
            learn_in_this_process(agent)
        else:
            agent.train(32)
            assert agent.algorithm.num_updates > 0
    assert all(bool(torch.isfinite(parameter).all()) for parameter in agent.policy.parameters())


def learn_in_this_process(agent):
    """An actor's rollouts and an update, without processes."""
    import queue

    free, full = queue.Queue(), queue.Queue()
    for slot in [0, 1, 2, 3, None]:
        free.put(slot)
    env = agent._make_env(seed=3)
    agent.run(env, 0, free, full)
    storage = agent.storage
    batch = storage.sample("cpu", 4, free, full, storage.storages, storage.init_actor_state_storages)
    agent._actors.next_batch = lambda check: batch
    agent._learn()
    env.close()


def resumed(actions):
    """The agent of a run that stored the environment's own spaces, as policies saw them once."""
    config = compose(*tiny("ppo"), "env=gym", "env.id=tests.env.dtypes:Typed-v0")
    config.observation_space = space_config(OBSERVATIONS["float64"])
    config.action_space = space_config(actions)
    return build_agent(config, Run())


def test_a_run_that_was_stored_with_float64_actions_goes_on_with_them():
    agent = resumed(ACTIONS["float64"])
    assert agent.storage.action_space.dtype == "float64"
    agent.train(32)
    agent.env.close()


def test_a_run_that_was_stored_with_other_actions_is_refused():
    with pytest.raises(ConfigError, match="the environment's action_space is"):
        resumed(gym.spaces.Box(-2, 1, (2,), np.float64))
