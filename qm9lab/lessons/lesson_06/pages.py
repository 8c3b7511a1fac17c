"""What lesson 06 counts on a cold file, and the session behind its live page map.

The learner opens and maps the file. A session calls the learner's function when it needs a new
map, and maps nothing itself.
"""

import functools
import mmap
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from qm9lab import measure
from qm9lab.course import plots
from qm9lab.course.page_grid import page_grid
from qm9lab.measure import Missing, first_missing, is_missing, protocol

CACHED, MAPPED, DIRTY, UNKNOWN = 1, 2, 4, 8
"""Bits of a page's state, as ``packed`` puts them into one byte a page."""

MODES = {
    "NORMAL": "the kernel chooses how far to read ahead",
    "RANDOM": "a major fault on this map loads its own page only",
    "SEQUENTIAL": "a major fault on this map loads the pages after its own, none before it",
}
"""Advice that says how a map will be used, and what that changes for later faults."""

ACTIONS = {
    "WILLNEED": "The kernel began to load pages, up to a limit, and did not wait. It mapped none.",
    "DONTNEED": "The map's entries are gone. The file's pages stay in the page cache.",
    "POPULATE_READ": "Every page was loaded and mapped in one call, before a program touched it.",
}
"""Advice that makes the kernel act at once."""

ADVICE = {name: getattr(mmap, f"MADV_{name}", None) for name in (*MODES, *ACTIONS)}
"""Name -> number of the advice for madvise(2), None where this system has none of that name."""
if sys.platform == "linux":
    ADVICE["POPULATE_READ"] = 22  # Python up to 3.13 has no name for it

ARRIVAL_S = 0.2
"""How long ``look`` waits for pages at most."""


# Counts on a cold file -----------------------------------------------------------------------


class Cost(NamedTuple):
    """What touches of a cold file cost: faults, and each page before and after them."""

    before: measure.PageStates
    faults: measure.Faults
    after: measure.PageStates


def start_cold(path, advice: str) -> Cost | None:
    """Make a file cold, before a map of it gets an advice: None, or a cost that is missing.

    It is missing where the file cannot be made cold, where one touch of a cold file brings more
    than its page (``protocol.unavailable``), and where ``madvise(2)`` refuses the advice.
    """
    path = os.path.realpath(path)
    missing = _refused(advice) or _uncountable(os.path.dirname(path)) or protocol.start_cold(path)
    if missing is None:
        return None
    pages = measure.PageStates(missing, missing, missing, missing)
    return Cost(pages, measure.Faults(missing, missing, ""), pages)


@functools.lru_cache
def _uncountable(folder: str) -> Missing | None:
    return protocol.unavailable_near(os.path.join(folder, "probe"))


def _refused(advice: str) -> Missing | None:
    if ADVICE[advice] is None:
        return Missing(f"{platform.system()} has no MADV_{advice}")
    try:
        with mmap.mmap(-1, mmap.PAGESIZE) as probe:
            probe.madvise(ADVICE[advice])
    except OSError as error:
        return Missing(f"madvise(2) refuses MADV_{advice} ({os.strerror(error.errno)})")
    return None


def look(path, mm: mmap.mmap) -> measure.PageStates:
    """``measure.page_states``, after pages on their way from the disk have arrived.

    ``cachestat(2)`` counts them, and ``mincore(2)`` does not. Without it we wait for ``ARRIVAL_S``.
    """
    deadline = time.monotonic() + ARRIVAL_S
    while True:
        state, states = measure.cache_state(path), measure.page_states(path, mm)
        have_come = state.source == "cachestat" and state.n_cached <= np.sum(states.cached)
        if is_missing(states.cached) or have_come or time.monotonic() > deadline:
            return states
        time.sleep(0.005)


def row(name: str, cost: Cost) -> str:
    """A line of a table: pages cached and mapped before, minor and major faults, pages after."""
    counts = [np.sum(n) for n in (*cost.before[:2], *cost.faults[:2], *cost.after[:2])]
    missing = first_missing(*counts)
    cells = (f"{n:{width},}" for n, width in zip(counts, (14, 8, 15, 7, 15, 8), strict=True))
    return f"{name:14}" + (str(missing) if missing else "".join(cells))


