"""The examples run."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = [Path(__file__).parents[1] / "examples" / "quickstart.py"]  # test_export plays the other


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.chdir(tmp_path)
    left = runpy.run_path(str(path))
    assert left["scores"]["mean"] > 9
    assert (left["folder"] / "config.yaml").is_file()
