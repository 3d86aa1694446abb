"""Ranks: the processes that train one set of weights together, and what they tell one another.

Each rank makes the same calls in the same order; a call returns when all have made it. A run of one process is SOLO, to
which every call is the identity.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from hsw.errors import ConfigError, WorkersLostError
from hsw.turns import Turns

if TYPE_CHECKING:
    from torch import Tensor

_START_SECONDS, _LOOK_SECONDS = 300.0, 0.05

# torch is imported by what needs it: a command's --help asks of_environment and must answer at once.


class Ranks(Turns):
    """This process among those that train together.

    Args:
        rank: Which one this is, from 0.
        size: How many there are.
        local_rank: Which one of this machine's.
        store: A torch.distributed.Store that all of them reach; SOLO needs none.
        timeout: Seconds after which a rank that does not answer counts as lost.
    """

    def __init__(self, rank: int, size: int, local_rank: int, store: Any = None, timeout: float = 0.0) -> None:
        super().__init__(rank, size, store, timeout)
        self.local_rank = local_rank
        # Any rank's raised flag travels with every weighted mean, after which all have heard of it.
        self.raised = self.heard = False

    # -- numbers, on the tensor's device --------------------------------------------------------------------------

    def sum_(self, tensor: Tensor) -> Tensor:
        """The tensor, which becomes the sum of all ranks' tensors: the same bits everywhere.

        Raises:
            WorkersLostError: If a rank is lost, here as in every method.
        """
        if self.size > 1:
            self._reach(lambda distributed: distributed.all_reduce(tensor))
        return tensor

    def mean_(self, tensor: Tensor) -> Tensor:
        """The tensor, which becomes the mean of all ranks' tensors."""
        return self.sum_(tensor).div_(self.size) if self.size > 1 else tensor

    def weighted_mean(self, tensor: Tensor, weight: Any) -> Tensor:
        """The mean of all ranks' tensors, each counted by its rank's weight, which is no less than 0.

        `heard` is then whether `raised` was set on any rank.
        """
        if self.size == 1:
            return tensor
        import torch

        rest = torch.as_tensor([0.0, self.raised]).to(tensor)
        rest[0] = weight
        whole = self.sum_(torch.cat([tensor.flatten() * rest[0], rest]))
        self.heard = bool(whole[-1] > 0)
        return (whole[:-2] / whole[-2].clamp(min=1e-30)).view_as(tensor)

    def stack(self, tensor: Tensor) -> Tensor:
        """All ranks' tensors of one shape, [size, *shape], in the order of ranks."""
        import torch

        if self.size == 1:
            return tensor[None]
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        self._reach(lambda distributed: distributed.all_gather(parts, tensor.contiguous()))
        return torch.stack(parts)

    def parts(self, tensor: Tensor) -> list[Tensor]:
        """Every rank's tensor, [K, ...] with a K of its own, in the order of ranks."""
        if self.size == 1:
            return [tensor]
        import torch

        lengths = self.stack(torch.tensor(len(tensor))).tolist()
        padded = tensor.new_zeros(max(lengths), *tensor.shape[1:])
        padded[: len(tensor)] = tensor
        return [part[:length] for part, length in zip(self.stack(padded), lengths, strict=True)]

    def broadcast_(self, tensor: Tensor) -> Tensor:
        """The tensor, which becomes rank 0's."""
        if self.size > 1:
            self._reach(lambda distributed: distributed.broadcast(tensor, src=0))
        return tensor

    # -- small plain data, on the CPU -----------------------------------------------------------------------------

    def total(self, number: Any) -> Any:
        """The sum of all ranks' numbers; of ints an int."""
        if self.size == 1:
            return number
        import torch

        kind = torch.int64 if isinstance(number, int) else torch.float64
        return self.sum_(torch.tensor(number, dtype=kind)).item()

    def where(self, flag: bool) -> list[int]:
        """The ranks whose flag is set, the same list everywhere."""
        if self.size == 1:
            return [0] if flag else []
        import torch

        flags = torch.zeros(self.size, dtype=torch.uint8)
        flags[self.rank] = flag
        return [int(rank) for rank in self.sum_(flags).nonzero()]

    def any(self, flag: bool) -> bool:
        """Whether any rank's flag is set."""
        return bool(self.where(flag))

    def exchange(self, values: dict[str, Any]) -> list[dict[str, Any]]:
        """Every rank's values, in the order of ranks.

        Args:
            values: What JSON can hold; it travels as such, and no pickle does.
        """
        if self.size == 1:
            return [values]
        import torch

        text = torch.frombuffer(bytearray(json.dumps(values).encode()), dtype=torch.uint8)
        return [json.loads(part.numpy().tobytes()) for part in self.parts(text)]

    def gather(self, values: dict[str, Any]) -> list[dict[str, Any]] | None:
        """What exchange gives, for rank 0; None for the others."""
        told = self.exchange(values)
        return told if self.is_first else None

    def barrier(self) -> None:
        """Wait until every rank is here."""
        self.total(0)

    def _reach(self, call: Callable[[Any], object]) -> None:
        import torch.distributed

        if self.watch is not None:
            self.watch.check()
        self.calls += 1
        try:
            call(torch.distributed)
        except RuntimeError as error:
            raise self._lost(error) from error


