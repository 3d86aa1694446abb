"""Masked training from end to end: Masked raises if an action is taken that is closed."""

from __future__ import annotations

from pathlib import Path

import pytest

import hsw
from hsw.env import make_env
from tests.runs import agent_of, call, differences, rows, run_dir, tiny, train_on
from tests.test_resume import in_rollout, nth, stored_and_loaded, when

INFO = ("env.id=tests.envs:Masked-v0", "env.action_mask=info")
OBS = ("env.id=tests.envs:Masked-v0", "env.kwargs.in_obs=true")


@pytest.mark.parametrize(
    ("recipe", "masks"),
    [
        ("dqn", INFO),
        ("impala", INFO),
        ("ppo", OBS),
        ("daac", (*INFO, "env.kwargs.choices=[2,3]")),
    ],
)
def test_no_recipe_ever_takes_a_closed_action(recipe: str, masks: tuple[str, ...], tmp_path: Path) -> None:
    done = call(*tiny(recipe), *masks, "num_train_steps=200", "eval_interval=100", run_dir(tmp_path))
    assert done.code == 0, done.err
    assert rows(tmp_path)[-1]["step"] >= 200


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["ppo", "recurrent_ppo", "daac", "a2c", "dqn", "impala"])
def test_no_recipe_takes_a_closed_action_in_a_hundred_thousand_steps(recipe: str, tmp_path: Path) -> None:
    sizes = {"dqn": ("agent.updates_per_step=0.02",), "impala": ()}.get(recipe, ("storage.num_steps=128",))
    done = call(*tiny(recipe), *INFO, *sizes, "num_train_steps=100000", run_dir(tmp_path))
    assert done.code == 0, done.err


def test_an_environment_that_allows_nothing_ends_the_run_with_its_code(tmp_path: Path) -> None:
    done = call(*tiny("ppo"), *INFO, "env.kwargs.never=true", run_dir(tmp_path))
    assert done.refused(3, "environment 0: its action_mask allows no action")


@pytest.mark.parametrize(("recipe", "backend"), [("ppo", "async"), ("dqn", "sync")])
def test_masks_survive_a_resume(recipe: str, backend: str, tmp_path: Path) -> None:
    overrides = (f"agent={recipe}", *INFO, f"env.backend={backend}")
    with agent_of(*overrides) as agent:
        agent.train(150)
        straight = agent.state_dict()
    with agent_of(*overrides) as agent:
        in_rollout(agent) if recipe == "ppo" else when(agent, agent.env, "step", nth(41))
        state = train_on(agent, 150)
        assert state is not None
        state = stored_and_loaded(state, tmp_path / "state")
    with agent_of(*overrides) as agent:
        agent.load_state_dict(state)
        assert train_on(agent, 150) is None
        assert differences(straight, agent.state_dict()) == []


@pytest.mark.parametrize("masks", [INFO, OBS], ids=["info", "obs"])
def test_what_was_trained_with_masks_is_asked_with_them(masks: tuple[str, ...], tmp_path: Path) -> None:
    assert call(*tiny("ppo"), *masks, "allow=[tests]", run_dir(tmp_path)).code == 0
    trained = hsw.load(tmp_path, allow=["tests"])
    kwargs = {"in_obs": True} if masks is OBS else {}
    env = make_env("tests.envs:Masked-v0", num_envs=1, kwargs=kwargs, action_mask="auto" if kwargs else "info")
    obs = env.reset()
    for _ in range(30):
        obs = env.step(trained.act(obs, deterministic=False)).obs


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_masks_make_the_doors_easier(seed: int, tmp_path: Path) -> None:
    first = {}
    for source in ("info", "none"):
        folder = tmp_path / source
        options = ("agent=ppo", "env=doors", f"env.action_mask={source}", "num_train_steps=40000", f"seed={seed}")
        assert call(*options, "eval_interval=2000", "quiet=true", run_dir(folder)).code == 0
        scores = [(row["step"], row["eval/success"]) for row in rows(folder) if "eval/success" in row]
        first[source] = next((step for step, success in scores if success >= 0.95), float("inf"))
    assert first["info"] < first["none"]
