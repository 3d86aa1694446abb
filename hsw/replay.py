"""Rebuild a run at one of its steps: python -m hsw.replay <run folder> --step N [--out FILE] [--update] [--prompt].

Or go to where its numbers were not finite any more: python -m hsw.replay <run folder> --nonfinite.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hsw.cli.main import Parser, run_main, take_allow, take_device
from hsw.errors import ConfigError


def main() -> None:
    """Parse the command line, replay, print JSON.

    Raises:
        ConfigError: If there is no run, it has no such step, update or end, it cannot be rebuilt there, it does not go
            the same way twice, or a place to write to is in its folder.
        EnvError: If the environment broke its contract, raised or hung.
        ResourceError: If the disk does not take a file.
        CorruptError: If the run cannot be read, or comes to no such end.
    """
    parser = Parser(
        prog="hsw-replay",
        description="Rebuild a run at one of its steps, from the checkpoint before it; its folder stays as it is.",
    )
    parser.add_argument("folder", type=Path, help="the run's folder")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--step", type=int, metavar="N", help="of the run, in environment steps")
    where.add_argument("--nonfinite", action="store_true", help="go to where a number was not finite, and its layer")
    parser.add_argument("--before-update", action="store_true", help="before the updates that the step is worth")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="save the state as safetensors, or --nonfinite's batch"
    )
    parser.add_argument("--update", action="store_true", help="also the next update: a minibatch and its gradients")
    parser.add_argument("--minibatch", type=int, default=0, metavar="K", help="which of the update's, from 0 (0)")
    parser.add_argument("--video", type=Path, metavar="FILE", help="film the first environment to its episode's end")
    parser.add_argument("--prompt", action="store_true", help="open a Python prompt with the agent in it")
    take_device(parser)
    take_allow(parser)
    options = parser.parse_args()
    if options.nonfinite and (options.update or options.video or options.prompt or options.before_update):
        raise ConfigError("--nonfinite goes to a moment of its own; leave --update, --video and --prompt out")
    if options.minibatch < 0:
        raise ConfigError(f"--minibatch {options.minibatch} must be at least 0")
    from hsw.rerun.replaying import refuse_folder
    from hsw.run.watched import guarded

    for path in filter(None, (options.out, options.video)):
        refuse_folder(path, options.folder)
    with guarded():  # an environment may hang in C, where no alarm reaches it
        result = _nonfinite(options) if options.nonfinite else _replay(options)
    print(json.dumps(result))


def _nonfinite(options: Any) -> dict[str, Any]:
    from hsw.rerun.nonfinite import find_nonfinite
    from hsw.rerun.replaying import save_tensors

    result = find_nonfinite(options.folder, options.allow, options.device)
    batch = result.pop("batch")
    return {**result, "files": [save_tensors(options.out, batch)]} if options.out and batch else result


def _replay(options: Any) -> dict[str, Any]:
    from hsw.rerun.replaying import moment, open_prompt, record_update, record_video, save_state, save_tensors

    # An update that the step itself is worth is the one that followed.
    before, files = options.before_update or options.update, []
    place = options.folder, options.step, before, options.allow, options.device, options.video is not None
    with moment(*place) as here:
        result = here.summary()
        if options.out:
            files += save_state(options.out, here.agent.state_dict())
        if options.prompt:
            open_prompt(here.agent)
        if options.update:
            tensors, result["update"] = record_update(here.agent, options.minibatch)
            path = options.out.with_suffix("") if options.out else Path(f"step-{options.step}")
            files.append(save_tensors(path.with_name(f"{path.name}-update.safetensors"), tensors))
        if options.video:
            files.append(str(record_video(here.agent, options.video)))
    return {**result, "files": files}


def cli() -> None:
    """main, with every error as one sentence and an exit code."""
    run_main(main)


if __name__ == "__main__":
    cli()
