"""Environments that hang, exit, or leave something behind, at any moment of their life: code 3, in time."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hsw import deadline
from hsw.env import make_env
from hsw.env.life import Life
from hsw.errors import EnvError
from tests.faults import culprits
from tests.runs import TINY, call, run_dir, tiny


def accuse(what: str, where: str, folder: Path, *overrides: str, recipe: tuple[str, ...] = TINY) -> tuple[str, ...]:
    culprit = ("env.id=tests.faults.culprits:Culprit-v0", f"+env.kwargs={{what:{what},where:{where},after:40}}")
    return (*recipe, *culprit, "env.timeout=0.5", "checkpoint_interval=20", run_dir(folder), *overrides)


def status(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "status.json").read_bytes())


def live(what: str, where: str, backend: Any = "sync", timeout: float = 0.3) -> None:
    """The whole life of an environment that has one fault."""
    kwargs = {"what": what, "where": where, "after": 4}
    env = make_env("tests.faults.culprits:Culprit-v0", backend, 2, kwargs, timeout=timeout)
    try:
        env.reset()
        for _ in range(8):
            env.step(np.zeros(2, np.int64))
    finally:
        env.close()


@contextlib.contextmanager
def accused(*words: str, seconds: float = 6.0) -> Iterator[None]:
    """The body ends with an EnvError that has these words, in time, with every process's state as it was."""
    gc.collect()  # an environment that another test left open counts no more,
    life = Life(None)
    life.open()
    life.close()  # and what it took is given back
    begin, before = time.monotonic(), process_state()
    with pytest.raises(EnvError) as error:
        yield
    assert time.monotonic() - begin < seconds
    assert all(word in str(error.value) for word in words), str(error.value)
    assert process_state() == before
    assert multiprocessing.active_children() == []


def process_state() -> tuple[Any, ...]:
    torchs = torch.is_grad_enabled(), torch.get_default_dtype(), torch.is_inference_mode_enabled()
    handlers = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)]
    return *torchs, torch.get_default_device(), os.getcwd(), handlers, os._exit


@pytest.mark.parametrize("backend", ["sync", "async"])
@pytest.mark.parametrize("where", culprits.WHERES)
def test_an_environment_that_hangs_and_takes_the_alarm_for_its_own_error_is_given_up(where: str, backend: str) -> None:
    with accused("0.3 s"):
        live("swallow", where, backend)


def test_an_alarm_that_was_swallowed_comes_again() -> None:
    with accused("step did not answer within 0.3 s"):
        live("swallow_once", "step")


@pytest.mark.parametrize("where", ["build", "reset", "step"])
@pytest.mark.parametrize("what", ["exit", "sys_exit", "interrupt", "raise_base", "raise"])
def test_an_environment_that_ends_the_process_is_told(what: str, where: str) -> None:
    signal.signal(signal.SIGINT, before := signal.signal(signal.SIGINT, signal.SIG_IGN))
    try:
        signal.signal(signal.SIGINT, lambda *_: None)  # as in a run: else Ctrl-C would be a person's
        with accused("environment"):
            live(what, where)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("where", culprits.WHERES)
@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("no_grad", "grad_enabled(False)"),
        ("float64", "default_dtype"),
        ("inference", "inference_mode"),
        ("meta_device", "device"),
        ("chdir", "folder"),
        ("umask", "os.umask(0o777)"),
        ("handler", "SIGTERM"),
    ],
)
def test_what_an_environment_leaves_behind_is_put_back_and_told(what: str, words: str, where: str) -> None:
    if where != "step" or what in ("no_grad", "float64", "inference"):  # the others are looked at between episodes
        with accused(words):
            live(what, where)


def test_what_a_later_episodes_reset_leaves_behind_is_told() -> None:
    env = make_env("tests.faults.culprits:Culprit-v0", "sync", 2, {"what": "chdir", "where": "reset", "late": 3})
    with accused("folder"), contextlib.closing(env):
        env.reset()
        for _ in range(20):
            env.step(np.zeros(2, np.int64))


