"""Several learners of one run: started, brought together, and ended together.

torchrun starts all of them. `learners=N` has the command itself be the first, and start the others on this machine with
the variables that torchrun would give them; torch's own launcher would start the first as well, and then say nothing of
its exit code, and its signals would come through a process in between. From there on all is the same: rank 0 owns the
run folder and speaks to the person, and `follow` is what every other rank does.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import secrets
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, cast

from omegaconf import DictConfig, OmegaConf

from hsw import ending
from hsw import ranks as ranks_module
from hsw.cli.main import describe, run_main
from hsw.errors import ConfigError, HswError
from hsw.output import one_line
from hsw.ranks import Ranks, of_environment
from hsw.run.rank_watch import RankFailed, RankWatch, Verdict
from hsw.sweep.job import stoppable
from hsw.sweep.mailbox import VARIABLE

_AT_END = 30.0  # seconds in which the others close their environments
_ENDED = 3.0  # seconds in which they end once something has failed


class Company:
    """This rank among the others.

    Attributes:
        watch: Of several ranks.
        agent: Whom this rank trains, once there is one.
        place: The run's folder, and whether it is resumed.
        tells: Whether it is this rank that tells a person what ended all.
    """

    def __init__(self) -> None:
        self.watch: RankWatch | None = None
        self.agent: Any = None
        self.place: dict[str, Any] = {}
        self.tells = True

    def trains(self, agent: Any) -> None:
        """There is an agent now."""
        self.agent = agent
        if self.watch is not None:
            self.watch.signals = agent.services.signals

    def saved(self) -> bool:
        """Whether what stops this rank has been agreed upon by all, and saved."""
        return self.agent is not None and self.agent.services.signals.requested is not None


@contextlib.contextmanager
def joined(
    config: DictConfig, company: Company, place: dict[str, Any] | None = None, trusted: Sequence[str] | None = None
) -> Iterator[None]:
    """Within the body, this process is one of the run's ranks; what fails on one of them ends all.

    Args:
        config: Settled. Every rank must have the same.
        company: This rank's, which learns what there is to know.
        place: For rank 0: the run's folder, and whether it is resumed.
        trusted: The packages that alone may be named, where the config is a folder's.

    Raises:
        ConfigError: If ranks have different configs, or do not see one folder.
        RankFailed: If another one failed.
    """
    if config.learners == 1:
        yield
        return
    with contextlib.ExitStack() as stack:
        processes: dict[int, subprocess.Popen[bytes]] = {}
        started = of_environment()[1] == 1
        if started:
            processes = stack.enter_context(_started(config, trusted))
        ranks = ranks_module.start(config.device, config.distributed_timeout, partial(_refuse_dead, processes))
        stack.callback(ranks_module.stop)
        ours = started or not os.environ.get("TORCHELASTIC_RUN_ID")
        watch = RankWatch(ranks, processes, "rank 0" if ours else "torchrun")
        stack.callback(watch.close)
        company.watch = watch
        try:
            _compare(ranks, config)
            company.place = _share(ranks, place)
            yield
        except BaseException as error:
            stopped = isinstance(error, KeyboardInterrupt)
            own = None if isinstance(error, RankFailed) or (stopped and company.saved()) else _verdict(error, ranks)
            before = watch.leave(own)
            company.tells = watch.tells
            if before is not None and stopped:  # torchrun stops all when one has failed
                raise RankFailed(before) from error
            raise
        watch.leave()
        if not watch.all_left(_AT_END) and watch.verdict is not None:
            company.tells = watch.tells
            raise RankFailed(watch.verdict)


def _refuse_dead(processes: dict[int, subprocess.Popen[bytes]]) -> None:
    """Wait for no rank that has ended before it came."""
    for rank, process in processes.items():
        if process.poll() is not None:
            raise RankFailed(Verdict(rank, 5, f"rank {rank} ended with code {process.returncode} before it began"))


def _verdict(error: BaseException, ranks: Ranks) -> Verdict:
    sentence, code = describe(error)
    details = error.details if isinstance(error, HswError) else "".join(traceback.format_exception(error))
    return Verdict(ranks.rank, code, f"rank {ranks.rank}: {sentence}", details[-20000:])


# -- what all must have alike ------------------------------------------------------------------------------------------


def _compare(ranks: Ranks, config: DictConfig) -> None:
    """Refuse ranks that were started with different configs."""
    given = ranks.gather(_flat(OmegaConf.to_container(config, resolve=False)))
    told = ranks.first(lambda: _difference(given or []))
    if told is not None:
        raise RankFailed(Verdict(told["rank"], ConfigError.exit_code, told["sentence"]))


def _flat(node: Any, path: str = "") -> dict[str, str]:
    """The values of a plain config by dotted name, without what a rank has of its own."""
    if isinstance(node, dict | list) and node:
        items = node.items() if isinstance(node, dict) else enumerate(node)
        pairs = [(f"{path}.{key}" if path else str(key), value) for key, value in items]
        return {name: text for key, value in pairs if key != "resume" for name, text in _flat(value, key).items()}
    return {path: str(node)}


def _difference(given: Sequence[dict[str, str]]) -> dict[str, Any] | None:
    for rank, values in enumerate(given):
        for key in sorted({*given[0], *values}, key=lambda key: (key.count("."), key)):  # copies after their source
            first, other = given[0].get(key, "absent"), values.get(key, "absent")
            if first != other:
                sentence = f"rank {rank} was started with another config: {key} is {other} there, and {first} on rank 0"
                return {"rank": rank, "sentence": sentence}
    return None


def _share(ranks: Ranks, place: dict[str, Any] | None) -> dict[str, Any]:
    """Tell every rank the run's folder, once each has seen there what rank 0 has put there."""
    token = secrets.token_hex(16)
    name = f".ranks-{token[:8]}"

    def put() -> dict[str, Any]:
        assert place is not None
        (Path(place["folder"]) / name).write_text(token)
        return {**place, "name": name, "token": token}

    told: dict[str, Any] = ranks.first(put)
    try:
        seen = (Path(told["folder"]) / told["name"]).read_text() == told["token"]
    except OSError:
        seen = False
    answers = ranks.gather({"seen": seen})
    if ranks.is_first:
        with contextlib.suppress(OSError):
            (Path(told["folder"]) / name).unlink()
    blind = ranks.first(lambda: next((rank for rank, answer in enumerate(answers or []) if not answer["seen"]), None))
    if blind is not None:
        sentence = (
            f"rank {blind} does not see the file that rank 0 wrote into {told['folder']}, and every rank writes its "
            "part of a checkpoint there; take a folder that all machines share (hydra.run.dir=<folder>)"
        )
        raise RankFailed(Verdict(blind, ConfigError.exit_code, sentence))
    return told


