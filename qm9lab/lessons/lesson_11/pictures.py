"""Losses and memory of a training, and the pages that its batches touch (lesson 11).

A *log* has ``n_molecules``, ``losses``, ``seen``, ``owned_bytes`` and ``data_bytes``, such as a
``training.Log``. What a system does not offer is None, and the picture says so in its place.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from qm9lab.course.memory_bars import MIB, MISSING, OWN, SHARED, area, key, memory_story
from qm9lab.course.plots import MEANINGS

SMOOTH = 15
"""The bold line of losses is their mean over as many batches."""
LOOKS = (("-", "."), ("--", "x"), (":", "+"))
"""Dash and marker of the parent's line of file pages, then of the workers'."""
PAGE_PT = 0.3
"""How thick a page is drawn, in points; 72 are an inch."""
LABEL_IN = 0.15
"""Bands that are less high have no room for a label."""


def curves(figure: Figure, log, others=(), title: str = "") -> Figure:
    """Loss and memory against molecules seen, side by side.

    Parameters
    ----------
    log : the training that is shown; None while there is none
    others : sequence of log
        Trainings to compare its losses with, drawn grey below them.
    """
    if title:
        figure.suptitle(title, x=0.01, ha="left", weight="bold", fontsize=11.5)
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.15])
    losses(left, log, others)
    memory(right, log)
    for ax in (left, right):
        ax.set_xlabel("molecules seen (dotted: an epoch ends)")
        if ax.has_data():
            ax.xaxis.set_major_formatter("{x:,.0f}")
        else:
            ax.set(xticks=[], yticks=[])
        if log is not None and log.losses:
            for end in range(log.n_molecules, log.seen[-1], log.n_molecules):
                ax.axvline(end, color="#555555", ls=":", lw=1)
            ax.set_xlim(-0.01 * log.seen[-1], 1.01 * log.seen[-1])
    return figure


def losses(ax: Axes, log, others=()) -> Axes:
    """One point a batch and their running mean; other trainings' running means in grey."""
    for other in others:
        ax.plot(*_smooth(other), color="#BBBBBB", lw=5, solid_capstyle="round")
    if log is not None and log.losses:
        ax.plot(_seen(log), log.losses, ls="", marker=".", ms=3, color="#888888")
        ax.plot(*_smooth(log), color="#222222", lw=1.6)
    elif not others:
        ax.text(0.5, 0.5, "not run yet", ha="center", transform=ax.transAxes)
    ax.set(ylabel="loss (1: as good as the mean)", xlim=(0, None))
    handles = []
    if log is not None:
        label = f"mean of the last {SMOOTH} (or all)"
        handles.append(Line2D([], [], ls="", marker=".", color="#888888", label="a batch"))
        handles.append(Line2D([], [], color="#222222", lw=1.6, label=label))
    if others:
        handles.append(Line2D([], [], color="#BBBBBB", lw=5, label="other runs"))
    if handles:
        look = {"frameon": True, "facecolor": "#FFFFFF", "edgecolor": "none", "framealpha": 0.9}
        ax.legend(handles=handles, loc="best", fontsize=8.5, **look)
    return ax


def memory(ax: Axes, log) -> Axes:
    """What all processes own, each page once, as an area; what each one maps, a line a process.

    A step at each look, so that nothing is drawn where nobody looked.
    """
    ax.set(ylabel="memory added (MiB)")
    if log is None:
        ax.text(0.5, 0.5, "not run yet", ha="center", transform=ax.transAxes)
        return ax
    own = np.array([np.nan if n is None else n / MIB for n in log.owned_bytes])
    n_most = max(map(len, log.data_bytes))
    held = np.full((len(log.seen), n_most), np.nan)
    for row, looked in zip(held, log.data_bytes, strict=True):
        row[: len(looked)] = [np.nan if n is None else n / MIB for n in looked]
    if np.isnan(own).all() and np.isnan(held).all():
        ax.text(0.5, 0.5, MISSING, ha="center", transform=ax.transAxes)
        return ax
    own, held = np.maximum(own, 0), np.maximum(held, 0)
    until_next, steps = np.repeat(log.seen, 2)[1:], np.repeat(own, 2)[:-1]
    area(ax, until_next, 0 * steps, steps, OWN)
    names = ["parent", *(f"worker {k}" for k in range(1, n_most))]
    handles = [key(OWN, "owned, all together")]
    blue = MEANINGS[SHARED].color
    for column, name, (dash, mark) in zip(held.T, names, LOOKS, strict=False):
        look = {"color": blue, "ls": dash, "marker": mark, "ms": 4, "lw": 1.5}
        ax.plot(log.seen, column, drawstyle="steps-post", clip_on=False, **look)
        handles.append(Line2D([], [], label=f"the file, mapped: {name}", **look))
    top = np.nanmax([1, *own[~np.isnan(own)], *held[~np.isnan(held)]])
    ax.set(ylim=(0, 1.1 * top), xlim=(0, None))
    ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8.5)
    return ax


