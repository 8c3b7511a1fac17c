"""Processes that run a visible script, stay, and call its functions when they get their names."""

import contextlib
import mmap
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

from qm9lab import processes
from qm9lab.measure import Footprint, Missing, footprint, total


def _load(folder, *args):
    """In the new process: run the script as a module, and keep the module."""
    import importlib
    import sys

    sys.path.append(str(folder))
    sys.argv[1:] = args
    return importlib.import_module("script")


def _call(script, name):
    """In the new process: call a function of the script; what it returns, or an OSError's name."""
    try:
        return str(getattr(script, name)()) if name else ""
    except OSError as error:
        return type(error).__name__


class Holder:
    """A process that has run a script, and calls one of its functions when it gets the name."""

    def __init__(self, process: processes.Held) -> None:
        self.pid, self.end, self.receive = process.pid, process.end, process.receive
        self._process = process

    def send(self, name: str) -> None:
        """Start the function, and do not wait for the result, which ``receive()`` returns."""
        self._process.send(_call, name)

    def call(self, name: str) -> str | Missing:
        """Call the function, and return its result as text."""
        return self._process.call(_call, name)


@contextlib.contextmanager
def holding(script: str, n: int, *args) -> Iterator[list[Holder]]:
    """``n`` processes that have run the script, and wait; they end however the body ends.

    The script is Python source, which sees the texts of ``args`` as ``sys.argv[1:]``.
    ProcessError if the script or one of its functions fails.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="script-")))
        (folder / "script.py").write_text(script, encoding="utf-8")
        texts = [str(arg) for arg in args]
        held = [stack.enter_context(processes.hold(_load, folder, *texts)) for _ in range(n)]
        for process in held:
            process.call(_call, "")  # the first measured call does not pay for its import
        yield [Holder(process) for process in held]


class Step(NamedTuple):
    """A function's result, and the memory of the process and then of its children after it."""

    result: str | Missing
    memories: list[Footprint]


def watch(holder: Holder, *names: str) -> dict[str, Step]:
    """Call one function after another: its name -> its result, and the memory after it.

    The state before the first one is under ``"start"``.
    """
    steps = {}
    for name in ("start", *names):
        result = holder.call(name) if name != "start" else ""
        pids = [holder.pid, *(child.pid for child in psutil.Process(holder.pid).children())]
        steps[name] = Step(result, [footprint(pid) for pid in pids])
    return steps


def added_in_all(steps: dict[str, Step]) -> dict[str, Footprint]:
    """Memory of a process and its children together, after each step, beyond the start."""
    start = total(steps["start"].memories)
    return {name: total(step.memories).since(start) for name, step in steps.items()}


class Game(NamedTuple):
    """The number at the end, and the result of each step."""

    number: int
    results: list[str | Missing]


def play(script: str, path: Path, story: str) -> Game:
    """Two processes, A and B, change a number in a file, step by step, from 0.

    The script defines a function for each step, and gets ``path``, a page of zeros. In a story
    such as ``"A read, B read, A write"`` each step begins when the one before is done.
    ``"AB add"`` starts both at once, and waits for both.
    """
    path.write_bytes(bytes(mmap.PAGESIZE))
    with holding(script, 2, path) as (a, b):
        named, results = {"A": a, "B": b}, []
        for step in story.split(", "):
            letters, name = step.split()
            for letter in letters:
                named[letter].send(name)
            results += [named[letter].receive() for letter in letters]
    return Game(int.from_bytes(path.read_bytes()[:8], sys.byteorder), results)
