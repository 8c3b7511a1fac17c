"""Large files that are whole or not there: checksum beside them, one writer, rename at the end.

A file ``name`` comes with ``name.sha256``, in the format of ``sha256sum``, so that a copy that was
cut short is found. While it is written it has a temporary name in the same folder, under a lock.
"""

import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

TEMPORARY = ".{}.qm9lab-tmp"
"""Name of a file that is being written, always the same: what a killed process left is overwritten
by the next one that holds the lock."""

REBUILD = "python -m qm9lab data"


class DataError(RuntimeError):
    """QM9 cannot be had: what was expected, what was found, what to do, with the path."""

    __module__ = "qm9lab.qm9"  # where callers know it


def sidecar(path: Path) -> Path:
    """Where the checksum of a file stands."""
    return path.with_name(path.name + ".sha256")


def _sha256(path: Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def verify(path: Path) -> None:
    """Compare a file with the checksum that was noted when it was written.

    Raises
    ------
    DataError
        If they differ or cannot be read.
    """
    checksum = sidecar(path)
    try:
        expected = checksum.read_text(errors="replace").partition(" ")[0]
        found = _sha256(path)
    except OSError as error:
        raise DataError(
            f"{error.filename}: expected {path.name} and its checksum, found {error.strerror}: "
            f"the copy is incomplete; copy both files again, or delete {path} and run `{REBUILD}`"
        ) from error
    if found != expected:
        raise DataError(
            f"{path}: expected SHA-256 {expected} (from {checksum.name}), found {found} in "
            f"{path.stat().st_size} bytes: it was changed or cut short; delete it and run "
            f"`{REBUILD}`"
        )


@contextmanager
def locked(root: Path, progress: bool) -> Iterator[None]:
    """Hold the data folder for one process at a time.

    Raises
    ------
    DataError
        If the folder cannot be made, written or locked (flock(2)).
    """
    import filelock

    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(root / ".qm9lab.lock")
        try:
            held = lock.acquire(timeout=0)
        except filelock.Timeout:
            if progress:
                say(f"{root}: another process is building QM9; waiting for it")
            held = lock.acquire()
    except (OSError, NotImplementedError) as error:  # the second: no flock(2) on this disk
        raise DataError(
            f"{root}: expected a data folder that can be written and locked, "
            f"found {getattr(error, 'strerror', None) or error}: "
            "set QM9LAB_DATA to a folder of yours on a local disk"
        ) from error
    with held:
        yield


class _Output:
    """The file being written: hashes what passes, and keeps its first OSError for later.

    Raised inside a write, torch.save would turn it into a RuntimeError about zip positions.
    """

    def __init__(self, f: BinaryIO) -> None:
        self.f, self.sha256, self.error = f, hashlib.sha256(), None

    def write(self, chunk) -> int:
        if self.error is None:
            try:
                self.f.write(chunk)
                self.sha256.update(chunk)
            except OSError as error:
                self.error = error
        return len(chunk)

    def flush(self) -> None:
        """Nothing: torch.save asks for it; ``replacing`` does it before fsync(2)."""


@contextmanager
def replacing(path: Path, made_from: Path | None = None) -> Iterator[_Output]:
    """Write a file and its checksum under temporary names; rename both when they are whole.

    fsync(2) and rename(2), the checksum first: a file under its name always has its checksum.
    ``made_from`` gets a second line in the checksum file.
    """
    checksum = sidecar(path)
    temporary, temporary_checksum = (
        p.with_name(TEMPORARY.format(p.name)) for p in (path, checksum)
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as f:
            output = _Output(f)
            yield output
            if output.error is not None:
                raise output.error
            f.flush()
            os.fsync(f.fileno())
        lines = f"{output.sha256.hexdigest()}  {path.name}\n"
        if made_from is not None:
            lines += f"{_sha256(made_from)}  {made_from.relative_to(path.parent).as_posix()}\n"
        with open(temporary_checksum, "w", encoding="utf-8", newline="\n") as f:
            f.write(lines)
            f.flush()
            os.fsync(f.fileno())
        path.unlink(missing_ok=True)  # an older one must not meet the new checksum
        os.replace(temporary_checksum, checksum)
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(
            f"{path}: expected to write it, found {error.strerror} with "
            f"{shutil.disk_usage(path.parent).free / 2**20:,.0f} MiB free (the data set takes "
            "350): make room, or set QM9LAB_DATA to a folder of yours on another disk"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
        temporary_checksum.unlink(missing_ok=True)


def say(line: str) -> None:
    """A line on standard error that leaves a progress bar whole."""
    from tqdm.auto import tqdm

    tqdm.write(line, file=sys.stderr)
