"""Page faults: how often a process asked for a page that its page table did not lead to."""

import os
import sys
from typing import NamedTuple

import psutil

try:
    import resource
except ImportError:  # Windows
    resource = None


class Faults(NamedTuple):
    """Page faults since the process (or thread) began.

    ``minor``: served without waiting for a disk. ``major``: had to wait for one; ``None`` where
    the system counts both together (Windows), and then ``minor`` is their sum. Both are None where
    the system tells nothing, and ``source`` says why.
    """

    minor: int | None
    major: int | None
    source: str

    def since(self, before: "Faults") -> "Faults":
        """The faults between ``before`` and this reading."""

        def grown(now: int | None, then: int | None) -> int | None:
            return None if now is None or then is None else now - then

        return Faults(grown(self.minor, before.minor), grown(self.major, before.major), self.source)


def rusage_faults(who: int) -> tuple[int, int]:
    """Minor and major page faults so far, as ``getrusage(2)`` counts them.

    Parameters
    ----------
    who : int
        ``resource.RUSAGE_SELF``, ``RUSAGE_THREAD`` (Linux) or ``RUSAGE_CHILDREN``.

    Notes
    -----
    Source: ``ru_minflt`` and ``ru_majflt``; derived in notebooks/06_pages_and_faults.ipynb.
    """
    usage = resource.getrusage(who)
    return usage.ru_minflt, usage.ru_majflt


def faults(thread: bool = False, pid: int | None = None) -> Faults:
    """Minor and major page faults so far, of a process or of the calling thread.

    Parameters
    ----------
    thread : bool
        Count the calling thread alone, where the system can (Linux). In Jupyter other threads
        fault too.
    pid : int, optional
        Another process; this one when left out.

    Raises
    ------
    ProcessLookupError
        If no process has this ``pid``.
    ValueError
        If a thread is asked for by ``pid``.

    Notes
    -----
    Source: ``psutil.Process.page_faults()`` (psutil 8), else ``getrusage(2)`` for this process and
    ``/proc/PID/stat`` for another, else what psutil has of the system: ``pfaults`` less ``pageins``
    and ``pageins`` on macOS, ``num_page_faults`` on Windows, which counts both kinds together.
    """
    if thread and pid is not None:
        raise ValueError(f"expected thread=True or a pid, found both (pid {pid}): leave one out")
    if thread and hasattr(resource, "RUSAGE_THREAD"):
        return Faults(*rusage_faults(resource.RUSAGE_THREAD), "getrusage(RUSAGE_THREAD)")
    process = find_process(pid)
    try:
        return faults_of(process)
    except psutil.NoSuchProcess:
        raise no_process(pid) from None
    except (psutil.AccessDenied, PermissionError):
        return Faults(None, None, closed(pid))


def faults_of(process) -> Faults:
    """The faults of a ``psutil.Process``, from the first source that has them."""
    if hasattr(process, "page_faults"):
        counted = process.page_faults()
        return Faults(counted.minor, counted.major, "psutil page_faults")
    if resource is not None and process.pid == os.getpid():
        return Faults(*rusage_faults(resource.RUSAGE_SELF), "getrusage(RUSAGE_SELF)")
    by_proc = _proc_faults(process.pid)
    if by_proc is not None:
        return by_proc
    memory = process.memory_info()
    if hasattr(memory, "pageins"):
        minor = memory.pfaults - memory.pageins
        return Faults(minor, memory.pageins, "psutil pfaults - pageins, pageins")
    if hasattr(memory, "num_page_faults"):
        source = "psutil num_page_faults: minor and major together"
        return Faults(memory.num_page_faults, None, source)
    why = f"not available here, because psutil counts no faults on {sys.platform}"
    return Faults(None, None, why)


def _proc_faults(pid: int) -> Faults | None:
    """Fields 10 and 12 of ``/proc/PID/stat``: minflt and majflt (proc_pid_stat(5))."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            # The name in the second field may hold blanks and brackets: count after the last one.
            fields = f.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return Faults(int(fields[7]), int(fields[9]), "/proc/PID/stat")


def find_process(pid: int | None):
    """The ``psutil.Process`` of a pid, or of this process."""
    try:
        return psutil.Process() if pid is None else psutil.Process(pid)
    except psutil.NoSuchProcess:
        raise no_process(pid) from None


def no_process(pid: int | None) -> ProcessLookupError:
    return ProcessLookupError(f"expected a running process, found none with pid {pid}")


def closed(pid: int | None) -> str:
    return f"not available here, because process {pid} belongs to somebody else"
