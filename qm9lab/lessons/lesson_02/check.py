"""Checks of notebooks/02_first_map.ipynb."""

import mmap
import random
import tempfile
from pathlib import Path

import psutil

from qm9lab.course.check import NOT_YET, Verdict, attempt, hint, is_stub, right


def exercise_1(function) -> Verdict:
    """Check a function that maps a file to read it."""
    content = b"a file to look at\n" * 1000
    # Windows does not remove what an answer has left open.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "look.dat"
        path.write_bytes(content)
        found, verdict = attempt(function, path)
        if verdict:
            return verdict
        verdict = _judge_map(found, path, content)
        if isinstance(found, mmap.mmap) and not found.closed:
            found.close()
        return verdict


def _judge_map(found, path: Path, content: bytes) -> Verdict:
    if found is None:
        return hint("your function returned None: is `return` missing?")
    if isinstance(found, bytes):
        return hint("that is a copy: the bytes were read, not mapped.")
    if isinstance(found, memoryview):
        return hint("a view of a map is near it; return the map itself.")
    if not isinstance(found, mmap.mmap):
        return hint(f"a map was asked for, this is a {type(found).__name__}.")
    if found.closed:
        return hint("the map is closed already: only the file should be.")
    if len(found) != len(content):
        return hint(
            f"the map has {len(found):,} bytes, the file {len(content):,}: what means 'all'?"
        )
    try:
        found[0:1] = b"X"
    except TypeError:
        pass
    else:
        if path.read_bytes() == content:
            return hint("stores are possible, into a private copy: none at all was asked for.")
        return hint("a store through your map changed the file: choose the access.")
    found.close()  # and with it the duplicate of the descriptor that Python's map keeps
    if any(Path(f.path).name == path.name for f in psutil.Process().open_files()):
        return hint("the file is still open: a map does not need it any more.")
    return right("Read-only, whole, and the file is closed.")


LINES = (
    ("part = mm[10:20]", True),
    ("part = memoryview(mm)[10:20]", False),
    ("part = np.frombuffer(mm, np.uint8)[10:20]", False),
    ("part = bytes(mm)", True),
    ("part = mm.read(10)", True),
    ("part = np.array(np.frombuffer(mm, np.uint8))", True),
    ("part = np.frombuffer(mm, '<f8', count=4)", False),
)


def _draw_lines(seed: int) -> list[tuple[str, bool]]:
    lines = random.Random(seed).sample(LINES, 5)
    return lines if 1 < sum(copies for _, copies in lines) else _draw_lines(seed + 10_000)


def question_2(seed: int) -> str:
    """The question for ``seed``."""
    return "\n".join(
        f"{letter})  {line}" for letter, (line, _) in zip("abcde", _draw_lines(seed), strict=True)
    )


def exercise_2(answer, seed: int) -> Verdict:
    """Check which lines copy bytes out of a map."""
    lines = _draw_lines(seed)
    if is_stub(answer):
        return NOT_YET
    if not isinstance(answer, str):
        return hint("answer with letters, as text.")
    chosen = set(answer.lower()) - set(" ,;")
    if not chosen <= set("abcde"):
        return hint("answer with the letters a to e only.")
    copies = {letter for letter, (_, copy) in zip("abcde", lines, strict=True) if copy}
    if chosen == copies:
        return right("Slices, bytes() and read() copy; memoryview and frombuffer do not.")
    if chosen == set("abcde") - copies:
        return hint("those are the windows; the copies were asked for.")
    if chosen - copies:
        wrong = dict(zip("abcde", lines, strict=True))[min(chosen - copies)][0]
        return hint(f"would a store through mm show in part after `{wrong}`?")
    return hint("at least one more of them makes new bytes.")