def png(states: dict[str, measure.PageStates], touched=None) -> bytes:
    """Grids of all pages, side by side, each under its name, as a PNG."""
    figure = plots.new_figure(8.6, 2.8 if len(states) > 1 else 3.4)
    axes = np.atleast_1d(figure.subplots(1, len(states), sharey=True))
    for ax, (name, now) in zip(axes, states.items(), strict=True):
        n = columns(np.size(now.mapped if is_missing(now.cached) else now.cached))
        page_grid(ax, now.cached, now.mapped, n, touched, now.dirty, legend=ax is axes[0])
        ax.set_title(name)
    return plots.png(figure)


# The live page map ---------------------------------------------------------------------------


class Step(NamedTuple):
    """One act, what the kernel did, and a sentence that says so."""

    name: str
    faults: measure.Faults  # of the act, in the calling thread; Python's own are among them
    before: measure.PageStates
    after: measure.PageStates
    touched: list[int]  # numbers of the pages that the act itself touched
    sentence: str


def packed(pages: measure.PageStates, n_pages: int) -> np.ndarray:
    """One byte a page, ``(n_pages,)`` uint8: CACHED, MAPPED, DIRTY, or UNKNOWN.

    UNKNOWN stands alone, where the system shows neither what is cached nor what is mapped.
    """
    is_unknown = is_missing(pages.cached) and is_missing(pages.mapped)
    found = np.full(n_pages, UNKNOWN if is_unknown else 0, np.uint8)
    for where, bit in ((pages.cached, CACHED), (pages.mapped, MAPPED), (pages.dirty, DIRTY)):
        if not is_missing(where):
            found[where] |= bit
    return found


