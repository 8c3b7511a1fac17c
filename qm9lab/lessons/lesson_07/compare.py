"""Run a visible script in a child from a cold or a warm file, and keep what it says it added.

Derived in notebooks/07_full_load_vs_lazy.ipynb, whose scripts take the baseline and report: this
module brings the file to its temperature, starts the child, and looks at the page cache before and
after.
"""

import json
import mmap
from pathlib import Path
from typing import NamedTuple

import numpy as np

from qm9lab import measure, processes


class Run(NamedTuple):
    """What one process added between its baseline and an answer; None where it is not to be had.

    Attributes
    ----------
    way, temperature, pattern : str
        How it got the data, "cold" or "warm", and what was asked.
    source_bytes : int
        The size of the file.
    answer : float
    anonymous_bytes, file_bytes : int or None
        Resident memory added: its own, and pages of files (of libraries too) that it maps.
    minor, major : int or None
        Page faults.
    disk_bytes : int or None
        Fetched from the disk for this process, readahead on its behalf included (proc_pid_io(5)).
    cached_bytes : int or None
        Pages of the file that the page cache has gained from the baseline to after the child.
    was_cold : bool or None
        Whether no page of the file was cached at the baseline; None where that is hidden.
    peak_rss_bytes : int or None
        ``ru_maxrss`` of the child, its imports included.
    timeline : measure.Timeline
    """

    way: str
    temperature: str
    pattern: str
    source_bytes: int
    answer: float
    anonymous_bytes: int | None
    file_bytes: int | None
    minor: int | None
    major: int | None
    disk_bytes: int | None
    cached_bytes: int | None
    was_cold: bool | None
    peak_rss_bytes: int | None
    timeline: measure.Timeline

    @property
    def owned_share(self) -> float | None:
        """Anonymous memory added, as a share of the size of the file."""
        return None if self.anonymous_bytes is None else self.anonymous_bytes / self.source_bytes

    @property
    def sampled_peak_bytes(self) -> int | None:
        """The most resident memory that the timeline saw, its baseline included."""
        parts = self.timeline.anonymous_bytes, self.timeline.file_bytes
        return None if any(part is None for part in parts) else int((parts[0] + parts[1]).max())


def run(way: str, script: str, path, temperature: str, *arguments, n_tries: int = 5) -> list[Run]:
    """One child, and a ``Run`` for each pattern that it was asked.

    The script gets ``path`` and ``arguments``. It prints one JSON line: the file's cached pages at
    its baseline; for each pattern ``[pattern, answer, anonymous_bytes, file_bytes, minor, major,
    disk_bytes]``; and the columns of its timeline.

    The kernel may drop clean pages at any time, and others may read the file. A warm run that had
    to fetch from the disk after all, and a cold one whose file was warm again at the baseline, is
    made again, up to ``n_tries`` times in all.

    Raises
    ------
    RuntimeError
        If the child fails; with its last words.
    """
    path = Path(path)
    for _ in range(n_tries):
        before = measure.bring_to(path, temperature)
        done = processes.run_script(script, path, *arguments)
        if done.returncode != 0:
            raise RuntimeError(
                f"{way}: expected an answer, found {done.how_it_ended}: {done.stderr.strip()}"
            )
        after = measure.cache_state(path)
        n_cached, rows, columns = json.loads(done.stdout)
        if temperature == "cold":
            spoiled = before.n_cached == 0 and n_cached  # warm again: somebody else read it
        else:
            spoiled = rows[-1][-1]  # it had to go to the disk after all
        if not spoiled:
            break
    hidden = n_cached is None or after.n_cached is None
    cached_bytes = None if hidden else (after.n_cached - n_cached) * mmap.PAGESIZE
    was_cold = None if hidden else n_cached == 0
    columns = [None if column is None else np.array(column) for column in columns]
    rest = cached_bytes, was_cold, done.peak_rss_bytes
    line = measure.Timeline(*columns, "measure.Sampler")
    size = path.stat().st_size
    return [
        Run(way, temperature, pattern, size, answer, *added, *rest, line)
        for pattern, answer, *added in rows
    ]


def find(runs, way: str, temperature: str, pattern: str) -> Run | None:
    """The last run of its kind, or None."""
    wanted = (way, temperature, pattern)
    return next((r for r in reversed(runs) if r[:3] == wanted), None)


def largest_fault_bytes() -> int:
    """The most that one fault makes resident in a buffer that asked for nothing special.

    A page; a huge page where the system uses them always
    (``/sys/kernel/mm/transparent_hugepage``, Linux).
    """
    settings = Path("/sys/kernel/mm/transparent_hugepage")
    try:
        if "[always]" in (settings / "enabled").read_text():
            return int((settings / "hpage_pmd_size").read_text())
    except OSError:
        pass
    return mmap.PAGESIZE


class Verdicts(NamedTuple):
    """Claims and whether they hold; None where a number was not to be had."""

    rows: list[tuple[str, bool | None]]

    @property
    def all_hold(self) -> bool:
        """True when no claim fails."""
        return all(holds is not False for _, holds in self.rows)

    def __repr__(self) -> str:
        words = {True: "holds", False: "FAILS", None: "-"}
        lines = [f"{words[holds]:5} | {claim}" for claim, holds in self.rows]
        if any(holds is None for _, holds in self.rows):
            lines.append("-: not available here, because this system has not got a number in it")
        return "\n".join(lines)


def verdicts(claims: str, **names) -> Verdicts:
    """Evaluate lines of ``expression | claim`` over ``names``.

    A comparison with None, or a value of a run that there is not, is "not available here".
    """
    rows = []
    for line in filter(str.strip, claims.splitlines()):
        expression, claim = (part.strip() for part in line.rsplit("|", 1))
        try:
            holds = bool(eval(expression, {}, names))
        except (TypeError, AttributeError):  # None has no order, and no fields
            holds = None
        rows.append((claim, holds))
    return Verdicts(rows)
