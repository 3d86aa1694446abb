"""Evaluate a run: python -m hsw.eval <run folder> [--episodes 20] [--checkpoint best|last] [--video]."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hsw.cli.main import Parser, run_main, take_allow, take_checkpoint, take_device
from hsw.errors import ConfigError


def evaluate_run(
    folder: Path,
    episodes: int = 20,
    seed: int | None = None,
    checkpoint: str | int = "last",
    deterministic: bool | None = None,
    device: str = "cpu",
    allow: list[str] | None = None,
    video: bool = False,
) -> dict[str, Any]:
    """Play whole episodes with the networks that a run saved, on seeds (and levels) that it did not train on.

    Args:
        folder: The run's.
        episodes: How many.
        seed: Root of the episodes' seeds; None takes the run's.
        checkpoint: "last", "best" of the run's own evaluations, or the step of one that was kept.
        deterministic: Take the most likely action; None does as the run's config says.
        device: Where the networks compute.
        allow: Packages that the run's config may name beside hsw's own.
        video: Also record an episode into the run folder.

    Returns:
        mean, std, min, max, returns and lengths, the step of the checkpoint, and the video's path if there is one.

    Raises:
        ConfigError: If there is no run, or an argument is wrong.
        CorruptError: If the run cannot be read or names what it may not.
    """
    from hsw.trained import load_trained

    if episodes < 1:
        raise ConfigError(f"--episodes={episodes} must be at least 1")
    trained = load_trained(folder, checkpoint, allow or (), device)
    deterministic = trained.config.eval_deterministic if deterministic is None else deterministic
    scores = trained.evaluate(episodes, deterministic, seed)
    result = {"step": trained.step, "episodes": episodes, "deterministic": deterministic, **scores}
    if video:
        from hsw.agent.video import Recorder

        recorder = Recorder()
        trained.evaluate(1, deterministic, seed, num_envs=1, render_mode="rgb_array", on_step=recorder)
        result["video"] = str(recorder.write(folder / f"step-{trained.step}"))
    return result


def main() -> None:
    """Parse the command line, evaluate, print JSON.

    Raises:
        ConfigError: If there is no run or no such checkpoint, or an argument is wrong.
        EnvError: If the environment broke its contract, raised or hung.
        CorruptError: If the run cannot be read or names what it may not.
    """
    parser = Parser(prog="hsw-eval", description="Evaluate the networks that a run saved.")
    parser.add_argument("folder", type=Path, help="the run's folder")
    parser.add_argument("--episodes", type=int, default=20, help="whole episodes to play (20)")
    parser.add_argument("--seed", type=int, help="root of the episodes' seeds (the run's)")
    take_checkpoint(parser)
    action = parser.add_mutually_exclusive_group()
    action.add_argument(
        "--deterministic",
        dest="deterministic",
        action="store_true",
        default=None,
        help="take the most likely actions (as the run does)",
    )
    action.add_argument("--sample", dest="deterministic", action="store_false", help="sample actions")
    take_device(parser, "cpu")
    take_allow(parser)
    parser.add_argument("--video", action="store_true", help="record an episode into the run folder")
    arguments = parser.parse_args()
    from hsw.run.watched import guarded

    with guarded():  # an environment may hang in C, where no alarm reaches it
        result = evaluate_run(**vars(arguments))
    print(json.dumps(result))


def cli() -> None:
    """main, with every error as one sentence and an exit code."""
    run_main(main)


if __name__ == "__main__":
    cli()
