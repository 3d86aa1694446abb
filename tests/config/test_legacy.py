"""Configs of hsw 0.1.0 build the networks that they were trained with."""

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete
from omegaconf import OmegaConf

from hsw.build import build
from hsw.config.resolved import load_config
from hsw.network import MLP, ImpalaResNet
from hsw.spaces import space_config
from tests.runs import ROOT

GRAY = Box(0, 255, (84, 84), np.uint8)
FLOATS = Box(0, 1, (64, 64, 3))
BYTES = Box(0, 255, (64, 64, 3), np.uint8)
ACTIONS = {"ActorCritic": Discrete(3), "SoftActorCritic": Box(-1, 1, (2,))}


def stored(folder, space, encoder, kind="ActorCritic", **keys):
    """A config as a run left it."""
    spaces = {"observation_space": space_config(space), "action_space": space_config(ACTIONS[kind])}
    network = {"_target_": f"hsw.network.{kind}", **spaces, "encoder": encoder, "hidden_sizes": [8], **keys}
    OmegaConf.save(OmegaConf.create({**spaces, "network": network}), folder / "config.yaml")
    return load_config(folder)


@pytest.mark.parametrize("space", [GRAY, FLOATS])
def test_auto_still_means_an_mlp_of_each_head_on_images_that_it_did_not_know(space, tmp_path):
    config = stored(tmp_path, space, "auto")
    torch.manual_seed(0)
    policy = build(config.network)
    config.network.encoder = "mlp"
    torch.manual_seed(0)
    named = build(config.network)
    assert type(policy.encoder) is type(policy.value_encoder) is MLP
    assert all(map(torch.equal, policy.state_dict().values(), named.state_dict().values()))


def test_parts_of_a_dict_are_the_vectors_that_they_were(tmp_path):
    config = stored(tmp_path, Dict({"gray": GRAY, "bytes": BYTES}), "dict")
    policy = build(config.network)
    assert list(policy.encoder.vectors) == ["gray"]
    assert type(policy.encoder.parts["bytes"]) is ImpalaResNet


@pytest.mark.parametrize("encoder", ["auto", "impala_resnet"])
def test_sac_still_reads_as_a_vector_what_it_did_not_know_for_an_image(encoder, tmp_path):
    policy = build(stored(tmp_path, FLOATS, encoder, "SoftActorCritic").network)
    assert policy.inputs.out_dim == 64 * 64 * 3


@pytest.mark.parametrize("space", [BYTES, Box(-1, 1, (4,)), Box(-1, 1, (10, 5))])
def test_where_the_rule_has_not_changed_the_config_has_not_either(space, tmp_path):
    assert stored(tmp_path, space, "auto").network.encoder == "auto"


def test_a_config_of_today_means_the_rule_of_today(tmp_path):
    assert stored(tmp_path, GRAY, "auto", distribution="auto").network.encoder == "auto"


@pytest.mark.parametrize("run", ["ppo", "daac", "sac", "her_sac", "impala"])
def test_runs_of_0_1_0_load_as_they_are(run):
    folder = ROOT / "tests/data/runs-0.1.0" / run
    assert load_config(folder).network.encoder == "auto"
