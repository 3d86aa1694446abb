"""A backend that never hangs or dies without a word: every fault is an EnvError that names the environment."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import wait
from typing import Any

from hsw.env.life import Life
from hsw.env.place import env_error
from hsw.errors import EnvError, EnvHangs, HswError

_LATER = 2.0  # seconds


class GuardedBackend:
    """Calls a backend's reset and step within a time limit.

    Args:
        backend: A gymnasium.vector.VectorEnv, or what has its reset, step and close.
        timeout: Seconds after which an environment counts as hung; None waits for ever.
    """

    def __init__(self, backend: Any, timeout: float | None) -> None:
        self.backend = backend
        self._timeout = timeout
        self._asynchronous = hasattr(backend, "processes")
        # Workers are waited for with a limit, and the one that hangs or died is named; the alarm is for a stop.
        self._life = Life(timeout + _LATER if timeout and self._asynchronous else timeout)
        self._life_here = Life(timeout) if self._asynchronous else self._life
        self.num_envs = int(backend.num_envs)
        self.resets = False  # the next step resets environments
        self.reset_info: dict[str, Any] = {}  # of the last reset

    def reset(self, options: dict[str, Any] | None = None) -> Any:
        """Start every environment. Returns the observations."""
        self._life.open()
        obs, self.reset_info = self._guarded("reset", options=options) if options else self._guarded("reset")
        return obs

    def step(self, actions: Any) -> Any:
        """Advance every environment. Returns obs, rewards, terminateds, truncateds, info."""
        return self._guarded("step", actions)

    def call(self, name: str, *args: Any) -> Any:
        """What a method of each environment returns."""
        return self._guarded("call", name, *args)

    def here(self, what: str, function: Callable[..., Any], *args: Any) -> Any:
        """What a function of an environment's returns that is called in this process, whatever the backend."""
        self._life_here.open()
        try:
            with self._life_here.during(what, look=what == "construction"):
                return function(*args)
        except HswError:
            raise
        except Exception as error:
            raise env_error(f"the environment's {what} raised", error) from error

    def render(self) -> Any:
        """A frame of each environment, or None where they render none."""
        if getattr(self.backend, "render_mode", None) != "rgb_array":
            return None
        return self._guarded("call", "render") if self._asynchronous else self._guarded("render")

    def close(self) -> None:
        """End the environments; a worker that does not answer is killed.

        Raises:
            EnvError: If they do not let themselves be closed in time, or leave threads behind.
        """
        if getattr(self.backend, "closed", False):
            return
        self._life.open()
        self._life.last_word()
        broken: EnvError | None = None
        try:
            if self._asynchronous:
                self._close_workers()
            else:
                with self._life.during("close"):
                    self.backend.close()
        except EnvError as error:
            broken = error
        except Exception as error:  # what is broken cannot be asked to close
            warnings.warn(f"the environments' close raised {type(error).__name__}: {error}", stacklevel=2)
        with contextlib.suppress(AttributeError):
            self.backend.closed = True
        self._life.close()
        if self._life_here is not self._life:
            self._life_here.close()
        if broken:
            raise broken

    def _guarded(self, method: str, *args: Any, **kwargs: Any) -> Any:
        try:
            with self._life.during(method, look=method != "step" or self.resets):
                if self._asynchronous:
                    return self._ask_workers(method, *args, **kwargs)
                return getattr(self.backend, method)(*args, **kwargs)
        except EnvError:
            raise
        except Exception as error:
            if self._asynchronous and isinstance(error, EOFError | OSError):
                self._raise_if_lost(error, 1.0)
            raise env_error(f"the environments' {method} raised", error) from error

    def _ask_workers(self, method: str, *args: Any, **kwargs: Any) -> Any:
        getattr(self.backend, f"{method}_async")(*args, **kwargs)
        try:
            return getattr(self.backend, f"{method}_wait")(timeout=self._timeout)
        except multiprocessing.TimeoutError as error:
            self._raise_if_lost(error)
            hung = [i for i, pipe in enumerate(self.backend.parent_pipes) if not pipe.poll()]
            self._life.hung = True
            raise EnvHangs(f"environment {hung[0]}: {method} did not answer within {self._timeout:g} s") from error

    def _raise_if_lost(self, error: Exception, patience: float = 0.0) -> None:
        """Name the environment whose worker died; its pipe may break before its end is known."""
        processes = self.backend.processes
        dead = wait([process.sentinel for process in processes], patience)
        for index, process in enumerate(processes):
            if process.sentinel in dead:
                process.join()
                message = f"environment {index}: its worker process died with exit code {process.exitcode}"
                raise EnvError(message) from error

    def _close_workers(self) -> None:
        """Ask the workers to end, and kill those that do not within a second: Gymnasium would wait for ever."""
        pipes = [pipe for pipe in self.backend.parent_pipes if pipe is not None]
        for pipe in pipes:
            with contextlib.suppress(OSError):
                pipe.send(("close", None))
        deadline = time.monotonic() + 1.0
        for process in self.backend.processes:
            process.join(max(0.0, deadline - time.monotonic()))
            process.kill()
            process.join()
        for pipe in pipes:
            pipe.close()
        self.backend.closed = True
