"""Checks of notebooks/04_build_the_qm9_file.ipynb."""

import contextlib
import mmap
import random
import tempfile
from pathlib import Path

from .. import records
from . import Verdict, attempt, hint, number, right


def _draw_placeholder(seed: int) -> tuple[int, int]:
    """A placeholder's size in MiB, and the bytes that its records take."""
    draw = random.Random(seed)
    size_mib, used = draw.choice([10, 20, 50]), draw.randint(1_000_000, 9_000_000)
    # At least one byte is left over behind the last phantom: there the walk dies.
    return size_mib, used + (((size_mib << 20) - used) % 12 == 0)


def question_1(seed: int) -> str:
    """The question for ``seed``."""
    size_mib, used = _draw_placeholder(seed)
    return (
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
    """A map that counts: how many were made, and how often they were flushed."""

    n_made = n_flushed = 0

    def __init__(self, *args, **kwargs):
        _Recording.n_made += 1

    def flush(self, *args):
        _Recording.n_flushed += 1
        return super().flush(*args)


@contextlib.contextmanager
def _recorded():
    """While this lasts, the learner's ``mmap.mmap`` counts."""
    _Recording.n_made = _Recording.n_flushed = 0
    plain, mmap.mmap = mmap.mmap, _Recording
    try:
        yield
    finally:
        mmap.mmap = plain


def exercise_2(function) -> Verdict:
    """Check a function that builds a record file."""
    packed = [records.pack("C" * k, k / 2) for k in range(1, 400)]
    whole = b"".join(packed)
    with tempfile.TemporaryDirectory() as folder, _recorded():
        path = Path(folder) / "built.dat"
        _, verdict = attempt(function, path, packed)
        verdict = verdict or _judge_built(path, whole)
        if verdict:
            return verdict
        # A str has a length, as a record has, but cannot be stored.
        return _judge_failed(function, path, [*packed[:200], "not bytes", *packed[200:]], whole)


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
    if not _Recording.n_made:
        return hint("the file is right, but it was not made through a map.")
    if not _Recording.n_flushed:
        return hint("nothing was flushed: after a power cut the new name may lead to zeros.")
    if _Recording.n_flushed > 10:
        return hint(f"flush was called {_Recording.n_flushed} times: once, at the end, will do.")
    leftovers = [p.name for p in path.parent.iterdir() if p != path]
    if leftovers:
        return hint(f"{leftovers[0]} is left over: rename the temporary file, do not copy it.")
    return None


def _judge_failed(function, path: Path, failing: list, whole: bytes) -> Verdict:
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
    return right("Whole or not at all, and on the disk before it has its name.")
