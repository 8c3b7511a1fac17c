"""Bars and areas of memory in MiB, anonymous and file pages apart: what several lessons draw."""

from matplotlib.axes import Axes

from qm9lab.measure import is_missing

from .plots import MEANINGS, MISSING, binary_size, key

OWN, SHARED, CACHED = "private (anonymous)", "mapped in this process", "in the page cache"
MIB = 1 << 20


def stacked_bars(ax: Axes, places, added, marked=None) -> Axes:
    """Bars of anonymous bytes, followed by file bytes, in MiB, each with the sum's size.

    Parameters
    ----------
    added : pairs of (anonymous_bytes, file_bytes), one for each of ``places``
        A pair with a ``Missing`` has no bar. Below 0, as counters that lag can give, counts as 0.
    marked : bytes, one a bar, optional; places that the numbers must not cover
    """
    marked = marked or [0] * len(added)
    span = max([*marked, _most(added)])
    for place, pair, mark in zip(places, added, marked, strict=True):
        if is_missing(*pair):
            write(ax, place, 0, MISSING)
            continue
        own, shared = max(pair[0], 0), max(pair[1], 0)
        bar(ax, place, 0, own, OWN)
        bar(ax, place, own, shared, SHARED)
        total = own + shared
        at = mark if total <= mark < total + 0.2 * span else total
        write(ax, place, at, size_of(total))
    ax.grid(axis="y", visible=False)
    return ax


def memory_story(ax: Axes, steps, added) -> Axes:
    """Resident memory after each step of a story, anonymous and file pages stacked."""
    stacked_bars(ax, range(len(steps)), added)
    ax.set_yticks(range(len(steps)), steps)
    ax.tick_params(axis="y", length=0)
    ax.set(xlim=(0, max(_most(added) / MIB, 1) * 1.2), ylim=(len(steps) - 0.4, -0.6))
    ax.set_xlabel("resident memory (MiB): the whole bar is RSS")
    handles = [key(OWN, "anonymous: its own"), key(SHARED, "file pages, mapped")]
    ax.legend(handles=handles, loc="upper center", ncols=2, bbox_to_anchor=(0.5, -0.22))
    return ax


def _most(added) -> int:
    """The largest sum of a pair, in bytes; 0 where all are missing."""
    return max((sum(pair) for pair in added if not is_missing(*pair)), default=0)


def size_of(n_bytes) -> str:
    """A size for a label, or that it is not available; what lies below 0 counts as 0."""
    return MISSING if is_missing(n_bytes) else binary_size(max(n_bytes, 0))


def bar(ax: Axes, place: float, left: float, n_bytes, meaning: str) -> None:
    """A bar in MiB from ``left`` bytes on; none for a size that is missing or not above 0."""
    if is_missing(n_bytes) or n_bytes <= 0:
        return
    ax.barh(place, n_bytes / MIB, left=left / MIB, height=0.66, **MEANINGS[meaning].face)


def write(ax: Axes, place: float, n_bytes, words: str) -> None:
    """Words next to the end of a bar of ``n_bytes``."""
    x = 0 if is_missing(n_bytes) else max(n_bytes, 0) / MIB
    ax.annotate(words, (x, place), (7, 0), textcoords="offset points", va="center", fontsize=8.5)
