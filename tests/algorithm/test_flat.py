"""Many parameters as one, and a step of their optimiser."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from hsw.algorithm.flat import adam, flattened, is_view, restore_state, state_of, take_step
from tests.helpers import equal

ADAMS = {
    "as hsw makes it": {"fused": True, "eps": 1e-5},
    "a user's betas and decay": {"fused": True, "betas": (0.5, 0.9), "weight_decay": 0.1},
    "amsgrad": {"fused": True, "amsgrad": True},
    "upwards": {"fused": True, "maximize": True},
    "not fused": {"fused": False},
    "decoupled decay": {"fused": True, "decoupled_weight_decay": True, "weight_decay": 0.1},
}


def made(kind=torch.optim.Adam, **kwargs):
    torch.manual_seed(0)
    parameter = nn.Parameter(torch.randn(50))
    return parameter, kind([parameter], lr=0.1, **kwargs)


def steps(parameter, optimizer, step, count=3):
    torch.manual_seed(1)
    for number in range(count):
        parameter.grad = torch.randn_like(parameter)
        optimizer.param_groups[0]["lr"] = 0.1 / (number + 1)
        step()


@pytest.mark.parametrize("name", ADAMS)
def test_a_step_is_the_optimisers_own_to_the_bit_whatever_was_asked_of_it(name):
    one, other = made(**ADAMS[name]), made(**ADAMS[name])
    steps(*one, one[1].step)
    steps(*other, lambda: take_step(other[1]))
    assert torch.equal(one[0], other[0])
    assert equal(one[1].state_dict(), other[1].state_dict())


@pytest.mark.parametrize("name", ADAMS)
def test_a_state_is_restored_as_the_optimiser_would(name):
    (one, saved), (other, restored), (third, theirs) = made(**ADAMS[name]), made(**ADAMS[name]), made(**ADAMS[name])
    steps(one, saved, saved.step)
    state = saved.state_dict()
    restore_state(restored, copy.deepcopy(state["state"]))
    theirs.load_state_dict(copy.deepcopy({**state, "param_groups": theirs.state_dict()["param_groups"]}))
    assert equal(restored.state_dict(), theirs.state_dict())
    steps(other, restored, restored.step)
    steps(third, theirs, theirs.step)
    assert torch.equal(other, third)


def test_loading_goes_past_no_hook_of_the_optimiser():
    parameter, optimizer = made(fused=True)
    steps(parameter, optimizer, optimizer.step)
    seen = []
    optimizer.register_load_state_dict_pre_hook(lambda *given: seen.append(given))
    restore_state(optimizer, state_of(optimizer))
    assert len(seen) == 1


@pytest.mark.parametrize("kind", [torch.optim.RMSprop, torch.optim.SGD, torch.optim.AdamW])
def test_another_optimiser_takes_its_own_step(kind):
    one, other = made(kind), made(kind)
    steps(*one, one[1].step)
    steps(*other, lambda: take_step(other[1]))
    assert torch.equal(one[0], other[0])


@pytest.mark.parametrize("hook", ["register_step_pre_hook", "register_step_post_hook"])
def test_an_optimisers_hooks_see_every_step(hook):
    parameter, optimizer = made(fused=True)
    seen = []
    getattr(optimizer, hook)(lambda *given: seen.append(given))
    steps(parameter, optimizer, lambda: take_step(optimizer))
    assert len(seen) == 3


def test_a_subclass_and_a_wrapper_of_step_are_called():
    class Counting(torch.optim.Adam):
        count = 0

        def step(self, closure=None):
            self.count += 1
            return super().step(closure)

    parameter, optimizer = made(Counting, fused=True)
    steps(parameter, optimizer, lambda: take_step(optimizer))
    assert optimizer.count == 3
    parameter, optimizer = made(fused=True)
    torch.optim.lr_scheduler.StepLR(optimizer, 1)  # wraps step to know that it was called
    wrapped, optimizer.step = optimizer.step, lambda: seen.append(wrapped())
    seen = []
    steps(parameter, optimizer, lambda: take_step(optimizer))
    assert len(seen) == 3


def test_a_saved_state_goes_on_in_a_step_of_either_kind():
    parameter, optimizer = made(fused=True)
    steps(parameter, optimizer, lambda: take_step(optimizer))
    other, twin = made(fused=True)
    other.data.copy_(parameter.data)
    twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(parameter, optimizer, lambda: take_step(optimizer))
    steps(other, twin, twin.step)
    assert torch.equal(parameter, other)


def test_flattened_parameters_keep_their_values_and_are_views_in_their_order():
    module = nn.Sequential(nn.Linear(3, 2), nn.Conv2d(2, 4, 3).to(memory_format=torch.channels_last))
    parameters = list(module.parameters())
    before = [parameter.detach().clone() for parameter in parameters]
    flat = flattened([*parameters, parameters[0]])
    assert flat.numel() == sum(map(torch.numel, before))
    assert all(torch.equal(new, old) for new, old in zip(parameters, before, strict=True))
    assert is_view(parameters[0], flat)
    flat.data.zero_()
    assert not any(bool(parameter.any()) for parameter in parameters)


def test_an_adam_made_without_its_constructor_is_one_made_with_it():
    one, theirs = made(fused=True, eps=1e-4)
    own = adam(nn.Parameter(one.detach().clone()), 0.1, 1e-4)
    assert vars(own).keys() >= vars(copy.deepcopy(theirs)).keys()
    assert own.state_dict() == theirs.state_dict()
    assert own.defaults == theirs.defaults
    other = own.param_groups[0]["params"][0]
    steps(one, theirs, theirs.step)
    steps(other, own, lambda: take_step(own))
    assert torch.equal(one, other)
    assert equal(own.state_dict(), theirs.state_dict())
    assert equal(state_of(own), theirs.state_dict()["state"])
    steps(one, theirs, theirs.step)
    steps(other, own, own.step)  # whoever calls its own step goes on from there
    assert torch.equal(one, other)
    assert own.register_step_post_hook(lambda *given: None) is not None
    torch.optim.lr_scheduler.StepLR(own, 1)


TRAINS = """
import sys
from tests.runs import agent_of, tiny_run
for recipe in {recipes}:
    with agent_of(*tiny_run(recipe)) as agent:
        agent.train(64)
        agent.load_state_dict(agent.state_dict())
        if "torch._dynamo" in sys.modules:
            sys.exit(recipe)
"""


# It takes more than a second of every process that trains.
def test_training_and_its_state_do_not_import_torchs_compiler():
    recipes = ("ppo", "recurrent_ppo", "daac", "sac", "td3", "dqn")  # others' optimisers take their own steps
    done = subprocess.run([sys.executable, "-c", TRAINS.format(recipes=recipes)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
