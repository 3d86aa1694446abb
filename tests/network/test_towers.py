"""MLPs by hand, held against autograd."""

import copy

import pytest
import torch
from torch import nn

from hsw.network import MLP, ActorCritic, DecoupledActorCritic
from hsw.network.towers import plain_layers, through
from hsw.spaces import SpaceSpec
from tests.helpers import ACTION_SPACES, OBS_SPACES, draw, tensors

BOX = SpaceSpec("Box", (3,))


def tower(sizes=(5, 4), activation="tanh", out=2, seed=0, space=BOX):
    torch.manual_seed(seed)
    encoder = MLP(space, sizes, activation).double()
    head = nn.Linear(sizes[-1], out).double()
    for parameter in (*encoder.parameters(), *head.parameters()):
        nn.init.normal_(parameter)
    return encoder, head


def naive(obs, encoder, head):
    """Written from the formula: h = f(W h + b)."""
    x = encoder.flatten(obs)
    for linear, activation in zip(encoder.layers[::2], encoder.layers[1::2], strict=True):
        x = activation((x[:, None, :] * linear.weight).sum(-1) + linear.bias)
    return x, (x[:, None, :] * head.weight).sum(-1) + head.bias


def gradients(outputs, sources, which):
    chosen = [output for pair in outputs for output, taken in zip(pair, which, strict=True) if taken]
    torch.manual_seed(3)
    loss = sum((output * torch.randn_like(output)).sum() + output.square().sum() for output in chosen)
    return torch.autograd.grad(loss, sources, allow_unused=True)


@pytest.mark.parametrize("activation", ["tanh", "relu", "elu"])
@pytest.mark.parametrize("which", [(True, True), (True, False), (False, True)], ids=["both", "features", "heads"])
@pytest.mark.parametrize("sizes", [(4,), (5, 4), (6, 5, 4)], ids=str)
def test_values_and_gradients_are_those_of_the_formula(activation, which, sizes):
    towers = [tower(sizes, activation), tower((7, *sizes), activation, out=1, seed=1)]
    obs = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    sources = [obs, *(p for encoder, head in towers for p in (*encoder.parameters(), *head.parameters()))]
    ours, theirs = through(obs, *towers), [naive(obs, *one) for one in towers]
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, other)
    for own, other in zip(gradients(ours, sources, which), gradients(theirs, sources, which), strict=True):
        assert (own is None) == (other is None)
        if own is not None:
            torch.testing.assert_close(own, other)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_gradients_are_the_slopes_of_the_values_and_so_are_theirs(activation):
    encoder, head = tower(activation=activation)
    obs = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    names = [f"encoder.{name}" for name, _ in encoder.named_parameters()]
    assert names

    def function(x, *parameters):
        twin, twin_head = copy.deepcopy((encoder, head))
        layers = [*twin.layers[::2], twin_head]
        for number, layer in enumerate(layers):  # parameters that stay those of the caller
            del layer.weight, layer.bias
            layer.weight, layer.bias = parameters[2 * number], parameters[2 * number + 1]
        assert plain_layers(twin, twin_head)
        return [part for pair in through(x, (twin, twin_head)) for part in pair]

    parameters = [p.detach().clone().requires_grad_() for p in (*encoder.parameters(), *head.parameters())]
    assert torch.autograd.gradcheck(function, (obs, *parameters))
    assert torch.autograd.gradgradcheck(function, (obs, *parameters))


def is_by_hand(outputs):
    return "_Towers" in type(outputs[0][0].grad_fn).__name__


def hooked(encoder, head):
    encoder.layers[1].register_forward_hook(lambda *given: None)


def replaced(encoder, head):
    encoder.layers[0] = nn.Sequential(encoder.layers[0])


def mixed(encoder, head):
    encoder.layers[3] = nn.ReLU()


def unbiased(encoder, head):
    encoder.layers[2].bias = None


@pytest.mark.parametrize("change", [hooked, replaced, mixed, unbiased], ids=lambda change: change.__name__)
def test_what_a_user_changed_is_called_as_it_is(change):
    encoder, head = tower()
    obs = torch.randn(4, 3, dtype=torch.float64)
    assert is_by_hand(through(obs, (encoder, head)))
    change(encoder, head)
    outputs = through(obs, (encoder, head))
    assert not is_by_hand(outputs)
    torch.testing.assert_close(outputs[0][1], head(encoder(obs)))


def test_autocast_and_transforms_take_the_plain_way():
    encoder, head = (part.float() for part in tower())
    obs = torch.randn(4, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert through(obs, (encoder, head))[0][1].dtype == torch.bfloat16
    slopes = torch.func.grad(lambda x: through(x[None], (encoder, head))[0][1].sum())
    each = torch.func.vmap(slopes)(obs)
    leaf = obs.clone().requires_grad_()
    torch.testing.assert_close(each, torch.autograd.grad(through(leaf, (encoder, head))[0][1].sum(), leaf)[0])
    with torch.no_grad():
        assert through(obs, (encoder, head))[0][1].grad_fn is None


def test_features_that_were_written_to_are_refused_as_torch_does():
    obs = torch.randn(4, 3, dtype=torch.float64)
    ((features, out),) = through(obs, tower())
    with torch.no_grad():
        features.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_frozen_parameters_get_no_gradient():
    encoder, head = tower()
    encoder.requires_grad_(False)
    through(torch.randn(4, 3, dtype=torch.float64), (encoder, head))[0][1].sum().backward()
    assert head.weight.grad is not None
    assert all(parameter.grad is None for parameter in encoder.parameters())


def test_a_graph_that_is_kept_gives_its_gradient_again():
    encoder, head = tower()
    out = through(torch.randn(4, 3, dtype=torch.float64), (encoder, head))[0][1].square().sum()
    first, again = (torch.autograd.grad(out, [head.weight, encoder.layers[0].weight], retain_graph=True) for _ in "ab")
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("kind", [ActorCritic, DecoupledActorCritic])
@pytest.mark.parametrize("action", ACTION_SPACES)
@pytest.mark.parametrize("obs", ["box", "discrete"])
def test_policies_have_the_gradients_of_their_modules(kind, obs, action, monkeypatch):
    torch.manual_seed(0)
    policy = kind(OBS_SPACES[obs], ACTION_SPACES[action], hidden_sizes=(16, 8))
    batch = tensors(draw(OBS_SPACES[obs], 5, 0))
    actions = policy.act(batch)[0].detach()

    def found():
        policy.zero_grad()
        parts = (*policy.evaluate(batch, actions), policy.value(batch))
        sum(part.square().sum() for part in parts).backward()
        return [parameter.grad for parameter in policy.parameters()]

    own = found()
    monkeypatch.setattr("hsw.network.towers._by_hand", lambda: False)
    for one, other in zip(own, found(), strict=True):
        torch.testing.assert_close(one, other)
