"""Checks of notebooks/03_mmap_parameters.ipynb."""

import random

from qm9lab.course.check import NOT_YET, Verdict, hint, is_stub, right


def _pair(answer, names: str, expected, mistakes: dict, otherwise: str, praise: str) -> Verdict:
    """Check two whole numbers; ``mistakes`` maps a pair, or one of its numbers, to a hint."""
    if is_stub(answer) or (isinstance(answer, tuple | list) and ... in answer):
        return NOT_YET
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        return hint(f"two numbers were asked for: ({names}).")
    pair = tuple(answer)
    if any(isinstance(n, bool) or not isinstance(n, int) for n in pair):
        return hint(f"two whole numbers were asked for: ({names}).")
    if pair == expected:
        return right(praise)
    for wrong, words in mistakes.items():
        if wrong != expected and pair == wrong:
            return hint(words)
    return hint(otherwise)


# 1: align an offset ---------------------------------------------------------------------------


def _draw_offset(seed: int) -> tuple[int, int]:
    """A granularity and an offset that is no multiple of it, nor near the middle of two."""
    draw = random.Random(seed)
    granularity = draw.choice([4, 16, 64]) * 1024
    rest = draw.choice([1, 3]) * granularity // 4 + draw.randint(-500, 500)
    return granularity, draw.randint(3, 60) * granularity + rest


def question_1(seed: int) -> str:
    """The question for ``seed``."""
    granularity, offset = _draw_offset(seed)
    return (
        f"The granularity is {granularity:,} bytes. A record begins at offset {offset:,}.\n"
        "Which offset do you give to mmap, and at which index of the map does the record\n"
        "begin? Answer (offset, index)."
    )


def exercise_1(answer, seed: int) -> Verdict:
    """Check an aligned offset and the distance from it."""
    granularity, offset = _draw_offset(seed)
    n_before, delta = divmod(offset, granularity)
    aligned = n_before * granularity
    return _pair(
        answer,
        "offset, index",
        (aligned, delta),
        {
            (delta, aligned): "those are the right two numbers in the wrong order.",
            (n_before, delta): "your first number counts granules; mmap wants bytes.",
            (offset, 0): "that is the offset before alignment: mmap would say EINVAL.",
            (offset, delta): "that is the offset before alignment: mmap would say EINVAL.",
            (aligned, 0): "at the map's index 0 is the byte at the aligned offset, not the record.",
            (aligned, offset): "the index counts from the map's first byte, not from the file's.",
            (aligned + granularity, delta): "that map begins behind the record's first byte.",
            (aligned + granularity, granularity - delta): "you rounded up: the map would begin "
            "behind the record's first byte.",
            (aligned + granularity, delta - granularity): "you rounded up: an index below 0 "
            "counts from the map's end.",
            (aligned, granularity - delta): "that is how far the record is from the next boundary.",
        },
        "which multiple of the granularity is the last one not above the record's offset? "
        "How far from it is the record?",
        "A map from there, longer by the index, holds the record.",
    )


# 2: name the error ----------------------------------------------------------------------------

# The call, what comes of it on Linux, and a hint. ``path`` is a file of two and a half granules,
# ``size`` its size, ``granule`` mmap.ALLOCATIONGRANULARITY; ``empty`` an empty file.
CALLS = (
    (
        'f = open(path, "rb")\nmmap.mmap(f.fileno(), 0)',
        "EACCES",
        "without prot and access Python asks for a shared map to read and to write: may this file "
        "be written?",
    ),
    (
        'f = open(path, "rb")\nmmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY)',
        "a map",
        "where do the stores of a private map go? Must the file be open for writing?",
    ),
    (
        'f = open(path, "r+b")\nmmap.mmap(f.fileno(), size + 1)',
        "ValueError",
        "Python compares length with the size of the file before it asks the kernel.",
    ),
    (
        'f = open(empty, "r+b")\nmmap.mmap(f.fileno(), 0)',
        "ValueError",
        "0 means the whole file: how many bytes is that, and who objects, Python or the kernel?",
    ),
    (
        'f = open(path, "rb")\n'
        "mmap.mmap(f.fileno(), 10, access=mmap.ACCESS_READ, offset=granule // 2)",
        "EINVAL",
        "is this offset a multiple of the granularity? Python does not look, mmap(2) does.",
    ),
    (
        'f = open(path, "rb")\nmmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ, offset=granule)',
        "a map",
        "0 means: from the offset to the end of the file. Is this offset a multiple of the "
        "granularity, and within the file?",
    ),
    (
        "fd = os.open(path, os.O_RDONLY)\nos.close(fd)\nmmap.mmap(fd, 0, access=mmap.ACCESS_READ)",
        "EBADF",
        "what does the number fd stand for after os.close?",
    ),
    (
        'f = open(path, "r+b")\n'
        "mmap.mmap(f.fileno(), 0, flags=mmap.MAP_PRIVATE, access=mmap.ACCESS_COPY)",
        "ValueError",
        "access= is short for prot and flags: may you say both?",
    ),
    (
        'f = open(path, "rb")\n'
        "mmap.mmap(f.fileno(), 0, flags=mmap.MAP_PRIVATE,\n"
        "          prot=mmap.PROT_READ | mmap.PROT_WRITE)",
        "a map",
        "these prot and flags are what ACCESS_COPY stands for.",
    ),
    (
        "fd = os.open(path, os.O_WRONLY)\nmmap.mmap(fd, 0, prot=mmap.PROT_WRITE)",
        "EACCES",
        "whatever prot says, the kernel must be able to read the pages of the file.",
    ),
    (
        'f = open(path, "rb")\nmmap.mmap(f.fileno(), 0, flags=0, prot=mmap.PROT_READ)',
        "EINVAL",
        "the kernel is told neither MAP_SHARED nor MAP_PRIVATE.",
    ),
)
SAME = {"PERMISSIONERROR": "EACCES", "MAP": "a map", "A MAP": "a map", "VALUEERROR": "ValueError"}
NAMES = ("a map", "ValueError", "EACCES", "EBADF", "EINVAL")


