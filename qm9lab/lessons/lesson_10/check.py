"""Checks of notebooks/10_costs_and_limits.ipynb."""

import mmap
import random
import tempfile
from pathlib import Path

from qm9lab.course.check import Verdict, ask, attempt, hint, number, right

# One map a record ---------------------------------------------------------------------------


def _draw_records(seed: int) -> tuple[int, int, list[int]]:
    """Bytes of a page and of a record, and the numbers of three records."""
    draw = random.Random(seed)
    page = draw.choice([4, 16]) * 1024
    record = draw.randrange(page // 40, page // 4) | 1  # odd: records lie across page boundaries
    # One that lies across a boundary, one that shares a page with it, and any other.
    boundary = draw.randrange(3, 20) * page
    across = boundary // record
    other = draw.choice([k for k in range(5, 4 * page // record) if abs(k - across) > 2])
    chosen = [across, across - 1, other]
    draw.shuffle(chosen)
    return page, record, chosen


def question_1(seed: int) -> str:
    """The question for ``seed``."""
    page, record, chosen = _draw_records(seed)
    return ask(
        f"Pages of {page:,} bytes. A file holds records of {record:,} bytes, one after the "
        f"other: record 0 begins at offset 0. A program maps the records {chosen[0]}, {chosen[1]} "
        f"and {chosen[2]}, each in a map of its own that begins on the page of the record's first "
        "byte, and reads them. How many of the bytes that RSS counts for the three maps did the "
        "program not ask for?"
    )


def exercise_1(answer, seed: int) -> Verdict:
    """Check the resident bytes that nobody asked for."""
    page, record, chosen = _draw_records(seed)
    pages = [_pages_of(k * record, record, page) for k in chosen]
    asked, n_counted = 3 * record, sum(map(len, pages))
    n_different = len(set().union(*pages))
    return number(
        answer,
        n_counted * page - asked,
        {
            n_counted * page: "that is all that RSS counts: take off what was asked for.",
            n_counted: "you counted pages; bytes were asked for, those that nobody wanted.",
            3 * page - asked: "does each of the records lie on one page?",
            3 * page: "does each of the records lie on one page? And take off what was asked for.",
            n_different * page - asked: "two of the maps have a page in common. How often does RSS "
            "count it, which adds up maps?",
            n_different * page: "two of the maps have a page in common: RSS adds up maps. And take "
            "off what was asked for.",
            asked: "that is what was asked for.",
        },
        "on which pages does each record begin and end? Each map takes those whole.",
        "RSS adds up maps, page by page; the page cache has each page once.",
    )


def _pages_of(start: int, length: int, page: int) -> set[int]:
    return set(range(start // page, (start + length - 1) // page + 1))


# The largest hole ---------------------------------------------------------------------------


def _draw_window(seed: int) -> tuple[int, list[tuple[int, int]]]:
    """MiB of the window, and its regions as (start, end) in MiB."""
    draw = random.Random(seed)
    at, regions, sizes = 0, [], draw.sample(range(8, 120), 6)
    for k, hole in enumerate(sizes):
        at += hole
        if k < 5:
            length = draw.randrange(10, 150)
            regions.append((at, at + length))
            at += length
    return at, regions


def question_2(seed: int) -> str:
    """The question for ``seed``."""
    window, regions = _draw_window(seed)
    table = "\n".join(f"  {start:5} to {end:5}" for start, end in regions)
    return (
        f"A window of addresses from 0 to {window} MiB holds these regions (from, to, in MiB):\n"
        f"{table}\n"
        "Nothing else is in it. What is the largest map, in MiB, that it has room for?"
    )


def exercise_2(answer, seed: int) -> Verdict:
    """Check the largest hole of a window."""
    window, regions = _draw_window(seed)
    edges = [0, *(edge for region in regions for edge in region), window]
    sizes = [high - low for low, high in zip(edges[::2], edges[1::2], strict=True)]
    return number(
        answer,
        max(sizes),
        {
            sum(sizes): "that is all that is free. Does a map come in several pieces?",
            max(sizes[1:-1]): "are there holes before the first region and after the last?",
            max(end - start for start, end in regions): "that is the largest region, which is "
            "taken.",
            max(sizes) << 20: "MiB were asked for.",
            len(sizes): "you counted the holes.",
        },
        "write down where each hole begins and ends.",
        "What is free in all does not matter, only what is free in one piece.",
    )


# A map of what is needed --------------------------------------------------------------------


def exercise_3(function) -> Verdict:
    """Check a function that maps a span of a file, aligned and without a page too many."""
    unit = mmap.ALLOCATIONGRANULARITY
    contents = random.Random(10).randbytes(5 * unit + unit // 2)
    spans = [(2 * unit + 100, 200), (3 * unit, 50), (3 * unit - 20, 40), (5 * unit + 7, unit // 4)]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "range.dat"
        path.write_bytes(contents)
        for offset, length in spans:
            found, verdict = attempt(function, path, offset, length)
            verdict = verdict or _judge_range(found, contents, offset, length)
            if isinstance(found, memoryview):
                found.release()
            if verdict:
                return verdict
    return right("From the page of the first byte to the last byte, and no copy.")


def _judge_range(found, contents: bytes, offset: int, length: int) -> Verdict | None:
    """The hint for one answer, or None if it is right."""
    if isinstance(found, mmap.mmap):
        return hint("that is a map, and it begins where its page does: give a view of the bytes.")
    if isinstance(found, bytes | bytearray):
        return hint("that is a copy of the bytes, in memory of your own: give a window on the map.")
    if not isinstance(found, memoryview):
        return hint(f"expected a memoryview, found a {type(found).__name__}.")
    if not isinstance(found.obj, mmap.mmap):
        return hint(f"expected a window on a map, found one on a {type(found.obj).__name__}.")
    if bytes(found) != contents[offset : offset + length]:
        return hint(
            f"with offset {offset:,} expected the {length:,} bytes from there on, found others: "
            "where in the map does the first of them lie?"
        )
    if len(found.obj) > offset % mmap.ALLOCATIONGRANULARITY + length:
        return hint(
            f"the bytes are right, but the map is {len(found.obj):,} bytes long for {length:,} "
            "that were asked for: which of those before and after them does it need?"
        )
    return None
