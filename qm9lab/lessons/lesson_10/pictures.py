"""Whole pages and a window of addresses: the pictures of lesson 10."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from qm9lab.course.plots import MEANINGS, Look, binary_size, blank, cell, say

ASKED, UNASKED = MEANINGS["mapped in this process"], Look("#FFFFFF", "xx", "#222222")
# Addresses that are taken need not be mapped pages: none of the four colours with a meaning.
TAKEN, HOLE = Look("#8C8C8C", "", "#FFFFFF"), Look("#FFFFFF", "", "#777777")
FITS, TOO_LARGE = Look("#BFE5D6", "", "#222222"), Look("#EBC6DA", "", "#222222")
GIB = 1 << 30


def waste_bars(ax: Axes, rows) -> Axes:
    """Bytes of whole pages, one bar a row, with the part that was asked for filled in.

    Parameters
    ----------
    rows : sequence of (label, asked_bytes, total_bytes)
        ``total_bytes`` None where the system does not tell: then the row says so.
    """
    totals = [total or 0 for _, _, total in rows]
    unit = max([*totals, 1])
    parts = (ASKED, "asked for"), (UNASKED, "not asked for")
    styles = [
        {"fc": look.color, "ec": "#555555", "lw": 0.8, "hatch": look.hatch, "hatchcolor": "#999"}
        for look, _ in parts
    ]
    for place, (_, asked, total) in enumerate(rows):
        if total is None:
            say(ax, 0.01, place, "not available here, because only Linux tells it", fontsize=8.5)
            continue
        asked = min(asked, total)
        for start, end, style in ((0, asked, styles[0]), (asked, total, styles[1])):
            ax.barh(place, (end - start) / unit, left=start / unit, height=0.6, **style)
        words = f"{binary_size(total)}, {1 - asked / total:.1%} of it not asked for"
        where = {"xytext": (5, 0), "textcoords": "offset points", "va": "center", "fontsize": 9}
        ax.annotate(words, (total / unit, place), **where)
    keys = [
        Patch(label=label, **style | {"hatch": 2 * style["hatch"]})  # a key is small
        for style, (_, label) in zip(styles, parts, strict=True)
    ]
    ax.legend(handles=keys, loc="lower right", bbox_to_anchor=(1, 0.98), ncols=2, fontsize=9)
    ax.set_yticks(range(len(rows)), [label for label, _, _ in rows])
    ax.set(xlim=(0, 1.6), ylim=(len(rows) - 0.5, -0.5))
    ax.set_xticks([])
    ax.grid(visible=False)
    for side in ("top", "right", "bottom"):
        ax.spines[side].set_visible(False)
    return ax


def address_window(ax: Axes, window, asked_bytes: int = 0) -> Axes:
    """A window of addresses: pieces that are taken, holes, and the map that is asked for.

    Parameters
    ----------
    window : limits.Window or str
        Its ``begin``, ``end``, ``taken`` and ``has_room`` are drawn; a sentence that says why there
        is none is written in its place.
    asked_bytes : int
        The size of the map asked for, drawn to the same scale below the window; 0 for none.
    """
    blank(ax, 100.3, 6.2)
    if isinstance(window, str):
        return say(ax, 0, 3, window)
    start, width = window.begin, max(window.end - window.begin, 1)
    cell(ax, 0, 1.2, 100, 1.8, HOLE)
    for low, high in window.taken:
        cell(ax, 100 * (low - start) / width, 1.2, 100 * (high - low) / width, 1.8, TAKEN)
    small = {"fontsize": 8.5, "color": "#555555"}
    say(ax, 0, 0.5, f"address {start / GIB:.2f} GiB", **small)
    say(ax, 100, 0.5, f"address {window.end / GIB:.2f} GiB", ha="right", **small)
    n_free = width - sum(high - low for low, high in window.taken)
    words = f"taken (grey): {binary_size(width - n_free)}, free (white): {binary_size(n_free)}"
    say(ax, 50, 0.5, f"{words}, largest hole: {binary_size(window.hole_bytes)}", ha="center")
    if asked_bytes:
        look = FITS if window.has_room else TOO_LARGE
        cell(ax, 0, 3.9, min(100, 100 * asked_bytes / width), 1.5, look)
        verdict = "the kernel gave it" if window.has_room else f"{window.answer}"
        words = f"asked for, to scale: {binary_size(asked_bytes)} in one piece: {verdict}"
        say(ax, min(100, 100 * asked_bytes / width) + 1.5, 4.65, words, fontsize=9)
    return ax


def calculator(figure: Figure, rows, window, asked_bytes: int) -> Figure:
    """The waste of whole pages above, the window of addresses below."""
    above, below = figure.subplots(2, 1, height_ratios=[1, 1.1])
    waste_bars(above, rows)
    title = {"loc": "left", "fontsize": 10}
    above.set_title("100 records, one map each: whole pages", **title)
    address_window(below, window, asked_bytes)
    below.set_title("addresses from 1 to 2 GiB, after some pieces were freed", **title)
    return figure
