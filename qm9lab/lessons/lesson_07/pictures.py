"""Memory, page cache and faults of a full load and of lazy access: the picture of lesson 07."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from qm9lab.course.memory_bars import (
    CACHED,
    MEMORY_KEYS,
    MIB,
    OWN,
    SHARED,
    set_rows,
    stacked_bars,
    write,
)
from qm9lab.course.plots import MISSING, key
from qm9lab.measure import is_missing

FAULTS = {
    "minor": {"facecolor": "#FFFFFF", "edgecolor": "#333333"},
    "major": {"facecolor": "#333333", "edgecolor": "#333333"},
}
"""Two bars for each row: minor faults are hollow, major ones are filled."""


def headline(figure: Figure, groups, title: str = "") -> Figure:
    """Memory, page cache and faults: a row for each process of each group.

    A group is a question in words, how many questions that is, and the ``Costs`` of processes.
    """
    if title:
        figure.suptitle(title, x=0.01, ha="left", weight="bold", fontsize=11.5)
    memory, cache, faults = figure.subplots(1, 3, sharey=True, width_ratios=[3, 1.7, 3])
    places, labels, looks, costs = [], [], [], []
    for question, n_asked, processes in groups:
        labels.append(question)
        for process in processes:
            places.append(len(labels))
            labels.append(process.way)
            looks.append(process.after[n_asked])
            costs.append(process)
    sizes = [each.file_mib for each in costs]
    added = [
        {OWN: look.owned_mib * MIB, SHARED: (look.rss_mib - look.owned_mib) * MIB} for look in looks
    ]
    longest_mib = stacked_bars(memory, places, added, [size * MIB for size in sizes])
    cached = [
        {CACHED: look.cached_pages / each.file_pages * each.file_mib * MIB}
        for look, each in zip(looks, costs, strict=True)
    ]
    stacked_bars(cache, places, cached)
    size_mark = {"ls": "", "marker": "|", "mew": 2, "color": "#222222"}
    memory.plot(sizes, places, ms=15, **size_mark)
    for name, offset in (("minor", -0.2), ("major", 0.2)):
        fault_bars(faults, places, [getattr(look, name) for look in looks], name, offset)
    for ax in (memory, cache, faults):
        set_rows(ax, labels)
    for tick in memory.get_yticklabels():
        if tick.get_text() in {question for question, _, _ in groups}:
            tick.set(weight="bold", color="#000000")
    widest = max([*sizes, longest_mib, 1])
    memory.set(xlim=(0, widest * 1.3), xlabel="resident memory added (MiB)")
    cache.set(xlim=(0, widest * 1.75), xlabel="page cache (MiB)")
    faults.set(xscale="symlog", xlim=(0, 3e6), xlabel="page faults (logarithmic)")
    faults.set_xticks([0, 1, 100, 10_000], ["0", "1", "100", "10,000"])
    faults.minorticks_off()
    handles = [*MEMORY_KEYS, Line2D([], [], ms=11, label="size of the file", **size_mark)]
    handles += [key(CACHED, "file pages, cached")]
    handles += [Patch(**FAULTS[name], label=f"{name} faults") for name in FAULTS]
    figure.legend(handles=handles, loc="outside lower center", ncols=6, fontsize=8.5,
                  columnspacing=1.2, handletextpad=0.5)  # fmt: skip
    return figure


def fault_bars(ax: Axes, places, counts, name: str, offset: float) -> None:
    """A thin bar for each row, with its number."""
    for place, count in zip(places, counts, strict=True):
        width, words = (0, MISSING) if is_missing(count) else (count, f"{count:,}")
        ax.barh(place + offset, width, height=0.3, lw=0.8, **FAULTS[name])
        write(ax, place + offset, width, words)


def question_by_question(figure: Figure, runs, n_asked: int) -> tuple[Figure, str]:
    """The costs of the lesson's four programs after some questions, and the cache in words."""
    headline(figure, [(f"after question {n_asked:,}", n_asked, runs.values())])
    plain, advised = (runs[way].cached_share(n_asked) for way in ("map", "map, MADV_RANDOM"))
    words = f"question {n_asked:,}: part of the file in the page cache"
    return figure, f"{words}, map: {plain:.1%}, map with MADV_RANDOM: {advised:.1%}"
