"""Checks of notebooks/03_mmap_parameters.ipynb."""

import random

from qm9lab.course.check import NOT_YET, Verdict, hint, is_stub, number, right

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
    aligned, above = n_before * granularity, (n_before + 1) * granularity
    unaligned = "that is the offset before alignment: mmap would fail with EINVAL."
    return number(
        answer,
        (aligned, delta),
        {
            (delta, aligned): "those are the right two numbers in the wrong order.",
            (n_before, delta): "your first number counts granules, but mmap needs bytes.",
            (offset, 0): unaligned,
            (offset, delta): unaligned,
            (aligned, 0): "index 0 of the map is the byte at the aligned offset, not the record.",
            (aligned, offset): "the index counts from the map's first byte, not from the file's.",
            (above, delta): "that map begins after the record's first byte.",
            (above, granularity - delta): "you rounded up: the map begins after the record.",
            (above, -(granularity - delta)): "you rounded up: index -1 is the map's last byte.",
            (aligned, granularity - delta): "that is how far the record is from the next boundary.",
        },
        "what is the largest multiple of the granularity that is not above the record's offset? "
        "How far from it is the record?",
        "A map from there, longer by the index, contains the record.",
    )


# 2: name the error ----------------------------------------------------------------------------

# The call, what it does on Linux, and a hint. ``path`` is a file of two and a half granules,
# ``size`` its size, ``granule`` mmap.ALLOCATIONGRANULARITY; ``empty`` an empty file.
CALLS = (
    (
        'f = open(path, "rb")\nmmap.mmap(f.fileno(), 0)',
        "EACCES",
        "without prot and access, Python asks for a shared map to read and to write. May you write "
        "to this file?",
    ),
    (
        'f = open(path, "rb")\nmmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY)',
        "a map",
        "where do changes to a private map go? Must the file be open for writing?",
    ),
    (
        'f = open(path, "r+b")\nmmap.mmap(f.fileno(), size + 1)',
        "ValueError",
        "Python compares length with the size of the file before it asks the kernel.",
    ),
    (
        'f = open(empty, "r+b")\nmmap.mmap(f.fileno(), 0)',
        "ValueError",
        "0 means the whole file. How many bytes is that, and who objects, Python or the kernel?",
    ),
    (
        'f = open(path, "rb")\n'
        "mmap.mmap(f.fileno(), 10, access=mmap.ACCESS_READ, offset=granule // 2)",
        "EINVAL",
        "is this offset a multiple of the granularity? Python does not check, mmap(2) does.",
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
        "what does the number fd mean after os.close?",
    ),
    (
        'f = open(path, "r+b")\n'
        "mmap.mmap(f.fileno(), 0, flags=mmap.MAP_PRIVATE, access=mmap.ACCESS_COPY)",
        "ValueError",
        "access= is short for prot and flags. May you give both?",
    ),
    (
        'f = open(path, "rb")\n'
        "mmap.mmap(f.fileno(), 0, flags=mmap.MAP_PRIVATE,\n"
        "          prot=mmap.PROT_READ | mmap.PROT_WRITE)",
        "a map",
        "ACCESS_COPY is short for these prot and flags.",
    ),
    (
        "fd = os.open(path, os.O_WRONLY)\nmmap.mmap(fd, 0, prot=mmap.PROT_WRITE)",
        "EACCES",
        "whatever prot is, the kernel must be able to read the pages of the file.",
    ),
    (
        'f = open(path, "rb")\nmmap.mmap(f.fileno(), 0, flags=0, prot=mmap.PROT_READ)',
        "EINVAL",
        "the call has neither MAP_SHARED nor MAP_PRIVATE.",
    ),
)
SAME = {"PERMISSIONERROR": "EACCES", "MAP": "a map", "A MAP": "a map", "VALUEERROR": "ValueError"}
NAMES = ("a map", "ValueError", "EACCES", "EBADF", "EINVAL")


def question_2(seed: int) -> str:
    """The question for ``seed``."""
    return (
        "granule is mmap.ALLOCATIONGRANULARITY; path is a file of two and a half\n"
        "granules, of size bytes; empty is an empty file.\n\n"
        f"{random.Random(seed).choice(CALLS)[0]}\n\n"
        f"What does the call do on Linux? Answer one of {', '.join(map(repr, NAMES))}."
    )


def exercise_2(answer, seed: int) -> Verdict:
    """Check what a call does."""
    _, expected, words = random.Random(seed).choice(CALLS)
    if is_stub(answer):
        return NOT_YET
    named = SAME.get(str(answer).strip().upper(), str(answer).strip().upper())
    if named == expected:
        return right("Run it and see.")
    otherwise = f"answer with one of these: {', '.join(NAMES)}."
    if named == "OSERROR":
        otherwise = "an OSError has an errno: which one?"
    return hint(words if named in NAMES else otherwise)


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
    zeros = max(0, offset + span - size)
    whole = "a region has whole pages: round the length up."
    mistakes = {
        (zeros, span): "those are the right two numbers in the wrong order.",
        (length, 0): whole,
        (length, zeros): whole,
        (length // page * page, 0): "a region that was rounded down would be too short.",
        (span // page, zeros): "your first number counts pages, but the question asks for bytes.",
        (-(-size // page) * page, zeros): "that is the whole file. Where does the map begin?",
    }
    if offset + length == size:
        praise = "What you write over those zeros does not reach the file."
        mistakes[span, 0] = "where in its last page does the file end, and what comes after?"
    else:
        praise = "Past the end of the file you read zeros. Past length you read more of the file."
        mistakes[span, span - length] = "length ends there, but does the file? More bytes follow."
    return number(
        answer,
        (span, zeros),
        mistakes,
        "round the length up to whole pages. How far past the file's end does the region reach?",
        praise,
    )
