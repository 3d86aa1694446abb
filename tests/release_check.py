"""make release-check: what is released, installed where no checkout is, does what the README says.

Builds the sdist, and from it the wheel; looks into the wheel; installs it with constraints.txt into a fresh environment
in a temporary folder; and runs the README's commands there, on budgets of seconds.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / "build" / "release"
SMALL = "num_train_steps=4000 eval_episodes=2"


def say(text: str, begun: float) -> None:
    print(f"[{time.monotonic() - begun:6.1f} s] {text}", flush=True)


def commands() -> list[str]:
    """The README's tour, each command with a budget of seconds; its folders are those of the tour."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = [re.sub(r"\s+#.*", "", line) for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
             for line in block.splitlines()]  # fmt: skip
    train = next(line for line in lines if "hydra.run.dir=outputs/tour" in line).partition("python")
    resume, again = (next(line for line in lines if f"{key}=outputs/tour" in line) for key in ("resume", "from"))
    evaluate = next(line for line in lines if line.startswith("python -m hsw.eval outputs/tour"))
    assert "python -m hsw.export" in text
    assert "python -m hsw.report" in text
    return [
        f"python{train[2]} {SMALL}",
        f"{resume} num_train_steps=6000",
        evaluate,
        f"{again} {SMALL} hydra.run.dir=outputs/again",
        "python -m hsw.report outputs --format html --out report.html",
        "python -m hsw.verify outputs/tour --segments 1",
        "python -m hsw.export outputs/tour --out exported --episodes 2 --observations 50 --no-video",
        "hsw-train agent=daac --cfg job",
    ]


def build() -> Path:
    """The sdist and the wheel that is built from it. Returns the wheel."""
    subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(PLACE), str(ROOT)], check=True, stdout=subprocess.DEVNULL
    )
    return max(PLACE.glob("*.whl"), key=lambda path: path.stat().st_mtime)


def shipped() -> list[str]:
    """Every file of hsw's packages and its conf/, studies too, as the wheel has them."""
    packages = [path for name in ("hsw", "hydra_plugins") for path in (ROOT / name).rglob("*") if path.is_file()]
    configs = [path for name in ("conf", "experiments") for path in (ROOT / name).rglob("*.yaml")]
    names = [path.relative_to(ROOT).as_posix() for path in packages if path.suffix != ".pyc"]
    names += [f"hsw/conf/{path.relative_to(ROOT).as_posix().removeprefix('conf/')}" for path in configs]
    return sorted(set(names))


def missing_from(wheel: Path) -> list[str]:
    """What a wheel lacks, and what it must not have."""
    names = zipfile.ZipFile(wheel).namelist()
    licensed = any(name.endswith("licenses/LICENSE") for name in names)
    lacking = [name for name in shipped() if name not in names] + ["LICENSE"] * (not licensed)
    return lacking + [f"{name} (too much)" for name in names if name.startswith(("tests/", "docs/", "benchmarks/"))]


def main() -> None:
    """Build, install, run; the first thing that is wrong ends it."""
    begun = time.monotonic()
    wheel = build()
    say(f"built {wheel.name}", begun)
    if lacking := missing_from(wheel):
        sys.exit(f"{wheel.name} lacks {', '.join(lacking)}")
    with tempfile.TemporaryDirectory(prefix="hsw-release-") as place:
        venv.create(Path(place, "venv"), with_pip=True)
        bin_ = Path(place, "venv", "bin")
        wanted = ["-c", str(ROOT / "constraints.txt"), f"{wheel}[export,report]"]
        subprocess.run([str(bin_ / "pip"), "install", "--quiet", "--disable-pip-version-check", *wanted], check=True)
        say("installed", begun)
        env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        env |= {"PATH": f"{bin_}:{env['PATH']}", "VIRTUAL_ENV": str(bin_.parent)}
        where = [str(bin_ / "python"), "-c", "import hsw; print(hsw.__file__)"]
        found = subprocess.run(where, cwd=place, env=env, capture_output=True, text=True, check=True).stdout
        assert found.startswith(place), f"{found} is not what was installed"
        for command in commands():
            done = subprocess.run(shlex.split(command), cwd=place, env=env, capture_output=True, text=True, check=False)
            say(f"{command}: {done.returncode}", begun)
            if done.returncode:
                sys.exit(f"{command} ended with {done.returncode}:\n{done.stderr[-3000:]}")
        written = ["report.html", "exported/parity.json", "outputs/tour/checkpoints", "outputs/tour/verified.json"]
        if lost := [name for name in written if not Path(place, name).exists()]:
            sys.exit(f"the tour did not leave {', '.join(lost)}")
    say("the release works where no checkout is", begun)


if __name__ == "__main__":
    main()
