"""Pictures of several processes and one file: sums over them, and what each of them has.

A *memory* is a ``measure.Footprint``. A value that is ``Missing`` is named in its place.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from qm9lab.course.memory_bars import CACHED, MIB, OWN, SHARED, set_rows, stack, write
from qm9lab.course.plots import MEANINGS, MISSING, key
from qm9lab.measure import is_missing

RSS_MARK = {"marker": "|", "ms": 15, "mew": 2.2, "color": "#222222", "ls": ""}
USS_MARK = {"marker": "o", "ms": 7, "mec": "#222222", "mfc": "none", "ls": "", "mew": 1.6}
SUMS = {
    "own + page cache": {"lw": 9, "color": "#CC79A7", "alpha": 0.45, "solid_capstyle": "round"},
    "sum of RSS": {"marker": "s", "ls": "--", "color": "#222222", "mfc": "#FFFFFF", "ms": 9},
    "sum of PSS": {"marker": "o", "ls": "-", "color": "#222222", "mfc": "#222222", "ms": 6},
    "page cache": {"marker": "D", "ls": ":", "color": "#2E86B0", "ms": 4.5}
    | {"mfc": MEANINGS[CACHED].color},
}
WORDS = {OWN: "anonymous: their own", SHARED: "file pages, mapped", CACHED: CACHED}


def readers(figure: Figure, readers_by_way: dict) -> Figure:
    """The sums after the first, the second, ... process read the file; one panel a way.

    ``readers_by_way`` has a list of ReadersMemory for each way.
    """
    axes = figure.subplots(1, len(readers_by_way), sharey=True, squeeze=False)[0]
    for ax, (way, rows) in zip(axes, readers_by_way.items(), strict=True):
        n, missing = [each.n for each in rows], []
        for name, style in SUMS.items():
            column = [each.sums[name] for each in rows]
            if is_missing(*column):
                missing.append(name)
            else:
                ax.plot(n, np.array(column) / rows[0].source_bytes, label=name, **style)
        if missing:
            words = f"{', '.join(missing)}:\n{MISSING}"
            ax.text(0.05, 0.8, words, transform=ax.transAxes, fontsize=9)
        ax.set(title=way, xlabel="processes that have the file", xticks=n)
        ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].set_ylabel("added (files)")
    axes[0].set_ylim(0, None)
    handles = [Line2D([], [], label=name, **style) for name, style in SUMS.items()]
    handles[0].set(label="own + page cache: the total cost", linewidth=7)
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=9)
    return figure


def total_cost(ax: Axes, memory) -> Axes:
    """What readers added together, in files: RSS and PSS, page cache, and the total cost.

    ``memory`` is a ReadersMemory. None of its processes is a fork of another: what is anonymous
    has one owner each, and is the same in both sums.
    """
    size, own = memory.source_bytes, memory.added.pss_anonymous_bytes
    drawn, widest = set(), 1
    for place, (name, n_bytes) in enumerate(memory.sums.items()):
        first, rest = (0, CACHED) if name == "page cache" else (own, SHARED)
        if name == "own + page cache":
            rest = CACHED
        if is_missing(n_bytes, first):  # of a kind that nobody knows: no bar
            write(ax, place, 0, MISSING if is_missing(n_bytes) else f"{n_bytes / size:.1f}")
            continue
        drawn |= stack(ax, place, {OWN: max(first, 0), rest: n_bytes - max(first, 0)}, size)
        write(ax, place, n_bytes / size, f"{n_bytes / size:.1f}")
        widest = max(widest, n_bytes / size)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    set_rows(ax, memory.sums)
    ax.set(xlim=(0, widest * 1.1), xlabel="added (files)")
    _explain(ax.figure, drawn, {})
    return ax


def processes(ax: Axes, labels, memories, source_bytes: int) -> Axes:
    """A row a process (or a moment of one): its PSS as a bar, with marks for its RSS and USS.

    The axis is in files of ``source_bytes``.
    """
    drawn, widest = set(), 0.1
    for place, each in enumerate(memories):
        if is_missing(each.pss_bytes, each.pss_anonymous_bytes):
            write(ax, place, 0, f"PSS: {MISSING}")
        else:
            own = max(each.pss_anonymous_bytes, 0)
            drawn |= stack(ax, place, {OWN: own, SHARED: each.pss_bytes - own}, source_bytes)
        for n_bytes, style in ((each.rss_bytes, RSS_MARK), (each.uss_bytes, USS_MARK)):
            if not is_missing(n_bytes):
                at = max(n_bytes, 0) / source_bytes
                ax.plot(at, place, **style, clip_on=False, zorder=3)
                widest = max(widest, at)
    set_rows(ax, labels)
    ax.set(xlim=(0, widest * 1.1), xlabel="added (files)")
    ax.tick_params(axis="y", pad=9)  # a USS of nothing is a ring over the axis
    _explain(ax.figure, drawn, {"RSS": RSS_MARK, "USS": USS_MARK}, "PSS, ")
    return ax


def workers(figure: Figure, steps, ways: dict) -> Figure:
    """Panels side by side: what a process and its workers own, and the page cache, step by step.

    ``ways`` has, for each panel, the memory added until each step, summed over all processes; and
    the bytes of the file in the page cache, or Missing.
    """
    axes, drawn, widest = figure.subplots(1, len(ways), sharey=True, squeeze=False)[0], set(), 1
    for ax, (title, (memories, cached)) in zip(axes, ways.items(), strict=True):
        for place, each in enumerate(memories):
            if is_missing(each.pss_anonymous_bytes, cached):
                write(ax, place, 0, f"own + page cache: {MISSING}")
                continue
            parts = {OWN: max(each.pss_anonymous_bytes, 0), CACHED: cached}
            drawn |= stack(ax, place, parts)
            own_mib, cached_mib = parts[OWN] // MIB, cached // MIB
            words = f"{own_mib:,} + {cached_mib:,} = {own_mib + cached_mib:,}"
            write(ax, place, sum(parts.values()) / MIB, words)
            ax.plot(each.rss_bytes / MIB, place, **RSS_MARK)
            widest = max(widest, own_mib + cached_mib, each.rss_bytes / MIB)
        ax.set_title(title)
    for ax in axes:
        set_rows(ax, steps)
        ax.set(xlim=(0, widest * 1.15 * 1.1), xlabel="added since the start (MiB)")
    _explain(figure, drawn, {"sum of RSS": RSS_MARK})
    return figure


def _explain(figure: Figure, drawn, marks: dict, before: str = "") -> None:
    """A legend of what was drawn, and of nothing else."""
    handles = [key(each, before + WORDS[each]) for each in WORDS if each in drawn]
    handles += [Line2D([], [], label=label, **style) for label, style in marks.items()]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8.5)
