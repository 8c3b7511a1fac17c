"""Checks of notebooks/06_pages_and_faults.ipynb."""

import contextlib
import mmap
import os
import random
import tempfile
from pathlib import Path

from qm9lab import measure
from qm9lab.course.check import NOT_YET, Verdict, ask, attempt, hint, is_stub, number, right


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
            with_repeats: "a page that was read before is mapped: its second touch is no fault.",
            len(reads): "you counted reads: two of them may share a page, and one may need two.",
            len(set(firsts)): "in which page does the last byte of each read lie?",
            100 * len(reads): "you counted bytes.",
            max(touched) + 1: "no read-ahead here: pages that nobody touched stay on the disk.",
        },
        "for each read: on which pages do its first and its last byte lie? Then count each page "
        "once.",
        "One major fault a distinct page.",
    )


ACTS = {
    "again": "",
    "dontneed": "mm.madvise(mmap.MADV_DONTNEED)",
    "map": "mm.close(); mm = map_file()",
    "evict": "evict(path)",
    "cold": "mm.close(); evict(path); mm = map_file()",
    "other": "mm.close(); evict(path); path.read_bytes(); mm = map_file()",
}
"""What can happen between two touches of a page, by name."""

AFTER = {"again": "-", "dontneed": "m", "map": "m", "evict": "-", "cold": "M", "other": "m"}
"""The fault of the next touch: the page was mapped when it happened."""


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
        lines += [f"    {ACTS[act]}"] * bool(ACTS[act]) + ["    mm[0]"]
    return "\n".join([*lines, f"Which faults do the {1 + len(rest)} touches take?"])


def exercise_2(answer, seed: int) -> Verdict:
    """Check a string of one character a touch: m, M or -."""
    story = _draw_story(seed)
    if is_stub(answer):
        return NOT_YET
    if isinstance(answer, str):
        answer = "".join(answer.split())
    if not (isinstance(answer, str) and len(answer) == len(story) and set(answer) <= set("mM-")):
        return hint(f"{len(story)} characters were asked for, each m, M or -.")
    for at, (act, said) in enumerate(zip(story, answer, strict=True)):
        if said != AFTER[act]:
            return hint(f"touch {at + 1}: {_why(act, said)}")
    return right("The cause decides: what was missing, nothing, the entry, or the page?")


def _why(act: str, said: str) -> str:
    if act == "again":
        return "nothing happened since the touch before it: is the entry gone?"
    if act == "evict":
        return "the page is mapped: does evict get hold of it?"
    if act == "cold":
        return "no map held the page when it was evicted: where is it now?"
    if said == "-":
        return "is there an entry in the page table that leads to the page?"
    if act == "dontneed":
        return "DONTNEED drops the entry: is the page gone from the cache too?"
    if act == "map":
        return "closing a map drops its entries: is the page gone from the cache too?"
    return "somebody read the file after it was evicted: where did the bytes go through?"


def exercise_3(function) -> Verdict:
    """Check a function that reads a span of a cold file and brings in no page too many."""
    n_pages, page = 64, mmap.PAGESIZE
    contents = random.Random(6).randbytes(n_pages * page)
    for start, end in ((20 * page + 100, 20 * page + 200), (41 * page - 50, 41 * page + 50)):
        with _cold_file(contents) as (path, is_cold):
            found, verdict = attempt(function, path, start, end)
            cached = measure.cached_pages(path)
        if verdict:
            return verdict
        if found is None:
            return hint("your function returned None: is `return` missing?")
        is_bytes = isinstance(found, bytes | bytearray | memoryview)
        if not is_bytes or bytes(found) != contents[start:end]:
            return hint(f"expected the {end - start} bytes from start to end, found others.")
        needed = set(range(start // page, (end - 1) // page + 1))
        if is_cold and cached is not None and set(cached.nonzero()[0].tolist()) != needed:
            return hint(
                f"the bytes lie on {len(needed)} page{'s' * (len(needed) > 1)}, and "
                f"{int(cached.sum())} came into the page cache: who brought the others, and "
                "when must he be told?"
            )
    return right("No page too many.")


@contextlib.contextmanager
def _cold_file(contents: bytes):
    """A file of our own that is cold, if any folder for temporary files is on a disk."""
    for folder in (tempfile.gettempdir(), "/var/tmp", "."):
        if not os.access(folder, os.W_OK):
            continue
        with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as own:
            path = Path(own) / "read_cold.dat"
            path.write_bytes(contents)
            is_cold = measure.make_cold(path).n_cached == 0
            if is_cold or folder == ".":
                yield path, is_cold
                return
    raise OSError("expected a folder that can be written, found none: set TMPDIR")
