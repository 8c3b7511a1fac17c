"""Bars and areas of memory, anonymous and file pages apart, in MiB: what several lessons draw."""

from matplotlib.axes import Axes
from matplotlib.patches import Patch

from .plots import MEANINGS, binary_size

OWN, SHARED, CACHED = "private (anonymous)", "mapped in this process", "in the page cache"
MIB = 1 << 20
MISSING = "not available here"


def stacked_bars(ax: Axes, places, added, marked=None) -> Axes:
    """Bars of anonymous bytes with file bytes behind them, in MiB, each with its numbers.

    ``added`` has a pair ``(anonymous_bytes, file_bytes)`` for each of ``places``, None where the
    system gives no split. A little below 0, which counters that lag can give, is drawn as 0.
    ``marked`` are places in bytes, one a bar, that the numbers must not cover.
    """
    marked = [0] * len(added) if marked is None else marked
    span = max([*marked, *(sum(filter(None, pair)) for pair in added)])
    for place, (own, shared), mark in zip(places, added, marked, strict=True):
        if own is None or shared is None:
            write(ax, place, 0, MISSING)
            continue
        own, shared = max(own, 0), max(shared, 0)
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
    widest = max(sum(filter(None, pair)) for pair in added) / MIB
    ax.set(xlim=(0, max(widest, 1) * 1.2), ylim=(len(steps) - 0.4, -0.6))
    ax.set_xlabel("resident memory (MiB): the whole bar is RSS")
    handles = [key(OWN, "anonymous: its own"), key(SHARED, "file pages, mapped")]
    ax.legend(handles=handles, loc="upper center", ncols=2, bbox_to_anchor=(0.5, -0.22))
    return ax


def size_of(n_bytes) -> str:
    if n_bytes is None:
        return MISSING
    return binary_size(n_bytes) if n_bytes >= 0 else "0 B"


def key(meaning: str, label: str) -> Patch:
    look = MEANINGS[meaning]
    return Patch(facecolor=look.color, hatch=look.hatch, edgecolor="#555555",
                 hatchcolor="#FFFFFF", label=label)  # fmt: skip


def bar(ax: Axes, place: float, left: float, n_bytes, meaning: str) -> None:
    """A bar in MiB from ``left`` bytes on."""
    if not n_bytes or n_bytes < 0:
        return
    look = MEANINGS[meaning]
    bar = ax.barh(place, n_bytes / MIB, left=left / MIB, color=look.color, edgecolor="#555555",
                  height=0.66, lw=0.8)  # fmt: skip
    bar[0].set(hatch=look.hatch, hatchcolor="#FFFFFF")


def write(ax: Axes, place: float, n_bytes, words: str) -> None:
    x = max(n_bytes or 0, 0) / MIB
    ax.annotate(words, (x, place), (7, 0), textcoords="offset points", va="center", fontsize=8.5)


def area(ax: Axes, share, low, high, meaning: str) -> None:
    look = MEANINGS[meaning]
    area = ax.fill_between(share, low, high, facecolor=look.color, edgecolor="#555555", lw=0.8)
    area.set(hatch=look.hatch)
    area.set_hatchcolor("#FFFFFF")
