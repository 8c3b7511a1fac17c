"""What the kernel did: faults, resident memory, page cache, regions of the address space.

Every value names its source. What a system does not offer is ``None``, and ``source`` then
reads ``not available here, because ...``: the caller says so and carries on.

psutil comes first where it has the number (psutil 8 counts faults, 7 does not); then
``getrusage(2)``, ``/proc``, ``mincore(2)`` and ``cachestat(2)``. Nothing here prints, plots,
or maps a file for the caller.
"""

import contextlib
import ctypes
import mmap
import os
import platform
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

try:
    import resource
except ImportError:  # Windows
    resource = None

MEMORY_ONLY = ("tmpfs", "ramfs")
"""File systems without a disk: their pages are not evicted by advice and never written back."""

PAGEMAP_PRESENT = np.uint64(1 << 63)
CACHESTAT = 451  # the same number on every architecture but alpha and MIPS


class Faults(NamedTuple):
    """Page faults since the process (or thread) began.

    ``minor``: served without waiting for a disk. ``major``: had to wait for one; ``None`` where
    the system counts both together (Windows), and then ``minor`` is their sum.
    """

    minor: int
    major: int | None
    source: str

    def since(self, before: "Faults") -> "Faults":
        """The faults between ``before`` and this reading."""
        both = self.major is not None and before.major is not None
        major = self.major - before.major if both else None
        return Faults(self.minor - before.minor, major, self.source)


class Resident(NamedTuple):
    """Resident memory of this process, in bytes, split by what is behind the pages.

    ``anonymous_bytes`` has nothing but swap behind it and belongs to the process.
    ``file_bytes`` are pages of files (and of shared memory) that are mapped here; the clean
    ones among them the kernel can drop at once. ``None`` where the system gives no split.
    """

    anonymous_bytes: int | None
    file_bytes: int | None
    source: str


class CacheState(NamedTuple):
    """How much of a file is in the page cache, in pages of ``mmap.PAGESIZE`` bytes."""

    n_pages: int
    n_cached: int | None
    n_dirty: int | None
    source: str


class Region(NamedTuple):
    """One region of an address space: ``[start, end)``, its permissions and what is behind it.

    ``perms`` is the kernel's word: r, w, x or ``-``, then ``s`` for shared or ``p`` for private.
    ``offset_bytes`` is the offset in the file ``name`` at which the region begins.
    """

    start: int
    end: int
    perms: str
    offset_bytes: int
    name: str


def faults(thread: bool = False) -> Faults:
    """Minor and major page faults so far, of this process or of the calling thread.

    Parameters
    ----------
    thread : bool
        Count the calling thread alone, where the system can (Linux). In Jupyter other threads
        fault too.

    Notes
    -----
    Source: ``psutil.Process().page_faults()`` (psutil 8), else ``getrusage(2)``, else (Windows)
    psutil's ``num_page_faults``, which counts both kinds together.
    """
    if thread and hasattr(resource, "RUSAGE_THREAD"):
        usage = resource.getrusage(resource.RUSAGE_THREAD)
        return Faults(usage.ru_minflt, usage.ru_majflt, "getrusage(RUSAGE_THREAD)")
    process = psutil.Process()
    if hasattr(process, "page_faults"):
        counted = process.page_faults()
        return Faults(counted.minor, counted.major, "psutil page_faults")
    if resource is not None:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return Faults(usage.ru_minflt, usage.ru_majflt, "getrusage(RUSAGE_SELF)")
    counted = process.memory_info()
    return Faults(counted.num_page_faults, None, "psutil num_page_faults: minor and major together")


def resident() -> Resident:
    """Resident memory of this process, anonymous and file pages apart.

    Notes
    -----
    Source: ``psutil.Process().memory_info()`` on Linux, where ``shared`` is the resident file
    and shared-memory pages (proc_pid_statm(5)). Elsewhere psutil has no split. On kernels from 6.2
    until this was mended the figures lag by some pages a processor; smaps_rollup is exact.
    """
    memory = psutil.Process().memory_info()
    shared = getattr(memory, "shared", None)
    if shared is None:
        return Resident(
            None, None, f"not available here, because {sys.platform} gives psutil no split of RSS"
        )
    return Resident(memory.rss - shared, shared, "psutil memory_info: rss - shared, shared")


def address_of(buf) -> int:
    """The virtual address of the first byte of ``buf``, in this process."""
    return np.frombuffer(buf, np.uint8).__array_interface__["data"][0]


