"""Several processes and one file: sums over them, and what each of them has (lesson 09).

A *memory* has ``rss_bytes``, ``pss_bytes``, ``uss_bytes`` and ``pss_anonymous_bytes``, such as a
``sharing.Footprint``; a *joined* has ``n``, ``source_bytes`` (the size of the file), ``added`` (a
memory) and ``cached_bytes``, such as a ``sharing.Joined``. What a system does not tell is None, and
the picture says so in its place.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from qm9lab.course.memory_bars import CACHED, MIB, MISSING, OWN, SHARED, bar, key, write
from qm9lab.course.plots import MEANINGS

RSS_MARK = {"marker": "|", "ms": 21, "mew": 2.2, "color": "#222222", "ls": ""}
USS_MARK = {"marker": "o", "ms": 7, "mec": "#222222", "mfc": "none", "color": "#222222"}
USS_MARK |= {"ls": "", "mew": 1.6}
GONE = {"lw": 9, "color": "#CC79A7", "alpha": 0.45, "solid_capstyle": "round"}
SUMS = {
    "own + page cache": GONE,
    "sum of RSS": {"marker": "s", "ls": "--", "color": "#222222", "mfc": "#FFFFFF", "ms": 9},
    "sum of PSS": {"marker": "o", "ls": "-", "color": "#222222", "mfc": "#222222", "ms": 6},
    "page cache": {"marker": "D", "ls": ":", "color": "#2E86B0", "mfc": MEANINGS[CACHED].color}
    | {"ms": 4.5},
}


def joining(figure: Figure, joined_by_way: dict) -> Figure:
    """The sums after the first, the second, ... process got the file, in files; one panel a way.

    Parameters
    ----------
    joined_by_way : dict of str to list of joined
    """
    axes = figure.subplots(1, len(joined_by_way), sharey=True, squeeze=False)[0]
    for ax, (way, joined) in zip(axes, joined_by_way.items(), strict=True):
        n, source_bytes = [each.n for each in joined], joined[0].source_bytes
        columns = {
            "own + page cache": [each.bill_bytes for each in joined],
            "sum of RSS": [each.added.rss_bytes for each in joined],
            "sum of PSS": [each.added.pss_bytes for each in joined],
            "page cache": [each.cached_bytes for each in joined],
        }
        for name, column in columns.items():
            if None not in column:
                ax.plot(n, np.array(column) / source_bytes, label=name, **SUMS[name])
        gone = [name for name, column in columns.items() if None in column]
        if gone:
            words = f"{', '.join(gone)}:\n{MISSING}"
            ax.text(0.05, 0.8, words, transform=ax.transAxes, fontsize=9)
        ax.set(title=way, xlabel="processes that have the file", xticks=n)
        ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].set_ylabel("added (files)")
    axes[0].set_ylim(0, None)
    handles = [Line2D([], [], label=name, **look) for name, look in SUMS.items()]
    handles[0].set(label="own + page cache: what is gone", linewidth=7)
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=9)
    return figure


def bill(ax: Axes, joined) -> Axes:
    """What ``n`` processes added together, in files: RSS and PSS, page cache, and what is gone.

    The processes are not forks of one another, so that what is anonymous has one owner each and
    is the same in both sums.
    """
    added, cached, unit_bytes = joined.added, joined.cached_bytes, joined.source_bytes
    own = added.pss_anonymous_bytes
    rows = {"sum of RSS": (added.rss_bytes, SHARED), "sum of PSS": (added.pss_bytes, SHARED)}
    rows["page cache"] = (cached, CACHED)
    rows["own + page cache"] = (None if None in (own, cached) else own + cached, CACHED)
    drawn = []
    for place, (name, (n_bytes, rest)) in enumerate(rows.items()):
        if n_bytes is None:
            write(ax, place, 0, MISSING)
            continue
        if own is None and name != "page cache":  # of unknown kind: an empty bar
            ax.barh(place, n_bytes / unit_bytes, color="#FFFFFF", edgecolor="#555555", height=0.66)
        else:
            first = 0 if name == "page cache" else max(own, 0)
            drawn += _stack(ax, place, {OWN: first, rest: n_bytes - first}, unit_bytes)
        write(ax, place, n_bytes / unit_bytes * MIB, f"{n_bytes / unit_bytes:.1f}")
    widest = max(1, *((n_bytes or 0) / unit_bytes for n_bytes, _ in rows.values()))
    ax.set(xlim=(0, widest * 1.15), xlabel="added (files)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    _name_rows(ax, rows)
    _explain(ax.figure, drawn, [])
    return ax


def processes(ax: Axes, labels, memories, source_bytes: int = MIB) -> Axes:
    """A row a process (or a moment of one): its PSS as a bar, marks where its RSS and USS end.

    The axis is in files of ``source_bytes``.
    """
    drawn, marks = [], [Line2D([], [], **RSS_MARK, label="RSS")]
    for place, each in enumerate(memories):
        at = max(each.rss_bytes, 0) / source_bytes
        ax.plot(at, place, **RSS_MARK, clip_on=False, zorder=3)
        if None in (each.pss_bytes, each.pss_anonymous_bytes):
            write(ax, place, at * MIB, f"PSS: {MISSING}")
        else:
            own = max(each.pss_anonymous_bytes, 0)
            drawn += _stack(ax, place, {OWN: own, SHARED: each.pss_bytes - own}, source_bytes)
        if each.uss_bytes is not None:
            at = max(each.uss_bytes, 0) / source_bytes
            ax.plot(at, place, **USS_MARK, clip_on=False, zorder=4)
    if any(each.uss_bytes is not None for each in memories):
        marks.append(Line2D([], [], **USS_MARK, label="USS"))
    widest = max(0.1, *(each.rss_bytes / source_bytes for each in memories))
    ax.set(xlim=(0, widest * 1.08), xlabel="added (files)")
    _name_rows(ax, labels)
    ax.tick_params(axis="y", pad=9)  # a USS of nothing is a ring over the axis
    _explain(ax.figure, drawn, marks, "PSS, ")
    return ax


def families(figure: Figure, steps, ways: dict) -> Figure:
    """Panels side by side: what parent and workers own, and the page cache once, step by step.

    Parameters
    ----------
    steps : the names of the rows
    ways : dict of str to (memories, cached_bytes)
        For each step the memory that was added, summed over the family; and the bytes of the file
        in the page cache, or None if that is not to be had.
    """
    axes, drawn, widest = figure.subplots(1, len(ways), sharey=True, squeeze=False)[0], [], 1
    for ax, (title, (memories, cached)) in zip(axes, ways.items(), strict=True):
        for place, each in enumerate(memories):
            own = max(each.pss_anonymous_bytes, 0)
            drawn += _stack(ax, place, {OWN: own, CACHED: cached or 0}, MIB)
            end = own + (cached or 0)
            rss = max(each.rss_bytes, 0)
            ax.plot(rss / MIB, place, **RSS_MARK)
            words = f"page cache: {MISSING}"
            if cached is not None:
                parts = own // MIB, cached // MIB
                words = f"{parts[0]:,} + {parts[1]:,} = {sum(parts):,}"
            write(ax, place, end, words)
            widest = max(widest, end / MIB, rss / MIB)
        ax.set(title=title, xlabel="added since the start (MiB)")
        _name_rows(ax, steps)
    for ax in axes:
        ax.set_xlim(0, widest * 1.15)
    marks = [Line2D([], [], **RSS_MARK, label="sum of RSS")]
    _explain(figure, drawn, marks)
    return figure


WORDS = {OWN: "anonymous: their own", SHARED: "file pages, mapped", CACHED: CACHED}


def _stack(ax: Axes, place: float, parts: dict, unit_bytes: int) -> list[str]:
    """Bars one behind another, a meaning each; which of them are wide enough to be drawn."""
    left, drawn = 0, []
    for meaning, n_bytes in parts.items():
        if n_bytes > 0:
            bar(ax, place, left / unit_bytes * MIB, n_bytes / unit_bytes * MIB, meaning)
            left += n_bytes
            drawn += [meaning] * (n_bytes > 0.02 * unit_bytes)
    return drawn


def _name_rows(ax: Axes, labels) -> None:
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)


def _explain(figure: Figure, drawn, marks, before: str = "") -> None:
    """A legend of what was drawn, and of nothing else."""
    handles = [key(each, before + WORDS[each]) for each in WORDS if each in drawn] + marks
    for mark in marks:
        mark.set_markersize(min(mark.get_markersize(), 11))
    if handles and not figure.legends:
        figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8.5)
