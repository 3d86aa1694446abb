"""Actors and a learner: what is written, what is counted, which weights act, and what a resume goes on with."""

from __future__ import annotations

import copy
import queue
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import pytest
import torch
from torch import nn

from hsw.agent import DistributedAgent, actor_process
from hsw.agent.actor import Actor
from hsw.agent.publication import SharedWeights
from hsw.agent.weights import write_weights
from hsw.algorithm import IMPALA
from hsw.env import VectorEnv
from hsw.errors import ConfigError, CorruptError, NonFiniteError
from hsw.network import RecurrentActorCritic
from hsw.seeding import ENV, derive_seed
from hsw.storage import DistributedStorage
from tests.agent.helpers import batches_of, distributed_agent, weights
from tests.env.helpers import make
from tests.envs import Counter, Noise
from tests.runs import newest, rows, train_on
from tests.test_resume import nth, when


def act(agent: DistributedAgent, env: Any, *free: int | None) -> list[int]:
    """Be an actor in this process. Returns the slots that came back full."""
    free_queue, full_queue = queue.Queue(), queue.Queue()
    for slot in free:
        free_queue.put(slot)
    agent.run(env, 0, free_queue, full_queue)
    return list(full_queue.queue)


# -- the library's face ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_the_library_call_trains(steps: int) -> None:
    agent = DistributedAgent(
        gym.make("CartPole-v1"), num_actors=2, num_learners=1, num_storages=8, batch_size=4, hidden_dim=64
    )
    before = weights(agent)
    assert agent.train(steps) is None
    assert agent.step >= steps
    assert not all(map(torch.equal, before, weights(agent)))
    assert agent.eval(2)["mean"] >= 8


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    for name, near in (("hiden_dim", "hidden_dim"), ("batchsize", "batch_size"), ("rho_baar", "rho_bar")):
        with pytest.raises(TypeError, match=f"no argument '{name}'; did you mean '{near}'"):
            distributed_agent(**{name: 1})


def test_an_environment_that_actors_cannot_build_is_refused() -> None:
    with pytest.raises(ConfigError, match="no spec"):
        distributed_agent(Counter())
    with pytest.raises(ConfigError, match="function that makes one, not int"):
        distributed_agent(3)
    plain = make("Counter", 2)
    plain.remake = None
    with pytest.raises(ConfigError, match="cannot build this VectorEnv anew"):
        distributed_agent(plain)
    lock = threading.Lock()
    with pytest.raises(ConfigError, match="cannot reach their processes: cannot pickle"):
        distributed_agent(lambda: (lock, Counter())[1])


def test_slots_that_cannot_fill_a_batch_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 5"):
        distributed_agent(num_storages=4)


class OwnPolicy(RecurrentActorCritic):
    """Makes its parts of a function that cannot be imported."""

    def __init__(self, *spaces: Any) -> None:
        super().__init__(*spaces, hidden_sizes=(8,))
        self.encoder.hook = lambda x: x


def test_parts_can_be_given_and_need_not_be_importable() -> None:
    length = 4
    vector = make("Counter", 2)
    policy = OwnPolicy(vector.observation_space, vector.action_space)
    storage = DistributedStorage(vector.observation_space, vector.action_space, "cpu", 5, 12, 4)
    agent = distributed_agent(lambda: Counter(length), policy=policy, algorithm=IMPALA(policy, lr=0.1), storage=storage)
    agent.train(100)
    assert agent.algorithm.lr == 0.1
    assert set(agent.episode_lengths) == {length}


def test_updates_one_by_one_need_no_training_loop() -> None:
    agent = distributed_agent("Noise")
    figures = agent.update()
    step = agent.step
    assert {"policy_loss", "lr"} <= set(figures)
    assert agent.update()["lr"] == figures["lr"] > 0
    agent.train(200)
    assert agent.step >= 200 > step > 0


# -- what an actor writes -------------------------------------------------------------------------------------------


