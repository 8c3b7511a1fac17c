"""Processes that run a visible script, stay, and are told what to do through a pipe."""

import contextlib
import mmap
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

from qm9lab.measure.pss import Footprint, footprint, total

TIMEOUT_S = 120.0
# Stands behind each script: run the function that a line names, answer with what it returns, or
# with the name of the OSError by which the system refuses.
LISTEN = """
print("ready", flush=True)
for word in __import__("sys").stdin:
    try:
        print(globals()[word.strip()](), flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
"""


class Holder:
    """A process that has run a script and waits: told the name of one of its functions, calls it.

    Words and answers, a line each, go through pipes. When this process closes the pipe, or dies,
    the other one ends by itself.

    Parameters
    ----------
    script : str
        Python source, shown in the lesson. It sees ``args`` as ``sys.argv[1:]``.
    *args
        Anything with a ``str()``.

    Attributes
    ----------
    pid : int

    Raises
    ------
    RuntimeError
        When it ends in place of an answer, with its last words; TimeoutError if none comes.
    """

    def __init__(self, script: str, *args) -> None:
        self._errors = tempfile.TemporaryFile()
        own_group = {} if os.name == "nt" else {"start_new_session": True}
        self._process = subprocess.Popen(
            [sys.executable, "-X", "utf8", "-c", script + LISTEN, *map(str, args)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            encoding="utf-8",
            **own_group,
        )
        self.pid = self._process.pid
        self._lines = queue.SimpleQueue()
        # A pipe has no time limit of its own on every system; a queue has.
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def say(self, word: str) -> None:
        """Tell it to call a function, and do not wait for the answer."""
        with contextlib.suppress(OSError):  # it has ended: hear() says how
            self._process.stdin.write(word + "\n")
            self._process.stdin.flush()

    def hear(self) -> str:
        """Wait for its next line."""
        try:
            line = self._lines.get(timeout=TIMEOUT_S)
        except queue.Empty:
            raise TimeoutError(
                f"expected a line from process {self.pid}, found none in {TIMEOUT_S:.0f} s"
            ) from None
        if line is None:
            status = self._process.wait()
            self._errors.seek(0)
            words = self._errors.read().decode("utf-8", "replace").strip()
            raise RuntimeError(f"expected an answer, found exit status {status}: {words}")
        return line

    def tell(self, word: str) -> str:
        """Tell it to call a function, and wait for what that returns, as text."""
        self.say(word)
        return self.hear()

    def leave(self) -> int | None:
        """Close its standard input, wait until it has ended, and give its exit status."""
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        return self._process.wait(TIMEOUT_S)

    def end(self) -> None:
        """Kill it, with what it started, and wait for it; nothing if it has ended by itself."""
        if self._process.poll() is None:  # not reaped: its number means nobody else
            if os.name == "nt":
                self._process.kill()
            else:
                with contextlib.suppress(PermissionError):  # macOS, of a group of zombies
                    os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self._thread.join()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            with contextlib.suppress(OSError):
                stream.close()


@contextlib.contextmanager
def holding(script: str, n: int, *args) -> Iterator[list[Holder]]:
    """``n`` processes that have run the script, and wait; ended however the body ends."""
    holders = []
    try:
        for _ in range(n):
            holders.append(Holder(script, *args))
        for holder in holders:
            holder.hear()
        yield holders
    finally:
        for holder in holders:
            holder.end()


class Told(NamedTuple):
    """An answer, and the memory of the process and then of each that it has started, after it."""

    answer: str
    memories: list[Footprint]


def watch(holder: Holder, *words: str) -> dict[str, Told]:
    """Tell a process word after word, and look at the memory of it and of its children.

    Returns
    -------
    dict of str to Told
        The word -> what came of it; before the first of them, under ``"start"``.
    """
    told = {}
    for word in ("start", *words):
        answer = holder.tell(word) if word != "start" else ""
        children = psutil.Process(holder.pid).children()
        told[word] = Told(
            answer, [footprint(pid) for pid in (holder.pid, *(c.pid for c in children))]
        )
    return told


def family(told: dict[str, Told]) -> dict[str, Footprint]:
    """Memory of a process and its children together, after each word, beyond the start."""
    sums = {word: total(each.memories) for word, each in told.items()}
    return {word: each.since(sums["start"]) for word, each in sums.items()}


class Played(NamedTuple):
    """The number in the end, and the answer to each step."""

    number: int
    answers: list[str]


def play(script: str, path: Path, story: str) -> Played:
    """Two processes, A and B, change a number in a file by a story, from 0.

    Parameters
    ----------
    script : defines a function for each step; gets ``path``, a page of zeros
    story : such as ``"A read, B read, A write"``; each step begins when the one before is done.
        ``"AB add"`` tells both at once, and waits for both.
    """
    path.write_bytes(bytes(mmap.PAGESIZE))
    with holding(script, 2, path) as pair:
        named, answers = dict(zip("AB", pair, strict=True)), []
        for step in story.split(", "):
            names, word = step.split()
            for name in names:
                named[name].say(word)
            answers += [named[name].hear() for name in names]
    return Played(int.from_bytes(path.read_bytes()[:8], sys.byteorder), answers)
