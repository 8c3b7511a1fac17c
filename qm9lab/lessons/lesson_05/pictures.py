"""Who sees a change: two maps of one page, P and S, played on a real file and drawn."""

import mmap
import os

from matplotlib.figure import Figure

from qm9lab import measure
from qm9lab.course import folders, plots
from qm9lab.course.plots import MEANINGS, blank, cell, say

ACCESS = ("ACCESS_WRITE", "ACCESS_COPY")
STEPS = ("both maps made", "written", "flushed", "closed")
ACTS = ("P writes 'p'", "P is flushed", "P is closed")
CLOSED = plots.Style("#FFFFFF", "", "#888888")


def play(f, acts, p_access: int = mmap.ACCESS_COPY) -> dict[str, str]:
    """What P, S and read() see of the first byte of ``f`` after the ``acts``, on this kernel.

    S is a shared map. An act is such as ``P writes 'p'``, ``P is flushed``, ``P is closed`` or
    ``P is mapped again``.
    """
    access = {"P": p_access, "S": mmap.ACCESS_WRITE}
    maps = {who: mmap.mmap(f.fileno(), 0, access=access[who]) for who in access}
    for act in acts:
        who = act[0]
        if "writes" in act:
            maps[who][0:1] = act[-2].encode()
        elif "flushed" in act:
            maps[who].flush()
        else:
            maps[who].close()
        if "again" in act:
            maps[who] = mmap.mmap(f.fileno(), 0, access=access[who])
    seen = {who: "closed" if mm.closed else mm[0:1].decode() for who, mm in maps.items()}
    f.seek(0)
    seen["read()"] = f.read(1).decode()
    for mm in maps.values():
        mm.close()
    return seen


def who_sees(access: str, step: str) -> tuple[Figure, str]:
    """Play the story up to ``step``, on one page that is on the disk, and draw who reads what."""
    n_acts = STEPS.index(step)
    with open(folders.lesson_folder() / "story.dat", "w+b", buffering=0) as f:
        f.write(b"o" * mmap.PAGESIZE)
        os.fsync(f.fileno())
        seen = play(f, ACTS[:n_acts], getattr(mmap, access))
        n_dirty = measure.cache_state(f).n_dirty
    disk = "older bytes:\na dirty page waits" if n_dirty else f"{seen['read()']}, as read()"
    if measure.is_missing(n_dirty):
        disk = plots.MISSING
    copied = access == "ACCESS_COPY" and n_acts
    mine = MEANINGS["private (anonymous)" if copied else "mapped in this process"]
    boxes = [
        (f"P, {access}", seen["P"], CLOSED if seen["P"] == "closed" else mine),
        ("S, another map", seen["S"], MEANINGS["mapped in this process"]),
        ("read()", seen["read()"], MEANINGS["in the page cache"]),
    ]
    figure = plots.new_figure(8, 2.2)
    ax = blank(figure.subplots(), 12, 3.5)
    for k, (name, answer, style) in enumerate([*boxes, ("on the disk", "", MEANINGS["on disk"])]):
        say(ax, 1.5 + 3 * k, 0.55, name, ha="center", fontsize=10)
        cell(ax, 0.2 + 3 * k, 1.0, 2.6, 1.5, style, answer, fontsize=14, weight="bold")
    say(ax, 10.5, 1.75, disk, ha="center", fontsize=10)
    plots.meaning_legend(ax, loc="lower center", bbox_to_anchor=(0.5, -0.05), fontsize=8.5)
    return figure, f"{access}, {step}. " + ", ".join(f"{who}: {seen[who]}" for who in seen)
