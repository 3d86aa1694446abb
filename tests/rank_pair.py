"""Two ranks in processes of their own, which carry out functions of modules together: what a test hands them."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import socket
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np


class Pair:
    """Both ranks; `pair(job, *arguments)` gives what job(*arguments) returned on each, or the exception it raised.

    Args:
        connections: To the processes.
    """

    def __init__(self, connections: list[Any]) -> None:
        self._connections = connections

    def __call__(self, job: Callable[..., Any], *arguments: Any, **named: Any) -> list[Any]:
        for connection in self._connections:
            connection.send((job, arguments, named))
        answers = [connection.recv() for connection in self._connections]
        unexpected = [text for _, text in answers if text]
        assert not unexpected, unexpected[0]
        return [answer for answer, _ in answers]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def two_ranks(timeout: float = 30.0) -> Iterator[Pair]:
    """A Pair, whose processes end with the context."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch.distributed", "tests.rank_jobs"])
    port, pipes, processes = free_port(), [], []
    for rank in range(2):
        here, there = context.Pipe()
        processes.append(context.Process(target=_be, args=(rank, port, timeout, there)))
        processes[-1].start()
        there.close()
        pipes.append(here)
    try:
        yield Pair(pipes)
    finally:
        for pipe in pipes:
            with contextlib.suppress(OSError):
                pipe.send(None)
        for process in processes:
            process.join(10)
            process.kill()
            process.join()


def _be(rank: int, port: int, timeout: float, connection: Any) -> None:
    import torch

    from hsw import ranks
    from hsw.errors import HswError, Interrupted

    torch.set_num_threads(1)
    told = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in told.items()}
    ranks.start("cpu", timeout)
    while (work := connection.recv()) is not None:
        job, arguments, named = work
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        try:
            connection.send((job(*arguments, **named), ""))
        except (HswError, Interrupted) as error:
            connection.send(((type(error).__name__, str(error)), ""))
        except BaseException:
            connection.send((None, traceback.format_exc()))
    ranks.stop()
