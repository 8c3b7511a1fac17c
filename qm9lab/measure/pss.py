"""Footprint of a process when it is shared: RSS, PSS, USS, and sums over several processes."""

import sys
from typing import NamedTuple

import psutil


class Footprint(NamedTuple):
    """Footprint of a process, or a sum over several, in bytes; None where the system does not tell.

    Attributes
    ----------
    rss_bytes : int
        All resident pages, each counted whole.
    pss_bytes : int or None
        Each resident page divided by how often it is mapped, by this process or by another.
    uss_bytes : int or None
        Resident pages that are mapped once, here. (One that this process maps twice is none of
        them, and half of it stands in PSS twice.)
    pss_anonymous_bytes : int or None
        The part of PSS with no file behind it; the rest is pages of files (and shared memory).
    source : str

    Notes
    -----
    A kernel that does not count the mappers of each small page of a large folio (the experimental
    CONFIG_NO_PAGE_MAPCOUNT, from Linux 6.15) puts the folio's average in PSS, and may count as
    shared what is mapped once (Documentation/filesystems/proc.rst).
    """

    rss_bytes: int
    pss_bytes: int | None
    uss_bytes: int | None
    pss_anonymous_bytes: int | None
    source: str

    def since(self, before: "Footprint") -> "Footprint":
        """What was added since ``before``; less than nothing where memory was given back."""
        pairs = zip(self[:4], before[:4], strict=True)
        return Footprint(
            *(None if None in pair else pair[0] - pair[1] for pair in pairs), self.source
        )


def footprint(pid: int | None = None) -> Footprint:
    """Footprint of this process or another one of this user's.

    Raises
    ------
    ProcessLookupError
        If no process has this ``pid``.

    Notes
    -----
    Source: PSS and USS by psutil's ``memory_footprint()`` (psutil 8) or ``memory_full_info()``,
    which on Linux read ``/proc/PID/smaps_rollup``. From the same file come ``Rss``, which unlike
    that of ``memory_info()`` does not lag, and ``Pss_Anon`` (Linux 5.4).
    """
    try:
        process = psutil.Process(pid)
        rss = process.memory_info().rss
        name = "memory_footprint" if hasattr(process, "memory_footprint") else "memory_full_info"
        try:
            full = getattr(process, name)()
        except psutil.AccessDenied:
            full = None
    except psutil.NoSuchProcess:
        found = f"expected a running process, found none with pid {pid}"
        raise ProcessLookupError(found) from None
    pss, uss = getattr(full, "pss", None), getattr(full, "uss", None)
    if pss is None:
        why = f"not available here, because {sys.platform} has no PSS"
        return Footprint(rss, None, uss, None, why)
    exact = _rollup(process.pid)
    rss, anonymous = exact.get("Rss", rss), exact.get("Pss_Anon")
    source = f"psutil {name}: PSS, USS; smaps_rollup: Rss, Pss_Anon"
    if anonymous is None:
        source = "not available here, because this kernel does not split PSS (Linux 5.4 does)"
    return Footprint(rss, pss, uss, anonymous, source)


def _rollup(pid: int) -> dict[str, int]:
    """Bytes by the kernel's name, such as ``Pss_Anon``; empty where there is no such file."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii", errors="replace") as f:
            words = [line.split() for line in f][1:]
    except OSError:
        return {}
    return {each[0].rstrip(":"): int(each[1]) * 1024 for each in words}


def total(memories) -> Footprint:
    """The sum of several; a part that one of them does not have is None."""
    memories = list(memories)
    columns = list(zip(*memories, strict=True))[:4]
    parts = (None if None in column else sum(column) for column in columns)
    return Footprint(*parts, memories[0].source)
