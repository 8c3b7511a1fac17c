"""Small tools of lesson 08's cells: time a search, read all of a molecule, find an array's map."""

import mmap
import timeit

import numpy as np


def best_s(act, *args, repeat: int = 5) -> float:
    """The shortest time of several calls of ``act(*args)``, in seconds, after one without a clock.

    Quick acts are called often enough for a clock to see.
    """
    act(*args)
    once_s = timeit.timeit(lambda: act(*args), number=1)
    number = max(1, int(1e-3 / max(once_s, 1e-7)))
    return min(timeit.repeat(lambda: act(*args), number=number, repeat=repeat)) / number


def every_byte(parts) -> bytes:
    """All bytes of a molecule's fields (arrays, tensors, numbers, strings) in a row."""
    return b"".join(
        part.encode() if isinstance(part, str) else np.asarray(part).tobytes() for part in parts
    )


def map_of(array) -> mmap.mmap | None:
    """The map that an array is a view of, over other views perhaps; None if there is none."""
    while array is not None and not isinstance(array, mmap.mmap):
        array = array.obj if isinstance(array, memoryview) else getattr(array, "base", None)
    return array
