"""Checks of notebooks/06_pages_and_faults.ipynb."""

import mmap
import random
import tempfile
from pathlib import Path

from qm9lab import measure
from qm9lab.course import folders
from qm9lab.course.check import Verdict, attempt, hint, letters, right
from qm9lab.measure import is_missing

from . import pages

ACTS = {
    "again": ("-", ""),
    "evict": ("-", "evict(path)"),
    "dontneed": ("m", "mm.madvise(mmap.MADV_DONTNEED)"),
    "map": ("m", "mm.close(); mm = map_file(path)"),
    "cold": ("M", "mm.close(); evict(path); mm = map_file(path)"),
    "other": ("m", "mm.close(); evict(path); path.read_bytes(); mm = map_file(path)"),
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


def question_1(seed: int) -> str:
    """The question for ``seed``."""
    first, *rest = _draw_story(seed)
    was = {"cold": "was evicted.", "other": "was evicted, and then read with read()."}
    mapped = "After that it was mapped (mm, a shared map). Nobody has touched it yet. Then:"
    lines = [f"A file of one page {was[first]}", mapped, "    mm[0]"]
    for act in rest:
        lines += [f"    {ACTS[act][1]}"] * (act != "again") + ["    mm[0]"]
    return "\n".join([*lines, f"Which faults do the {1 + len(rest)} touches take?"])


def exercise_1(answer, seed: int) -> Verdict:
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


def exercise_2(function) -> Verdict:
    """Check a function that reads a span of a cold file and loads no other page."""
    n_pages, page, own = 64, mmap.PAGESIZE, folders.lesson_folder()
    contents = random.Random(6).randbytes(n_pages * page)
    for start, end in ((20 * page + 100, 20 * page + 200), (41 * page - 50, 41 * page + 50)):
        # Windows does not remove what an answer has left open.
        with tempfile.TemporaryDirectory(dir=own, ignore_cleanup_errors=True) as folder:
            path = Path(folder, "read_cold.dat")
            path.write_bytes(contents)
            missing = pages.start_cold(path, "RANDOM")
            found, verdict = attempt(function, path, start, end)
            cached = missing.after.cached if missing else measure.cached_pages(path)
        if verdict:
            return verdict
        if not isinstance(found, bytes | bytearray | memoryview) or found != contents[start:end]:
            return hint(f"expected the {end - start} bytes from start to end, found others.")
        needed = set(range(start // page, (end - 1) // page + 1))
        if not is_missing(cached) and set(cached.nonzero()[0].tolist()) != needed:
            return hint(
                f"the bytes need pages: {len(needed)}. Into the page cache came: {cached.sum()}. "
                "Who loaded the others, and when must you say that you do not want them?"
            )
    if is_missing(cached):
        return right(f"The bytes are right. Pages in the cache: {cached}.")
    return right("No page too many.")
