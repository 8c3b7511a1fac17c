"""How a file is laid out, and which pages one question touches: the pictures of lesson 08."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from qm9lab.course.page_grid import page_grid
from qm9lab.course.plots import MEANINGS, MISSING, Style, binary_size, blank, cell, say
from qm9lab.measure import is_missing

COMPUTED = "#D55E00"
PLAIN, ASKED = Style("#F4F4F4", "", "#555555"), Style(COMPUTED, "", "#FFFFFF")
PARTS = ("#D9D9D9", "#EBC6DA", "#F5EE9E", "#BFE5D6")
"""Header, values, offsets, SMILES: the last three in lesson 01's colours of a record's fields."""

ASKED_OF = {
    "one molecule": lambda molecule, field: molecule == 1,
    "one property of all": lambda molecule, field: field == 1,
    "100 neighbours": lambda molecule, field: molecule in (1, 2),
}
"""Question -> which values of the small example table of ``file_order`` it asks for."""

PAGES_A_LINE, LINE_IN, STRIP_IN, WORDS_IN = 32, 0.235, 0.85, 1.2
"""Of a grid, and heights in inches: a page is drawn in one size, however long the file is."""


def search_cost(figure: Figure, places, pages: dict, seconds: dict) -> Figure:
    """Pages touched and time taken to find where molecule k begins, against k, a line a method.

    ``places`` are the numbers k. ``pages`` and ``seconds`` have, for each method, a number for each
    k. Pages with a Missing among them get no line. The seconds are those of a map whose pages are
    all mapped.
    """
    left, right = figure.subplots(1, 2)
    looks = (("o-", "#222222"), ("s--", "#0072B2"))
    for (method, counts), (look, color) in zip(pages.items(), looks, strict=True):
        if not is_missing(*counts):
            left.plot(places, counts, look, color=color)
        times_us = [1e6 * each for each in seconds[method]]
        right.plot(places, times_us, look, color=color, label=method)
    if not left.lines:
        left.text(0.5, 0.5, MISSING, ha="center", transform=left.transAxes)
    left.set(ylabel="pages touched (cold file)")
    right.set(ylabel="time, warm map (µs)")
    for ax in (left, right):
        ax.set(xscale="log", yscale="log", xlabel="number k of the molecule")
    right.legend(loc="center right")
    return figure


def sections(ax: Axes, parts, alignment_bytes: int) -> Axes:
    """A file from its first byte to its last, its parts in colour and the gaps between them.

    A part is (name, offset_bytes, length_bytes). They come in order, the header first. Minor ticks
    stand at multiples of the alignment, major ones where a section begins.
    """
    end = parts[-1][1] + parts[-1][2]
    for (name, offset, n_bytes), color in zip(parts, PARTS, strict=False):
        ax.barh(0, n_bytes, left=offset, height=0.8, color=color, edgecolor="#555555", lw=0.8)
        fits = n_bytes > 0.07 * end  # else the name stands above its part
        ax.annotate(
            name.replace("_", "_\n") + f"\n{binary_size(n_bytes)}",
            (offset + n_bytes / 2, 0 if fits else 0.4),
            (0, 0 if fits else 14),
            textcoords="offset points",
            ha="center" if offset else "left",
            va="center" if fits else "bottom",
            fontsize=9,
            arrowprops=None if fits else {"arrowstyle": "-", "color": "#555555", "lw": 0.8},
        )
    ax.set_xticks(np.arange(0, end + alignment_bytes, alignment_bytes), minor=True)
    starts = [offset for _, offset, _ in parts]
    numbers = [str(offset // alignment_bytes) for offset in starts[1:]]
    ax.set_xticks(starts, ["", *numbers])  # a 0 would be too near the 1
    ax.tick_params(axis="x", which="major", length=8)
    ax.set(xlim=(0, end * 1.005), ylim=(-0.45, 1.35), yticks=[])
    ax.set_xlabel(f"offset in the file, in units of {binary_size(alignment_bytes)}")
    ax.spines["left"].set_visible(False)
    ax.grid(False)
    return ax


def file_order(ax: Axes, layout: str, question: str) -> Axes:
    """The values of a table of four molecules and three fields, in the order of the file.

    ``layout`` is "rows" (molecule after molecule) or "columns" (field after field). The values that
    a question of ASKED_OF asks for are lit. Under them stands in which page each would lie, if a
    page held four values.
    """
    order = [(molecule, field) for molecule in range(4) for field in range(3)]
    if layout == "columns":
        order.sort(key=lambda place: place[1])
    blank(ax, len(order) + 0.02, 2.6)
    for at, (molecule, field) in enumerate(order):
        asked = ASKED_OF[question](molecule, field)
        style, weight = (ASKED, "bold") if asked else (PLAIN, "normal")
        cell(ax, at, 0.8, 1, 1.0, style, f"{'ABCD'[molecule]}{field}", fontsize=9, weight=weight)
    for page in range(3):
        left = 4 * page
        ax.plot([left + 0.06, left + 3.94], [2.02, 2.02], color="#222222", lw=1.6)
        say(ax, left + 2, 2.4, f"page {page}", fontsize=8.5, ha="center")
    words = f"{layout}: molecules A to D, fields 0 to 2, in the order of the file"
    say(ax, 0, 0.35, f"{words}, if a page held four values; orange: asked for", fontsize=8.5)
    ax.texts[-1].set_in_layout(False)
    return ax


def touched_pages(ax: Axes, n_pages: int, computed, found) -> Axes:
    """All pages of a file: those that the kernel mapped, and a dot on those that were computed.

    Both are numbers of pages. If those that were ``found`` are Missing, none is drawn as mapped.
    """
    mapped = np.zeros(n_pages, bool)
    if is_missing(found):
        words = f"the kernel's count: {MISSING}"
        ax.text(0.5, 1.02, words, transform=ax.transAxes, fontsize=8.5, ha="center")
    else:
        mapped[list(found)] = True
    page_grid(ax, mapped, mapped, PAGES_A_LINE, legend=False)
    at = np.array(sorted(computed))
    ax.plot(at % PAGES_A_LINE, at // PAGES_A_LINE, "o", ms=4.5, color=COMPUTED, mew=0)
    n_lines = -(-n_pages // PAGES_A_LINE)
    lines = range(0, n_lines, -(-n_lines // 4))
    ax.set(ylim=(n_lines - 0.3, -0.7), ylabel="page")
    ax.set_yticks(lines, [f"{line * PAGES_A_LINE:,}" for line in lines])
    places = [0, PAGES_A_LINE // 2, PAGES_A_LINE - 1]
    ax.set_xticks(places, [f"+ {place}" for place in places])
    ax.set_xlabel(f"the file's {n_pages:,} pages, {PAGES_A_LINE} a line")
    return ax


def height_in(n_pages: int) -> float:
    """The height of ``question`` and its key, in inches, for a file of so many pages."""
    return STRIP_IN + LINE_IN * (-(-n_pages // PAGES_A_LINE) + 0.4) + WORDS_IN


def question(figure: Figure, layout: str, asked: str, n_pages: int, computed, found) -> Figure:
    """``file_order`` of a question above, ``touched_pages`` below, ``height_in(n_pages)`` high."""
    grid_in = height_in(n_pages) - STRIP_IN - WORDS_IN
    order, grid = figure.subplots(2, 1, height_ratios=[STRIP_IN, grid_in])
    file_order(order, layout, asked)
    touched_pages(grid, n_pages, computed, found)
    return figure


def key(figure: Figure):
    """The key to ``touched_pages``, under the figure."""
    marks = {name: ("s", MEANINGS[name].color) for name in ("on disk", "mapped in this process")}
    marks["computed: touched"] = ("o", COMPUTED)
    handles = [Line2D([], [], ls="", marker=mark, color=color) for mark, color in marks.values()]
    return figure.legend(handles, [*marks], loc="outside lower center", ncols=3, fontsize=9)
