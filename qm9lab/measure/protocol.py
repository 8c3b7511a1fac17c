"""The exact protocol: cold file, MADV_RANDOM, touch: each distinct page is one major fault."""

import mmap
import os
import random
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from .address_space import NO_PAGEMAP, address_of, mapped_pages
from .cache import cached_pages, file_system
from .eviction import make_cold
from .fault_counts import faults
from .memory import resident

TRACES_A_FILE = 10
LONGEST_TRACE = 1_000


class Exact(NamedTuple):
    """What one trace cost: all but ``n_minor`` are the same number where the protocol holds.

    Attributes
    ----------
    n_touched : distinct pages in the trace
    n_major, n_minor : faults of this thread while it touched them
    n_mapped : pages of the map with a page-table entry afterwards (pagemap)
    n_cached : pages of the file in the page cache afterwards (mincore)
    """

    n_touched: int
    n_major: int
    n_minor: int
    n_mapped: int
    n_cached: int


class ExactRun(NamedTuple):
    """What many traces showed.

    Attributes
    ----------
    n_traces : how many were run
    n_pages : distinct pages touched in all of them
    mismatches : a sentence for each trace in which the four numbers, or smaps' Rss, differ
    n_rss_exact : traces in which also the process's file pages in RSS grew by that number
    source : the file system; or ``not available here, because ...``, and then ``n_traces`` is 0
    """

    n_traces: int
    n_pages: int
    mismatches: list[str]
    n_rss_exact: int
    source: str


class NotExactHere(RuntimeError):
    """The protocol cannot be had; the text is ``not available here, because ...``."""


def exact_trace(path, page_indices: Iterable[int]) -> Exact:
    """Make a file cold, map it with MADV_RANDOM, touch pages, and count.

    Parameters
    ----------
    path : path
        A file of your own that nothing else has mapped.
    page_indices : iterable of int
        The pages to touch, in this order; a page may come twice.

    Raises
    ------
    NotExactHere
        If the file cannot be made cold, or this system has no MADV_RANDOM or no pagemap.

    Notes
    -----
    Source: derived in notebooks/06_pages_and_faults.ipynb.
    """
    return _trace(path, page_indices)[0]


def exact(folder, n_traces: int = 200, seed: int = 7) -> ExactRun:
    """Run the exact protocol on random traces, on files of its own in ``folder``.

    Traces have 1 to 1,000 touches, short ones as often as long ones, and touch some pages twice.
    Each tenth trace begins a new file of another size, written page by page or in pieces of
    1 MiB in turn. "File pages in RSS" is the Rss of the map's region in ``/proc/self/smaps``.
    """
    draw, mismatches, n_pages, n_rss_exact = random.Random(seed), [], 0, 0
    with tempfile.TemporaryDirectory(prefix="exact-", dir=folder) as place:
        path = Path(place, "trace.dat")
        try:
            _probe(path)
            for k in range(n_traces):
                if k % TRACES_A_FILE == 0:
                    n_file_pages = draw.randint(LONGEST_TRACE, 4 * LONGEST_TRACE)
                    large = k // TRACES_A_FILE % 2 == 1
                    _write(path, n_file_pages, 1 << 20 if large else mmap.PAGESIZE)
                pages = _draw_pages(draw, n_file_pages)
                counted, n_smaps, n_rss = _trace(path, pages)
                n_pages += counted.n_touched
                n_rss_exact += n_rss == counted.n_touched
                same = {counted.n_touched, counted.n_major, counted.n_mapped, counted.n_cached}
                if len(same | {n_smaps}) > 1:
                    pieces = "large" if large else "small"
                    mismatches.append(
                        f"trace {k} ({pieces} pieces, {n_file_pages} pages): {counted}, "
                        f"smaps Rss {n_smaps}"
                    )
        except NotExactHere as error:
            return ExactRun(0, 0, [], 0, str(error))
    return ExactRun(n_traces, n_pages, mismatches, n_rss_exact, file_system(folder))


def _draw_pages(draw: random.Random, n_file_pages: int) -> list[int]:
    n_touches = round(LONGEST_TRACE ** draw.random())
    pages = draw.sample(range(n_file_pages), n_touches)
    for at in range(1, n_touches, 10):  # some a second time, sooner or later
        pages[at] = pages[draw.randrange(n_touches)]
    return pages


def _probe(path: Path) -> None:
    """Raise NotExactHere where one touch does not cost one fault and one page."""
    # Bytes that compress: a file system that does so reads a whole block, whatever is advised.
    _write(path, LONGEST_TRACE, mmap.PAGESIZE, bytes)
    counted, _, _ = _trace(path, [LONGEST_TRACE // 2])
    if counted.n_major == 0 or counted.n_cached > 1:
        raise NotExactHere(
            f"not available here, because on {file_system(path)} one touch of a cold file took "
            f"{counted.n_major} major faults and cached {counted.n_cached} pages in spite of "
            "MADV_RANDOM"
        )


def _trace(path, page_indices: Iterable[int]) -> tuple[Exact, int, int]:
    """The trace's counts; Rss of the region in smaps; growth of the process's file pages."""
    if not hasattr(mmap, "MADV_RANDOM"):
        raise NotExactHere("not available here, because this system has no MADV_RANDOM")
    pages = list(page_indices)
    state = make_cold(path)
    if state.n_cached != 0:
        raise NotExactHere(state.source)
    with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as mm:
        mm.madvise(mmap.MADV_RANDOM)
        resident_before, before = resident(), faults(thread=True)
        for page in pages:
            mm[page * mmap.PAGESIZE]
        counted, resident_after = faults(thread=True).since(before), resident()
        mapped, cached = mapped_pages(mm), cached_pages(path)
        if mapped is None:
            raise NotExactHere(NO_PAGEMAP)
        n_smaps = _smaps_rss_pages(address_of(mm))
    n_rss = (resident_after.file_bytes - resident_before.file_bytes) // mmap.PAGESIZE
    n_mapped, n_cached = int(mapped.sum()), int(cached.sum())
    return Exact(len(set(pages)), counted.major, counted.minor, n_mapped, n_cached), n_smaps, n_rss


def _smaps_rss_pages(address: int) -> int:
    """Rss of the region that begins at an address, in pages (proc_pid_smaps(5), which has KiB)."""
    found = False
    with open("/proc/self/smaps", "rb") as f:
        for line in f:
            if line.startswith(b"%x-" % address):
                found = True
            elif found and line.startswith(b"Rss:"):
                return int(line.split()[1]) * 1024 // mmap.PAGESIZE
    raise LookupError(f"expected a region that begins at {address:#x} in /proc/self/smaps")


def _write(path: Path, n_pages: int, piece_bytes: int, fill=os.urandom) -> None:
    path.unlink(missing_ok=True)
    left = n_pages * mmap.PAGESIZE
    with path.open("wb", buffering=0) as f:
        while left:
            left -= f.write(fill(min(piece_bytes, left)))
