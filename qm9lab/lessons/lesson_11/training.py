"""What a training did so far: its losses, its speed, the memory of this process and its workers.

Derived in notebooks/11_train_from_the_map.ipynb, which types the model, the loop and the
DataLoader: this module looks at the processes while they run.
"""

import json
import mmap
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

MIB = 1 << 20
NO_NUMBER = "not available here, because this system does not tell that part of its memory"
FILE_PAGE_BITS = np.uint64(1 << 63 | 1 << 61)
"""Of a pagemap entry: in memory, and a page of a file (or shared), no private copy of one."""


class Member(NamedTuple):
    """Memory of one process, in bytes; None where the system does not tell.

    Attributes
    ----------
    anonymous_bytes : resident anonymous memory, each page whole
    share_bytes : the same with each page divided by the number of processes that have it
    data_bytes : pages of the data file in its page table; pages of other files, such as those of
        libraries, are not counted
    """

    anonymous_bytes: int | None
    share_bytes: int | None
    data_bytes: int | None


def family(path) -> list[Member]:
    """This process, then each of its workers that lives, in the order of their numbers.

    Parameters
    ----------
    path : the data file, mapped or not

    Notes
    -----
    Workers are what ``multiprocessing.active_children()`` names, a DataLoader's among them. Other
    children (a sampler, a script that a lesson runs) are none. Source: ``Anonymous`` and
    ``Pss_Anon`` of ``/proc/PID/smaps_rollup`` (Linux 5.4; proc_pid_smaps(5)), and ``data_bytes``.
    """
    workers = sorted(worker.pid for worker in multiprocessing.active_children())
    members = []
    for pid in (os.getpid(), *workers):
        try:
            with open(f"/proc/{pid}/smaps_rollup", "rb") as f:
                words = [line.split() for line in f][1:]
            told = {name: int(n_kib) * 1024 for name, n_kib, *_ in words}
            pair = told.get(b"Anonymous:"), told.get(b"Pss_Anon:")
            members.append(Member(*pair, data_bytes(path, pid)))
        except OSError:
            if pid == os.getpid():  # else it has ended since
                members.append(Member(None, None, None))
    return members


