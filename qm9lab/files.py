"""Write a file whole or not at all, and write it in pieces: for all rooms of the package."""

import contextlib
import glob
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], durable: bool = True) -> Iterator[BinaryIO]:
    """Write a file under a temporary name in the same folder, and rename it when it is whole.

    A file that is there is replaced by the new one, and keeps neither its permissions nor its
    other names. A symbolic link stays, and the file that it points to is replaced.

    Parameters
    ----------
    path : the name of the file
    durable : wait until the disk has the file and its name (fsync(2) of both)

    Yields
    ------
    binary file without a buffer
        When the body raises, nothing is left under ``path`` but what was there. A process that is
        killed in the body leaves ``.NAME.*.tmp`` in the folder.

    Raises
    ------
    OSError
        If the file cannot be written. Windows replaces no file that someone has open or mapped.
    """
    path = Path(os.path.realpath(path))
    # A name of at most 255 bytes, however long the name of the file is.
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb", buffering=0) as f:
            yield f
            if durable:
                os.fsync(f.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        with contextlib.suppress(OSError):  # Windows opens no folder; the file is whole anyway
            fd = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Remove what killed writers of a file, or of one whose name begins so, have left.

    Only for who holds a lock: it spares no writer.
    """
    path = Path(os.path.realpath(path))
    for left in path.parent.glob(f".{glob.escape(path.name[:40])}*.tmp"):
        left.unlink(missing_ok=True)


def write_all(f: BinaryIO, content: bytes | memoryview, piece_bytes: int = 1 << 30) -> None:
    """Write all bytes of a buffer with one write(2) a piece.

    One write(2) may take fewer bytes than it was given, and takes no more than 2 GiB.

    ``f`` is a binary file without a buffer. On many systems the page cache keeps a file in blocks
    of the size of its pieces.
    """
    with memoryview(content) as view:
        if view.nbytes == 0:  # memoryview.cast refuses an empty array
            return
        left, at = view.cast("B"), 0
        while at < len(left):
            at += f.write(left[at : at + piece_bytes]) or 0
