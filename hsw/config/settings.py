"""The root of the config: what every run has, whatever it trains."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from hsw.bounds import Range
from hsw.config.check import NamedTargets, OneOrNamedTargets, OptionalTarget, Target


@dataclass
class Settings:
    """Names, types and ranges of the root's keys; conf/config.yaml gives them values.

    Attributes:
        seed: Root of the seed tree.
        device: auto, cpu, cuda or cuda:<index>.
        precision: In which the policy's networks compute: fp32, or bf16 by autocast; all else is fp32 in both.
        compile: Compile the policy's networks by torch.compile.
        profile: Write a trace of three iterations and a table of their time by phase into the run folder.
        threads: torch's threads: 1 for MLPs, as many as there are cores for convolutions.
        learners: How many processes train together, each with environments and a storage of its own.
        distributed_timeout: Seconds after which a learner that does not answer counts as lost.
        num_train_steps: Budget, in valid environment steps summed over environments.
        tag: Name of what is being tried; wandb's group.
        resume: A run folder to continue.
        fail_fast: A sweep's first failed job keeps the others from starting.
        allow: Further packages that targets may come from; only the command line's counts.
        init_from: A run folder or a file of weights to begin with; null draws them.
        preset: The name of the tuned values that were taken, for people; null if these are the general ones.
        checkpoint_interval: Steps between checkpoints.
        checkpoint_keep: How many checkpoints are kept, the newest.
        eval_interval: Steps between evaluations; null evaluates at the end only.
        eval_episodes: Episodes of an evaluation.
        eval_deterministic: Evaluate with the most likely action instead of samples.
        quiet: Show no progress.
        observation_space, action_space: Of one environment, as plain numbers; read from it once, and never given.
        env: The vector environment.
        network: The policy's networks.
        storage: The memory between acting and learning.
        algorithm: The loss with its optimisers.
        agent: The loop; as a recipe it brings the storage, algorithm and network that belong together.
        logger: One copy of metrics.jsonl, or several by name.
        callbacks: Are told of a run's events; by name.
        pool: Where IMPALA's actors run; null for other loops.
        augmentation: Changes the observations of every batch that is learnt from; null leaves them.
        intrinsic_reward: Added to the environment's rewards; null adds none.
    """

    seed: Annotated[int, Range(0)]
    device: str
    precision: Literal["fp32", "bf16"]
    compile: bool
    profile: bool
    threads: Annotated[int, Range(1, 1024)]
    learners: Annotated[int, Range(1, 4096)]
    distributed_timeout: Annotated[float, Range(0, open_low=True)]
    num_train_steps: Annotated[int, Range(1)]
    tag: str
    resume: str | None
    fail_fast: bool
    allow: list[str]
    init_from: str | None
    preset: str | None
    checkpoint_interval: Annotated[int, Range(1)]
    checkpoint_keep: Annotated[int, Range(1)]
    eval_interval: Annotated[int | None, Range(1)]
    eval_episodes: Annotated[int, Range(1)]
    eval_deterministic: bool
    quiet: bool
    observation_space: Any
    action_space: Any
    env: Target
    network: Target
    storage: Target
    algorithm: Target
    agent: Target
    logger: OneOrNamedTargets
    callbacks: NamedTargets
    pool: OptionalTarget
    augmentation: OptionalTarget
    intrinsic_reward: OptionalTarget


# What a resumed run may change: how long it runs, how it reports, where it computes.
CHANGEABLE = (
    "num_train_steps",
    "logger",
    "device",
    "threads",
    "profile",
    "quiet",
    "checkpoint_interval",
    "checkpoint_keep",
    "distributed_timeout",
    "fail_fast",
    "allow",
    "pool",
    "resume",
)


def root_key(override: str) -> str:
    """The root's key that an override is about: logger of +logger.mode=offline."""
    return re.split("[.@=]", override.lstrip("+~"), maxsplit=1)[0]
