"""A session over one mapped file: act on its pages, and ask the kernel what that did.

The logic of the live page map (lesson 06), without a widget. The learner opens and maps the
file; a session calls his function when a new mapping is needed and maps nothing by itself.
"""

import mmap
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from qm9lab import measure

CACHED, MAPPED, DIRTY, COPIED, UNKNOWN = 1, 2, 4, 8, 16
"""Bits of a page's state, as ``states`` packs them into one byte a page."""

MODES = {
    "NORMAL": "the kernel reads ahead as it sees fit",
    "RANDOM": "a major fault on this mapping reads no page ahead",
    "SEQUENTIAL": "a major fault on this mapping reads ahead, and not behind",
}
"""Advice that says how a mapping will be used, and what that changes for later faults."""

ACTIONS = {
    "WILLNEED": "the kernel began to read, up to a window, and did not wait; nothing was mapped",
    "DONTNEED": "the mapping's entries are gone; what was in the page cache is still there",
    "POPULATE_READ": "every page was read and mapped in one call, before anyone touched it",
}
"""Advice that makes the kernel act at once."""

ARRIVAL_S = 0.1
"""How long a step waits for pages that are still on their way from the disk."""


class Step(NamedTuple):
    """One act and what the kernel did.

    Attributes
    ----------
    name : what was done, in a few words
    faults : those of this act, of the calling thread; Python's own are among them
    before, after : PageMap on either side of it
    touched : numbers of the pages that the act itself touched
    said : what happened, in words
    """

    name: str
    faults: measure.Faults
    before: measure.PageMap
    after: measure.PageMap
    touched: tuple[int, ...]
    said: str


def advice() -> dict[str, int]:
    """Name -> number of the advice that madvise(2) takes on this system.

    Python up to 3.13 has no name for ``MADV_POPULATE_READ``; Linux gives it the number 22.
    """
    if not hasattr(mmap.mmap, "madvise"):
        return {}
    names = (*MODES, *ACTIONS)
    found = {name: getattr(mmap, f"MADV_{name}") for name in names if hasattr(mmap, f"MADV_{name}")}
    if sys.platform == "linux":
        found.setdefault("POPULATE_READ", 22)
    return found


def states(pages: measure.PageMap, n_pages: int) -> np.ndarray:
    """One byte a page, ``(n_pages,)`` uint8: CACHED, MAPPED, DIRTY, COPIED, or UNKNOWN.

    UNKNOWN stands alone, where the system tells neither what is cached nor what is mapped.
    """
    packed = np.zeros(n_pages, np.uint8)
    if pages.cached is None and pages.mapped is None:
        packed[:] = UNKNOWN
    bits = ((CACHED, pages.cached), (MAPPED, pages.mapped), (DIRTY, pages.dirty))
    for bit, where in (*bits, (COPIED, pages.copied)):
        if where is not None:
            packed[where] |= bit
    return packed


def missing(pages: measure.PageMap) -> str:
    """What a page map lacks on this system, and why; empty where it lacks nothing."""
    return "; ".join(part for part in pages.source.split("; ") if "not available" in part)


