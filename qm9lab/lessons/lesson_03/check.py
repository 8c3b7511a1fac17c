"""Checks of notebooks/03_mmap_parameters.ipynb."""

import mmap
import random
import tempfile
from pathlib import Path

from qm9lab.course.check import NOT_YET, Verdict, attempt, hint, is_stub, right

# 1: name the error ----------------------------------------------------------------------------

# The call, what it does on Linux, and a hint. ``path`` is a file of two and a half granules,
# ``size`` its size, ``granule`` mmap.ALLOCATIONGRANULARITY; ``empty`` an empty file.
CALLS = (
    (
        'f = open(path, "rb")\nmmap.mmap(f.fileno(), 0)',
        "EACCES",
        "which access do you get without access=, and may you write to this file?",
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
        "is this offset a multiple of the granularity? Python does not check, the system does.",
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
        "fd = os.open(path, os.O_WRONLY)\nmmap.mmap(fd, 0, prot=mmap.PROT_WRITE)",
        "EACCES",
        "whatever prot is, the kernel must be able to read the pages of the file.",
    ),
)
SAME = {"PERMISSIONERROR": "EACCES", "MAP": "a map", "A MAP": "a map", "VALUEERROR": "ValueError"}
NAMES = ("a map", "ValueError", "EACCES", "EBADF", "EINVAL")


def question_1(seed: int) -> str:
    """The question for ``seed``."""
    return (
        "granule is mmap.ALLOCATIONGRANULARITY. path is a file of two and a half granules,\n"
        "size is its size, and empty is an empty file.\n\n"
        f"{random.Random(seed).choice(CALLS)[0]}\n\n"
        f"What does the call do on Linux? Answer one of {', '.join(map(repr, NAMES))}."
    )


def exercise_1(answer, seed: int) -> Verdict:
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


# 2: a part of a file, to change ---------------------------------------------------------------

RAISED = {  # what a message has in it, and what to think about
    "PermissionError": "May a file that is opened like this be written to?",
    "Errno 22": "Is the offset that you pass a multiple of the granularity?",
    "greater than file size": "Add offset and length: where does this map end?",
}


def exercise_2(function) -> Verdict:
    """Check a function that maps a part of a file, and returns a view of it to write to."""
    granularity, verdict = mmap.ALLOCATIONGRANULARITY, NOT_YET
    content = bytes(k % 251 for k in range(4 * granularity))
    # Windows does not remove a file that an answer still has mapped.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder, "change.dat")
        for start, n in ((2 * granularity + granularity // 3, 20), (granularity, 7)):
            path.write_bytes(content)
            view, verdict = attempt(function, path, start, n)
            if not path.stat().st_size:
                return hint("the file is empty now: which mode keeps what is in the file?")
            if verdict:
                advice = [f" {RAISED[words]}" for words in RAISED if words in verdict.text]
                return verdict._replace(text=verdict.text + "".join(advice))
            verdict = _judge_view(view, path, content, start, n)
            if isinstance(view, memoryview):
                view.release()
            if not verdict.right:
                break
    return verdict


def _judge_view(view, path: Path, content: bytes, start: int, n: int) -> Verdict:
    if not isinstance(view, memoryview):
        return hint(f"a memoryview was asked for, this is a {type(view).__name__}.")
    if not isinstance(view.obj, mmap.mmap):
        return hint(f"that is a view of a {type(view.obj).__name__}, not of a map.")
    if len(view) != n:
        return hint(f"the view has {len(view):,} bytes, {n} were asked for.")
    if view != content[start : start + n]:
        return hint("these are other bytes: how far after the map's first byte does start lie?")
    if len(view.obj) > mmap.ALLOCATIONGRANULARITY + n:
        return hint(f"the map has {len(view.obj):,} bytes: map only the part that you need.")
    if view.readonly:
        return hint("the view is read-only: choose the access.")
    view[:] = b"!" * n
    if path.read_bytes()[start : start + n] != b"!" * n:
        return hint("what you write into the view does not reach the file: choose the access.")
    return right("What you write into the view reaches the file, and only this part is mapped.")
