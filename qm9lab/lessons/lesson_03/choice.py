"""What you can choose for mmap's six parameters: one table a parameter."""

import mmap
import os
from typing import NamedTuple

PAGE = mmap.PAGESIZE
LETTERS = b"a" * PAGE + b"b" * PAGE + b"c" * (PAGE // 2)
"""The file that is mapped: its last page is half full."""
SIZE = len(LETTERS)

PROT = {"NONE": 0, "READ": 1, "WRITE": 2, "EXEC": 4}
FLAG = {"SHARED": 1, "PRIVATE": 2, "FIXED_NOREPLACE": 0x100000}
FLAG |= {name: getattr(mmap, f"MAP_{name}", 0) for name in ("ANONYMOUS", "POPULATE")}

FREE = 1 << 36  # program, heap and libraries lie elsewhere on every 64-bit Linux
IN_USE = "page in use"  # the child knows where that is
ADDR = {"NULL": 0, "free page": FREE, "free page + 100": FREE + 100, IN_USE: None, "page 1": PAGE}
LENGTH = {"0": 0, "1": 1, "file size": SIZE, "file size + a page": SIZE + PAGE, "2**60": 2**60}
OFFSET = {"0": 0, "one page": PAGE, "half a page": PAGE // 2, "past the end": 4 * PAGE}
OFFSET |= {"2**63 - one page": 2**63 - PAGE}

FILES = {"path": LETTERS, "empty_path": b""}
FD = {  # the file that is opened, and how
    '"rb"': ("path", os.O_RDONLY),
    '"r+b"': ("path", os.O_RDWR),
    "O_WRONLY": ("path", os.O_WRONLY),
    "empty file": ("empty_path", os.O_RDWR),
    "folder": ("", os.O_RDONLY),
    "closed": ("path", os.O_RDWR),
    "-1": None,
}

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
    "fd": tuple(FD),
    "offset": tuple(OFFSET),
}
"""The choices for each parameter, in the order of the call."""


class Choice(NamedTuple):
    """One choice for each parameter, of those in ``CONTROLS``; the defaults work."""

    addr: str = "NULL"
    length: str = "file size"
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

    @property
    def fd_name(self) -> str:
        """The argument for fd, as code."""
        return "fd" if FD[self.fd] else "-1"

    @property
    def no_python_call(self) -> str:
        """Why Python's mmap cannot make this call, or ""."""
        if self.is_fixed:
            return "Python's mmap has no addr, so there is nothing for MAP_FIXED_NOREPLACE to fix"
        return "" if self.addr == "NULL" else "Python's mmap has no addr: it always passes NULL"

    @property
    def numbers(self) -> tuple[int, int, int, int]:
        """Length, prot, flags and offset as the kernel gets them."""
        prot = sum(n for name, n in PROT.items() if name in self.prot)
        flags = sum(n for name, n in FLAG.items() if name in self.flags)
        return LENGTH[self.length], prot, flags, OFFSET[self.offset]

    @property
    def span_bytes(self) -> int:
        """The length rounded up to whole pages."""
        return -(-LENGTH[self.length] // PAGE) * PAGE

    @property
    def file_bytes(self) -> int:
        """How many bytes of a file the region maps."""
        size = 0 if self.is_anonymous or self.fd == "empty file" else SIZE
        return max(0, min(size - OFFSET[self.offset], self.span_bytes))
