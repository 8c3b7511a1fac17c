"""Lesson 07: its file, what it asks of Linux alone, its second sources, and its picture."""

import mmap
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from qm9lab import measure, processes, records
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
from qm9lab.course.plots import MISSING, key, new_figure

FAULTS = {
    "minor faults": {"facecolor": "#FFFFFF", "edgecolor": "#333333"},
    "major faults": {"facecolor": "#333333", "edgecolor": "#333333"},
}
"""Two bars for each row: minor faults are hollow, major ones are filled."""


def write_records(path, record_file: Path) -> tuple[Any, int]:
    """A file with a record of 1,024 bytes for each molecule; returns its path and its bytes.

    A record is the energy as ``<d``, the SMILES, and zeros.
    """
    with open(path, "wb") as f:
        for _, smiles, energy in records.walk(record_file.read_bytes()):
            f.write(struct.pack("<d1016s", energy, smiles.encode()))
        return path, f.tell()


def read_and_look(path):
    """What ``read()`` adds to owned memory, by psutil and by the kernel's smaps; RSS at its end.

    In MiB. ``look`` and ``get`` are the lesson's.
    """
    smaps, _, before = measure.footprint(), look(), look()  # noqa: F821
    data = get(path, "read()")  # noqa: F821
    after, added = look(), measure.footprint().since(smaps)  # noqa: F821
    del data
    return after[2] - before[2], added.pss_anonymous_bytes / 2**20, after[1]


def second_sources(path, uses: Sequence) -> str:
    """The lesson's two numbers of memory next to what other sources say, in words."""
    outcome = processes.run(read_and_look, path, uses=uses)
    owned, by_smaps, highest = outcome.value
    return (
        f"read() owns {owned:.0f} MiB by psutil, {by_smaps:.0f} MiB by smaps_rollup. Its RSS: "
        f"{highest:.0f} MiB by psutil, at most {outcome.peak_rss_bytes / MIB:.0f} MiB by ru_maxrss"
    )


def headline(figure: Figure, groups, title: str = "", page_bytes: int = mmap.PAGESIZE) -> Figure:
    """Memory, page cache and faults: a row for each process of each group.

    ``groups`` are question -> way -> what that process added: the lesson's names -> numbers.
    """
    if title:
        figure.suptitle(title, x=0.01, ha="left", weight="bold", fontsize=11.5)
    memory, cache, faults = figure.subplots(1, 3, sharey=True, width_ratios=[3, 1.7, 3])
    places, labels, costs = [], [], []
    for question, ways in groups.items():
        labels.append(question)
        for way, cost in ways.items():
            places.append(len(labels))
            labels.append(way)
            costs.append(cost)
    sizes = [cost["bytes"] for cost in costs]
    owned = [cost["owned (MiB)"] * MIB for cost in costs]
    rss = [cost["RSS (MiB)"] * MIB for cost in costs]
    added = [{OWN: own, SHARED: both - own} for own, both in zip(owned, rss, strict=True)]
    longest_mib = stacked_bars(memory, places, added, sizes)
    stacked_bars(cache, places, [{CACHED: cost["cached pages"] * page_bytes} for cost in costs])
    size_mark = {"ls": "", "marker": "|", "mew": 2, "color": "#222222"}
    memory.plot([size / MIB for size in sizes], places, ms=15, **size_mark)
    for name, offset in zip(FAULTS, (-0.2, 0.2), strict=True):
        fault_bars(faults, places, [cost[name] for cost in costs], name, offset)
    for ax in (memory, cache, faults):
        set_rows(ax, labels)
    for tick in memory.get_yticklabels():
        if tick.get_text() in groups:
            tick.set(weight="bold", color="#000000")
    widest = max([*sizes, longest_mib * MIB, MIB]) / MIB
    memory.set(xlim=(0, widest * 1.3), xlabel="resident memory added (MiB)")
    cache.set(xlim=(0, widest * 1.75), xlabel="page cache (MiB)")
    faults.set(xscale="symlog", xlim=(0, 3e6), xlabel="page faults (logarithmic)")
    faults.set_xticks([0, 1, 100, 10_000], ["0", "1", "100", "10,000"])
    faults.minorticks_off()
    handles = [*MEMORY_KEYS, Line2D([], [], ms=11, label="size of the file", **size_mark)]
    handles += [key(CACHED, "file pages, cached")]
    handles += [Patch(**colours, label=name) for name, colours in FAULTS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=6, fontsize=8.5,
                  columnspacing=1.2, handletextpad=0.5)  # fmt: skip
    return figure


def fault_bars(ax: Axes, places, counts, name: str, offset: float) -> None:
    """A thin bar for each row, with its number."""
    for place, count in zip(places, counts, strict=True):
        missing = measure.is_missing(count)
        width, words = (0, MISSING) if missing else (count, f"{count:,}")
        ax.barh(place + offset, width, height=0.3, lw=0.8, **FAULTS[name])
        write(ax, place + offset, width, words)


def one_run(way: str, n_asked: int, cost: dict) -> tuple[Figure, str]:
    """The costs of one program after some questions, and the page cache in words."""
    questions = "1 question" if n_asked == 1 else f"{n_asked:,} questions"
    figure = headline(new_figure(9.4, 2.2), {questions: {way: cost}})
    share = cost["cached pages"] / -(-cost["bytes"] // mmap.PAGESIZE)
    return figure, f"{way}, {questions}: part of the file in the page cache: {share:.1%}"
