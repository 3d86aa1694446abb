import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete

from hsw.network import (
    MLP,
    ActorCritic,
    DecoupledActorCritic,
    DictEncoder,
    ImpalaResNet,
    MinAtarCNN,
    NatureCNN,
    ProcgenResNet,
    RecurrentActorCritic,
    SoftActorCritic,
)
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
    "gray": (image(84, 84), NatureCNN, 512),
    "mask": (image(40, 50, dtype=bool), ImpalaResNet, 256),
    "gray_floats": (Box(0, 1, (40, 50)), ImpalaResNet, 256),
    "floats": (Box(0, 1, (64, 64, 3)), ImpalaResNet, 256),
    "unbounded_floats": (Box(-np.inf, np.inf, (3, 36, 40)), ImpalaResNet, 256),
    "ints": (Box(0, 255, (36, 36, 3), np.int32), ImpalaResNet, 256),
    "float_stack": (Box(0, 1, (4, 84, 84), np.float64), NatureCNN, 512),
    "stack_of_colours": (image(4, 64, 64, 3), ImpalaResNet, 256),
    "stack_of_planes": (image(2, 3, 64, 64), ImpalaResNet, 256),
    "stack_of_grids": (image(4, 10, 10, 3), MinAtarCNN, 128),
    "board": (Box(0, 1, (10, 5)), MLP, 8),  # Catch's
    "board_of_bytes": (image(10, 10), MLP, 8),
    "float_grid": (Box(0, 1, (10, 10, 4)), MLP, 8),
    "window_of_features": (Box(-np.inf, np.inf, (64, 40)), MLP, 8),
    "voxels": (Box(0, 1, (40, 40, 40)), MLP, 8),
    "dict_with_float_image": (Dict({"v": Box(-1, 1, (4,)), "i": Box(0, 1, (40, 40, 3))}), DictEncoder, 256 + 8),
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


