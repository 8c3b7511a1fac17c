"""Address spaces: the regions of a process, and which of their pages are mapped."""

import mmap
import os
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .missing import Missing
from .proc import read_proc

# Bits of a pagemap entry: in memory; in swap; a page of a file, or shared.
PRESENT, SWAPPED, FILE = np.uint64(1 << 63), np.uint64(1 << 62), np.uint64(1 << 61)


class Region(NamedTuple):
    """One region of an address space: ``[start, end)``, its permissions and its file."""

    start: int
    end: int
    perms: str  # the kernel's word: r, w, x or -, then s for shared or p for private
    offset_bytes: int  # where in the file the region begins
    name: str  # of the file; empty for anonymous memory


def regions(pid: int | None = None) -> list[Region] | Missing:
    """Every region of this process or another, in order of address.

    Source: ``/proc/PID/maps`` (proc_pid_maps(5)). ProcessLookupError for a wrong ``pid``.
    """
    text = read_proc("maps", pid)
    if isinstance(text, Missing):
        return text
    found = []
    for line in os.fsdecode(text).split("\n")[:-1]:
        span, perms, offset, _, _, *name = line.split(maxsplit=5)
        start, end = (int(address, 16) for address in span.split("-"))
        found.append(Region(start, end, perms, int(offset, 16), "".join(name)))
    return found


def address_of(buf: Any) -> int:
    """The virtual address of the first byte of ``buf``, in this process."""
    return int(np.frombuffer(buf, np.uint8).__array_interface__["data"][0])


def pagemap(address: int, n_pages: int, pid: int | None = None) -> NDArray[np.uint64] | Missing:
    """The page-table entries of ``n_pages`` pages from ``address`` on, ``(n_pages,)`` uint64.

    Source: ``/proc/PID/pagemap`` (proc_pid_pagemap(5)). Reading it touches none of the pages.
    """
    raw = read_proc("pagemap", pid, address // mmap.PAGESIZE * 8, n_pages * 8)
    return raw if isinstance(raw, Missing) else np.frombuffer(raw, np.uint64)


def mapped_pages(buf: Any) -> NDArray[np.bool_] | Missing:
    """Which pages of a map have an entry in this process's page table now, ``(n_pages,)`` bool.

    Source: bit 63 of each entry of ``/proc/self/pagemap`` (proc_pid_pagemap(5)). Raises ValueError
    if the buffer does not begin on a page boundary, as every map does.
    """
    address = address_of(buf)
    if address % mmap.PAGESIZE:
        raise ValueError(
            f"expected a map, which begins on a page boundary, found address {address:#x}, "
            f"{address % mmap.PAGESIZE} bytes into a page: pass the whole map"
        )
    entries = pagemap(address, -(-len(buf) // mmap.PAGESIZE))
    return entries if isinstance(entries, Missing) else is_mapped(entries)


def is_mapped(entries: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which entries of a pagemap lead to memory."""
    # While the kernel moves a page (compaction), its entry looks like one of a page in swap; but a
    # file's page does not go to swap.
    is_moving = (entries & (SWAPPED | FILE)) == (SWAPPED | FILE)
    found: NDArray[np.bool_] = ((entries & PRESENT) != 0) | is_moving
    return found


def file_bytes(path: str | os.PathLike[str], pid: int | None = None) -> int | Missing:
    """Bytes of a file in the page table of a process, all its maps of the file together.

    A page of a private map that was written to is a copy, and is not counted. Source: the file's
    regions in ``/proc/PID/maps``, and bits 63 and 61 of their entries in ``/proc/PID/pagemap``.
    Raises ProcessLookupError if no process has this ``pid``.
    """
    found, name, n_pages = regions(pid), os.path.realpath(path), 0
    if isinstance(found, Missing):
        return found
    for region in found:
        if region.name == name:
            entries = pagemap(region.start, (region.end - region.start) // mmap.PAGESIZE, pid)
            if isinstance(entries, Missing):
                return entries
            n_pages += int(((entries & (PRESENT | FILE)) == (PRESENT | FILE)).sum())
    return n_pages * mmap.PAGESIZE


def region_rss_bytes(address: int) -> int | Missing:
    """Rss of this process's region that begins at an address (proc_pid_smaps(5))."""
    text = read_proc("smaps")
    if isinstance(text, Missing):
        return text
    before, found, after = text.partition(b"\n%x-" % address)
    if not found:
        raise LookupError(f"expected a region that begins at {address:#x} in /proc/self/smaps")
    return int(after.partition(b"\nRss:")[2].split()[0]) * 1024