def by_hand(seed: int, actions: list[int]) -> list[dict[str, Any]]:
    """The rows of one Noise environment that is stepped in the plainest way; a reset takes a row."""
    env, episode, done, last, rows = Noise(), 0, False, (0, 0.0), []
    obs, starts, episode_return, length = env.reset(seed=derive_seed(seed, 0, 0))[0], True, 0.0, 0
    for action in actions:
        before = {"obs": obs, "starts": starts, "last_actions": last[0], "last_rewards": last[1]}
        if done:
            episode += 1
            obs, _ = env.reset(seed=derive_seed(seed, 0, episode))
            rows.append({**before, "valid": False, "rewards": 0.0, "terminateds": False, "truncateds": False})
            starts, done, last, episode_return, length = True, False, (0, 0.0), 0.0, 0
        else:
            obs, reward, terminated, truncated, _ = env.step(action)
            rows.append({**before, "valid": True, "rewards": reward})
            rows[-1].update(terminateds=terminated, truncateds=truncated)
            starts, done, last = False, terminated or truncated, (action, reward)
            episode_return, length = episode_return + reward, length + 1
        ended = (episode_return, length) if done else (0.0, 0)
        rows[-1].update(episode_returns=ended[0], episode_lengths=ended[1])
    return rows


@pytest.mark.parametrize("lstm_size", [0, 5])
def test_what_an_actor_writes_is_what_stepping_by_hand_gives(lstm_size: int) -> None:
    agent, slots = distributed_agent("Noise", num_envs=1, lstm_size=lstm_size), [5, 0, 3, 2, 9]
    assert act(agent, gym.make("tests.envs:Noise-v0"), *slots, None) == slots
    found = agent.storage.storages
    expected = by_hand(derive_seed(agent.seed, ENV, 0), found["actions"][slots, :-1].flatten().tolist())
    for name in expected[0]:
        column = torch.stack([torch.as_tensor(row[name]) for row in expected])
        written = found[name][slots, :-1].flatten(0, 1)
        torch.testing.assert_close(written, column.to(written.dtype), msg=name)
    assert any(row["truncateds"] for row in expected)
    assert any(row["terminateds"] for row in expected)
    for name in ("obs", "last_actions", "last_rewards", "starts"):  # the last row is the next rollout's first
        assert torch.equal(found[name][slots[:-1], -1], found[name][slots[1:], 0]), name
    # The states are those before the first rows: the learner finds the actor's log-probabilities.
    parts = [found[name][slots].transpose(0, 1) for name in ("obs", "last_actions", "last_rewards", "starts")]
    core = tuple(part[slots, 0].transpose(0, 1) for part in agent.storage.core)
    params, _ = agent.policy.unroll(*parts, core)
    actions = found["actions"][slots].transpose(0, 1)
    log_probs = agent.policy.distribution.log_prob(params[:-1].flatten(0, 1), actions[:-1].flatten())
    torch.testing.assert_close(log_probs, found["log_probs"][slots].T[:-1].flatten())


def test_an_actor_stops_at_none_and_hands_over_whole_sets_only() -> None:
    for free, full in (([None], []), ([3, None], []), ([1, 0, None], [1, 0]), ([1, 0, 2, None], [1, 0])):
        agent = distributed_agent("Counter")
        assert act(agent, make("Counter", 2), *free) == full
        assert not agent.storage.storages["valid"][2].any()


# -- what the learner counts ----------------------------------------------------------------------------------------


def test_steps_and_episodes_are_counted_once_and_resets_not_at_all() -> None:
    agent = distributed_agent("Counter", env_kwargs={"length": 4, "truncate": True})
    seen = batches_of(agent)
    agent.train(300)
    assert agent.step == sum(int(batch.valid[:-1].sum()) for batch in seen) >= 300
    ends = [(batch.truncateds | batch.terminateds)[:-1] for batch in seen]
    assert sum(int(end.sum()) for end in ends) == sum(int((batch.episode_lengths[:-1] > 0).sum()) for batch in seen)
    assert not any(batch.terminateds.any() for batch in seen)
    assert set(agent.episode_lengths) == {4}
    assert set(agent.episode_returns) == {4.0}
    for batch in seen:  # 4 is where the last step led: the observation behind a truncation
        assert batch.obs[1:][batch.truncateds[:-1]].eq(4).all()


def test_no_actor_and_no_session_repeats_an_episode_and_no_rollout_is_learnt_from_twice() -> None:
    agent, starts = distributed_agent("Noise"), []
    seen = batches_of(agent)
    agent.train(250)
    agent.train(500)
    resumed = distributed_agent("Noise")
    resumed.load_state_dict(agent.state_dict())
    seen_resumed = batches_of(resumed)
    resumed.train(750)
    for batch in seen + seen_resumed:
        starts += [tuple(obs) for obs in batch.obs[:-1][batch.starts[:-1]].tolist()]
    assert len(starts) > 100
    assert len(set(starts)) == len(starts)


