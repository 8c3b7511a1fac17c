"""A process that holds something, and answers commands by function."""

import contextlib
import dataclasses
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

from qm9lab.measure import Missing

from . import running
from ._child import decode
from .functions import Use


@contextlib.contextmanager
def hold(
    function: Callable[..., Any],
    *args: Any,
    uses: Iterable[Use] = (),
    timeout_s: float = running.TIMEOUT_S,
    cwd: str | os.PathLike[str] | None = None,
) -> Iterator["Held"]:
    """A fresh Python process that calls ``function(*args)`` and keeps what it returns.

    The process ends with the ``with`` block, however the block ends, and by itself when this
    process is gone. The parameters and errors are those of ``run``; the limit is for each answer.
    ProcessError if the function fails, or the process ends.

    Examples
    --------
    >>> with processes.hold(open_map, path) as process:
    ...     n_bytes = process.call(read_pages, 0, 10)  # read_pages(held, 0, 10)
    """
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="qm9lab-hold-"))
        err = stack.enter_context(tempfile.TemporaryFile())
        command = running.prepare_call(folder, function, args, uses)
        pipes: dict[str, Any] = {
            "stdin": subprocess.PIPE,
            "stdout": subprocess.PIPE,
            "encoding": "utf-8",
        }
        process = running.start(["-P", running.CHILD, "hold", folder], cwd=cwd, stderr=err, **pipes)
        stack.callback(_close, process)
        reader = stack.enter_context(ThreadPoolExecutor(1))
        stack.callback(running.kill, process)
        limit_s = running.time_limit_s(timeout_s)
        held = Held(process.pid, process, folder, err, reader, limit_s)
        held._write(command)
        held.receive()
        yield held


def _close(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(BrokenPipeError), process:  # commands that nobody read
        pass


@dataclasses.dataclass
class Held:
    """A process that ``hold`` started; ``pid`` is its number."""

    pid: int
    _process: subprocess.Popen[str]
    _folder: str
    _err: IO[bytes]
    _reader: ThreadPoolExecutor
    _limit_s: float
    _name: str = ""
    _late: Missing | None = None

    def _write(self, command: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._name = command["function"]
        with contextlib.suppress(OSError):  # it has ended: receive reports how
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()

    def call(self, function: Callable[..., Any], *args: Any, uses: Iterable[Use] = ()) -> Any:
        """Call ``function(held, *args)`` in the process, and return its value.

        ProcessError if the function raises, with its traceback, or if the process ends.
        """
        self.send(function, *args, uses=uses)
        return self.receive()

    def send(self, function: Callable[..., Any], *args: Any, uses: Iterable[Use] = ()) -> None:
        """Start ``function(held, *args)`` in the process, and do not wait for its value."""
        self._write(running.prepare_call(self._folder, function, args, uses))

    def receive(self) -> Any:
        """Wait for the value of the first function that was sent and not received.

        A function that is out of time gives a ``Missing``, and so do all that come after it.
        """
        if self._late is not None:
            return self._late
        assert self._process.stdout is not None
        try:  # in a thread: a pipe has no time limit on every system
            line = self._reader.submit(self._process.stdout.readline).result(self._limit_s)
        except TimeoutError:
            self._late = running.late(self._name, self._limit_s)
            return self._late
        if not line:
            status, words = self._process.wait(), running.text_of(self._err)
            raise running.ProcessError(
                f"expected an answer from {self._name}, found that process {self.pid} ended with "
                f"exit status {status}\n{words[-2000:]}".strip()
            )
        answer = json.loads(line)
        if "error" in answer:
            words = f"{self._name} failed in process {self.pid}:\n{answer['error']}"
            raise running.ProcessError(words)
        return decode(answer.get("value"))
