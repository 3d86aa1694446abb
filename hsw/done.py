"""A run that was to be resumed and has nothing left to do: it stays as it is."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from hsw.run.identity import done_at, run_id_of
from hsw.run.status import JobOutcome


def done_with(config: DictConfig, folder: Path, trusted: Sequence[str]) -> JobOutcome | None:
    """How a run went that is done with its budget, which is said; None if there is something left to do.

    It is read, built and restored as a resume would, and nothing is written.

    Args:
        config: The run's, checked.
        folder: Of the run.
        trusted: The packages that may be named.

    Raises:
        HswError: What a resume would end with.
    """
    step = done_at(folder, config.num_train_steps)
    if step is None or not is_done(config, folder, trusted):
        return None
    from hsw.cli.summary import done_line

    print(done_line(config, folder, step, sys.argv[0]), file=sys.stderr, flush=True)
    return JobOutcome("done", 0, steps=step)


def is_done(config: DictConfig, path: Path, trusted: Sequence[str]) -> bool:
    """Whether a run says that it is done, and its newest checkpoint that is whole leaves nothing to do.

    Args:
        config, path, trusted: As in done_with.

    Raises:
        HswError: What a resume would end with.
    """
    if done_at(path, config.num_train_steps) is None:
        return False
    from hsw.build import build_agent
    from hsw.env.trust import only_trusting
    from hsw.run.checkpoint import load_newest
    from hsw.run.folder import UnownedFolder
    from hsw.run.services import Run

    run_id_of(path)  # raises if its parts are of different runs
    folder = UnownedFolder(path)
    logging.disable(logging.WARNING)  # the run's log stays as it is
    try:
        if config.learners > 1:  # each would have to restore its part
            return bool(load_newest(folder.checkpoints).state["step"] >= config.num_train_steps)
        run = Run(folder)
        with only_trusting(trusted):
            agent = build_agent(config, run, run.load())
            agent.env.close()
        return bool(agent.step >= config.num_train_steps)
    finally:
        logging.disable(logging.NOTSET)
        folder.close()
