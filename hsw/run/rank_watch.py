"""A watch over the ranks of a run: which of them died, hangs or failed. That ends all, and is said once.

Two threads of each rank see to it. The herald keeps what a rank has to say of itself in the store that all ranks reach,
and reads what the others say; it alone may hang there. The judge looks at what is known, and at the processes of this
machine. A rank that died is found by its process, where another rank is on its machine, and else by the connections
that it leaves. One that hangs has not made the calls that the others have made, or says nothing at all.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from hsw import ending
from hsw.errors import HswError
from hsw.ranks import Ranks
from hsw.run import guardian
from hsw.run.signals import StopSignals, set_deaf

_BEAT, _LOOK = 1.0, 0.25  # seconds
_GRACE = 5.0  # seconds that are left to the main thread, to end as it would by any error
_LAST_WORD = 3.0  # seconds
_MUTE = 4.0  # seconds after which a rank is not counted on to say anything
_DIED = 5  # exit code
_FIRST = "rank 0"


@dataclass(frozen=True)
class Verdict:
    """What ends all ranks: whose fault it is, the exit code, the sentence and the traceback behind it."""

    rank: int
    code: int
    sentence: str
    details: str = ""


class RankFailed(HswError):
    """Another rank died, hangs or failed."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.sentence)
        self.exit_code, self.details = verdict.code, verdict.details
        self.verdict = verdict


