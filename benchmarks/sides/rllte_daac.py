"""Steps per second of rllte's DAAC on CartPole, with its own settings."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import tempfile
import types
from unittest.mock import MagicMock

# rllte imports torchvision for image augmentation, which DAAC does not use.
for name in ("torchvision", "torchvision.transforms", "torchvision.models", "torchvision.io", "torchvision.utils"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__getattr__ = lambda attribute: MagicMock()  # type: ignore[method-assign]

import gymnasium as gym  # noqa: E402
from gymnasium.wrappers import RecordEpisodeStatistics  # noqa: E402
from meter import Done, Meter, emit, one_thread  # noqa: E402
from rllte.agent import DAAC  # noqa: E402
from rllte.env.utils import Gymnasium2Torch  # noqa: E402

parser = argparse.ArgumentParser()
parser.add_argument("--cycles", type=int, default=20)
args = parser.parse_args()

one_thread()
num_envs, num_steps = 8, 128
envs = gym.vector.SyncVectorEnv([lambda: gym.make("CartPole-v1")] * num_envs)
env = Gymnasium2Torch(RecordEpisodeStatistics(envs), device="cpu")
meter = Meter(num_steps, args.cycles)
env.step = meter.wrap(env.step, lambda result: num_envs)
with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)  # it writes its logs where it stands
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Done):
        DAAC(env, tag="bench", device="cpu").train(10**9, save_interval=10**9)
emit(**meter.figures)
