import signal
import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch

import tests.envs  # noqa: F401  (registers the environments)
from hsw.agent import OffPolicyAgent
from hsw.algorithm import SAC
from hsw.env import make_env
from hsw.errors import ConfigError, Interrupted, NonFiniteError
from hsw.network import SoftActorCritic
from hsw.run.checkpoint import clone_state
from hsw.storage import HerReplayStorage, ReplayStorage
from tests.agent.helpers import replay_agent, weights
from tests.env.helpers import make
from tests.helpers import equal
from tests.runs import differences

CONTINUOUS = {"kwargs": {"continuous": True}}
kinds = pytest.mark.parametrize("kind", [ReplayStorage, HerReplayStorage], ids=["replay", "her"])


def stored(trained):
    return trained.storage.get_all_buffer_data()


def transitions(trained):
    """The stored transitions of env 0 in their order, and the observation to which each led."""
    data = stored(trained)
    rows = (data["env_indices"] == 0).nonzero()[:, 0]
    here = [row for row in rows.tolist() if data["offsets"][row] >= 0]
    names = ("rewards", "terminateds", "truncateds", "offsets", "actions")
    obs = data["observations"]
    return [{**{k: data[k][row] for k in names}, "obs": obs[row], "next_obs": obs[row + 1]} for row in here]


def counted(trained, method="_update"):
    calls, original = [], getattr(trained, method)
    setattr(trained, method, lambda: (calls.append(trained.step), original())[1])
    return calls


def test_an_agent_learns_which_action_pays():
    evaluation = {"eval_env": lambda: make("Aim", 2, seed=99, training=False)}
    parts = {"storage": {"discount": 0.0, "batch_size": 32}, "algorithm": {"lr": 1e-2, "alpha": 0.1}}
    learner = replay_agent(num_warmup_steps=100, **parts, **evaluation)
    assert learner.eval()["mean"] < -1.5
    assert learner.train(500)["mean"] > -0.4


def test_an_agent_is_built_from_gymnasium_spaces_without_a_config():
    single = gym.make("tests.envs:Homing-v0")
    policy = SoftActorCritic(single.observation_space, single.action_space, hidden_sizes=(8,))
    storage = HerReplayStorage(single.observation_space, single.action_space, storage_size=100, batch_size=8)
    env = make_env("tests.envs:Homing-v0", num_envs=1)
    trained = OffPolicyAgent(env, policy=policy, algorithm=SAC(policy), storage=storage, num_warmup_steps=10)
    assert trained.train(30) is None
    assert trained.step == 30


@kinds
@pytest.mark.filterwarnings("ignore:an episode is longer")
@pytest.mark.parametrize(
    "options", [{"length": 1}, {"length": 10**9, "radius": -1.0}, {}], ids=["one", "endless", "mixed"]
)
def test_episodes_of_any_length_train(kind, options):
    trained = replay_agent("Homing", kind, env={"kwargs": options}, storage={"storage_size": 60})
    before = weights(trained)
    assert trained.train(150) is None
    assert not equal(weights(trained), before)
    assert all(torch.isfinite(weight).all() for weight in weights(trained))


def test_an_episode_longer_than_the_replay_with_hindsight_is_told_once():
    env = {"kwargs": {"length": 10**9, "radius": -1.0}}
    trained = replay_agent("Homing", HerReplayStorage, env=env, storage={"storage_size": 60})
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        trained.train(150)
    assert len([warning for warning in told if "longer than the 20 transitions" in str(warning.message)]) == 1


def test_warm_up_actions_are_uniform_between_the_bounds_and_those_after_it_the_policys():
    trained = replay_agent("Reach", num_warmup_steps=3000, storage={"storage_size": 9000})
    with torch.no_grad():  # a policy of one action
        trained.policy.actor.layers[-1].weight.zero_()
        trained.policy.actor.layers[-1].bias.copy_(torch.tensor([0.5, 0.5, -20.0, -20.0]))
    acted = []
    step = trained.env.step
    trained.env.step = lambda actions: (acted.append(actions.copy()), step(actions))[1]
    trained.updates_per_step = 1e-6
    trained.train(3030)
    actions = np.stack(acted).reshape(-1, 2)
    low, high = np.array([-1, 0]), np.array([1, 3])  # dimension by dimension
    warm, after = (actions[:3000] - low) / (high - low), actions[3000:]
    assert 0 <= warm.min() < 0.01 < 0.99 < warm.max() <= 1
    for column in warm.T:
        shares = np.histogram(column, 10, (0, 1))[0] / 3000
        assert np.abs(shares - 0.1).max() < 0.03
    assert abs(np.corrcoef(warm.T)[0, 1]) < 0.06
    np.testing.assert_allclose(after, np.tile([np.tanh(0.5), 1.5 + 1.5 * np.tanh(0.5)], (30, 1)), rtol=1e-5)


