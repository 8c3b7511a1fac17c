"""The address space of this process: its regions, and which of their pages are mapped."""

import mmap
import os
from typing import NamedTuple

import numpy as np

NO_PAGEMAP = "not available here, because /proc/self/pagemap cannot be read"

PRESENT_BIT = np.uint64(1 << 63)
"""Of a pagemap entry: the page is in memory."""
FILE_BIT = np.uint64(1 << 61)
IN_USE_BITS = np.uint64(1 << 63 | 1 << 62)
"""In memory, or in swap."""
MOVING_BITS = np.uint64(1 << 62 | 1 << 61)
"""In swap, and a file's page: such a page is being moved."""
FILE_PAGE_BITS = np.uint64(1 << 63 | 1 << 61)
"""Of these two bits a private copy has the first alone; the other says file page or shared."""


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
    entries = pagemap_entries(buf)
    return None if entries is None else is_mapped(entries)


def is_mapped(entries: np.ndarray) -> np.ndarray:
    """Which entries of a pagemap lead to memory: also to a file's page that is being moved in it.

    While the kernel moves a page (compaction), its entry looks like one of a page in swap; but a
    file's page does not go to swap.
    """
    return ((entries & PRESENT_BIT) != 0) | ((entries & MOVING_BITS) == MOVING_BITS)


def pagemap_entries(buf) -> np.ndarray | None:
    """The entries of ``/proc/self/pagemap`` for a map, ``(n_pages,)`` uint64, or None."""
    n_pages, address = -(-len(buf) // mmap.PAGESIZE), address_of(buf)
    if address % mmap.PAGESIZE:
        raise ValueError(
            f"expected a map, which begins on a page boundary, found address {address:#x}, "
            f"{address % mmap.PAGESIZE} bytes into a page: hand in the whole map"
        )
    try:
        with open("/proc/self/pagemap", "rb", buffering=0) as f:
            f.seek(address // mmap.PAGESIZE * 8)
            return np.frombuffer(f.read(n_pages * 8), np.uint64)
    except OSError:
        return None
