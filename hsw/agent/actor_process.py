"""An actor's process on the learner's machine, and its end of the pipe to the pool."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
import traceback
from collections import deque
from typing import Any

from hsw import ending
from hsw.agent.actor import Actor
from hsw.env.episode import become_worker
from hsw.errors import HswError


class PipeQueue:
    """An end of a pipe with the face of a queue. Slots arrive in lists, so that few messages fill no pipe."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._arrived: deque[int | None] = deque()
        self.put = connection.send

    def get(self) -> int | None:
        if not self._arrived:
            self._arrived.extend(self._connection.recv())
        return self._arrived.popleft()


def main(actor: Actor, seed: int, actor_idx: int, life: tuple[int, ...], connection: Any) -> None:
    """The process of an actor.

    Args:
        actor: See Actor.
        seed, actor_idx, life: As in Recipe.live.
        connection: To the pool. The error with which the process ends is sent, as a sentence and a traceback.
    """
    become_worker()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    queue = PipeQueue(connection)
    try:
        with contextlib.closing(actor.live(seed, actor_idx, life)) as env:
            actor.run(env, actor_idx, queue, queue)
    except (EOFError, BrokenPipeError, ConnectionResetError):  # the pool is gone
        return
    except BaseException as error:
        with contextlib.suppress(OSError):
            connection.send(told(error))
        if ending.strays:  # they would keep the process alive, and the pool waiting for its end
            ending.leave(1)


def told(error: BaseException) -> tuple[str, str]:
    """An actor's error as a sentence, and its traceback."""
    return str(error) if isinstance(error, HswError) else f"{type(error).__name__}: {error}", traceback.format_exc()


def _end_with_parent() -> None:
    """End this process when the trainer's does, however that ends and whatever hangs here.

    The kernel's signal does not serve: the parent that it knows is the forkserver, which waits for the actors.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
