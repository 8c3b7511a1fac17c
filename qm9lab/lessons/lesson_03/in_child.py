"""The part of lesson 03 that runs in a child process: makes the calls, and accesses the regions.

An access that the kernel answers with a signal kills a fork of the child and not the child.
"""

import contextlib
import ctypes
import errno
import mmap
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from qm9lab import measure
from qm9lab.measure.address_space import is_mapped, pagemap
from qm9lab.measure.system_calls import c_mmap, munmap

from .choice import ADDR, FD, FILES, FLAG, IN_USE, LETTERS, PAGE, Choice


def may_map_at(address: int) -> bool:
    """Whether this user may have a region at exactly this low address."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | FLAG["FIXED_NOREPLACE"]
    try:
        munmap(c_mmap(address, PAGE, 0, flags, -1, 0), PAGE)
    except OSError as error:
        return error.errno != errno.EPERM
    return True


@contextlib.contextmanager
def descriptor(kind: str, folder: str) -> Iterator[int]:
    """A descriptor of the kind that the control ``fd`` names, or the number of none."""
    if kind == "-1":
        yield -1
        return
    fd = os.open(os.path.join(folder, FD[kind].name), FD[kind].flags)
    if kind == "closed":
        os.close(fd)
    try:
        yield fd
    finally:
        if kind != "closed":
            os.close(fd)


def touch(act: str, address: int) -> str:
    """Read or write one byte in a fork; what was read, "done", or the signal's name.

    The byte comes back as the fork's exit status.
    """
    pid = os.fork()
    if pid == 0:
        status = 255
        try:
            byte = ctypes.create_string_buffer(b"!", 1)
            both = (byte, address) if act == "read" else (address, byte)
            ctypes.memmove(*both, 1)
            status = byte.raw[0]
        finally:
            os._exit(status)  # whatever was raised, a fork never goes on as its parent
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status < 0:
        return signal.Signals(-status).name
    return chr(status) if act == "read" else "done"


def make_in_python(choice: Choice, folder: str) -> str:
    """Make Python's own call: the exception that it raises, or the map that it makes.

    The text of this call is ``words.python_call``.
    """
    length, prot, flags, offset = choice.numbers
    with descriptor(choice.fd, folder) as fd:
        try:
            with mmap.mmap(fd, length, flags, prot, offset=offset) as mm:
                perms = [r.perms for r in measure.regions() if r.name.startswith(folder)]
                return ", ".join([f"a map of {len(mm):,} bytes", *perms[:1]])
        except OSError as error:
            return f"{type(error).__name__}: {errno.errorcode[error.errno]}, {error.strerror}"
        except (ValueError, OverflowError) as error:
            return f"{type(error).__name__}: {error}"


def look(choice: Choice, folder: str, address: int, touches: bool) -> dict:
    """The region that a call made: its line in maps, its pages, and what accesses to it do."""
    span = choice.span_bytes
    entries = pagemap(address, span // PAGE)
    present = entries if measure.is_missing(entries) else is_mapped(entries).tolist()
    found = {"address": address, "present": present, "touches": {}}
    found["region"] = next(tuple(r) for r in measure.regions() if r.start <= address < r.end)
    if touches:
        for where, at in (("first", address), ("last", address + span - 1)):
            found["touches"][where] = [touch(act, at) for act in ("read", "write")]
    now = Path(folder, "path").read_bytes()
    found["written"] = [k for k, byte in enumerate(now) if byte != LETTERS[k]]
    return found


def write_files(folder: str) -> None:
    """The files as they begin; the cut to nothing drops what was written past their end."""
    for name, content in FILES.items():
        Path(folder, name).write_bytes(content)


def make(choice: Choice, folder: str, in_use: int, touches: bool) -> dict:
    """Make one call, look at its region, and unmap it again."""
    addr = in_use if choice.addr == IN_USE else ADDR[choice.addr]
    length, prot, flags, offset = choice.numbers
    answer = {"addr": addr}
    try:
        with descriptor(choice.fd, folder) as fd:
            address = c_mmap(addr, length, prot, flags, fd, offset)
    except OSError as error:
        answer |= {"error": errno.errorcode[error.errno], "message": error.strerror}
    else:
        answer |= look(choice, folder, address, touches)
        munmap(address, choice.span_bytes)
        if touches:
            write_files(folder)
    answer["python_result"] = choice.no_python_call or make_in_python(choice, folder)
    return answer


def answer(folder: str, choices: list[list[str]], touches: bool) -> dict:
    """Make each call: the facts that hold for all of them, and what each did."""
    write_files(folder)
    regions = measure.regions()  # holds for all: each call's region is gone before the next call
    facts = {
        "noexec": bool(os.statvfs(folder).f_flag & os.ST_NOEXEC),
        "too low": [name for name in ("NULL", "page 1") if not may_map_at(ADDR[name])],
        "regions": [tuple(region) for region in regions],
    }
    answers = [make(Choice(*each), folder, regions[0].start, touches) for each in choices]
    return {"facts": facts, "answers": answers}
