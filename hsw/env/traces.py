"""What an environment's code may leave behind in the process that called it, and how that is put back.

What changes the numbers of a run, its folder or its end is the environment's fault, which is told: gradients, dtype,
device, working folder, umask, handlers of signals. What environments change without meaning harm (they seed torch when
they are seeded, silence NumPy, take the streams) is put back without a word.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import warnings
from typing import Any

import numpy as np
import torch

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)

_modes: list[torch.inference_mode] = []


def restore_torch(grad: bool, dtype: torch.dtype) -> str:
    """Put torch back as it was. Returns what was not, in words."""
    now = torch.is_grad_enabled(), torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    torch.set_grad_enabled(grad)
    if now[0] == grad:
        return f"torch.set_default_dtype({now[1]})"
    if torch.is_inference_mode_enabled():
        _modes.append(torch.inference_mode(False))  # it ends when nothing refers to it any more
        _modes[-1].__enter__()
        torch.set_grad_enabled(grad)
        return "torch.inference_mode()"
    return f"torch.set_grad_enabled({now[0]})"


class Traces:
    """The process's state before a call into an environment's code."""

    def __init__(self) -> None:
        self._told = _told_state()
        self._quiet = _quiet_state()
        self._seeds = torch.initial_seed(), torch.get_rng_state(), _cuda_state()
        self._strict = [entry for entry in warnings.filters if entry[0] == "error"]

    def put_back(self) -> str:
        """Put the process back as it was. Returns what was not and is to be told, in words."""
        self._put_back_quietly()
        now = _told_state()
        if now == self._told:
            return ""
        device, folder, umask, handlers = self._told
        words = ""
        if now[0] != device:
            torch.set_default_device(device)
            words = f"torch.set_default_device({str(now[0])!r})"
        if now[1] != folder and folder is not None:
            os.chdir(folder)
            words = "another working folder"
        if now[2] != umask:
            os.umask(umask)
            words = f"os.umask({now[2]:#o})"
        for signum, handler, other in zip(_SIGNALS, handlers or (), now[3] or (), strict=True):
            if handler != other and handler is not None:
                signal.signal(signum, handler)
                words = f"a handler of {signal.Signals(signum).name}"
        return words

    def _put_back_quietly(self) -> None:
        seed, state, cuda = self._seeds
        if torch.initial_seed() != seed:  # else the policy would draw the same actions in every episode
            torch.set_rng_state(state)
            if cuda:
                torch.cuda.set_rng_state_all(cuda)
        if (added := [entry for entry in warnings.filters if entry[0] == "error"]) != self._strict:
            for entry in added:  # a warning of anyone's would end the run
                if entry not in self._strict and isinstance(warnings.filters, list):
                    warnings.filters.remove(entry)
            getattr(warnings, "_filters_mutated", lambda: None)()
        if (now := _quiet_state()) != self._quiet:
            sys.stdout, sys.stderr, errors, threads, environ = self._quiet
            np.seterr(**errors)
            if now[3] != threads:
                torch.set_num_threads(threads)
            for name in {*environ, *now[4]}:
                os.environ.pop(name, None)
            os.environ.update(environ)


def _told_state() -> tuple[Any, ...]:
    folder, handlers = None, None
    with contextlib.suppress(OSError):  # it was deleted
        folder = os.getcwd()
    umask = os.umask(0o077)  # there is no other way to read it
    os.umask(umask)
    if threading.current_thread() is threading.main_thread():
        handlers = tuple(signal.getsignal(signum) for signum in _SIGNALS)
    return torch.get_default_device(), folder, umask, handlers


def _quiet_state() -> tuple[Any, ...]:
    # Children are known by them. Bytes need no decoding, of which a look at every variable would take 40 µs.
    own = {os.fsdecode(name): os.environ[os.fsdecode(name)] for name in os.environb if name.startswith(b"HSW_")}
    return sys.stdout, sys.stderr, np.geterr(), torch.get_num_threads(), own


def _cuda_state() -> Any:
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return torch.cuda.get_rng_state_all()
    return None
