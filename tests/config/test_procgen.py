"""Procgen's presets against the authors' tables (idaac's hyperparams.py and arguments.py)."""

import pytest

from hsw.config.resolved import check
from tests.runs import compose

GAMES = [
    "bigfish",
    "bossfight",
    "caveflyer",
    "chaser",
    "climber",
    "coinrun",
    "dodgeball",
    "fruitbot",
    "heist",
    "jumper",
    "leaper",
    "maze",
    "miner",
    "ninja",
    "plunder",
    "starpilot",
]
VALUE_EPOCHS = {"plunder": 1, "chaser": 1}
VALUE_FREQ = {"plunder": 8, "miner": 32, "bigfish": 32, "dodgeball": 32}
ADV_LOSS_COEF = {"plunder": 0.3, "chaser": 0.15, "climber": 0.05, "bigfish": 0.05}


@pytest.mark.parametrize("game", GAMES)
def test_a_game_finds_the_authors_values_by_itself(game):
    config = compose("agent=daac", "env=procgen", f"env.game={game}")
    check(config)
    algorithm = config.algorithm
    assert algorithm.value_epochs == VALUE_EPOCHS.get(game, 9)
    assert algorithm.value_freq == VALUE_FREQ.get(game, 1)
    assert algorithm.adv_loss_coef == ADV_LOSS_COEF.get(game, 0.25)
    assert algorithm.value_phase_first
    assert algorithm.value_clip_range == "clip_range"
    assert (config.storage.num_steps, config.storage.discount, config.storage.gae_lambda) == (256, 0.999, 0.95)
    if game in {*VALUE_EPOCHS, *VALUE_FREQ, *ADV_LOSS_COEF}:  # those that have a name of their own
        assert compose("agent=daac", "env=procgen", f"preset=daac_procgen_{game}") == config


@pytest.mark.parametrize("agent", ["daac", "ppo"])
def test_networks_and_the_rewards_scale_are_the_authors(agent):
    config = compose(f"agent={agent}", "env=procgen")
    assert config.network.encoder == "procgen_resnet"
    assert config.env.discount == 0.99
    assert config.storage.discount == 0.999


def test_what_is_said_on_the_command_line_wins():
    config = compose("agent=daac", "env=procgen", "env.game=bigfish", "algorithm.value_freq=2")
    assert config.algorithm.value_freq == 2
    assert config.algorithm.adv_loss_coef == 0.05


@pytest.mark.parametrize("preset", ["ppo_procgen", "ppo_atari"])
def test_a_source_whose_value_loss_has_a_half_has_half_the_coefficient(preset):
    agent, env = preset.split("_")
    assert compose(f"agent={agent}", f"env={env}").algorithm.value_coef == 0.25
    assert compose().algorithm.value_coef == 0.5
