from __future__ import annotations

import os
from pathlib import Path

import pytest

from hsw.errors import ConfigError, ResourceError
from hsw.run.folder import RunFolder


def test_one_process_owns_a_folder_until_it_closes_it(tmp_path: Path) -> None:
    first = RunFolder(tmp_path / "run")
    with pytest.raises(ConfigError, match=f"in use by process {os.getpid()}"):
        RunFolder(tmp_path / "run")
    first.close()
    RunFolder(tmp_path / "run").close()


def test_an_owner_that_died_leaves_the_folder_free(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        RunFolder(tmp_path)
        os._exit(0)
    os.waitpid(pid, 0)
    RunFolder(tmp_path).close()
    assert (tmp_path / "run.lock").read_text() == str(os.getpid())


@pytest.mark.parametrize("path", ["file/run", "file", "x" * 300])
def test_a_path_that_cannot_be_written_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="cannot write into the run folder"):
        RunFolder(tmp_path / path)
