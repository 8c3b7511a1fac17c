"""What a process added, look by look; and what stands in for Linux's numbers on other systems."""

import mmap
import os
import struct
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil

from qm9lab import measure, processes, records
from qm9lab.measure import Missing, is_missing

MIB = 1 << 20
FIELDS = {"RSS (MiB)": "rss_mib", "owned (MiB)": "owned_mib"}
FIELDS |= {"minor faults": "minor", "major faults": "major"}
"""As the lesson's picture names what it draws -> field of a ``Look``."""


class Look(NamedTuple):
    """What a process had added when it looked at itself."""

    seconds: float | Missing  # since its first look, as all but the cached pages
    rss_mib: float | Missing
    owned_mib: float | Missing
    minor: int | Missing  # page faults
    major: int | Missing
    cached_pages: int | Missing  # of the file, in the page cache then


class Costs(NamedTuple):
    """What one process added to answer questions about one file."""

    way: str
    file_mib: float
    file_pages: int
    after: dict[int | str, Look]  # by the number of questions answered; last, after an "advice"
    peak_mib: float | Missing  # the kernel's highest RSS of the process, less its first look's

    def column(self, name: str) -> np.ndarray:
        """One number of all looks, ``(n_looks,)`` float64: NaN, which is not drawn, if missing."""
        field = FIELDS.get(name, name)
        return np.array([getattr(look, field) for look in self.after.values()], np.float64)

    def cached_share(self, n_asked: int) -> float | Missing:
        """The part of the file that is in the page cache after so many questions."""
        return self.after[n_asked].cached_pages / self.file_pages


def write_records(path, record_file: Path) -> int:
    """A file with a record of 1,024 bytes for each molecule; returns its size in bytes.

    A record is the energy as ``<d``, the SMILES, and zeros.
    """
    with open(path, "wb") as f:
        for _, smiles, energy in records.walk(record_file.read_bytes()):
            f.write(struct.pack("<d1016s", energy, smiles.encode()))
        return f.tell()


def look(path) -> list:
    """The looks of the lesson's ``ask``, where psutil reports other numbers than on Linux."""
    rss, owned = psutil.Process().memory_info().rss, measure.resident().anonymous_bytes
    minor, major, _ = measure.faults()
    return [time.perf_counter(), rss, owned, minor, major, measure.cache_state(path).n_cached]


def added(
    path, way: str, when: Sequence[int], advice: int | None, outcome, is_cold: bool | Missing
) -> Costs:
    """The costs of a process that returned its looks; the second of them counts as 0.

    Then come one for each number of questions in ``when``, and on Linux one after an advice. A
    child that ran out of time has none. If nobody knows that the file was cold, the major faults
    and the cached pages are missing. RuntimeError if the file, unless it is PyG's, was not cold.
    """
    if is_cold is False and way != "PyG":  # PyG's file may be in use by other programs
        raise RuntimeError(
            f"{path}: expected a cold file, found pages that stay in the page cache: close the "
            "maps of this file, and run this cell again"
        )
    asked, n_numbers = [0, *when, *(["advice"] if advice else [])], len(Look._fields)
    if is_missing(outcome.value):
        looks = [[outcome.value] * n_numbers] * len(asked)
    else:
        looks = outcome.value[1:]
    if len(looks) < len(asked):
        looks = [*looks, [Missing("only Linux has this advice")] * n_numbers]
    after = {}
    for n_asked, (*numbers, n_cached) in zip(asked, looks, strict=True):
        since = [now - first for now, first in zip(numbers, looks[0], strict=False)]
        seconds, rss, owned, minor, major = since
        if is_missing(is_cold):
            major = n_cached = is_cold
        after[n_asked] = Look(seconds, rss / MIB, owned / MIB, minor, major, n_cached)
    n_bytes = os.path.getsize(path)
    n_pages = -(-n_bytes // mmap.PAGESIZE)
    peak_mib = (outcome.peak_rss_bytes - looks[0][1]) / MIB
    return Costs(way, n_bytes / MIB, n_pages, after, peak_mib)


def on_linux(function: Callable[..., Any], *args: Any, uses: Sequence) -> Any:
    """What a function returns in a fresh process, or the last line of its error."""
    if not psutil.LINUX:
        return Missing("only Linux counts all that a process owns towards RLIMIT_DATA")
    outcome = processes.run(function, *args, uses=uses)
    return outcome.last_line or outcome.value