# -- learners=N --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _started(config: DictConfig, trusted: Sequence[str] | None) -> Iterator[dict[int, subprocess.Popen[bytes]]]:
    """Start the ranks after this one, and be the first of them; afterwards they are gone."""
    import torch.distributed

    size, distributed = int(config.learners), cast(Any, torch.distributed)
    # The port is the kernel's choice, and stays taken from that moment on.
    store = distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    variables = {
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # this one: no rank is to open another
    }
    if sys.platform == "linux":  # no other machine has anything to say here
        variables["GLOO_SOCKET_IFNAME"] = os.environ.get("GLOO_SOCKET_IFNAME", "lo")
    told = json.dumps(
        {
            "config": OmegaConf.to_container(config, resolve=False),
            "trusted": None if trusted is None else list(trusted),
            "path": sys.path,
            "start_method": multiprocessing.get_start_method(allow_none=True),
        }
    ).encode()
    before = dict(os.environ)
    processes: dict[int, subprocess.Popen[bytes]] = {}
    ended = _AT_END
    try:
        for rank in range(1, size):
            own = {**os.environ, **variables, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            own.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # what becomes of a connection, the watch tells
            own.pop(VARIABLE, None)  # a sweep's job is rank 0's
            process = subprocess.Popen(
                [sys.executable, "-m", "hsw.learners"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                env=own,
                start_new_session=True,  # a terminal's Ctrl-C is for rank 0, which all agree with
            )
            processes[rank] = process
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError), process.stdin:
                process.stdin.write(told)
        os.environ.update({**variables, "RANK": "0", "LOCAL_RANK": "0"})
        yield processes
    except BaseException:
        ended = _ENDED
        raise
    finally:
        for name in (*variables, "RANK", "LOCAL_RANK"):
            if name in before:
                os.environ[name] = before[name]
            else:
                os.environ.pop(name, None)
        for process in processes.values():
            try:
                process.wait(ended)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        del store


# -- the ranks after the first -----------------------------------------------------------------------------------------


def follow(config: DictConfig, trusted: Sequence[str] | None) -> NoReturn:
    """Be a rank after the first: train along, in silence; then the process ends.

    Args:
        config: Settled and checked.
        trusted: As in joined.
    """
    from hsw.build import make_follower
    from hsw.env.trust import only_trusting
    from hsw.run.watched import guarded

    company = Company()
    try:
        with guarded(), stoppable(), only_trusting(trusted) if trusted is not None else contextlib.nullcontext():
            with joined(config, company):
                agent = make_follower(config, Path(company.place["folder"]), company.place["resume"])
                try:
                    company.trains(agent)
                    agent.train()
                finally:
                    agent.env.close()
        code = 0
    except BaseException as error:
        sentence, code = describe(error)
        rank, _ = of_environment()
        if company.tells and not isinstance(error, KeyboardInterrupt):
            mark = "" if isinstance(error, RankFailed) else f"rank {rank}: "
            print(f"hsw: {mark}{one_line(sentence)}", file=sys.stderr, flush=True)
    sys.stderr.flush()
    ending.leave(code)  # all is closed, and rank 0 waits; torch takes seconds to be taken down


def _main() -> None:
    try:
        told = json.load(sys.stdin.buffer)
    except ValueError:
        raise ConfigError("this is started by a run of several learners: python -m hsw.train learners=2") from None
    sys.path[:] = told["path"]
    if told["start_method"]:
        multiprocessing.set_start_method(told["start_method"], force=True)
    quieten()
    config = OmegaConf.create(told["config"])
    assert isinstance(config, DictConfig)
    follow(config, told["trusted"])


def quieten() -> None:
    """Let this rank log nothing: rank 0 says what there is to say."""
    import logging

    logging.captureWarnings(True)
    logging.getLogger().addHandler(logging.NullHandler())


if __name__ == "__main__":
    run_main(_main)
