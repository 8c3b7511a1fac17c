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

    Attributes
    ----------
    missing : why the call was not made, or None
    facts : what holds in the child: its ``regions`` before the call, ``noexec`` (its folder's
        mount) and ``too low`` (choices of addr at which this user may map nothing)
    addr : the first argument, as it was in the child
    error, message : the name of the errno and its text, both "" if a region was made
    address : the value that mmap returned
    region : the line of the child's /proc/self/maps. It is longer than the region that was asked
        for if the kernel merged it with a neighbour of the same kind
    present : of each page, whether it was mapped when the call returned, before any access
    touches : for the "first" and the "last" byte of the region, what a read and then a write did:
        the letter read, "done", or a signal's name
    written : offsets of the file's bytes that the touches changed
    python_result : what Python's own call did, or why there is none
    """

    choice: Choice
    python_result: str
    missing: Missing | None = None
    facts: dict = {}
    addr: int | None = None
    error: str = ""
    message: str = ""
    address: int = 0
    region: Region | None = None
    present: list[bool] | Missing = []
    touches: dict[str, list[str]] = {}
    written: list[int] = []

    @property
    def c_call(self) -> str:
        """The call as C writes it."""
        return words.c_call(self.choice, self.addr)

    @property
    def python_call(self) -> str:
        """The call as Python writes it, or "" if Python cannot make it."""
        return words.python_call(self.choice)

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
            pairs = zip(choices, done["answers"], strict=True)
            return [_result(choice, answer, done["facts"]) for choice, answer in pairs]
        missing = done
    return [CallResult(choice, choice.no_python_call, missing) for choice in choices]


def _answer(folder, choices, touch):
    """In the child process."""
    from qm9lab.lessons.lesson_03 import in_child

    return in_child.answer(folder, choices, touch)


def _result(choice: Choice, answer: dict, facts: dict) -> CallResult:
    if "region" in answer:
        answer["region"] = Region(*answer["region"])
    return CallResult(choice, facts=facts, **answer)
