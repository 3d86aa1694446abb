"""What the tests of sweeps share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.runs import call
from tests.sweep.sweeps import EIGHT, sweep_dir


@pytest.fixture(scope="session")
def whole(tmp_path_factory: Any) -> Path:
    """An undisturbed sweep, one job after the other in one process."""
    folder = Path(tmp_path_factory.mktemp("whole"))
    assert call("--multirun", *EIGHT, sweep_dir(folder)).code == 0
    return folder
