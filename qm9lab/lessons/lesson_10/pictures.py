"""Whole pages and a window of addresses: the pictures of lesson 10."""

from matplotlib.axes import Axes

from qm9lab.course.plots import Style, binary_size, blank, cell, say
from qm9lab.measure import is_missing

# Addresses that are taken need not be mapped pages: none of the four colours with a meaning.
TAKEN, HOLE = Style("#8C8C8C", "", "#FFFFFF"), Style("#FFFFFF", "", "#777777")
FITS, TOO_LARGE = Style("#BFE5D6", "", "#222222"), Style("#EBC6DA", "", "#222222")
GIB = 1 << 30


def address_window(ax: Axes, window, asked_bytes: int = 0) -> Axes:
    """A ``limits.Window``: pieces that are taken, holes, and the map that is asked for.

    The map of ``asked_bytes`` is drawn to the same scale below the window; 0 for none.
    """
    blank(ax, 100.3, 6.2)
    if is_missing(window.taken):
        return say(ax, 0, 3, str(window.taken))
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