def columns(n_pages: int) -> int:
    """Pages in a row, a multiple of 16, so that all fit into 900 by 400 pixels."""
    for n in range(16, 900, 16):
        if -(-n_pages // n) * min(22, 900 // n) <= 400:
            return n
    return 900


class Session:
    """A map of the learner's, acted on step by step.

    The file must be your own: Linux shows what is cached to nobody else. ``map_file(path)``
    returns a new map of the whole file. It is called once now and once after each ``drop``.
    ``starts_bytes`` says where each molecule's record begins, in order, the first at 0; the last
    ends with the file.

    A write puts back the byte that is there. The file's contents stay, and the page becomes dirty
    all the same: the kernel looks at pages, not at values. The write reads that byte first.
    """

    def __init__(self, path, map_file: Callable[..., mmap.mmap], starts_bytes):
        self.path, self._map_file = Path(path), map_file
        self.steps: list[Step] = []
        self.mm, self.mode = map_file(self.path), "NORMAL"
        self.n_pages = -(-len(self.mm) // mmap.PAGESIZE)
        self.n_molecules = len(starts_bytes)
        self._edges = [*starts_bytes, len(self.mm)]
        self.now = measure.page_states(self.path, self.mm)

    def molecules_by_page(self) -> np.ndarray:
        """The first and last molecule on each page, ``(n_pages, 2)`` int."""
        begins = np.arange(self.n_pages) * mmap.PAGESIZE
        ends = np.stack([begins, begins + mmap.PAGESIZE - 1], axis=1)
        return np.searchsorted(self._edges[:-1], ends, "right") - 1

    def touch(self, page: int, write: bool = False) -> Step:
        """Read the first byte of a page, and with ``write`` put it back."""
        if not 0 <= page < self.n_pages:
            raise IndexError(f"expected a page below {self.n_pages}, found {page}")
        at = page * mmap.PAGESIZE
        return self._touch(f"page {page:,}", [(at, at + 1)], write)

    def touch_molecule(self, molecule: int, write: bool = False) -> Step:
        """Read a molecule's record, and with ``write`` put its bytes back."""
        if not 0 <= molecule < self.n_molecules:
            raise IndexError(f"expected a molecule below {self.n_molecules}, found {molecule}")
        span = self._edges[molecule], self._edges[molecule + 1]
        return self._touch(f"molecule {molecule:,}", [span], write)

    def scan(self, write: bool = False) -> Step:
        """Read one byte of every page, first to last, and with ``write`` put it back."""
        places = range(0, len(self.mm), mmap.PAGESIZE)
        return self._touch("every page", [(at, at + 1) for at in places], write)

    def _touch(self, what: str, spans, write: bool) -> Step:
        pages = [(start // mmap.PAGESIZE, (end - 1) // mmap.PAGESIZE) for start, end in spans]
        touched = [page for first, last in pages for page in range(first, last + 1)]
        mm, verb = self.mm, "write to" if write else "read"

        def do():
            for start, end in spans:
                found = mm[start:end]
                if write:
                    mm[start:end] = found

        return self._act(f"{verb} {what}", do, _causes, touched)

    def make_cold(self) -> Step:
        """Write back, evict, and verify (``measure.make_cold``); mapped pages stay."""
        wait_s = 0 if np.any(self.now.mapped) else 2  # what is mapped stays: waiting is no use
        return self._act("make cold", lambda: measure.make_cold(self.path, wait_s), _what_stayed)

    def advise(self, name: str) -> Step:
        """``madvise(2)`` for the whole map."""
        effect = f"From now on {MODES[name]}." if name in MODES else ACTIONS[name]

        def do():
            self.mm.madvise(ADVICE[name])
            self.mode = name if name in MODES else self.mode

        return self._act(f"madvise {name}", do, lambda step: effect)

    def flush(self) -> Step:
        """``flush``, that is msync(2): write dirty pages to the disk."""
        return self._act("flush", self.mm.flush)

    def drop(self) -> Step:
        """Close the map, and have the learner's function make a new one."""

        def do():
            self.mm.close()
            self.mm, self.mode = self._map_file(self.path), "NORMAL"

        return self._act("drop the map", do)

    def look(self) -> Step:
        """Ask again: readahead and write-back go on by themselves."""
        return self._act("look again", lambda: None)

    def _act(self, name: str, do, explain=lambda step: "", touched=()) -> Step:
        before = measure.page_states(self.path, self.mm)
        start = measure.faults(thread=True)
        problem = ""
        try:
            do()
        except (OSError, TypeError, ValueError, BufferError) as error:
            problem = str(error)  # a map to read only refuses a write with a TypeError
        faults = measure.faults(thread=True).since(start)
        self.now = look(self.path, self.mm)
        step = Step(name, faults, before, self.now, list(touched), "")
        self.steps.append(step._replace(sentence=_sentence(step, explain, problem)))
        return self.steps[-1]


# Words ---------------------------------------------------------------------------------------


def _n(count, what: str = "page") -> str:
    """A count with its noun, or why there is none."""
    if is_missing(count):
        return f"{what}s {count}"
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _sentence(step: Step, explain: Callable[[Step], str], problem: str) -> str:
    """What was done, its faults, their cause, and what else moved."""
    is_advice = step.name.startswith("madvise ")
    start = step.name if is_advice else step.name[0].upper() + step.name[1:]
    if problem:
        return f"{start}: not available here, because {problem}."
    if step.touched or is_advice:  # the faults of other acts are Python's own, not the map's
        start += f": {_n(step.faults.major, 'major fault')}, {_n(step.faults.minor, 'minor fault')}"
    return " ".join(part for part in (f"{start}.", explain(step), _moves(step)) if part)


def _causes(step: Step) -> str:
    """Why a touch faulted, from what its pages were before."""
    cached, mapped = step.before.cached, step.before.mapped
    if is_missing(cached, mapped):
        return f"The cause is {first_missing(cached, mapped)}."
    states = {
        "on disk only": ~cached & ~mapped,
        "in the page cache, not mapped": cached & ~mapped,
        "mapped already": mapped,
    }
    counts = {words: where[step.touched].sum() for words, where in states.items()}
    causes = ", ".join(f"{_n(count)} {words}" for words, count in counts.items() if count)
    if step.name.startswith("write"):
        causes += ". The first write to a clean page is a fault of its own"
    return f"Before: {causes}."


def _what_stayed(step: Step) -> str:
    """Whether the file is cold now, and what keeps its pages if it is not."""
    if is_missing(step.after.cached):
        return f"Whether it is cold is {step.after.cached}."
    n_left, why = step.after.cached.sum(), "this file cannot be made cold here."
    if not n_left:
        return "No page is left in the page cache."
    if not is_missing(step.after.mapped) and step.after.mapped.any():
        why = "what is mapped is not evicted. Drop the map first."
    return f"{_n(n_left)} stayed: {why}"


def _moves(step: Step) -> str:
    """What changed on pages other than the touched ones; on all, if none or all were touched."""
    moves, which = [], ""
    for name in ("cached", "mapped", "dirty"):
        old, new = getattr(step.before, name), getattr(step.after, name)
        if is_missing(old, new):
            continue
        watched = np.ones(len(new), bool)
        if len(step.touched) < len(new):
            watched[step.touched] = False
        which = "page" if watched.all() else "other page"
        for change, words in ((new & ~old, "newly"), (old & ~new, "no longer")):
            if (change & watched).any():
                moves.append(f"{(change & watched).sum():,} {words} {name}")
    if not which:
        return ""
    return f"{which.capitalize()}s: {', '.join(moves)}." if moves else f"No {which} changed."
