"""Every backend keeps the same time, whenever it resets: on a ring with a known value all targets are that value."""

import numpy as np
import pytest
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from hsw.env import as_vector_env, make_env
from hsw.errors import ConfigError, EnvError
from hsw.returns import vtrace
from hsw.storage import DecoupledRolloutStorage, DistributedStorage, HerReplayStorage, ReplayStorage, RolloutStorage
from tests.env.ring import DISCOUNT, VALUES, Ring

NUM_STEPS = 24


def named(backend, num_envs, mode="NextStep"):
    def build(**kwargs):
        options = {"mode": mode, **kwargs} if backend == "native" else kwargs
        return make_env("tests.env.ring:Ring-v0", backend, num_envs, options)

    return build


def vector(kind, num_envs, mode, wrapper=lambda env: env):
    def build(**kwargs):
        made = kind([lambda: Ring(**kwargs)] * num_envs, autoreset_mode=AutoresetMode(mode))
        return as_vector_env(wrapper(made))

    return build


BACKENDS = {
    "sync": named("sync", 2),
    "async": named("async", 2),
    "native in NEXT_STEP": named("native", 2),
    "native in SAME_STEP": named("native", 1, "SameStep"),
    "native in DISABLED": named("native", 1, "Disabled"),
    "SyncVectorEnv in NEXT_STEP": vector(SyncVectorEnv, 2, "NextStep"),
    "SyncVectorEnv in SAME_STEP": vector(SyncVectorEnv, 2, "SameStep"),
    "SyncVectorEnv in DISABLED": vector(SyncVectorEnv, 2, "Disabled"),
    "a wrapped SyncVectorEnv": vector(SyncVectorEnv, 1, "SameStep", RecordEpisodeStatistics),
    "AsyncVectorEnv in NEXT_STEP": vector(AsyncVectorEnv, 2, "NextStep"),
    "AsyncVectorEnv in SAME_STEP": vector(AsyncVectorEnv, 1, "SameStep"),
    "AsyncVectorEnv in DISABLED": vector(AsyncVectorEnv, 1, "Disabled"),
    "a function": lambda **kwargs: as_vector_env(lambda: Ring(**kwargs), num_envs=2),
}


def value(obs):
    state = torch.as_tensor(obs["observation"] if isinstance(obs, dict) else obs)
    return state.double() @ torch.from_numpy(VALUES)


def rollout(storage_type, *extras):
    def targets(env):
        sizes = {"num_steps": NUM_STEPS, "num_envs": env.num_envs, "discount": DISCOUNT}
        storage = storage_type(env.observation_space, env.action_space, **sizes)
        for obs, actions, step in rows(env):
            more = dict.fromkeys(("log_probs", *extras), np.zeros(env.num_envs))
            flags = step.rewards, step.terminateds, step.truncateds
            storage.add(obs, actions, *flags, step.obs, values=value(obs), **more, valid=step.valid)
        storage.compute_returns_and_advantages(value(step.obs))
        batch = next(storage.generate_batches(1))
        return batch.returns, value(batch.obs)

    return targets


def replay(storage_type):
    def targets(env):
        sizes = {"storage_size": 40 * env.num_envs, "num_envs": env.num_envs, "batch_size": 64}
        storage = storage_type(env.observation_space, env.action_space, **sizes, discount=DISCOUNT)
        if storage_type is HerReplayStorage:
            storage.attach(env)
        for obs, actions, step in rows(env):
            flags = step.rewards, step.terminateds, step.truncateds
            storage.add(obs, actions, *flags, step.info, step.obs, valid=step.valid)
        storage.seed(1)
        batch = next(storage.generate_batches(1))
        return batch.rewards + batch.discounts * ~batch.terminateds * value(batch.next_obs), value(batch.obs)

    return targets


