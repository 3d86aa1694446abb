"""What the agents take: environments of every kind, and parts of anybody's that have the members."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor, nn

import tests.envs  # noqa: F401  (registers the environments)
from hsw.agent import DistributedAgent, OffPolicyAgent, OnPolicyAgent
from hsw.agent.protocols import RolloutMemory, RolloutPolicy, members
from hsw.algorithm import DAAC, PPO, SAC
from hsw.algorithm.priorities import weighted
from hsw.config.compatibility import check_pairs
from hsw.errors import ConfigError
from hsw.network import ActorCritic, DecoupledActorCritic, SoftActorCritic
from hsw.storage import DecoupledRolloutStorage, ReplayStorage, RolloutStorage
from tests.agent.helpers import SMALL, replay_agent, weights
from tests.env.helpers import make

# -- environments ---------------------------------------------------------------------------------------------------


def single(name: str) -> gym.Env[Any, Any]:
    return gym.make(f"tests.envs:{name}-v0")


def vector(name: str) -> gym.vector.VectorEnv[Any, Any, Any]:
    return gym.make_vec(f"tests.envs:{name}-v0", 2, vectorization_mode="sync")


KINDS = {
    "gymnasium.Env": (1, single),
    "gymnasium.vector.VectorEnv": (2, vector),
    "a function that makes an Env": (1, lambda name: lambda: single(name)),
    "a function that makes a vector": (2, lambda name: lambda: vector(name)),
    "VectorEnv": (2, lambda name: make(name, 2)),
    "a function that makes a VectorEnv": (2, lambda name: lambda: make(name, 2)),
}


def build(loop: str, num_envs: int, env: Any, **kwargs: Any) -> Any:
    name = "Aim" if loop == "off_policy" else "Bandit"
    spaces = single(name).observation_space, single(name).action_space
    torch.manual_seed(0)
    if loop == "distributed":
        sizes = {name: size for name, size in SMALL.items() if name != "num_envs"}
        return DistributedAgent(env, hidden_dim=8, **sizes, num_envs=num_envs, **kwargs)
    if loop == "off_policy":
        soft = SoftActorCritic(*spaces, hidden_sizes=(8,))
        replay = ReplayStorage(*spaces, num_envs=num_envs, storage_size=100, batch_size=8)
        return OffPolicyAgent(env, policy=soft, algorithm=SAC(soft), storage=replay, num_warmup_steps=10, **kwargs)
    policy = ActorCritic(*spaces, hidden_sizes=(8,))
    rollout = RolloutStorage(*spaces, num_envs=num_envs, num_steps=8)
    return OnPolicyAgent(env, policy=policy, algorithm=PPO(policy), storage=rollout, **kwargs)


@pytest.mark.parametrize(
    ("loop", "kind"),
    [
        *((loop, kind) for loop in ("on_policy", "off_policy") for kind in KINDS),
        *(("distributed", kind) for kind in list(KINDS)[:4]),  # of the others there are tests
    ],
)
def test_every_agent_trains_and_evaluates_on_whatever_is_an_environment(loop: str, kind: str) -> None:
    num_envs, make_one = KINDS[kind]
    name = "Aim" if loop == "off_policy" else "Bandit"
    trained = build(loop, num_envs, make_one(name), eval_env=make_one(name), eval_episodes=3, eval_interval=20)
    assert trained.env.num_envs == num_envs
    trained.train(50)
    assert trained.step >= 50
    assert len(trained.last_scores["returns"]) == 3
    assert set(trained.last_scores["lengths"]) == {8}
    assert len(trained.eval(2)["returns"]) == 2


def test_what_is_no_environment_is_refused() -> None:
    for env in (3, lambda: 3):
        with pytest.raises(ConfigError, match="int"):
            build("on_policy", 1, env)


def test_a_storage_for_another_number_of_environments_is_refused() -> None:
    spaces = gym.spaces.Box(-np.inf, np.inf, (1,)), gym.spaces.Discrete(2)
    policy = ActorCritic(*spaces)
    parts = {"policy": policy, "algorithm": PPO(policy), "storage": RolloutStorage(*spaces, num_envs=4)}
    with pytest.raises(ConfigError, match=r"the storage is for 4 environments and env has 1; .* num_envs=4\)"):
        OnPolicyAgent(lambda: gym.make("tests.envs:Counter-v0"), **parts)


def test_environments_of_a_vector_that_reset_within_a_step_are_learnt_from_as_they_are() -> None:
    envs = SyncVectorEnv([lambda: single("Counter")] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    policy = ActorCritic(envs.single_observation_space, envs.single_action_space, hidden_sizes=(8,))
    storage = RolloutStorage(envs.single_observation_space, envs.single_action_space, num_envs=2, num_steps=12)
    rows: list[list[float]] = []
    trained = OnPolicyAgent(envs, policy=policy, algorithm=PPO(policy), storage=storage)
    update = trained.algorithm.update
    trained.algorithm.update = lambda given: (rows.append(given.obs[:-1, 0, 0].tolist()), update(given))[1]  # type: ignore[method-assign]
    trained.train(20)
    assert rows[0] == [0, 1, 2, 3, 4, 5] * 2  # 5 is where the last step led: no step is lost


# -- parts that are no subclasses -----------------------------------------------------------------------------------


class Plain(nn.Module):
    """A policy of two linear layers that derives from nothing of hsw."""

    extras = ("log_probs", "values")

    def __init__(self, observation_space: Any, action_space: Any) -> None:
        super().__init__()
        self.policy, self.critic = nn.Linear(2, 2), nn.Linear(2, 1)

    def act(self, obs: Any, deterministic: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
        dist = torch.distributions.Categorical(logits=self.policy(obs))
        actions = dist.logits.argmax(-1) if deterministic else dist.sample()
        return actions, {"log_probs": dist.log_prob(actions), "values": self.value(obs)}

    def value(self, obs: Any) -> Tensor:
        values: Tensor = self.critic(obs).squeeze(-1)
        return values

    def evaluate(self, obs: Any, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        dist = torch.distributions.Categorical(logits=self.policy(obs))
        return dist.log_prob(actions), dist.entropy(), self.value(obs)

    def initial_memory(self, num_envs: int) -> None:
        return None

    def acting(self) -> Any:
        return nullcontext()

    def observe(self, obs: Any) -> None:
        return None


class Reinforce:
    """Williams 1992, deriving from nothing of hsw."""

    def __init__(self, policy: Any) -> None:
        self.policy, self.optimizer = policy, torch.optim.Adam(policy.parameters(), lr=0.02)

    def update(self, storage: Any) -> dict[str, float]:
        for batch in storage.generate_batches(1):
            log_probs, _, _ = self.policy.evaluate(batch.obs, batch.actions)
            loss = -(log_probs * (batch.returns - batch.returns.mean())).mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        return {"loss": float(loss.detach())}

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])


@dataclass
class Rows:
    obs: Any
    actions: Tensor
    log_probs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor


class Listed:
    """A rollout in a list, deriving from nothing of hsw: rewards to come within an episode are the returns."""

    Batch = Rows
    random_state: Any = None  # it draws none

    def __init__(self, num_steps: int = 16) -> None:
        self.num_steps, self.rows = num_steps, []  # type: ignore[var-annotated]
        self.on_batch: Any = None

    @classmethod
    def extras(cls) -> tuple[str, ...]:
        return ("log_probs", "values")

    @property
    def full(self) -> bool:
        return len(self.rows) == self.num_steps

    def add(self, *row: Any, **extras: Any) -> None:
        obs, actions, rewards, terminateds, truncateds, _ = row
        ends = torch.as_tensor(terminateds | truncateds)
        self.rows.append((torch.as_tensor(obs), actions, torch.as_tensor(rewards), ends, extras))

    def before_gradients(self, actor: Any, algo: Any, *args: Any) -> None:
        following, self.returns = torch.zeros(len(self.rows[0][2])), []
        for _, _, rewards, ends, _ in reversed(self.rows):
            following = rewards + following * ~ends
            self.returns.insert(0, following)

    def generate_batches(self, num_mini_batch: int, size: Any = None, num_epochs: int = 1) -> Iterator[Any]:
        valid = torch.cat([torch.as_tensor(row[4]["valid"]) for row in self.rows])
        columns = [torch.cat(parts)[valid] for parts in zip(*[row[:2] for row in self.rows], strict=True)]
        extras = [torch.cat([row[4][name] for row in self.rows])[valid] for name in self.extras()]
        returns = torch.cat(self.returns)[valid]
        for _ in range(num_mini_batch * num_epochs):
            yield self.on_batch(Rows(*columns, *extras, returns - extras[1], returns))

    def after_gradients(self, actor: Any, algo: Any, info: dict[str, float], *args: Any) -> dict[str, float]:
        self.rows.clear()
        return info

    def bind(self, actor: Any, algorithm: Any) -> None: ...
    def seed(self, seed: int) -> None: ...
    def attach(self, env: Any) -> None: ...
    def truncate(self) -> None: ...
    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@pytest.mark.parametrize("algorithm_type", [Reinforce, PPO])
def test_parts_that_derive_from_nothing_of_hsw_learn_which_action_pays(algorithm_type: Any) -> None:
    torch.manual_seed(0)
    policy = Plain(None, None)
    algorithm = PPO(policy, lr=0.02) if algorithm_type is PPO else Reinforce(policy)  # type: ignore[arg-type]
    trained = OnPolicyAgent(
        make("Bandit", 4, seed=1),
        lambda: make("Bandit", 2, seed=9),
        policy=policy,
        algorithm=algorithm,  # type: ignore[arg-type]
        storage=Listed(),  # type: ignore[arg-type]
    )
    assert trained.train(3000)["mean"] > 7.0  # type: ignore[index]


def test_a_part_that_lacks_members_is_refused_by_their_names() -> None:
    class Mute(Plain):
        value = None  # type: ignore[assignment]

    del Mute.value
    bare = nn.Linear(2, 2)
    with pytest.raises(ConfigError, match=r"Linear cannot be the policy: it has no .*act.*RolloutPolicy in hsw.agent"):
        OnPolicyAgent(make("Bandit"), policy=bare, algorithm=PPO(Plain(0, 0)), storage=Listed())  # type: ignore[arg-type]
    policy = Plain(None, None)
    with pytest.raises(ConfigError, match=r"Linear cannot be the algorithm: it has no update \(see Learner"):
        OnPolicyAgent(make("Bandit"), policy=policy, algorithm=bare, storage=Listed())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"Listed cannot be the storage: it has no __len__ \(see ReplayMemory"):
        soft = SoftActorCritic(single("Aim").observation_space, single("Aim").action_space)
        OffPolicyAgent(make("Aim"), policy=soft, algorithm=SAC(soft), storage=Listed())  # type: ignore[arg-type]
    assert {"act", "value", "extras"} <= set(members(RolloutPolicy))
    assert {"full", "random_state", "add", "generate_batches"} <= set(members(RolloutMemory))


def pairs(**changes: Any) -> None:
    targets = {
        "agent": OnPolicyAgent,
        "algorithm": PPO,
        "network": ActorCritic,
        "storage": RolloutStorage,
        **changes,
    }
    options = {
        "network": {"actor_critic": ActorCritic, "decoupled": DecoupledActorCritic},
        "storage": {"rollout": RolloutStorage, "decoupled": DecoupledRolloutStorage, "replay": ReplayStorage},
    }
    check_pairs(targets, options)


def test_outside_parts_with_the_members_go_together_at_composition() -> None:
    pairs(network=Plain, algorithm=Reinforce, storage=Listed)
    pairs(network=Plain)
    pairs(storage=Listed)


class Silent(Listed):
    @classmethod
    def extras(cls) -> tuple[str, ...]:
        return ()


@dataclass
class Few:
    obs: Any


class Short(Listed):
    Batch = Few  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": nn.Linear}, r"PPO cannot train Linear: .* has no .*act.*; take network=actor_critic"),
        ({"network": DecoupledActorCritic}, r"its extras are not log_probs and values; take network=actor_critic"),
        ({"storage": nn.Linear}, r"cannot use Linear: it has no .*full.*; take storage=rollout"),
        ({"storage": ReplayStorage}, r"cannot use ReplayStorage: it has no full; take storage=rollout"),
        ({"storage": Silent}, r"it stores nothing beside actions, and ActorCritic gives log_probs and values"),
        ({"storage": Short}, r"its batches have no actions, .* and returns; take storage=rollout"),
        ({"algorithm": nn.Linear}, r"OnPolicyAgent cannot use Linear: it has no update"),
        ({"algorithm": DAAC, "network": Plain}, r"no DecoupledActorCritic, and has no .*; take network=decoupled"),
    ],
)
def test_a_refusal_at_composition_names_what_is_missing_and_what_works(changes: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        pairs(**changes)


# -- priorities -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PrioritizedBatch:
    obs: Any
    actions: Tensor
    rewards: Tensor
    next_obs: Any
    terminateds: Tensor
    truncateds: Tensor
    discounts: Tensor
    indices: Tensor
    weights: Tensor


class Prioritized(ReplayStorage):
    """Tells which transitions were drawn, and is told how wrong the critics were about them."""

    Batch = PrioritizedBatch

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.told: list[tuple[Tensor, Tensor]] = []

    def _batch(self, ring: Any, places: np.ndarray) -> Any:
        self.Batch = lambda **fields: PrioritizedBatch(
            **fields, indices=torch.from_numpy(places), weights=torch.ones(len(places))
        )
        return super()._batch(ring, places)

    def update_priorities(self, indices: Tensor, values: Tensor) -> None:
        self.told.append((indices, values))


def test_importance_weights_scale_each_transitions_loss() -> None:
    batch = SimpleNamespace(weights=torch.tensor([0.0, 0.5, 2.0]))
    assert weighted(torch.tensor([4.0, 4.0, 4.0]), batch).tolist() == [0.0, 2.0, 8.0]
    assert weighted(torch.tensor([4.0]), SimpleNamespace()).tolist() == [4.0]


def test_a_storage_whose_batches_name_their_indices_is_told_the_errors_of_each() -> None:
    plain = replay_agent("Aim")
    plain.train(60)
    trained = replay_agent("Aim", Prioritized)
    trained.train(60)
    told = trained.storage.told
    assert len(told) == trained.algorithm.num_updates
    for indices, values in told:
        assert indices.shape == values.shape == (16,)
        assert values.min() >= 0
        assert not values.requires_grad
    assert all(map(torch.equal, weights(plain), weights(trained)))  # weights of one change nothing
