"""The README's tour works as pasted, and the longer examples of the documentation."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "docs" / "extending.md", ROOT / "docs" / "python.md"]
# Ends the run when it trains, which takes less than eight seconds, or more on a busy machine.
TIMEOUT = """timeout() {
    shift 3
    "$@" &
    until test -s outputs/tour/metrics.jsonl || ! kill -0 $!; do sleep 0.1; done
    kill -TERM $!
    wait $!
}"""
BLOCKS = [block for page in PAGES for block in re.findall(r"```(\w+)\n(.*?)```", page.read_text(), re.DOTALL)]


def _block(language: str, containing: str) -> str:
    return next(body for name, body in BLOCKS if name == language and containing in body)


def _run(script: str, folder: Path) -> str:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-euc", script], cwd=folder, env=env, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_adding_an_algorithm_works_as_pasted(tmp_path):
    script = _block("bash", "mine/vpg.py").rstrip() + " num_train_steps=2000 eval_episodes=2\n"
    _run(script, tmp_path)
    assert list(tmp_path.glob("outputs/*/*/checkpoints/*/manifest.json"))


def test_stop_resume_and_evaluate_work_as_pasted(tmp_path):
    stop, resume = _block("bash", "resume=outputs/tour").strip().splitlines()
    assert stop.startswith("timeout --signal TERM 8 ")
    _run(f"{TIMEOUT}\n{stop} num_train_steps=1000000 eval_episodes=2 || test $? = 143", tmp_path)
    stopped_at = json.loads((tmp_path / "outputs/tour/metrics.jsonl").read_text().splitlines()[-1])["step"]
    _run(f"{resume} num_train_steps={stopped_at + 500}", tmp_path)
    assert '"returns": [' in _run(_block("bash", "hsw.eval").splitlines()[0], tmp_path)


def test_the_library_works_without_hydra_as_pasted(tmp_path):
    code = _block("python", "OnPolicyAgent").replace("30_000", "3_000")
    _run(f"cat > library.py <<'EOF'\n{code}\nEOF\npython library.py", tmp_path)