def columns(n_pages: int, width: int = 900, height: int = 400) -> int:
    """Pages in a row, a multiple of 16, so that all fit into ``width`` by ``height`` pixels."""
    for n in range(16, width, 16):
        if -(-n_pages // n) * min(22, width // n) <= height:
            return n
    return width


class Session:
    """A mapping of the learner's, acted on step by step.

    Parameters
    ----------
    path : str or Path
        The file that is mapped; one's own, since the kernel tells nobody else what is cached.
    map_file : callable
        Returns a new map of the whole file. Called once now and once after each ``drop``.
    starts_bytes : (n_molecules,) int, optional
        Where each record begins, in order, the first at 0; the last ends with the file.

    Notes
    -----
    A store puts back the byte that is there: the file's contents stay, and the page is dirty all
    the same, since the kernel looks at pages, not at values. It reads that byte first.
    """

    def __init__(self, path, map_file: Callable[[], mmap.mmap], starts_bytes=None):
        self.path, self._map_file = Path(path), map_file
        self.starts_bytes = None if starts_bytes is None else np.asarray(starts_bytes, np.int64)
        self.steps: list[Step] = []
        self._map()
        self.n_bytes = len(self.mm)
        self.n_pages = -(-self.n_bytes // mmap.PAGESIZE)
        self.now = measure.page_map(self.path, self.mm)

    def _map(self) -> None:
        self.mm, self.mode = self._map_file(), "NORMAL"

    # Pages and molecules

    @property
    def n_molecules(self) -> int:
        return 0 if self.starts_bytes is None else len(self.starts_bytes)

    def pages_of(self, molecule: int) -> tuple[int, ...]:
        """The pages that a molecule's record lies on."""
        start, end = self._span(molecule)
        return tuple(range(start // mmap.PAGESIZE, (end - 1) // mmap.PAGESIZE + 1))

    def molecules_on(self, pages) -> np.ndarray:
        """The first and last molecule on each page, ``(len(pages), 2)`` int; -1 where none is."""
        pages = np.asarray(pages, np.int64)
        if not self.n_molecules:
            return np.full((len(pages), 2), -1)
        first = np.searchsorted(self.starts_bytes, pages * mmap.PAGESIZE, "right") - 1
        last = np.searchsorted(self.starts_bytes, (pages + 1) * mmap.PAGESIZE - 1, "right") - 1
        return np.stack([first, last], axis=1)

    def _span(self, molecule: int) -> tuple[int, int]:
        if not 0 <= molecule < self.n_molecules:
            raise IndexError(f"expected a molecule below {self.n_molecules}, found {molecule}")
        inside = molecule + 1 < self.n_molecules
        end = self.starts_bytes[molecule + 1] if inside else self.n_bytes
        return int(self.starts_bytes[molecule]), int(end)

    # Acts

    def touch(self, page: int, store: bool = False) -> Step:
        """Read the first byte of a page, and with ``store`` put it back."""
        if not 0 <= page < self.n_pages:
            raise IndexError(f"expected a page below {self.n_pages}, found {page}")
        at, mm = page * mmap.PAGESIZE, self.mm

        def do():
            byte = mm[at]
            if store:
                mm[at] = byte

        return self._act(f"{_verb(store)} page {page:,}", do, (page,), store)

    def touch_molecule(self, molecule: int, store: bool = False) -> Step:
        """Read a molecule's record, and with ``store`` put its bytes back."""
        (start, end), mm = self._span(molecule), self.mm

        def do():
            record = mm[start:end]
            if store:
                mm[start:end] = record

        name = f"{_verb(store)} molecule {molecule:,}"
        return self._act(name, do, self.pages_of(molecule), store)

    def scan(self, store: bool = False) -> Step:
        """Read one byte of every page, first to last, and with ``store`` put it back."""
        offsets, mm = range(0, self.n_bytes, mmap.PAGESIZE), self.mm

        def do():
            for at in offsets:
                byte = mm[at]
                if store:
                    mm[at] = byte

        return self._act(f"{_verb(store)} every page", do, tuple(range(self.n_pages)), store)

    def make_cold(self) -> Step:
        """Write back, evict, and verify (``measure.make_cold``); mapped pages stay."""
        is_mapped = self.now.mapped is not None and self.now.mapped.any()
        return self._act("make cold", lambda: measure.make_cold(self.path, 0 if is_mapped else 2))

    def advise(self, name: str) -> Step:
        """``madvise(2)`` for the whole map."""
        known, mm = advice(), self.mm

        def do():
            if name not in known:
                raise OSError(f"not available here, because {sys.platform} has no MADV_{name}")
            try:
                mm.madvise(known[name])
            except OSError as error:
                raise OSError(
                    f"not available here, because madvise said {error.strerror}"
                ) from error
            self.mode = name if name in MODES else self.mode

        return self._act(f"madvise {name}", do)

    def flush(self) -> Step:
        """``flush``, that is msync(2): write dirty pages to the disk."""
        return self._act("flush", self.mm.flush)

    def drop(self) -> Step:
        """Close the map, and have the learner's function make a new one."""

        def do():
            self.mm.close()
            self._map()

        return self._act("drop the mapping", do)

    def look(self) -> Step:
        """Do nothing and ask again: readahead and write-back go on by themselves."""
        return self._act("look again", lambda: None)

    def _act(self, name: str, do, touched=(), store: bool = False) -> Step:
        before = measure.page_map(self.path, self.mm)
        start = measure.faults(thread=True)
        problem = ""
        try:
            do()
        except (OSError, TypeError, ValueError, BufferError) as error:
            problem = str(error)
        counted = measure.faults(thread=True).since(start)
        self._wait_for_arrivals()
        self.now = measure.page_map(self.path, self.mm)
        said = _say(name, counted, before, self.now, touched, store, problem)
        self.steps.append(Step(name, counted, before, self.now, touched, said))
        return self.steps[-1]

    def _wait_for_arrivals(self) -> None:
        """Wait while cachestat counts pages that mincore has not seen arrive, but not for long."""
        deadline = time.monotonic() + ARRIVAL_S
        while time.monotonic() < deadline:
            cached = measure.cached_pages(self.path)
            if cached is None or measure.cache_state(self.path).n_cached <= cached.sum():
                return
            time.sleep(0.005)


CHANGES = (
    ("cached", "came into the page cache", "left the page cache"),
    ("mapped", "were mapped", "were unmapped"),
    ("dirty", "became dirty", "became clean"),
)


# Words ---------------------------------------------------------------------------------------


def _verb(store: bool) -> str:
    return "store to" if store else "read"


def _n(count: int, what: str = "page") -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _say(name, faults, before, after, touched, store, problem) -> str:
    """The sentences for a step: what was done, its faults, their cause, what else moved."""
    start = name if name.startswith("madvise") else name[0].upper() + name[1:]
    if problem:
        return f"{start}: {problem}."
    # The faults of other acts are Python's own, not the map's.
    counts = bool(touched) or name.startswith("madvise")
    parts = [f"{start}: {_count(faults)}." if counts else f"{start}."]
    if touched:
        parts += _why(before, touched, store)
    elif name.startswith("madvise "):
        parts.append(_advised(name.removeprefix("madvise ")))
    elif name == "make cold":
        parts.append(_evicted(after))
    parts += _moved(before, after, touched)
    return " ".join(parts)


def _count(faults) -> str:
    if faults.minor is None:
        return f"faults {faults.source}"
    if faults.major is None:
        return _n(faults.minor, "fault") + ", minor and major together"
    return f"{_n(faults.major, 'major fault')}, {_n(faults.minor, 'minor fault')}"


def _why(before, touched, store):
    """Why a touch faulted, from what its pages were before."""
    if before.cached is None or before.mapped is None:
        yield f"Why is hidden here ({missing(before)})."
        return
    pages = list(touched)
    mapped = int(before.mapped[pages].sum())
    cached = int((before.cached & ~before.mapped)[pages].sum())
    on_disk = len(pages) - mapped - cached
    it = "It was" if len(pages) == 1 else "Of these pages"
    if len(pages) == 1:
        if on_disk:
            yield f"{it} on disk only, and had to be read."
        elif cached:
            yield f"{it} in the page cache, but not in this process's page table."
        else:
            yield f"{it} mapped already."
    else:
        yield f"{it} {on_disk:,} were on disk only, {cached:,} cached, {mapped:,} mapped already."
    if store:
        yield "The first store to a clean page is a fault of its own."


def _advised(name: str) -> str:
    text = (MODES | ACTIONS)[name]
    return f"From now on {text}." if name in MODES else f"{text[0].upper()}{text[1:]}."


def _evicted(after) -> str:
    if after.cached is None:
        return f"Whether it is cold cannot be told ({missing(after)})."
    left = int(after.cached.sum())
    if not left:
        return "No page is left in the page cache."
    if after.mapped is not None and after.mapped.any():
        return f"{_n(left)} stayed: what is mapped is not evicted. Drop the mapping first."
    return f"{_n(left)} stayed: this file cannot be made cold here."


def _moved(before, after, touched):
    """What changed on pages other than the touched ones; on all, if none or all were touched."""
    n_pages = max((len(each) for each in after[:3] if each is not None), default=0)
    some = 0 < len(touched) < n_pages
    watched = np.ones(n_pages, bool)
    if some:
        watched[list(touched)] = False
    moves, known = [], False
    for field, came, went in CHANGES:
        old, new = getattr(before, field), getattr(after, field)
        if old is None or new is None or len(old) != len(new):
            continue
        known = True
        for change, words in ((new & ~old, came), (old & ~new, went)):
            if n := int((change & watched).sum()):
                moves.append(f"{n:,} {words if n > 1 else words.replace('were', 'was')}")
    if known:
        which = "other page" if some else "page"
        yield f"{which.capitalize()}s: {', '.join(moves)}." if moves else f"No {which} changed."