class RankWatch:
    """This rank's watch, from now until close.

    Args:
        ranks: To watch; they ask it what an error of theirs means.
        processes: Of the ranks that this process has started.
        host: What keeps the store, in words.
    """

    def __init__(
        self, ranks: Ranks, processes: Mapping[int, subprocess.Popen[Any]] | None = None, host: str = _FIRST
    ) -> None:
        self._ranks, self._processes, self._host, self._hosted = ranks, processes or {}, host, host == _FIRST
        self._parent = os.getppid()
        pid, host_name = os.getpid(), socket.gethostname()
        self._mine: dict[str, Any] = {"host": host_name, "pid": pid, "started": guardian.started(pid), "beat": 0}
        self._lives: dict[int, dict[str, Any]] = {}  # what the others last said
        self._silent: dict[int, float] = {}  # seconds since they said something new
        self._behind: dict[int, float] = {}  # seconds since they made a call, while others have made more
        self._seen: dict[int, tuple[Any, Any]] = {}
        self.verdict: Verdict | None = None
        self._stuck, self._lost = 0.0, ""  # seconds since the herald has been through; why it cannot reach the store
        self._passes = self._wanted = 0  # of the herald, through all that there is to say and to read
        self._told = False  # by this rank, what is the verdict
        self._known = False  # the main thread deals with the verdict
        self._news, self._ended, self._wake = threading.Condition(), threading.Event(), threading.Event()
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._herald, self._judge)]
        self.signals: StopSignals | None = None  # of this rank's agent
        self._relayed = False
        ranks.watch = self
        for thread in self._threads:
            thread.start()

    # -- the main thread's side -------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise what ends all, if it is known."""
        if self.verdict is not None:
            self._deal()
            raise RankFailed(self.verdict)

    def _deal(self) -> None:
        """The main thread ends by an error. torchrun may stop all for it, which must not be taken for its cause."""
        self._known = True
        set_deaf(True)

    def explain(self, error: Exception) -> Exception:
        """What a call to the others that failed means."""
        if isinstance(error, RankFailed):
            return error
        self._deal()
        end = time.monotonic() + _GRACE
        while self.verdict is None and time.monotonic() < end:
            time.sleep(_LOOK / 5)
        if self.verdict is None:
            reason = str(error).partition("\n")[0]
            mute = [rank for rank, seconds in self._silent.items() if seconds > _MUTE / 2]
            late = [rank for rank, life in self._lives.items() if life.get("calls", 0) < self._ranks.calls]
            sentence = f"rank {self._ranks.rank} has lost the others: {reason}"
            if mute:
                sentence = f"{_named(mute)} and its connections are gone: {reason}"
            elif late and "imed out" in reason:
                sentence = self._not_there(late)
            self.verdict = Verdict((*mute, *late, self._ranks.rank)[0], _DIED, sentence)
        return RankFailed(self.verdict)

    def leave(self, error: Verdict | None = None) -> Verdict | None:
        """Tell the others that this rank is done, or what error ends it.

        Returns:
            What had ended all before, if anything had.
        """
        if error is not None:
            self._deal()
        self._known = True
        if self.verdict is None:
            self._pass(0.0 if error is None else _LAST_WORD)  # whoever failed first has said so before it ended
            self._look(0.0)
        before = self.verdict
        self._mine.update({"error": asdict(error)} if error and not before else {"left": True})
        self._mine.update({"verdict": asdict(before)} if before else {})
        self._pass(_LAST_WORD)
        return before

    def all_left(self, patience: float) -> bool:
        """Wait until the others are done as well; whether they are."""
        end = time.monotonic() + patience
        while time.monotonic() < end and self.verdict is None:
            if len(self._lives) == self._ranks.size - 1 and all("left" in life for life in self._lives.values()):
                return True
            self._pass(_LOOK)
            time.sleep(_LOOK / 5)
        return False

    @property
    def tells(self) -> bool:
        """Whether it is this rank that tells a person what ended all: the first of those that can."""
        if self._ranks.is_first or self._told:
            return not self._told
        lives = self._lives.items()
        able = [r for r, life in lives if life.get("left") or not (self._is_dead(life) or self._is_mute(r))]
        return self._ranks.rank < min(able, default=self._ranks.size)

    def close(self) -> None:
        self._ended.set()
        self._wake.set()
        for thread in self._threads:
            thread.join(_LAST_WORD)
        self._ranks.watch = None
        set_deaf(False)

    # -- the herald -------------------------------------------------------------------------------------------------

    def _pass(self, patience: float) -> bool:
        """Have the herald go once through all; whether it did in time."""
        with self._news:
            self._wanted = wanted = self._passes + 2  # the one under way may have begun before
            self._wake.set()
            return self._news.wait_for(lambda: self._passes >= wanted or bool(self._lost), patience)

    def _herald(self) -> None:
        others = [rank for rank in range(self._ranks.size) if rank != self._ranks.rank]
        try:
            store = self._ranks.store.clone()  # a connection of its own, which nobody else waits on
            while not self._ended.is_set():
                self._wake.clear()
                self._mine["beat"] += 1
                self._mine["calls"] = self._ranks.calls
                self._mine["asked"] = self.signals is not None and self.signals.requested is not None
                store.set(f"life/{self._ranks.rank}", json.dumps(dict(self._mine)))
                there = [rank for rank in others if rank in self._lives or store.check([f"life/{rank}"])]
                lives = store.multi_get([f"life/{rank}" for rank in there]) if there else []
                self._lives = {rank: json.loads(life) for rank, life in zip(there, lives, strict=True)}
                with self._news:
                    self._passes += 1
                    self._news.notify_all()
                if self._passes >= self._wanted:
                    self._wake.wait(_BEAT)
        except (RuntimeError, ValueError) as error:
            with self._news:
                self._lost = str(error).partition("\n")[0] or "no answer"
                self._news.notify_all()

    # -- the judge --------------------------------------------------------------------------------------------------

    def _judge(self) -> None:
        last, waited, passes, since = time.monotonic(), 0.0, 0, 0.0
        while not self._ended.wait(_LOOK):
            # Time in which this process itself was stopped is held against nobody.
            passed, last = min(time.monotonic() - last, 4 * _LOOK), time.monotonic()
            self._stuck = since = since + passed
            self._relay()
            if self.verdict is None:
                news = self._passes != passes
                self._look(since if news else 0.0)
                passes, since = self._passes, 0.0 if news else since
                if self.verdict is None and since > self._ranks.timeout:
                    self.verdict = self._no_word(0, self._host)
                if self.verdict is not None and os.getppid() != self._parent:
                    self._end()  # at once: nobody is there to wait for it
                if self.verdict is not None:
                    self._mine["verdict"] = asdict(self.verdict)
                    self._wake.set()
                    self._kill_if_mute()
            elif not self._known:
                waited += passed
                if waited > _GRACE:
                    self._end()

    def _relay(self) -> None:
        """A signal that asks one rank to stop asks all of them; else they would first fill their rollouts."""
        if self._relayed or self.signals is None or self.signals.requested is not None:
            return
        if any(life.get("asked") for life in self._lives.values()) and self.signals.listening:
            self._relayed = True
            os.kill(os.getpid(), signal.SIGTERM)

    def _look(self, passed: float) -> None:
        """Find a verdict, in what the others say and in what can be seen of them."""
        lives = dict(self._lives)
        for _, life in sorted(lives.items()):
            if told := life.get("error") or life.get("verdict"):
                self.verdict = self.verdict or Verdict(**told)
                return
        for rank, life in sorted(lives.items()):
            if "left" not in life and self._is_dead(life):
                self._pass(_LAST_WORD)  # it may have said more before it ended
                life = self._lives.get(rank, life)
                if "left" not in life:
                    told = life.get("error") or {"rank": rank, "code": _DIED, "sentence": self._how(rank)}
                    self.verdict = self.verdict or Verdict(**told)
                    return
        if os.getppid() != self._parent:
            self.verdict = Verdict(0, _DIED, f"rank {self._ranks.rank} lost the process that had started it")
        elif self._lost:
            self.verdict = Verdict(0, _DIED, f"rank {self._ranks.rank} has lost {self._host}: {self._lost}")
        elif passed:
            self._find_hanging(lives, passed)

    def _find_hanging(self, lives: dict[int, dict[str, Any]], passed: float) -> None:
        calls = {rank: life.get("calls", 0) for rank, life in lives.items()} | {self._ranks.rank: self._ranks.calls}
        most = max(calls.values())
        for rank, life in sorted(lives.items()):
            beat, made = self._seen.get(rank, (None, None))
            quiet = beat == life["beat"] and "left" not in life
            self._silent[rank] = self._silent.get(rank, 0.0) + passed if quiet else 0.0
            late = made == calls[rank] and calls[rank] < most and "left" not in life
            self._behind[rank] = self._behind.get(rank, 0.0) + passed if late else 0.0
            self._seen[rank] = life["beat"], calls[rank]
        silent = [rank for rank, seconds in self._silent.items() if seconds > self._ranks.timeout]
        behind = [rank for rank, seconds in self._behind.items() if seconds > self._ranks.timeout]
        if silent:
            self.verdict = self._no_word(silent[0], _named(silent))
        elif behind:
            self.verdict = Verdict(behind[0], _DIED, self._not_there(behind))

    def _not_there(self, ranks: list[int]) -> str:
        return f"{_named(ranks)} did not come within {self._ranks.timeout:g} s to where the others wait"

    def _no_word(self, rank: int, who: str) -> Verdict:
        return Verdict(rank, _DIED, f"{who} has not been heard of for {self._ranks.timeout:g} s (distributed_timeout)")

    def _is_dead(self, life: dict[str, Any]) -> bool:
        if life["host"] != self._mine["host"]:
            return False
        pid = int(life["pid"])
        return guardian.started(pid) != life["started"] or guardian.is_zombie(pid)

    def _how(self, rank: int) -> str:
        """How a rank died, as far as this process knows."""
        process = self._processes.get(rank)
        code = None
        with contextlib.suppress(subprocess.TimeoutExpired):  # its last threads may be about to end
            code = None if process is None else process.wait(_LAST_WORD)
        if code is None:
            return f"rank {rank} died"
        how = f"was killed by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"ended with code {code}"
        return f"rank {rank} died: its process {how}"

    def _is_mute(self, rank: int) -> bool:
        """Whether a rank has said nothing for a while; one that keeps the store lets nobody else speak, either."""
        return self._silent.get(rank, 0.0) > _MUTE or (rank == 0 and self._hosted and self._stuck > _MUTE)

    def _kill_if_mute(self) -> None:
        """End a process of this machine that is stopped, or hangs with all its threads: it would outlive the others."""
        assert self.verdict is not None
        rank = self.verdict.rank
        life = self._lives.get(rank)
        if life and self._is_mute(rank) and life["host"] == self._mine["host"] and not self._is_dead(life):
            if rank == 0 and self.tells:  # what has started this process may end with it
                ending.say(self.verdict.sentence)
                self._told = True
            with contextlib.suppress(OSError):
                os.kill(int(life["pid"]), signal.SIGKILL)

    def _end(self) -> None:
        """The main thread is in something from which it does not come back, or not soon."""
        assert self.verdict is not None
        if self.tells:
            ending.end_now(self.verdict.code, self.verdict.sentence)
        ending.leave(self.verdict.code)


def _named(ranks: list[int]) -> str:
    return f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))}"
