"""Run a visible script in a child process on a cold or a warm file, and keep what it added.

Derived in notebooks/07_full_load_vs_lazy.ipynb. The scripts of the lesson take the baseline and
report. This module brings the file to its temperature, starts the child process, and counts the
file's cached pages.
"""

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from qm9lab import measure, processes
from qm9lab.course.outcomes import values_of
from qm9lab.measure import Missing, first_missing, is_missing


class Measurement(NamedTuple):
    """What one process added between its baseline and an answer.

    Every value from ``answer`` on may be ``Missing``.
    """

    way: str  # how it got the data
    temperature: str  # "cold" or "warm"
    pattern: str  # what was asked
    source_bytes: int  # the size of the file
    answer: float | Missing
    anonymous_bytes: int | Missing  # resident memory of its own
    file_bytes: int | Missing  # resident pages of files (of libraries too) that it maps
    minor: int | Missing  # page faults
    major: int | Missing
    disk_bytes: int | Missing  # from the disk for this process, with readahead (proc_pid_io(5))
    cached_bytes: int | Missing  # the page cache gained of the file until the child ended
    peak_rss_bytes: int | Missing  # ru_maxrss of the child, its imports included
    timeline: measure.Timeline | Missing

    @property
    def owned_share(self) -> float | Missing:
        """Anonymous memory added, as a share of the size of the file."""
        return self.anonymous_bytes / self.source_bytes

    @property
    def sampled_peak_bytes(self) -> int | Missing:
        """The most resident memory that the timeline saw, its baseline included."""
        if is_missing(self.timeline):
            return self.timeline
        return np.max(self.timeline.anonymous_bytes + self.timeline.file_bytes)


def measure_script(
    way: str, script: str, path, temperature: str, asked_path, patterns: Sequence[str]
) -> list[Measurement]:
    """Run a script in one child process, and measure what it added after each question.

    It gets ``path``, ``asked_path``, the temperature ("cold" or "warm") and the patterns as
    arguments. It prints one line of ``outcomes.to_json``: the number of the file's pages that are
    cached at its baseline, and whether it is cold; for each pattern ``[pattern, answer,
    anonymous_bytes, file_bytes, minor, major, disk_bytes]``; and the columns of its timeline.

    Returns one measurement for each pattern. If the child ran out of time, all its values are
    missing. If nobody can know the file to be cold or warm, ``major``, ``disk_bytes`` and
    ``cached_bytes`` are. RuntimeError, with its last words, if the child fails.

    The kernel may drop clean pages at any time, and others may read the file. So a script
    makes a cold file cold again after its imports. A cold run whose file was warm all the same is
    repeated once, and so is a warm run that had to read from the disk.
    """
    path = Path(path)
    size = path.stat().st_size
    for _ in range(2):
        measure.bring_to(path, temperature)
        outcome = processes.run_script(script, path, asked_path, temperature, *patterns)
        n_cached, is_cold, rows, columns = values_of(outcome, 4)
        if is_missing(rows):
            return [Measurement(way, temperature, each, size, *[rows] * 9) for each in patterns]
        after = measure.cache_state(path)
        unknown = first_missing(is_cold if temperature == "cold" else n_cached)
        disturbed = n_cached if temperature == "cold" else rows[-1][-1]
        if unknown or is_missing(disturbed) or disturbed == 0:
            break
    if not unknown and temperature == "cold" and not is_cold:
        unknown = Missing(f"{path.name} does not get cold: another program uses it")
    cached = (after.n_cached - n_cached) * mmap.PAGESIZE
    timeline = measure.Timeline(*[c if is_missing(c) else np.array(c) for c in columns], "Sampler")
    found = []
    for pattern, answer, own, shared, minor, major, disk in rows:
        of_disk = [unknown or value for value in (major, disk, cached)]
        values = [answer, own, shared, minor, *of_disk, outcome.peak_rss_bytes, timeline]
        found.append(Measurement(way, temperature, pattern, size, *values))
    return found


def largest_fault_bytes() -> int:
    """The most that one fault makes resident in a buffer that asked for nothing special.

    A page, or a huge page where the system uses them always
    (``/sys/kernel/mm/transparent_hugepage``, Linux).
    """
    settings = Path("/sys/kernel/mm/transparent_hugepage")
    try:
        if "[always]" in (settings / "enabled").read_text():
            return int((settings / "hpage_pmd_size").read_text())
    except OSError:
        pass
    return mmap.PAGESIZE
