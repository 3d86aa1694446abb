"""Where in a person's own code an environment failed."""

from __future__ import annotations

import inspect
import os
import re
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium

import hsw
from hsw.errors import ConfigError, EnvError

# What Gymnasium and constructors raise where an environment cannot be had so.
REFUSALS = (gymnasium.error.Error, ValueError, TypeError, ImportError)

# Of Gymnasium's extras, those that hsw has under the same name: its versions are the ones that are tested.
_EXTRAS = re.compile(r"gymnasium\[(box2d|mujoco)\]")

_LIBRARIES = tuple(
    str(folder) + os.sep
    for folder in (
        *(Path(str(module.__file__)).parent for module in (hsw, gymnasium)),
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib")),
    )
)


def env_error(message: str, error: BaseException) -> EnvError:
    """An EnvError of one sentence: the message, what was raised and where; the traceback is in its details."""
    frame = user_frame(error) or _innermost(error)
    where = f" at {frame}" if frame else ""
    return EnvError(f"{message} {_told(error)}{where}", details=_details(error))


def config_error(message: str, error: BaseException) -> ConfigError:
    """A ConfigError of one sentence; where a person's own code raised it, the place and the traceback come with it."""
    frame = user_frame(error)
    text = _EXTRAS.sub(r"hsw[\1]", _words(error))
    refusal = ConfigError(f"{message} {type(error).__name__}: {text} at {frame}" if frame else f"{message} {text}")
    refusal.details = _details(error) if frame else ""
    return refusal


def user_frame(error: BaseException) -> str | None:
    """file:line of the innermost frame that is no library's, of the error or else of what led to it."""
    for one in _chain(error):
        if isinstance(one, SyntaxError) and one.filename and _is_users(one.filename):
            return _shown(one.filename, one.lineno)
        for frame in reversed(traceback.extract_tb(one.__traceback__)):
            if _is_users(frame.filename):
                return _shown(frame.filename, frame.lineno)
    return None


def place_of(thing: Any) -> str:
    """file:line where a class or a function is written; empty for what is written in another language."""
    try:
        thing = inspect.unwrap(thing)
        return _shown(inspect.getsourcefile(thing) or "", inspect.getsourcelines(thing)[1])
    except (TypeError, OSError):
        return ""


def _innermost(error: BaseException) -> str | None:
    frames = traceback.extract_tb(error.__traceback__)
    return _shown(frames[-1].filename, frames[-1].lineno) if frames else None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and its causes."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)


def _is_users(filename: str) -> bool:
    if filename.startswith("<"):  # frozen modules, and strings that were executed
        return False
    path = os.path.abspath(filename)
    installed = {"site-packages", "dist-packages"} & set(Path(path).parts)
    return not installed and not path.startswith(_LIBRARIES)


def _shown(filename: str, line: int | None) -> str:
    """A place, relative to the working folder if it is in there."""
    path, here = Path(os.path.abspath(filename)), Path.cwd()
    return f"{path.relative_to(here) if path.is_relative_to(here) else path}:{line}"


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {_words(error)}"


def _words(error: BaseException) -> str:
    """What an error says, in one line; an error of a person's own may fail to say anything."""
    try:
        return " ".join(str(error).split())
    except Exception:
        return "(it cannot say what)"


def _details(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))