@pytest.mark.parametrize("where", ["build", "reset", "close"])
@pytest.mark.parametrize("what", culprits.QUIET)
def test_what_an_environment_changes_without_meaning_harm_is_put_back(what: str, where: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("HSW_TEST", "1")
    monkeypatch.setattr(os, "environ", os.environ)
    options = np.get_printoptions(), torch._tensor_str.PRINT_OPTS
    before, others = quiet_state(), dict(os.environ)
    try:
        live(what, where, timeout=30.0)
        assert quiet_state() == before
    finally:
        os.environ.update(others)
        np.set_printoptions(**options[0])
        torch._tensor_str.PRINT_OPTS = options[1]


def quiet_state() -> tuple[Any, ...]:
    strict = [entry for entry in warnings.filters if entry[0] == "error"]
    return torch.initial_seed(), strict, np.geterr(), torch.get_num_threads(), os.environ["HSW_TEST"], sys.stdout


def test_an_environment_that_seeds_torch_does_not_choose_the_policys_actions() -> None:
    """What is drawn around a reset that seeds torch is what is drawn around one that does not."""
    drawn = []
    for what in ("nothing", "seed_torch"):
        torch.manual_seed(3)
        env = make_env("tests.faults.culprits:Culprit-v0", "sync", 1, {"what": what, "where": "reset"})
        with contextlib.closing(env):
            env.reset()
            numbers = [float(torch.rand(())) for _ in range(12) if env.step(np.zeros(1, np.int64)) is not None]
        drawn.append(numbers)
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 12


def test_gradients_that_an_environment_enables_while_it_is_acted_in_are_told() -> None:
    with torch.no_grad(), accused("grad_enabled(True)"):
        live("grad", "step")


def test_threads_that_outlive_their_environment_are_told(monkeypatch: Any) -> None:
    done = threading.Event()
    monkeypatch.setitem(culprits.WHATS, "thread", lambda: threading.Thread(target=done.wait, name="culprit").start())
    try:
        with accused("culprit", "daemon"):
            live("thread", "build")
    finally:
        done.set()


def test_a_person_may_interrupt_an_environment_in_a_process_without_a_run() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # what starts in the background ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            live("interrupt", "step")
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("what", "where"), [("hang", "build"), ("exit", "step"), ("swallow", "close")])
def test_status_and_exit_code_of_a_run_say_the_same(what: str, where: str, tmp_path: Path) -> None:
    result = call(*accuse(what, where, tmp_path))
    assert result.refused(3, "environment")
    assert (status(tmp_path)["status"], status(tmp_path)["exit_code"]) == ("failed", 3)


def test_an_alarm_that_comes_while_logging_has_a_lock_leaves_no_thread_waiting() -> None:
    heard = logging.Handler()
    logger = logging.getLogger("tests.alarm")
    logger.addHandler(heard)
    limit = deadline.Deadline(0.05, "a body", 3)
    limit.open()
    try:
        with pytest.raises(deadline.Overdue), limit:
            logging._lock.acquire()  # type: ignore[attr-defined]
            heard.acquire()
            time.sleep(30)
    finally:
        limit.close()
        logger.removeHandler(heard)
    other = threading.Thread(target=lambda: (logging.getLogger("tests.other").isEnabledFor(5), heard.acquire()))
    other.daemon = True
    other.start()
    other.join(10)
    assert not other.is_alive()


@pytest.mark.parametrize("what", ["exit", "sys_exit", "interrupt", "raise_base"])
def test_what_would_end_a_process_ends_an_async_run_with_code_3(what: str, tmp_path: Path) -> None:
    ended = call(*accuse(what, "step", tmp_path, "env.backend=async", "env.timeout=20"))
    assert ended.refused(3, "environment ")
    assert status(tmp_path)["exit_code"] == 3


@pytest.mark.parametrize("what", ["exit", pytest.param("interrupt", marks=pytest.mark.slow)])
def test_what_would_end_a_process_costs_an_actor_one_of_its_restarts(what: str, tmp_path: Path) -> None:
    budget = ("num_train_steps=100000", "agent.max_restarts=1")
    ended = call(*accuse(what, "step", tmp_path, *budget, recipe=tiny("impala")))
    assert ended.refused(5, "agent.max_restarts=1", "the first error was: actor ")
