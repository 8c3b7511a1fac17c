"""Folders for what a lesson writes: its own, and where the machine's card lies."""

import atexit
import os
import platform
import shutil
import tempfile
from pathlib import Path

import psutil

from qm9lab.qm9 import folder
from qm9lab.qm9.whole_files import DataError


def lesson_folder() -> Path:
    """A folder of this process alone, for the files that a lesson builds; it goes when it ends.

    It lies in ``lessons/`` in the data folder or, where that is shared and read-only, in the
    user's cache folder. Two kernels with the same lesson open do not meet in it. What a killed
    process left behind is removed by the next one on the same machine.

    Raises
    ------
    DataError
        If neither can be written.
    """
    import platformdirs

    tried = (folder() / "lessons", platformdirs.user_cache_path("qm9lab"))
    for base in tried:
        try:
            return _own_folder(base)
        except OSError as found:
            error = found
    raise DataError(
        f"{tried[1]}: expected a folder that can be written (nor can {tried[0]}), "
        f"found {error.strerror}: set QM9LAB_DATA to a folder of yours"
    ) from error


def _own_folder(base: Path) -> Path:
    machine = platform.node() or "here"
    own = base / f"{machine}-{os.getpid()}"
    if not own.is_dir():
        own.mkdir(parents=True)
        atexit.register(shutil.rmtree, own, ignore_errors=True)
        for other in base.glob(f"{machine}-*"):
            pid = other.name.removeprefix(f"{machine}-")
            if pid.isdecimal() and not psutil.pid_exists(int(pid)):
                shutil.rmtree(other, ignore_errors=True)
    # os.access(2) goes by the mode and says yes to root on a read-only disk: try it.
    with tempfile.TemporaryFile(dir=own):
        return own


def machine_card() -> Path:
    """Where ``measure.calibrate`` keeps what it measured on this machine: a small JSON file.

    Beside the data or, where that is shared and read-only, in the user's cache folder.
    """
    import platformdirs

    name = f"machine-{platform.node() or 'here'}.json"
    beside = folder() if folder().is_dir() else folder().parent
    if os.access(beside, os.W_OK):
        return folder() / name
    return platformdirs.user_cache_path("qm9lab") / name
