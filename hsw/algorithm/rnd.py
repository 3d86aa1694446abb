"""Random network distillation: what a network cannot yet predict is new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from hsw.algorithm.flat import flattened, optimizer_template
from hsw.algorithm.intrinsic import IntrinsicReward, Transitions
from hsw.bounds import Range
from hsw.moments import merge_ranks, told
from hsw.network.encoder import Encoder, make_encoder
from hsw.network.layers import orthogonal
from hsw.ranks import current
from hsw.schedule import Schedule, factor
from hsw.spaces import SpaceLike, SpaceSpec, leaves, read_space, split_mask, tree_map, without_mask
from hsw.template import hold

_OBS_CLIP = 5.0


class RND(IntrinsicReward):
    """The squared error of a predictor of a fixed random network's features of where a step led (Burda et al. 2018,
    arXiv:1810.12894), over the running standard deviation of its discounted sum.

    That sum goes on over the ends of episodes. Observations are normalised by running moments and clipped to ±5;
    choices and masks of actions are left out of the moments and the input respectively.

    Args:
        observation_space: In any form that read_space takes.
        encoder, hidden_sizes, activation: Of both networks, as in ActorCritic; bytes enter as numbers, normalised.
        num_features: Of the random network.
        lr: Adam's, of the predictor.
        coef: Weight of the reward.
        coef_schedule: Of coef, over the run's steps.
        discount: Of the sum whose standard deviation scales the reward.
        num_epochs, num_mini_batch: Passes of the predictor over what it is shown, and their parts.
        update_proportion: Part of the transitions that it learns from in each pass.
        eps: Adam's.
        seed: Of the rows that the predictor learns from.
    """

    def __init__(
        self,
        observation_space: SpaceLike,
        encoder: Encoder = "auto",
        hidden_sizes: Annotated[Sequence[int], Range(1)] = (128, 128),
        activation: Literal["tanh", "relu", "elu"] = "relu",
        num_features: Annotated[int, Range(1)] = 64,
        lr: Annotated[float, Range(0)] = 1e-4,
        coef: Annotated[float, Range(0)] = 1.0,
        coef_schedule: Schedule = "constant",
        discount: Annotated[float, Range(0, 1)] = 0.99,
        num_epochs: Annotated[int, Range(1)] = 4,
        num_mini_batch: Annotated[int, Range(1)] = 4,
        update_proportion: Annotated[float, Range(0, 1, open_low=True)] = 0.25,
        eps: Annotated[float, Range(0, open_low=True)] = 1e-8,
        seed: Annotated[int, Range(0)] = 0,
    ) -> None:
        space = read_space(observation_space)
        self._masked = space.masked
        self._space = without_mask(space) if space.masked else space
        self.coef, self.coef_schedule, self.discount = coef, coef_schedule, discount
        self.num_epochs, self.num_mini_batch, self.update_proportion = num_epochs, num_mini_batch, update_proportion
        self.progress = 0.0  # as an algorithm's; the loop sets it

        def network(hidden: int) -> nn.Sequential:
            made = make_encoder(encoder, _as_numbers(self._space), hidden_sizes, activation)
            head: list[nn.Module] = [orthogonal(nn.Linear(made.out_dim, num_features), 1.0)]
            for _ in range(hidden):  # the predictor is deeper than what it predicts, as the authors' is
                head = [orthogonal(nn.Linear(made.out_dim, made.out_dim), 2**0.5), nn.ReLU(), *head]
            return nn.Sequential(made, *head)

        self.target, self.predictor = network(0).requires_grad_(False), network(2)
        self._optimizer = torch.optim.Adam([flattened(list(self.predictor.parameters()))], lr=lr, eps=eps)
        numbers = [torch.zeros(part.shape, dtype=torch.float64) for part in leaves_of(self._space)]
        self._obs_moments = [(zeros, torch.ones_like(zeros), 0.0) for zeros in numbers]
        one = torch.ones((), dtype=torch.float64)
        self._scale: tuple[Any, Any, Any] = one * 0, one, 0.0  # mean, variance and count of the discounted sums
        self._sums: Tensor | None = None  # [N]
        self._generator = torch.Generator().manual_seed(seed)

    def observe(self, transitions: Transitions) -> None:
        """Take transitions into the moments: their observations, and the discounted sums of their errors."""
        obs, valid = self._seen(transitions.next_obs), transitions.valid
        for i, (part, spec) in enumerate(zip(leaves(obs), leaves_of(self._space), strict=True)):
            if _has_moments(spec):
                self._obs_moments[i] = _merged(self._obs_moments[i], part[valid])
        if transitions.num_envs:
            errors = self.errors(transitions.next_obs).view(-1, transitions.num_envs)
            self._add_sums(errors, valid.view_as(errors), transitions.continued)

    def _add_sums(self, errors: Tensor, valid: Tensor, continued: bool) -> None:
        sums, told_sums = self._sums if continued else None, []
        sums = torch.zeros_like(errors[0]) if sums is None else sums.to(errors)
        for error, counts in zip(errors, valid, strict=True):
            sums = torch.where(counts, self.discount * sums + error, sums)
            told_sums.append(sums)
        if continued:
            self._sums = sums
        self._scale = _merged(self._scale, torch.stack(told_sums)[valid])

    def rewards(self, transitions: Transitions) -> Tensor:
        scale = float(self._scale[1]) ** 0.5 + 1e-8
        coef: float = factor(self.coef_schedule, self.progress) * self.coef
        bonus: Tensor = self.errors(transitions.next_obs) * (coef / scale)
        return bonus

    def errors(self, obs: Any) -> Tensor:
        """The predictor's mean squared error, [K], at observations, [K, *shape] or a dict of them."""
        with torch.no_grad():
            normalized = self._normalized(self._seen(obs))
            error: Tensor = (self.predictor(normalized) - self.target(normalized)).square().mean(-1)
        return error

    def update(self, transitions: Transitions) -> dict[str, float]:
        rows = transitions.valid.nonzero().squeeze(1).cpu()
        obs, losses = self._normalized(self._seen(transitions.next_obs)), []
        for _ in range(self.num_epochs):
            kept = rows[torch.rand(len(rows), generator=self._generator) < self.update_proportion]
            kept = kept[torch.randperm(len(kept), generator=self._generator)]
            for chosen in kept.tensor_split(self.num_mini_batch):
                losses.append(self._descend(tree_map(lambda part, chosen=chosen: part[chosen.to(part.device)], obs)))
        return {"rnd_loss": float(torch.stack(losses).mean()), "rnd_scale": float(self._scale[1]) ** 0.5}

    def _descend(self, obs: Any) -> Tensor:
        """One step on a minibatch, which may be empty. Returns the loss."""
        gradient, count = self._optimizer.param_groups[0]["params"][0].grad, len(next(leaves(obs)))
        gradient.zero_()
        loss = gradient.new_zeros(())
        if count:
            with torch.no_grad():
                wanted = self.target(obs)
            loss = (self.predictor(obs) - wanted).square().mean()
            torch.autograd.backward(loss)
        gradient.copy_(current().weighted_mean(gradient, count))
        if current().total(count):
            self._optimizer.step()
        told_loss: Tensor = loss.detach()
        return told_loss

    def _seen(self, obs: Any) -> Any:
        """Observations without their masks; the networks go where these are."""
        rest = split_mask(obs)[0] if self._masked else obs
        device = next(leaves(rest)).device
        if self._optimizer.param_groups[0]["params"][0].device != device:
            self._move(device)
        return rest

    def _move(self, device: torch.device) -> None:
        self.target.to(device), self.predictor.to(device)
        old = self._optimizer
        group = {key: old.param_groups[0][key] for key in ("lr", "eps")}
        self._optimizer = torch.optim.Adam([flattened(list(self.predictor.parameters()))], **group)
        self._optimizer.load_state_dict(old.state_dict())

    def _normalized(self, obs: Any) -> Any:
        moments = iter(self._obs_moments)

        def scaled(part: Any, spec: SpaceSpec) -> Any:
            if spec.type == "Dict":
                return {key: scaled(part[key], spec.spaces[key]) for key in sorted(spec.spaces)}
            mean, var, _ = (torch.as_tensor(one, device=part.device) for one in next(moments))
            if not _has_moments(spec):
                return part
            return ((part - mean) / (var + 1e-8).sqrt()).clamp(-_OBS_CLIP, _OBS_CLIP).float()

        return scaled(obs, self._space)

    def state_dict(self) -> dict[str, Any]:
        return {
            "target": self.target.state_dict(),
            "predictor": self.predictor.state_dict(),
            "optimizer": self._optimizer.state_dict()["state"],
            "obs_moments": [_plain(one) for one in self._obs_moments],
            "scale": _plain(self._scale),
            "sums": self._sums,
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.target.load_state_dict(state["target"])
        self.predictor.load_state_dict(state["predictor"])
        if state["optimizer"]:
            hold(optimizer_template(self._optimizer), state["optimizer"], "intrinsic_reward/optimizer")
            self._optimizer.load_state_dict(
                {"state": state["optimizer"], "param_groups": self._optimizer.state_dict()["param_groups"]}
            )
        self._obs_moments = [_moments(one) for one in state["obs_moments"]]
        self._scale, self._sums = _moments(state["scale"]), state["sums"]
        self._generator.set_state(state["generator"])


def leaves_of(space: SpaceSpec) -> list[SpaceSpec]:
    """A space, or every part of a Dict, in the order of `leaves`."""
    if space.type != "Dict":
        return [space]
    return [leaf for key in sorted(space.spaces) for leaf in leaves_of(space.spaces[key])]


def _has_moments(spec: SpaceSpec) -> bool:
    return spec.type == "Box"


def _as_numbers(space: SpaceSpec) -> SpaceSpec:
    """The space of normalised observations: bytes are no longer bytes."""
    if space.type == "Dict":
        return SpaceSpec("Dict", spaces={key: _as_numbers(part) for key, part in space.spaces.items()})
    return replace(space, dtype="float32", low=-_OBS_CLIP, high=_OBS_CLIP) if _has_moments(space) else space


def _merged(moments: tuple[Any, Any, Any], rows: Tensor) -> tuple[Any, Any, Any]:
    """Moments with rows, [K, *shape], of all ranks."""
    parts = current().stack(told(rows)).cpu()
    return merge_ranks(*moments, parts)


def _plain(moments: tuple[Any, Any, Any]) -> dict[str, Any]:
    return {"mean": moments[0], "var": moments[1], "count": float(moments[2])}


def _moments(state: dict[str, Any]) -> tuple[Any, Any, Any]:
    return state["mean"], state["var"], state["count"]
