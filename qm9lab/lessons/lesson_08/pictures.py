"""How a file is laid out, and which pages one question touches: the pictures of lesson 08."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from qm9lab.course.page_grid import page_grid, page_key
from qm9lab.course.plots import MEANINGS, Look, binary_size, blank, cell, say

MISSING = "not available here"
COMPUTED = "#D55E00"
PLAIN, ASKED = Look("#F4F4F4", "", "#555555"), Look("#D55E00", "", "#FFFFFF")
PARTS = (
    Look("#D9D9D9", "", "#222222"),
    Look("#EBC6DA", "", "#222222"),
    Look("#F5EE9E", "", "#222222"),
    Look("#BFE5D6", "", "#222222"),
)
"""Header, values, offsets, SMILES: the last three in lesson 01's colours of a record's fields."""

ASKED_OF = {
    "one molecule": lambda molecule, field: molecule == 1,
    "one property of all": lambda molecule, field: field == 1,
    "100 neighbours": lambda molecule, field: molecule in (1, 2),
}
"""Question -> which values of the small example table of ``file_order`` it asks for."""

N_MOLECULES, N_FIELDS, VALUES_A_PAGE = 4, 3, 4
"""Of the small example table."""

PAGES_A_LINE, LINE_IN, STRIP_IN, WORDS_IN = 32, 0.235, 0.85, 1.2
"""Of a grid, and heights in inches: a page is drawn in one size, however long the file is."""


def growth(figure: Figure, places, pages: Mapping[str, Sequence], seconds: Mapping) -> Figure:
    """Pages touched and time taken to find where molecule k lies, against k, a line a way.

    Parameters
    ----------
    places : (n,) int, the numbers k
    pages : way -> (n,) int, or a str where the kernel's count is not to be had
    seconds : way -> (n,) float, through a map whose pages are all mapped
    """
    looks = zip(seconds, (("o", "-"), ("s", "--")), ("#222222", "#0072B2"), strict=True)
    left, right = figure.subplots(1, 2)
    for way, (marker, dash), color in looks:
        look = {"marker": marker, "ls": dash, "color": color, "label": way}
        if not any(isinstance(n, str) for n in pages[way]):
            left.plot(places, pages[way], **look)
        right.plot(places, np.multiply(seconds[way], 1e6), **look)
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

    Parameters
    ----------
    parts : sequence of (name, offset_bytes, length_bytes), in order
        The first is the header.
    alignment_bytes : ticks stand at its multiples.
    """
    end = parts[-1][1] + parts[-1][2]
    for k, (name, offset, n_bytes) in enumerate(parts):
        look = PARTS[k % len(PARTS)]
        ax.barh(0, n_bytes, left=offset, height=0.8, color=look.color, edgecolor="#555555", lw=0.8)
        middle, small = offset + n_bytes / 2, n_bytes < 0.07 * end
        label = name.replace("_", "_\n") if n_bytes < 0.15 * end else name
        words = f"{label}\n{binary_size(n_bytes)}"
        place = (middle, 0.4) if small else (middle, 0)
        ax.annotate(
            words,
            place,
            (0, 14) if small else (0, 0),
            textcoords="offset points",
            ha="left" if small and k == 0 else "center",
            va="bottom" if small else "center",
            fontsize=9,
            arrowprops={"arrowstyle": "-", "color": "#555555", "lw": 0.8} if small else None,
        )
    ticks = np.arange(0, end + alignment_bytes, alignment_bytes)
    ax.set_xticks(ticks, minor=True)
    starts = [offset for _, offset, _ in parts]
    numbers = ["", *(f"{offset // alignment_bytes}" for offset in starts[1:])]  # 0 is too near 1
    ax.set_xticks(starts, numbers)
    ax.tick_params(axis="x", which="minor", length=3)
    ax.tick_params(axis="x", which="major", length=8)
    ax.set(xlim=(0, end * 1.005), ylim=(-0.45, 1.35), yticks=[])
    ax.set_xlabel(f"offset in the file, in units of {binary_size(alignment_bytes)}")
    ax.spines["left"].set_visible(False)
    ax.grid(False)
    return ax


