"""Resident memory: anonymous and file pages apart."""

import sys
from typing import NamedTuple

import psutil

from .fault_counts import closed, find_process, no_process


class Resident(NamedTuple):
    """Resident memory of a process, in bytes, split by what is behind the pages.

    ``anonymous_bytes`` has nothing but swap behind it and belongs to the process.
    ``file_bytes`` are pages of files (and of shared memory) that are mapped there; the clean
    ones among them the kernel can drop at once. ``None`` where the system gives no split.
    """

    anonymous_bytes: int | None
    file_bytes: int | None
    source: str


def resident(pid: int | None = None) -> Resident:
    """Resident memory of this process or another, anonymous and file pages apart.

    Raises
    ------
    ProcessLookupError
        If no process has this ``pid``.

    Notes
    -----
    Source: psutil 8's ``Process.memory_extras()``, else ``memory_info()`` on Linux, where
    ``shared`` is the resident file and shared-memory pages (proc_pid_statm(5)). On other systems
    psutil 7 has no split. Before Linux 6.16 (and its stable series of
    July 2025) the figures lag by some pages a processor or thread; smaps_rollup is exact.
    """
    process = find_process(pid)
    try:
        return resident_of(process)
    except psutil.NoSuchProcess:
        raise no_process(pid) from None
    except (psutil.AccessDenied, PermissionError):
        return Resident(None, None, closed(pid))


def resident_of(process) -> Resident:
    """The resident memory of a ``psutil.Process``, from the first source that splits it."""
    # psutil 8 was to call it memory_info_ex, and renamed it before the release (psutil#2988).
    for name in ("memory_extras", "memory_info_ex"):
        extras = getattr(process, name, lambda: None)()
        if hasattr(extras, "rss_anon") and hasattr(extras, "rss_file"):
            file_bytes = extras.rss_file + getattr(extras, "rss_shmem", 0)
            return Resident(extras.rss_anon, file_bytes, f"psutil {name}: rss_anon, rss_file")
    memory = process.memory_info()
    if hasattr(memory, "shared"):
        source = "psutil memory_info: rss - shared, shared"
        return Resident(memory.rss - memory.shared, memory.shared, source)
    why = f"not available here, because {sys.platform} gives psutil no split of RSS"
    return Resident(None, None, why)
