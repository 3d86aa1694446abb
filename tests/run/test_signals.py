from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from hsw.run.signals import StopSignals


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_only_asks(signum: int) -> None:
    with StopSignals() as signals:
        assert signals.requested is None
        os.kill(os.getpid(), signum)
        assert signals.requested == signum


def test_handlers_are_given_back() -> None:
    before = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(RuntimeError), StopSignals():
        raise RuntimeError
    assert [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)] == before


def test_signals_within_a_moment_are_one_and_a_later_sigint_ends_at_once() -> None:
    code = (
        "import os, signal, time\n"
        "from hsw.run.signals import StopSignals\n"
        "with StopSignals() as signals:\n"
        "    for signum in (2, 2, 15, 15): os.kill(os.getpid(), signum)\n"
        "    assert signals.requested == signal.SIGTERM\n"
        "    time.sleep(0.6)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    raise AssertionError('still here')\n"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 130


def test_in_a_thread_signals_are_left_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    inside = []

    def body() -> None:
        with StopSignals():
            inside.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert inside == [before]
