"""The page cache: which pages of a file are in it, and in which state each page is.

A file is given by its path, or open. Some file systems (FUSE: bindfs, sshfs) drop a file's pages
each time it is opened: there only a file that you have open already can be counted.
"""

import contextlib
import errno
import functools
import mmap
import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import psutil
from numpy.typing import NDArray

from .address_space import FILE, PRESENT, SWAPPED, address_of, is_mapped, pagemap
from .missing import Missing
from .system_calls import cachestat_counter, mincore

# File systems without a disk: their pages are not evicted by advice and never written back.
MEMORY_ONLY = ("tmpfs", "ramfs")
# File systems on top of another one, whose inodes have no pages of their own.
STACKED = ("overlay", "aufs", "ecryptfs")
# File systems that are known to keep a file's pages when it is opened again; others are tried.
KEEPS_PAGES = (*MEMORY_ONLY, *STACKED, "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs")

AnyPath = str | os.PathLike[str]
PathOrFile = AnyPath | IO[bytes]
Mask = NDArray[np.bool_] | Missing


class CacheState(NamedTuple):
    """How much of a file is in the page cache, in pages of ``mmap.PAGESIZE`` bytes."""

    n_pages: int
    n_cached: int | Missing
    n_dirty: int | Missing  # newer than the disk
    is_cold: bool | Missing  # whether none is cached; see make_cold
    source: str  # empty where there are no counts


class PageStates(NamedTuple):
    """The state of each page of a file, ``(n_pages,)`` bool each.

    The kernel keeps ``dirty`` by folio: in a file that was written in large pieces one write can
    make a block of pages dirty.
    """

    cached: Mask  # in the page cache, whoever brought it in
    mapped: Mask  # the map's page-table entry leads to memory now
    dirty: Mask  # newer than the disk, and not being written to it just now
    copied: Mask  # mapped, and no longer the file's page but a private copy of it (ACCESS_COPY)


def cache_state(file: PathOrFile) -> CacheState:
    """How many pages of a file are in the page cache, and how many of those are dirty.

    Source: ``cachestat(2)`` (Linux 6.5), else ``mincore(2)``, which does not see dirty pages. The
    first counts pages that are present, also those still being read from the disk; the second
    those whose contents have arrived.
    """
    n_pages = count_pages(file)
    if n_pages == 0:
        return CacheState(0, 0, 0, True, "an empty file has no pages")
    with descriptor(file) as fd:
        count = fd if isinstance(fd, Missing) else counter(fd, path_of(file))
        if not isinstance(count, Missing):
            n_cached, n_dirty = count(0, n_pages)
            return CacheState(n_pages, n_cached, n_dirty, n_cached == 0, "cachestat")
    cached = cached_pages(file)
    if isinstance(cached, Missing):
        return CacheState(n_pages, cached, count, cached, "")
    n_cached = int(cached.sum())
    return CacheState(n_pages, n_cached, count, n_cached == 0, "mincore")


def cached_pages(file: PathOrFile) -> Mask:
    """Which pages of a file are in the page cache now, ``(n_pages,)`` bool.

    Source: ``mincore(2)`` over a map of the whole file made for this call. It reads no page in.
    """
    n_pages = count_pages(file)
    if n_pages == 0:
        return np.zeros(0, bool)
    with descriptor(file) as fd:
        if isinstance(fd, Missing):
            return fd
        with mmap.mmap(fd, 0, access=mmap.ACCESS_READ) as mm:
            return resident_pages(address_of(mm), n_pages)


