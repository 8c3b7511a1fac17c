"""Cold files: out of the page cache, and verified to be."""

import os
import sys
import time
from pathlib import Path

from .cache import MEMORY_ONLY, CacheState, cache_state, file_system


def evict(path) -> None:
    """Write a file's dirty pages back, then advise the kernel to drop its pages.

    Advice may be ignored, and pages that a process has mapped are kept: ``make_cold`` verifies.

    Notes
    -----
    Calls ``fsync(2)`` and ``posix_fadvise(2)`` with ``POSIX_FADV_DONTNEED``; derived in
    notebooks/06_pages_and_faults.ipynb.
    """
    with open(path, "rb") as f:
        os.fsync(f.fileno())
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def make_cold(path, timeout_s: float = 5.0) -> CacheState:
    """Write a file's dirty pages back, drop its pages from the page cache, and verify it.

    Returns
    -------
    CacheState
        ``n_cached == 0`` when the file is cold. If it is not, ``source`` says so and why: pages
        that some process has mapped are not evicted, and tmpfs has no disk to evict to.

    Notes
    -----
    Calls ``fsync(2)`` and ``posix_fadvise(2)`` with ``POSIX_FADV_DONTNEED``, and asks again for
    as long as ``timeout_s``: a page that is still being read or written is not dropped.
    """
    path = Path(path)
    if not hasattr(os, "posix_fadvise"):
        state = cache_state(path)
        return state._replace(
            source=f"not available here, because {sys.platform} has no posix_fadvise"
        )
    deadline, n_zero = time.monotonic() + timeout_s, 0
    kind = file_system(path)
    while True:
        try:
            evict(path)
        except OSError:  # a file system that is only read (squashfs) has no fsync: advise alone
            with path.open("rb") as f:
                os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        state = cache_state(path)
        n_zero = n_zero + 1 if state.n_cached == 0 else 0
        # cachestat sees also pages that are still being read, except below overlayfs; mincore does
        # not, so that it must say so three times.
        sure = 1 if state.source == "cachestat" and kind != "overlay" else 3
        if state.n_cached is None or n_zero == sure:
            return state
        if n_zero == 0 and (time.monotonic() > deadline or kind in MEMORY_ONLY):
            return state._replace(
                source=f"not available here, because {state.n_cached} of {state.n_pages} pages "
                "cannot be evicted: mapped by a process, or no disk behind them "
                f"({kind})"
            )
        time.sleep(0.02)


def bring_to(path, temperature: str) -> CacheState:
    """Make a file cold, or warm: read once from end to end, from cold; and look."""
    state = make_cold(path)
    if temperature == "cold":
        return state
    with open(path, "rb") as f:
        while f.read(1 << 20):
            pass
    return cache_state(path)
