"""Evaluate a run: python -m hsw.eval <run folder> [--episodes 20] [--checkpoint best|last] [--video]."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from hsw.cli.main import Parser, run_main
from hsw.errors import ConfigError, CorruptError


def evaluate_run(
    folder: Path,
    episodes: int = 20,
    seed: int | None = None,
    checkpoint: str = "last",
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
        checkpoint: "last", or "best" of the run's own evaluations.
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
    import torch

    from hsw.agent.evaluation import evaluate
    from hsw.agent.weights import load_policy
    from hsw.build import build, build_env
    from hsw.config.resolved import check, load_config
    from hsw.config.targets import check_env_modules
    from hsw.device import resolve_device
    from hsw.run.checkpoint import load_newest

    if episodes < 1:
        raise ConfigError(f"--episodes={episodes} must be at least 1")
    config = load_config(folder)
    config.allow = allow or []
    config.eval_episodes = episodes
    if seed is not None:
        config.seed = seed
    try:
        plain, _ = check(config)
        check_env_modules(plain, config.allow)
    except ConfigError as error:
        raise CorruptError(f"the config of {folder} cannot be run: {error}") from error
    torch.set_num_threads(config.threads)
    where = folder / ("best" if checkpoint == "best" else "checkpoints")
    state, meta, complaints, _ = load_newest(where, rows=False)
    for complaint in complaints:
        logging.getLogger("hsw").warning("%s; the checkpoint before it is used", complaint)
    policy = build(config.network).to(resolve_device(device))
    load_policy(policy, state["policy"])
    deterministic = config.eval_deterministic if deterministic is None else deterministic

    def play(num_episodes: int, **options: Any) -> dict[str, Any]:
        recorder = options.pop("recorder", None)
        env = build_env(config, training=False, **options)
        try:
            env.load_obs_statistics(state["env"]["obs_statistics"])
            scores = evaluate(
                policy, env, num_episodes, deterministic, config.seed, resolve_device(device), on_step=recorder
            )
        finally:
            env.close()
        assert scores is not None  # nothing stops it
        return scores

    result = {"step": meta["step"], "episodes": episodes, "deterministic": deterministic, **play(episodes)}
    if video:
        from hsw.agent.video import Recorder

        recorder = Recorder()
        play(1, num_envs=1, render_mode="rgb_array", recorder=recorder)
        result["video"] = str(recorder.write(folder / f"step-{meta['step']}"))
    return result


def main() -> None:
    """Parse the command line, evaluate, print JSON."""
    parser = Parser(prog="hsw-eval", description="Evaluate the networks that a run saved.")
    parser.add_argument("folder", type=Path, help="the run's folder")
    parser.add_argument("--episodes", type=int, default=20, help="whole episodes to play (20)")
    parser.add_argument("--seed", type=int, help="root of the episodes' seeds (the run's)")
    parser.add_argument("--checkpoint", choices=("last", "best"), default="last", help="which networks (last)")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--deterministic", dest="deterministic", action="store_true", default=None)
    action.add_argument("--sample", dest="deterministic", action="store_false", help="sample actions")
    parser.add_argument("--device", default="cpu", help="auto, cpu or cuda (cpu)")
    parser.add_argument("--allow", action="append", default=[], metavar="PACKAGE", help="trust a package")
    parser.add_argument("--video", action="store_true", help="record an episode into the run folder")
    result = evaluate_run(**vars(parser.parse_args()))
    print(json.dumps(result))


def cli() -> None:
    """main, with every error as one sentence and an exit code."""
    run_main(main)


if __name__ == "__main__":
    cli()
