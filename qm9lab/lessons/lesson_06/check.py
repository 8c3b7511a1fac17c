"""Checks of notebooks/06_pages_and_faults.ipynb."""

import contextlib
import mmap
import os
import random
import tempfile
from pathlib import Path

from qm9lab import measure
from qm9lab.course.check import Verdict, ask, attempt, hint, letters, number, right
from qm9lab.measure import is_missing


def _draw_reads(seed: int) -> tuple[int, list[tuple[int, int]]]:
    """A page size in bytes and reads as (offset, length): some share a page, some span two."""
    draw = random.Random(seed)
    page = draw.choice([4, 16]) * 1024
    pages = draw.sample(range(1, 60, 3), 6)
    n_spanning, n_together = draw.choice([(1, 2), (2, 1), (3, 1), (3, 2), (0, 1), (0, 2)])
    spanning = [(page * (k + 1) - draw.randint(10, 60), 100) for k in pages[:n_spanning]]
    alone = [(page * k + draw.randint(100, page - 200), 100) for k in pages[n_spanning:]]
    together = [(start // page * page + draw.randint(0, 90), 100) for start, _ in alone]
    reads = [*spanning, *alone, *together[:n_together]]
    draw.shuffle(reads)
    return page, reads


def question_1(seed: int) -> str:
    """The question for ``seed``."""
    page, reads = _draw_reads(seed)
    return ask(
        f"Pages of {page // 1024} KiB. A cold file is mapped, with MADV_RANDOM. 100 bytes each are "
        f"read at the offsets {', '.join(f'{start:,}' for start, _ in reads)}. "
        "How many major faults?"
    )


def exercise_1(answer, seed: int) -> Verdict:
    """Check a number of major faults under the exact protocol."""
    page, reads = _draw_reads(seed)
    firsts = [start // page for start, _ in reads]
    lasts = [(start + length - 1) // page for start, length in reads]
    touched = {*firsts, *lasts}
    with_repeats = sum(1 + (first != last) for first, last in zip(firsts, lasts, strict=True))
    return number(
        answer,
        len(touched),
        {
            with_repeats: "a page that was read before is mapped: reading it again is no fault.",
            len(reads): "you counted reads: two of them may share a page, and one may need two.",
            len(set(firsts)): "in which page does the last byte of each read lie?",
            100 * len(reads): "you counted bytes.",
            max(touched) + 1: "MADV_RANDOM: pages that nobody touched stay on the disk.",
        },
        "on which pages do the first and the last byte of each read lie? Count each page once.",
        "One major fault a distinct page.",
    )


ACTS = {
    "again": ("-", ""),
    "evict": ("-", "evict(path)"),
    "dontneed": ("m", "mm.madvise(mmap.MADV_DONTNEED)"),
    "map": ("m", "mm.close(); mm = map_file()"),
    "cold": ("M", "mm.close(); evict(path); mm = map_file()"),
    "other": ("m", "mm.close(); evict(path); path.read_bytes(); mm = map_file()"),
}
"""What can happen between two touches of a page: the fault of the next touch, and the code."""

HINTS = {
    "again": "nothing happened since the touch before it: is the entry gone?",
    "evict": "the page is mapped: does evict drop it?",
    "dontneed": "DONTNEED drops the entry: is the page gone from the cache too?",
    "map": "closing a map drops its entries: is the page gone from the cache too?",
    "cold": "no map held the page when it was evicted: where is it now?",
    "other": "the file was read after it was evicted: where did the bytes go through?",
}


def _draw_story(seed: int) -> list[str]:
    """How the file is before the first touch, and what happens before each further one."""
    draw = random.Random(seed)
    rest = draw.sample([name for name in ACTS if name != "other"], 4)
    return [draw.choice(["cold", "other"]), *rest]


def question_2(seed: int) -> str:
    """The question for ``seed``."""
    first, *rest = _draw_story(seed)
    was = {"cold": "It is cold.", "other": "It was evicted, then read by path.read_bytes()."}
    lines = ["A file of one page is mapped (shared, mm).", f"{was[first]} Then:", "    mm[0]"]
    for act in rest:
        lines += [f"    {ACTS[act][1]}"] * (act != "again") + ["    mm[0]"]
    return "\n".join([*lines, f"Which faults do the {1 + len(rest)} touches take?"])


def exercise_2(answer, seed: int) -> Verdict:
    """Check a string of one character a touch: m, M or -."""
    story = _draw_story(seed)
    answer, verdict = letters(answer, len(story), "mM-")
    if verdict:
        return verdict
    for at, (act, fault) in enumerate(zip(story, answer, strict=True)):
        if fault != ACTS[act][0]:
            words = HINTS[act]
            if (fault, ACTS[act][0]) == ("-", "m"):
                words = "is there an entry in the page table that leads to the page?"
            return hint(f"touch {at + 1}: {words}")
    return right("Each time ask what was missing: nothing, the entry, or the page itself.")


def exercise_3(function) -> Verdict:
    """Check a function that reads a span of a cold file and caches no other page."""
    n_pages, page = 64, mmap.PAGESIZE
    contents = random.Random(6).randbytes(n_pages * page)
    for start, end in ((20 * page + 100, 20 * page + 200), (41 * page - 50, 41 * page + 50)):
        with _cold_file(contents) as (path, is_cold):
            found, verdict = attempt(function, path, start, end)
            cached = measure.cached_pages(path)
        cached = is_cold if is_missing(is_cold) else cached
        if verdict:
            return verdict
        if not isinstance(found, bytes | bytearray | memoryview) or found != contents[start:end]:
            return hint(f"expected the {end - start} bytes from start to end, found others.")
        needed = set(range(start // page, (end - 1) // page + 1))
        if not is_missing(cached) and set(cached.nonzero()[0].tolist()) != needed:
            return hint(
                f"the bytes need pages: {len(needed)}. Into the page cache came: {cached.sum()}. "
                "Who brought the others, and when must you say that you do not want them?"
            )
    if is_missing(cached):
        return right(f"The bytes are right. Pages in the cache: {cached}.")
    return right("No page too many.")


@contextlib.contextmanager
def _cold_file(contents: bytes):
    """A file of our own, and whether it is cold; on a disk where a folder of ours is on one."""
    others = [folder for folder in ("/var/tmp", ".") if os.access(folder, os.W_OK)]
    folders = [tempfile.gettempdir(), *others]
    folders.sort(key=lambda folder: measure.file_system(folder) in measure.MEMORY_ONLY)
    with tempfile.TemporaryDirectory(dir=folders[0], ignore_cleanup_errors=True) as own:
        path = Path(own) / "read_cold.dat"
        path.write_bytes(contents)
        yield path, measure.make_cold(path).is_cold