def page_states(file: PathOrFile, mm: mmap.mmap) -> PageStates:
    """The state of each page of a file, and of a map of it from its start.

    Source: ``mincore(2)``; bits 63 and 61 of ``/proc/self/pagemap``; ``cachestat(2)``, a call for
    each border between dirty and other pages at most. The three are read one after another: what
    another process does in between can show in one and not in the others.
    """
    n_pages = count_pages(file)
    entries = pagemap(address_of(mm), min(n_pages, -(-len(mm) // mmap.PAGESIZE)))
    if isinstance(entries, Missing):
        cached = cached_pages(file)
        return PageStates(cached, entries, dirty_pages(file, cached), entries)
    mapped, copied = np.zeros(n_pages, bool), np.zeros(n_pages, bool)
    mapped[: len(entries)] = is_mapped(entries)
    copied[: len(entries)] = (entries & (PRESENT | FILE)) == PRESENT
    # Nothing need be opened if the map at hand has the whole file and no private copy, in memory or
    # in swap: of a copy mincore(2) would say that it is there.
    has_copies = (((entries & (PRESENT | SWAPPED)) != 0) & ((entries & FILE) == 0)).any()
    if not n_pages or len(entries) < n_pages or has_copies or unavailable(file, must_open=False):
        cached = cached_pages(file)
    else:
        cached = resident_pages(address_of(mm), n_pages)
    return PageStates(cached, mapped, dirty_pages(file, cached), copied)


def dirty_pages(file: PathOrFile, cached: Mask) -> Mask:
    """Which pages of a file are dirty: parts with dirty and other pages are halved again."""
    if isinstance(cached, Missing):
        return cached
    dirty = np.zeros(len(cached), bool)
    with descriptor(file) as fd:
        count = fd if isinstance(fd, Missing) else counter(fd, path_of(file))
        if isinstance(count, Missing):
            return count
        todo = [(0, len(cached), count(0, len(cached))[1])] if len(cached) else []
        while todo:
            start, n, n_dirty = todo.pop()
            if n_dirty >= n:
                dirty[start : start + n] = True
            elif n_dirty > 0:
                half = n // 2
                n_left = count(start, half)[1]
                todo.append((start, half, n_left))
                todo.append((start + half, n - half, n_dirty - n_left))
    return dirty


def resident_pages(address: int, n_pages: int) -> Mask:
    """Which pages of a map that was made already are in memory, ``(n_pages,)`` bool."""
    try:
        return mincore(address, n_pages * mmap.PAGESIZE)
    except PermissionError:
        return Missing("mincore(2) is refused here, as some containers do (seccomp)")


def counter(fd: int, path: Path) -> Callable[[int, int], tuple[int, int]] | Missing:
    """A function of ``(first page, pages)`` that gives the cached and the dirty pages there."""
    kind = file_system(path)
    if platform.system() != "Linux":
        return Missing(f"{platform.system()} has no cachestat(2)")
    if kind in MEMORY_ONLY:
        return Missing(f"{kind} has no disk to write dirty pages to")
    if kind in STACKED:
        return Missing(f"on {kind} cachestat(2) looks at an inode without pages")
    count = cachestat_counter(fd)
    try:
        count(0, 1)
    except OSError as error:
        why = f"cachestat(2) is refused here ({os.strerror(error.errno or 0)})"
        if error.errno == errno.ENOSYS:
            why = "there is no cachestat(2) here (Linux 6.5 has it; a container may hide it)"
        return Missing(why)
    return count


@contextlib.contextmanager
def descriptor(file: PathOrFile) -> Iterator[int | Missing]:
    """The descriptor of a file, opened if need be; Missing if its pages cannot be counted."""
    if missing := unavailable(file):
        yield missing
    elif isinstance(file, str | os.PathLike):
        with open(file, "rb") as f:
            yield f.fileno()
    else:
        yield file.fileno()


def unavailable(file: PathOrFile, must_open: bool = True) -> Missing | None:
    """Why the cached pages of a file cannot be counted, or None.

    Since Linux 5.2 mincore(2) answers "all cached" to a user who neither owns nor may write the
    file, and recent kernels' cachestat(2) refuses.
    """
    path = path_of(file)
    if platform.system() not in ("Linux", "Darwin"):
        return Missing(f"{platform.system()} has no mincore")
    if status_of(file).st_uid != os.geteuid() and not os.access(path, os.W_OK):
        return Missing(f"{path.name} belongs to another user and you may not write to it")
    if not must_open or not isinstance(file, str | os.PathLike) or file_system(path) in KEEPS_PAGES:
        return None
    return _unavailable_by_path(os.path.dirname(os.path.realpath(path)), os.stat(path).st_dev)


@functools.lru_cache
def _unavailable_by_path(folder: str, device: int) -> Missing | None:
    """Why a file in this folder must not be opened to count its pages, or None: it is tried.

    ``device`` is a part of the key: another file system may be mounted on the folder later.
    """
    if platform.system() != "Linux":
        return None
    kind = file_system(folder)
    try:
        with tempfile.NamedTemporaryFile(prefix=".probe-", dir=folder) as f:
            f.write(bytes(mmap.PAGESIZE))
            f.flush()
            with mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as mm:
                mm[0]
                before = mincore(address_of(mm), 1)[0]
                open(f.name, "rb").close()
                after = mincore(address_of(mm), 1)[0]
    except OSError as error:
        why = f"we could not try whether {kind} keeps a file's pages when it is opened: {error}"
        return Missing(why)
    if before and not after:
        why = f"this file system ({kind}) forgets a file's pages each time the file is opened"
        return Missing(why)
    return None


def path_of(file: PathOrFile) -> Path:
    """The path of a file that may be open."""
    return Path(file if isinstance(file, str | os.PathLike) else file.name)


def status_of(file: PathOrFile) -> os.stat_result:
    """``os.stat`` of a file that may be open (and may have no name any more)."""
    return os.stat(file if isinstance(file, str | os.PathLike) else file.fileno())


def count_pages(file: PathOrFile) -> int:
    """Pages of a file, the last one counted whole."""
    return -(-status_of(file).st_size // mmap.PAGESIZE)


def file_system(path: AnyPath) -> str:
    """The type of the file system that holds ``path``, such as ``ext4`` (psutil's partitions)."""
    path = os.path.realpath(path)
    while not os.path.exists(path):  # not yet there: its folder will hold it
        path = os.path.dirname(path)
    return _file_system(path, os.stat(path).st_dev)


@functools.lru_cache  # the table of mounts is long, and a page map asks each time
def _file_system(path: str, device: int) -> str:
    mounts: dict[Path, str] = {
        Path(p.mountpoint): p.fstype for p in psutil.disk_partitions(all=True)
    }
    for folder in (Path(path), *Path(path).parents):
        if folder in mounts:
            return mounts[folder]
    return "unknown"
