"""Make one virtual environment per peer, under .peers/: `python benchmarks/install_peers.py [names]`.

Each is made from exact pins, and one that stands already with the same pins is left alone. Standard library only.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent / ".peers"
TORCH = "torch==2.13.0"

# Peer -> the argument lists of pip install, one call after another. Torch comes first, by itself.
PEERS: dict[str, list[list[str]]] = {
    "sb3": [
        [TORCH],
        [
            "stable-baselines3==2.9.2",
            "gymnasium==1.4.0",
            "envpool==1.2.5",
            "ale-py==0.12.1",
            "opencv-python-headless==4.11.0.86",
            "mujoco==3.3.7",
            "gymnasium-robotics==1.4.2",
        ],
    ],
    "rllte": [
        [TORCH],
        [
            "numpy<2",
            "gymnasium==0.29.1",
            "scipy",
            "termcolor",
            "matplotlib",
            "seaborn",
            "pynvml",
            "pandas",
            "huggingface-hub<1",
            "moviepy",
            "ale-py",
            "envpool==1.2.5",
            "opencv-python-headless<4.12",
        ],
        # Its metadata asks for versions that exclude one another; what it imports is listed above.
        ["--no-deps", "rllte-core==1.0.1"],
    ],
    "sf": [
        [TORCH],
        [
            "numpy<2",
            "gymnasium<1",
            "signal-slot-mp",
            "tensorboardx",
            "psutil",
            "threadpoolctl",
            "colorlog",
            "pyglet",
            "huggingface-hub<1",
            "ale-py",
            "opencv-python-headless<4.12",
            "tensorboard",
        ],
        # What it asks for excludes this torch; what it imports is listed above.
        ["--no-deps", "sample-factory==2.1.1"],
    ],
}


def python_of(name: str) -> Path:
    """The interpreter of a peer's environment."""
    return ROOT / name / "bin" / "python"


def install(name: str) -> None:
    """Make the environment of one peer, unless it stands."""
    folder, marker = ROOT / name, ROOT / name / "installed.txt"
    wanted = "\n".join(" ".join(call) for call in PEERS[name])
    if marker.is_file() and marker.read_text() == wanted:
        print(f"{name}: installed already")
        return
    if not python_of(name).is_file():
        subprocess.run(["python3.11", "-m", "venv", str(folder)], check=True)
    for call in PEERS[name]:
        print(f"{name}: pip install {' '.join(call)}", flush=True)
        pip = [str(python_of(name)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *call]
        subprocess.run(pip, check=True)
    marker.write_text(wanted)


if __name__ == "__main__":
    for peer in sys.argv[1:] or PEERS:
        install(peer)