def mapped_pages(buf) -> np.ndarray | None:
    """Which pages of a map have an entry in this process's page table now.

    Parameters
    ----------
    buf : mmap.mmap or other buffer
        It must begin on a page boundary, as every map does.

    Returns
    -------
    ``(n_pages,)`` bool, or None where there is no ``/proc/self/pagemap`` (not Linux).

    Raises
    ------
    ValueError
        If ``buf`` does not begin on a page boundary.

    Notes
    -----
    Source: bit 63 of each entry of ``/proc/self/pagemap`` (proc_pid_pagemap(5)). Reading it
    touches none of the pages.
    """
    n_pages, address = -(-len(buf) // mmap.PAGESIZE), address_of(buf)
    if address % mmap.PAGESIZE:
        raise ValueError(
            f"expected a map, which begins on a page boundary, found address {address:#x}, "
            f"{address % mmap.PAGESIZE} bytes into a page: hand in the whole map"
        )
    try:
        with open("/proc/self/pagemap", "rb", buffering=0) as f:
            f.seek(address // mmap.PAGESIZE * 8)
            entries = np.frombuffer(f.read(n_pages * 8), np.uint64)
    except OSError:
        return None
    return (entries & PAGEMAP_PRESENT) != 0


def _libc():
    return ctypes.CDLL(None, use_errno=True)


def _why_residency_is_hidden(path: Path) -> str | None:
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
    if _why_residency_is_hidden(path):
        return None
    size = path.stat().st_size
    if size == 0:
        return np.zeros(0, bool)
    n_pages = -(-size // mmap.PAGESIZE)
    answer = np.zeros(n_pages, np.uint8)
    with path.open("rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as mm:
        view = np.frombuffer(mm, np.uint8)
        address = ctypes.c_void_p(view.ctypes.data)
        failed = _libc().mincore(
            address, ctypes.c_size_t(size), ctypes.c_void_p(answer.ctypes.data)
        )
        del view  # a live view would keep the map from closing
    if failed:
        code = ctypes.get_errno()
        raise OSError(code, f"mincore: {os.strerror(code)}", str(path))
    return (answer & 1).astype(bool)


def _cachestat(path: Path, size: int) -> tuple[int, int] | None:
    """Cached and dirty pages by cachestat(2), or None where the kernel has not got it."""
    if platform.system() != "Linux":
        return None
    span = (ctypes.c_uint64 * 2)(0, size)
    counts = (ctypes.c_uint64 * 5)()
    with path.open("rb") as f:
        if _libc().syscall(CACHESTAT, f.fileno(), span, counts, 0):
            return None
    return counts[0], counts[1]


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
    hidden = _why_residency_is_hidden(path)
    if hidden:
        return CacheState(n_pages, None, None, f"not available here, because {hidden}")
    n_cached, counted = int(cached_pages(path).sum()), _cachestat(path, size)
    # On overlayfs (containers) cachestat looks at an inode that holds no pages; mincore does not.
    if counted is None or counted[0] < n_cached:
        return CacheState(n_pages, n_cached, None, "mincore (no dirty count)")
    if file_system(path) in MEMORY_ONLY:
        return CacheState(n_pages, counted[0], None, "cachestat (nothing to write back to)")
    return CacheState(n_pages, *counted, "cachestat")


def make_cold(path, timeout_s: float = 5.0) -> CacheState:
    """Write a file's dirty pages back, drop its pages from the page cache, and verify it.

    Returns
    -------
    CacheState
        ``n_cached == 0`` when the file is cold. If it is not, ``source`` says so and why: pages
        that some process has mapped are not evicted, and tmpfs has no disk to evict to.

    Notes
    -----
    Calls ``fsync(2)`` and ``posix_fadvise(2)`` with ``POSIX_FADV_DONTNEED``, and asks again for
    as long as ``timeout_s``, since readahead that is still under way brings pages back.
    """
    path = Path(path)
    if not hasattr(os, "posix_fadvise"):
        state = cache_state(path)
        return state._replace(
            source=f"not available here, because {sys.platform} has no posix_fadvise"
        )
    deadline = time.monotonic() + timeout_s
    n_zero = 0  # three in a row: mincore does not see pages that are still being read
    while True:
        with path.open("rb") as f:
            with contextlib.suppress(OSError):  # a read-only mount has nothing to sync
                os.fsync(f.fileno())
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        state = cache_state(path)
        n_zero = n_zero + 1 if state.n_cached == 0 else 0
        if state.n_cached is None or n_zero == 3:
            return state
        if n_zero == 0 and time.monotonic() > deadline:
            return state._replace(
                source=f"{state.n_cached} of {state.n_pages} pages cannot be evicted here: "
                f"mapped by a process, or no disk behind them ({file_system(path)})"
            )
        time.sleep(0.02)


def file_system(path) -> str:
    """The type of the file system that holds ``path``, such as ``ext4`` (psutil's partitions)."""
    path = Path(path).resolve()
    mounts = {Path(p.mountpoint): p.fstype for p in psutil.disk_partitions(all=True)}
    for folder in (path, *path.parents):
        if folder in mounts:
            return mounts[folder]
    return "unknown"


def regions() -> list[Region] | None:
    """Every region of this process's address space, in order of address.

    Returns
    -------
    list of Region, or None where there is no ``/proc/self/maps`` (not Linux).

    Notes
    -----
    Source: ``/proc/self/maps`` (proc_pid_maps(5)); derived in notebooks/02_first_map.ipynb.
    """
    if not os.path.exists("/proc/self/maps"):
        return None
    found = []
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as f:
        for line in f:
            span, perms, offset, _, _, *name = line.rstrip("\n").split(maxsplit=5)
            start, end = (int(address, 16) for address in span.split("-"))
            found.append(Region(start, end, perms, int(offset, 16), "".join(name)))
    return found
