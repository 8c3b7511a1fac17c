"""A timeline of a process's memory and faults, sampled by another small process."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .fault_counts import faults
from .memory import resident
from .missing import Missing

Column = NDArray[np.int64] | Missing
PROGRAM = Path(__file__).with_name("_sampling.py")


class Timeline(NamedTuple):
    """Samples of one process, in order of time: ``(n,)`` float64, then ``(n,)`` int64 each."""

    t_s: NDArray[np.float64]  # readings of time.monotonic(), which all processes share
    anonymous_bytes: Column  # resident, as the next
    file_bytes: Column
    minor: Column  # page faults since the process began, as the next
    major: Column
    source: str


class Sampler:
    """Record memory and faults of a process while the body of a ``with`` runs.

    The samples are taken by a process of its own: a thread would wait for Python's global lock
    exactly while a long call in C does the work that is to be seen. The ``with`` begins after the
    first sample. Sampling ends with the body, however it ends, or with the sampled process, or when
    this process dies; then ``timeline`` has what there was until then.

    ``pid`` is the process to sample, this one when left out; ProcessLookupError if there is none.
    ``every_s`` is the least time between samples. Under load some come later, and all come less
    often where they would cost 2 % of a core: ``timeline.t_s`` has the real times.
    """

    def __init__(self, pid: int | None = None, every_s: float = 0.005) -> None:
        self.pid = os.getpid() if pid is None else pid
        self.every_s = every_s
        self.timeline: Timeline | None = None

    def __enter__(self) -> "Sampler":
        self._offered = [*resident(self.pid)[:2], *faults(pid=self.pid)[:2]]
        words = [str(PROGRAM), str(self.pid), str(self.every_s)]
        if has_proc():
            self._source = "/proc/PID/statm and /proc/PID/stat"
            words = ["-S", *words]
        else:
            self._source = "psutil"
            words.append(os.pathsep.join([str(PROGRAM.parents[2]), *sys.path]))
        self._process = subprocess.Popen(
            [sys.executable, "-I", *words],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        with self._killed_on_error():
            assert self._process.stdout
            self._process.stdout.read(1)  # the first sample is there, or the process has ended
        return self

    def __exit__(self, *exception: object) -> None:
        with self._killed_on_error():
            raw = self._process.communicate(b"!")[0]
        samples = np.frombuffer(raw[: len(raw) // 40 * 40]).reshape(-1, 5)
        anonymous, file, minor, major = (
            value if isinstance(value, Missing) else column.astype(np.int64)
            for value, column in zip(self._offered, samples[:, 1:].T, strict=True)
        )
        self.timeline = Timeline(samples[:, 0], anonymous, file, minor, major, self._source)

    @contextlib.contextmanager
    def _killed_on_error(self) -> Iterator[None]:
        """An interrupt leaves no process running."""
        try:
            yield
        except BaseException:
            self._process.kill()
            self._process.communicate()
            raise


def has_proc() -> bool:
    """Whether this system has the files that the sampler reads directly."""
    return sys.platform == "linux" and os.path.exists("/proc/self/statm")
