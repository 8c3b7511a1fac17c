"""One call of mmap(2) with six chosen parameters, and what the kernel did.

``make(folder, Choice(...))`` makes the call in a child process, on a file in ``folder``, and
accesses the region. An access that the kernel answers with a signal kills a fork of the child.
"""

import ctypes
import errno
import mmap
import os
import signal
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from qm9lab import measure, processes
from qm9lab.measure import Missing, Region
from qm9lab.measure.address_space import is_mapped, pagemap
from qm9lab.measure.system_calls import c_mmap, munmap

from . import words
from .choice import ADDR, ANONYMOUS, FD, FILES, FLAGS, IN_USE, LETTERS, PAGE, Choice


class CallResult(NamedTuple):
    """What one call did.

    ``touches`` are, for the "first" and the "last" byte of the region, what a read and then a write
    did: the letter read, "done", or a signal's name.
    """

    choice: Choice
    python_result: str  # what Python's own call did, or why there is none
    error: str | Missing = ""  # the errno's name; "" if it worked; Missing if it was not made
    facts: dict = {}  # of the child: its "regions" before the call, and see words.causes
    addr: int | None = None  # the first argument, as it was in the child
    message: str = ""  # the errno's text
    address: int = 0  # the value that mmap returned
    region: Region | None = None  # longer than it should be if the kernel merged neighbours
    present: list[bool] | Missing = []  # of each page, whether it was mapped before any access
    touches: dict[str, list[str]] = {}
    written: list[int] = []  # offsets of the file's bytes that the touches changed

    @property
    def cause(self) -> tuple[str, tuple[str, ...]]:
        """What the error means, and the parameters to change."""
        return words.explain(self.choice, str(self.error), self.facts)

    @property
    def sentence(self) -> str:
        """The result in words."""
        return words.describe(self)


def make(folder, choice: Choice) -> CallResult:
    """Make the call, read and write the region's first and last byte, and call Python's mmap."""
    return make_all(folder, [choice])[0]


def make_all(folder, choices: Iterable[Choice], touch: bool = True) -> list[CallResult]:
    """Make one call after another in one child process, with touches or without; see ``make``."""
    choices = list(choices)
    if sys.platform == "linux" and sys.maxsize > 2**32:
        with tempfile.TemporaryDirectory(dir=folder, prefix="call-") as own:
            done = processes.run(_answer, own, [list(choice) for choice in choices], touch).value
    else:
        done = Missing("only 64-bit Linux lists a process's regions in /proc/self/maps")
    if isinstance(done, Missing):
        return [CallResult(choice, choice.no_python_call, done) for choice in choices]
    results = []
    for choice, answer in zip(choices, done["answers"], strict=True):
        if "region" in answer:
            answer["region"] = Region(*answer["region"])
        results.append(CallResult(choice, facts=done["facts"], **answer))
    return results


# In the child process -------------------------------------------------------------------------


def _answer(folder, choices, touches):
    from qm9lab.lessons.lesson_03 import calls

    return calls.answer(folder, choices, touches)


def answer(folder: str, choices: list[list[str]], touches: bool) -> dict:
    """Make each call: the facts that hold for all of them, and what each did."""
    folder = os.path.realpath(folder)  # as /proc/self/maps has it
    write_files(folder)
    regions = measure.regions()  # holds for all: each call's region is gone before the next call
    facts = {
        "noexec": bool(os.statvfs(folder).f_flag & os.ST_NOEXEC),
        "too low": [name for name in ("NULL", "page 1") if not may_map_at(ADDR[name])],
        "regions": [tuple(region) for region in regions],
    }
    fds = {name: descriptor(name, folder) for name in FD}
    answers = []
    for each in choices:
        choice = Choice(*each)
        addr = regions[0].start if choice.addr == IN_USE else ADDR[choice.addr]
        found = call(choice, addr, fds[choice.fd], folder, touches)
        by_python = choice.no_python_call or call_in_python(choice, fds[choice.fd], folder)
        answers.append(found | {"addr": addr, "python_result": by_python})
    return {"facts": facts, "answers": answers}


def write_files(folder: str) -> None:
    """The files as they begin; the cut to nothing drops what was written past their end."""
    for name, content in FILES.items():
        Path(folder, name).write_bytes(content)


def may_map_at(address: int) -> bool:
    """Whether this user may have a region at exactly this low address."""
    flags = FLAGS["MAP_SHARED|MAP_FIXED_NOREPLACE"] | ANONYMOUS
    try:
        munmap(c_mmap(address, PAGE, 0, flags, -1, 0), PAGE)
    except OSError as error:
        return error.errno != errno.EPERM
    return True


def descriptor(name: str, folder: str) -> int:
    """The descriptor that the menu ``fd`` names: -1, or closed, or open."""
    if FD[name] is None:
        return -1
    file, flags = FD[name]
    fd = os.open(os.path.join(folder, file), flags)
    if name == "closed":
        os.close(fd)
    return fd


def call(choice: Choice, addr: int, fd: int, folder: str, touches: bool) -> dict:
    """Make one call, look at its region and access it, and unmap it again."""
    length, prot, flags, offset = choice.numbers
    try:
        address = c_mmap(addr, length, prot, flags, fd, offset)
    except OSError as error:
        return {"error": errno.errorcode[error.errno], "message": error.strerror}
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
    munmap(address, span)
    if touches:
        write_files(folder)
    return found


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


def call_in_python(choice: Choice, fd: int, folder: str) -> str:
    """Make the call of ``words.python_call``: the exception that it raises, or its map."""
    length, prot, flags, offset = choice.numbers
    try:
        with mmap.mmap(fd, length, flags, prot, offset=offset) as mm:
            perms = [r.perms for r in measure.regions() if r.name.startswith(folder)]
            return ", ".join([f"a map of {len(mm):,} bytes", *perms[:1]])
    except OSError as error:
        return f"{type(error).__name__}: {errno.errorcode[error.errno]}, {error.strerror}"
    except (ValueError, OverflowError) as error:
        return f"{type(error).__name__}: {error}"