@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize("updates_per_step", [0.3, 1.0, 2.5])
def test_updates_are_those_that_the_steps_after_the_warm_up_are_worth(num_envs, updates_per_step):
    trained = replay_agent("Noise", env=CONTINUOUS, num_envs=num_envs, updates_per_step=updates_per_step)
    updates = counted(trained)
    trained.train(61)
    assert 61 <= trained.step < 61 + num_envs
    assert len(updates) == trained.algorithm.num_updates == int(updates_per_step * (trained.step - 20))
    assert updates[0] > 20  # the step at which each came, and what was owed by then
    assert all(count < int(updates_per_step * (step - 20)) for count, step in enumerate(updates))


def test_without_a_warm_up_the_first_steps_are_learnt_from():
    trained = replay_agent("Noise", env=CONTINUOUS, num_warmup_steps=0)
    updates = counted(trained)
    trained.train(30)
    assert len(updates) == trained.step
    assert updates[0] == 3


def test_reset_rows_are_neither_stored_nor_counted():
    trained = replay_agent("Counter", env={"kwargs": {"continuous": True, "length": 3}})
    rows = counted(trained, "_collect_row")
    trained.train(60)
    assert len(rows) == 26  # 3 envs, a reset after every third row: 20 and 6 resets
    data = stored(trained)
    assert int((data["offsets"] >= 0).sum()) == trained.step == 60
    assert [int(row["obs"]) for row in transitions(trained)] == [0, 1, 2] * 6 + [0, 1]


@pytest.mark.parametrize("truncate", [True, False])
def test_a_truncated_transition_leads_to_its_own_last_observation_and_has_not_terminated(truncate):
    trained = replay_agent("Counter", env={"kwargs": {"continuous": True, "length": 3, "truncate": truncate}})
    trained.train(60)
    rows = transitions(trained)
    assert all(int(row["next_obs"]) == int(row["obs"]) + 1 for row in rows)
    ends = [bool(row["obs"] == 2) for row in rows]
    assert [bool(row["truncateds"]) for row in rows] == [end and truncate for end in ends]
    assert [bool(row["terminateds"]) for row in rows] == [end and not truncate for end in ends]
    batch = trained.storage.sample()
    assert torch.equal(batch.next_obs, batch.obs + 1)


def test_an_environment_that_reuses_its_buffer_is_stored_as_it_was():
    trained = replay_agent("ReusedBuffer", env={"kwargs": {"continuous": True, "length": 4}})
    trained.train(60)
    assert [int(row["obs"]) for row in transitions(trained)][:9] == [0, 1, 2, 3, 0, 1, 2, 3, 0]
    assert all(int(row["next_obs"]) == int(row["obs"]) + 1 for row in transitions(trained))


def test_what_was_collected_is_what_was_acted():
    trained = replay_agent("Reach", num_envs=1)
    trained.train(40)
    rows = transitions(trained)
    assert len(rows) == 40
    assert all(torch.equal(row["next_obs"], row["actions"]) for row in rows)  # Reach shows the action that arrived


def test_the_policy_observes_where_actions_were_taken_and_nothing_else():
    trained = replay_agent(
        "Counter", env={"kwargs": {"continuous": True, "length": 3}}, network={"normalize_obs": True}
    )
    seen, observe = [], trained.policy.observe
    trained.policy.observe = lambda obs: (seen.append(obs.clone()), observe(obs))[1]
    trained.train(60)
    seen = torch.cat(seen).flatten()
    assert len(seen) == trained.step == 60
    assert set(seen.tolist()) == {0.0, 1.0, 2.0}  # never 3, an episode's last observation
    assert trained.policy.inputs.count == 60
    torch.testing.assert_close(trained.policy.inputs.mean[0], seen.double().mean())


@kinds
def test_evaluating_changes_nothing_in_the_training(kind):
    plain = replay_agent("Homing", kind)
    plain.train(80)
    evaluation = {"eval_env": lambda: make("Homing", 2, seed=9), "eval_interval": 25, "eval_episodes": 3}
    evaluated = replay_agent("Homing", kind, **evaluation)
    evaluated.train(80)
    ends = [trained.state_dict() for trained in (plain, evaluated)]
    parts = ("step", "policy", "algorithm", "storage", "env", "rng", "updates")
    assert differences(*[{part: end[part] for part in parts} for end in ends]) == []


def test_a_seed_repeats_a_run_bit_for_bit_in_sync_and_async():
    def trained(seed, backend="sync"):
        run = replay_agent("Noise", seed=seed, env={**CONTINUOUS, "backend": backend})
        run.train(60)
        run.env.close()
        return weights(run)

    first = trained(1)
    assert equal(trained(1), first)
    assert equal(trained(1, "async"), first)
    assert not equal(trained(2), first)


