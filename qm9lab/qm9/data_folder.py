"""The data folder: where it is, who may use it, and large files that are whole or not there.

A file ``name`` comes with ``name.sha256``, in the format of ``sha256sum``, so that we find a copy
that was cut short. It is written under a lock, under another name, and renamed when it is whole.
"""

import contextlib
import hashlib
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from qm9lab import files

from .source import DataError

Buffer = bytes | memoryview
REBUILD = "python -m qm9lab data"


def folder() -> Path:
    """The data folder: ``QM9LAB_DATA`` if set, else ``data/`` in the repository.

    Where the package is not in a repository (installed elsewhere), the user's data folder.
    DataError if the folder lies in the home of a user who has none.
    """
    chosen = os.environ.get("QM9LAB_DATA")
    if chosen:
        with home_for(chosen):
            return Path(chosen).expanduser().absolute()
    repository = Path(__file__).resolve().parents[2]
    if (repository / "pyproject.toml").is_file():
        return repository / "data"
    import platformdirs

    with home_for("the data"):
        return platformdirs.user_data_path("qm9lab")


@contextlib.contextmanager
def home_for(path: str | os.PathLike[str], variable: str = "QM9LAB_DATA") -> Iterator[None]:
    """A path in a user's home folder is looked up here: DataError if there is no such home."""
    try:
        yield
    except RuntimeError as error:
        raise DataError(
            f"{path}: expected a home folder, found none: set {variable} to a path that begins "
            "with /"
        ) from error


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def verify(path: Path) -> None:
    """Check whose file it is, and compare it with the checksum of when it was written.

    Where everybody may write, sticky bit or not, any user could be the first to put a file here.
    So we use the files of three users only: you, root and the folder's owner.
    """
    try:
        owner, trusted = path.stat().st_uid, {0, folder().stat().st_uid}
        if hasattr(os, "geteuid") and owner not in {os.geteuid(), *trusted}:
            raise DataError(
                f"{path}: expected a file of yours or of the owner of {folder()}, found one of "
                f"user {owner}: ask the folder's owner to run `{REBUILD}`, or set QM9LAB_DATA to "
                "a folder of yours"
            )
        expected = Path(f"{path}.sha256").read_text(errors="replace").partition(" ")[0]
        found = sha256_of(path)
    except OSError as error:
        raise DataError(
            f"{error.filename}: expected {path.name} and its checksum, found {error.strerror}: "
            f"the copy is incomplete; copy both files again, or delete {path} and run `{REBUILD}`"
        ) from error
    if found != expected:
        raise DataError(
            f"{path}: expected SHA-256 {expected}, found {found} in {path.stat().st_size} bytes: "
            f"it was changed or cut short; delete it and run `{REBUILD}`"
        )


def others_can_write() -> bool:
    """Whether users other than the owner may change the data, by the permissions of the files."""
    if os.name != "posix":
        return False
    root = folder()
    for path in [root, *root.glob("qm9_*"), *root.glob("QM9/**/*"), root / "QM9"]:
        if path.exists():
            status = path.stat()
            # On many systems each user has a group with the user's number.
            group = stat.S_IWGRP if status.st_gid != status.st_uid else 0
            if status.st_mode & (stat.S_IWOTH | group):
                return True
    return False


def make(path: Path, build: Callable[[], Buffer], progress: bool) -> None:
    """Write what ``build`` returns under the lock, unless another process has made the file.

    File and checksum are whole or not there. The checksum gets its name first: a file under its
    name always has its checksum. DataError if there is no room, or no permission.
    """
    with _locked(progress):
        if os.path.isfile(path):
            return
        content = build()
        checksum = f"{hashlib.sha256(content).hexdigest()}  {path.name}\n".encode()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            files.remove_leftovers(path)
            with files.replacing(path) as f:
                files.write_all(f, content)
                with files.replacing(f"{path}.sha256") as f:
                    files.write_all(f, checksum)
        except OSError as error:
            raise DataError(
                f"{path}: expected to write it, found {error.strerror} with "
                f"{shutil.disk_usage(path.parent).free / 2**20:,.0f} MiB free (the data set takes "
                "350): make room, or set QM9LAB_DATA to a folder of yours on another disk"
            ) from error


@contextlib.contextmanager
def _locked(progress: bool) -> Iterator[None]:
    """Hold the data folder for one process at a time; DataError where flock(2) is not available."""
    import filelock

    root = folder()
    path = root / ".qm9lab.lock"
    try:
        root.mkdir(parents=True, exist_ok=True)
        path.touch()  # in some folders, such as /proc, filelock would try for ever
        lock = filelock.FileLock(path)
        try:
            held = lock.acquire(timeout=0)
        except filelock.Timeout:
            if progress:
                print(f"{root}: another process is building QM9; waiting for it", file=sys.stderr)
            held = lock.acquire()
    except (OSError, NotImplementedError) as error:  # the second: no flock(2) on this disk
        raise DataError(
            f"{root}: expected a data folder that can be written and locked, "
            f"found {getattr(error, 'strerror', None) or error}: "
            "set QM9LAB_DATA to a folder of yours on a local disk"
        ) from error
    with held:
        yield
