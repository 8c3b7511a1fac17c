"""Checks of notebooks/04_build_the_qm9_file.ipynb."""

import contextlib
import mmap
import random
import tempfile
from pathlib import Path

from qm9lab import records
from qm9lab.course.check import Verdict, ask, attempt, hint, number, right


def _draw_placeholder(seed: int) -> tuple[int, int]:
    """A placeholder's size in MiB, and the bytes that its records take."""
    draw = random.Random(seed)
    size_mib, used = draw.choice([10, 20, 50]), draw.randint(1_000_000, 9_000_000)
    # At least one byte is left over behind the last phantom: there the walk dies.
    return size_mib, used + (((size_mib << 20) - used) % 12 == 0)


def question_1(seed: int) -> str:
    """The question for ``seed``."""
    size_mib, used = _draw_placeholder(seed)
    return ask(
        f"A placeholder of {size_mib} MiB holds records in its first {used:,} bytes, then zeros. "
        "How many phantom records does the printed program's walk read behind them?"
    )


def exercise_1(answer, seed: int) -> Verdict:
    """Check a number of phantom records."""
    size_mib, used = _draw_placeholder(seed)
    size = size_mib << 20
    return number(
        answer,
        (size - used) // 12,
        {
            size // 12: "the records' own bytes are not phantoms: take them off first.",
            (size - used)
            // 4: "a phantom's walk takes its length and its value: more than 4 bytes.",
            (size - used)
            // 8: "a phantom's walk takes its value and its length: more than 8 bytes.",
            (size - used) / 12: "a walk reads whole records.",
            -(
                -(size - used) // 12
            ): "the last few bytes do not suffice for one: there the walk dies.",
            (size_mib * 1_000_000 - used) // 12: "MiB is 1024 * 1024 bytes.",
            size - used: "those are bytes; how many does one phantom take?",
        },
        "how many zero bytes are there, and how many does the walk take at a time?",
        "12 zero bytes each: a length of 0, no text, and the value 0.0.",
    )


class _Recording(mmap.mmap):
    """A map that notes each flush: its bytes then, and whether the file had its name already."""

    n_made = 0
    flushed: list[tuple[bytes, bool]] = []
    path = Path()

    def __init__(self, *args, **kwargs):
        _Recording.n_made += 1

    def flush(self, *args):
        _Recording.flushed.append((self[:], _Recording.path.exists()))
        return super().flush(*args)


@contextlib.contextmanager
def _recorded(path: Path):
    """While this lasts, the learner's ``mmap.mmap`` takes notes."""
    _Recording.n_made, _Recording.flushed, _Recording.path = 0, [], path
    plain, mmap.mmap = mmap.mmap, _Recording
    try:
        yield
    finally:
        mmap.mmap = plain


def exercise_2(function) -> Verdict:
    """Check a function that builds a record file."""
    packed = [records.pack("C" * k, k / 2) for k in range(1, 400)]
    whole = b"".join(packed)
    # Windows does not remove what an answer has left open.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "built.dat"
        with _recorded(path):
            _, verdict = attempt(function, path, packed)
        # A str has a length, as a record has, but cannot be stored.
        failing = [*packed[:200], "not bytes", *packed[200:]]
        return (
            verdict
            or _judge_built(path, whole)
            or _judge_failed(function, path, failing, whole)
            or _judge_flushed(whole)
            or right("Whole or not at all, and on the disk before it has its name.")
        )


def _judge_built(path: Path, whole: bytes) -> Verdict | None:
    if not path.exists():
        return hint("no file has the name that was asked for: did you rename the temporary one?")
    built = path.read_bytes()
    if len(built) > len(whole) and built.startswith(whole):
        return hint("there are zeros behind the records: phantoms will live there.")
    if len(built) < len(whole):
        return hint(f"the file has {len(built):,} bytes, the records {len(whole):,}.")
    if built != whole:
        return hint("the size is right, the bytes are not: does each record begin where one ended?")
    leftovers = [p.name for p in path.parent.iterdir() if p != path]
    if leftovers:
        return hint(f"{leftovers[0]} is left over: rename the temporary file, do not copy it.")
    return None


def _judge_failed(function, path: Path, failing: list, whole: bytes) -> Verdict | None:
    """An old, whole file is at ``path``; a build that cannot end well must leave it alone."""
    try:
        function(path, failing)
    except Exception:
        pass
    else:
        return hint("one record in the list was a str and your function did not object.")
    if not path.exists():
        return hint(
            "a build failed half-way, and the old file was gone: remove nothing in advance."
        )
    if path.read_bytes() != whole:
        return hint(
            "a build failed half-way, and a reader found a broken file in place of the old."
        )
    path.unlink()
    try:
        function(path, [*failing[:50], "not bytes"])
    except Exception:
        pass
    if path.exists():
        return hint(
            "a build failed half-way, and a reader found half a file: use another name first."
        )
    return None


def _judge_flushed(whole: bytes) -> Verdict | None:
    if not _Recording.n_made:
        return hint("the file is right, but not made through a map: no call of mmap.mmap was seen.")
    n_flushed = len(_Recording.flushed)
    if not n_flushed:
        return hint("no mm.flush() was seen: after a power cut the new name may lead to zeros.")
    if (whole, False) not in _Recording.flushed:
        return hint("flush after the last store and before the rename, not at another time.")
    if n_flushed > 10:
        return hint(f"flush was called {n_flushed} times: once, at the end, will do.")
    return None
