"""The state of each page of a file: cached, mapped, dirty, copied."""

import mmap
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .address_space import (
    FILE_BIT,
    FILE_PAGE_BITS,
    IN_USE_BITS,
    NO_PAGEMAP,
    PRESENT_BIT,
    address_of,
    is_mapped,
    pagemap_entries,
)
from .cache import (
    MEMORY_ONLY,
    cached_pages,
    cachestat_counter,
    file_system,
    mincore,
    why_residency_is_hidden,
)


class PageMap(NamedTuple):
    """The state of each page of a file, ``(n_pages,)`` bool each, or None (``source`` says why).

    Attributes
    ----------
    cached : in the page cache, whoever brought it in
    mapped : the map's page-table entry leads to memory now
    dirty : newer than the disk, and not being written to it just now; the kernel keeps this by
        folio, so that one store can make a whole block of pages dirty in a file that was written
        in large pieces
    copied : mapped, and no longer the file's page but a private copy of it (ACCESS_COPY)
    source : where each came from, and what is not available because of what
    """

    cached: np.ndarray | None
    mapped: np.ndarray | None
    dirty: np.ndarray | None
    copied: np.ndarray | None
    source: str


def page_map(path, mm=None) -> PageMap:
    """The state of each page of a file, and of a map of it.

    Parameters
    ----------
    path : path
        The file.
    mm : mmap.mmap, optional
        A map of the file from its start. Without it ``mapped`` and ``copied`` are None.

    Notes
    -----
    Source: ``mincore(2)``; bits 63 and 61 of ``/proc/self/pagemap``; ``cachestat(2)`` on halves of
    the file, halved again where some pages are dirty and some are not: a call for each border
    between them at most, so n_pages calls at worst (every second page dirty). The three are read
    one after another: what another process does in between can show in one and not in the others.
    """
    path = Path(path)
    n_pages = -(-path.stat().st_size // mmap.PAGESIZE)
    entries = None if mm is None else pagemap_entries(mm)
    if entries is not None:
        entries = entries[:n_pages]
    cached, mapped, dirty, copied = _cached(path, n_pages, mm, entries), None, None, None
    hidden = why_residency_is_hidden(path)
    said = ["cached: " + (f"not available here, because {hidden}" if hidden else "mincore")]
    if mm is None:
        said.append("mapped, copied: not available here, because no map was handed in")
    elif entries is None:
        said.append(f"mapped, copied: {NO_PAGEMAP}")
    else:
        mapped, copied = np.zeros(n_pages, bool), np.zeros(n_pages, bool)
        mapped[: len(entries)] = is_mapped(entries)
        copied[: len(entries)] = (entries & FILE_PAGE_BITS) == PRESENT_BIT
        said.append("mapped, copied: /proc/self/pagemap")
    dirty, why_not = dirty_pages(path, cached)
    said.append("dirty: " + (f"not available here, because {why_not}" if why_not else "cachestat"))
    return PageMap(cached, mapped, dirty, copied, "; ".join(said))


def _cached(path: Path, n_pages: int, mm, entries: np.ndarray | None) -> np.ndarray | None:
    """As ``cached_pages``, but over the map at hand if that will do: mapped pages cost less there.

    It will do if it has the whole file and each entry is empty or a page of the file: of private
    copies, in memory or in swap, mincore(2) would say that they are there.
    """
    if entries is None or not n_pages or len(entries) < n_pages or why_residency_is_hidden(path):
        return cached_pages(path)
    if (((entries & IN_USE_BITS) != 0) & ((entries & FILE_BIT) == 0)).any():
        return cached_pages(path)
    return mincore(address_of(mm), n_pages * mmap.PAGESIZE, path)


def dirty_pages(path: Path, cached: np.ndarray | None) -> tuple[np.ndarray | None, str]:
    """Which pages are dirty, or None and why this is not to be had."""
    if cached is None:
        return None, why_residency_is_hidden(path)
    kind = file_system(path)
    if kind in MEMORY_ONLY:
        return None, f"{kind} has no disk to be newer than"
    if kind == "overlay":
        return None, "cachestat(2) looks at an inode without pages (overlayfs)"
    dirty = np.zeros(len(cached), bool)
    if not cached.any():
        return dirty, ""
    with path.open("rb") as f:
        count = cachestat_counter(f.fileno())
        total = count(0, len(cached))
        if total is None:
            return None, "this system has no cachestat(2) (Linux 6.5)"
        n_present, n_dirty = total
        if n_present == 0:
            return None, "cachestat(2) looks at an inode without pages (overlayfs)"
        todo = [(0, len(cached), n_dirty)]
        while todo:
            start, n, n_dirty = todo.pop()
            if n_dirty >= n:
                dirty[start : start + n] = True
            elif n_dirty > 0:
                half = n // 2
                n_left = count(start, half)[1]
                todo.append((start, half, n_left))
                todo.append((start + half, n - half, n_dirty - n_left))
    return dirty, ""
