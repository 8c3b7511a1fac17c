"""A session over one mapped file: act on its pages, and ask the kernel what that did.

The logic of the live page map (lesson 06), without a widget. The learner opens and maps the
file. A session calls the learner's function when it needs a new map, and maps nothing itself.
"""

import mmap
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from qm9lab import measure
from qm9lab.measure import first_missing, is_missing

CACHED, MAPPED, DIRTY, COPIED, UNKNOWN = 1, 2, 4, 8, 16
"""Bits of a page's state, as ``packed`` puts them into one byte a page."""

MODES = {
    "NORMAL": "the kernel chooses how far to read ahead",
    "RANDOM": "a major fault on this mapping reads its own page only",
    "SEQUENTIAL": "a major fault on this mapping reads the pages after its own, none before it",
}
"""Advice that says how a mapping will be used, and what that changes for later faults."""

ACTIONS = {
    "WILLNEED": "The kernel began to read, up to a limit, and did not wait. Nothing was mapped.",
    "DONTNEED": "The mapping's entries are gone. The file's pages stay in the page cache.",
    "POPULATE_READ": "Every page was read and mapped in one call, before a program touched it.",
}
"""Advice that makes the kernel act at once."""

ADVICE = {name: getattr(mmap, f"MADV_{name}", None) for name in (*MODES, *ACTIONS)}
"""Name -> number of the advice for madvise(2), None where this system has none of that name."""
if sys.platform == "linux":
    ADVICE["POPULATE_READ"] = 22  # Python up to 3.13 has no name for it

ARRIVAL_S = 0.1
"""How long a step waits for pages that are still on their way from the disk."""


class Step(NamedTuple):
    """One act, what the kernel did, and a sentence that says so."""

    name: str
    faults: measure.Faults  # of the act, in the calling thread; Python's own are among them
    before: measure.PageStates
    after: measure.PageStates
    touched: list[int]  # numbers of the pages that the act itself touched
    sentence: str


