"""Processes by their pid, and the files of /proc: the one place that reads them."""

import os
import platform
from collections.abc import Callable
from typing import TypeVar

import psutil

from .missing import Missing

Answer = TypeVar("Answer")


def ask_psutil(pid: int | None, ask: Callable[[psutil.Process], Answer]) -> Answer | Missing:
    """What ``ask`` finds out about a process by psutil; Missing if it is another user's.

    Raises ProcessLookupError if no process has this ``pid``, ValueError if it is negative.
    """
    if pid is not None and pid < 0:
        raise ValueError(f"expected the pid of a process, 1 or more, found {pid}")
    try:
        return ask(psutil.Process(pid))
    except psutil.NoSuchProcess:
        message = f"expected a running process, found none with pid {pid}"
        raise ProcessLookupError(message) from None
    except psutil.AccessDenied:
        return _no_permission(pid)


def read_proc(
    name: str, pid: int | None = None, start: int = 0, length: int = -1
) -> bytes | Missing:
    """The bytes of ``/proc/PID/NAME`` from ``start`` on, such as ``maps`` or ``pagemap``.

    Raises as ``ask_psutil``, and ProcessLookupError for a zombie, which has no memory any more.
    """
    if pid is not None:
        ask_psutil(pid, lambda process: process.pid)
    try:
        with open(f"/proc/{'self' if pid is None else pid}/{name}", "rb", buffering=0) as f:
            f.seek(start)
            return f.read(length) or b""
    except PermissionError:
        return _no_permission(pid)
    except ProcessLookupError:
        # The file was opened, but the process that it describes has no memory.
        if ask_psutil(pid, lambda process: process.status()) == psutil.STATUS_ZOMBIE:
            raise ProcessLookupError(
                f"expected a running process, found that {pid} is a zombie: it has ended, and its "
                "parent has not asked for its exit status yet"
            ) from None
        return Missing(f"process {pid} is a thread of the kernel, without memory of its own")
    except FileNotFoundError:
        ask_psutil(pid, lambda process: process.pid)  # it may have ended since
        return Missing(f"{platform.system()} has no /proc/PID/{name}")


def _no_permission(pid: int | None) -> Missing:
    if pid is None or pid == os.getpid():  # as after a change of user (prctl(2), PR_SET_DUMPABLE)
        return Missing("this process may not read its own files in /proc")
    return Missing(f"process {pid} belongs to another user, and you may not look into it")
