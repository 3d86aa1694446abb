"""Seconds from the start of the process to the first environment step of `python -m hsw.train`."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from typing import Any

from meter import Done, emit, seconds_since_start

import hsw.train
from hsw.env import VectorEnv

seconds = 0.0


def first_step(self: VectorEnv, actions: Any) -> Any:
    global seconds
    seconds = seconds_since_start()
    raise Done


VectorEnv.step = first_step  # type: ignore[method-assign]
with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Done):
    sys.argv = ["hsw.train", f"hydra.run.dir={folder}"]
    hsw.train.main()
emit(seconds)