@pytest.mark.parametrize("space", [Box(0, 1, (40, 40, 3)), Box(0, 255, (3, 40, 40)), Box(0, 1, (40, 40))])
def test_images_of_floats_are_taken_as_they_are(space):
    encoder = make_encoder("impala_resnet", read_space(space), (), "tanh")
    pixels = tensors(draw(space, B, 0))
    before = pixels.clone()
    planes = before.unsqueeze(1) if before.ndim == 3 else before.permute(0, 3, 1, 2) if space.shape[-1] == 3 else before
    expected = encoder.linear(encoder.convs(planes).flatten(1)).relu()
    torch.testing.assert_close(encoder(pixels), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(pixels, before)


@pytest.mark.parametrize("shape", [(4, 40, 36, 3), (4, 3, 40, 36)])
def test_the_frames_of_a_stack_become_channels(shape):
    encoder = make_encoder("impala_resnet", read_space(image(*shape)), (), "tanh")
    pixels = tensors(draw(image(*shape), B, 0))
    planes = torch.stack(
        [frame if shape[1] == 3 else torch.stack([frame[..., c] for c in range(3)]) for row in pixels for frame in row]
    )
    expected = encoder.convs(planes.view(B, 12, 40, 36).float() / 255)
    torch.testing.assert_close(encoder(pixels), encoder.linear(expected.flatten(1)).relu(), rtol=1e-4, atol=1e-5)


def test_an_mlp_reads_an_image_where_it_is_asked_for():
    assert type(make_encoder("mlp", read_space(image(84, 84)), (8,), "tanh")) is MLP
    assert type(make_encoder("mlp", read_space(image(10, 10, 4)), (8,), "tanh")) is MLP


def naive_procgen(encoder, x):
    """The network of idaac's model.py: a first ReLU in place, so that a residual is added to relu(x)."""
    for block in encoder.convs[:3]:
        x = block.pool(block.conv(x))
        for residual in block.residuals:
            first, second = residual[1], residual[3]
            identity = x
            out = identity.relu_()
            out = second(first(out).relu_())
            out += identity
            x = out
    return encoder.linear(x.relu().flatten(1)).relu()


def test_the_procgen_resnet_is_the_authors_network():
    encoder = make_encoder("procgen_resnet", read_space(image(64, 64, 3)), (), "tanh")
    assert type(encoder) is ProcgenResNet
    pixels = tensors(draw(image(64, 64, 3), B, 0))
    with torch.no_grad():
        expected = naive_procgen(encoder, (pixels.float() / 255).permute(0, 3, 1, 2).clone())
        torch.testing.assert_close(encoder(pixels), expected, rtol=1e-4, atol=1e-5)
        plain = ImpalaResNet(read_space(image(64, 64, 3)))
        plain.load_state_dict(encoder.state_dict())
        assert not torch.allclose(plain(pixels), expected, atol=1e-3)
    for layer in (layer for layer in encoder.convs.modules() if isinstance(layer, torch.nn.Conv2d)):
        bound = (6 / (9 * (layer.in_channels + layer.out_channels))) ** 0.5  # Glorot & Bengio 2010, eq. 16
        assert 0.8 * bound < float(layer.weight.detach().abs().max()) <= bound
        assert not layer.bias.any()


NAMES = {
    "vector": {"": "MLP 16-8 (4 float32)"},
    "discrete": {"": "MLP 16-8 (5 choices)"},
    "atari": {"": "NatureCNN (4x84x84 uint8, channels first)"},
    "procgen": {"": "ImpalaResNet (64x64x3 uint8, channels last)"},
    "gray": {"": "NatureCNN (84x84 uint8, one channel)"},
    "stack_of_colours": {"": "ImpalaResNet (4x64x64x3 uint8, channels last, 4 frames)"},
    "nested_dict": {"d.i": "MinAtarCNN (10x10x4 uint8, channels last)", "v": "MLP 16-8 (4 float32)"},
}


@pytest.mark.parametrize("case", NAMES)
@pytest.mark.parametrize("kind", [ActorCritic, DecoupledActorCritic, RecurrentActorCritic, SoftActorCritic])
def test_a_policy_tells_which_encoder_reads_what(kind, case):
    policy = kind(CASES[case][0], Box(-1, 1, (2,)), hidden_sizes=(16, 8))
    assert policy.encoder_names() == NAMES[case]


@pytest.mark.parametrize("case", ["gray", "floats", "dict_with_float_image"])
def test_the_heads_share_what_reads_an_image_and_sac_gives_each_network_one(case):
    space = CASES[case][0]
    assert (ActorCritic(space, Discrete(3)).value_encoder is None) == (case != "dict_with_float_image")
    policy = SoftActorCritic(space, Box(-1, 1, (2,)))
    assert policy.inputs is None
    assert type(policy.actor.encoder) is CASES[case][1]


def test_sac_takes_an_encoder_of_ones_own_also_for_vectors():
    policy = SoftActorCritic(Box(-1, 1, (4,)), Box(-1, 1, (2,)), encoder=lambda space: MLP(space, (5,)))
    networks = [policy.actor, *policy.critics]
    assert [network.encoder.out_dim for network in networks] == [5, 5, 5]
    obs = torch.randn(B, 4)
    assert policy.act(obs)[0].shape == (B, 2)
    assert policy.values(policy.encode(obs), torch.zeros(B, 2)).shape == (2, B)


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
        (lambda space: torch.nn.Linear(4, 2), Box(-1, 1, (4,)), "Linear must say in out_dim"),
        ("resnet50", Box(-1, 1, (4,)), "no encoder resnet50"),
        ("dict", Box(-1, 1, (4,)), "encoder=dict does not take Box"),
        ("mlp", Dict({"v": Box(-1, 1, (4,))}), "encoder=mlp does not take Dict"),
    ],
)
def test_encoders_that_do_not_fit_are_refused(name, space, message):
    with pytest.raises(ValueError, match=message):
        make_encoder(name, read_space(space), (16,), "tanh")
