from __future__ import annotations

import logging
import shlex
from pathlib import Path
from typing import Any

import pytest

from hsw.run.header import MOST_LINES, commands, header, tell


def test_facts_are_aligned_lines_without_the_empty_ones() -> None:
    assert header({"agent": "PPO", "preset": "", "device": "cpu\n1 thread"}) == "agent   PPO\ndevice  cpu 1 thread"


def test_a_header_has_at_most_eight_lines() -> None:
    assert MOST_LINES == 8
    with pytest.raises(ValueError, match="9 facts"):
        header({str(n): "x" for n in range(9)})


def test_what_is_told_is_kept_in_the_log_file_also_when_nothing_is_shown(tmp_path: Path, capsys: Any) -> None:
    handler = logging.FileHandler(tmp_path / "train.log")
    logging.getLogger().addHandler(handler)
    try:
        tell("agent  PPO\ndevice  cpu", quiet=True)
        assert capsys.readouterr() == ("", "")
        tell("done  x")
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
    assert capsys.readouterr().err == "done  x\n"
    assert [line.strip() for line in (tmp_path / "train.log").read_text().splitlines()] == [
        "agent  PPO",
        "device  cpu",
        "done  x",
    ]


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("/a/bin/hsw-train", (["hsw-eval"], ["hsw-train"])),
        ("/a/hsw/train.py", (["python", "-m", "hsw.eval"], ["python", "-m", "hsw.train"])),
    ],
)
def test_commands_are_typed_as_the_run_was(program: str, words: Any) -> None:
    folder = Path("out puts/run")
    typed = commands(folder, program, ["mine"])
    assert shlex.split(typed["evaluate"]) == [*words[0], "out puts/run", "--allow", "mine"]
    assert shlex.split(typed["resume"]) == [*words[1], "resume=out puts/run", "allow=[mine]"]
