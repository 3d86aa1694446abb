"""Verify a run: python -m hsw.verify <run folder> [--segments K --seed S | --all].

Runs what lies between its checkpoints again, from its files alone, and compares bit for bit.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

from hsw.cli.main import Parser, run_main, take_allow, take_device


def main() -> None:
    """Parse the command line, verify, print JSON.

    Raises:
        ConfigError: If there is no run, a process owns it, or an argument is wrong.
        EnvError: If the environment broke its contract, raised or hung.
        ResourceError: If the result cannot be written.
        CorruptError: If a segment did not come out as it was, or the run cannot be read.
    """
    parser = Parser(
        prog="hsw-verify",
        description="Run segments of a run again, from its folder alone, and compare states and metrics bit for bit.",
    )
    parser.add_argument("folder", type=Path, help="the run's folder")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--all", action="store_true", help="every segment, from the start on (this is the default)")
    which.add_argument("--segments", type=int, metavar="K", help="so many segments, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (0)")
    take_device(parser)
    take_allow(parser)
    options = vars(parser.parse_args())
    options.pop("all")
    from hsw.rerun.verifying import refuse_different, verify
    from hsw.run.watched import guarded

    with guarded():  # an environment may hang in C, where no alarm reaches it
        say = partial(print, file=sys.stderr, flush=True) if sys.stderr.isatty() else lambda line: None
        result = verify(options.pop("folder"), **options, say=say)
    print(json.dumps(result))
    refuse_different(result)


def cli() -> None:
    """main, with every error as one sentence and an exit code."""
    run_main(main)


if __name__ == "__main__":
    cli()
