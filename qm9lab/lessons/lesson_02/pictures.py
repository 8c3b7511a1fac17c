"""A process's address space: the picture of lesson 02."""

from matplotlib.axes import Axes

from qm9lab.course.plots import MEANINGS, Style, binary_size, blank, cell, draw_missing, say
from qm9lab.measure import is_missing


def address_space(ax: Axes, parts) -> Axes:
    """A process's address space, high addresses at the top, not to scale.

    ``parts`` are those of ``plots.neighbourhoods``. The ``lit`` ones are drawn as mapped, and the
    empty stretches between parts as gaps with their size.
    """
    if is_missing(parts):
        return draw_missing(ax, parts)
    rows = []
    for k, (start, end, label, lit) in enumerate(parts):
        if k and start > parts[k - 1][1]:
            rows.append((None, start - parts[k - 1][1], "", False))
        rows.append((start, end - start, label, lit))
    blank(ax, 10, len(rows))
    for y, (start, size, label, lit) in enumerate(reversed(rows)):
        if start is None:
            words = f"nothing mapped: {binary_size(size)}"
            say(ax, 5.9, y + 0.5, words, fontsize=8, color="#777777", ha="center", style="italic")
            continue
        style = MEANINGS["mapped in this process"] if lit else Style("#F4F4F4", "", "#222222")
        words = f"{label}: {binary_size(size)} of addresses"
        cell(ax, 2.3, y + 0.06, 7.2, 0.88, style, words, weight="bold" if lit else "normal")
        small = {"fontsize": 7.5, "family": "monospace", "ha": "right", "color": "#555555"}
        say(ax, 2.2, y + 0.78, f"{start:#x}", **small)
        if lit:
            say(ax, 2.2, y + 0.22, f"{start + size:#x}", **small)
    return ax
