"""Bars of memory, a colour for each kind: what several lessons draw.

A bar's ``parts`` are its bytes by meaning, from left to right. Below 0, as counters that lag can
give, counts as 0. A bar with a part that is ``Missing`` is not drawn.
"""

from matplotlib.axes import Axes

from qm9lab.measure import is_missing

from .plots import MEANINGS, MISSING, binary_size, key

OWN, SHARED, CACHED = "private (anonymous)", "mapped in this process", "in the page cache"
MEMORY_KEYS = [key(OWN, "anonymous: its own"), key(SHARED, "file pages, mapped")]
MIB = 1 << 20


def stack(ax: Axes, place: float, parts: dict, unit_bytes: int = MIB) -> set[str]:
    """The parts of one bar; which of them are wide enough to be seen."""
    left = 0
    for meaning, n_bytes in parts.items():
        if n_bytes > 0:
            size = {"width": n_bytes / unit_bytes, "height": 0.66}
            ax.barh(place, left=left / unit_bytes, **size, **MEANINGS[meaning].face)
            left += n_bytes
    return {meaning for meaning, n_bytes in parts.items() if n_bytes > 0.02 * unit_bytes}


def write(ax: Axes, place: float, x: float, words: str) -> None:
    """Words next to a bar that ends at ``x``; below 0 counts as 0."""
    end = max(x, 0), place
    ax.annotate(words, end, (7, 0), textcoords="offset points", va="center", fontsize=8.5)


def stacked_bars(ax: Axes, places, bars, marked=None) -> float:
    """Bars in MiB, each with the sum of its parts; the longest of them, in MiB.

    The numbers do not cover ``marked``, a place of each bar in bytes.
    """
    marked = marked or [0] * len(bars)
    known = [parts.values() for parts in bars if not is_missing(*parts.values())]
    longest = max(map(sum, known), default=0)
    span = max([*marked, longest])
    for place, parts, mark in zip(places, bars, marked, strict=True):
        if is_missing(*parts.values()):
            write(ax, place, 0, MISSING)
            continue
        stack(ax, place, parts)
        total = sum(max(n_bytes, 0) for n_bytes in parts.values())
        at = mark if total <= mark < total + 0.25 * span else total
        write(ax, place, at / MIB, binary_size(total))
    return longest / MIB


def set_rows(ax: Axes, labels) -> None:
    """A row a label, the first at the top, with no ticks and lines between them."""
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)


def memory_story(ax: Axes, steps, added) -> Axes:
    """Resident memory after each step: ``added`` has its anonymous bytes and its file bytes."""
    bars = [{OWN: own, SHARED: shared} for own, shared in added]
    longest_mib = stacked_bars(ax, range(len(steps)), bars)
    set_rows(ax, steps)
    ax.set(xlim=(0, max(longest_mib, 1) * 1.2))
    ax.set_xlabel("resident memory (MiB): the whole bar is RSS")
    ax.legend(handles=MEMORY_KEYS, loc="upper center", ncols=2, bbox_to_anchor=(0.5, -0.22))
    return ax
