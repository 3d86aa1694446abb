"""Hand a policy on: python -m hsw.export <run folder> --out <folder> [--format onnx|pt2] [--push <user>/<name>]."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path

from hsw.cli.main import Parser, run_main, take_allow, take_checkpoint
from hsw.errors import ConfigError, ResourceError, words_of


def push(folder: Path, name: str) -> str:
    """Upload an exported folder to the Hugging Face Hub, as whoever `hf auth login` says.

    Returns:
        Where it is.

    Raises:
        ConfigError: If huggingface_hub is not installed.
        ResourceError: If the Hub does not take it; the folder stays.
    """
    from huggingface_hub import HfApi

    try:
        api = HfApi(library_name="hsw")
        api.create_repo(name, exist_ok=True)
        return str(api.upload_folder(folder_path=folder, repo_id=name, commit_message="Upload a policy"))
    except Exception as error:  # its own, those of its HTTP client, and the network's
        raise ResourceError(f"{folder} is written, and the Hub did not take it: {words_of(error)}") from error


def main() -> None:
    """Parse the command line, export, print what parity.json says.

    Raises:
        ConfigError: If there is no run, the policy cannot be exported, a package is missing, or an argument is wrong.
        EnvError: If the environment broke its contract, raised or hung.
        ResourceError: If the Hub does not take the folder, which stays.
        CorruptError: If the run cannot be read or names what it may not.
        HswError: If what was exported acts otherwise than the policy; nothing is left of it.
    """
    parser = Parser(prog="hsw-export", description="Write what a run has learnt into a folder of its own.")
    parser.add_argument("folder", type=Path, help="the run's folder")
    parser.add_argument("--out", type=Path, required=True, help="a folder that is not there yet")
    parser.add_argument("--format", choices=("onnx", "pt2"), default="onnx", help="onnx, or torch.export's pt2 (onnx)")
    take_checkpoint(parser)
    parser.add_argument("--episodes", type=int, default=20, help="of the evaluation that is told (20)")
    parser.add_argument("--observations", type=int, default=1000, help="on which both have to act alike (1000)")
    take_allow(parser)
    parser.add_argument("--no-video", dest="video", action="store_false", help="record no episode")
    parser.add_argument("--push", metavar="USER/NAME", help="also upload it to the Hugging Face Hub")
    arguments = parser.parse_args()
    for name in ("episodes", "observations"):
        if getattr(arguments, name) < 1:
            raise ConfigError(f"--{name}={getattr(arguments, name)} must be at least 1")
    if arguments.push and not re.fullmatch(r"[\w.-]+/[\w.-]+", arguments.push):
        raise ConfigError(f"--push={arguments.push} must be <user>/<name>")
    if arguments.push and find_spec("huggingface_hub") is None:
        raise ConfigError("--push needs huggingface_hub; pip install 'hsw[hub]'")
    from hsw.exporting import export_run
    from hsw.run.watched import guarded

    options = {name: value for name, value in vars(arguments).items() if name not in ("format", "push")}
    with guarded():
        parity = export_run(**options, form=arguments.format)
    place = {"pushed": push(arguments.out, arguments.push)} if arguments.push else {}
    print(json.dumps({"out": str(arguments.out), **parity, **place}))


def cli() -> None:
    """main, with every error as one sentence and an exit code."""
    run_main(main)


if __name__ == "__main__":
    cli()
