"""Networks in bfloat16, and compiled: what comes out is float32, and parameters stay what they were."""

from __future__ import annotations

import copy
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from hsw import device as devices
from hsw.device import require_precision
from hsw.errors import ConfigError
from hsw.network import (
    ActorCritic,
    DecoupledActorCritic,
    DeterministicActorCritic,
    MemoryActorCritic,
    Policy,
    QNetwork,
    RecurrentActorCritic,
    SoftActorCritic,
)
from hsw.network import forward as forwards
from hsw.network.forward import adapt, is_adapted

VECTOR, IMAGE = Box(-1, 1, (4,), np.float32), Box(0, 255, (84, 84, 4), np.uint8)
CHOICES, RANGE = Discrete(3), Box(-1, 1, (2,), np.float32)
POLICIES: dict[str, Any] = {
    "actor_critic": lambda: ActorCritic(VECTOR, CHOICES),
    "images": lambda: ActorCritic(IMAGE, CHOICES),
    "decoupled": lambda: DecoupledActorCritic(VECTOR, CHOICES),
    "lstm": lambda: MemoryActorCritic(VECTOR, CHOICES),
    "gru": lambda: MemoryActorCritic(VECTOR, CHOICES, cell="gru"),
    "recurrent": lambda: RecurrentActorCritic(VECTOR, CHOICES, lstm_size=8),
    "soft": lambda: SoftActorCritic(VECTOR, RANGE),
    "deterministic": lambda: DeterministicActorCritic(VECTOR, RANGE),
    "q": lambda: QNetwork(VECTOR, CHOICES),
}


@pytest.fixture(autouse=True)
def _warnings_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwards, "_failures", [])


def outputs(policy: Any, obs: torch.Tensor) -> list[torch.Tensor]:
    """What losses reckon with."""
    n = len(obs)
    if isinstance(policy, MemoryActorCritic):
        actions = torch.zeros(n, dtype=torch.int64)
        return list(policy.evaluate(obs, actions, torch.zeros(2, policy.core_dim), torch.tensor([n - 2, 2])))
    if isinstance(policy, RecurrentActorCritic):
        memory = policy.initial_memory(n)
        inputs = (part.unsqueeze(0) for part in (obs, memory.last_actions, memory.last_rewards, memory.starts))
        return list(policy.unroll(*inputs, memory.core))
    if isinstance(policy, QNetwork):
        return [policy.values(obs)]
    if isinstance(policy, SoftActorCritic):
        torch.manual_seed(0)
        actions, log_probs = policy.sample(policy.encode(obs))
        return [log_probs, policy.values(policy.encode(obs), actions)]
    if isinstance(policy, DeterministicActorCritic):
        x = policy.encode(obs)
        return [policy.values(x, policy.actions(x))]
    return list(policy.evaluate(obs, torch.zeros(n, dtype=torch.int64)))


def observations(name: str) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randint(0, 256, (6, *IMAGE.shape), dtype=torch.uint8) if name == "images" else torch.rand(6, 4)


@pytest.mark.parametrize("name", POLICIES)
def test_bf16_is_within_the_networks_alone(name: str) -> None:
    torch.manual_seed(0)
    plain: Policy = POLICIES[name]()
    half, obs = copy.deepcopy(plain), observations(name)
    adapt(half, bf16=True)
    here, there = outputs(plain, obs), outputs(half, obs)
    assert any(not torch.equal(a, b) for a, b in zip(here, there, strict=True)), "nothing is in bfloat16"
    for a, b in zip(here, there, strict=True):
        assert b.dtype == torch.float32
        torch.testing.assert_close(b, a, rtol=0.05, atol=0.05)
    sum(part.sum() for part in there).backward()  # type: ignore[union-attr]
    for parameter in half.parameters():
        assert parameter.dtype == torch.float32
        assert parameter.grad is None or parameter.grad.dtype == torch.float32
    assert half.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("name", ["actor_critic", "recurrent", "gru"])
def test_acting_is_in_bf16_like_the_update(name: str) -> None:
    policy, obs = POLICIES[name](), observations(name)
    adapt(policy, bf16=True)
    with torch.no_grad():
        torch.manual_seed(0)
        _, plain = policy.act(obs)
        with policy.acting():
            torch.manual_seed(0)
            _, fast = policy.act(obs)
    assert torch.equal(plain["log_probs"], fast["log_probs"])


def test_a_copy_has_networks_of_its_own() -> None:
    policy, obs = POLICIES["actor_critic"](), observations("")
    adapt(policy, bf16=True, compiled=True)
    for other in (copy.deepcopy(policy), cloudpickle.loads(cloudpickle.dumps(policy))):
        with torch.no_grad():
            before = other.value(obs)
            for parameter in policy.parameters():
                parameter.add_(1)
            assert torch.equal(other.value(obs), before)
        assert vars(other.encoder)["forward"].module is other.encoder
        assert vars(other.encoder)["forward"].compiled is None


def test_a_policy_can_be_as_it_is_written_again() -> None:
    policy, obs = POLICIES["actor_critic"](), observations("")
    plain = policy.value(obs)
    adapt(policy, bf16=True)
    assert is_adapted(policy.encoder)
    adapt(policy)
    assert torch.equal(policy.value(obs), plain)


def test_a_device_without_bf16_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    require_precision("fp32", "cpu")
    monkeypatch.setattr(devices, "has_bf16", lambda device: False)
    require_precision("fp32", "cpu")
    with pytest.raises(ConfigError, match="precision=bf16, and cpu has no bfloat16; take precision=fp32"):
        require_precision("bf16", "cpu")


def test_what_cannot_be_compiled_computes_eagerly_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch, "compile", lambda function: _without_compiler)
    policy, obs = POLICIES["actor_critic"](), observations("")
    plain = policy.value(obs)
    adapt(policy, compiled=True)
    with caplog.at_level(logging.WARNING, "hsw"):
        for _ in range(2):
            assert torch.equal(policy.value(obs), plain)
            outputs(policy, obs)
    assert len(caplog.messages) == 1
    assert "is not compiled (RuntimeError: no C++ compiler); the run computes eagerly" in caplog.text


def _without_compiler(*args: Any, **named: Any) -> Any:
    raise RuntimeError("no C++ compiler")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["actor_critic", "images", "soft"])
def test_compiled_networks_compute_the_same(name: str, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    plain: Policy = POLICIES[name]()
    fast, obs = copy.deepcopy(plain), observations(name)
    adapt(fast, compiled=True)
    losses = []
    for policy in (plain, fast):
        found = outputs(policy, obs)
        sum(part.square().sum() for part in found).backward()  # type: ignore[union-attr]
        losses.append(found)
    torch.testing.assert_close(*losses)
    for (key, a), b in zip(plain.named_parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad, msg=key)
    assert "computes eagerly" not in caplog.text


@pytest.mark.slow
def test_a_missing_compiler_is_one_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hsw.train", "compile=true", "num_train_steps=300", "storage.num_steps=16"]
    run = tmp_path / "run"
    env = {**os.environ, "CXX": "/nowhere/g++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    common = [f"hydra.run.dir={run}", "quiet=true", "eval_episodes=1", "device=cpu"]
    subprocess.run([*command, *common], check=True, env=env, capture_output=True)
    told = [line for line in (run / "train.log").read_text().splitlines() if "the run computes eagerly" in line]
    assert len(told) == 1
    assert "is not compiled" in told[0]
