"""The how-tos as programs: a page's fenced blocks, and how each is run.

```python            whose first line is `# lab/envs.py`: a file of that name; without such a line: run
```yaml, toml        a file, which the first line names (where that is `# @package _global_`: the second)
```bash              run, with the page's folder as the working folder
```text              what the block before it prints: each line must come, in this order
```bash not-run: ... not run, for the reason that is given
"""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.runs import ROOT, call

FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = r"-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?"
ENV = {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", "COLUMNS": "160"}


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the file that its first line names, why it is not run, and its text."""

    language: str
    file: str | None
    reason: str | None
    body: str

    @property
    def runs(self) -> bool:
        return self.reason is None and (self.language == "bash" or (self.language == "python" and not self.file))


def blocks(page: Path) -> list[Block]:
    """A page's blocks, in order."""
    found = []
    for match in FENCE.finditer(page.read_text()):
        language, _, mark = match["info"].partition(" ")
        reason = mark.removeprefix("not-run:").strip() if mark.startswith("not-run:") else None
        named = re.match(r"(?:# @package _global_\n)?# ([\w./-]+\.(?:py|yaml|toml))\n", match["body"])
        found.append(Block(language, named[1] if named and language != "bash" else None, reason, match["body"]))
    return found


def expected(body: str) -> list[re.Pattern[str]]:
    """What a block of output asks of each line: any number where there is one, anything where there are dots."""
    lines = [line.strip() for line in body.splitlines() if line.strip(" .")]
    patterns = []
    for line in lines:
        parts = re.split(rf"(\.\.\.|{NUMBER}|\s+)", line)
        kinds = [
            ".*" if p == "..." else r"\s+" if p.isspace() else NUMBER if re.fullmatch(NUMBER, p) else re.escape(p)
            for p in parts
        ]
        patterns.append(re.compile("".join(kinds)))
    return patterns


def prints(output: str, body: str) -> None:
    """Assert that the lines of a block of output come in this order."""
    lines = iter(output.splitlines())
    for pattern in expected(body):
        assert any(pattern.search(line) for line in lines), f"no line for {pattern.pattern} in:\n{output}"


def run(page: Path, folder: Path, play: Callable[[Block, Path], str]) -> None:
    """Write and run a page's blocks in an empty folder."""
    output = ""
    for block in blocks(page):
        if block.reason is not None:
            output = ""
        elif block.file:
            path = folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.body)
        elif block.runs:
            output = play(block, folder)
        elif block.language == "text":
            prints(output, block.body)


def apart(block: Block, folder: Path) -> str:
    """Run a block as a reader does: in a shell, or an interpreter, of its own."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, **ENV, "PATH": path, "PYTHONPATH": str(ROOT)}
    program = ["bash", "-euc"] if block.language == "bash" else [sys.executable, "-c"]
    done = subprocess.run(
        [*program, block.body], cwd=folder, env=env, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, f"{block.body}\n{done.stdout}\n{done.stderr[-4000:]}"
    return done.stdout + done.stderr


def here(block: Block, folder: Path) -> str:
    """Run a block in this process, whose imports are made already: the commands of hsw, and Python."""
    if block.language == "python":
        script = folder / "block.py"
        script.write_text(block.body)
        runpy.run_path(str(script))
        return ""
    output = ""
    for line in block.body.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if not words:
            continue
        if words[:2] != ["python", "-m"]:
            output += apart(Block("bash", None, None, line), folder)
            continue
        result = call(*words[3:], main=_main(words[2]))
        assert result.code == 0, f"{line}\n{result.out}\n{result.err}"
        output += result.out + result.err
    return output


def _main(module: str) -> Any:
    """The function of a command, whose module is a command or a package of one."""
    return import_module(module).cli


def at_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a folder the place where the process stands and imports from."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    for name, value in ENV.items():
        monkeypatch.setenv(name, value)


def forget_modules(folder: Path) -> None:
    """Let go of what was imported from a folder."""
    for name, module in list(sys.modules.items()):
        spec = getattr(module, "__spec__", None)
        places = [getattr(spec, "origin", None), *(getattr(spec, "submodule_search_locations", None) or ())]
        if any(isinstance(place, str) and Path(place).is_relative_to(folder) for place in places):
            del sys.modules[name]
