"""Processes get one file, one after another: what that adds to them, and to the page cache."""

import mmap
from collections.abc import Sequence
from typing import NamedTuple

from qm9lab import measure
from qm9lab.measure.pss import Footprint, footprint, total

from .holders import holding


def in_files(n_bytes: int | None, source_bytes: int) -> float | str:
    """Bytes as multiples of a file's size, to a tenth; in words when there are none to be had."""
    return footprint().source if n_bytes is None else round(n_bytes / source_bytes, 1)


class Joined(NamedTuple):
    """What processes have added together after the first ``n`` of them got the file.

    Attributes
    ----------
    n : int
    source_bytes : int, size of the file
    added : Footprint, the sum over all of them, beyond their baselines
    cached_bytes : int or None
        Growth of the page cache by pages of the file; None if the file could not be made cold.
    cache_source : str
    """

    n: int
    source_bytes: int
    added: Footprint
    cached_bytes: int | None
    cache_source: str

    @property
    def bill_bytes(self) -> int | None:
        """Footprint that is gone: what the processes own, and the page cache, once for all."""
        parts = self.added.pss_anonymous_bytes, self.cached_bytes
        return None if None in parts else sum(parts)

    @property
    def files(self) -> dict[str, float | str]:
        """Each sum as a multiple of the file, to a tenth, or why there is none."""
        cached, size = self.cached_bytes, self.source_bytes
        return {
            "sum of RSS": in_files(self.added.rss_bytes, size),
            "sum of PSS": in_files(self.added.pss_bytes, size),
            "page cache": self.cache_source if cached is None else in_files(cached, size),
            "own + page cache": (
                self.cache_source if cached is None else in_files(self.bill_bytes, size)
            ),
        }


def one_by_one(script: str, path, ways: Sequence[str]) -> list[Joined]:
    """From a cold file: the sums after the first, the second, ... of some processes got it.

    The script gets ``path``; ``ways`` name, for each process, the function of the script that gets
    the file and touches all of it.

    Notes
    -----
    All start before the first gets the file, so that pages of the interpreter's own files are
    shared by as many before and after.
    """
    state, size, joined = measure.make_cold(path), path.stat().st_size, []
    with holding(script, len(ways), path) as holders:
        before = total(footprint(holder.pid) for holder in holders)
        for k, (holder, way) in enumerate(zip(holders, ways, strict=True), 1):
            holder.tell(way)
            added = total(footprint(holder.pid) for holder in holders).since(before)
            cached = measure.cache_state(path).n_cached if state.n_cached == 0 else None
            joined.append(Joined(k, size, added, cached and cached * mmap.PAGESIZE, state.source))
    return joined
