"""Action distributions as plain functions of the policy head's output.

They do what torch.distributions does for the four kinds of action spaces, without its argument checks, which cost as
much as a small network. Samples come from torch's global generator.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from hsw.errors import ConfigError
from hsw.spaces import SpaceSpec

FEW_ROWS = 32  # with more of them it is arithmetic that counts, and not calls
# What a policy takes: a name, or a callable that takes the action space's SpaceSpec and returns a Distribution.
DistributionName = Literal["auto", "categorical", "multi_categorical", "bernoulli", "diag_gaussian"]
DistributionChoice = DistributionName | Callable[..., Any]


# Of a choice that is not allowed: its probability is 0, and 0 times its logarithm too, as that of -inf would not be.
_NEVER = torch.finfo(torch.float32).min


def masked(scores: Tensor, mask: Tensor) -> Tensor:
    """Scores of choices, [..., n], so low where mask is 0 that no choice falls on them (Huang & Ontañón 2020,
    arXiv:2006.14171)."""
    return scores.masked_fill(mask == 0, _NEVER)


class Distribution(nn.Module, ABC):
    """What the policies ask of an action distribution; params are their head's output, [B, params_dim]."""

    params_dim: int  # width of the policy head
    action_dim: int  # width of features

    @abstractmethod
    def sample(self, params: Tensor) -> Tensor:
        """Actions, [B, *action_shape]."""

    @abstractmethod
    def mode(self, params: Tensor) -> Tensor:
        """The most likely actions, [B, *action_shape]."""

    @abstractmethod
    def log_prob_and_entropy(self, params: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities of actions, and entropies, [B] each."""

    @abstractmethod
    def features(self, actions: Tensor) -> Tensor:
        """Actions as the input of another head, [B, action_dim]: one-hot where they are choices."""

    def log_prob(self, params: Tensor, actions: Tensor) -> Tensor:
        """Log-probabilities of actions, [B]."""
        return self.log_prob_and_entropy(params, actions)[0]

    def masked(self, params: Tensor, mask: Tensor) -> Tensor:
        """params of a distribution over the allowed actions alone.

        Args:
            params: [..., params_dim].
            mask: Not 0 where an action is allowed, [..., params_dim].
        """
        raise ConfigError(f"{type(self).__name__} has no choices to mask; set env.action_mask=none")

    def choose(self, params: Tensor, deterministic: bool) -> tuple[Tensor, Tensor]:
        """Samples, or the mode, and their log-probabilities."""
        actions = self.mode(params) if deterministic else self.sample(params)
        return actions, self.log_prob(params, actions)


class Categorical(Distribution):
    """One of n choices. Actions are int64, [B] or [B, 1]."""

    def __init__(self, space: SpaceSpec) -> None:
        super().__init__()
        self.params_dim = self.action_dim = space.nvec[0]

    def masked(self, params: Tensor, mask: Tensor) -> Tensor:
        return masked(params, mask)

    def sample(self, params: Tensor) -> Tensor:
        return self.choose(params, deterministic=False)[0]

    def mode(self, params: Tensor) -> Tensor:
        return params.argmax(-1)

    def choose(self, params: Tensor, deterministic: bool) -> tuple[Tensor, Tensor]:
        plain = params.is_cpu and not params.requires_grad and params.dtype == torch.float32
        if plain and not torch.compiler.is_compiling() and len(params) <= FEW_ROWS:
            chosen, its_log_probs = _raced(params.numpy(), None if deterministic else _noise(params).numpy())
            return torch.from_numpy(chosen), torch.from_numpy(its_log_probs)
        log_probs = params.log_softmax(-1)
        # argmax(p / Exp(1)) is distributed as p: the exponential race.
        race = log_probs if deterministic else log_probs.exp() / _noise(params)
        actions = race.argmax(-1, keepdim=True)
        return actions.squeeze(-1), log_probs.gather(-1, actions).squeeze(-1)

    def log_prob_and_entropy(self, params: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        log_probs = params.log_softmax(-1)
        entropy = -(log_probs.exp() * log_probs).sum(-1)
        return log_probs.gather(-1, actions.reshape(-1, 1)).squeeze(-1), entropy

    def features(self, actions: Tensor) -> Tensor:
        return nn.functional.one_hot(actions.reshape(-1), self.action_dim).float()


def _noise(params: Tensor) -> Tensor:
    return torch.empty_like(params).exponential_()


@np.errstate(over="ignore", invalid="ignore")  # infinite params make no numbers here, as they do in torch
def _raced(params: np.ndarray, noise: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Categorical.choose in NumPy, whose calls take a third of torch's time; without noise the mode."""
    shifted = params - params.max(-1, keepdims=True)
    odds = np.exp(shifted)
    actions = (shifted if noise is None else odds / noise).argmax(-1)
    chosen = shifted[np.arange(len(actions)), actions]
    return actions, chosen - np.log(odds.sum(-1))


class MultiCategorical(Distribution):
    """k independent choices. Actions are int64, [B, k]."""

    def __init__(self, space: SpaceSpec) -> None:
        super().__init__()
        self.nvec = list(space.nvec)
        self.params_dim = self.action_dim = sum(space.nvec)

    def masked(self, params: Tensor, mask: Tensor) -> Tensor:
        return masked(params, mask)

    def sample(self, params: Tensor) -> Tensor:
        race = [
            part.softmax(-1) / torch.empty_like(part).exponential_() for part in params.split_with_sizes(self.nvec, -1)
        ]
        return torch.stack([part.argmax(-1) for part in race], -1)

    def mode(self, params: Tensor) -> Tensor:
        return torch.stack([part.argmax(-1) for part in params.split_with_sizes(self.nvec, -1)], -1)

    def log_prob_and_entropy(self, params: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        parts = [part.log_softmax(-1) for part in params.split_with_sizes(self.nvec, -1)]
        log_probs = [part.gather(-1, actions[:, i : i + 1]).squeeze(-1) for i, part in enumerate(parts)]
        entropies = [-(part.exp() * part).sum(-1) for part in parts]
        return sum(log_probs[1:], log_probs[0]), sum(entropies[1:], entropies[0])

    def features(self, actions: Tensor) -> Tensor:
        hot = [nn.functional.one_hot(actions[:, i], n) for i, n in enumerate(self.nvec)]
        return torch.cat(hot, -1).float()


class Bernoulli(Distribution):
    """k independent coins. Actions are int8, [B, *shape]."""

    def __init__(self, space: SpaceSpec) -> None:
        super().__init__()
        self.shape = space.shape
        self.params_dim = self.action_dim = math.prod(space.shape)

    def sample(self, params: Tensor) -> Tensor:
        return torch.unflatten(params.sigmoid().bernoulli().to(torch.int8), -1, self.shape)

    def mode(self, params: Tensor) -> Tensor:
        return torch.unflatten((params > 0).to(torch.int8), -1, self.shape)

    def log_prob(self, params: Tensor, actions: Tensor) -> Tensor:
        ones = actions.reshape(params.shape).to(params.dtype)
        return -nn.functional.binary_cross_entropy_with_logits(params, ones, reduction="none").sum(-1)

    def log_prob_and_entropy(self, params: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        entropy = nn.functional.binary_cross_entropy_with_logits(params, params.sigmoid(), reduction="none").sum(-1)
        return self.log_prob(params, actions), entropy

    def features(self, actions: Tensor) -> Tensor:
        return actions.reshape(len(actions), -1).float()


class DiagGaussian(Distribution):
    """Independent normals with a log_std that does not depend on the state. Actions are float, [B, *shape].

    Actions are not clipped here: the log-probability is that of the sample, and the environment gets the clipped one.
    """

    def __init__(self, space: SpaceSpec) -> None:
        super().__init__()
        self.shape = space.shape
        self.params_dim = self.action_dim = math.prod(space.shape)
        self.log_std = nn.Parameter(torch.zeros(self.params_dim))

    @property
    def std(self) -> Tensor:
        """Of each action, [params_dim]."""
        return self.log_std.detach().exp()

    def sample(self, params: Tensor) -> Tensor:
        noise = torch.randn_like(params)
        return torch.unflatten(params + noise * self.log_std.exp(), -1, self.shape)

    def mode(self, params: Tensor) -> Tensor:
        return torch.unflatten(params, -1, self.shape)

    def log_prob(self, params: Tensor, actions: Tensor) -> Tensor:
        z = (actions.reshape(params.shape) - params) * (-self.log_std).exp()
        return -0.5 * (z * z).sum(-1) - self.log_std.sum() - 0.5 * math.log(2 * math.pi) * self.params_dim

    def log_prob_and_entropy(self, params: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        entropy = self.log_std.sum() + 0.5 * math.log(2 * math.pi * math.e) * self.params_dim
        return self.log_prob(params, actions), entropy.expand(len(params))

    def features(self, actions: Tensor) -> Tensor:
        return actions.reshape(len(actions), -1)


_KINDS: dict[str, tuple[str, Callable[[SpaceSpec], Distribution]]] = {
    "Discrete": ("categorical", Categorical),
    "MultiDiscrete": ("multi_categorical", MultiCategorical),
    "MultiBinary": ("bernoulli", Bernoulli),
    "Box": ("diag_gaussian", DiagGaussian),
}
_MEMBERS = ("params_dim", "action_dim", "sample", "mode", "log_prob", "log_prob_and_entropy", "choose", "features")


def make_distribution(space: SpaceSpec, distribution: DistributionChoice = "auto") -> Distribution:
    """The distribution for an action space; its params_dim is the width of the policy head.

    Args:
        space: Of the actions.
        distribution: "auto" takes the one for the kind of space. A callable takes the space and returns a Distribution,
            or a module with its members.

    Raises:
        ConfigError: If there is none, it does not take such actions, or it lacks a member.
    """
    if not isinstance(distribution, str):
        made = distribution(space)
        missing = [member for member in _MEMBERS if not hasattr(made, member)]
        if missing:
            raise ConfigError(f"{type(made).__name__} is no distribution of actions: it has no {', '.join(missing)}")
        own: Distribution = made
        return own
    if space.type not in _KINDS:
        raise ConfigError(f"{space.type} actions are not supported; supported are {', '.join(_KINDS)}")
    name, kind = _KINDS[space.type]
    if distribution not in ("auto", name):
        raise ConfigError(f"distribution={distribution} does not take {space.type} actions; use auto or {name}")
    return kind(space)
