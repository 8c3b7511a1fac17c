"""Checks of notebooks/04_build_the_qm9_file.ipynb."""

import mmap
import random
import tempfile
from pathlib import Path
from unittest import mock

from qm9lab import records
from qm9lab.course.check import Verdict, ask, attempt, hint, number, right


def _draw_placeholder(seed: int) -> tuple[int, int]:
    """A placeholder's size in MiB, and the bytes that its records take."""
    draw = random.Random(seed)
    size_mib, used = draw.choice([100, 200, 50]), draw.randint(1_000_000, 9_000_000)
    # At least one byte is left over after the last phantom.
    return size_mib, used + ((size_mib * 2**20 - used) % 12 == 0)


def question_1(seed: int) -> str:
    """The question for ``seed``."""
    size_mib, used = _draw_placeholder(seed)
    return ask(
        f"A placeholder of {size_mib} MiB holds records in its first {used:,} bytes, then zeros. "
        "How many phantom records does `double_all` read after them?"
    )


def exercise_1(answer, seed: int) -> Verdict:
    """Check a number of phantom records."""
    size_mib, used = _draw_placeholder(seed)
    size = size_mib * 2**20
    zeros = size - used
    return number(
        answer,
        zeros // 12,
        {
            size // 12: "the records' own bytes are not phantoms: subtract them first.",
            zeros // 4: "a phantom has a length and a value: more than 4 bytes.",
            zeros // 8: "a phantom has a value and a length: more than 8 bytes.",
            zeros / 12: "`double_all` reads whole records.",
            zeros // 12 + 1: "the last few bytes are too few for one more phantom.",
            (size_mib * 1_000_000 - used) // 12: "MiB is 1024 * 1024 bytes.",
            zeros: "those are bytes: how many does one phantom take?",
        },
        "how many zero bytes are there, and how many does `double_all` take at a time?",
        "12 zero bytes each: a length of 0, no text, and the value 0.0.",
    )


def exercise_2(function) -> Verdict:
    """Check a function that builds a record file."""
    packed = [records.pack("C" * k, k / 2) for k in range(1, 400)]
    whole, was_mapped, flushed = b"".join(packed), [], []

    class Recording(mmap.mmap):
        """A map that notes each flush: its bytes then, and whether the file had its name."""

        def __init__(self, *args, **kwargs):
            was_mapped.append(True)

        def flush(self, *args):
            flushed.append((self[:], path.exists()))
            return super().flush(*args)

    # Windows does not remove what an answer has left open.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "built.dat"
        with mock.patch("mmap.mmap", Recording):
            _, verdict = attempt(function, str(path), packed, returns=False)
        # A str has a length, as a record has, but cannot be written to a map.
        failing = [*packed[:200], "not bytes", *packed[200:]]
        verdict = (
            verdict or _judge_built(path, whole) or _judge_failed(function, path, failing, whole)
        )
    if verdict:
        return verdict
    if not was_mapped:
        return hint("the file is right, but not made through a map: no call of mmap.mmap was seen.")
    if not flushed:
        return hint("your map was never flushed: after a power cut the file may be zeros.")
    if (whole, False) not in flushed:
        return hint("flush after the last record and before the rename.")
    if len(flushed) > 10:
        return hint(f"flush was called {len(flushed)} times: once, at the end, is enough.")
    return right("Whole or not at all, and on the disk before it gets its name.")


def _judge_built(path: Path, whole: bytes) -> Verdict | None:
    if not path.exists():
        return hint("no file has the name in path: did you rename the temporary one?")
    built = path.read_bytes()
    if len(built) > len(whole) and built.startswith(whole):
        return hint("there are zeros after the records: a walk will find phantoms there.")
    if len(built) < len(whole):
        return hint(f"the file has {len(built):,} bytes, the records {len(whole):,}.")
    if built != whole:
        return hint("the size is right, the bytes are not: does each record begin where one ended?")
    leftovers = [p.name for p in path.parent.iterdir() if p != path]
    if leftovers:
        return hint(f"{leftovers[0]} is still there: rename the temporary file, do not copy it.")
    return None


def _judge_failed(function, path: Path, failing: list, whole: bytes) -> Verdict | None:
    """A build that cannot end well leaves an old, whole file alone, and no other at all."""
    for has_old in (True, False):
        try:
            function(str(path), failing)
        except Exception:
            pass
        else:
            return hint("one record in the list was a str and your function raised no error.")
        if not has_old and path.exists():
            return hint("a build failed half-way, and a reader found half a file: rename last.")
        if has_old and not path.exists():
            return hint("a build failed half-way, and the old file was gone: remove nothing first.")
        if has_old and path.read_bytes() != whole:
            return hint("a build failed half-way, and a reader found a broken file, not the old.")
        path.unlink(missing_ok=True)
    return None
