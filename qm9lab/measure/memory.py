"""Resident memory of a process: anonymous and file pages apart, and what it shares."""

import platform
from typing import Any, NamedTuple

from .missing import Missing
from .proc import ask_psutil, read_proc


class Resident(NamedTuple):
    """Resident memory of a process, in bytes, anonymous and file pages apart."""

    anonymous_bytes: int | Missing  # pages without a file, which can only go to swap
    file_bytes: int | Missing  # of files and shared memory; clean ones can be dropped at once
    source: str


def resident(pid: int | None = None) -> Resident:
    """Resident memory of this process or another, anonymous and file pages apart.

    Source: psutil 8's ``Process.memory_extras()``, else ``memory_info()`` on Linux, where
    ``shared`` is the resident file and shared-memory pages (proc_pid_statm(5)). On other systems
    psutil 7 has no split. Before Linux 6.16 (and its stable series of July 2025) the figures lag
    by some pages a processor or thread; smaps_rollup is exact. Raises ProcessLookupError if no
    process has this ``pid``.
    """
    found = ask_psutil(pid, _resident)
    return Resident(found, found, "") if isinstance(found, Missing) else found


def _resident(process: Any) -> Resident:
    # psutil 8 was to call it memory_info_ex, and renamed it before the release (psutil#2988).
    for name in ("memory_extras", "memory_info_ex"):
        extras: Any = getattr(process, name, lambda: None)()
        if hasattr(extras, "rss_anon") and hasattr(extras, "rss_file"):
            file_bytes = extras.rss_file + getattr(extras, "rss_shmem", 0)
            return Resident(extras.rss_anon, file_bytes, f"psutil {name}: rss_anon, rss_file")
    memory = process.memory_info()
    if hasattr(memory, "shared"):
        source = "psutil memory_info: rss - shared, shared"
        return Resident(memory.rss - memory.shared, memory.shared, source)
    missing = Missing(f"psutil does not split RSS on {platform.system()}")
    return Resident(missing, missing, "")


class Footprint(NamedTuple):
    """What a process has resident and what of it is its own, in bytes.

    A kernel that does not count the mappers of each small page of a large folio (the experimental
    CONFIG_NO_PAGE_MAPCOUNT, from Linux 6.15) puts the folio's average in PSS, and may count as
    shared what is mapped once (Documentation/filesystems/proc.rst).
    """

    rss_bytes: int | Missing  # all resident pages, each counted whole
    pss_bytes: int | Missing  # each divided by how often it is mapped, here or elsewhere
    uss_bytes: int | Missing  # pages mapped once, here (one that is mapped here twice is not)
    pss_anonymous_bytes: int | Missing  # the part of PSS without a file or shared memory
    source: str

    def since(self, before: "Footprint") -> "Footprint":
        """What was added since ``before``; negative where memory was given back."""
        rss, pss, uss, anonymous = (a - b for a, b in zip(self[:4], before[:4], strict=True))
        return Footprint(rss, pss, uss, anonymous, self.source)


def footprint(pid: int | None = None) -> Footprint:
    """Footprint of this process or another one of this user's.

    Source: ``/proc/PID/smaps_rollup`` (Linux 4.14), whose Rss, unlike that of ``memory_info()``,
    does not lag; USS is the sum of its Private lines. Without it psutil's ``memory_footprint()``
    (psutil 8) or ``memory_full_info()`` has RSS and USS, and no PSS. Raises ProcessLookupError if
    no process has this ``pid``, or it is a zombie.
    """
    text = read_proc("smaps_rollup", pid)
    if isinstance(text, Missing):
        found = ask_psutil(pid, _rss_and_uss)
        if isinstance(found, Missing):
            return Footprint(found, text, text, text, "")
        rss, uss, source = found
        return Footprint(rss, text, text if uss is None else uss, text, source)
    lines = [line.split() for line in text.decode("ascii", "replace").splitlines()[1:]]
    sizes = {name.rstrip(":"): int(n_kib) * 1024 for name, n_kib, *_ in lines}
    uss = sum(n for name, n in sizes.items() if name.startswith("Private_"))
    anonymous: int | Missing | None = sizes.get("Pss_Anon")
    if anonymous is None:
        anonymous = Missing("this kernel does not split PSS (Linux 5.4 does)")
    return Footprint(sizes["Rss"], sizes["Pss"], uss, anonymous, "/proc/PID/smaps_rollup")


def _rss_and_uss(process: Any) -> tuple[int, int | None, str]:
    name = "memory_footprint" if hasattr(process, "memory_footprint") else "memory_full_info"
    uss = getattr(getattr(process, name)(), "uss", None)
    return process.memory_info().rss, uss, f"psutil {name}"
