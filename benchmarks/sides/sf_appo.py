"""Steps per second of Sample Factory's APPO: two workers, an inference worker and a learner that share the cores."""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

import gymnasium as gym
from meter import LearnerMeter, emit
from sample_factory.algo.utils.misc import LEARNER_ENV_STEPS, ExperimentStatus
from sample_factory.cfg.arguments import parse_full_cfg, parse_sf_args
from sample_factory.envs.env_utils import register_env
from sample_factory.train import make_runner


def make_cartpole(name: str, cfg: Any, env_config: Any, render_mode: str | None = None) -> gym.Env:
    return gym.make("CartPole-v1", render_mode=render_mode)


def make_pong(name: str, cfg: Any, env_config: Any, render_mode: str | None = None) -> gym.Env:
    """As Sample Factory's own Atari example has it. Beside Gymnasium < 1 ale-py does not register its games itself."""
    from ale_py.registration import register_v0_v4_envs
    from sf_examples.atari.atari_utils import make_atari_env

    register_v0_v4_envs()
    return make_atari_env("atari_pong", cfg, env_config, render_mode)


COMMON = {
    "device": "cpu",
    "seed": 1,
    "num_workers": 2,
    "worker_num_splits": 2,
    "rollout": 80,
    "batch_size": 640,
    "use_rnn": False,  # and GAE: with_vtrace=True stops with an error
    "gamma": 0.99,
    "learning_rate": 1e-4,
    "normalize_input": False,  # the other side normalises nothing, and writes no checkpoints
    "normalize_returns": False,
    "save_best_after": 10**9,
    "summaries_use_frameskip": False,  # its counter then tells the agent's steps, not the emulator's
}
TASKS = {
    "cartpole": {"nonlinearity": "tanh", "encoder_mlp_layers": (64, 64)},
    "pong": {
        "nonlinearity": "relu",
        "encoder_conv_architecture": "convnet_atari",
        "obs_scale": 255.0,
        "env_frameskip": 4,
        "env_framestack": 4,
    },
}


def arguments(task: str, **settings: Any) -> list[str]:
    """Sample Factory's command line."""
    line = [f"--env={task}", "--experiment=benchmark"]
    for name, value in {**COMMON, **TASKS[task], **settings}.items():
        values = value if isinstance(value, tuple) else (value,)
        line += [f"--{name}", *map(str, values)]
    return line


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", choices=list(TASKS), default="cartpole")
    parser.add_argument("--num-envs", type=int, default=16, help="of each worker")
    parser.add_argument("--cycles", type=int, default=10, help="seconds to measure")
    args = parser.parse_args()

    register_env("cartpole", make_cartpole)
    register_env("pong", make_pong)
    meter = LearnerMeter(args.cycles)

    def learnt(runner: Any, message: dict[str, int], policy: int) -> None:
        if message[LEARNER_ENV_STEPS] and len(meter.marks) < 2 and meter.learnt(message[LEARNER_ENV_STEPS]):
            runner._stop_training()

    with tempfile.TemporaryDirectory() as folder:
        line = arguments(args.task, train_dir=folder, num_envs_per_worker=args.num_envs)
        _, runner = make_runner(parse_full_cfg(parse_sf_args(line)[0], line))
        runner.policy_msg_handlers[LEARNER_ENV_STEPS].append(learnt)
        status = runner.init()
        if status == ExperimentStatus.SUCCESS:
            status = runner.run()
        if status != ExperimentStatus.SUCCESS:
            raise SystemExit(f"Sample Factory ended with status {status}")
    emit(**meter.figures, policy_lag=runner.policy_lag[0].get("version_diff_avg"))


if __name__ == "__main__":  # its processes import this module
    main()
