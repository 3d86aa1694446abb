"""Which actions are allowed: from an observation's part or from info, as a part of what the policy sees."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np

from hsw.errors import ConfigError, EnvError
from hsw.spaces import MASK, SpaceSpec, join_mask, mask_space, split_mask, without_mask

MaskSource = Literal["auto", "info", "none"]


class ActionMasks:
    """Takes the masks of N environments out of their rows and checks them.

    Args:
        from_info: They are info's, else the observation's.
        observation_space, action_space: Of one environment.
    """

    def __init__(self, from_info: bool, observation_space: SpaceSpec, action_space: SpaceSpec) -> None:
        self._from_info, self._nvec = from_info, action_space.nvec
        in_obs = observation_space.type == "Dict" and MASK in observation_space.spaces
        self._in_obs = in_obs
        self.rest = without_mask(observation_space) if in_obs else observation_space  # what is normalised and stacked
        self.stream_space = mask_space(self.rest, sum(self._nvec))  # what a policy is given by hand

    def space(self, rest: SpaceSpec) -> SpaceSpec:
        """What the policy sees: the rest, and the mask."""
        return mask_space(rest, sum(self._nvec))

    def split(self, obs: Any, info: dict[str, Any], excused: np.ndarray) -> tuple[Any, np.ndarray]:
        """The rest of observations, [N, *shape] or a dict of them, and their masks, int8 [N, A].

        Args:
            obs, info: Of a row.
            excused: Where no action will be taken, for the episode is terminated, bool [N]: all actions are allowed.

        Raises:
            EnvError: If a mask is missing, has another shape or allows nothing.
        """
        mask: Any = None
        if self._in_obs:
            obs, mask = split_mask(obs)
        if self._from_info:
            mask = self._of_info(info, excused)
        mask = np.asarray(mask).astype(bool) | excused[:, None]
        for start, size in zip(np.cumsum([0, *self._nvec]), self._nvec, strict=False):
            allowed = mask[:, start : start + size].any(1)
            if not allowed.all():
                which = "" if len(self._nvec) == 1 else f" of the {size} from {start} on"
                raise EnvError(
                    f"environment {int(np.argmin(allowed))}: its {MASK} allows no action{which}; an episode in which "
                    "nothing can be done must be terminated"
                )
        return obs, mask.astype(np.int8)

    def _of_info(self, info: dict[str, Any], excused: np.ndarray) -> np.ndarray:
        num_envs, size = len(excused), sum(self._nvec)
        told = info.get(f"_{MASK}", np.full(num_envs, MASK in info)) | np.zeros(num_envs, bool)
        if not (told | excused).all():
            raise EnvError(f"environment {int(np.argmin(told | excused))}: its info has no {MASK}")
        masks = np.zeros((num_envs, size), bool)
        for index in np.flatnonzero(told):
            mask = np.asarray(info[MASK][index])
            if mask.shape != (size,):
                raise EnvError(
                    f"environment {index}: its info's {MASK} has the shape {mask.shape}, and there are {size} actions"
                )
            masks[index] = mask.astype(bool)
        return masks

    def batch(self, obs: Any) -> tuple[Any, Any]:
        """The rest of observations in the form of stream_space, and their masks."""
        return split_mask(obs)

    def join(self, rest: Any, mask: Any) -> Any:
        """What the policy sees."""
        return join_mask(rest, mask)


def find_masks(source: MaskSource, observation_space: SpaceSpec, action_space: SpaceSpec) -> ActionMasks | None:
    """What takes the masks out of rows; None where there are none.

    Args:
        source: "auto" is an observation's part action_mask, if there is one and actions are choices; "info" is
            info["action_mask"]; "none" leaves all actions allowed.
        observation_space, action_space: Of one environment.

    Raises:
        ConfigError: If actions are no choices, or the part has another shape.
    """
    if source not in ("auto", "info", "none"):
        raise ConfigError(f"env.action_mask={source} must be auto, info or none")
    part = observation_space.spaces.get(MASK)
    choices = action_space.type in ("Discrete", "MultiDiscrete")
    if source == "none" or (source == "auto" and (part is None or not choices)):
        return None
    if not choices:
        raise ConfigError(f"env.action_mask=info needs actions that are choices, and these are {action_space.type}")
    if source == "auto" and part is not None and part.shape != (sum(action_space.nvec),):
        raise ConfigError(
            f"the observation's part {MASK} has the shape {list(part.shape)}, and there are {sum(action_space.nvec)} "
            "actions; with env.action_mask=none it is a part like others"
        )
    if part is not None and len(observation_space.spaces) == 1:
        raise ConfigError(f"the observation is nothing but its {MASK}; a policy needs something to see beside it")
    return ActionMasks(source == "info", observation_space, action_space)


def warn_if_unused(info: dict[str, Any], action_space: SpaceSpec) -> None:
    """Tell of masks that nobody takes."""
    if MASK in info and action_space.type in ("Discrete", "MultiDiscrete"):
        warnings.warn(f"info has an {MASK}, which is not used; env.action_mask=info takes it", stacklevel=3)
