"""The page cache: which pages of a file are in it."""

import ctypes
import functools
import mmap
import os
import platform
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

from .address_space import address_of

MEMORY_ONLY = ("tmpfs", "ramfs")
"""File systems without a disk: their pages are not evicted by advice and never written back."""

CACHESTAT = 451  # the same number on every architecture but alpha and MIPS


class CacheState(NamedTuple):
    """How much of a file is in the page cache, in pages of ``mmap.PAGESIZE`` bytes."""

    n_pages: int
    n_cached: int | None
    n_dirty: int | None
    source: str


def _libc():
    return ctypes.CDLL(None, use_errno=True)


def why_residency_is_hidden(path: Path) -> str | None:
    """The reason why this user is not told which pages of ``path`` are cached, or None.

    Since Linux 5.2 mincore(2) answers "all cached" to a user who neither owns nor may write the
    file, and recent kernels' cachestat(2) refuses: what would be believed wrongly is not asked.
    """
    if platform.system() not in ("Linux", "Darwin"):
        return f"{platform.system()} has no mincore"
    if os.stat(path).st_uid == os.geteuid() or os.access(path, os.W_OK):
        return None
    return f"{path.name} belongs to somebody else and you may not write it"


def cached_pages(path) -> np.ndarray | None:
    """Which pages of a file are in the page cache now, whoever brought them in.

    Returns
    -------
    ``(n_pages,)`` bool, or None where the system hides it (``cache_state`` says why).

    Notes
    -----
    Source: ``mincore(2)`` over a map of the whole file made for this call. It reads no page in.
    """
    path = Path(path)
    if why_residency_is_hidden(path):
        return None
    size = path.stat().st_size
    if size == 0:
        return np.zeros(0, bool)
    with path.open("rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as mm:
        return mincore(address_of(mm), size, path)


def mincore(address: int, n_bytes: int, path) -> np.ndarray:
    """Which pages of a region are in memory, ``(n_pages,)`` bool, by mincore(2)."""
    answer = np.zeros(-(-n_bytes // mmap.PAGESIZE), np.uint8)
    to = ctypes.c_void_p(answer.ctypes.data)
    if _libc().mincore(ctypes.c_void_p(address), ctypes.c_size_t(n_bytes), to):
        code = ctypes.get_errno()
        raise OSError(code, f"mincore: {os.strerror(code)}", str(path))
    return (answer & 1).astype(bool)


def cachestat_counter(fd: int):
    """A function of ``(first page, pages)`` that gives the present and the dirty pages there.

    By cachestat(2), which a kernel may not have: then it gives None. Present are also pages that
    are still being read from the disk. A page map asks thousands of times, so the arguments are
    laid out once, and the call, which never waits, keeps Python's global lock (PyDLL).
    """
    if platform.system() != "Linux":
        return lambda start, n: None
    syscall, page = ctypes.PyDLL(None).syscall, mmap.PAGESIZE
    span, counts = (ctypes.c_uint64 * 2)(), (ctypes.c_uint64 * 5)()
    number, at_span, at_counts = ctypes.c_long(CACHESTAT), ctypes.byref(span), ctypes.byref(counts)
    fd, flags = ctypes.c_int(fd), ctypes.c_uint(0)

    def count(start: int, n: int) -> tuple[int, int] | None:
        span[0], span[1] = start * page, n * page
        return None if syscall(number, fd, at_span, at_counts, flags) else (counts[0], counts[1])

    return count


def _cachestat(path: Path, n_pages: int) -> tuple[int, int] | None:
    with path.open("rb") as f:
        return cachestat_counter(f.fileno())(0, n_pages)


def cache_state(path) -> CacheState:
    """How many pages of a file are in the page cache, and how many of those are dirty.

    Notes
    -----
    Source: ``cachestat(2)`` (Linux 6.5), else ``mincore(2)``, which knows nothing of dirty
    pages. The first counts pages that are present, also those still being read from the disk;
    the second those whose contents have arrived. For a file that the user neither owns nor may
    write, neither is to be believed: then ``n_cached`` is None and ``source`` says why.
    """
    path = Path(path)
    size = path.stat().st_size
    n_pages = -(-size // mmap.PAGESIZE)
    if size == 0:
        return CacheState(0, 0, 0, "an empty file has no pages")
    hidden = why_residency_is_hidden(path)
    if hidden:
        return CacheState(n_pages, None, None, f"not available here, because {hidden}")
    n_cached, counted = int(cached_pages(path).sum()), _cachestat(path, n_pages)
    kind = file_system(path)
    # On overlayfs (containers) cachestat looks at an inode that holds no pages; mincore does not.
    if counted is None or kind == "overlay" or (counted[0] == 0 and n_cached):
        return CacheState(n_pages, n_cached, None, "mincore (no dirty count)")
    if kind in MEMORY_ONLY:
        return CacheState(n_pages, counted[0], None, "cachestat (nothing to write back to)")
    return CacheState(n_pages, *counted, "cachestat")


def file_system(path) -> str:
    """The type of the file system that holds ``path``, such as ``ext4`` (psutil's partitions)."""
    path = os.path.realpath(path)
    while not os.path.exists(path):  # not yet there: its folder will hold it
        path = os.path.dirname(path)
    return _file_system(path, os.stat(path).st_dev)


@functools.lru_cache  # the table of mounts is long, and a page map asks each time
def _file_system(path: str, device: int) -> str:
    mounts = {Path(p.mountpoint): p.fstype for p in psutil.disk_partitions(all=True)}
    for folder in (Path(path), *Path(path).parents):
        if folder in mounts:
            return mounts[folder]
    return "unknown"
