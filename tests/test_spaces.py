import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete
from omegaconf import OmegaConf

from hsw.spaces import SpaceSpec, read_space, space_config

UNEVEN = Box(np.array([-1, 0], np.float32), np.array([1, 3], np.float32))

SPACES = [
    Box(-1, 1, (4,), np.float32),
    Box(-np.inf, np.inf, (2, 3), np.float64),
    Box(0, 255, (3, 8, 8), np.uint8),
    Box(0, 1, (8, 8, 2), bool),
    UNEVEN,
    Discrete(5),
    MultiDiscrete([2, 4, 3]),
    MultiBinary(6),
    Dict({"b": Box(-1, 1, (4,)), "a": Dict({"image": Box(0, 255, (3, 8, 8), np.uint8), "n": Discrete(3)})}),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_a_space_survives_the_way_through_its_config_and_yaml(space):
    config = OmegaConf.create(OmegaConf.to_yaml(OmegaConf.create(space_config(space))))
    assert read_space(config) == read_space(OmegaConf.to_container(config)) == read_space(space)


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_a_config_holds_plain_scalars_and_lists_only(space):
    def walk(node):
        if isinstance(node, dict):
            return all(type(key) is str and walk(value) for key, value in node.items())
        if isinstance(node, list | tuple):
            return all(walk(item) for item in node)
        return type(node) in (int, float, bool, str)

    assert walk(space_config(space))


@pytest.mark.parametrize(
    ("config", "space"),
    [
        ({"shape": (4,)}, Box(-np.inf, np.inf, (4,), np.float32)),
        ({"shape": (3, 84, 84)}, Box(0, 255, (3, 84, 84), np.uint8)),
        ({"shape": (5,), "type": "Discrete", "range": [0, 4]}, Discrete(5)),
        ({"shape": (2,), "type": "Box", "range": [-1, 1]}, Box(-1, 1, (2,), np.float32)),
        ({"shape": (2, 3), "type": "Box", "range": [-1, 1]}, Box(-1, 1, (2, 3), np.float32)),
        ({"shape": (3,), "type": "MultiBinary", "range": [0, 1]}, MultiBinary(3)),
        ({"shape": (2,), "type": "MultiDiscrete", "range": [0, 2]}, MultiDiscrete([3, 3])),
        ({"spaces": {"x": {"shape": (4,)}}}, Dict({"x": Box(-np.inf, np.inf, (4,), np.float32)})),
    ],
    ids=str,
)
@pytest.mark.parametrize("form", [dict, OmegaConf.create], ids=["dict", "DictConfig"])
def test_the_minimal_config_form_means_the_gymnasium_space(config, space, form):
    assert read_space(form(config)) == read_space(space)


def test_uniform_bounds_are_one_number_and_others_keep_their_shape():
    assert (read_space(Box(-1, 1, (4,))).low, read_space(Box(-1, 1, (4,))).high) == (-1.0, 1.0)
    assert (read_space(UNEVEN).low, read_space(UNEVEN).high) == ((-1.0, 0.0), (1.0, 3.0))


# Seen elsewhere: discrete actions are int64, images stay bytes, a Box action keeps all its dimensions.
@pytest.mark.parametrize(
    ("space", "shape", "dtype"),
    [
        (Discrete(5), (), torch.int64),
        (MultiDiscrete([2, 3]), (2,), torch.int64),
        (MultiBinary(3), (3,), torch.int8),
        (Box(-1, 1, (2, 3)), (2, 3), torch.float32),
        (Box(0, 255, (3, 8, 8), np.uint8), (3, 8, 8), torch.uint8),
    ],
    ids=str,
)
def test_memory_has_the_shape_and_dtype_of_the_space(space, shape, dtype):
    memory = read_space(space).empty(7, 2)
    assert memory.shape == (7, 2, *shape)
    assert memory.dtype == dtype


def test_memory_of_a_dict_is_a_dict_in_sorted_order():
    memory = read_space(SPACES[-1]).empty(2)
    assert list(memory) == ["a", "b"]
    assert memory["a"]["image"].dtype == torch.uint8


def test_images_and_bounds_are_recognised():
    assert [read_space(space).is_image for space in SPACES] == [False, False, True, True] + [False] * 5
    assert read_space(UNEVEN).is_bounded
    assert not read_space(SPACES[1]).is_bounded
    assert not read_space({"shape": (2,), "type": "Box", "range": [-1, math.inf]}).is_bounded


def test_a_spec_is_taken_as_it_is():
    spec = SpaceSpec("Box", (4,))
    assert read_space(spec) is spec


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (gym.spaces.Tuple([Discrete(2)]), "Tuple spaces are not supported"),
        (gym.spaces.Text(3), "Text spaces are not supported"),
        ({"shape": (2,), "type": "Graph"}, "Graph spaces are not supported"),
        (MultiDiscrete([[2, 3], [2, 3]]), "one dimension"),
        ({"type": "Box"}, "needs a shape"),
        ({"shape": (-1,)}, "no negative sizes"),
        ({"shape": 3}, "no space can be read from"),
        ({"shape": (2,), "high": "tall"}, "bound high of a space must be numbers, got 'tall'"),
        ({"shape": (2,), "low": [0, "x"]}, "bound low of a space must be numbers"),
        ({"shape": (2,), "low": float("nan")}, "bound low of a space must be numbers"),
        ({"shape": (2,), "low": [0, 0, 0]}, r"bound low of a space must have its shape \[2\], got \[3\]"),
        ({"shape": (2,), "range": 3}, "no space can be read from"),
        ({"shape": (2,), "type": "MultiDiscrete", "range": [0]}, "no space can be read from"),
        ((4,), "must be a gymnasium.Space or a config"),
        (None, "must be a gymnasium.Space or a config"),
    ],
    ids=str,
)
def test_what_cannot_be_read_is_refused_by_name(space, message):
    with pytest.raises(ValueError, match=message):
        read_space(space)
