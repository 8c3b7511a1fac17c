"""The six parameters of mmap(2): from six choices to the call, and to what the kernel did.

``make(folder, Choice(...))`` really makes the call, on a file in ``folder``, in a child process,
and accesses the region that it made. Nothing happens in the process that asks.
"""

import sys
import tempfile
from collections.abc import Iterable
from typing import NamedTuple

from qm9lab import processes
from qm9lab.measure import Missing, Region

from . import words
from .choice import CONTROLS, Choice

__all__ = ["CONTROLS", "CallResult", "Choice", "make", "make_all", "unavailable"]


class CallResult(NamedTuple):
    """What one call did.

    The line of the child's /proc/self/maps, ``region``, is longer than the region that was asked
    for if the kernel merged it with a neighbour of the same kind. ``facts`` hold in the child: its
    ``regions`` before the call, ``noexec`` (its folder's mount) and ``too low`` (choices of addr
    at which this user may map nothing). ``touches`` are, for the "first" and the "last" byte of
    the region, what a read and then a write did: the letter read, "done", or a signal's name.
    """

    choice: Choice
    python_result: str  # what Python's own call did, or why there is none
    missing: Missing | None = None  # why the call was not made
    facts: dict = {}
    addr: int | None = None  # the first argument, as it was in the child
    error: str = ""  # the name of the errno; "" if a region was made
    message: str = ""  # its text
    address: int = 0  # the value that mmap returned
    region: Region | None = None
    present: list[bool] | Missing = []  # of each page, whether it was mapped before any access
    touches: dict[str, list[str]] = {}
    written: list[int] = []  # offsets of the file's bytes that the touches changed

    @property
    def cause(self) -> tuple[str, tuple[str, ...]]:
        """What the error means, and the parameters (names in ``CONTROLS``) to change."""
        return words.explain(self.choice, self.error, self.facts)

    @property
    def sentence(self) -> str:
        """The result in words."""
        return words.describe(self)


def unavailable() -> Missing | None:
    """Why calls cannot be made and seen on this system; None on Linux."""
    if sys.platform == "win32":
        return Missing("Windows has no mmap(2), prot and flags")
    if sys.platform != "linux":
        return Missing(f"{sys.platform} has no /proc/self/maps to see regions")
    if sys.maxsize < 2**32:
        return Missing("this Python is a 32-bit one")
    return None


def make(folder, choice: Choice) -> CallResult:
    """Make the call in a child process, on a file in ``folder``, and access the region.

    Calls ``mmap(2)`` through ctypes, reads and writes the first and the last byte of the region,
    in forks of the child, and makes the Python call, too. The file is removed again.
    """
    return make_all(folder, [choice])[0]


def make_all(folder, choices: Iterable[Choice], touch: bool = True) -> list[CallResult]:
    """Make one call after another in one child process, with touches or without; see ``make``."""
    choices = list(choices)
    missing = unavailable()
    if missing is None:
        with tempfile.TemporaryDirectory(dir=folder, prefix="call-") as own:
            done = processes.run(_answer, own, [list(choice) for choice in choices], touch).value
        if not isinstance(done, Missing):
            results = []
            for choice, answer in zip(choices, done["answers"], strict=True):
                if "region" in answer:
                    answer["region"] = Region(*answer["region"])
                results.append(CallResult(choice, facts=done["facts"], **answer))
            return results
        missing = done
    return [CallResult(choice, choice.no_python_call, missing) for choice in choices]


def _answer(folder, choices, touch):
    """In the child process."""
    from qm9lab.lessons.lesson_03 import in_child

    return in_child.answer(folder, choices, touch)
