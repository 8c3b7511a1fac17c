"""The exact protocol: cold file, MADV_RANDOM, touch: each distinct page is one major fault."""

import mmap
import os
import platform
import random
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qm9lab.files import write_all

from .address_space import address_of, mapped_pages, region_rss_bytes
from .cache import AnyPath, cached_pages, file_system
from .eviction import make_cold
from .fault_counts import faults
from .memory import resident
from .missing import Missing, first_missing

TRACES_A_FILE = 10
LONGEST_TRACE = 1_000


class Exact(NamedTuple):
    """What one trace cost, in pages: the first five are one number where the protocol holds."""

    n_touched: int  # distinct pages in the trace
    n_major: int | Missing  # major faults of this thread while it touched them
    n_mapped: int | Missing  # of the map, with a page-table entry afterwards (pagemap)
    n_cached: int | Missing  # of the file, in the page cache afterwards (mincore)
    n_smaps: int | Missing  # Rss of the map's region in /proc/self/smaps
    n_rss: int | Missing  # growth of the whole process's file pages: others may move it, too


class ExactRun(NamedTuple):
    """What many traces showed, on the file system ``source``."""

    n_traces: int
    n_pages: int  # distinct pages touched in all of them
    mismatches: list[str]  # a sentence for each trace in which the five numbers differ
    n_rss_exact: int  # traces in which n_rss was that number, too
    source: str


def exact_trace(path: AnyPath, page_indices: Iterable[int]) -> Exact:
    """Make a file cold, map it with MADV_RANDOM, touch pages in this order, and count.

    The file must be your own. All counts but ``n_touched`` are the same Missing where the protocol
    is not available. Raises as ``ask_cold``. Derived in notebooks/06_pages_and_faults.ipynb.
    """
    pages = list(page_indices)
    n_touched = len(set(pages))
    with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as mm:

        def touch() -> None:
            for page in pages:
                mm[page * mmap.PAGESIZE]

        before = resident()
        found = ask_cold(path, mm, touch)
        n_rss = (resident().file_bytes - before.file_bytes) // mmap.PAGESIZE
        if isinstance(found, Missing):
            return Exact(n_touched, found, found, found, found, found)
        n_smaps = region_rss_bytes(address_of(mm)) // mmap.PAGESIZE
    n_major, mapped, cached = found
    return Exact(n_touched, n_major, int(mapped.sum()), int(cached.sum()), n_smaps, n_rss)


def exact(folder: AnyPath, n_traces: int = 200, seed: int = 7) -> ExactRun | Missing:
    """Run the exact protocol on random traces, on files of its own in ``folder``.

    Traces have 1 to 1,000 touches, short ones as often as long ones, and touch some pages twice.
    Each tenth begins a new file of another size, written page by page or in pieces of 1 MiB.
    """
    draw, mismatches, n_pages, n_rss_exact = random.Random(seed), [], 0, 0
    with tempfile.TemporaryDirectory(prefix="exact-", dir=folder) as place:
        path = Path(place, "trace.dat")
        if missing := unavailable(path):
            return missing
        for k in range(n_traces):
            if k % TRACES_A_FILE == 0:
                n_file_pages = draw.randint(LONGEST_TRACE, 4 * LONGEST_TRACE)
                piece_bytes = 1 << 20 if k // TRACES_A_FILE % 2 else mmap.PAGESIZE
                _write(path, os.urandom(n_file_pages * mmap.PAGESIZE), piece_bytes)
            counted = exact_trace(path, _draw_pages(draw, n_file_pages))
            n_pages += counted.n_touched
            n_rss_exact += bool(counted.n_rss == counted.n_touched)
            if len(set(counted[:5])) > 1:
                file = f"{n_file_pages} pages in pieces of {piece_bytes} bytes"
                mismatches.append(f"trace {k} ({file}): {counted}")
    return ExactRun(n_traces, n_pages, mismatches, n_rss_exact, file_system(folder))


def _draw_pages(draw: random.Random, n_file_pages: int) -> list[int]:
    n_touches = round(LONGEST_TRACE ** draw.random())
    pages = draw.sample(range(n_file_pages), n_touches)
    for at in range(1, n_touches, 10):  # some a second time, sooner or later
        pages[at] = pages[draw.randrange(n_touches)]
    return pages


def unavailable(path: Path) -> Missing | None:
    """Why the protocol does not hold for files like this one, or None; the file is written.

    A file system that compresses, or has blocks larger than a page, brings in more than the page
    that was touched.
    """
    # Bytes that compress: a file system that does so reads a whole block, whatever is advised.
    _write(path, bytes(LONGEST_TRACE * mmap.PAGESIZE), mmap.PAGESIZE)
    counted = exact_trace(path, [LONGEST_TRACE // 2])
    if missing := first_missing(*counted):
        return missing
    if (counted.n_major, counted.n_cached) == (1, 1):
        return None
    return Missing(
        f"on {file_system(path)} one touch of a cold file took {counted.n_major} major faults and "
        f"cached {counted.n_cached} pages in spite of MADV_RANDOM"
    )


def unavailable_near(path: AnyPath) -> Missing | None:
    """Why the protocol does not hold for files next to ``path``, or None: one is tried."""
    probe = Path(path).with_name(f".probe-{os.getpid()}.dat")
    try:
        return unavailable(probe)
    finally:
        probe.unlink(missing_ok=True)


def ask_cold(
    path: AnyPath, mm: mmap.mmap, ask: Callable[[], object]
) -> tuple[int | Missing, NDArray[np.bool_], NDArray[np.bool_]] | Missing:
    """Make a file cold, call ``ask()``, which reads through a map of it, and count.

    Returns this thread's major faults, which pages are mapped, and which are cached. The map gets
    MADV_RANDOM, and forgets what it had mapped. Raises RuntimeError if pages of the file stay
    cached, because some process has them mapped.
    """
    if not hasattr(mmap, "MADV_RANDOM"):
        return Missing(f"{platform.system()} has no MADV_RANDOM")
    mm.madvise(mmap.MADV_RANDOM)
    mm.madvise(mmap.MADV_DONTNEED)
    if missing := start_cold(path):
        return missing
    before = faults(thread=True)
    ask()
    n_major = faults(thread=True).since(before).major
    mapped, cached = mapped_pages(mm), cached_pages(path)
    if isinstance(mapped, Missing):
        return mapped
    return cached if isinstance(cached, Missing) else (n_major, mapped, cached)


def start_cold(path: AnyPath) -> Missing | None:
    """Make a file cold; why that is not possible here, or None.

    Raises RuntimeError if pages of the file stay cached, because some process has them mapped.
    """
    state = make_cold(path)
    if isinstance(state.is_cold, Missing):
        return state.is_cold
    if not state.is_cold:
        raise RuntimeError(
            f"expected no page of {path} in the page cache, found {state.n_cached} of "
            f"{state.n_pages}: a process has them mapped. Close its map and try again"
        )
    return None


def _write(path: Path, content: bytes, piece_bytes: int) -> None:
    path.unlink(missing_ok=True)
    with path.open("wb", buffering=0) as f:
        write_all(f, content, piece_bytes)
