"""Losses and memory of a training, and the pages that its batches touch (lesson 11).

A *log* has ``batch_size``, ``losses``, ``t_s``, ``owned_bytes`` and ``file_bytes``, such as a
``training.Log``. What a system does not offer is None, and the picture says so in its place.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from . import MEANINGS
from .memory import MIB, MISSING, OWN, SHARED, _area, _key, memory_story

SMOOTH = 15
"""The bold line of losses is their mean over as many batches."""
DASHES = ("-", "--", ":")
"""The parent's line of file pages, then the workers'."""


def curves(figure: Figure, log, others=(), title: str = "") -> Figure:
    """Loss against molecules seen, and memory against time.

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
    return figure


def losses(ax: Axes, log, others=()) -> Axes:
    """One point a batch and their running mean; other trainings' running means in grey."""
    for other in others:
        ax.plot(*_smooth(other), color="#BBBBBB", lw=5, solid_capstyle="round")
    if log is not None and log.losses:
        seen = (1 + np.arange(len(log.losses))) * log.batch_size
        ax.plot(seen, log.losses, ls="", marker=".", ms=3, color="#888888")
        ax.plot(*_smooth(log), color="#222222", lw=1.6)
    elif not others:
        ax.text(0.5, 0.5, "not run yet", ha="center", transform=ax.transAxes)
    ax.set(xlabel="molecules seen", ylabel="loss (1: as good as the mean)", xlim=(0, None))
    handles = []
    if log is not None:
        label = f"mean of {SMOOTH} batches"
        handles.append(Line2D([], [], color="#222222", lw=1.6, label=label))
    if others:
        handles.append(Line2D([], [], color="#BBBBBB", lw=5, label="other runs"))
    if handles:
        ax.legend(handles=handles, loc="upper right", fontsize=8.5)
    return ax


def memory(ax: Axes, log) -> Axes:
    """What all processes own, each page once, as an area; what each one maps, a line a process."""
    ax.set(xlabel="time (s)", ylabel="memory added (MiB)")
    if log is None:
        ax.text(0.5, 0.5, "not run yet", ha="center", transform=ax.transAxes)
        return ax
    own = np.array([np.nan if n is None else n / MIB for n in log.owned_bytes])
    n_most = max(map(len, log.file_bytes))
    held = np.full((len(log.t_s), n_most), np.nan)
    for row, looked in zip(held, log.file_bytes, strict=True):
        row[: len(looked)] = [np.nan if n is None else n / MIB for n in looked]
    if np.isnan(own).all() and np.isnan(held).all():
        ax.text(0.5, 0.5, MISSING, ha="center", transform=ax.transAxes)
        return ax
    own, held = np.maximum(own, 0), np.maximum(held, 0)
    _area(ax, log.t_s, 0 * own, own, OWN)
    names = ["parent", *(f"worker {k}" for k in range(1, n_most))]
    handles = [_key(OWN, "owned, all together")]
    blue = MEANINGS[SHARED].color
    for column, name, dash in zip(held.T, names, DASHES, strict=False):
        ax.plot(log.t_s, column, color=blue, ls=dash, lw=2)
        handles.append(Line2D([], [], color=blue, ls=dash, lw=2, label=f"file pages, {name}"))
    top = np.nanmax([1, *own[~np.isnan(own)], *held[~np.isnan(held)]])
    ax.set(ylim=(0, 1.1 * top), xlim=(0, max(log.t_s[-1], 0.1)))
    ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8.5)
    return ax


def families(ax: Axes, by_way: dict) -> Axes:
    """Resident memory of parents and workers beyond what the parent had before it got its data.

    Parameters
    ----------
    by_way : dict of str to an object with ``before`` and ``members``, such as a
        ``training.Family``: each has ``anonymous_bytes`` and ``file_bytes``, None if unknown.
    """
    steps, added = [], []
    for way, family in by_way.items():
        for k, member in enumerate(family.members):
            steps.append(f"{way}: " + (f"worker {k}" if k else "parent"))
            pair = member.anonymous_bytes, member.file_bytes
            if None not in pair:
                # A forked worker begins with the parent's anonymous pages, and without its files'.
                mapped = 0 if k else family.before.file_bytes
                pair = pair[0] - family.before.anonymous_bytes, pair[1] - mapped
            added.append(pair)
    memory_story(ax, steps, added)
    ax.set_xlabel("resident memory beyond the imports (MiB), of each process by itself")
    words = "anonymous (of workers: most shared with the parent)"
    handles = [_key(OWN, words), _key(SHARED, "file pages, mapped")]
    ax.legend(handles=handles, loc="upper center", ncols=2, bbox_to_anchor=(0.5, -0.18))
    return ax


def touched(figure: Figure, batches_by_order: dict, n_pages: int) -> Figure:
    """Which pages of a file each batch touches; a column for each order of the molecules.

    The upper row has the whole file, the lower one the longest run of neighbouring pages that the
    first order touches.

    Parameters
    ----------
    batches_by_order : dict of str to sequence of set of int
        Order -> for each batch, the numbers of its pages.
    n_pages : of the file
    """
    first = set().union(*next(iter(batches_by_order.values())))
    low, high = longest_run(first)
    shape = {"squeeze": False, "sharey": "row", "sharex": True}
    whole, part = figure.subplots(2, len(batches_by_order), **shape)
    for k, (order, batches) in enumerate(batches_by_order.items()):
        for ax, mark_size in ((whole[k], 7), (part[k], 10)):
            look = {"marker": "_", "ms": mark_size, "mew": 1, "color": MEANINGS[SHARED].color}
            for at, pages in enumerate(batches):
                ax.plot([at] * len(pages), sorted(pages), ls="", **look)
            ax.grid(visible=False)
            ax.yaxis.set_major_formatter("{x:,.0f}")
        n_all = len(set().union(*batches))
        whole[k].set_title(f"{order}: {n_all:,} pages", fontsize=10)
        whole[k].set(xlim=(-1, len(batches)), ylim=(n_pages, 0))
        part[k].set(xlabel="batch", ylim=(high + 0.5, low - 0.5))
    whole[0].set_ylabel("page of the file")
    part[0].set_ylabel("some of them")
    return figure


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


def _smooth(log) -> tuple[np.ndarray, np.ndarray]:
    """Molecules seen, and the mean of the last ``SMOOTH`` losses (of those there were by then)."""
    sums = np.cumsum([0.0, *log.losses])
    end = np.arange(1, len(sums))
    start = np.maximum(end - SMOOTH, 0)
    return end * log.batch_size, (sums[end] - sums[start]) / (end - start)
