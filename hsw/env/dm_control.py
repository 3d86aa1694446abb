"""Importing this registers the tasks of the DeepMind Control Suite (Tassa et al. 2018, arXiv:1801.00690), by shimmy."""

from __future__ import annotations

import os
from difflib import get_close_matches
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import AddRenderObservation, DtypeObservation, FlattenObservation

from hsw.errors import ConfigError


def build(
    domain: str, task: str, pixels: bool, pixel_size: int, camera: int, render_mode: str | None = None
) -> gym.Env[Any, Any]:
    """One task, see hsw.env.make_dm_control.

    Raises:
        ConfigError: If the extra is not installed, there is no such task, or nothing can be drawn that should be.
    """
    draws = pixels or render_mode is not None
    if draws and not os.environ.get("DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "egl")  # else it waits for a screen; read when dm_control is imported
    try:
        from dm_control import suite
        from shimmy.dm_control_compatibility import DmControlCompatibilityV0
    except ImportError as error:
        if error.name and error.name.split(".")[0] in ("dm_control", "shimmy", "h5py"):
            raise ConfigError("dm_control is not installed; pip install 'hsw[dm-control]'") from None
        raise _cannot_draw(error) from error
    except (AttributeError, RuntimeError) as error:  # what MUJOCO_GL asks for is not there
        raise _cannot_draw(error) from error
    tasks = [f"{one}/{other}" for one, other in suite.ALL_TASKS]
    if f"{domain}/{task}" not in tasks:
        near = get_close_matches(f"{domain}/{task}", tasks, 3, 0.0)
        raise ConfigError(
            f"env.domain={domain} with env.task={task} is no task of the Control Suite; near to it: {', '.join(near)}"
        )
    view = {"height": pixel_size, "width": pixel_size, "camera_id": camera}
    mode = "rgb_array" if pixels else render_mode
    env: gym.Env[Any, Any] = DmControlCompatibilityV0(
        suite.load(domain, task), render_mode=mode, render_kwargs=view if pixels else None
    )
    if draws:
        try:
            env.reset(seed=0)
            env.render()
        except Exception as error:  # the drivers' own, of many kinds
            raise _cannot_draw(error) from error
    return AddRenderObservation(env) if pixels else DtypeObservation(FlattenObservation(env), np.float32)


def _cannot_draw(error: Exception) -> ConfigError:
    using = os.environ.get("MUJOCO_GL", "not set")
    told = " ".join(str(error).split())[:200]
    return ConfigError(
        f"dm_control cannot draw here with MUJOCO_GL={using} ({told}); without a screen set MUJOCO_GL=egl (needs "
        "libEGL and a driver) or MUJOCO_GL=osmesa (needs libOSMesa), or take env.pixels=false"
    )


if "hsw/dm_control-v0" not in gym.registry:
    gym.register("hsw/dm_control-v0", "hsw.env.dm_control:build")
