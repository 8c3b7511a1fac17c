"""What can be chosen for mmap's six parameters, and what can come of it."""

import mmap
from typing import NamedTuple

from qm9lab.measure import Region

PAGE = mmap.PAGESIZE
SIZE = 2 * PAGE + PAGE // 2
"""Bytes of the file that is mapped: its last page is half full."""

PROT = {"NONE": 0, "READ": 1, "WRITE": 2, "EXEC": 4}
FLAG = {"SHARED": 1, "PRIVATE": 2, "FIXED_NOREPLACE": 0x100000}
FLAG |= {name: getattr(mmap, f"MAP_{name}", 0) for name in ("ANONYMOUS", "POPULATE")}

ADDR = {
    "NULL": ("zero", 0),
    "free page": ("free", 0),
    "free page + 100": ("free", 100),
    "page in use": ("taken", 0),
    "page 1": ("zero", PAGE),
}
LENGTH = {
    "0": 0,
    "1": 1,
    f"{SIZE:,} (the file)": SIZE,
    f"{SIZE + PAGE:,} (a page more)": SIZE + PAGE,
    "2**60": 2**60,
}
OFFSET = {"0": 0, "one page": PAGE, "half a page": PAGE // 2, "past the end": 4 * PAGE}
OFFSET |= {"2**63 - one page": 2**63 - PAGE}

CONTROLS = {
    "addr": tuple(ADDR),
    "length": tuple(LENGTH),
    "prot": ("PROT_NONE", "PROT_READ", "PROT_WRITE", "PROT_READ|PROT_WRITE", "PROT_READ|PROT_EXEC"),
    "flags": (
        "MAP_SHARED",
        "MAP_PRIVATE",
        "MAP_SHARED|MAP_POPULATE",
        "MAP_PRIVATE|MAP_ANONYMOUS",
        "MAP_SHARED|MAP_ANONYMOUS",
        "MAP_SHARED|MAP_FIXED_NOREPLACE",
        "0",
    ),
    "fd": ('"rb"', '"r+b"', "O_WRONLY", "empty file", "folder", "closed", "-1"),
    "offset": tuple(OFFSET),
}
"""What can be chosen for each parameter, in the order of the call."""


class Choice(NamedTuple):
    """One choice for each parameter, of those in ``CONTROLS``; the defaults work."""

    addr: str = "NULL"
    length: str = CONTROLS["length"][2]
    prot: str = "PROT_READ"
    flags: str = "MAP_SHARED"
    fd: str = '"rb"'
    offset: str = "0"

    @property
    def is_anonymous(self) -> bool:
        return "ANONYMOUS" in self.flags

    @property
    def is_fixed(self) -> bool:
        return "FIXED" in self.flags


class Touch(NamedTuple):
    """One byte read or stored, and its result: the letter read, "done", or a signal's name."""

    act: str
    where: str
    result: str


class Outcome(NamedTuple):
    """What became of one call.

    Attributes
    ----------
    choice : Choice
    c_call, python_call : str
        The call as C and as Python write it, the second "" where Python cannot.
    sentence : str
        The outcome in words.
    missing : str
        Why the call was not made, "not available here, because ...", else "".
    addr : int
        The first argument, as it was in the child.
    error, message : str
        The name of the errno and its text, both "" if a region was made.
    meaning, change : str, tuple of str
        Of an error: its cause here, and the parameters (names in ``CONTROLS``) to change.
    address : int
        The value that mmap returned.
    region : Region
        The line of the child's /proc/self/maps; longer than what was asked for where the kernel
        shows it as one with a neighbour of the same kind.
    present : tuple of bool or None
        Of each page, whether it was mapped when the call returned, before any touch.
    touches : tuple of Touch
        Of the first and the last byte of the region.
    stored : tuple of int
        Offsets of the file's bytes that the touches changed.
    python_says : str
        What Python's own call did, or why there is none.
    regions : tuple of Region
        The child's whole address space, while the region was in it.
    """

    choice: Choice
    c_call: str = ""
    python_call: str = ""
    sentence: str = ""
    missing: str = ""
    addr: int = 0
    error: str = ""
    message: str = ""
    meaning: str = ""
    change: tuple[str, ...] = ()
    address: int = 0
    region: Region | None = None
    present: tuple[bool, ...] | None = None
    touches: tuple[Touch, ...] = ()
    stored: tuple[int, ...] = ()
    python_says: str = ""
    regions: tuple[Region, ...] = ()

    @property
    def length_bytes(self) -> int:
        return LENGTH[self.choice.length]

    @property
    def span_bytes(self) -> int:
        """The length rounded up to whole pages."""
        return -(-self.length_bytes // PAGE) * PAGE

    @property
    def offset_bytes(self) -> int:
        return OFFSET[self.choice.offset]

    @property
    def size_bytes(self) -> int:
        """How long the file is that ``fd`` stands for."""
        return 0 if self.choice.fd == "empty file" else SIZE

    @property
    def file_bytes(self) -> int | None:
        """How many bytes of a file lie behind the region; None for an anonymous one."""
        if self.choice.is_anonymous:
            return None
        return max(0, min(self.size_bytes - self.offset_bytes, self.span_bytes))

    @property
    def zero_bytes(self) -> int:
        """Bytes past the end of the file, but inside its last page: they read 0."""
        return -(self.file_bytes or 0) % PAGE

    @property
    def lost_bytes(self) -> int:
        """Bytes in pages wholly past the end of the file: touching one is SIGBUS."""
        if self.file_bytes is None:
            return 0
        return self.span_bytes - self.file_bytes - self.zero_bytes
