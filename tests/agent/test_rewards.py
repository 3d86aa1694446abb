"""Intrinsic rewards and augmentation reach what each loop learns from, once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hsw.algorithm.intrinsic import CountBonus, IntrinsicReward, Transitions
from hsw.errors import ConfigError
from hsw.network.augmentation import RandomShift
from hsw.storage import RolloutStorage
from tests.agent.helpers import agent, distributed_agent, replay_agent
from tests.agent.test_life_cycle import stopped_in_update
from tests.runs import agent_of, call, differences, run_dir, tiny_run


def transitions(next_obs: torch.Tensor, valid: list[bool] | None = None) -> Transitions:
    num = len(next_obs)
    zeros, flags = torch.zeros(num), torch.ones(num, dtype=torch.bool)
    return Transitions(next_obs, zeros, zeros, next_obs, ~flags, flags if valid is None else torch.tensor(valid))


class Spy(IntrinsicReward):
    """A reward of 100 for each transition; keeps what it sees."""

    def __init__(self) -> None:
        self.observed: list[Transitions] = []
        self.asked: list[Transitions] = []
        self.updates = 0

    def rewards(self, transitions: Transitions) -> torch.Tensor:
        copies = {name: getattr(transitions, name).clone() for name in ("obs", "next_obs", "valid")}
        self.asked.append(replace(transitions, **copies))
        return torch.full_like(transitions.rewards, 100.0)

    def observe(self, transitions: Transitions) -> None:
        self.observed.append(transitions)

    def update(self, transitions: Transitions) -> dict[str, float]:
        assert torch.equal(transitions.next_obs, self.asked[-1].next_obs)
        self.updates += 1
        return {"novelty": 7.0}

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]


def counter_agents(**kwargs: Any) -> dict[str, Any]:
    options = {"kwargs": {"continuous": True, "length": 4}}
    return {
        "on_policy": agent("Counter", env={"kwargs": {"length": 4}}, **kwargs),
        "off_policy": replay_agent("Counter", env=options, log_interval=20, **kwargs),
        "distributed": distributed_agent("Counter", env_kwargs={"length": 4}, log_interval=20, **kwargs),
    }


@pytest.mark.parametrize("loop", ["on_policy", "off_policy", "distributed"])
def test_intrinsic_rewards_are_added_in_every_loop_to_every_step_and_to_no_reset(loop: str) -> None:
    spy = Spy()
    trained = counter_agents(intrinsic_reward=spy)[loop]
    learnt: list[Any] = []
    logged: list[dict[str, float]] = []
    trained.services.log = lambda step, metrics: logged.append(metrics)
    update = trained.algorithm.update

    def updating(storage: Any) -> Any:
        if loop == "off_policy":
            on_batch = storage.on_batch
            storage.on_batch = lambda batch: (learnt.append((got := on_batch(batch)).rewards), got)[1]
            try:
                return update(storage)
            finally:
                storage.on_batch = on_batch
        rows = storage if loop == "on_policy" else storage.batch
        length = len(rows.valid) - (loop == "distributed")
        assert torch.equal(rows.rewards[:length] > 50, rows.valid[:length])
        learnt.append(rows.rewards[:length][rows.valid[:length]])
        return update(storage)

    trained.algorithm.update = updating
    trained.train(100)
    assert torch.cat(learnt).eq(101).all()  # the environment's 1, and 100
    seen = spy.observed if loop == "off_policy" else spy.asked
    assert sum(int(part.valid.sum()) for part in seen) == trained.step
    assert [part.valid.shape for part in spy.observed] == [part.rewards.shape for part in spy.observed]
    for part in spy.asked:
        assert torch.equal(part.next_obs[part.valid], part.obs[part.valid] + 1)
    assert spy.updates == len(spy.asked) == trained.algorithm.num_updates
    last = [row for row in logged if "learn/lr" in row or "learn/critic_loss" in row][-1]
    assert last["learn/intrinsic_reward"] == 100.0
    assert last["learn/novelty"] == 7.0


def test_what_a_replay_stores_keeps_its_own_reward() -> None:
    trained = counter_agents(intrinsic_reward=Spy())["off_policy"]
    trained.train(60)
    data = trained.storage.get_all_buffer_data()
    assert data["rewards"][data["offsets"] >= 0].eq(1).all()


def test_in_pretraining_the_intrinsic_reward_stands_in_place_of_the_environments() -> None:
    trained = distributed_agent("Counter", intrinsic_reward=Spy(), pretraining=True)
    rewards: list[torch.Tensor] = []
    update = trained.algorithm.update
    trained.algorithm.update = lambda storage: (
        rewards.append(storage.batch.rewards[:-1][storage.batch.valid[:-1]]),
        update(storage),
    )[1]
    trained._save = lambda final=False: None  # type: ignore[method-assign]
    trained.pretraining, folder = True, Path("pretrained-default.safetensors")
    try:
        trained.train(50)
    finally:
        folder.unlink(missing_ok=True)
    assert torch.cat(rewards).eq(100).all()


def test_an_interrupted_update_does_not_add_the_reward_twice() -> None:
    def build() -> Any:
        return agent("Noise", algorithm={"num_epochs": 3}, intrinsic_reward=CountBonus(coef=1.0))

    straight = build()
    straight.train(400)
    state = stopped_in_update(build(), descents=15)
    resumed = build()
    resumed.load_state_dict(state)
    resumed.train(400)
    assert differences(straight.state_dict(), resumed.state_dict()) == []


def test_counts_are_of_visits_and_the_bonus_is_one_over_their_root() -> None:
    bonus = CountBonus(coef=2.0, bits=12)
    here, there = torch.tensor([[1.0, 2.0, -3.0]]), torch.tensor([[-5.0, 1.0, 4.0]])
    rows = transitions(torch.cat([here, there, here, here]), [True, True, True, False])
    bonus.observe(rows)
    torch.testing.assert_close(bonus.rewards(rows), 2.0 / torch.tensor([2.0, 1.0, 2.0, 2.0]).sqrt())
    other = CountBonus(coef=2.0, bits=12, seed=5)
    other.load_state_dict(bonus.state_dict())
    other.observe(transitions(here))
    torch.testing.assert_close(other.rewards(transitions(here)), 2.0 / torch.tensor([3.0]).sqrt())


def test_a_mask_of_actions_makes_nothing_new() -> None:
    seen = torch.tensor([[1.0, 2.0, -3.0]] * 4)
    masks = torch.eye(4, dtype=torch.int8)
    for obs in ({"observation": seen, "action_mask": masks}, {"a": seen, "b": -seen, "action_mask": masks}):
        bonus = CountBonus(coef=1.0, bits=20)
        rows = replace(transitions(seen), obs=obs, next_obs=obs)
        bonus.observe(rows)
        torch.testing.assert_close(bonus.rewards(rows), torch.full((4,), 0.5))


# -- augmentation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_shifted_image_is_a_crop_of_the_padded_one(channels_last: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    images = torch.randint(0, 255, (60, 3, 9, 12)).to(dtype)
    given = images.permute(0, 2, 3, 1) if channels_last else images
    shifted = RandomShift(pad=2).augment(given)
    assert shifted.dtype == dtype
    assert shifted.shape == given.shape
    shifted = shifted.permute(0, 3, 1, 2) if channels_last else shifted
    padded = torch.nn.functional.pad(images.float(), (2, 2, 2, 2), mode="replicate").to(dtype)
    found = []
    for image, whole in zip(shifted, padded, strict=True):
        crops = {(i, j): whole[:, i : i + 9, j : j + 12] for i in range(5) for j in range(5)}
        found.append(next(place for place, crop in crops.items() if torch.equal(crop, image)))
    assert len(set(found)) > 15


def test_images_in_a_dict_are_shifted_and_the_rest_is_left_and_without_images_it_is_refused() -> None:
    obs = {"image": torch.rand(4, 3, 8, 8), "vector": torch.rand(4, 5)}
    shifted = RandomShift().augment(obs)
    assert shifted["vector"] is obs["vector"]
    assert not torch.equal(shifted["image"], obs["image"])
    with pytest.raises(ConfigError, match="needs observations that are images"):
        RandomShift().augment(torch.rand(4, 5))


class Adding:
    """Adds 1000 to what is learnt from."""

    def augment(self, obs: torch.Tensor) -> torch.Tensor:
        assert obs.ndim == 2
        return obs + 1000


@pytest.mark.parametrize("loop", ["on_policy", "off_policy", "distributed"])
def test_augmentation_reaches_what_is_learnt_from_and_nothing_that_is_stored_or_acted_on(loop: str) -> None:
    trained = counter_agents(augmentation=Adding())[loop]
    drawn: list[torch.Tensor] = []
    update = trained.algorithm.update

    def updating(storage: Any) -> Any:
        on_batch = storage.on_batch

        def seeing(batch: Any) -> Any:
            got = on_batch(batch)
            assert torch.equal(got.obs, batch.obs + 1000)
            if loop == "off_policy":
                assert torch.equal(got.next_obs, batch.next_obs + 1000)
            drawn.append(got.obs)
            return got

        storage.on_batch = seeing
        try:
            return update(storage)
        finally:
            storage.on_batch = on_batch

    trained.algorithm.update = updating
    acted: list[float] = []
    act = trained.policy.act
    trained.policy.act = lambda obs, *args: (acted.append(float(obs.max())), act(obs, *args))[1]
    trained.train(60)
    assert drawn
    assert max(acted, default=0) < 1000


class Bare(RolloutStorage):
    """Hands out batches past its loop."""

    def _batches(self, *args: Any) -> Any:
        self.on_batch, kept = (lambda batch: batch), self.on_batch
        yield from super()._batches(*args)
        self.on_batch = kept


def test_a_storage_whose_batches_pass_by_the_loop_is_refused_where_that_matters() -> None:
    trained = counter_agents(augmentation=Adding())["on_policy"]
    spaces = trained.env.observation_space, trained.env.action_space
    trained.storage = Bare(*spaces, num_steps=16, num_envs=3)
    with pytest.raises(ConfigError, match=r"Bare.generate_batches must give self.on_batch\(batch\)"):
        trained.train(50)


# -- from the command line ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["ppo", "sac", "impala"])
def test_groups_build_them_for_every_recipe(recipe: str, tmp_path: Path) -> None:
    done = call(*tiny_run(recipe), "intrinsic_reward=count_bonus", "intrinsic_reward.coef=0.5", run_dir(tmp_path))
    assert done.code == 0, done.err
    assert '"learn/intrinsic_reward"' in (tmp_path / "metrics.jsonl").read_text()
    with agent_of(f"agent={recipe}", *tiny_run(recipe), "augmentation=random_shift", "augmentation.pad=2") as trained:
        assert isinstance(trained.augmentation, RandomShift)
        assert trained.augmentation.pad == 2