@pytest.mark.parametrize("num_envs", [1, 3])
def test_a_row_is_logged_once_per_interval_with_the_mean_over_its_updates(num_envs):
    trained = replay_agent("Noise", env=CONTINUOUS, num_envs=num_envs, log_interval=25)
    logged, losses = [], []
    trained.services.log = lambda step, metrics: logged.append((step, metrics, len(losses)))
    update = trained.algorithm.update
    trained.algorithm.update = lambda storage: (info := update(storage), losses.append(info["critic_loss"]))[0]
    trained.train(90)
    assert [step // 25 for step, *_ in logged] == [1, 2, 3, 3]  # and at the end
    assert logged[-1][0] == trained.step
    begin = 0
    for _, metrics, end in logged:
        assert metrics["learn/critic_loss"] == pytest.approx(np.mean(losses[begin:end]))
        begin = end
    assert "learn/updates" not in logged[0][1]


def test_rows_within_the_warm_up_have_no_figures_of_learning():
    trained = replay_agent("Noise", env=CONTINUOUS, num_warmup_steps=100, log_interval=10)
    logged = []
    trained.services.log = lambda step, metrics: logged.append(metrics)
    trained.train(50)
    assert len(logged) == 5
    assert not [name for metrics in logged for name in metrics if name.startswith("learn/")]
    assert "train/episode_return" in logged[0]


def test_evaluations_come_once_per_interval_whatever_the_stride():
    evaluation = {"eval_env": lambda: make("Noise", 1, seed=9, **CONTINUOUS), "eval_interval": 20, "eval_episodes": 1}
    trained = replay_agent("Noise", env=CONTINUOUS, **evaluation)
    at, evaluate = [], trained._evaluate
    trained._evaluate = lambda: (at.append(trained.step), evaluate())[1]
    trained.train(90)
    assert [step // 20 for step in at[:-1]] == [1, 2, 3, 4]
    assert at[-1] == trained.step >= 90


@pytest.mark.parametrize("schedule", ["linear", "constant"])
def test_the_learning_rate_falls_towards_zero_at_the_end(schedule):
    trained = replay_agent("Noise", env=CONTINUOUS, num_envs=1, algorithm={"lr": 1.0, "lr_schedule": schedule})
    rates = []
    trained.algorithm.update = lambda storage: (rates.append(trained.algorithm.scheduled(1.0, schedule)), {})[1]
    trained.train(40)
    assert rates == pytest.approx([1 - step / 40 for step in range(21, 41)] if schedule == "linear" else [1.0] * 20)


def test_a_signal_between_updates_stops_at_once_and_the_resumed_run_is_the_straight_one():
    def build():
        return replay_agent("Homing", HerReplayStorage, storage={"storage_size": 60}, updates_per_step=2.0)

    straight = build()
    straight.train(90)
    end = straight.state_dict()
    stopped = build()
    update = stopped.algorithm.update

    def signalled(storage):
        if stopped.algorithm.num_updates == 100:
            stopped.services.signals.requested = signal.SIGTERM
        return update(storage)

    stopped.algorithm.update = signalled
    with pytest.raises(Interrupted) as caught:
        stopped.train(90)
    assert caught.value.exit_code == 143
    assert stopped.algorithm.num_updates == 101
    state = clone_state(stopped.state_dict())
    resumed = build()
    resumed.load_state_dict(state)
    resumed.train(90)
    assert differences(resumed.state_dict(), end) == []


def test_a_loss_that_is_not_finite_ends_the_run():
    trained = replay_agent("Noise", env=CONTINUOUS)
    with torch.no_grad():
        next(trained.policy.critics.parameters()).fill_(float("nan"))
    with pytest.raises(NonFiniteError, match=r"SAC's update 1 is not finite \(nan\) at step") as caught:
        trained.train(100)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("key", "message"), [("normalize_obs", "network.normalize_obs=true"), ("normalize_reward", "")]
)
def test_an_environment_that_normalises_what_is_stored_is_refused(key, message):
    with pytest.raises(ConfigError, match=f"env.{key}=true would store .*{message}"):
        OffPolicyAgent.check({"env": {key: True}})
    OffPolicyAgent.check({"env": {key: False}})


def test_an_environment_that_tells_no_reward_for_goals_is_refused_before_the_training():
    with pytest.raises(ConfigError, match="give reward_fn, or an environment that has compute_reward"):
        replay_agent("Goals", HerReplayStorage)
    replay_agent(
        "Goals", HerReplayStorage, storage={"reward_fn": lambda achieved, desired, info: np.zeros(len(achieved))}
    )
