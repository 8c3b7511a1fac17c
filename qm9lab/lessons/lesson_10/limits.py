"""What maps cost in whole pages and in addresses.

Derived in notebooks/10_costs_and_limits.ipynb. Nothing here asks the kernel: the scripts of the
lesson do, in child processes, and their answers stand beside what is computed here.
"""

import json
import mmap
from collections.abc import Iterable
from typing import NamedTuple

NOT_HERE = "not available here"


class Waste(NamedTuple):
    """Bytes that were asked for, and bytes of the pages that are mapped once all were read."""

    asked_bytes: int
    mapped_bytes: int

    @property
    def share(self) -> float:
        """The part of the pages that nobody asked for, from 0 to 1."""
        return 1 - self.asked_bytes / self.mapped_bytes if self.mapped_bytes else 0.0


def pages_spanned(start_bytes: int, length_bytes: int, page_bytes: int = mmap.PAGESIZE) -> int:
    """How many pages hold the bytes ``[start, start + length)`` of a file."""
    if length_bytes <= 0:
        return 0
    last = start_bytes + length_bytes - 1
    return last // page_bytes - start_bytes // page_bytes + 1


def waste(spans: Iterable[tuple[int, int]], page_bytes: int = mmap.PAGESIZE) -> Waste:
    """The whole pages of one map a span, each map beginning on the page of its first byte.

    Parameters
    ----------
    spans : iterable of (start_bytes, length_bytes)
        Each is mapped alone; a page that two of them share counts twice, as it does in RSS.
    """
    spans = list(spans)
    n_pages = sum(pages_spanned(start, length, page_bytes) for start, length in spans)
    return Waste(sum(length for _, length in spans), n_pages * page_bytes)


def holes(
    taken: Iterable[tuple[int, int]], window: tuple[int, int] | None = None
) -> list[tuple[int, int]]:
    """The empty stretches ``(start, end)`` between taken ones, in order of address.

    Parameters
    ----------
    taken : iterable of (start, end)
        In any order; they may touch or overlap.
    window : (start, end), optional
        Where to look. Without it, from the first taken address to the last.
    """
    taken = sorted(taken)
    if window is None:
        window = (taken[0][0], max(end for _, end in taken)) if taken else (0, 0)
    found, at = [], window[0]
    for start, end in [*taken, (window[1], window[1])]:
        if min(start, window[1]) > at:
            found.append((at, min(start, window[1])))
        at = max(at, end)
    return found


def largest_hole(taken, window=None) -> int:
    """The size of the largest hole: the most that one map can have there."""
    return max((end - start for start, end in holes(taken, window)), default=0)


class Window(NamedTuple):
    """What a script said of a window of addresses that it had filled with pieces, some freed again.

    Attributes
    ----------
    begin, end : int
        Where the window begins (its lowest piece: the kernel varies it a little) and ends.
    freed_bytes : int
        The sum of the pieces that were given back.
    taken : list of (start, end)
        The regions in the window, before the next request.
    answer : int or str
        What came of a request in the window: an address, or the name of an errno.
    anywhere : int or str
        What came of the same request where any address would do.
    """

    begin: int
    end: int
    freed_bytes: int
    taken: list[tuple[int, int]]
    answer: int | str
    anywhere: int | str

    @property
    def hole_bytes(self) -> int:
        """The largest hole in it."""
        return largest_hole(self.taken, (self.begin, self.end))

    @property
    def has_room(self) -> bool:
        """Whether the request in the window was granted."""
        return isinstance(self.answer, int)

    @property
    def outcomes(self) -> tuple[str, str]:
        """Of the two requests: "there", or the name of the errno."""
        answers = self.answer, self.anywhere
        return tuple("there" if isinstance(a, int) else a for a in answers)

    def __str__(self) -> str:
        mib, verdict = self.hole_bytes >> 20, self.outcomes[0]
        return f"largest hole: {mib} MiB, what was asked for: {verdict}"


class Said(NamedTuple):
    """What a script printed as JSON, or None and why it is not available here."""

    value: object
    why: str


def said(outcome) -> Said:
    """The JSON on the first line that a child process printed (``child.Outcome``).

    Where it printed nothing, ``why`` is ``not available here, because`` and the last line of its
    standard error: a script ends with ``sys.exit(reason)`` where a system lacks what it needs.
    """
    lines = outcome.stdout.splitlines()
    if lines:
        return Said(json.loads(lines[0]), "")
    return Said(None, f"{NOT_HERE}, because {outcome.last_line or outcome.how_it_ended}")


def write_in_pieces(path, content: bytes, piece_bytes: int) -> None:
    """Write a file with one write(2) a piece: on many systems the page cache keeps such pieces."""
    with open(path, "wb", buffering=0) as f:
        f.writelines(content[at : at + piece_bytes] for at in range(0, len(content), piece_bytes))
