"""Memory, page cache and faults of a full load and of lazy access: the pictures of lesson 07.

They draw objects with the attributes ``way``, ``pattern``, ``source_bytes`` (the size of the file),
``anonymous_bytes``, ``file_bytes``, ``cached_bytes``, ``minor`` and ``major``, such as a
``compare.Measurement``. In place of a ``Missing`` they write that it is not available.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from qm9lab.course.memory_bars import CACHED, MEMORY_KEYS, MIB, OWN, SHARED, set_rows, stacked_bars
from qm9lab.course.plots import MEANINGS, draw_missing, key
from qm9lab.measure import first_missing, is_missing

DARK = "#333333"
FAULTS = {
    "minor": {"marker": "o", "ms": 9, "mfc": "none", "mec": DARK, "ls": ""},
    "major": {"marker": "D", "ms": 5, "mfc": DARK, "mec": DARK, "ls": ""},
}
"""Minor faults are a ring, major ones a diamond, which stays visible inside the ring."""


def headline(figure: Figure, runs, title: str = "") -> Figure:
    """One row a run, by pattern: memory added, page cache added, faults.

    The runs have one temperature, and those of one pattern come together.
    """
    if title:
        figure.suptitle(title, x=0.01, ha="left", weight="bold", fontsize=11.5)
    memory, cache, faults = figure.subplots(1, 3, sharey=True, width_ratios=[3.2, 1.7, 1.9])
    places, labels = [], []
    for run in runs:
        if run.pattern not in labels:
            labels.append(run.pattern)
        places.append(len(labels))
        labels.append(run.way)
    added = [{OWN: run.anonymous_bytes, SHARED: run.file_bytes} for run in runs]
    longest_mib = stacked_bars(memory, places, added, [run.source_bytes for run in runs])
    stacked_bars(cache, places, [{CACHED: run.cached_bytes} for run in runs])
    # The size of the file that was asked, as a tick of each row's own.
    sizes = [run.source_bytes / MIB for run in runs]
    size_mark = {"ls": "", "marker": "|", "mew": 2, "color": "#222222"}
    memory.plot(sizes, places, ms=15, **size_mark)
    for place, run in zip(places, runs, strict=True):
        for name, style in FAULTS.items():
            if not is_missing(getattr(run, name)):
                faults.plot(getattr(run, name), place, **style, clip_on=False, zorder=3)
    for ax in (memory, cache, faults):
        set_rows(ax, labels)
    for tick in memory.get_yticklabels():
        if tick.get_text() in {run.pattern for run in runs}:
            tick.set(weight="bold", color="#000000")
    widest = max([*sizes, longest_mib, 1])
    memory.set(xlim=(0, widest * 1.3), xlabel="resident memory added (MiB)")
    cache.set(xlim=(0, widest * 1.75), xlabel="page cache added (MiB)")
    _fault_axis(faults, runs)
    handles = [*MEMORY_KEYS, Line2D([], [], ms=11, label="size of file", **size_mark)]
    handles += [key(CACHED, CACHED)]
    handles += [Line2D([], [], label=f"{name} faults", **FAULTS[name]) for name in FAULTS]
    figure.legend(handles=handles, loc="outside lower center", ncols=6, fontsize=8.5,
                  columnspacing=1.2, handletextpad=0.5)  # fmt: skip
    return figure


def _fault_axis(ax: Axes, runs) -> None:
    counts = [getattr(run, name) for run in runs for name in FAULTS]
    most = max([10, *(count for count in counts if not is_missing(count))])
    ax.set_xscale("symlog", linthresh=1)
    decades = [0, *(10**k for k in range(int(np.ceil(np.log10(most))) + 1))]
    ax.set(xlim=(-0.15, decades[-1] * 1.5), xlabel="page faults (log)")
    words = {0: "0", 1: "1", 100: "100", 10_000: "10k", 1_000_000: "1,000k"}
    ax.set_xticks(decades, [words.get(decade, "") for decade in decades])
    ax.minorticks_off()


def timelines(figure: Figure, by_way) -> Figure:
    """Memory over time, and below it the faults so far, one column a way, on shared axes.

    ``by_way`` has the timeline of each way. Drawn is what was added since its first sample. The
    ways take very different times: the axis is the part of each one's time, and its title has the
    seconds.
    """
    missing = first_missing(*by_way.values())
    if missing:  # a child ran out of time
        draw_missing(figure.subplots(), missing)
        return figure
    shape = {"squeeze": False, "sharey": "row", "sharex": True, "height_ratios": [3, 2]}
    axes = figure.subplots(2, len(by_way), **shape)
    dashes = {"minor": "-", "major": (0, (2, 1.2))}
    for (way, line), memory, faults in zip(by_way.items(), *axes, strict=True):
        elapsed_s = max(line.t_s[-1] - line.t_s[0], 1e-6)
        share = 100 * (line.t_s - line.t_s[0]) / elapsed_s
        memory.set_title(f"{way}: {elapsed_s:.2g} s")
        missing = first_missing(line.anonymous_bytes, line.file_bytes)
        if missing:
            draw_missing(memory, missing)
        else:
            columns = line.anonymous_bytes, line.file_bytes
            own, shared = (np.maximum(column - column[0], 0) / MIB for column in columns)
            memory.fill_between(share, own, **MEANINGS[OWN].face)
            memory.fill_between(share, own, own + shared, **MEANINGS[SHARED].face)
        for name, dash in dashes.items():
            column = getattr(line, name)
            if not is_missing(column):
                faults.plot(share, column - column[0], color=DARK, ls=dash, lw=1.8)
        faults.set_yscale("symlog", linthresh=10)
        faults.set(xlabel="part of its time (%)", xlim=(0, 100), ylim=(0, None))
        memory.set_ylim(0, None)
    axes[0][0].set_ylabel("memory added (MiB)")
    axes[1][0].set_ylabel("faults so far")
    lines = [
        Line2D([], [], color=DARK, lw=1.8, ls=dash, label=f"{name} faults")
        for name, dash in dashes.items()
    ]
    figure.legend(handles=[*MEMORY_KEYS, *lines], loc="outside lower center", ncols=4, fontsize=9)
    return figure
