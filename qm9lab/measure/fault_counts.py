"""Page faults: how often a process asked for a page that its page table did not lead to."""

import os
import platform
from typing import Any, NamedTuple

from . import no_resource
from .missing import Missing
from .proc import ask_psutil, read_proc

try:
    import resource as resource  # lessons take it from here
except ImportError:
    resource = no_resource  # type: ignore[misc]


class Faults(NamedTuple):
    """Page faults since the process (or thread) began.

    A minor fault may still have waited for a read that readahead had started already (Linux 6.7
    and later), or have made a fresh page.
    """

    minor: int | Missing  # did not start the disk read of their page
    major: int | Missing  # started the disk read of their page
    source: str

    def since(self, before: "Faults") -> "Faults":
        """The faults between ``before`` and this reading."""
        return Faults(self.minor - before.minor, self.major - before.major, self.source)


def rusage_faults(who: int) -> tuple[int, int]:
    """Minor and major page faults so far, as ``getrusage(2)`` counts them.

    ``who`` is ``resource.RUSAGE_SELF``, ``RUSAGE_THREAD`` (Linux) or ``RUSAGE_CHILDREN``. Source:
    ``ru_minflt`` and ``ru_majflt``; derived in notebooks/06_pages_and_faults.ipynb.
    """
    usage = resource.getrusage(who)
    return usage.ru_minflt, usage.ru_majflt


def faults(thread: bool = False, pid: int | None = None) -> Faults:
    """Minor and major page faults so far, of a process or of the calling thread.

    With ``thread`` the calling thread alone, where the system can (Linux): in Jupyter other threads
    fault too. ``pid`` is another process; this one when left out.

    Source: ``psutil.Process.page_faults()`` (psutil 8), else ``getrusage(2)`` for this process and
    ``/proc/PID/stat`` for another, else what psutil has of the system: ``pfaults`` less ``pageins``
    and ``pageins`` on macOS, ``num_page_faults`` on Windows, which counts both kinds together:
    there ``minor`` is their sum. Raises ProcessLookupError if no process has this ``pid``.
    """
    if thread and pid is not None:
        raise ValueError(f"expected thread=True or a pid, found both (pid {pid}): leave one out")
    if thread and hasattr(resource, "RUSAGE_THREAD"):
        return Faults(*rusage_faults(resource.RUSAGE_THREAD), "getrusage(RUSAGE_THREAD)")
    found = ask_psutil(pid, _faults)
    return Faults(found, found, "") if isinstance(found, Missing) else found


def _faults(process: Any) -> Faults:
    """The faults of a ``psutil.Process``, from the first source that has them."""
    if hasattr(process, "page_faults"):
        counted = process.page_faults()
        return Faults(counted.minor, counted.major, "psutil page_faults")
    if resource is not no_resource and process.pid == os.getpid():
        return Faults(*rusage_faults(resource.RUSAGE_SELF), "getrusage(RUSAGE_SELF)")
    if platform.system() == "Linux":
        stat = read_proc("stat", process.pid)
        if isinstance(stat, Missing):
            return Faults(stat, stat, "")
        # minflt and majflt are fields 10 and 12 (proc_pid_stat(5)). The name in the second field
        # may hold blanks and brackets: count after the last one.
        fields = stat.rpartition(b")")[2].split()
        return Faults(int(fields[7]), int(fields[9]), "/proc/PID/stat")
    memory = process.memory_info()
    if hasattr(memory, "pageins"):
        minor = memory.pfaults - memory.pageins
        return Faults(minor, memory.pageins, "psutil pfaults - pageins, pageins")
    if hasattr(memory, "num_page_faults"):
        together = Missing(f"{platform.system()} counts minor and major faults together")
        return Faults(memory.num_page_faults, together, "psutil num_page_faults")
    missing = Missing(f"psutil counts no faults on {platform.system()}")
    return Faults(missing, missing, "")
