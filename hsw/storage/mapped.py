"""The memory of a replay that lies in a file, of which the system keeps in memory what there is room for."""

from __future__ import annotations

import gc
import mmap
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from hsw.directory import Directory
from hsw.errors import ResourceError


def mapped_zeros(folder: Path | None, size: int, dtype: np.dtype) -> np.ndarray:
    """Zeros in a file that has no name any more as soon as it is open.

    So nothing else can open it, and however the process ends, the disk has its room again. All of that is taken at
    once: a disk that fills up later does not take it away.

    Args:
        folder: On whose disk; None is the system's place for temporary files.
        size: Number of items.
        dtype: Of an item.

    Returns:
        [size]; the file is gone when nothing refers to it, or to a view of it, any more.

    Raises:
        ResourceError: If the disk does not take it.
        CorruptError: If something that is no file is in the way.
    """
    gc.collect()  # an earlier run in this process may still have one, in a circle of references
    place, needed = folder or Path(tempfile.gettempdir()), size * dtype.itemsize
    name = f".replay-{os.getpid()}"
    try:
        free = shutil.disk_usage(place).free
        if needed > free:  # asked first, because some file systems fill the disk before they refuse
            told = f"{needed / 2**30:.1f} GiB in {place}, and {free / 2**30:.1f} GiB are free"
            raise ResourceError(f"the replay on disk needs {told}; lower storage.storage_size")
        with Directory.open(place) as directory:
            if directory.kind(name) in ("file", "link"):  # of a process that was killed between the next two lines
                directory.remove(name)
            descriptor = directory.open_file(name, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            try:
                directory.remove(name)
                os.posix_fallocate(descriptor, 0, needed)
                memory = mmap.mmap(descriptor, needed)
            finally:
                os.close(descriptor)
    except OSError as error:
        detail = error.strerror or error
        raise ResourceError(
            f"cannot keep a replay of {needed / 2**30:.1f} GiB in {place}: {detail}; lower storage.storage_size"
        ) from error
    return np.frombuffer(memory, dtype)
