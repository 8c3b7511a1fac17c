"""System calls that Python's standard library does not have, by ctypes, each as it is.

A call that fails raises OSError with the kernel's errno.
"""

import ctypes
import mmap
import os
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

CACHESTAT = 451  # the same number on every architecture but alpha and MIPS


def c_mmap(addr: int | None, length: int, prot: int, flags: int, fd: int, offset: int) -> int:
    """mmap(2): the address of the new region (derived in notebooks/03_mmap_parameters.ipynb)."""
    libc = ctypes.CDLL(None, use_errno=True)
    pointer, number = ctypes.c_void_p, ctypes.c_int
    libc.mmap.restype = pointer
    libc.mmap.argtypes = [pointer, ctypes.c_size_t, number, number, number, ctypes.c_long]
    address = libc.mmap(addr, length, prot, flags, fd, offset)
    if address == pointer(-1).value:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return address or 0


def munmap(address: int, length: int) -> None:
    """munmap(2): remove a region, or a part of it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(length)):
        raise _error("munmap")


def mincore(address: int, n_bytes: int) -> NDArray[np.bool_]:
    """Which pages of a region are in memory, ``(n_pages,)`` bool, by mincore(2).

    EPERM: a filter (seccomp) refuses the call. ENOMEM: nothing is mapped there.
    """
    answer = np.zeros(-(-n_bytes // mmap.PAGESIZE), np.uint8)
    libc, to = ctypes.CDLL(None, use_errno=True), ctypes.c_void_p(answer.ctypes.data)
    if libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(n_bytes), to):
        raise _error("mincore")
    return (answer & 1).astype(bool)


def cachestat_counter(fd: int) -> Callable[[int, int], tuple[int, int]]:
    """A function of ``(first page, pages)`` that gives the cached and the dirty pages there.

    It calls cachestat(2) (Linux 6.5; ENOSYS before). A page map asks thousands of times: so the
    arguments are laid out once, and the call, which never waits, keeps Python's global lock.
    """
    syscall, page = ctypes.PyDLL(None, use_errno=True).syscall, mmap.PAGESIZE
    span, counts = (ctypes.c_uint64 * 2)(), (ctypes.c_uint64 * 5)()
    number, at_span, at_counts = ctypes.c_long(CACHESTAT), ctypes.byref(span), ctypes.byref(counts)
    c_fd, flags = ctypes.c_int(fd), ctypes.c_uint(0)

    def count(start: int, n: int) -> tuple[int, int]:
        span[0], span[1] = start * page, n * page
        if syscall(number, c_fd, at_span, at_counts, flags):
            raise _error("cachestat")
        return counts[0], counts[1]

    return count


def _error(name: str) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, f"{name}: {os.strerror(code)}")
