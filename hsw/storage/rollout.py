"""On-policy memory: one window of T steps of N environments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from hsw.bounds import Range
from hsw.device import move_owned
from hsw.errors import ConfigError
from hsw.returns import gae
from hsw.signatures import method_parameters
from hsw.spaces import SpaceLike, read_space, tree_map
from hsw.storage.base import Storage, gather
from hsw.storage.batches import RolloutBatch
from hsw.storage.rows import RowWriter, warn_if_reset
from hsw.storage.templates import rollout_template
from hsw.transfer import to_device


class RolloutStorage(Storage):
    """A rollout for PPO.

    Observations are kept once, as [T + 1, N, ...]: row t + 1 is where step t led, so it serves as next_obs too. Rows
    that are not valid (resets) are kept for the alignment of time and left out of every batch.

    Args:
        observation_space, action_space: In any form that read_space takes.
        device: Where the tensors live.
        num_steps: T.
        num_envs: N.
        discount, gae_lambda: Of the advantages.
    """

    Batch: ClassVar[Any] = RolloutBatch

    def __init__(
        self,
        observation_space: SpaceLike,
        action_space: SpaceLike,
        device: str = "cpu",
        num_steps: Annotated[int, Range(1)] = 256,
        num_envs: Annotated[int, Range(1)] = 8,
        discount: Annotated[float, Range(0, 1)] = 0.99,
        gae_lambda: Annotated[float, Range(0, 1)] = 0.95,
    ) -> None:
        super().__init__(num_steps, device, None, None)
        self.observation_space = read_space(observation_space)
        self.action_space = read_space(action_space)
        self.num_steps, self.num_envs = num_steps, num_envs
        self.discount, self.gae_lambda = discount, gae_lambda
        self.step = 0
        # Memory, allocated by the first row; [T, N, ...], obs and values with one row more.
        self.obs: Any = None
        self.actions: Tensor
        self.rewards: Tensor
        self.terminateds: Tensor
        self.truncateds: Tensor
        self.valid: Tensor
        self.log_probs: Tensor
        self.values: Tensor
        self.advantages: Tensor
        self.returns: Tensor
        self.ready = False  # returns and advantages are computed

    @classmethod
    def extras(cls) -> tuple[str, ...]:
        """The fields that the policy contributes: what add takes after next_obs, itself or through its **kwargs."""
        names = [name for name in method_parameters(cls, "add") if name != "valid"]
        if "next_obs" not in names:
            raise ConfigError(f"{cls.__name__}.add must take next_obs, by name or through **kwargs")
        return tuple(names[names.index("next_obs") + 1 :])

    def to(self, device: torch.device | str) -> None:
        super().to(device)
        if self.obs is not None:
            move_owned(self, self.device)
            self._view_rows()

    @property
    def full(self) -> bool:
        return self.step == self.num_steps

    def init_tensors(self, sample: dict[str, Any]) -> None:
        rows, num_envs, device = self.num_steps, self.num_envs, self.device
        self.obs = self.observation_space.empty(rows + 1, num_envs, device=device)
        self.actions = self.action_space.empty(rows, num_envs, device=device)
        self.rewards = torch.zeros(rows, num_envs, device=device)
        for name in ("terminateds", "truncateds", "valid"):
            setattr(self, name, torch.zeros(rows, num_envs, dtype=torch.bool, device=device))
        for name in self.extras():
            # One row more for the values: V of the last observation completes V_next.
            setattr(self, name, torch.zeros(rows + (name == "values"), num_envs, device=device))
        self.advantages = torch.zeros(rows, num_envs, device=device)
        self.returns = torch.zeros(rows, num_envs, device=device)
        self._view_rows()

    def _view_rows(self) -> None:
        self._led_to: Any = None  # the last next_obs, which stands in the next row already
        self._writer = RowWriter(self.device, self.num_envs)
        self._rows = {name: self._writer.views(getattr(self, name)) for name in self._row_fields()}

    def add(
        self,
        obs: Any,
        actions: Any,
        rewards: Any,
        terminateds: Any,
        truncateds: Any,
        next_obs: Any,
        log_probs: Any,
        values: Any,
        *,
        valid: Any = None,
    ) -> None:
        """Store one step of every environment.

        Args:
            obs: What the policy saw, [N, *shape] or a dict of them.
            actions: [N, *action_shape]; discrete ones [N] or [N, 1].
            rewards, terminateds, truncateds: Of the step, [N] or [N, 1].
            next_obs: Where the step led, also at a done; the next row's obs.
            log_probs, values: The policy's, [N] or [N, 1].
            valid: False on reset rows, [N]; None means that every row is valid.

        Raises:
            ConfigError: If the rollout is full already.
        """
        self._insert(
            obs, actions, rewards, terminateds, truncateds, next_obs, valid, {"log_probs": log_probs, "values": values}
        )

    def insert_transition(self, sample: dict[str, Any]) -> None:
        self.add(**sample)

    def _insert(
        self,
        obs: Any,
        actions: Any,
        rewards: Any,
        terminateds: Any,
        truncateds: Any,
        next_obs: Any,
        valid: Any,
        extras: dict[str, Any],
    ) -> None:
        if self.obs is None:
            self.init_tensors({"obs": obs, "actions": actions})
        if self.full:
            raise ConfigError(f"the rollout of {self.num_steps} steps is full; update() or reset() begins the next one")
        t, rows, writer = self.step, self._rows, self._writer
        if valid is None:
            if t > 0:
                warn_if_reset(self.truncateds[t - 1], tree_map(lambda part: part[t], self.obs), obs)
            valid, self._led_to = True, None
        if t == 0 or obs is not self._led_to:  # a loop hands the same observation in twice
            writer.write(rows["obs"], t, obs)
        writer.write(rows["obs"], t + 1, next_obs)  # row t + 1's obs, and the last row's only record of where it led
        self._led_to = next_obs
        writer.write(rows["actions"], t, actions)
        rows["valid"][t] = writer.flat(valid)
        rows["rewards"][t] = writer.flat(rewards)
        rows["terminateds"][t] = writer.flat(terminateds)
        rows["truncateds"][t] = writer.flat(truncateds)
        for name, extra in extras.items():
            rows[name][t] = writer.flat(extra)
        self.step += 1

    def truncate(self) -> None:
        """Cut the episodes that are running after the last row, because their environments could not be restored."""
        if self.step > 0:
            self.truncateds[self.step - 1] |= self.valid[self.step - 1] & ~self.terminateds[self.step - 1]

    def compute_returns_and_advantages(self, last_values: Any) -> None:
        """Fill advantages (not normalised) and returns = advantages + values.

        Args:
            last_values: V of the last row's next_obs, [N] or [N, 1].

        Raises:
            ConfigError: If the rollout is not full.
        """
        self._require_full()
        self.values[-1] = torch.as_tensor(last_values, device=self.device).detach().reshape(self.num_envs)
        flags = self.terminateds, self.truncateds
        advantages = gae(self.rewards, self.values, *flags, self.discount, self.gae_lambda, self.valid)
        self.advantages.copy_(advantages)
        torch.add(self.advantages, self.values[:-1], out=self.returns)
        self.ready = True

    def before_gradients(self, actor: Any, algo: Any, *args: Any) -> None:
        """Value the last observation with the actor and compute returns and advantages."""
        self._require_full()
        with torch.no_grad():
            last_values = actor.value(tree_map(lambda part: part[-1], self.obs))
        self.compute_returns_and_advantages(last_values)

    def generate_batches(
        self,
        num_mini_batch: int,
        mini_batch_size: int | None = None,
        num_epochs: int = 1,
        *args: Any,
        shuffle: bool = True,
    ) -> Iterator[Any]:
        """Minibatches that cover every valid row exactly once per epoch; their sizes differ by at most one.

        Args:
            num_mini_batch: Number of minibatches per epoch.
            mini_batch_size: None, or the largest size that num_mini_batch implies.
            num_epochs: Passes over the rollout, each in a new order.
            shuffle: False keeps the order of time.

        Raises:
            ConfigError: If the rollout is not complete, or cannot be split so.
        """
        self._require_full()
        if not self.ready:
            raise ConfigError("call compute_returns_and_advantages before drawing batches")
        rows = self.valid.flatten().nonzero().squeeze(1)
        if not 1 <= num_mini_batch <= len(rows):
            raise ConfigError(
                f"{len(rows)} transitions cannot make {num_mini_batch} minibatches; "
                "lower algorithm.num_mini_batch or raise storage.num_steps"
            )
        implied = -(-len(rows) // num_mini_batch)
        if mini_batch_size is not None and mini_batch_size != implied:
            raise ConfigError(
                f"mini_batch_size={mini_batch_size} contradicts num_mini_batch={num_mini_batch}: {len(rows)} "
                f"transitions make minibatches of {implied}; leave mini_batch_size out"
            )
        return self._batches(rows, num_mini_batch, num_epochs, shuffle)

    def _batches(self, rows: Tensor, num_mini_batch: int, num_epochs: int, shuffle: bool) -> Iterator[Any]:
        flat = {name: tree_map(lambda part: part.flatten(0, 1), self._windowed(name)) for name in self._batch_fields()}
        for _ in range(num_epochs):
            order = torch.randperm(len(rows), generator=self.generator) if shuffle else torch.arange(len(rows))
            for indices in rows[to_device(order, rows.device)].tensor_split(num_mini_batch):
                yield self.on_batch(self.Batch(**{name: gather(field, indices) for name, field in flat.items()}))

    def sample(self, num_mini_batch: int = 8) -> Iterator[Any]:
        """One epoch of shuffled minibatches."""
        return self.generate_batches(num_mini_batch)

    def after_gradients(self, actor: Any, algo: Any, info: dict[str, Any], *args: Any) -> dict[str, Any]:
        """Begin the next rollout. Returns info unchanged."""
        self.update()
        return info

    def update(self) -> None:
        """Begin the next rollout where this one ended: its last observation becomes row 0."""
        if self.obs is not None:
            tree_map(lambda part: part[0].copy_(part[self.step]), self.obs)
        self.reset()

    def reset(self) -> None:
        self.step = 0
        self.ready = False

    def get_all_buffer_data(self, data_to_cpu: bool = False) -> dict[str, Any]:
        """Every field stored so far: obs with one row more than the others. Copies."""
        if self.obs is None:
            return {}
        stored = {name: self._windowed(name, self.step) for name in self._row_fields()}
        stored["obs"] = tree_map(lambda part: part[: self.step + 1], self.obs)
        copied = (lambda part: part.clone().cpu()) if data_to_cpu else (lambda part: part.clone())
        return {name: tree_map(copied, field) for name, field in stored.items()}

    def insert_data_slice(self, new_data: dict[str, Any]) -> None:
        self.reset()
        if not new_data:
            return
        if self.obs is None:
            self.init_tensors({})
        missing = sorted(set(self._row_fields()) - set(new_data))
        num_rows = len(new_data["rewards"])
        if missing or num_rows > self.num_steps:
            raise ConfigError(f"cannot take {num_rows} of {self.num_steps} rows; missing fields: {missing}")
        for name in self._row_fields():
            tree_map(lambda part, new: part[: len(new)].copy_(new), getattr(self, name), new_data[name])
        self.step = num_rows

    def state_dict(self) -> dict[str, Any]:
        # An update that is to come finds what before_gradients made, which does not run twice.
        made = {"advantages": self.advantages, "returns": self.returns, "values": self.values} if self.ready else {}
        return {
            "data": self.get_all_buffer_data(data_to_cpu=True),
            "made": {name: part.clone().cpu() for name, part in made.items()},
            "generator": self.generator.get_state(),
        }

    def state_template(self) -> Any:
        return {**super().state_template(), **rollout_template(self, self._row_fields())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.insert_data_slice(state["data"])
        self._led_to = None
        made = state.get("made", {})  # a checkpoint of hsw 0.1 has none
        for name, part in made.items():
            getattr(self, name).copy_(part)
        self.ready = bool(made)
        self.generator.set_state(state["generator"])

    def _row_fields(self) -> tuple[str, ...]:
        return ("obs", "actions", "rewards", "terminateds", "truncateds", "valid", *self.extras())

    def _batch_fields(self) -> tuple[str, ...]:
        return tuple(field.name for field in fields(self.Batch))

    def _windowed(self, name: str, rows: int | None = None) -> Any:
        return tree_map(lambda part: part[: self.num_steps if rows is None else rows], getattr(self, name))

    def _require_full(self) -> None:
        if not self.full:
            raise ConfigError(f"the rollout holds {self.step} of {self.num_steps} steps; fill it before learning")