def test_every_life_of_every_actor_has_random_numbers_of_its_own(monkeypatch: Any) -> None:
    monkeypatch.setattr(actor_process, "become_worker", lambda: None)
    drawn = []
    env = SimpleNamespace(close=lambda: None)
    actor = copy.copy(distributed_agent()._actors.actor)
    actor.make_env = lambda seed: drawn.append(seed) or env
    actor.run = lambda *_: drawn.append(int(torch.randint(2**40, ())))
    connection = SimpleNamespace(recv=None, send=None)
    lives = [(index, (session, life)) for index in range(2) for session in range(2) for life in range(2)]
    for actor_idx, life in [*lives, lives[0]]:
        actor_process.main(actor, 1, actor_idx, life, connection)
    *different, seed, number = drawn
    assert len(set(different)) == len(different)
    assert [seed, number] == drawn[:2]


# -- the weights ----------------------------------------------------------------------------------------------------


def test_weights_are_never_half_of_one_version_and_half_of_another() -> None:
    policy = nn.Linear(300, 300)
    reader = copy.deepcopy(policy)
    shared, stop = SharedWeights(policy), threading.Event()

    def publish() -> None:
        while not stop.is_set():
            for parameter in policy.parameters():
                parameter.data.fill_(shared.version + 1)
            shared.publish(policy)

    writer = threading.Thread(target=publish, daemon=True)
    writer.start()
    versions, end = [], time.monotonic() + 0.5
    while time.monotonic() < end:
        versions.append(shared.fetch(reader))
        assert all(parameter.eq(versions[-1]).all() for parameter in reader.parameters())
    stop.set()
    writer.join()
    assert versions == sorted(versions)
    assert len(set(versions)) > 3


def test_weights_of_any_type_and_memory_format_arrive_whole() -> None:
    parts = [nn.Conv2d(3, 4, 3), nn.Linear(5, 5, dtype=torch.bfloat16), nn.BatchNorm2d(4)]
    writer: Any = nn.Sequential(*copy.deepcopy(parts))
    writer[0].to(memory_format=torch.channels_last)
    writer[2].running_mean.uniform_()
    for parameter in writer.parameters():
        nn.init.uniform_(parameter)
    reader = nn.Sequential(*parts)
    shared = SharedWeights(writer)
    shared.publish(writer)
    assert shared.fetch(reader) == 1
    assert all(map(torch.equal, writer.state_dict().values(), reader.state_dict().values()))


def test_weights_that_are_not_finite_reach_no_actor() -> None:
    policy = nn.Linear(2, 2)
    shared = SharedWeights(policy)
    shared.publish(policy)
    nn.init.constant_(policy.bias, float("nan"))
    with pytest.raises(NonFiniteError):
        shared.publish(policy)
    reader = nn.Linear(2, 2)
    assert shared.fetch(reader) == 1
    assert torch.equal(reader.weight, policy.weight)


def test_the_learners_networks_stay_where_they_are() -> None:
    moved = []

    class Watched(nn.Linear):
        def cpu(self) -> Any:
            moved.append(id(self))
            return super().cpu()

    policy: Any = Watched(2, 2)
    Actor(policy, len, None, SharedWeights(policy), 1)  # type: ignore[arg-type]
    assert len(moved) == 1
    assert id(policy) not in moved


# -- training -------------------------------------------------------------------------------------------------------


def test_figures_are_logged_and_evaluations_come_on_the_way(tmp_path: Path) -> None:
    agent = distributed_agent(folder=tmp_path, eval_interval=200, log_interval=100)
    agent.train(600)
    logged = rows(tmp_path)
    figures = [row for row in logged if "learn/policy_lag" in row]
    assert len(figures) >= 4
    for row in figures:
        assert row["learn/policy_lag"] >= 0
        assert 0 <= row["speed/learner_idle"] <= 1
        assert {"speed/actors_idle", "speed/steps_per_second", "learn/behaviour_kl"} <= set(row)
    assert len([row for row in logged if "eval/return_mean" in row]) >= 3


