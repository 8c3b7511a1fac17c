"""What a training did so far: its losses, its speed, the memory of this process and its workers.

Derived in notebooks/11_train_from_the_map.ipynb, which types the model, the loop and the
DataLoader: this module looks at the processes while they run.
"""

import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from . import measure, sharing

LOOK_EVERY_S = 0.2
MIB = 1 << 20
NO_NUMBER = "not available here, because this system does not tell that part of its memory"


class Member(NamedTuple):
    """Memory of one process, in bytes; None where the system does not tell.

    Attributes
    ----------
    anonymous_bytes, file_bytes : resident memory, as ``measure.resident`` splits it
    pss_anonymous_bytes : anonymous pages, each divided by the number of processes that have it
    pss_bytes, uss_bytes : as ``sharing.memory`` has them
    """

    anonymous_bytes: int | None
    file_bytes: int | None
    pss_anonymous_bytes: int | None
    pss_bytes: int | None
    uss_bytes: int | None


def family() -> list[Member]:
    """This process, then each of its workers that lives, in the order of their numbers.

    Notes
    -----
    Workers are what ``multiprocessing.active_children()`` names, a DataLoader's among them. Other
    children (a sampler, a script that a lesson runs) are none.
    """
    workers = sorted(worker.pid for worker in multiprocessing.active_children())
    members = []
    for pid in (None, *workers):
        try:
            kept, told = measure.resident(pid), sharing.memory(pid)
        except ProcessLookupError:  # it has ended since
            continue
        told = told.pss_anonymous_bytes, told.pss_bytes, told.uss_bytes
        members.append(Member(kept.anonymous_bytes, kept.file_bytes, *told))
    return members


def owned(members: list[Member]) -> int | None:
    """Anonymous memory of all together, in bytes, each page counted once."""
    parts = [member.pss_anonymous_bytes for member in members]
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
        lines = [f"{'':9}anonymous  file   PSS   USS"]
        for name, member in zip(names, [self.before, *self.members], strict=True):
            each = (member[0], member[1], member.pss_bytes, member.uss_bytes)
            words = ("-" if n is None else f"{n / MIB:,.0f}" for n in each)
            lines.append("{:9}{:>9}{:>6}{:>6}{:>6}".format(name, *words))
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


def best_rate(make_steps: Callable[[], Iterable], n_molecules: int, n_tries: int) -> float:
    """Molecules a second of the fastest of some tries.

    Parameters
    ----------
    make_steps : called for each try: an iterable to run through, batches or steps of a training
    n_molecules : in one run of it
    """
    rates = []
    for _ in range(n_tries):
        start_s = time.perf_counter()
        for _ in make_steps():
            pass
        rates.append(n_molecules / (time.perf_counter() - start_s))
    return max(rates)


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
    """The losses of a training, one a batch, and what its processes hold, looked at meanwhile.

    Make it before the data is opened: that is the baseline.

    Parameters
    ----------
    batch_size : molecules a batch

    Attributes
    ----------
    losses : list of float, one a batch
    t_s : list of float, when was looked, in seconds since the baseline
    owned_bytes : list of int or None
        Anonymous memory added by then, of parent and workers, each page counted once.
    file_bytes : list of list of int or None
        File pages resident by then in each process, the parent (what it added) first.
    """

    def __init__(self, batch_size: int = 1) -> None:
        self.batch_size, self.losses = batch_size, []
        self.t_s, self.owned_bytes, self.file_bytes = [], [], []
        self._before, self._start_s = family(), time.monotonic()
        self.look()

    def note(self, loss: float) -> bool:
        """Keep a loss; look, if the last look was long ago. True if it looked.

        Looks take at most a tenth of the time.
        """
        self.losses.append(loss)
        if time.monotonic() - self._looked_s < max(LOOK_EVERY_S, 10 * self._cost_s):
            return False
        self.look()
        return True

    def look(self) -> None:
        """Look at the memory of all processes now."""
        start_s = time.monotonic()
        members, before = family(), self._before
        self._looked_s = time.monotonic()
        self._cost_s = self._looked_s - start_s
        own = owned(members)
        self.t_s.append(self._looked_s - self._start_s)
        self.owned_bytes.append(None if own is None else own - owned(before))
        held = [member.file_bytes for member in members]
        if held[0] is not None:
            held[0] -= before[0].file_bytes
        self.file_bytes.append(held)


def in_words(logs: dict[tuple, Log], settings: tuple) -> str:
    """Which run is shown, and which other runs have the same losses, to the last digit.

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
    same = [name(*s) for s, o in logs.items() if s != settings and o.losses == log.losses]
    equal = " | ".join(same) or "no other run yet"
    return f"{told}: {len(log.losses)} losses. The same to the last digit: {equal}."
