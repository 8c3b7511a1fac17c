"""Which pages of a file one question touches: the exact protocol, for any function of a map.

Lesson 06 touches pages by number (``exact_trace``). Here a function reads what it likes
through the map, and the kernel says which pages that were. Used by lesson 08.
"""

import mmap
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from . import exact_trace, faults, make_cold, page_map

N_TRIES = 5
"""Others may read the file, and the kernel drop pages, between the touch and the look."""

NOT_ALONE = "not available here, because others used the file, or the kernel dropped its pages"


class Touched(NamedTuple):
    """What one question touched.

    Attributes
    ----------
    pages : numbers of the pages of the file, or None where they are not to be had
    n_major : major faults of this thread while it was asked, as many as pages; or None
    source : where the pages came from; or ``not available here, because ...``
    """

    pages: frozenset[int] | None
    n_major: int | None
    source: str

    @property
    def n(self) -> int | str:
        """How many pages, or why that is not to be had."""
        return self.source if self.pages is None else len(self.pages)


def pages(path, ask: Callable, *args) -> Touched:
    """Map a cold file with MADV_RANDOM and call ``ask(mm, *args)``: which pages did it touch?

    Parameters
    ----------
    path : path
        A file of your own that nothing else has mapped.
    ask : callable
        May be called several times; keeps no view of the map.

    Notes
    -----
    Where major faults, mapped and cached pages are not the same number, somebody else used the
    file, and it is asked again. Source: derived in notebooks/06_pages_and_faults.ipynb;
    ``mincore(2)``, ``/proc/self/pagemap`` and ``getrusage(2)``.
    """
    with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as mm:
        return through(mm, path, lambda: ask(mm, *args))


def through(mm: mmap.mmap, path, ask: Callable) -> Touched:
    """As ``pages``, through a map of the whole file that there is; what it had mapped is dropped.

    A private map must not have been stored to: ``MADV_DONTNEED`` would forget the stores.
    """
    if why := why_not(path):
        return Touched(None, None, why)
    for _ in range(N_TRIES):
        mm.madvise(mmap.MADV_RANDOM)
        mm.madvise(mmap.MADV_DONTNEED)
        cold = make_cold(path)
        before = faults(thread=True)
        ask()
        n_major = faults(thread=True).since(before).major
        now = page_map(path, mm)
        if cold.n_cached == 0 and n_major == now.mapped.sum() == now.cached.sum():
            found = frozenset(np.flatnonzero(now.mapped).tolist())
            return Touched(found, n_major, now.source)
    return Touched(None, None, NOT_ALONE)


def why_not(path) -> str:
    """Why pages cannot be counted one by one for files like this, or "".

    A file system that compresses, or has blocks larger than a page, brings in more than the page
    that was touched: tried on one page of a small file beside ``path``.
    """
    if not hasattr(mmap, "MADV_RANDOM"):
        return "not available here, because this system has no MADV_RANDOM"
    probe, n_pages = Path(path).with_name(".probe.dat"), 64
    try:
        probe.write_bytes(bytes(n_pages * mmap.PAGESIZE))
        one = exact_trace(probe, [n_pages // 2])
    except (OSError, RuntimeError) as error:
        return f"not available here, because {str(error).rpartition('because ')[2]}"
    finally:
        probe.unlink(missing_ok=True)
    if (one.n_major, one.n_cached) == (1, 1):
        return ""
    return f"not available here, because one touch cached {one.n_cached} pages"


def map_behind(array) -> mmap.mmap | None:
    """The map that an array is a view of, over other views perhaps; None if there is none."""
    while array is not None and not isinstance(array, mmap.mmap):
        array = array.obj if isinstance(array, memoryview) else getattr(array, "base", None)
    return array


def best_s(act: Callable, *args, repeat: int = 5) -> float:
    """The shortest time of several calls of ``act(*args)``, warm, in seconds.

    A first call is not timed. Quick acts are called often enough for a clock to see.
    """
    act(*args)
    once_s = timeit.timeit(lambda: act(*args), number=1)
    number = max(1, int(1e-3 / max(once_s, 1e-7)))
    return min(timeit.repeat(lambda: act(*args), number=number, repeat=repeat)) / number


def every_byte(parts) -> bytes:
    """All bytes of a molecule's fields (arrays, tensors, numbers, strings) in a row."""
    return b"".join(
        part.encode() if isinstance(part, str) else np.asarray(part).tobytes() for part in parts
    )
