"""Checks of notebooks/05_read_and_update.ipynb."""

import mmap
import random
import struct
import tempfile

from qm9lab import records
from qm9lab.course.check import Verdict, attempt, hint, letters, right

from .pictures import play


def exercise_1(add) -> Verdict:
    """Check a function that adds a number to the energy of one record, in place."""
    before = b"".join(map(records.pack, ("C", "[H]O[H]", "N"), (-1.25, 2.75, 8.0)))
    start, at = 13, 13 + 4 + 7  # of the second record, and of its energy
    with tempfile.TemporaryFile(buffering=0) as f:
        f.write(before)
        mm = mmap.mmap(f.fileno(), 0)
        _, verdict = attempt(add, mm, start, 0.5, returns=False)
        f.seek(0)
        found = f.read()
    if verdict:
        return verdict
    if found == before:
        return hint("the file has not changed. Which function writes a number into the map itself?")
    if found[:at] + found[at + 8 :] != before[:at] + before[at + 8 :]:
        return hint("other bytes changed, too. The energy comes after the length and the text.")
    (energy,) = struct.unpack_from("<d", found, at)
    if energy == 0.5:
        return hint("the amount is there now. Read the old energy first, and add the amount to it.")
    if energy != 2.75 + 0.5:
        return hint(f"the energy was 2.75, the amount was 0.5, and the energy is {energy} now.")
    if mm.closed:
        return hint("you closed the map. Whoever gave it to you may need it again.")
    return right("Eight bytes at most were written, whatever the size of the file.")


STORIES = (
    ("P writes 'p'", "P is flushed"),
    ("S writes 's'",),
    ("P writes 'p'", "S writes 's'"),
    ("S writes 's'", "P writes 'p'"),
    ("P writes 'p'", "S writes 's'", "P is mapped again"),
    ("P writes 'p'", "P is mapped again"),
    ("S writes 's'", "S writes 'o'", "S is flushed"),
)


def question_2(seed: int) -> str:
    """The question for ``seed``."""
    acts = "; then ".join(random.Random(seed).choice(STORIES))
    return (
        "A file's first byte is 'o'. P is a private map of it (ACCESS_COPY), S a shared one.\n"
        f"{acts}. All writes go to the first byte.\n"
        "Which three characters do P, S and read() see, in this order? (Such as 'ooo'.)"
    )


def exercise_2(answer, seed: int) -> Verdict:
    """Check who sees what."""
    story = random.Random(seed).choice(STORIES)
    answer, verdict = letters(answer, 3, "ops")
    if verdict:
        return verdict
    with tempfile.TemporaryFile(buffering=0) as f:
        f.write(b"o" * mmap.PAGESIZE)
        seen = "".join(play(f, story).values())
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