def distributed(env):
    storage = DistributedStorage(env.observation_space, env.action_space, "cpu", NUM_STEPS, env.num_envs, env.num_envs)
    slots = np.arange(env.num_envs)
    for t, (obs, actions, step) in enumerate(rows(env)):
        flags = {name: getattr(step, name) for name in ("rewards", "terminateds", "truncateds", "valid")}
        storage.add(slots, t, {"obs": obs, "actions": actions, **flags})
    storage.add(slots, NUM_STEPS, {"obs": step.obs})
    fields = {name: block.transpose(0, 1) for name, block in storage.storages.items()}
    values = value(fields["obs"]).float()
    flags = [fields[name][:-1] for name in ("terminateds", "truncateds")]
    ratios, valid = torch.zeros(NUM_STEPS, env.num_envs), fields["valid"][:-1]
    found, _ = vtrace(ratios, fields["rewards"][:-1], values, *flags, DISCOUNT, valid=valid)
    return found[valid], values[:-1][valid]


def rows(env):
    obs, actions = env.reset(), np.zeros((env.num_envs, 1), np.float32)
    for _ in range(NUM_STEPS):
        step = env.step(actions)
        yield obs, actions, step
        obs = step.obs


PATHS = {
    "ppo": rollout(RolloutStorage),
    "daac": rollout(DecoupledRolloutStorage, "adv_preds"),
    "sac": replay(ReplayStorage),
    "her_sac": replay(HerReplayStorage),
    "impala": distributed,
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_targets_on_a_ring_are_its_values(backend, path):
    env = BACKENDS[backend](goals=path == "her_sac")
    if path == "her_sac" and env.compute_reward is None:
        env.close()
        pytest.skip("this backend tells no reward of other goals")
    try:
        targets, expected = PATHS[path](env)
    finally:
        env.close()
    assert len(expected) > 10
    assert torch.allclose(targets.double(), expected.double(), atol=1e-4)


@pytest.mark.parametrize("backend", [name for name in BACKENDS if "async" not in name])
def test_every_episode_is_followed_by_one_reset_row(backend):
    env = BACKENDS[backend]()
    valid, dones = [], []
    for _, _, step in rows(env):
        valid.append(step.valid)
        dones.append(step.truncateds)
        assert (step.rewards[~step.valid] == 0).all()
        assert (step.obs[~step.valid] == [1, 0, 0]).all()
    env.close()
    assert np.array_equal(np.stack(valid)[1:], ~np.stack(dones)[:-1])
    assert all(2 <= episode.length <= 5 for episode in env.pop_episodes())


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (named("native", 2, "SameStep"), "RingVector has 2 environments in autoreset mode SAME_STEP"),
        (named("native", 2, "Disabled"), "RingVector has 2 environments in autoreset mode DISABLED"),
        (named("native", 2, "odd"), "autoreset_mode='odd', which is none of"),
        (vector(AsyncVectorEnv, 2, "SameStep"), "AsyncVectorEnv has 2 environments in autoreset mode SAME_STEP"),
        (vector(SyncVectorEnv, 2, "Disabled", RecordEpisodeStatistics), "SyncVectorEnv has 2 environments"),
    ],
)
def test_a_mode_in_which_one_environment_cannot_wait_is_refused(build, words):
    with pytest.raises(ConfigError, match=words):
        build()


def test_an_unsaid_mode_counts_as_next_step_until_it_shows_another():
    with pytest.warns(UserWarning, match="RingVector.metadata has no autoreset_mode"):
        env = named("native", 2, None)()
    env.reset()
    with pytest.raises(EnvError, match="final_obs, as in autoreset mode SAME_STEP"):
        for _ in range(6):
            env.step(np.zeros((2, 1)))


def test_same_step_without_the_last_observation_is_a_fault():
    env = named("native", 1, "SameStep")()
    step = env._backend.backend.step
    env._backend.backend.step = lambda actions: (*step(actions)[:4], {})
    env.reset()
    with pytest.raises(EnvError, match="its info has no final_obs"):
        for _ in range(6):
            env.step(np.zeros((1, 1)))


def test_the_last_info_of_an_episode_tells_of_its_success():
    class Lucky(Ring):
        def step(self, action):
            *row, truncated, info = super().step(action)
            return *row, truncated, {**info, "is_success": truncated}

    made = RecordEpisodeStatistics(SyncVectorEnv([Lucky], autoreset_mode=AutoresetMode.SAME_STEP))
    env = as_vector_env(made)
    for _ in rows(env):
        pass
    assert {episode.success for episode in env.pop_episodes()} == {True}