def _draw_call(seed: int) -> tuple[str, str, str]:
    return random.Random(seed).choice(CALLS)


def question_2(seed: int) -> str:
    """The question for ``seed``."""
    return (
        "granule is mmap.ALLOCATIONGRANULARITY; path is a file of two and a half\n"
        "granules, of size bytes; empty is an empty file.\n\n"
        f"{_draw_call(seed)[0]}\n\n"
        f"What comes of the call, on Linux? One of {', '.join(map(repr, NAMES))}."
    )


def exercise_2(answer, seed: int) -> Verdict:
    """Check what comes of a call."""
    _, expected, words = _draw_call(seed)
    if is_stub(answer):
        return NOT_YET
    if not isinstance(answer, str):
        return hint("a name was asked for, as text.")
    named = SAME.get(answer.strip().upper(), answer.strip().upper())
    if named == expected:
        return right("Run it and see.")
    if named == "OSERROR":
        return hint("an OSError carries an errno: which one?")
    if named not in NAMES:
        return hint(f"one of these was asked for: {', '.join(NAMES)}.")
    return hint(words)


# 3: the length of the region ------------------------------------------------------------------


def _draw_length(seed: int) -> tuple[int, int, int, int]:
    """Page size, file size, offset and length of a map: to the file's end, or one that is not."""
    draw = random.Random(seed)
    page = draw.choice([4, 16]) * 1024
    n_pages = draw.randint(5, 30)
    size = n_pages * page + draw.randint(page // 8, page - page // 8)
    offset = draw.randint(1, n_pages - 3) * page
    if draw.random() < 0.65:
        return page, size, offset, size - offset
    return page, size, offset, draw.randint(page + 10, 2 * page - 10)


def question_3(seed: int) -> str:
    """The question for ``seed``."""
    page, size, offset, length = _draw_length(seed)
    return (
        f"Pages of {page:,} bytes. A file of {size:,} bytes is mapped with offset {offset:,}\n"
        f"and length {length:,}. How many bytes of addresses does the region span, and how many\n"
        "of them lie past the end of the file and read 0? Answer (span, zeros)."
    )


def exercise_3(answer, seed: int) -> Verdict:
    """Check the span of a region and the zeros in it."""
    page, size, offset, length = _draw_length(seed)
    span = -(-length // page) * page
    to_the_end = offset + length == size
    zeros = max(0, offset + span - size)
    mistakes = {
        (zeros, span): "those are the right two numbers in the wrong order.",
        (length, 0): "addresses are handed out in whole pages: round the length up.",
        (length, zeros): "addresses are handed out in whole pages: round the length up.",
        (length // page * page, 0): "rounded down the region would not hold what was asked for.",
        (span // page, zeros): "your first number counts pages; bytes were asked for.",
        (-(-size // page) * page, zeros): "that is the whole file in pages: the map begins at the "
        "offset.",
    }
    if to_the_end:
        mistakes[span, 0] = "where in its last page does the file end, and what comes behind?"
    else:
        mistakes[span, span - length] = (
            "length ends there, but does the file? Behind length come more bytes of the file."
        )
    return _pair(
        answer,
        "span, zeros",
        (span, zeros),
        mistakes,
        "round the length up to whole pages; then ask how far the region reaches past the "
        "file's last byte.",
        "Behind the end of the file a page holds zeros; behind length alone, more of the file."
        if not to_the_end
        else "Stores to those zeros go nowhere: they are not in the file.",
    )