SOLO = Ranks(0, 1, 0)
_current = SOLO


def current() -> Ranks:
    """The ranks of which this process is one; SOLO unless start was called."""
    return _current


def of_environment() -> tuple[int, int]:
    """This process's rank and their number, as torchrun tells them in the environment; (0, 1) where it started none.

    Raises:
        ConfigError: If what it tells makes no sense.
    """
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    if not all(name in os.environ for name in names):
        return 0, 1
    try:
        rank, size = (int(os.environ[name]) for name in names[:2])
    except ValueError:
        rank, size = 0, 0
    if not 0 <= rank < size:
        raise ConfigError(
            f"RANK={os.environ['RANK']} and WORLD_SIZE={os.environ['WORLD_SIZE']} in the environment are no rank and "
            "number of ranks; start learners with torchrun, or unset them"
        )
    return rank, size


def start(device: str = "cpu", timeout: float = 300.0, look: Callable[[], None] = lambda: None) -> Ranks:
    """Join the ranks that the environment tells of; they are `current` until stop is called.

    Args:
        device: Where the networks will be: gloo carries what is on the CPU, NCCL what is on a CUDA device. Each rank of
            a machine takes the CUDA device of its local rank.
        timeout: Seconds after which a rank that does not answer counts as lost.
        look: Called while the others are waited for; may raise what becomes of them.

    Raises:
        ConfigError: If this torch has no torch.distributed, or the device cannot be shared so.
        WorkersLostError: If the others do not come within the timeout.
    """
    global _current
    rank, size = of_environment()
    if size == 1 or _current.size > 1:
        return _current
    import torch.distributed

    distributed: Any = torch.distributed
    if not distributed.is_available():
        raise ConfigError("this torch is built without torch.distributed, which more than one learner needs")
    local_rank = int(os.environ.get("LOCAL_RANK", rank))
    cuda = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if cuda:
        _take_device(device, local_rank)
    limit = timedelta(seconds=timeout)
    try:
        store, _, _ = next(distributed.rendezvous("env://", rank, size, timeout=limit))
        store.set_timeout(limit)
        _wait_for_all(store, rank, size, max(timeout, _START_SECONDS), look)
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo",
            store=distributed.PrefixStore("group", store),
            rank=rank,
            world_size=size,
            timeout=limit,
        )
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise WorkersLostError(f"rank {rank} of {size} did not find the others in {timeout:g} s: {reason}") from error
    _current = Ranks(rank, size, local_rank, distributed.PrefixStore("ranks", store), timeout)
    return _current


def _wait_for_all(store: Any, rank: int, size: int, seconds: float, look: Callable[[], None]) -> None:
    """Wait until every rank's process is there: in Python, where a signal is heard, and longer than for an answer.

    Raises:
        WorkersLostError: If one does not come.
    """
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store.set(f"here/{attempt}/{rank}", "")
    end = time.monotonic() + seconds
    missing = list(range(size))
    while missing := [other for other in missing if not store.check([f"here/{attempt}/{other}"])]:
        look()
        if time.monotonic() > end:
            raise WorkersLostError(f"of {size} ranks {', '.join(map(str, missing))} did not come within {seconds:g} s")
        time.sleep(_LOOK_SECONDS)


def _take_device(device: str, local_rank: int) -> None:
    import torch

    if ":" in device:
        raise ConfigError(f"device={device} would be every learner's; take device=cuda, and each takes one of its own")
    if local_rank >= torch.cuda.device_count():
        raise ConfigError(
            f"learner {local_rank} of this machine has no CUDA device of its own: there are "
            f"{torch.cuda.device_count()}; start fewer learners, or take device=cpu"
        )
    torch.cuda.set_device(local_rank)


def stop() -> None:
    """Leave the ranks; SOLO is current again."""
    global _current
    if _current is SOLO:
        return
    import torch.distributed

    _current.stop()
    _current = SOLO
    torch.distributed.destroy_process_group()
