"""Steps per second of `python -m hsw.train` on CartPole as in hsw_ppo.py, with all that a run does beside training."""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile

from meter import Done, Meter, emit

import hsw.train
from hsw.env import VectorEnv

parser = argparse.ArgumentParser()
parser.add_argument("--cycles", type=int, default=60)
args = parser.parse_args()

meter = Meter(128, args.cycles)
metered = meter.wrap(VectorEnv.step, lambda step: int(step.valid.sum()))
VectorEnv.step = lambda self, actions: metered(self, actions)  # type: ignore[method-assign]
with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Done):
    sys.argv = [
        "hsw.train",
        "env=cartpole",
        "agent=ppo",
        "num_train_steps=1000000000",
        *("storage.num_steps=128", "storage.discount=0.99", "storage.gae_lambda=0.95"),
        *("algorithm.lr=2.5e-4", "algorithm.lr_schedule=constant", "algorithm.clip_schedule=constant"),
        *("algorithm.num_epochs=4", "algorithm.num_mini_batch=4", "algorithm.entropy_coef=0.01"),
        f"hydra.run.dir={folder}",
    ]
    hsw.train.main()
emit(**meter.figures)
