"""Target networks that follow what is trained."""

from __future__ import annotations

from torch import Tensor, nn

from hsw.algorithm.flat import flattened, is_view


class Follower:
    """A target network, whose parameters are views of one tensor, so that following is one operation.

    Args:
        module: The target, of the same layout as what it follows.
    """

    def __init__(self, module: nn.Module) -> None:
        self._parameters = list(module.parameters())
        self._flat: nn.Parameter | None = None

    def follow(self, trained: Tensor, tau: float) -> None:
        """Go a part tau of the way to the trained parameters, [P], in the order of the module's."""
        if self._flat is None or not is_view(self._parameters[0], self._flat):
            self._flat = flattened(self._parameters)  # for the first time, or they were moved or copied since
        self._flat.data.lerp_(trained.data, tau)