def packed(pages: measure.PageStates, n_pages: int) -> np.ndarray:
    """One byte a page, ``(n_pages,)`` uint8: CACHED, MAPPED, DIRTY, COPIED, or UNKNOWN.

    UNKNOWN stands alone, where the system shows neither what is cached nor what is mapped.
    """
    is_unknown = is_missing(pages.cached) and is_missing(pages.mapped)
    found = np.full(n_pages, UNKNOWN if is_unknown else 0, np.uint8)
    for where, bit in zip(pages, (CACHED, MAPPED, DIRTY, COPIED), strict=True):
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
    """A mapping of the learner's, acted on step by step.

    The file must be your own: Linux shows what is cached to nobody else. ``map_file`` returns a
    new map of the whole file. It is called once now and once after each ``drop``.
    ``starts_bytes`` says where each molecule's record begins, in order, the first at 0; the last
    ends with the file.

    A store puts back the byte that is there. The file's contents stay, and the page becomes dirty
    all the same: the kernel looks at pages, not at values. The store reads that byte first.
    """

    def __init__(self, path, map_file: Callable[[], mmap.mmap], starts_bytes=()):
        self.path, self._map_file = Path(path), map_file
        self.steps: list[Step] = []
        self.mm, self.mode = map_file(), "NORMAL"
        self.n_pages = -(-len(self.mm) // mmap.PAGESIZE)
        self.n_molecules = len(starts_bytes)
        self._edges = [*starts_bytes, len(self.mm)]
        self.now = measure.page_states(self.path, self.mm)

    def molecules_by_page(self) -> np.ndarray:
        """The first and last molecule on each page, ``(n_pages, 2)`` int; -1 where none is."""
        begins = np.arange(self.n_pages) * mmap.PAGESIZE
        ends = np.stack([begins, begins + mmap.PAGESIZE - 1], axis=1)
        return np.searchsorted(self._edges[:-1], ends, "right") - 1

    def touch(self, page: int, store: bool = False) -> Step:
        """Read the first byte of a page, and with ``store`` put it back."""
        if not 0 <= page < self.n_pages:
            raise IndexError(f"expected a page below {self.n_pages}, found {page}")
        at = page * mmap.PAGESIZE
        return self._touch(f"page {page:,}", [(at, at + 1)], store)

    def touch_molecule(self, molecule: int, store: bool = False) -> Step:
        """Read a molecule's record, and with ``store`` put its bytes back."""
        if not 0 <= molecule < self.n_molecules:
            raise IndexError(f"expected a molecule below {self.n_molecules}, found {molecule}")
        span = self._edges[molecule], self._edges[molecule + 1]
        return self._touch(f"molecule {molecule:,}", [span], store)

    def scan(self, store: bool = False) -> Step:
        """Read one byte of every page, first to last, and with ``store`` put it back."""
        places = range(0, len(self.mm), mmap.PAGESIZE)
        return self._touch("every page", [(at, at + 1) for at in places], store)

    def _touch(self, what: str, spans, store: bool) -> Step:
        pages = [(start // mmap.PAGESIZE, (end - 1) // mmap.PAGESIZE) for start, end in spans]
        touched = [page for first, last in pages for page in range(first, last + 1)]
        mm, verb = self.mm, "store to" if store else "read"

        def do():
            for start, end in spans:
                found = mm[start:end]
                if store:
                    mm[start:end] = found

        return self._act(f"{verb} {what}", do, _causes, touched)

    def make_cold(self) -> Step:
        """Write back, evict, and verify (``measure.make_cold``); mapped pages stay."""
        mapped = self.now.mapped
        some_stay = not is_missing(mapped) and mapped.any()  # then waiting is no use
        wait_s = 0 if some_stay else 2
        return self._act("make cold", lambda: measure.make_cold(self.path, wait_s), _what_stayed)

    def advise(self, name: str) -> Step:
        """``madvise(2)`` for the whole map."""
        effect = f"From now on {MODES[name]}." if name in MODES else ACTIONS[name]

        def do():
            if ADVICE[name] is None:
                raise OSError(f"{sys.platform} has no MADV_{name}")
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
            self.mm, self.mode = self._map_file(), "NORMAL"

        return self._act("drop the mapping", do)

    def look(self) -> Step:
        """Do nothing and ask again: readahead and write-back go on by themselves."""
        return self._act("look again", lambda: None)

    def _act(self, name: str, do, explain=lambda step: "", touched=()) -> Step:
        before = measure.page_states(self.path, self.mm)
        start = measure.faults(thread=True)
        problem = ""
        try:
            do()
        except (OSError, TypeError, ValueError, BufferError) as error:
            problem = str(error)  # a map to read only refuses a store with a TypeError
        faults = measure.faults(thread=True).since(start)
        self._wait_for_arrivals()
        self.now = measure.page_states(self.path, self.mm)
        step = Step(name, faults, before, self.now, list(touched), "")
        self.steps.append(step._replace(sentence=_sentence(step, explain, problem)))
        return self.steps[-1]

    def _wait_for_arrivals(self) -> None:
        """Wait while cachestat counts pages that mincore has not seen arrive, but not for long."""
        deadline = time.monotonic() + ARRIVAL_S
        while time.monotonic() < deadline:
            cached = measure.cached_pages(self.path)
            if is_missing(cached) or measure.cache_state(self.path).n_cached <= cached.sum():
                return
            time.sleep(0.005)


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
        "in the page cache, but not mapped": cached & ~mapped,
        "mapped already": mapped,
    }
    counts = {words: where[step.touched].sum() for words, where in states.items()}
    causes = ", ".join(f"{_n(count)} {words}" for words, count in counts.items() if count)
    if step.name.startswith("store"):
        causes += ". The first store to a clean page is a fault of its own"
    return f"Before: {causes}."


def _what_stayed(step: Step) -> str:
    """Whether the file is cold now, and what keeps its pages if it is not."""
    if is_missing(step.after.cached):
        return f"Whether it is cold is {step.after.cached}."
    n_left, why = step.after.cached.sum(), "this file cannot be made cold here."
    if not n_left:
        return "No page is left in the page cache."
    if not is_missing(step.after.mapped) and step.after.mapped.any():
        why = "what is mapped is not evicted. Drop the mapping first."
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
