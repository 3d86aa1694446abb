"""Videos of episodes: an mp4, or a gif where there is no ffmpeg."""

from __future__ import annotations

import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from hsw.env import VectorEnv
from hsw.errors import ConfigError
from hsw.run.folder import write_whole


class Recorder:
    """Collects the first environment's frames; where it renders none, its pixel observations.

    Args:
        fps: Frames per second.
    """

    def __init__(self, fps: int = 30) -> None:
        self.fps = fps
        self.frames: list[np.ndarray] = []

    def __call__(self, env: VectorEnv) -> None:
        """Take one frame."""
        frame = env.frame()
        if frame is None:
            raise ConfigError("this environment renders no frames and observes no images; leave --video out")
        self.frames.append(frame)

    def write(self, stem: Path) -> Path:
        """Write stem.mp4, or stem.gif. Returns its path.

        Raises:
            ConfigError: If imageio is not installed.
        """
        require_imageio("--video")
        import imageio.v2 as imageio

        frames = [_enlarged(frame) for frame in self.frames]
        options: dict[str, Any] = {"fps": self.fps}
        with tempfile.TemporaryDirectory() as temporary:  # imageio writes by path, and would follow a link at its end
            try:
                path = Path(temporary, "video.mp4")
                imageio.mimwrite(path, frames, macro_block_size=2, **options)  # type: ignore[arg-type]
            except (ValueError, OSError, ImportError):  # no ffmpeg
                path = Path(temporary, "video.gif")
                imageio.mimwrite(path, frames, duration=1000 / self.fps)  # type: ignore[arg-type]
            final = stem.with_name(stem.name + path.suffix)
            write_whole(final, path.read_bytes())
        return final


def require_imageio(what: str) -> None:
    """Refuse a wish for a video if imageio is not installed, with a ConfigError."""
    if find_spec("imageio") is None:
        raise ConfigError(f"{what} needs imageio; pip install 'hsw[video]'")


def _enlarged(frame: np.ndarray, smallest: int = 256) -> np.ndarray:
    factor = max(1, smallest // min(frame.shape[:2]))
    return frame.repeat(factor, 0).repeat(factor, 1)
