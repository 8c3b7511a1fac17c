"""Checks of notebooks/02_first_map.ipynb."""

import contextlib
import gc
import mmap
import random
import tempfile
import warnings
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
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always", ResourceWarning)
            found, verdict = attempt(function, path)
            gc.collect()
        if any("unclosed file" in str(warning.message) for warning in warned):
            return hint(
                "you opened the file and kept no name for it, so Python closes it some time later. "
                "Open it in a with block."
            )
        verdict = verdict or _judge_map(found, path, content)
        if isinstance(found, mmap.mmap) and not found.closed:
            found.close()
        return verdict


def _judge_map(found, path: Path, content: bytes) -> Verdict:
    if isinstance(found, bytes):
        return hint("that is a copy: the bytes were read, not mapped.")
    if isinstance(found, memoryview):
        return hint("that is a view of a map: return the map itself.")
    if not isinstance(found, mmap.mmap):
        return hint(f"a map was asked for, this is a {type(found).__name__}.")
    if found.closed:
        return hint("the map is closed already: only the file should be.")
    if len(found) != len(content):
        sizes = f"the map has {len(found):,} bytes, the file {len(content):,}"
        return hint(f"{sizes}: which length means all?")
    with contextlib.suppress(TypeError):  # of a map that is to be read only
        found[0:1] = b"X"
        if path.read_bytes() != content:
            return hint("a write through your map changed the file: choose the access.")
        return hint("your map can be written to, in a private copy: choose the access for reading.")
    found.close()  # closes the duplicate of the descriptor that Python's map keeps, too
    if any(Path(f.path).name == path.name for f in psutil.Process().open_files()):
        return hint("the file is still open: close it, the map does not need it.")
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
    lines = zip("abcde", _draw_lines(seed), strict=True)
    return "\n".join(f"{letter})  {line}" for letter, (line, _) in lines)


def exercise_2(answer, seed: int) -> Verdict:
    """Check which lines copy bytes out of a map."""
    lines = dict(zip("abcde", _draw_lines(seed), strict=True))
    if is_stub(answer):
        return NOT_YET
    chosen = set(str(answer).lower()) - set(" ,;")
    if not chosen <= set(lines):
        return hint("answer with the letters a to e only, as text.")
    copies = {letter for letter, (_, is_copy) in lines.items() if is_copy}
    if chosen == copies:
        return right("Slices, bytes() and read() copy; memoryview and frombuffer do not.")
    if chosen == set(lines) - copies:
        return hint("those are the views: the copies were asked for.")
    if chosen - copies:
        wrong, _ = lines[min(chosen - copies)]
        return hint(f"after `{wrong}`, would part show a change made through mm?")
    return hint("at least one more of them makes new bytes.")
