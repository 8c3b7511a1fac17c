"""Checks of notebooks/00_start_here.ipynb."""

import random

from qm9lab.course.check import Verdict, ask, number


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


def question_2(seed: int) -> str:
    """The question for ``seed``."""
    page_kib, offset = _draw(seed + 1000)
    return ask(
        f"On a machine with a granularity of {page_kib} KiB: what is the last offset at which "
        f"a map may begin that holds the byte at offset {offset:,}?"
    )


def exercise_2(answer, seed: int) -> Verdict:
    """Check an offset that was aligned down to the granularity."""
    page_kib, offset = _draw(seed + 1000)
    page = page_kib * 1024
    down = offset // page * page
    return number(
        answer,
        down,
        {
            offset // page: "that counts blocks; at which byte does that block begin?",
            down + page: "a map that begins there begins after the byte.",
            offset % page: "that is how far past the allowed offset the byte lies.",
            offset: "that is the offset before alignment.",
            offset // (page_kib * 1000) * page_kib * 1000: "KiB is 1024 bytes, not 1000.",
        },
        "the answer is a multiple of the granularity, at or before the byte.",
        "Align down: offset // granularity * granularity.",
    )
