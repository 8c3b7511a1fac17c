"""Memory, page cache and faults of a full load beside lazy access: the pictures of lesson 07.

A *run* is what one process added between its baseline and its answer: an object with the attributes
``way``, ``pattern``, ``source_bytes`` (the size of the file), ``anonymous_bytes``, ``file_bytes``,
``cached_bytes``, ``minor`` and ``major``, such as a ``compare.Run``. A value that a system does not
offer is None, and the picture says so in its place.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from qm9lab.course.memory_bars import (
    CACHED,
    MIB,
    MISSING,
    OWN,
    SHARED,
    area,
    bar,
    key,
    size_of,
    stacked_bars,
    write,
)
from qm9lab.course.plots import MEANINGS

FAULTS = {
    "minor": Line2D(
        [], [], ls="", marker="o", ms=9, mfc="none", mec="#333333", label="minor faults"
    ),
    "major": Line2D([], [], ls="", marker="D", ms=5, color="#333333", label="major faults"),
}


def headline(figure: Figure, runs, title: str = "") -> Figure:
    """One row a run, by pattern: memory added, page cache added, faults.

    Parameters
    ----------
    runs : sequence of run
        Of one temperature, those of one pattern together.
    """
    if title:
        figure.suptitle(title, x=0.01, ha="left", weight="bold", fontsize=11.5)
    memory, cache, faults = figure.subplots(1, 3, sharey=True, width_ratios=[3.2, 1.7, 1.9])
    places, labels = [], {}
    for run in runs:
        if run.pattern not in labels.values():
            labels[len(labels)] = run.pattern
        labels[len(labels)] = run.way
        places.append(len(labels) - 1)
    added = [(run.anonymous_bytes, run.file_bytes) for run in runs]
    stacked_bars(memory, places, added, [run.source_bytes for run in runs])
    # The size of the file that was asked, as a tick of each row's own.
    sizes = [run.source_bytes / MIB for run in runs]
    memory.plot(sizes, places, ls="", marker="|", ms=15, mew=2, color="#222222")
    in_cache = [run.cached_bytes for run in runs]
    for place, n_bytes in zip(places, in_cache, strict=True):
        bar(cache, place, 0, n_bytes, CACHED)
        write(cache, place, n_bytes, size_of(n_bytes))
    for place, run in zip(places, runs, strict=True):
        _fault_marks(faults, place, run.minor, run.major)
    memory.set_yticks(list(labels), list(labels.values()))
    for tick, label in zip(memory.get_yticklabels(), labels.values(), strict=True):
        if label in {run.pattern for run in runs}:
            tick.set(weight="bold", color="#000000")
    memory.set_ylim(len(labels) - 0.4, -0.6)
    widest = max([*sizes, *(sum(filter(None, pair)) / MIB for pair in added), 1])
    for ax, words, room in (
        (memory, "resident memory added (MiB)", 1.3),
        (cache, "page cache added (MiB)", 1.75),
    ):
        ax.set(xlim=(0, widest * room), xlabel=words)
    _fault_axis(faults, runs)
    for ax in (memory, cache, faults):
        ax.grid(axis="y", visible=False)
        ax.tick_params(axis="y", length=0)
    size = Line2D([], [], ls="", marker="|", ms=11, mew=2, color="#222222", label="size of file")
    handles = [key(OWN, "anonymous: its own"), key(SHARED, "file pages, mapped")]
    handles += [size, key(CACHED, CACHED), *FAULTS.values()]
    figure.legend(handles=handles, loc="outside lower center", ncols=6, fontsize=8.5,
                  columnspacing=1.2, handletextpad=0.5)  # fmt: skip
    return figure


def timelines(figure: Figure, by_way) -> Figure:
    """Memory over time, and below it the faults so far, one column a way, on shared axes.

    The ways take very different times: the axis is the part of each one's time, and its title says
    how long that was.

    Parameters
    ----------
    by_way : dict of str to Timeline
        Way -> ``t_s``, ``anonymous_bytes``, ``file_bytes``, ``minor``, ``major`` as
        ``measure.Sampler`` records them; drawn as what was added since the first sample.
    """
    shape = {"squeeze": False, "sharey": "row", "sharex": True, "height_ratios": [3, 2]}
    axes = figure.subplots(2, len(by_way), **shape)
    for (way, line), memory, faults in zip(by_way.items(), *axes, strict=True):
        elapsed_s = max(line.t_s[-1] - line.t_s[0], 1e-6)
        share = 100 * (line.t_s - line.t_s[0]) / elapsed_s
        memory.set_title(f"{way}: {elapsed_s:.2g} s")
        columns = (line.anonymous_bytes, line.file_bytes)
        if None in [None if column is None else 1 for column in columns]:
            memory.text(0.5, 0.5, MISSING, ha="center", transform=memory.transAxes)
        else:
            own, shared = (np.maximum(column - column[0], 0) / MIB for column in columns)
            area(memory, share, 0 * own, own, OWN)
            area(memory, share, own, own + shared, SHARED)
        for name, column in (("minor", line.minor), ("major", line.major)):
            if column is not None:
                dash = "-" if name == "minor" else (0, (2, 1.2))
                faults.plot(share, column - column[0], color="#333333", ls=dash, lw=1.8)
        faults.set_yscale("symlog", linthresh=10)
        faults.set(xlabel="part of its time (%)", xlim=(0, 100), ylim=(0, None))
        memory.set_ylim(0, None)
    axes[0][0].set_ylabel("memory added (MiB)")
    axes[1][0].set_ylabel("faults so far")
    handles = [key(OWN, "anonymous: its own"), key(SHARED, "file pages, mapped")]
    handles += [
        Line2D([], [], color="#333333", lw=1.8, label="minor faults"),
        Line2D([], [], color="#333333", lw=1.8, ls=(0, (2, 1.2)), label="major faults"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=9)
    return figure


LINES = {
    "full load (PyG)": (OWN, "s", "-"),
    "read()": (OWN, "o", "--"),
    "map": (OWN, "D", "-"),
}


def growth(ax: Axes, runs) -> Axes:
    """Anonymous memory against the size of the file, a line a way; the map's file pages dotted.

    ``runs`` need not be in order. All are of the same question.
    """
    widest = max(run.source_bytes for run in runs) / MIB
    for way, (meaning, marker, dash) in LINES.items():
        ours = sorted((r for r in runs if r.way == way), key=lambda r: r.source_bytes)
        size = [r.source_bytes / MIB for r in ours]
        if any(r.anonymous_bytes is None for r in ours):
            ax.text(0.5, 0.5, MISSING, ha="center", transform=ax.transAxes)
            break
        own = [max(r.anonymous_bytes, 0) / MIB for r in ours]
        color = "#A06A00" if meaning == OWN else MEANINGS[meaning].color
        label = f"{way}: anonymous"
        ax.plot(size, own, marker=marker, ls=dash, color=color, mfc="#F0B43C", ms=8, label=label)
        for x, y in list(zip(size, own, strict=True)) if way == "full load (PyG)" else []:
            words = f"k = {x / size[0]:.2g}"
            ax.annotate(words, (x, y), (-8, 6), textcoords="offset points", ha="right", fontsize=9)
        if way == "map":
            shared = [max(r.file_bytes, 0) / MIB for r in ours]
            blue = MEANINGS[SHARED].color
            ax.plot(size, shared, marker="x", ls=":", color=blue, ms=8, label="map: file pages")
    ax.set(xlim=(0, widest * 1.04), ylim=(-widest * 0.03, None))
    ax.set(xlabel="size of the file (MiB)", ylabel="memory added (MiB)")
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return ax


def _fault_marks(ax: Axes, place: float, minor, major) -> None:
    """Minor and major faults of one row: a ring and a diamond, which stays visible inside it."""
    for name, count, size in (("minor", minor, 9), ("major", major, 5)):
        if count is not None:
            look = FAULTS[name]
            how = {"marker": look.get_marker(), "mfc": look.get_markerfacecolor(), "ms": size}
            ax.plot(count, place, **how, mec="#333333", ls="", clip_on=False, zorder=3)


def _fault_axis(ax: Axes, runs) -> None:
    most = max([10, *(getattr(run, name) or 0 for run in runs for name in FAULTS)])
    ax.set_xscale("symlog", linthresh=1)
    decades = [0, *(10**k for k in range(0, int(np.ceil(np.log10(most))) + 1))]
    ax.set(xlim=(-0.15, max(decades[-1], most) * 1.5), xlabel="page faults (log)")
    ax.set_xticks(decades, [_short(d) if k in (0, 1, 3, 5) else "" for k, d in enumerate(decades)])
    ax.minorticks_off()


def _short(count: int) -> str:
    return f"{count // 1000:,}k" if count >= 1000 else f"{count}"
