"""The pages of a file, by where they are: on disk, cached, mapped, dirty."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from qm9lab.measure import is_missing

from .plots import MEANINGS, draw_missing

HEIGHTS = {"on disk": 0.42, "in the page cache": 0.68, "mapped in this process": 0.9}
"""The second cue: what came nearer is larger. Shares of a row's height."""

TOUCHED, DARK, WHITE = "#D55E00", "#222222", "#FFFFFF"


def page_grid(
    ax: Axes, cached, mapped, columns: int = 256, touched=None, dirty=None, legend=True
) -> Axes:
    """All pages of a file as small boxes, row by row from its start, ``columns`` pages in a row.

    ``cached``, ``mapped`` and ``dirty`` are ``(n_pages,)`` bool or ``Missing``, as in
    ``measure.PageStates``. A page that is cached and mapped is drawn as mapped, and a dirty page is
    crossed by a bar. Where cached and mapped are missing, the reason is written in place of the
    picture. The pages whose numbers are in ``touched`` get a ring.
    Without ``legend`` there is no key under the figure: several grids may share one.
    """
    if is_missing(cached) and is_missing(mapped):
        return draw_missing(ax, cached)
    n_pages = len(mapped if is_missing(cached) else cached)
    kinds = np.zeros(n_pages, np.int8)
    for kind, where in ((1, cached), (2, mapped)):
        if not is_missing(where):
            kinds[where] = kind
    for kind, (name, height) in enumerate(HEIGHTS.items()):
        _boxes(ax, kinds == kind, columns, height, MEANINGS[name].color, name)
    is_dirty = np.zeros(n_pages, bool) if dirty is None or is_missing(dirty) else dirty
    for where, colour in ((kinds == 2, WHITE), (kinds != 2, DARK)):
        _boxes(ax, is_dirty & where, columns, 0.24, colour, "dirty")
    rows = -(-n_pages // columns)
    ax.vlines(np.arange(1, columns) - 0.5, -0.5, rows - 0.5, colors=WHITE, linewidths=0.5)
    if touched is not None:
        pages = np.atleast_1d(touched)
        ring = {"facecolors": "none", "edgecolors": TOUCHED, "linewidths": 1.8}
        ax.scatter(pages % columns, pages // columns, marker="o", s=90, clip_on=False, **ring)
    ax.set(xlim=(-1, columns), ylim=(rows - 0.3, -0.7), xticks=[0, columns // 2, columns - 1])
    ax.set(xlabel="page within the row", ylabel=f"rows of {columns} pages")
    ax.grid(False)
    ax.set_aspect("equal")
    ax.label_outer()
    if legend:
        _key(ax.figure, is_dirty.any(), touched is not None)
    return ax


def _boxes(ax: Axes, where, columns: int, height: float, colour: str, label: str) -> None:
    """A box for each run of pages that are meant within a row, all of them as one path."""
    pages = np.flatnonzero(where)
    if not len(pages):
        return
    starts = np.flatnonzero((np.diff(pages, prepend=-2) != 1) | (pages % columns == 0))
    lengths, pages = np.diff(starts, append=len(pages)), pages[starts]
    left, top = pages % columns - 0.5, pages // columns - height / 2
    right, bottom = left + lengths, top + height
    x, y = np.stack([left, right, right, left, left]), np.stack([top, top, bottom, bottom, top])
    codes = np.tile([Path.MOVETO, *[Path.LINETO] * 3, Path.CLOSEPOLY], len(pages))
    corners = np.stack([x.T.ravel(), y.T.ravel()], axis=1)
    ax.add_patch(PathPatch(Path(corners, codes), facecolor=colour, linewidth=0, label=label))


def _key(figure, dirty: bool, touched: bool) -> None:
    """The key to page grids, under the figure."""

    def mark(marker: str, color: str, size: float, **style) -> Line2D:
        return Line2D([], [], ls="", marker=marker, color=color, markersize=size, **style)

    handles = {
        name: mark("s", MEANINGS[name].color, 11 * height) for name, height in HEIGHTS.items()
    }
    if dirty:
        bar = mark("_", WHITE, 10, markeredgewidth=2.6)
        handles["dirty: a bar across"] = (handles["mapped in this process"], bar)
    if touched:
        handles["touched"] = mark("o", TOUCHED, 9, markerfacecolor="none", markeredgewidth=1.8)
    place = {"loc": "outside lower center", "ncols": min(len(handles), 5), "fontsize": 9}
    figure.legend(list(handles.values()), list(handles), **place)
