"""Folders for what a lesson writes: one for each process, and the place of the machine's card."""

import atexit
import contextlib
import functools
import os
import platform
import shutil
import stat
import tempfile
from pathlib import Path

from qm9lab import qm9
from qm9lab.qm9.data_folder import home_for

try:
    import fcntl
except ImportError:  # Windows: there the folders of killed processes stay
    fcntl = None

PREFIX = "lesson-"
LOCK = "lock"


def lesson_folder() -> Path:
    """A folder of this process alone, for the files that a lesson builds; it goes when it ends.

    It lies in ``lessons/`` in the data folder or, where that is shared and read-only, in the
    user's cache folder. Its name cannot be guessed, nobody else may enter it, and the process
    holds a lock in it. The next process removes what a killed one left: a folder of the same user
    whose lock is free. DataError if neither place can be written.
    """
    try:
        return _own_folder(qm9.folder() / "lessons", os.getpid())
    except OSError:
        cache = _cache_folder()
    try:
        return _own_folder(cache, os.getpid())
    except OSError as error:
        raise qm9.DataError(
            f"{cache}: expected a folder that can be written (nor can {qm9.folder()}), "
            f"found {error.strerror}: set QM9LAB_DATA to a folder of yours"
        ) from error


def _cache_folder() -> Path:
    import platformdirs

    with home_for(f"{qm9.folder()} cannot be written, so the cache folder"):
        return platformdirs.user_cache_path("qm9lab")


@functools.cache
def _own_folder(place: Path, pid: int) -> Path:
    """The folder of process ``pid``: a child that was forked gets another one."""
    place.mkdir(parents=True, exist_ok=True)
    while True:
        outer = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        with contextlib.suppress(OSError):  # a disk without locks: there nobody sweeps either
            if _lock(outer, os.O_CREAT) is None:
                continue
        break
    atexit.register(_remove, outer, pid)
    for other in set(place.glob(f"{PREFIX}*")) - {outer}:
        _sweep(other)
    own = outer / "files"
    own.mkdir()
    return own


def _lock(folder: Path, flags: int = 0) -> int | None:
    """Lock a folder until the descriptor is closed; None if it is locked, or was just removed."""
    if fcntl is None:
        return -1
    try:
        fd = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW | flags, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The one who held it before us may have removed the folder.
        if os.path.samestat(os.fstat(fd), os.stat(folder / LOCK)):
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(fd)
    return None


def _sweep(folder: Path) -> None:
    """Remove the folder of a process of this user that has ended; no other, and follow no link."""
    with contextlib.suppress(OSError):
        status = folder.lstat()
        if fcntl is None or not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            return
        fd = _lock(folder)
        if fd is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(fd)


def _remove(folder: Path, pid: int) -> None:
    if os.getpid() == pid:  # not from a forked child that ends
        shutil.rmtree(folder, ignore_errors=True)


def machine_card() -> Path:
    """Where ``measure.calibrate`` keeps what it measured: next to the data or, where that is
    shared and read-only, in the user's cache folder."""
    name = f"machine-{platform.node() or 'here'}.json"
    data = qm9.folder()
    if os.access(data if os.path.isdir(data) else data.parent, os.W_OK):
        return data / name
    return _cache_folder() / name
