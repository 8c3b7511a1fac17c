"""How a file is laid out, and which pages one question touches: the pictures of lesson 08."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from . import MEANINGS, Look, binary_size, blank, cell, page_grid, page_key, say

MISSING = "not available here"
COMPUTED = "#D55E00"
PLAIN, ASKED = Look("#F4F4F4", "", "#555555"), Look("#D55E00", "", "#FFFFFF")
PARTS = (
    Look("#D9D9D9", "", "#222222"),
    Look("#EBC6DA", "", "#222222"),
    Look("#F5EE9E", "", "#222222"),
    Look("#BFE5D6", "", "#222222"),
)
"""Header, values, lengths, SMILES: in lesson 01's colours of the three fields of a record."""

ASKED_OF = {
    "one molecule": lambda molecule, field: molecule == 1,
    "one property of all": lambda molecule, field: field == 1,
    "100 in a row": lambda molecule, field: molecule in (1, 2),
}
"""Question -> which values of the small example table of ``file_order`` it asks for."""

N_MOLECULES, N_FIELDS = 4, 3
LEAST_ROWS = 8
"""Of pages, for which a grid has room: small files and large ones are drawn alike."""


def growth(figure: Figure, places, pages: Mapping[str, Sequence], seconds: Mapping) -> Figure:
    """Pages touched and time taken to find molecule k, against k, a line a way.

    Parameters
    ----------
    places : (n,) int, the numbers k
    pages : way -> (n,) int, or a str where the kernel's count is not to be had
    seconds : way -> (n,) float
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
    left.set(ylabel="pages touched, by the kernel")
    right.set(ylabel="time (microseconds)")
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
        words = f"{name}\n{binary_size(n_bytes)}"
        middle = offset + n_bytes / 2
        small = n_bytes < 0.07 * end
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

    Parameters
    ----------
    layout : "rows" (molecule after molecule) or "columns" (field after field)
    question : of ASKED_OF; the values that it asks for are lit
    """
    molecules, fields = range(N_MOLECULES), range(N_FIELDS)
    order = [(m, f) for m in molecules for f in fields]
    if layout == "columns":
        order = [(m, f) for f in fields for m in molecules]
    blank(ax, 12, 2.2)
    for at, (molecule, field) in enumerate(order):
        look = ASKED if ASKED_OF[question](molecule, field) else PLAIN
        weight = "bold" if look is ASKED else "normal"
        text = f"{'ABCD'[molecule]}{field}"
        cell(ax, at, 0.9, 1, 1.2, look, text, fontsize=9, weight=weight)
    words = (
        "a small table (molecules A to D, fields 0 to 2) in the order of the file; lit: asked for"
    )
    say(ax, 0, 0.35, f"{layout}: {words}", fontsize=8.5)
    ax.texts[-1].set_in_layout(False)
    return ax


def touched_pages(ax: Axes, n_pages: int, computed, found, columns: int) -> Axes:
    """All pages of a file: those that the kernel mapped, and a dot on those that were computed.

    Parameters
    ----------
    computed : numbers of the pages that arithmetic says are touched
    found : numbers of the pages that the kernel had mapped; a str (or None) where it cannot be
        asked, and then no page is drawn as mapped
    columns : pages in a row
    """
    mapped = np.zeros(n_pages, bool)
    if not isinstance(found, str | None):
        mapped[list(found)] = True
    page_grid(ax, mapped, mapped, columns, legend=False)
    at = np.array(sorted(computed))
    side = max(1.8, 160.0 / columns)
    ax.plot(at % columns, at // columns, ls="", marker="o", ms=side, color=COMPUTED, mew=0)
    n_rows = max(-(-n_pages // columns), LEAST_ROWS)
    ax.set(ylim=(n_rows - 0.3, -0.7), yticks=range(0, n_rows, max(1, n_rows // 4)), ylabel="row")
    ax.set_xlabel(f"{n_pages:,} pages, {columns} in a row")
    if isinstance(found, str | None):
        words = f"the kernel's count: {MISSING}"
        ax.text(0.5, 1.02, words, transform=ax.transAxes, fontsize=8.5, ha="center")
    return ax


def question(
    figure: Figure, layout: str, asked: str, n_pages: int, computed, found, columns: int = 64
) -> Figure:
    """What one question touches: the order of the values above, all pages of the file below.

    ``asked`` is a question of ASKED_OF; the rest is as for ``file_order`` and ``touched_pages``.
    """
    n_rows = max(-(-n_pages // columns), LEAST_ROWS)
    order, grid = figure.subplots(2, 1, height_ratios=[1.4, max(2.5, 20 * n_rows / columns)])
    file_order(order, layout, asked)
    touched_pages(grid, n_pages, computed, found, columns)
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
