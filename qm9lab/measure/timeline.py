"""A timeline of a process's memory and faults, sampled by a small process beside it."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .fault_counts import faults
from .memory import resident

PROGRAM = Path(__file__).with_name("_sampling.py")


class Timeline(NamedTuple):
    """Samples of one process, in order of time; a column is None where ``source`` says why.

    Attributes
    ----------
    t_s : (n,) float64, readings of ``time.monotonic()``, which all processes share
    anonymous_bytes, file_bytes : (n,) int64, resident memory by what is behind it
    minor, major : (n,) int64, page faults since the process began
    source : where the columns came from
    """

    t_s: np.ndarray
    anonymous_bytes: np.ndarray | None
    file_bytes: np.ndarray | None
    minor: np.ndarray | None
    major: np.ndarray | None
    source: str


class Sampler:
    """Record memory and faults of a process while the body of a ``with`` runs.

    The samples are taken by a process of its own: a thread would wait for Python's global lock
    exactly while a long call in C does the work that is to be seen. The ``with`` begins after the
    first sample. Sampling ends with the body, however it ends, or with the sampled process, or when
    this process dies; ``timeline`` has what there was until then.

    Parameters
    ----------
    pid : int, optional
        The process to sample; this one when left out.
    every_s : float
        The least time between samples. Under load some come later, and all come less often where
        they would cost 2 % of a core: ``timeline.t_s`` has the real times.

    Attributes
    ----------
    timeline : Timeline
        After the ``with``.

    Raises
    ------
    ProcessLookupError
        If no process has this ``pid``.

    Notes
    -----
    Source: ``/proc/PID/statm`` and ``/proc/PID/stat`` where they are, else psutil.
    """

    def __init__(self, pid: int | None = None, every_s: float = 0.005) -> None:
        self.pid = os.getpid() if pid is None else pid
        self.every_s, self.timeline = every_s, None

    def __enter__(self) -> "Sampler":
        self._memory, self._faults = resident(self.pid), faults(pid=self.pid)
        by_proc = has_proc()
        self._source = "/proc/PID/statm and /proc/PID/stat" if by_proc else "psutil"
        words = [str(PROGRAM), str(self.pid), str(self.every_s)]
        words += [] if by_proc else [os.pathsep.join([str(PROGRAM.parents[2]), *sys.path])]
        self._process = subprocess.Popen(
            [sys.executable, "-I", *(["-S"] if by_proc else []), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            self._process.stdout.read(1)  # the first sample is there, or the process has ended
        except BaseException:  # the learner's interrupt: leave no process behind
            self._process.kill()
            self._process.communicate()
            raise
        return self

    def __exit__(self, *exception) -> None:
        try:
            with contextlib.suppress(OSError):
                self._process.stdin.write(b"!")
                self._process.stdin.flush()
            raw = self._process.stdout.read()
        except BaseException:
            self._process.kill()
            raise
        finally:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            self._process.stdout.close()
            self._process.wait()
        self.timeline = self._of(np.frombuffer(raw[: len(raw) // 40 * 40]).reshape(-1, 5))

    def _of(self, samples: np.ndarray) -> Timeline:
        """The timeline, without the columns that this system does not offer."""
        offered = [*self._memory[:2], *self._faults[:2]]
        columns = [
            None if value is None or np.isnan(column).any() else column.astype(np.int64)
            for value, column in zip(offered, samples[:, 1:].T, strict=True)
        ]
        said = [self._source]
        for reading in (self._memory, self._faults):
            if None in reading[:2]:
                said.append(reading.source)
        return Timeline(samples[:, 0], *columns, "; ".join(said))


def has_proc() -> bool:
    """Whether this system has the files that the sampler reads directly."""
    return sys.platform == "linux" and os.path.exists("/proc/self/statm")
