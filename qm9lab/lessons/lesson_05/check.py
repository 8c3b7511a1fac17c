"""Checks of notebooks/05_read_and_update.ipynb."""

import mmap
import random
import tempfile

from qm9lab.course.check import NOT_YET, Verdict, hint, is_stub, number, right

STORIES = (
    ("P stores 'p'", "P is flushed"),
    ("S stores 's'",),
    ("P stores 'p'", "S stores 's'"),
    ("S stores 's'", "P stores 'p'"),
    ("P stores 'p'", "S stores 's'", "P is mapped anew"),
    ("P stores 'p'", "P is mapped anew"),
    ("S stores 's'", "S stores 'o'", "S is flushed"),
)


def _play(story) -> str:
    """What P, S and read() see at the end, asked of this machine's kernel."""
    with tempfile.TemporaryFile() as f:
        f.write(b"o" * mmap.PAGESIZE)
        f.flush()
        maps = {
            "P": mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY),
            "S": mmap.mmap(f.fileno(), 0),
        }
        for act in story:
            who = maps[act[0]]
            if "stores" in act:
                who[0:1] = act[-2].encode()
            elif "flushed" in act:
                who.flush()
            else:
                who.close()
                maps["P"] = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY)
        f.seek(0)
        seen = maps["P"][0:1] + maps["S"][0:1] + f.read(1)
        for each in maps.values():
            each.close()
    return seen.decode()


def _draw_story(seed: int):
    return random.Random(seed).choice(STORIES)


def question_1(seed: int) -> str:
    """The question for ``seed``."""
    acts = "; then ".join(_draw_story(seed))
    return (
        "A file's first byte is 'o'. P is a private map of it (ACCESS_COPY), S a shared one.\n"
        f"{acts}. All stores go to the first byte.\n"
        "Which three characters do P, S and read() see, in this order? (Such as 'ooo'.)"
    )


def exercise_1(answer, seed: int) -> Verdict:
    """Check who sees what."""
    story = _draw_story(seed)
    if is_stub(answer):
        return NOT_YET
    if isinstance(answer, str):
        answer = "".join(answer.lower().replace(",", " ").split())
    if not (isinstance(answer, str) and len(answer) == 3 and set(answer) <= set("ops")):
        return hint("three characters were asked for, each o, p or s, with nothing between them.")
    seen = _play(story)
    if answer == seen:
        return right("That is what your kernel just did, too.")
    if answer[1] != answer[2]:
        return hint("S and read() look at the same page, the one in the page cache.")
    if "p" in answer[1:]:
        return hint("a store through a private map stays in its own copy, flushed or not.")
    if answer[1] != seen[1]:
        return hint("a store through S is in the page cache at once, before any flush.")
    if "P is mapped anew" in story:
        return hint("closing a private map throws its copies away; what does a new one look at?")
    if "P stores 'p'" in story:
        return hint("after its first store P looks at its own copy of the page.")
    return hint("P has stored nothing yet: which page does it look at?")


def _draw_stores(seed: int) -> tuple[int, list[int]]:
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
    page, offsets = _draw_stores(seed)
    return (
        f"Pages of {page // 1024} KiB. Doubles of 8 bytes are stored at the offsets\n"
        f"{', '.join(f'{offset:,}' for offset in offsets)}\n"
        "of a clean file, through a shared map. How many pages were stored to?"
    )


def exercise_2(answer, seed: int) -> Verdict:
    """Check a number of pages that became dirty."""
    page, offsets = _draw_stores(seed)
    starts = {offset // page for offset in offsets}
    touched = starts | {(offset + 7) // page for offset in offsets}
    return number(
        answer,
        len(touched),
        {
            len(offsets): "you counted stores, not pages.",
            len(starts): "you counted first bytes: in which page does each last byte lie?",
            len(offsets) + 1: "stores to one and the same page make one dirty page.",
            8 * len(offsets): "you counted bytes, not pages.",
        },
        "for each store: in which page is its first byte, and in which its last?",
        "A store can lie on two pages, and two stores on one.",
    )
