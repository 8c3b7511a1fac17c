"""Memory of a training's parent and workers, and molecules a second (lesson 11)."""

import multiprocessing
import os
import time
from typing import NamedTuple

from qm9lab import measure

MIB = 1 << 20


class ProcessMemory(NamedTuple):
    """Memory of one process, in bytes; each is a Missing where the system does not report it."""

    anonymous_bytes: int  # resident, each page whole
    share_bytes: int  # the same, each page divided by the number of processes that have it
    file_bytes: int  # pages of the data file in the page table; other files do not count


def memory(path) -> list[ProcessMemory]:
    """Memory of this process, then of each of its workers, in the order of their process numbers.

    ``path`` is the data file. Workers are what ``multiprocessing.active_children()`` returns, a
    DataLoader's among them.
    """
    found = []
    for pid in (os.getpid(), *sorted(each.pid for each in multiprocessing.active_children())):
        try:
            anonymous_bytes = measure.resident(pid).anonymous_bytes
            share_bytes = measure.footprint(pid).pss_anonymous_bytes
            file_bytes = measure.file_bytes(path, pid)
        except ProcessLookupError:
            continue  # a worker that has ended since
        found.append(ProcessMemory(anonymous_bytes, share_bytes, file_bytes))
    return found


class Report(NamedTuple):
    """A process before it got its data, and parent and workers after all had worked with it."""

    before: ProcessMemory
    processes: list[ProcessMemory]

    @property
    def parent_bytes(self) -> int:
        """Anonymous memory that the parent has added."""
        return self.processes[0].anonymous_bytes - self.before.anonymous_bytes

    @property
    def together_bytes(self) -> int:
        """Anonymous memory that all have added, each page counted once."""
        return sum(each.share_bytes for each in self.processes) - self.before.share_bytes

    def __repr__(self) -> str:
        missing = measure.first_missing(*self.before)
        if missing is not None:
            return f"memory of each process: {missing}"
        names = ["before", "parent", *(f"worker {k}" for k in range(1, len(self.processes)))]
        lines = [f"{'MiB':21}{'anonymous':>11}{'its share':>11}{'of the data file':>18}"]
        for name, process in zip(names, [self.before, *self.processes], strict=True):
            own, share, mapped = (n_bytes / MIB for n_bytes in process)
            lines.append(f"{name:21}{own:11,.0f}{share:11,.0f}{mapped:18,.0f}")
        lines.append(f"{'together, less before':32}{self.together_bytes / MIB:11,.0f}")
        return "\n".join(lines)


def reports_of(rows, n_reports: int) -> list[Report]:
    """Reports, from what a child process returned.

    ``rows`` has for each report the three numbers of the baseline, then three for each process.
    If the child ran out of time it is a Missing, and so is every number of the reports.
    """
    if measure.is_missing(rows):
        rows = [[[rows] * 3] * 2] * n_reports
    found = [[ProcessMemory(*numbers) for numbers in row] for row in rows]
    return [Report(before, processes) for before, *processes in found]


def best_rates(makers: dict, n_molecules: int, n_tries: int) -> dict[str, float]:
    """Molecules a second of the fastest try of each.

    A maker returns a fresh iterable over ``n_molecules``. The tries alternate: a burst of other
    work on the machine slows all of them, not one.
    """
    rates = dict.fromkeys(makers, 0.0)
    for _ in range(n_tries):
        for name, make_steps in makers.items():
            start_s = time.perf_counter()
            for _ in make_steps():
                pass
            rates[name] = max(rates[name], n_molecules / (time.perf_counter() - start_s))
    return rates
