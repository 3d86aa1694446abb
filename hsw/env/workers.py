"""Environments in worker processes, whose errors come back whole."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from gymnasium.vector import AsyncVectorEnv, AutoresetMode
from gymnasium.vector.async_vector_env import AsyncState, _async_worker

from hsw.env.episode import EpisodeEnv, become_worker


class WorkerVectorEnv(AsyncVectorEnv):
    """N EpisodeEnvs in NEXT_STEP mode, each in a process of its own.

    An error comes back as it was raised, and not also as warnings on the terminal; so does one of an environment that
    could not be built.

    Args:
        factories: Build the environments; the first is called here too, for its spaces.
    """

    def __init__(self, factories: Sequence[Callable[[], EpisodeEnv]]) -> None:
        work: Any = _work  # Gymnasium's hint of a worker lacks what later versions hand over
        try:
            super().__init__(factories, copy=False, autoreset_mode=AutoresetMode.NEXT_STEP, worker=work)
        except BaseException:
            for process in getattr(self, "processes", ()):
                process.kill()
                process.join()
            self.closed = True
            raise

    def _raise_if_errors(self, successes: Iterable[bool]) -> None:
        failed = self.num_envs - sum(successes)
        if not failed:
            return
        errors = [self.error_queue.get() for _ in range(failed)]
        self._state = AsyncState.DEFAULT
        _, kind, value, _ = min(errors, key=lambda error: error[0])
        raise value if isinstance(value, BaseException) else kind(value)


def _work(
    index: int, env_fn: Callable[[], EpisodeEnv], pipe: Any, parent_pipe: Any, memory: Any, errors: Any, *rest: Any
) -> None:
    """Gymnasium's worker, but for an environment that cannot be built: its error is sent too."""
    become_worker()
    try:
        env = env_fn()
    except Exception as error:
        parent_pipe.close()
        with contextlib.suppress(EOFError, OSError):
            pipe.recv()  # what the trainer asks first gets the error for an answer
            errors.put((index, type(error), error, traceback.format_exc()))
            pipe.send((None, False))
        return
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the trainer is gone
        _async_worker(index, lambda: env, pipe, parent_pipe, memory, errors, *rest)