def data_bytes(path, pid: int) -> int:
    """Bytes of a file in the page table of a process, all its maps together.

    Raises
    ------
    OSError
        If there is no such process, or the system has no such files.

    Notes
    -----
    Source: the file's regions in ``/proc/PID/maps``, and bits 63 and 61 of their entries in
    ``/proc/PID/pagemap``: a page of a private map that was stored to counts no more.
    """
    name, n_pages = os.fsencode(os.path.realpath(path)), 0
    with (
        open(f"/proc/{pid}/maps", "rb") as regions,
        open(f"/proc/{pid}/pagemap", "rb", buffering=0) as table,
    ):
        for line in regions:
            span, *_, behind = line.rstrip(b"\n").split(maxsplit=5)
            if behind != name:
                continue
            start, end = (int(address, 16) // mmap.PAGESIZE for address in span.split(b"-"))
            table.seek(start * 8)
            entries = np.frombuffer(table.read((end - start) * 8), np.uint64)
            n_pages += int(((entries & FILE_PAGE_BITS) == FILE_PAGE_BITS).sum())
    return n_pages * mmap.PAGESIZE


def owned(members: list[Member]) -> int | None:
    """Anonymous memory of all together, in bytes, each page counted once."""
    parts = [member.share_bytes for member in members]
    return None if None in parts else sum(parts)


class Family(NamedTuple):
    """A process before it got its data, and parent and workers while all had worked with it."""

    before: Member
    members: list[Member]

    @property
    def added_bytes(self) -> int | None:
        """Anonymous memory that the parent has added since its baseline."""
        parts = self.before.anonymous_bytes, self.members[0].anonymous_bytes
        return None if None in parts else parts[1] - parts[0]

    @property
    def together_bytes(self) -> int | None:
        """Anonymous memory that all have added since then, each page counted once."""
        parts = owned([self.before]), owned(self.members)
        return None if None in parts else parts[1] - parts[0]

    def __repr__(self) -> str:
        names = ["before", "parent", *(f"worker {k}" for k in range(1, len(self.members)))]
        rows = dict(zip(names, [self.before, *self.members], strict=True))
        rows["together, less before"] = (None, self.together_bytes, None)
        lines = [f"{'MiB':21}  anonymous  its share  of the data file"]
        for name, row in rows.items():
            words = ("-" if n is None else f"{n / MIB:,.0f}" for n in row)
            lines.append("{:21}  {:>9}  {:>9}  {:>16}".format(name, *words))
        if None in self.before:
            lines.append(f"-: {NO_NUMBER}")
        return "\n".join(lines)


def families(outcome) -> list[Family]:
    """What a script printed: JSON lists of the parent's baseline and ``family()``, one a line.

    Parameters
    ----------
    outcome : child.Outcome

    Raises
    ------
    RuntimeError
        If the script failed; with its last words.
    """
    if outcome.returncode != 0:
        raise RuntimeError(
            f"expected the memory of parent and workers, found {outcome.how_it_ended}: "
            f"{outcome.stderr.strip()}"
        )
    told = []
    for line in outcome.stdout.splitlines():
        before, *members = (Member(*row) for row in json.loads(line))
        told.append(Family(before, members))
    return told


def in_mib(numbers: Iterable[int | None]) -> list[int | str]:
    """Bytes in whole MiB; in words where there are none to be had."""
    return [NO_NUMBER if n is None else round(n / MIB) for n in numbers]


def best_rates(makers: dict[str, Callable], n_molecules: int, n_tries: int) -> dict[str, float]:
    """Molecules a second of the fastest try of each; the tries alternate.

    So a burst of other work on the machine falls on all of them, not on one.

    Parameters
    ----------
    makers : name to what is called for each try: an iterable to run through, batches or steps of a
        training
    n_molecules : in one run of it
    """
    rates = dict.fromkeys(makers, 0.0)
    for _ in range(n_tries):
        for name, make_steps in makers.items():
            start_s = time.perf_counter()
            for _ in make_steps():
                pass
            elapsed_s = time.perf_counter() - start_s
            rates[name] = max(rates[name], n_molecules / elapsed_s)
    return rates


def calls_a_batch(make_batches: Callable[[], Iterable]) -> int:
    """Calls, of Python and of C functions, that this thread makes to get a first batch.

    Notes
    -----
    Counted by ``sys.setprofile``, which is put back to nothing.
    """
    n_calls = 0

    def count(_frame, event, _argument):
        nonlocal n_calls
        n_calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        next(iter(make_batches()))
    finally:
        sys.setprofile(None)
    return n_calls


class Log:
    """The losses of a training, one a batch, and what its processes hold after each.

    Make it before the data is opened: that is the baseline. A look takes some milliseconds for
    each GiB that a process has resident.

    Parameters
    ----------
    path : the data file, whose pages are counted
    n_molecules : in one epoch
    batch_size : molecules a batch; the last one of an epoch may have fewer

    Attributes
    ----------
    losses : list of float, one a batch
    seen : list of int, molecules seen at each look; the last ones are those after each loss
    owned_bytes : list of int or None, one a look
        Anonymous memory added by then, of parent and workers, each page counted once.
    data_bytes : list of list of int or None, one a look
        Pages of the data file in each process's page table: what the parent added, then the
        workers'.
    """

    def __init__(self, path, n_molecules: int, batch_size: int) -> None:
        self.path, self.n_molecules, self.batch_size = path, n_molecules, batch_size
        self.losses, self.seen, self.owned_bytes, self.data_bytes = [], [], [], []
        self._before = family(path)
        self.look()

    def note(self, loss: float) -> None:
        """Keep the loss of a batch, and look."""
        self.losses.append(loss)
        self.look()

    def look(self) -> None:
        """Look at the memory of all processes now."""
        n_epochs, n_batches = divmod(len(self.losses), -(-self.n_molecules // self.batch_size))
        self.seen.append(n_epochs * self.n_molecules + n_batches * self.batch_size)
        members, before = family(self.path), self._before
        own = owned(members)
        self.owned_bytes.append(None if own is None else own - owned(before))
        held = [member.data_bytes for member in members]
        if held[0] is not None:
            held[0] -= before[0].data_bytes
        self.data_bytes.append(held)


def in_words(logs: dict[tuple, Log], settings: tuple) -> str:
    """Which run is shown, and which other runs have the same losses so far, to the last digit.

    Parameters
    ----------
    logs : settings to log
    settings : source, molecules a batch, workers
    """

    def name(source, batch_size, n_workers):
        return f"{source}, batches of {batch_size}, {n_workers} workers"

    told, log = name(*settings), logs.get(settings)
    if log is None:
        return f"{told}: not run yet, press train."
    others = {name(*s): other for s, other in logs.items() if s != settings}
    so_far = len(log.losses)
    same = [words for words, other in others.items() if other.losses[:so_far] == log.losses]
    none = f"none of the other runs ({len(others)})" if others else "no other run yet"
    equal = " | ".join(same) or none
    return f"{told}: {so_far} losses. The same to the last digit: {equal}."
