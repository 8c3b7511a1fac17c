"""Cold files: out of the page cache, and verified to be."""

import os
import platform
import tempfile
import time
from pathlib import Path

from .cache import MEMORY_ONLY, AnyPath, CacheState, cache_state, file_system
from .missing import Missing, is_missing

RETRY_S = 0.02


def evict(path: AnyPath) -> None:
    """Write a file's dirty pages back, then advise the kernel to drop its pages.

    The kernel may ignore the advice, and it keeps pages that a process has mapped: ``make_cold``
    verifies. Source: ``fsync(2)``, ``posix_fadvise(2)``; derived in
    notebooks/06_pages_and_faults.ipynb.
    """
    with open(path, "rb") as f:
        os.fsync(f.fileno())
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def make_cold(path: AnyPath, timeout_s: float = 5.0) -> CacheState:
    """Write a file's dirty pages back, drop its pages from the page cache, and verify it.

    ``is_cold`` is True when the file is cold, and False when pages stay because some process has
    them mapped. It is Missing where this system or this file system cannot evict. The kernel is
    asked again for as long as ``timeout_s``: it keeps a page that is still being read or written.
    """
    path = Path(path)
    if not hasattr(os, "posix_fadvise"):
        missing = Missing(f"{platform.system()} has no posix_fadvise")
        return cache_state(path)._replace(is_cold=missing)
    deadline, n_zero = time.monotonic() + timeout_s, 0
    while True:
        try:
            evict(path)
        except OSError:  # a file system that is only read (squashfs) has no fsync: advise alone
            with path.open("rb") as f:
                os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        state = cache_state(path)
        if is_missing(state.n_cached):
            return state
        # mincore does not see pages that are still being read: it must report cold three times.
        n_zero = n_zero + 1 if state.is_cold else 0
        if n_zero == (1 if state.source == "cachestat" else 3):
            return state
        if n_zero == 0 and (time.monotonic() > deadline or file_system(path) in MEMORY_ONLY):
            return state._replace(is_cold=_why_it_stays(path))
        time.sleep(RETRY_S)


def _why_it_stays(path: Path) -> bool | Missing:
    """False where another file can be evicted (so this one is mapped), else why none can."""
    kind = file_system(path)
    if kind in MEMORY_ONLY:
        return Missing(f"{kind} has no disk, so its pages cannot be evicted")
    try:
        with tempfile.NamedTemporaryFile(prefix=".probe-", dir=path.parent) as probe:
            probe.write(b"x")
            probe.flush()
            for _ in range(50):
                evict(probe.name)
                if cache_state(probe.name).n_cached == 0:
                    return False
                time.sleep(RETRY_S)
    except OSError:  # the folder cannot be written: no answer
        return False
    return Missing(f"this file system ({kind}) does not drop a file's pages when it is advised to")


def bring_to(path: AnyPath, temperature: str) -> CacheState:
    """Make a file ``"cold"``, or ``"warm"``: evicted, then read once from end to end."""
    state = make_cold(path)
    if temperature == "cold":
        return state
    with open(path, "rb") as f:
        while f.read(1 << 20):
            pass
    return cache_state(path)
