import pytest
import torch

from hsw.network import ActorCritic, DecoupledActorCritic
from hsw.spaces import read_space
from tests.helpers import ACTION_SPACES, OBS_SPACES, draw, tensors

B = 3
POLICIES = [ActorCritic, DecoupledActorCritic]
kinds = pytest.mark.parametrize("kind", POLICIES, ids=lambda kind: kind.__name__)


def build(kind, obs="box", action="discrete", **kwargs):
    return kind(OBS_SPACES[obs], ACTION_SPACES[action], hidden_sizes=(16,), **kwargs)


def some_obs(obs="box"):
    return tensors(draw(OBS_SPACES[obs], B, 0))


@kinds
@pytest.mark.parametrize("action", ACTION_SPACES)
@pytest.mark.parametrize("obs", OBS_SPACES)
def test_act_gives_actions_of_the_space_and_the_extras_it_announces(kind, obs, action):
    policy, spec = build(kind, obs, action), read_space(ACTION_SPACES[action])
    for deterministic in (False, True):
        actions, extras = policy.act(some_obs(obs), deterministic)
        assert actions.shape == (B, *spec.shape)
        assert actions.dtype == spec.torch_dtype
        assert tuple(extras) == policy.extras
        assert all(extra.shape == (B,) for extra in extras.values())


# A ratio of 1 at the first minibatch needs it.
@kinds
@pytest.mark.parametrize("action", ACTION_SPACES)
def test_evaluate_agrees_with_act(kind, action):
    policy, obs = build(kind, action=action), some_obs()
    actions, extras = policy.act(obs)
    log_probs, entropies, last = policy.evaluate(obs, actions)
    torch.testing.assert_close(log_probs, extras["log_probs"])
    torch.testing.assert_close(last, extras["values" if kind is ActorCritic else "adv_preds"])
    torch.testing.assert_close(policy.value(obs), extras["values"])
    assert entropies.shape == (B,)


@kinds
def test_deterministic_actions_repeat_and_draw_no_random_numbers(kind):
    policy, obs = build(kind, action="box"), some_obs()
    before = torch.get_rng_state()
    assert torch.equal(policy.act(obs, True)[0], policy.act(obs, True)[0])
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(policy.act(obs)[0], policy.act(obs)[0])


@kinds
def test_the_policy_starts_near_uniform(kind):
    policy = build(kind)
    entropies = policy.evaluate(some_obs(), torch.zeros(B, dtype=torch.int64))[1]
    torch.testing.assert_close(entropies, torch.full((B,), 3.0).log(), rtol=0.01, atol=0)


def gradients(policy, loss):
    """Names of the parameters that a loss reaches."""
    policy.zero_grad()
    loss.backward()
    return {name.split(".")[0] for name, p in policy.named_parameters() if p.grad is not None and p.grad.any()}


# Seen elsewhere: DAAC's "decoupled" critic read the actor's encoder.
@pytest.mark.parametrize("obs", OBS_SPACES)
def test_decoupled_networks_share_no_parameter_and_no_gradient(obs):
    policy = build(DecoupledActorCritic, obs)
    ids = {kind: {id(p) for p in getattr(policy, f"{kind}_parameters")()} for kind in ("policy", "value")}
    assert not ids["policy"] & ids["value"]
    assert ids["policy"] | ids["value"] == {id(p) for p in policy.parameters()}
    inputs = some_obs(obs)
    log_probs, _, adv_preds = policy.evaluate(inputs, torch.zeros(B, dtype=torch.int64))
    assert gradients(policy, policy.value(inputs).square().sum()) == {"value_encoder", "value_head"}
    assert gradients(policy, log_probs.sum() + adv_preds.sum()) == {"encoder", "policy_head", "advantage_head"}


# Seen elsewhere: an iterator of parameters was empty after the optimiser had read it.
def test_parameter_lists_can_be_read_twice():
    policy = build(DecoupledActorCritic)
    for parameters in (policy.policy_parameters(), policy.value_parameters()):
        assert len(list(parameters)) == len(list(parameters)) > 0


@pytest.mark.parametrize(
    ("obs", "shared", "expected"), [("box", None, False), ("image", None, True), ("box", True, True)]
)
def test_encoder_is_shared_for_images_or_if_asked(obs, shared, expected):
    policy, inputs = build(ActorCritic, obs, shared=shared), some_obs(obs)
    reached = gradients(policy, policy.value(inputs).square().sum())
    assert reached == ({"encoder", "value_head"} if expected else {"value_encoder", "value_head"})


@pytest.mark.parametrize("action", ACTION_SPACES)
def test_the_advantage_depends_on_the_action(action):
    policy = build(DecoupledActorCritic, action=action)
    obs = {name: part[:1].expand(8, -1) for name, part in {"x": some_obs()}.items()}["x"]
    actions, extras = policy.act(obs)
    different = (actions != actions[0]).flatten(1).any(1) if actions.ndim > 1 else actions != actions[0]
    assert different.any()
    assert (extras["adv_preds"][different] != extras["adv_preds"][0]).all()
