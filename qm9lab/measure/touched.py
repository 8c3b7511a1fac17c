"""Which pages of a file one question touches: the exact protocol, for any function of a map."""

import mmap
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .cache import AnyPath
from .missing import Missing
from .protocol import ask_cold, unavailable_near

N_TRIES = 10  # others may read the file, and the kernel drop pages, before we look


class Touched(NamedTuple):
    """What one question touched."""

    pages: frozenset[int] | Missing  # their numbers in the file
    n_major: int | Missing  # major faults of this thread while it was asked, as many as pages

    @property
    def n(self) -> int | Missing:
        """How many pages."""
        return self.pages if isinstance(self.pages, Missing) else len(self.pages)


def pages(path: AnyPath, ask: Callable[..., Any], *args: Any) -> Touched:
    """Map a cold file with MADV_RANDOM and call ``ask(mm, *args)``: which pages did it touch?

    The file must be your own. ``ask`` may be called several times, and keeps no view of the map:
    where major faults, mapped and cached pages are not the same number, somebody else used the
    file, and it is asked again. Source: derived in notebooks/06_pages_and_faults.ipynb;
    ``mincore(2)``, ``/proc/self/pagemap`` and ``getrusage(2)``.
    """
    with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as mm:
        return through(mm, path, lambda: ask(mm, *args))


def through(mm: mmap.mmap, path: AnyPath, ask: Callable[[], Any]) -> Touched:
    """As ``pages``, through a map of the whole file that there is; what it had mapped is dropped.

    A private map must not have been written to: ``MADV_DONTNEED`` would forget the changes. Raises
    RuntimeError if the file stays warm, because some process has its pages mapped.
    """
    missing = unavailable_near(path)
    for _ in range(0 if missing else N_TRIES):
        found = ask_cold(path, mm, ask)
        if isinstance(found, Missing):
            missing = found
            break
        n_major, mapped, cached = found
        if n_major == mapped.sum() == cached.sum():
            return Touched(frozenset(np.flatnonzero(mapped).tolist()), n_major)
    if missing is None:
        missing = Missing("others used the file at the same time, or the kernel dropped its pages")
    return Touched(missing, missing)
