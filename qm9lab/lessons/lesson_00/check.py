"""Checks of notebooks/00_start_here.ipynb."""

import mmap
import random

from qm9lab import records
from qm9lab.course.check import Verdict, ask, attempt, hint, number, right


def _draw(seed: int) -> tuple[int, int]:
    """A page size in KiB and a number of bytes that is no multiple of it."""
    draw = random.Random(seed)
    page_kib = draw.choice([4, 8, 16, 64])
    page = page_kib * 1024
    return page_kib, page * draw.randint(3, 90) + draw.randint(1, page // 2 - 1)


def question_1(seed: int) -> str:
    """The question for ``seed``."""
    page_kib, n_bytes = _draw(seed)
    return ask(
        f"On a machine with pages of {page_kib} KiB, how many pages does a file "
        f"of {n_bytes:,} bytes take?"
    )


def exercise_1(answer, seed: int) -> Verdict:
    """Check a number of pages."""
    page_kib, n_bytes = _draw(seed)
    page = page_kib * 1024
    return number(
        answer,
        -(-n_bytes // page),
        {
            n_bytes // page: "that leaves out the last, partly filled page.",
            -(-n_bytes // (page_kib * 1000)): "KiB is 1024 bytes, not 1000.",
            n_bytes / page: "a file takes whole pages only.",
        },
        "divide the bytes by the page size, and think about what is left over.",
        "The last page is only partly filled, but it takes a whole page.",
    )


def exercise_2(function) -> Verdict:
    """Check a function that reads the record at an offset of a map."""
    molecules = [("C", -1101.5), ("N#N", 2.25), ("OCC", -4212.125)]
    content = b"".join(records.pack(text, energy) for text, energy in molecules)
    with mmap.mmap(-1, len(content)) as mm:
        mm[:] = content
        offset = 0
        for text, energy in molecules:
            end = records.unpack(content, offset).end_bytes
            found, verdict = attempt(function, mm, offset)
            verdict = verdict or _judge_record(found, text, energy, offset, end)
            if verdict:
                return verdict
            offset = end
    return right("Call it again and again, each time with the offset that it returned.")


def _judge_record(found, text: str, energy: float, offset: int, end: int) -> Verdict | None:
    """The hint for one answer, or None if it is right."""
    if not isinstance(found, tuple | list) or len(found) != 3:
        return hint("three values were asked for: return text, energy, next_offset.")
    if isinstance(found[0], bytes):
        return hint("the text is still bytes: decode makes text from them.")
    if isinstance(found[1], tuple):
        return hint("unpack_from returns a tuple, also for one number: take the number out.")
    if (found[0], found[1]) != (text, energy):
        first = "" if offset == 0 else " Do all offsets count from the one that you were given?"
        return hint(f"the record at offset {offset} has another text or energy.{first}")
    if found[2] == end:
        return None
    if found[2] == end - offset:
        return hint("that is the length of the record. Where in the file does the next one begin?")
    return hint("a record has 4 bytes, the text, and 8 bytes. Where does the next one begin?")
