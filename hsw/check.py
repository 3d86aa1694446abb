"""Check an environment, an algorithm, a storage or a policy of your own: python -m hsw.check <target or overrides>."""

from __future__ import annotations

import contextlib
import json
import sys
import time

from hsw.cli.main import Parser, run_main, take_allow

_EXAMPLES = """examples:
  python -m hsw.check env.id=my_pkg.envs:Ring-v0 env.kwargs.size=3
  python -m hsw.check env=my_env --config-dir mine/conf
  python -m hsw.check algorithm=mine --config-dir mine/conf --allow mine
  python -m hsw.check my_pkg.envs.Ring          # a class, by its name
  python -m hsw.check agent=sac env=pendulum    # both

exit codes: 0 nothing found, 2 the command line cannot work, 3 the environment has faults, 1 other parts have."""


def main() -> None:
    """Parse the command line, check, print the report; the exit code tells whether something was found.

    Raises:
        ConfigError: If the command line cannot work.
        EnvError: As a code: if the environment has faults.
        HswError: As a code: if other parts have.
    """
    from argparse import RawDescriptionHelpFormatter

    parser = Parser(
        prog="hsw-check",
        description="Look for faults in an environment, an algorithm, a storage or a policy, in about a minute.",
        epilog=_EXAMPLES,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("target", nargs="+", help="overrides as hsw.train takes them, an env id, or a class's name")
    parser.add_argument("--config-dir", "-cd", metavar="FOLDER", help="a folder of choices of your own")
    take_allow(parser)
    parser.add_argument("--format", choices=("text", "json"), default="text", help="text or json (text)")
    arguments = parser.parse_intermixed_args()
    begin = time.monotonic()
    with contextlib.redirect_stdout(sys.stderr):  # environments print
        from hsw.checking.command import check_all

        report = check_all(arguments.target, arguments.config_dir, arguments.allow)
    seconds = time.monotonic() - begin
    told = json.dumps(report.as_json(seconds)) if arguments.format == "json" else report.as_text(seconds)
    print(told, flush=True)
    if report.exit_code:
        sys.exit(report.exit_code)


def cli() -> None:
    """main, with every error as one sentence and an exit code."""
    run_main(main)


if __name__ == "__main__":
    cli()
