"""Checks of notebooks/05_read_and_update.ipynb."""

import mmap
import random
import tempfile

from qm9lab.course.check import Verdict, hint, letters, number, right

STORIES = (
    ("P writes 'p'", "P is flushed"),
    ("S writes 's'",),
    ("P writes 'p'", "S writes 's'"),
    ("S writes 's'", "P writes 'p'"),
    ("P writes 'p'", "S writes 's'", "P is mapped again"),
    ("P writes 'p'", "P is mapped again"),
    ("S writes 's'", "S writes 'o'", "S is flushed"),
)


def _play(story) -> str:
    """What P, S and read() see at the end, on this machine's kernel."""
    with tempfile.TemporaryFile() as f:
        f.write(b"o" * mmap.PAGESIZE)
        f.flush()
        access = {"P": mmap.ACCESS_COPY, "S": mmap.ACCESS_WRITE}
        maps = {who: mmap.mmap(f.fileno(), 0, access=access[who]) for who in access}
        for act in story:
            who = act[0]
            if "writes" in act:
                maps[who][0:1] = act[-2].encode()
            elif "flushed" in act:
                maps[who].flush()
            else:
                maps[who].close()
                maps[who] = mmap.mmap(f.fileno(), 0, access=access[who])
        f.seek(0)
        seen = maps["P"][0:1] + maps["S"][0:1] + f.read(1)
        maps["P"].close()
        maps["S"].close()
    return seen.decode()


def question_1(seed: int) -> str:
    """The question for ``seed``."""
    acts = "; then ".join(random.Random(seed).choice(STORIES))
    return (
        "A file's first byte is 'o'. P is a private map of it (ACCESS_COPY), S a shared one.\n"
        f"{acts}. All writes go to the first byte.\n"
        "Which three characters do P, S and read() see, in this order? (Such as 'ooo'.)"
    )


def exercise_1(answer, seed: int) -> Verdict:
    """Check who sees what."""
    story = random.Random(seed).choice(STORIES)
    answer, verdict = letters(answer, 3, "ops")
    if verdict:
        return verdict
    seen = _play(story)
    if answer == seen:
        return right("Your kernel just did the same.")
    if answer[1] != answer[2]:
        return hint("S and read() look at the same page, the one in the page cache.")
    if "p" in answer[1:]:
        return hint("a write through a private map stays in its own copy, flushed or not.")
    if answer[1] != seen[1]:
        return hint("a write through S is in the page cache at once, before any flush.")
    if "P is mapped again" in story:
        return hint("closing a private map drops its copies: which page does a new map look at?")
    if "P writes 'p'" in story:
        return hint("after its first write P looks at its own copy of the page.")
    return hint("P has written nothing yet: which page does it look at?")


def _draw_writes(seed: int) -> tuple[int, list[int]]:
    """A page size in bytes, and offsets of doubles: some share a page, some span two."""
    draw = random.Random(seed)
    page = draw.choice([4, 16]) * 1024
    pages = draw.sample(range(1, 30, 2), 6)
    n_spanning, n_together = draw.randint(0, 2), draw.randint(1, 2)
    alone = [page * k + draw.randint(100, page - 100) for k in pages[n_spanning:]]
    spanning = [page * (k + 1) - draw.randint(1, 7) for k in pages[:n_spanning]]
    together = [offset // page * page + 8 * draw.randint(1, 9) for offset in alone[:n_together]]
    offsets = [*spanning, *alone, *together]
    draw.shuffle(offsets)
    return page, offsets


def question_2(seed: int) -> str:
    """The question for ``seed``."""
    page, offsets = _draw_writes(seed)
    return (
        f"Pages of {page // 1024} KiB. Doubles of 8 bytes are written at the offsets\n"
        f"{', '.join(f'{offset:,}' for offset in offsets)}\n"
        "of a clean file, through a shared map. How many pages were written to?"
    )


def exercise_2(answer, seed: int) -> Verdict:
    """Check a number of pages that became dirty."""
    page, offsets = _draw_writes(seed)
    starts = {offset // page for offset in offsets}
    touched = starts | {(offset + 7) // page for offset in offsets}
    return number(
        answer,
        len(touched),
        {
            len(offsets): "you counted writes, not pages.",
            len(starts): "you counted first bytes: in which page does each last byte lie?",
            8 * len(offsets): "you counted bytes, not pages.",
        },
        "for each write: in which page is its first byte, and in which its last?",
        "One write can touch two pages, and two writes can touch the same page.",
    )