def file_order(ax: Axes, layout: str, question: str) -> Axes:
    """The values of a table of four molecules and three fields, in the order of the file.

    Under them stands in which page each would lie, if a page held four values.

    Parameters
    ----------
    layout : "rows" (molecule after molecule) or "columns" (field after field)
    question : of ASKED_OF; the values that it asks for are lit
    """
    molecules, fields = range(N_MOLECULES), range(N_FIELDS)
    order = [(m, f) for m in molecules for f in fields]
    if layout == "columns":
        order = [(m, f) for f in fields for m in molecules]
    blank(ax, len(order) + 0.02, 2.6)
    for at, (molecule, field) in enumerate(order):
        look = ASKED if ASKED_OF[question](molecule, field) else PLAIN
        weight = "bold" if look is ASKED else "normal"
        text = f"{'ABCD'[molecule]}{field}"
        cell(ax, at, 0.8, 1, 1.0, look, text, fontsize=9, weight=weight)
    for page in range(len(order) // VALUES_A_PAGE):
        left = page * VALUES_A_PAGE
        ends = [left + 0.06, left + VALUES_A_PAGE - 0.06]
        ax.plot(ends, [2.02, 2.02], color="#222222", lw=1.6, solid_capstyle="butt")
        middle = left + VALUES_A_PAGE / 2
        say(ax, middle, 2.4, f"page {page}", fontsize=8.5, ha="center")
    words = f"{layout}: molecules A to D, fields 0 to 2, in the order of the file"
    say(ax, 0, 0.35, f"{words}, if a page held four values; lit: asked for", fontsize=8.5)
    ax.texts[-1].set_in_layout(False)
    return ax


def touched_pages(ax: Axes, n_pages: int, computed, found) -> Axes:
    """All pages of a file: those that the kernel mapped, and a dot on those that were computed.

    Parameters
    ----------
    computed : numbers of the pages that arithmetic says are touched
    found : numbers of the pages that the kernel had mapped; a str (or None) where it cannot be
        asked, and then no page is drawn as mapped
    """
    mapped = np.zeros(n_pages, bool)
    if not isinstance(found, str | None):
        mapped[list(found)] = True
    page_grid(ax, mapped, mapped, PAGES_A_LINE, legend=False)
    at = np.array(sorted(computed))
    x, y = at % PAGES_A_LINE, at // PAGES_A_LINE
    ax.plot(x, y, ls="", marker="o", ms=4.5, color=COMPUTED, mew=0)
    n_lines = -(-n_pages // PAGES_A_LINE)
    lines = range(0, n_lines, max(1, -(-n_lines // 4)))
    ax.set(ylim=(n_lines - 0.3, -0.7), ylabel="page")
    ax.set_yticks(lines, [f"{line * PAGES_A_LINE:,}" for line in lines])
    places = [0, PAGES_A_LINE // 2, PAGES_A_LINE - 1]
    ax.set_xticks(places, [f"+ {place}" for place in places])
    ax.set_xlabel(f"the file's {n_pages:,} pages, {PAGES_A_LINE} a line")
    if isinstance(found, str | None):
        words = f"the kernel's count: {MISSING}"
        ax.text(0.5, 1.02, words, transform=ax.transAxes, fontsize=8.5, ha="center")
    return ax


def height_in(n_pages: int) -> float:
    """The height of ``question`` and its key, in inches, for a file of so many pages."""
    return STRIP_IN + _grid_in(n_pages) + WORDS_IN


def _grid_in(n_pages: int) -> float:
    return LINE_IN * (-(-n_pages // PAGES_A_LINE) + 0.4)


def question(figure: Figure, layout: str, asked: str, n_pages: int, computed, found) -> Figure:
    """What one question touches: the order of the values above, all pages of the file below.

    ``asked`` is a question of ASKED_OF; the rest is as for ``file_order`` and ``touched_pages``.
    The figure is best ``height_in(n_pages)`` inches high.
    """
    order, grid = figure.subplots(2, 1, height_ratios=[STRIP_IN, _grid_in(n_pages)])
    file_order(order, layout, asked)
    touched_pages(grid, n_pages, computed, found)
    return figure


def key(figure: Figure):
    """The key to ``touched_pages``, under the figure."""
    dot = Line2D([], [], ls="", marker="o", ms=5, color=COMPUTED)
    squares = page_key(figure, dirty=False, copied=False, touched=False)
    handles, names = squares.legend_handles, [text.get_text() for text in squares.get_texts()]
    squares.remove()
    kept = [k for k, name in enumerate(names) if name in (list(MEANINGS)[0], list(MEANINGS)[2])]
    return figure.legend(
        [*(handles[k] for k in kept), dot],
        [*(names[k] for k in kept), "computed: touched"],
        loc="outside lower center",
        ncols=3,
        fontsize=9,
    )
