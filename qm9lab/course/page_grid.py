"""The pages of a file as small squares, by where they are: on disk, cached, mapped, dirty."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path

from .plots import MEANINGS

SIDES = {
    "on disk": 0.42,
    "in the page cache": 0.68,
    "mapped in this process": 0.9,
    "private (anonymous)": 0.9,
}
"""The second cue: what came nearer is larger. Shares of a page's place in the grid."""

TOUCHED, DARK, WHITE = "#D55E00", "#222222", "#FFFFFF"


def page_kinds(cached, mapped, copied=None) -> np.ndarray:
    """The meaning under which each page is drawn: its place in ``MEANINGS``, 0 to 3.

    A page that is mapped is in the page cache too, and is drawn as mapped; a private copy is drawn
    as private.
    """
    kinds = np.zeros(max(len(each) for each in (cached, mapped) if each is not None), np.int8)
    for kind, where in ((1, cached), (2, mapped), (3, copied)):
        if where is not None:
            kinds[where] = kind
    return kinds


def page_grid(
    ax: Axes,
    cached,
    mapped,
    columns: int = 256,
    touched=None,
    dirty=None,
    copied=None,
    legend: bool = True,
    runs: bool = False,
) -> Axes:
    """All pages of a file as small squares, row by row from its start.

    Parameters
    ----------
    cached, mapped, dirty, copied : (n_pages,) bool or None
        As in ``measure.PageMap``. A page that is cached and mapped is drawn as mapped; a dirty
        one is crossed by a bar. None is drawn as no page.
    columns : int
        Pages in a row.
    touched : int or sequence of int, optional
        Numbers of pages to ring.
    legend : bool
        Put the key under the figure; leave it out where several grids share one.
    runs : bool
        Draw neighbours of one kind as one shape, with white lines between the pages: a small SVG.
    """
    if cached is None and mapped is None:
        ax.set_axis_off()
        ax.text(0.5, 0.5, "which pages are cached or mapped: not available here", ha="center")
        return ax
    kinds = page_kinds(cached, mapped, copied)
    rows = -(-len(kinds) // columns)
    for kind, (name, side) in enumerate(SIDES.items()):
        width = 1 if runs else side
        colour = MEANINGS[name].color
        _boxes(ax, *_places(kinds == kind, columns, runs), width, side, colour, name)
    if dirty is not None:
        for where, colour in ((kinds == 2, WHITE), (kinds != 2, DARK)):
            width = 1 if runs else 0.9
            _boxes(ax, *_places(dirty & where, columns, runs), width, 0.24, colour, "dirty")
    if runs:
        ax.vlines(np.arange(1, columns) - 0.5, -0.5, rows - 0.5, colors=WHITE, linewidths=0.5)
    if touched is not None:
        pages = np.atleast_1d(touched)
        ax.scatter(
            pages % columns,
            pages // columns,
            marker="o",
            s=90,
            facecolors="none",
            edgecolors=TOUCHED,
            linewidths=1.8,
            clip_on=False,
        )
    ax.set(xlim=(-1, columns), ylim=(rows - 0.3, -0.7), xticks=[0, columns // 2, columns - 1])
    ax.set(xlabel="page within the row", ylabel=f"rows of {columns} pages")
    ax.grid(False)
    ax.set_aspect("equal")
    ax.label_outer()
    if legend:
        page_key(ax.figure, dirty is not None and dirty.any(), 3 in kinds, touched is not None)
    return ax


def _places(where, columns: int, runs: bool):
    """Pages that are meant, or runs of them within a row: numbers of the first, lengths."""
    pages = np.flatnonzero(where)
    if not runs or not len(pages):
        return pages, np.ones(len(pages), int), columns
    starts = np.flatnonzero((np.diff(pages, prepend=-2) != 1) | (pages % columns == 0))
    return pages[starts], np.diff(starts, append=len(pages)), columns


def _boxes(ax: Axes, pages, lengths, columns, width, height, colour: str, label: str) -> None:
    """Rectangles as one path: thousands of patches of their own would be slow."""
    if not len(pages):
        return
    left, top = pages % columns - width / 2, pages // columns - height / 2
    right, bottom = left + width * lengths, top + height
    x, y = np.stack([left, right, right, left, left]), np.stack([top, top, bottom, bottom, top])
    codes = np.tile([Path.MOVETO, *[Path.LINETO] * 3, Path.CLOSEPOLY], len(pages))
    corners = np.stack([x.T.ravel(), y.T.ravel()], axis=1)
    ax.add_patch(PathPatch(Path(corners, codes), facecolor=colour, linewidth=0, label=label))


def page_key(figure, dirty: bool, copied: bool, touched: bool, **where):
    """The key to page grids, under the figure."""
    names = list(SIDES)[: 4 if copied else 3]
    square = {"linestyle": "", "marker": "s"}
    handles = [
        Line2D([], [], **square, color=MEANINGS[name].color, markersize=11 * SIDES[name])
        for name in names
    ]
    if dirty:
        handles.append(_DirtyHandle())
        names = [*names, "dirty: a bar across"]
    if touched:
        ring = {"linestyle": "", "marker": "o", "markerfacecolor": "none"}
        handles.append(Line2D([], [], **ring, color=TOUCHED, markersize=9, markeredgewidth=1.8))
        names = [*names, "touched"]
    key = {"loc": "outside lower center", "ncols": len(names), "fontsize": 9} | where
    return figure.legend(handles, names, handler_map={_DirtyHandle: _DrawDirty()}, **key)


class _DirtyHandle:
    """Stands for a dirty page in a legend."""


class _DrawDirty:
    """A mapped page's square with the white bar of a dirty one."""

    def legend_artist(self, _legend, _handle, _fontsize, box):
        side = 10.0
        x, y = box.xdescent + box.width / 2 - side / 2, box.ydescent + box.height / 2 - side / 2
        colour = MEANINGS["mapped in this process"].color
        place = {"transform": box.get_transform(), "linewidth": 0}
        box.add_artist(Rectangle((x, y), side, side, facecolor=colour, **place))
        bar = Rectangle((x, y + 3.7), side, 2.6, facecolor=WHITE, **place)
        box.add_artist(bar)
        return bar
