import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete

from hsw.network import MLP, DictEncoder, ImpalaResNet, MinAtarCNN, NatureCNN
from hsw.network.encoder import make_encoder
from hsw.spaces import read_space, tree_map
from tests.helpers import draw, tensors

B = 3


def image(*shape, dtype=np.uint8):
    return Box(0, 1 if dtype is bool else 255, shape, dtype)


def auto(space, **kwargs):
    return make_encoder("auto", read_space(space), **{"hidden_sizes": (16, 8), "activation": "tanh", **kwargs})


CASES = {
    "vector": (Box(-1, 1, (4,)), MLP, 8),
    "matrix": (Box(-1, 1, (2, 3)), MLP, 8),
    "float64": (Box(-1, 1, (4,), np.float64), MLP, 8),
    "bytes": (Box(0, 255, (128,), np.uint8), MLP, 8),
    "discrete": (Discrete(5), MLP, 8),
    "multi_discrete": (MultiDiscrete([2, 3]), MLP, 8),
    "multi_binary": (MultiBinary(4), MLP, 8),
    "atari": (image(4, 84, 84), NatureCNN, 512),
    "procgen": (image(64, 64, 3), ImpalaResNet, 256),
    "minatar": (image(10, 10, 4, dtype=bool), MinAtarCNN, 128),
    "dict": (Dict({"v": Box(-1, 1, (4,)), "i": image(3, 40, 40), "n": Discrete(3)}), DictEncoder, 256 + 8),
    "nested_dict": (Dict({"v": Box(-1, 1, (4,)), "d": Dict({"i": image(10, 10, 4)})}), DictEncoder, 128 + 8),
    "dict_of_images": (Dict({"i": image(10, 10, 4), "j": image(10, 10, 2)}), DictEncoder, 256),
}


@pytest.mark.parametrize("case", CASES)
def test_each_kind_of_observation_gets_its_encoder_and_out_dim_features(case):
    space, kind, out_dim = CASES[case]
    encoder = auto(space)
    features = encoder(tensors(draw(space, B, 0)))
    assert type(encoder) is kind
    assert features.shape == (B, out_dim)
    assert encoder.out_dim == out_dim
    assert features.dtype == torch.float32


@pytest.mark.parametrize("case", CASES)
def test_features_of_one_row_do_not_depend_on_the_others(case):
    space, *_ = CASES[case]
    encoder, obs = auto(space), draw(space, B, 0)
    alone = tree_map(lambda part: part[:1], tensors(obs))
    torch.testing.assert_close(encoder(tensors(obs))[:1], encoder(alone), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "size"), [("nature_cnn", 84), ("impala_resnet", 40), ("minatar", 10)])
def test_both_orders_of_channels_give_the_same_features(name, size):
    first, last = (
        make_encoder(name, read_space(image(*shape)), (), "tanh") for shape in ((4, size, size), (size, size, 4))
    )
    last.load_state_dict(first.state_dict())
    pixels = tensors(draw(image(4, size, size), B, 0))
    torch.testing.assert_close(last(pixels.permute(0, 2, 3, 1)), first(pixels), rtol=1e-4, atol=1e-5)


def test_bytes_are_scaled_to_one_and_other_numbers_are_left():
    obs = torch.tensor([[0, 51, 255]], dtype=torch.uint8)
    assert MLP(read_space(Box(0, 255, (3,), np.uint8)), ())(obs).tolist() == [[0.0, pytest.approx(0.2), 1.0]]
    assert MLP(read_space(Box(0, 255, (3,))), ())(obs.float()).tolist() == [[0.0, 51.0, 255.0]]


def test_images_are_scaled_to_one_and_left_unchanged():
    encoder = MinAtarCNN(read_space(image(4, 10, 10)))
    pixels = tensors(draw(image(4, 10, 10), B, 0))
    before = pixels.clone()
    expected = encoder.linear(encoder.convs(before.float() / 255).flatten(1)).relu()
    torch.testing.assert_close(encoder(pixels), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(pixels, before)


@pytest.mark.parametrize("batch", [B, 1])
def test_categories_enter_one_hot(batch):
    encoder = MLP(read_space(Discrete(3)), ())
    assert encoder(torch.tensor([2, 0, 1])[:batch]).tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]][:batch]
    encoder = MLP(read_space(MultiDiscrete([2, 3])), ())
    assert (
        encoder(torch.tensor([[1, 2], [0, 0], [1, 1]])[:batch]).tolist()
        == [
            [0, 1, 0, 0, 1],
            [1, 0, 1, 0, 0],
            [0, 1, 0, 1, 0],
        ][:batch]
    )
    encoder = MLP(read_space(MultiDiscrete([3])), ())
    assert encoder(torch.tensor([[2], [0], [1]])[:batch]).tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]][:batch]


def test_every_part_of_a_dict_counts():
    space = CASES["dict"][0]
    encoder = auto(space)
    obs, other = tensors(draw(space, B, 0)), tensors(draw(space, B, 1))
    other["n"] = (obs["n"] + 1) % 3
    for key in obs:
        assert not torch.equal(encoder({**obs, key: other[key]}), encoder(obs))


def test_layers_start_orthogonal_with_gain_sqrt_2():
    weight = MLP(read_space(Box(-1, 1, (4,))), (16,)).layers[0].weight
    torch.testing.assert_close(weight.T @ weight, 2 * torch.eye(4), rtol=1e-4, atol=1e-4)


def test_an_encoder_of_ones_own_gets_the_space():
    def own(space):
        return MLP(space, (5,))

    assert make_encoder(own, read_space(Box(-1, 1, (4,))), (), "tanh").out_dim == 5


@pytest.mark.parametrize(
    ("name", "space", "message"),
    [
        ("nature_cnn", image(3, 20, 20), "too small for NatureCNN"),
        ("impala_resnet", Box(-1, 1, (4,)), "needs images"),
        ("resnet50", Box(-1, 1, (4,)), "no encoder resnet50"),
        ("dict", Box(-1, 1, (4,)), "encoder=dict does not take Box"),
        ("mlp", Dict({"v": Box(-1, 1, (4,))}), "encoder=mlp does not take Dict"),
    ],
)
def test_encoders_that_do_not_fit_are_refused(name, space, message):
    with pytest.raises(ValueError, match=message):
        make_encoder(name, read_space(space), (16,), "tanh")
