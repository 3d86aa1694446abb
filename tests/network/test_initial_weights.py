"""A seed gives the networks that it gave in hsw 0.1.0: the same draws in the same order.

The numbers were computed with 0.1.0 by `python -m tests.network.test_initial_weights`.
"""

import math

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete

from hsw.network import ActorCritic, DecoupledActorCritic, RecurrentActorCritic, SoftActorCritic

ATARI, PROCGEN = Box(0, 255, (4, 84, 84), np.uint8), Box(0, 255, (64, 64, 3), np.uint8)
PARTS = Dict({"v": Box(-1, 1, (4,)), "i": Box(0, 255, (3, 40, 40), np.uint8), "n": Discrete(3)})
BOX = Box(-1, 1, (2,))
CASES = {
    "cartpole": (ActorCritic, Box(-1, 1, (4,)), Discrete(2), {}),
    "catch": (ActorCritic, Box(0, 1, (10, 5)), Discrete(3), {}),
    "minatar": (ActorCritic, Box(0, 1, (10, 10, 4), bool), Discrete(3), {}),
    "atari": (ActorCritic, ATARI, Discrete(6), {}),
    "procgen": (DecoupledActorCritic, PROCGEN, Discrete(15), {"encoder": "impala_resnet"}),
    "daac": (DecoupledActorCritic, Box(-1, 1, (4,)), BOX, {}),
    "dict": (ActorCritic, PARTS, MultiDiscrete([2, 3]), {}),
    "impala": (RecurrentActorCritic, Box(0, 1, (10, 5)), Discrete(3), {}),
    "lstm": (RecurrentActorCritic, ATARI, MultiBinary(3), {"lstm_size": 8}),
    "sac": (SoftActorCritic, Box(-1, 1, (3,)), BOX, {}),
    "sac_images": (SoftActorCritic, PROCGEN, BOX, {"hidden_sizes": (8,)}),
    "sac_dict": (SoftActorCritic, PARTS, BOX, {"hidden_sizes": (8,)}),
}
# A checksum of the weights, and the draw that follows them.
OF_0_1_0 = {
    "cartpole": (13.822005, 0.8822473883628845),
    "catch": (-17.497541, 0.2551247477531433),
    "minatar": (-4.862100, 0.05892521142959595),
    "atari": (8.677873, 0.755707323551178),
    "procgen": (52.472441, 0.8254331946372986),
    "daac": (22.258111, 0.8760702610015869),
    "dict": (-7.888697, 0.22611558437347412),
    "impala": (5.437423, 0.1705951690673828),
    "lstm": (28.330122, 0.2663043141365051),
    "sac": (-18.002375, 0.29201430082321167),
    "sac_images": (22.264796, 0.15279948711395264),
    "sac_dict": (-20.410023, 0.12362432479858398),
}


def fingerprint(case):
    kind, *spaces, options = CASES[case]
    torch.manual_seed(7)
    policy = kind(*spaces, **options)
    drawn = float(torch.rand(()))
    total = 0.0
    for index, tensor in enumerate(policy.state_dict().values()):
        flat = tensor.double().flatten()
        total += float((flat * torch.cos(torch.arange(len(flat)) + index)).sum())
    return total, drawn


@pytest.mark.parametrize("case", CASES)
def test_a_seed_gives_the_weights_that_it_gave(case):
    checksum, drawn = OF_0_1_0[case]
    assert math.isclose(fingerprint(case)[0], checksum, abs_tol=1e-3)
    assert fingerprint(case)[1] == drawn


if __name__ == "__main__":
    print({case: fingerprint(case) for case in CASES})
