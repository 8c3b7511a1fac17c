"""What maps cost in whole pages and in addresses.

Derived in notebooks/10_costs_and_limits.ipynb. Nothing here asks the kernel. The scripts of the
lesson do that in child processes, and the lesson compares their answers with what is computed here.
"""

import mmap
from collections.abc import Iterable
from typing import NamedTuple

from qm9lab.measure import Missing, is_missing


def mapped_bytes(spans: Iterable[tuple[int, int]], page_bytes: int = mmap.PAGESIZE) -> int:
    """The whole pages of one map a span, each map beginning on the page of its first byte.

    A span is (start, length) in bytes, the length above 0. A page that two of them share counts
    twice, as it does in RSS.
    """
    n_pages = 0
    for start, length in spans:
        n_pages += (start + length - 1) // page_bytes - start // page_bytes + 1
    return n_pages * page_bytes


class Window(NamedTuple):
    """A window of addresses that a script filled with pieces and then freed some of them.

    After that it asked twice for one map. ``answer`` and ``anywhere`` are an address, or the name
    of an errno. On a system that cannot try it all six values are ``Missing``.
    """

    begin: int | Missing  # of the lowest piece: the kernel varies it a little
    end: int | Missing
    freed_bytes: int | Missing  # the sum of the pieces that were freed
    taken: list[tuple[int, int]] | Missing  # (start, end) of the regions before the first request
    answer: int | str | Missing  # to the request in the window
    anywhere: int | str | Missing  # to the same request when any address will do

    @property
    def hole_bytes(self) -> int | Missing:
        """The largest hole in the window: the most that one map can have there."""
        if is_missing(self.taken):
            return self.taken
        largest, at = 0, self.begin
        for start, end in sorted(self.taken):  # they may overlap, and reach out of the window
            largest = max(largest, min(start, self.end) - at)
            at = max(at, end)
        return max(largest, self.end - at)

    @property
    def has_room(self) -> bool:
        """Whether the request in the window was granted."""
        return isinstance(self.answer, int)

    @property
    def results(self) -> tuple[str | Missing, str | Missing]:
        """Of the two requests: "there", or the name of the errno."""
        answers = self.answer, self.anywhere
        return tuple("there" if isinstance(each, int) else each for each in answers)