def families(ax: Axes, by_way: dict) -> Axes:
    """What each process has resident: anonymous memory beyond the baseline, the file's pages.

    Parameters
    ----------
    by_way : dict of str to an object with ``before`` and ``members``, such as a
        ``training.Family``: each has ``anonymous_bytes`` and ``data_bytes``, None if unknown.
    """
    steps, added = [], []
    for way, family in by_way.items():
        for k, member in enumerate(family.members):
            steps.append(f"{way}: " + (f"worker {k}" if k else "parent"))
            pair = member.anonymous_bytes, member.data_bytes
            if None not in pair:
                pair = pair[0] - family.before.anonymous_bytes, pair[1]
            added.append(pair)
    memory_story(ax, steps, added)
    ax.set_xlabel("resident beyond the baseline (MiB), of each process by itself")
    words = "anonymous (of workers: mostly shared with the parent)"
    handles = [key(OWN, words), key(SHARED, "pages of the data file, mapped")]
    ax.legend(handles=handles, loc="upper center", ncols=2, bbox_to_anchor=(0.5, -0.18))
    return ax


def touched(figure: Figure, batches_by_order: dict, bands: dict) -> Figure:
    """Which pages of a file each batch touches; a column for each order of the molecules.

    The upper row has the whole file, the lower one the longest run of neighbouring pages that the
    first order touches.

    Parameters
    ----------
    batches_by_order : dict of str to sequence of set of int
        Order -> for each batch, the numbers of its pages.
    bands : dict of str to (int, int)
        Section -> its first page, and the page behind its last; in order.
    """
    low, high = longest_run(set().union(*next(iter(batches_by_order.values()))))
    n_pages = max(end for _, end in bands.values())
    shape = {"squeeze": False, "sharey": "row", "sharex": True, "height_ratios": [3, 2]}
    whole, part = figure.subplots(2, len(batches_by_order), **shape)
    for above, below, (order, batches) in zip(whole, part, batches_by_order.items(), strict=True):
        for ax, width in ((above, PAGE_PT), (below, 1.2)):
            _pages(ax, batches, width)
            ax.set(xlim=(-1, len(batches)))
        n_all = len(set().union(*batches))
        above.set_title(f"{order}:\n{n_all:,} pages of {n_pages:,}", fontsize=10)
        above.set_ylim(n_pages, 0)
        _shade(above, batches, bands)
        below.set(xlabel="batch", ylim=(high + 0.5, low - 0.5))
    height_in = figure.get_figheight() * 0.5  # of a picture of the upper row, nearly
    _name_bands(whole[0], bands, n_pages, height_in)
    times = PAGE_PT / (72 * height_in / n_pages)
    whole[0].set_ylabel(
        f"whole file, section by section\n(pages drawn {times:.0f} times too thick)"
    )
    holder = next(name for name, (start, end) in bands.items() if start <= low < end)
    part[0].set_ylabel(f"page of the file,\npart of {holder}")
    part[0].yaxis.set_major_formatter("{x:,.0f}")
    return figure


def _pages(ax: Axes, batches, width: float) -> None:
    """A stroke for each page of each batch."""
    for at, pages in enumerate(batches):
        y = sorted(pages)
        look = {"lw": width, "color": MEANINGS[SHARED].color, "snap": False}
        ax.hlines(y, at - 0.4, at + 0.4, **look)
    ax.grid(visible=False)


def _shade(ax: Axes, batches, bands: dict) -> None:
    """Lines between the sections; those that no batch touches in grey."""
    every = set().union(*batches)
    for start, end in bands.values():
        ax.axhline(start, color="#999999", lw=0.5, zorder=0.5)
        if every.isdisjoint(range(start, end)):
            ax.axhspan(start, end, color="#EEEEEE", lw=0, zorder=0)
    ax.tick_params(axis="y", length=0)


def _name_bands(ax: Axes, bands: dict, n_pages: int, height_in: float) -> None:
    """Their names as ticks, where they are high enough."""
    high = {n: s for n, s in bands.items() if (s[1] - s[0]) / n_pages * height_in > LABEL_IN}
    ax.set_yticks([sum(s) / 2 for s in high.values()], list(high), fontsize=8)


def longest_run(pages) -> tuple[int, int]:
    """First and last page of the longest run of neighbours among ``pages``."""
    best = start = before = min(pages)
    length = 0
    for page in sorted(pages):
        start = start if page <= before + 1 else page
        if page - start > length:
            best, length = start, page - start
        before = page
    return best, best + length


def _seen(log) -> np.ndarray:
    """Molecules seen after each loss."""
    return np.array(log.seen[len(log.seen) - len(log.losses) :])


def _smooth(log) -> tuple[np.ndarray, np.ndarray]:
    """Molecules seen, and the mean of the last ``SMOOTH`` losses (of those there were by then)."""
    sums = np.cumsum([0.0, *log.losses])
    end = np.arange(1, len(sums))
    start = np.maximum(end - SMOOTH, 0)
    return _seen(log), (sums[end] - sums[start]) / (end - start)
