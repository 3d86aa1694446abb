"""What benchmarks.run measures: sides, and what is compared with what."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.install_peers import python_of

SIDES = Path(__file__).resolve().parent / "sides"


@dataclass(frozen=True)
class Side:
    """A script of benchmarks/sides, named <project>_<what>, and its arguments; cycles, where it takes them."""

    script: str
    args: tuple[str, ...] = ()
    cycles: int | None = None

    @property
    def project(self) -> str:
        return self.script.split("_")[0]

    def command(self, quick: bool) -> list[str]:
        python = sys.executable if self.project == "hsw" else str(python_of(self.project))
        cycles = [] if self.cycles is None else ["--cycles", str(1 if quick else self.cycles)]
        return [python, str(SIDES / f"{self.script}.py"), *self.args, *cycles]


@dataclass(frozen=True)
class Comparison:
    """hsw and what it is held against; without a peer the value itself is the figure."""

    name: str
    unit: str
    hsw: Side
    peer: Side | None
    target: str
    higher_is_better: bool = True

    def ratio(self, hsw: float, peer: float) -> float:
        """How many times better hsw is."""
        return hsw / peer if self.higher_is_better else peer / hsw


def _cartpole(variant: str, hsw: Side, target: str) -> Comparison:
    return Comparison(f"ppo_cartpole/{variant}", "steps/s", hsw, Side("sb3_ppo", cycles=30), target)


def _her(what: str, unit: str, size: str, target: str) -> Comparison:
    """Size is batch x environments where transitions are sampled, and environments where they are added."""
    batch_size, _, num_envs = size.rpartition("x")
    args = (what, "--num-envs", num_envs, *(("--batch-size", batch_size) if batch_size else ()))
    name = {"sample": "her_sampling", "add": "her_add"}[what]
    return Comparison(f"{name}/{size}", unit, Side("hsw_her", args), Side("sb3_her", args), target, what == "sample")


def _replay(size: str) -> Comparison:
    sides = Side("hsw_replay", (size,)), Side("sb3_replay", (size,))
    return Comparison(f"replay_sampling/{size}", "transitions/s", *sides, "2x")


def _sac(name: str, unit: str, sides: str, args: tuple[str, ...], target: str) -> Comparison:
    return Comparison(name, unit, Side(f"hsw_{sides}", args, cycles=15), Side(f"sb3_{sides}", args, cycles=15), target)


def _impala(name: str, args: tuple[str, ...], cycles: int, target: str) -> Comparison:
    """An actor-learner beside Sample Factory's, which is fastest with 16 environments a worker. A cycle is a second."""
    peer = Side("sf_appo", ("--task", name.split("/")[0], "--num-envs", "16"), cycles)
    return Comparison(f"impala_{name}", "steps/s", Side("hsw_impala", args, cycles), peer, target)


COMPARISONS = [
    _cartpole("sync", Side("hsw_ppo", ("--backend", "sync"), cycles=30), "2x"),
    _cartpole("native", Side("hsw_ppo", ("--backend", "native"), cycles=40), "3x"),
    _cartpole("run", Side("hsw_train", cycles=30), "2x"),
    Comparison("daac_cartpole/sync", "steps/s", Side("hsw_daac", cycles=20), Side("rllte_daac", cycles=20), ">= 2x"),
    Comparison("gae/128x8", "µs", Side("hsw_gae", ("128x8",)), Side("sb3_gae", ("128x8",)), "4x", False),
    Comparison("gae/256x64", "µs", Side("hsw_gae", ("256x64",)), Side("sb3_gae", ("256x64",)), "4x", False),
    Comparison(
        "ppo_pong/fp32",
        "steps/s",
        Side("hsw_ppo", ("--task", "pong"), cycles=4),
        Side("sb3_ppo", ("--task", "pong"), cycles=4),
        "1.25x",
    ),
    Comparison("gather/2048x3x64x64", "of clone()", Side("hsw_gather", ("2048", "3x64x64")), None, "<= 2"),
    Comparison("gather/256x4x84x84", "of clone()", Side("hsw_gather", ("256", "4x84x84")), None, "<= 2"),
    Comparison("startup/first_step", "s", Side("hsw_startup"), Side("sb3_startup"), "1x (2.0 s)", False),
    Comparison("memory/procgen_64x256", "of the rollout", Side("hsw_memory"), None, "<= 1.3"),
    Comparison(
        "overhead/run", "steps/s", Side("hsw_train", cycles=60), Side("hsw_ppo", cycles=60), ">= 0.97x of the bare loop"
    ),
    Comparison("overhead/services", "of the run", Side("hsw_services", cycles=600), None, "<= 0.03", False),
    *(_her("sample", "transitions/s", f"{size}x{num_envs}", "3x") for size in (256, 1024, 2048) for num_envs in (1, 8)),
    *(_replay(size) for size in ("256x1", "1024x1", "256x8")),
    _sac("sac_update/256x256", "updates/s", "sac", (), "1.25x"),
    _sac("sac_loop/halfcheetah", "steps/s", "sac_loop", ("halfcheetah",), "1.2x"),
    _sac("her_loop/fetch_reach", "steps/s", "sac_loop", ("fetch_reach",), "1.3x"),
    *(
        Comparison(
            name, unit, Side("hsw_sac_loop", ("fetch_reach", "--figure", figure), cycles=10), None, target, False
        )
        for name, unit, figure, target in (
            ("her_store/fetch_reach", "of a step", "add_of_loop", "<= 0.05"),
            ("her_store/no_updates", "of env.step + add", "add_of_collecting", "-"),
        )
    ),
    *(_her("add", "µs a row", num_envs, "-") for num_envs in ("1", "8")),
    _impala("cartpole/sync", ("--num-envs", "32"), 20, "3x"),
    _impala("cartpole/native", ("--backend", "native", "--num-envs", "32"), 20, "3x"),
    _impala("pong", ("--task", "pong", "--num-envs", "16"), 60, "1.2x"),
    Comparison("shm_batch/32x20x4x84x84", "of clone()", Side("hsw_shm", ("32x20", "uint8", "4x84x84")), None, "<= 2"),
    Comparison("shm_batch/16x80x4", "of clone()", Side("hsw_shm", ("16x80", "float32", "4")), None, "<= 2"),
]
