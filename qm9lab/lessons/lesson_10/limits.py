"""What maps cost in whole pages and in addresses.

Derived in notebooks/10_costs_and_limits.ipynb. Nothing here asks the kernel. The scripts of the
lesson do that in child processes, and the lesson compares their answers with what is computed here.
"""

import mmap
from collections.abc import Iterable
from typing import NamedTuple

from qm9lab.measure import Missing, is_missing


class Waste(NamedTuple):
    """Bytes that were asked for, and bytes of the pages that are mapped once all were read."""

    asked_bytes: int
    mapped_bytes: int


def waste(spans: Iterable[tuple[int, int]], page_bytes: int = mmap.PAGESIZE) -> Waste:
    """The whole pages of one map a span, each map beginning on the page of its first byte.

    Parameters
    ----------
    spans : iterable of (start_bytes, length_bytes), lengths above 0
        Each is mapped alone. A page that two of them share counts twice, as it does in RSS.
    """
    asked_bytes, n_pages = 0, 0
    for start, length in spans:
        asked_bytes += length
        n_pages += (start + length - 1) // page_bytes - start // page_bytes + 1
    return Waste(asked_bytes, n_pages * page_bytes)


def largest_hole(taken: Iterable[tuple[int, int]], begin: int, end: int) -> int:
    """The size of the largest hole in a window of addresses: the most that one map can have there.

    Parameters
    ----------
    taken : iterable of (start, end)
        In any order. They may touch, overlap, and reach out of the window.
    begin, end : int
        The window.
    """
    largest, at = 0, begin
    for start, stop in sorted(taken):
        largest = max(largest, min(start, end) - at)
        at = max(at, stop)
    return max(largest, end - at)


class Window(NamedTuple):
    """A window of addresses that a script filled with pieces and then freed some of them.

    On a system that cannot try it all six values are ``Missing``.

    Attributes
    ----------
    begin, end : int
        Where the window begins (its lowest piece: the kernel varies it a little) and ends.
    freed_bytes : int
        The sum of the pieces that were freed.
    taken : list of (start, end)
        The regions in the window, before the next request.
    answer : int or str
        The result of a request in the window: an address, or the name of an errno.
    anywhere : int or str
        The result of the same request when any address will do.
    """

    begin: int | Missing
    end: int | Missing
    freed_bytes: int | Missing
    taken: list[tuple[int, int]] | Missing
    answer: int | str | Missing
    anywhere: int | str | Missing

    @property
    def hole_bytes(self) -> int | Missing:
        """The largest hole in it."""
        if is_missing(self.taken):
            return self.taken
        return largest_hole(self.taken, self.begin, self.end)

    @property
    def has_room(self) -> bool:
        """Whether the request in the window was granted."""
        return isinstance(self.answer, int)

    @property
    def results(self) -> tuple[str | Missing, str | Missing]:
        """Of the two requests: "there", or the name of the errno."""
        answers = self.answer, self.anywhere
        return tuple("there" if isinstance(each, int) else each for each in answers)

    def __str__(self) -> str:
        if is_missing(self.taken):
            return str(self.taken)
        return f"largest hole: {self.hole_bytes >> 20} MiB, asked for: {self.results[0]}"
