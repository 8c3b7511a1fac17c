"""Several processes and one file: sums over them, and what each of them has (lesson 09).

A *memory* has ``rss_bytes``, ``pss_bytes``, ``uss_bytes`` and ``pss_anonymous_bytes``, such as a
``sharing.Memory``; a *joined* has ``n``, ``source_bytes`` (the size of the file), ``added`` (a
memory) and ``cached_bytes``, such as a ``sharing.Joined``. What a system does not tell is None, and
the picture says so in its place.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from . import MEANINGS
from .memory import CACHED, MIB, MISSING, OWN, SHARED, _bar, _key, _size, _write

RSS_MARK = {"marker": "|", "ms": 17, "mew": 2.2, "color": "#222222", "ls": ""}
USS_MARK = {"marker": "o", "ms": 7, "mec": "#222222", "mfc": "#FFFFFF", "color": "#222222"}
USS_MARK |= {"ls": "", "mew": 1.4}
SUMS = {
    "sum of RSS": {"marker": "s", "ls": "--", "color": "#222222", "mfc": "#FFFFFF", "ms": 11},
    "sum of PSS": {"marker": "o", "ls": "-", "color": "#222222", "mfc": "#222222", "ms": 8},
    "page cache": {"marker": "D", "ls": ":", "color": "#2E86B0", "mfc": MEANINGS[CACHED].color}
    | {"ms": 4.5},
}


def joining(figure: Figure, joined_by_way: dict) -> Figure:
    """The sums after the first, the second, ... process got the file; one panel a way.

    Parameters
    ----------
    joined_by_way : dict of str to list of joined
    """
    axes = figure.subplots(1, len(joined_by_way), sharey=True, squeeze=False)[0]
    for ax, (way, joined) in zip(axes, joined_by_way.items(), strict=True):
        n = [each.n for each in joined]
        columns = {
            "sum of RSS": [each.added.rss_bytes for each in joined],
            "sum of PSS": [each.added.pss_bytes for each in joined],
            "page cache": [each.cached_bytes for each in joined],
        }
        ax.axhline(joined[0].source_bytes / MIB, color="#999999", lw=0.8)
        for name, column in columns.items():
            if None not in column:
                ax.plot(n, np.array(column) / MIB, label=name, **SUMS[name])
        gone = [name for name, column in columns.items() if None in column]
        if gone:
            words = f"{', '.join(gone)}:\n{MISSING}"
            ax.text(0.05, 0.8, words, transform=ax.transAxes, fontsize=9)
        ax.set(title=way, xlabel="processes that have the file", xticks=n, ylim=(0, None))
    axes[0].set_ylabel("added (MiB)")
    handles = [Line2D([], [], label=name, **look) for name, look in SUMS.items()]
    handles.append(Line2D([], [], color="#999999", lw=0.8, label="size of the file"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=9)
    return figure


def bill(ax: Axes, joined) -> Axes:
    """What ``n`` processes added together: sums of RSS and PSS, page cache, and what is gone.

    The processes are not forks of one another, so that what is anonymous has one owner each and
    is the same in both sums.
    """
    added, cached, source_bytes = joined.added, joined.cached_bytes, joined.source_bytes
    own = added.pss_anonymous_bytes
    rows = {"sum of RSS": (added.rss_bytes, SHARED), "sum of PSS": (added.pss_bytes, SHARED)}
    rows["page cache"] = (cached, CACHED)
    rows["own + page cache"] = (None if None in (own, cached) else own + cached, CACHED)
    for place, (name, (n_bytes, rest)) in enumerate(rows.items()):
        if n_bytes is None:
            _write(ax, place, 0, MISSING)
        elif own is None and name != "page cache":  # of unknown kind: an empty bar
            ax.barh(place, n_bytes / MIB, color="#FFFFFF", edgecolor="#555555", height=0.66)
            _write(ax, place, n_bytes, _size(n_bytes))
        else:
            first = 0 if name == "page cache" else max(own, 0)
            _bar(ax, place, 0, first, OWN)
            _bar(ax, place, first, n_bytes - first, rest)
            _write(ax, place, n_bytes, _size(n_bytes))
    ax.axvline(source_bytes / MIB, color="#222222", lw=1.2, ls=(0, (4, 2)))
    widest = max(source_bytes, *(n_bytes or 0 for n_bytes, _ in rows.values())) / MIB
    ax.set_yticks(range(len(rows)), rows)
    ax.set(xlim=(0, widest * 1.2), ylim=(len(rows) - 0.4, -0.6), xlabel="added (MiB)")
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)
    line = Line2D([], [], color="#222222", lw=1.2, ls=(0, (4, 2)), label="size of the file")
    handles = [_key(OWN, "anonymous: its own"), _key(SHARED, "file pages, mapped")]
    handles += [_key(CACHED, CACHED), line]
    ax.figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8.5)
    return ax


def processes(ax: Axes, labels, memories, unit: str = "added (MiB)") -> Axes:
    """A row a process (or a moment of one): its PSS as a bar, marks where its RSS and USS end."""
    for place, each in enumerate(memories):
        ax.plot(max(each.rss_bytes, 0) / MIB, place, **RSS_MARK, clip_on=False, zorder=3)
        if None in (each.pss_bytes, each.pss_anonymous_bytes):
            _write(ax, place, each.rss_bytes, f"PSS: {MISSING}")
        else:
            own = max(each.pss_anonymous_bytes, 0)
            _bar(ax, place, 0, own, OWN)
            _bar(ax, place, own, each.pss_bytes - own, SHARED)
        if each.uss_bytes is not None:
            at = max(each.uss_bytes, 0) / MIB
            ax.plot(at, place, **USS_MARK, clip_on=False, zorder=4)
    widest = max(1, *(each.rss_bytes / MIB for each in memories))
    ax.set_yticks(range(len(memories)), labels)
    ax.set(xlim=(0, widest * 1.08), ylim=(len(memories) - 0.4, -0.6), xlabel=unit)
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0, pad=9)  # a USS of nothing is a ring over the axis
    handles = [_key(OWN, "PSS: anonymous"), _key(SHARED, "PSS: file pages")]
    handles += [Line2D([], [], **RSS_MARK, label="RSS"), Line2D([], [], **USS_MARK, label="USS")]
    handles[2].set_markersize(11)
    if not ax.figure.legends:
        ax.figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8.5)
    return ax


def families(figure: Figure, lives: dict) -> Figure:
    """Panels side by side: a parent alone, beside its workers, and alone again, each by its PSS.

    Parameters
    ----------
    lives : dict of str to three moments
        A moment has ``memories``, the parent's first, such as a ``sharing.Told``.
    """
    axes = figure.subplots(1, len(lives), sharey=True, squeeze=False)[0]
    for ax, (title, moments) in zip(axes, lives.items(), strict=True):
        workers = ["worker"] * (len(moments[1].memories) - 1)
        names = ["parent alone", "parent", *workers, "parent alone again"]
        memories = [each for moment in moments for each in moment.memories]
        processes(ax, names, memories, "resident (MiB)")
        ax.set_title(title)
    widest = max(ax.get_xlim()[1] for ax in axes)
    for ax in axes:
        ax.set_xlim(0, widest)
    return figure
