"""An error in a person's own code keeps its place: in the sentence, and with its traceback in train.log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.runs import call, run_dir, tiny

MODULE = """
import gymnasium as gym
import numpy as np

{top}

class Mine(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, size=1):
        self.steps = 0
        {build}

    def reset(self, *, seed=None, options=None):
        {reset}
        return np.zeros(1, np.float32), {{}}

    def step(self, action):
        self.steps += 1
        if self.steps > 20:
            {step}
        return np.zeros(1, np.float32), 1.0, False, self.steps % 5 == 0, {{}}


gym.register("{name}-v0", Mine)
"""
FAULTS = {
    "step": ("step", "{}['boom']", 3, "environment 0: step raised KeyError: 'boom' at"),
    "the standard library": ("step", "__import__('json').loads('{')", 3, "step raised JSONDecodeError: "),
    "reset": ("reset", "raise RuntimeError('no simulator')", 3, "reset raised RuntimeError: no simulator at"),
    "the constructor": ("build", "{}['boom']", 3, "environment 0 could not be built: KeyError: 'boom' at"),
    "a refused value": ("build", "raise ValueError('size 1 is odd')", 2, "ValueError: size 1 is odd at"),
    "the module": ("top", "undefined_name", 3, "could not be imported: NameError: name 'undefined_name'"),
    "the syntax": ("top", "def f(:", 3, "could not be imported: SyntaxError"),
}


def write(folder: Path, fault: str, name: str) -> tuple[int, tuple[str, ...]]:
    """A module with a fault. Returns the line of the fault, and the arguments that name its environment."""
    place, code, *_ = FAULTS[fault]
    parts: dict[str, Any] = dict.fromkeys(("top", "build", "reset", "step"), "pass")
    text = MODULE.format(**{**parts, place: f"{code}  # here", "name": name})
    (folder / f"{name}.py").write_text(text)
    line = next(number for number, row in enumerate(text.splitlines(), 1) if "# here" in row)
    return line, ("env=gym", f"env.id={name}:{name}-v0")


@pytest.mark.parametrize(
    ("fault", "backend"),
    [*((fault, "sync") for fault in FAULTS), *((fault, "async") for fault in ("step", "the constructor"))],
)
def test_the_sentence_has_the_place_and_train_log_the_traceback(
    fault: str, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"my_{fault.replace(' ', '_')}_{backend}"
    line, env = write(tmp_path, fault, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    result = call(*tiny("ppo"), *env, f"env.backend={backend}", run_dir(tmp_path / "run"))
    _, _, code, words = FAULTS[fault]
    assert result.refused(code, words, f"{name}.py:{line}")
    assert len(result.err.strip().splitlines()) == 1
    assert "Traceback" not in result.out
    log = (tmp_path / "run" / "train.log").read_text()
    assert result.sentence.removeprefix("hsw: ") in log
    assert "Traceback (most recent call last)" in log
    assert f'{name}.py", line {line}' in log


def test_an_actors_error_has_its_place_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line, env = write(tmp_path, "step", "my_actors")
    options = ("agent.num_actors=1", "agent.num_learners=1", "agent.max_restarts=0")
    monkeypatch.syspath_prepend(str(tmp_path))
    result = call(*tiny("impala"), *env, *options, run_dir(tmp_path / "run"))
    assert result.refused(5, "environment 0: step raised KeyError: 'boom' at", f"my_actors.py:{line}")
    assert "Traceback" not in result.out
    log = (tmp_path / "run" / "train.log").read_text()
    assert f'my_actors.py", line {line}' in log


def test_an_environment_that_only_one_worker_cannot_build_is_named(tmp_path: Path) -> None:
    from hsw.env.episode import EpisodeFactory
    from hsw.env.workers import WorkerVectorEnv
    from hsw.errors import EnvError
    from tests.envs import Counter

    def fails() -> Any:
        raise KeyError("licence")

    factories = [EpisodeFactory(Counter, 0, 1), EpisodeFactory(fails, 1, 1)]
    with pytest.raises(EnvError, match=r"environment 1 could not be built: KeyError: 'licence' at .*test_places.py:"):
        WorkerVectorEnv(factories)