@pytest.mark.parametrize(
    ("env", "kwargs"),
    [("Bandit", {"lstm_size": 8}), ("Aim", {}), ("Goal", {}), ("Bandit", {"num_learners": 3, "num_actors": 1})],
    ids=["lstm", "continuous", "dict", "learners"],
)
def test_every_kind_trains(env: str, kwargs: Any) -> None:
    agent = distributed_agent(env, **kwargs)
    before = weights(agent)
    agent.train(200)
    after = weights(agent)
    assert all(part.isfinite().all() for part in after)
    assert not any(map(torch.equal, before, after))


@pytest.mark.parametrize("lstm_size", [0, pytest.param(16, marks=pytest.mark.slow)])
def test_it_learns(lstm_size: int) -> None:
    recipe = {"lr": 5e-3, "optimizer": "adam", "reduction": "mean", "hidden_dim": 16, "lstm_size": lstm_size}
    agent = distributed_agent(num_steps=8, num_envs=4, num_storages=24, eval_episodes=20, **recipe)
    assert agent.eval()["mean"] < 6.5
    agent.train(8000)
    assert agent.eval()["mean"] > 7.5  # of 8


def test_a_stopped_run_goes_on_with_its_steps_schedule_and_weights(tmp_path: Path) -> None:
    agent = distributed_agent("Noise", folder=tmp_path, lr=0.01, checkpoint_interval=100)
    when(agent, agent.algorithm, "update", nth(12))
    assert train_on(agent, 1000) is not None
    saved = newest(tmp_path)
    assert saved["step"] == agent.step < 1000
    assert saved["session"] == 1
    agent.services.folder.close()  # type: ignore[union-attr]

    resumed = distributed_agent("Noise", folder=tmp_path, lr=0.01)
    resumed.load_state_dict(resumed.services.load())
    assert resumed.step == agent.step
    assert all(map(torch.equal, weights(agent), weights(resumed)))
    lrs = []
    when(resumed, resumed.algorithm, "update", lambda info: lrs.append(info["lr"]))
    resumed.train(1000)
    assert lrs[0] == pytest.approx(0.01 * (1 - agent.step / 1000))
    assert lrs == sorted(lrs, reverse=True)
    assert resumed.algorithm.num_updates == saved["algorithm"]["num_updates"] + len(lrs)
    assert resumed.step >= 1000
    assert newest(tmp_path)["session"] == 2
    resumed.services.folder.close()  # type: ignore[union-attr]


def ones(batch: Any) -> torch.Tensor:
    return torch.ones_like(batch.rewards[:-1])


def test_pretraining_trains_on_its_own_reward_and_saves_what_training_begins_with(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="intrinsic_reward"):
        distributed_agent(pretraining=True)
    agent = distributed_agent(folder=tmp_path, pretraining=True, intrinsic_reward=ones)
    seen = batches_of(agent)
    agent.train(200)
    agent.services.folder.close()  # type: ignore[union-attr]
    assert all(batch.rewards[:-1].eq(1).all() for batch in seen)
    begun = distributed_agent(lr=0.0)
    begun.train(100, init_model_path=tmp_path / "pretrained-default.safetensors")
    assert all(map(torch.equal, weights(agent), weights(begun)))
    assert not all(map(torch.equal, weights(agent), weights(distributed_agent())))


def test_weights_that_cannot_be_begun_with_are_refused(tmp_path: Path) -> None:
    agent = distributed_agent()
    with pytest.raises(ConfigError, match="there is no file"):
        agent.train(100, init_model_path=tmp_path / "none")
    (tmp_path / "rubbish").write_bytes(b"x" * 100)
    with pytest.raises(CorruptError, match="cannot be read"):
        agent.train(100, init_model_path=tmp_path / "rubbish")
    other = distributed_agent(hidden_dim=9, folder=tmp_path / "run")
    write_weights(tmp_path / "run" / "pretrained-default.safetensors", other.policy)
    with pytest.raises(ConfigError, match="is of another network"):
        agent.train(100, init_model_path=tmp_path / "run" / "pretrained-default.safetensors")


def test_evaluation_is_the_same_each_time() -> None:
    agent = distributed_agent("Noise")
    assert isinstance(agent.env, VectorEnv)
    assert agent.eval(3) == agent.eval(3)
