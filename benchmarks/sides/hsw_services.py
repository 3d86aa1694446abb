"""Share of a steady PPO CartPole run that goes into metrics, progress, checkpoints and signals."""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time

from meter import Done, Timed, emit

import hsw.train
from hsw.agent import Agent
from hsw.run.callback import Callback
from hsw.run.progress import Progress
from hsw.run.services import Run

SERVICES = ((Run, "log"), (Run, "save"), (Progress, "update"), (Agent, "state_dict"), (Agent, "check_stop"))
WARM_UP = 5

parser = argparse.ArgumentParser()
parser.add_argument("--cycles", type=int, default=600)  # of which a checkpoint comes every 49th
args = parser.parse_args()


def timed(owner: type, name: str) -> Timed:
    """Replace a method by one that remembers how long it took."""
    timer = Timed(getattr(owner, name))
    setattr(owner, name, lambda *args, **kwargs: timer(*args, **kwargs))
    return timer


timers = {f"{owner.__name__}.{name}": timed(owner, name) for owner, name in SERVICES}
begins: list[float] = []
before: dict[str, int] = {}


class Cycles(Callback):
    """Notes when each iteration ends, and ends the run after enough of them."""

    def on_iteration_end(self, agent: Agent, metrics: dict[str, float]) -> None:
        begins.append(time.perf_counter())
        if len(begins) == WARM_UP:
            before.update({name: len(timer.seconds) for name, timer in timers.items()})
        if len(begins) == WARM_UP + args.cycles:
            raise Done


with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Done):
    counting = ("+callbacks.cycles._target_=__main__.Cycles", "allow=[__main__]")
    sys.argv = ["hsw.train", "agent=ppo", "num_train_steps=1000000000", *counting, f"hydra.run.dir={folder}"]
    hsw.train.main()
total = begins[-1] - begins[WARM_UP - 1]
shares = {name: sum(timer.seconds[before[name] :]) / total for name, timer in timers.items()}
emit(sum(shares.values()), **shares, seconds=total)
