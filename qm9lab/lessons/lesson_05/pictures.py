"""Who sees a write: the picture of lesson 05."""

import textwrap

from matplotlib.axes import Axes

from qm9lab.course.plots import MEANINGS, Style, blank, cell, meaning_legend, say
from qm9lab.measure import is_missing

CLOSED = Style("#FFFFFF", "", "#888888")


def observers(ax: Axes, seen: dict, n_dirty, private: bool) -> Axes:
    """What each observer of one page reads, as boxes side by side.

    The first observer is the map that was written through; it is ``private`` if it looks at an
    anonymous copy of its own. ``n_dirty`` pages of the file wait to be written to the disk.
    """
    blank(ax, 12, 4)
    first = "private (anonymous)" if private else "mapped in this process"
    meanings = [first, "mapped in this process", "in the page cache"]
    font = {"fontsize": 14, "weight": "bold", "family": "monospace"}
    for k, (name, answer) in enumerate(seen.items()):
        style = CLOSED if answer == "closed" else MEANINGS[meanings[k]]
        say(ax, 1.5 + 3 * k, 0.55, name, ha="center", fontsize=10)
        cell(ax, 0.2 + 3 * k, 1.0, 2.6, 1.5, style, answer, **font)
    say(ax, 10.5, 0.55, "on the disk", ha="center", fontsize=10)
    if is_missing(n_dirty):
        words, size = textwrap.fill(str(n_dirty), 30), 7
    else:
        words, size = "older bytes:\na dirty page waits", 10
        if n_dirty == 0:
            words = f"{seen['read()']}, as read()"
    cell(ax, 9.2, 1.0, 2.6, 1.5, MEANINGS["on disk"], words, fontsize=size)
    meaning_legend(ax, loc="lower center", bbox_to_anchor=(0.5, -0.05), fontsize=8.5)
    return ax
