import signal
from itertools import pairwise

import numpy as np
import pytest
import torch

from hsw.agent import OnPolicyAgent
from hsw.algorithm import DAAC, PPO
from hsw.errors import ConfigError, Interrupted, NonFiniteError
from hsw.run.checkpoint import clone_state
from tests.agent.helpers import NUM_ENVS, NUM_STEPS, agent, weights
from tests.env.helpers import make
from tests.helpers import equal

kinds = pytest.mark.parametrize("kind", [PPO, DAAC], ids=lambda kind: kind.__name__)


@kinds
def test_an_agent_learns_which_action_pays(kind):
    evaluation = {"eval_env": lambda: make("Bandit", 2, seed=99, training=False), "eval_deterministic": False}
    learner = agent(kind=kind, algorithm={"entropy_coef": 0.0}, **evaluation)
    assert learner.eval()["mean"] < 6.0
    assert learner.train(2500)["mean"] > 7.5


@kinds
@pytest.mark.parametrize("name", ["OneStep", "Endless", "Goal", "Noise", "Reach"])
def test_episodes_of_any_length_and_spaces_of_any_kind_train(kind, name):
    trained = agent(name, kind)
    before = weights(trained)
    assert trained.train(200) is None
    assert trained.step >= 200
    assert not equal(weights(trained), before)
    assert all(torch.isfinite(weight).all() for weight in weights(trained))


def rollouts(trained):
    """Copies of the rollouts from which an agent learns."""
    seen, update = [], trained.algorithm.update

    def recording(storage):
        seen.append(storage.get_all_buffer_data())
        return update(storage)

    trained.algorithm.update = recording
    return seen


def test_budgets_count_valid_steps_summed_over_environments():
    trained = agent("OneStep")
    seen = rollouts(trained)
    trained.train(100)
    per_rollout = NUM_STEPS * NUM_ENVS // 2  # every other row is a reset
    assert [int(data["valid"].sum()) for data in seen] == [per_rollout] * 5
    assert trained.step == 5 * per_rollout


# Seen elsewhere: the last observation was not carried across rollouts, and next_obs was overwritten at resets.
def test_time_runs_on_from_one_rollout_into_the_next():
    trained = agent("Counter", env={"kwargs": {"length": 5}})
    seen = rollouts(trained)
    trained.train(120)
    counts = np.concatenate([data["obs"][:-1, 0, 0] for data in seen])
    assert len(counts) == len(seen) * NUM_STEPS
    assert counts.tolist() == [t % 6 for t in range(len(counts))]
    assert all(torch.equal(one["obs"][-1], other["obs"][0]) for one, other in pairwise(seen))


def test_stored_actions_and_log_probs_are_those_of_the_acting_policy():
    trained = agent("Noise")
    seen = rollouts(trained)
    policy = trained.policy
    expected = []
    update = trained.algorithm.update

    def checking(storage):
        flat = storage.obs[:-1].flatten(0, 1)
        with torch.no_grad():
            expected.append(policy.evaluate(flat, storage.actions.flatten())[0].reshape(NUM_STEPS, NUM_ENVS))
        return update(storage)

    trained.algorithm.update = checking
    trained.train(90)
    for data, log_probs in zip(seen, expected, strict=True):
        torch.testing.assert_close(data["log_probs"], log_probs)


@kinds
def test_a_seed_repeats_a_run_bit_for_bit_in_sync_and_async(kind):
    def trained(seed, backend):
        run = agent("Noise", kind, seed, backend)
        run.train(150)
        run.env.close()
        return weights(run)

    first = trained(1, "sync")
    assert equal(trained(1, "sync"), first)
    assert equal(trained(1, "async"), first)
    assert not equal(trained(2, "sync"), first)


@pytest.mark.parametrize("eval_interval", [None, 40])
def test_evaluating_changes_nothing_in_the_training(eval_interval):
    plain = agent("Noise")
    plain.train(150)
    evaluated = agent("Noise", eval_env=lambda: make("Noise", 2, seed=9), eval_interval=eval_interval, eval_episodes=3)
    evaluated.train(150)
    assert equal(weights(plain), weights(evaluated))


# Seen elsewhere: evaluations on `step % interval == 0` were missed.
def test_evaluations_come_once_per_interval_whatever_the_stride():
    trained = agent("Noise", eval_env=lambda: make("Noise", 1, seed=9), eval_interval=100, eval_episodes=1)
    at, evaluate = [], trained._evaluate
    trained._evaluate = lambda: (at.append(trained.step), evaluate())[1]
    trained.train(500)
    assert [step // 100 for step in at[:-1]] == [1, 2, 3, 4]
    assert at[-1] == trained.step >= 500


@pytest.mark.parametrize("schedule", ["linear", "constant"])
def test_the_learning_rate_falls_from_full_at_the_start_towards_zero_at_the_end(schedule):
    trained = agent("Endless", algorithm={"lr": 1.0, "lr_schedule": schedule})
    rates, update = [], trained.algorithm.update
    trained.algorithm.update = lambda storage: (info := update(storage), rates.append(info["lr"]))[0]
    trained.train(4 * NUM_STEPS * NUM_ENVS)
    assert rates == ([1.0, 0.75, 0.5, 0.25] if schedule == "linear" else [1.0] * 4)


@kinds
@pytest.mark.parametrize("minibatch", [1, 2, 5])
def test_a_signal_in_an_update_undoes_it_and_the_resumed_run_is_the_straight_one(kind, minibatch):
    def build():
        return agent("Noise", kind, algorithm={"num_epochs": 3})

    straight = build()
    straight.train(400)
    stopped = build()
    count, descend = 0, stopped.algorithm.descend

    def signalled(*args):
        nonlocal count
        count += 1
        if count == 10 + minibatch:
            stopped.services.signals.requested = signal.SIGTERM
        return descend(*args)

    stopped.algorithm.descend = signalled
    with pytest.raises(Interrupted) as caught:
        stopped.train(400)
    assert caught.value.exit_code == 143
    state = clone_state(stopped.state_dict())
    resumed = build()
    resumed.load_state_dict(state)
    resumed.train(400)
    assert resumed.step == straight.step
    assert equal(weights(resumed), weights(straight))


def test_a_loss_that_is_not_finite_ends_the_run():
    trained = agent("Noise")
    with torch.no_grad():
        trained.policy.value_head.weight.fill_(float("nan"))
    with pytest.raises(NonFiniteError, match=r"PPO's update 1 is not finite \(nan\) at step"):
        trained.train(100)


def test_settings_that_cannot_be_split_into_minibatches_are_refused_before_anything_is_built():
    config = {"storage": {"num_steps": 4, "num_envs": 2}, "algorithm": {"num_mini_batch": 9}}
    with pytest.raises(ConfigError, match="8 transitions cannot make 9 minibatches"):
        OnPolicyAgent.check(config)
    config["algorithm"]["num_mini_batch"] = 5
    with pytest.raises(ConfigError, match="keeps 4 transitions where every second row is a reset"):
        OnPolicyAgent.check(config)
    config["algorithm"]["num_mini_batch"] = 4
    OnPolicyAgent.check(config)


def test_weights_of_another_network_are_refused_naming_them():
    state = clone_state(agent("Bandit").state_dict())
    with pytest.raises(ConfigError, match=r"encoder.layers.0.weight is \(16, 2\) and should be \(16, 1\)"):
        agent("Counter").load_state_dict(state)
    with pytest.raises(ConfigError, match="missing advantage_head"):
        agent("Bandit", DAAC).load_state_dict(state)
