"""The watch over ranks, in one process: each rank is a thread with a watch of its own, and they share a store."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from torch.distributed import HashStore

from hsw import ending
from hsw.ranks import Ranks
from hsw.run import rank_watch
from hsw.run.rank_watch import RankFailed, RankWatch, Verdict
from hsw.run.signals import StopSignals
from tests.runs import wait_for


class Shared:
    """A store of one process, with the face of the one that ranks reach."""

    def __init__(self, store: Any = None) -> None:
        self._store = store or HashStore()

    def clone(self) -> Shared:
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.fixture(autouse=True)
def quick(monkeypatch: Any) -> None:
    monkeypatch.setattr(rank_watch, "_BEAT", 0.02)
    monkeypatch.setattr(rank_watch, "_LOOK", 0.02)


@contextlib.contextmanager
def watches(timeout: float = 60.0, size: int = 2) -> Iterator[list[RankWatch]]:
    store = Shared()
    ranks = [Ranks(rank, size, rank, store, timeout) for rank in range(size)]
    made = [RankWatch(one) for one in ranks]
    try:
        wait_for(lambda: all(len(watch._lives) == size - 1 for watch in made), 20)
        yield made
    finally:
        for watch, one in zip(made, ranks, strict=True):
            watch.close()
            one.stop()


def found(watch: RankWatch) -> RankFailed:
    """The error that a call to the others raises."""
    wait_for(lambda: watch.verdict, 20)
    with pytest.raises(RankFailed) as caught:
        watch.check()
    return caught.value


def test_an_error_of_one_rank_is_that_of_the_others_with_its_code_and_traceback() -> None:
    with watches(size=3) as made:
        made[1].leave(Verdict(1, 3, "rank 1: environment 0 raised", "Traceback ..."))
        for other in (made[0], made[2]):
            error = found(other)
            assert (str(error), error.exit_code, error.details) == ("rank 1: environment 0 raised", 3, "Traceback ...")
        assert [watch.tells for watch in made] == [True, False, False]


def test_what_one_rank_makes_of_a_lost_connection_is_known_to_the_others_when_it_has_left(monkeypatch: Any) -> None:
    monkeypatch.setattr(rank_watch, "_GRACE", 0.1)
    with watches(size=3) as made:
        made[0]._ranks.calls += 1
        error = made[0].explain(RuntimeError("Timed out waiting"))
        made[0].leave()
        assert str(found(made[1])) == str(error)


def test_ranks_that_leave_one_after_the_other_are_no_fault() -> None:
    with watches(timeout=0.2) as made:
        assert made[1].leave() is None
        time.sleep(0.6)
        assert made[0].leave() is None
        assert made[0].all_left(10)
        assert made[0].verdict is None


def test_a_rank_that_makes_no_call_is_late_once_the_others_have_waited_for_the_timeout() -> None:
    with watches(timeout=0.5) as made:
        made[0]._ranks.calls = made[1]._ranks.calls = 3
        time.sleep(1.0)
        assert made[0].verdict is None  # nobody waits for anybody
        made[0]._ranks.calls = 4
        assert str(found(made[0])) == "rank 1 did not come within 0.5 s to where the others wait"
        assert found(made[1]).exit_code == 5


def test_a_rank_of_another_machine_that_says_nothing_is_lost_after_the_timeout() -> None:
    with watches(timeout=0.5) as made:
        made[1]._mine["host"] = "elsewhere"
        wait_for(lambda: made[0]._lives[1]["host"] == "elsewhere", 20)
        made[1]._ended.set()
        made[1]._wake.set()
        begin = time.monotonic()
        assert "rank 1 has not been heard of for 0.5 s (distributed_timeout)" in str(found(made[0]))
        assert time.monotonic() - begin > 0.3


def test_a_process_of_this_machine_that_is_gone_is_found_at_once() -> None:
    gone = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    with watches() as made:
        made[0]._processes = {1: gone}
        made[1]._mine |= {"pid": gone.pid, "started": rank_watch.guardian.started(gone.pid)}
        wait_for(lambda: made[0]._lives[1]["pid"] == gone.pid, 20)
        gone.kill()
        assert str(found(made[0])) == "rank 1 died: its process was killed by signal 9 (SIGKILL)"


def test_a_signal_to_one_rank_is_relayed_to_another_that_listens(monkeypatch: Any) -> None:
    class Agent:
        signals = StopSignals()

    with StopSignals() as heard, watches() as made:
        made[0].signals = Agent.signals
        made[1].signals = heard
        Agent.signals.requested = signal.SIGINT
        wait_for(lambda: heard.requested, 20)
        assert heard.requested == signal.SIGTERM


def test_a_main_thread_that_does_not_come_back_is_ended_with_the_sentence(monkeypatch: Any) -> None:
    ended: list[tuple[int, str]] = []
    monkeypatch.setattr(rank_watch, "_GRACE", 0.1)
    monkeypatch.setattr(ending, "end_now", lambda code, sentence: ended.append((code, sentence)))
    monkeypatch.setattr(ending, "leave", lambda code: ended.append((code, "")))
    with watches() as made:
        made[1].leave(Verdict(1, 4, "rank 1: loss is not finite"))
        wait_for(lambda: ended, 20)
        assert ended[0] == (4, "rank 1: loss is not finite")


def test_connections_that_a_rank_of_another_machine_leaves_tell_of_it_before_the_timeout(monkeypatch: Any) -> None:
    monkeypatch.setattr(rank_watch, "_GRACE", 0.5)
    monkeypatch.setattr(rank_watch, "_MUTE", 0.2)
    with watches() as made:
        made[1]._mine["host"] = "elsewhere"
        wait_for(lambda: made[0]._lives[1]["host"] == "elsewhere", 20)
        made[1]._ended.set()
        made[1]._wake.set()
        error = made[0].explain(RuntimeError("Connection closed by peer"))
        assert str(error) == "rank 1 and its connections are gone: Connection closed by peer"


def test_a_store_that_is_gone_is_told_as_the_loss_of_who_kept_it() -> None:
    with watches() as made:

        class Gone:
            def clone(self) -> Any:
                raise RuntimeError("connection reset by peer")

        made[1]._ranks.store = Gone()
        lost = RankWatch(made[1]._ranks, host="torchrun")
        assert str(found(lost)) == "rank 1 has lost torchrun: connection reset by peer"
        lost.close()


def test_an_error_of_a_call_that_nobody_explains_names_who_was_late() -> None:
    with watches(timeout=60.0) as made:
        rank_watch_grace = rank_watch._GRACE
        rank_watch._GRACE = 0.1
        try:
            made[0]._ranks.calls += 1
            error = made[0].explain(RuntimeError("Timed out waiting 60000ms for recv operation to complete\nat ..."))
        finally:
            rank_watch._GRACE = rank_watch_grace
        assert str(error) == "rank 1 did not come within 60 s to where the others wait"
