"""Words for a call: as C and as Python write it, why it fails, and what it made."""

from collections.abc import Iterator

from qm9lab.measure import is_missing

from .choice import CONTROLS, FD, IN_USE, OFFSET, PAGE, Choice

# The text of the calls ------------------------------------------------------------------------


def c_call(choice: Choice, addr: int | None = None) -> str:
    """The C call; ``addr`` by its name until the child has one."""
    where = choice.addr if addr is None or choice.addr == "NULL" else hex(addr)
    length, _, _, offset = map(number, choice.numbers)
    prot, flags = (text.replace("|", " | ") for text in (choice.prot, choice.flags))
    return f"mmap({where}, {length}, {prot}, {flags}, {'fd' if FD[choice.fd] else -1}, {offset})"


def python_call(choice: Choice) -> str:
    """The Python call; "" if Python's mmap cannot make it."""
    if choice.no_python_call:
        return ""
    prot, flags = (
        " | ".join(f"mmap.{name}" for name in text.split("|")) if "_" in text else "0"
        for text in (choice.prot.replace("PROT_NONE", "0"), choice.flags)
    )
    length, _, _, offset = map(number, choice.numbers)
    fd = "fd" if FD[choice.fd] else "-1"
    return f"mmap.mmap({fd}, {length}, {flags}, {prot}, offset={offset})"


def number(n: int) -> str:
    """A number as C and Python write it; in hexadecimal if it is a huge one."""
    return hex(n) if n >= 2**32 else str(n)


# What an error means --------------------------------------------------------------------------


def causes(c: Choice, facts: dict) -> Iterator[tuple[str, str]]:
    """Each cause of an error that the call has: the errno and what to change, and what it means.

    In the order in which they are checked: an unaligned offset by the C library (glibc), the rest
    by the kernel (mm/mmap.c, do_mmap). The first one is reported. ``facts`` hold in the child:
    ``noexec`` (its folder's mount), ``too low`` (choices of addr). Source: mmap(2), ERRORS.
    """
    of_a_file, has_flags = not c.is_anonymous, c.flags != "0"
    if OFFSET[c.offset] % PAGE:
        yield (
            "EINVAL offset",
            "offset must be a multiple of the page size: a map shows whole pages of the file.",
        )
    if of_a_file and c.fd in ("closed", "-1"):
        yield "EBADF fd flags", "fd is not an open file, and without MAP_ANONYMOUS one is needed."
    if c.length == "0":
        yield (
            "EINVAL length",
            "length is 0, and the kernel makes no empty region. In Python, 0 means the whole file: "
            "Python asks for the size and passes it on.",
        )
    if c.length == "2**60":
        yield (
            "ENOMEM length",
            "length is more than all the addresses of a process. It is not about memory.",
        )
    if c.is_fixed and c.addr == "free page + 100":
        yield (
            "EINVAL addr flags",
            "with MAP_FIXED_NOREPLACE addr must be a multiple of the page size. Only hints are "
            "rounded.",
        )
    if c.is_fixed and c.addr in facts["too low"]:
        yield (
            "EPERM addr flags",
            "Linux keeps such low addresses free (vm.mmap_min_addr), so that a program that uses "
            "a NULL pointer crashes. Only a privileged process may map there.",
        )
    if c.is_fixed and c.addr == IN_USE:
        yield (
            "EEXIST addr flags",
            "MAP_FIXED_NOREPLACE asks for exactly these addresses, but another region has them.",
        )
    if of_a_file and c.offset.startswith("2**63") and c.fd != "folder":
        yield "EOVERFLOW offset", "offset + length is past the last byte that a file can have."
    shared = of_a_file and "SHARED" in c.flags
    if shared and "WRITE" in c.prot and c.fd in ("rb", "folder"):
        yield (
            "EACCES prot flags fd",
            "in a writable shared map your changes go to the file, so it must be open for reading "
            "and writing. A private map needs reading only.",
        )
    if of_a_file and has_flags and c.fd == "O_WRONLY":
        yield (
            "EACCES fd",
            "the file is open for writing only, but a map must be able to read it: before you can "
            "write one byte, the kernel reads the page.",
        )
    if of_a_file and facts["noexec"] and "EXEC" in c.prot:
        yield "EPERM prot", "PROT_EXEC does not work on a file system that is mounted noexec."
    if of_a_file and has_flags and c.fd == "folder":
        yield "ENODEV fd", "fd is an open folder, and a folder cannot be mapped."
    if not has_flags:
        yield (
            "EINVAL flags",
            "flags needs MAP_SHARED or MAP_PRIVATE: the kernel cannot guess whether your changes "
            "should reach the file.",
        )


def explain(choice: Choice, error: str, facts: dict) -> tuple[str, tuple[str, ...]]:
    """What an errno, such as ``"EINVAL"``, means for this choice, and what to change."""
    for head, meaning in causes(choice, facts):
        errno, *change = head.split()
        if errno == error:
            return meaning, tuple(change)
    if error == "ENOMEM":
        return "the kernel has no memory, or no more regions, for this process now.", ("length",)
    return "this explorer knows no cause for it: see mmap(2), ERRORS.", tuple(CONTROLS)


# What the call made -----------------------------------------------------------------------------

PERMS = {"r": "readable", "w": "writable", "x": "executable", "s": "shared", "p": "private"}


def place(choice: Choice, addr: int, address: int) -> str:
    """What the kernel did with ``addr``, in words."""
    if choice.is_fixed:
        return "the region is exactly at addr"
    if choice.addr == "NULL":
        return "the kernel chose the address"
    if address == addr:
        return "the kernel took the hint addr"
    if 0 < addr - address < PAGE:
        return "the kernel rounded the hint addr down to a page"
    if addr <= PAGE:
        return "the hint addr is too low, so the kernel went up"
    return "the hint addr is in use, so the kernel chose another address"


def shown(choice: Choice) -> str:
    """What the region shows: bytes of the file, zeros, and pages that cannot be read."""
    if choice.is_anonymous:
        return "zeros and no file: mmap ignores fd"
    parts = [f"{choice.file_bytes:,} bytes of the file"]
    zero_bytes = -choice.file_bytes % PAGE
    if zero_bytes:
        parts.append(f"then {zero_bytes:,} bytes of zeros")
    past_bytes = choice.span_bytes - choice.file_bytes - zero_bytes  # an access there is SIGBUS
    if past_bytes:
        parts.append(f"then {in_pages(past_bytes)} past the end of the file")
    return ", ".join(parts)


def touched(result, where: str) -> str:
    """What a read and a write of the ``where`` ("first" or "last") byte did."""
    read, write = result.touches[where]
    if read.startswith("SIG"):
        return f"a read is {read}" + ("" if write == read else f", a write is {write}")
    seen = "reads 0" if read == "\0" else f"reads {read!r}"
    if write.startswith("SIG"):
        return f"{seen}, a write is {write}"
    if result.choice.is_anonymous:
        return f"{seen}, a write works"
    if result.region.perms[3] == "p":
        return f"{seen}, a write goes to a copy"
    at = 0 if where == "first" else result.choice.span_bytes - 1
    there = OFFSET[result.choice.offset] + at in result.written
    return f"{seen}, a write {'reaches' if there else 'does not reach'} the file"


def describe(result) -> str:
    """The result in words, as a sentence or a few."""
    if is_missing(result.error):
        return str(result.error)
    if result.error:
        meaning, change = result.cause
        return f"{result.error}, {result.message}: {meaning} Change {' or '.join(change)}."
    choice, letters = result.choice, result.region.perms
    names = ", ".join(PERMS[letter] for letter in letters if letter != "-")
    span = in_pages(choice.span_bytes)
    n_present = result.present if is_missing(result.present) else sum(result.present)
    parts = [
        f"{span}, {letters} ({names}): {place(choice, result.addr, result.address)}.",
        f"The region shows {shown(choice)}.",
        f"Mapped when the call returned: {n_present} of {span}.",
    ]
    parts += [f"The {where} byte: {touched(result, where)}." for where in result.touches]
    return " ".join(parts)


def in_pages(n_bytes: int) -> str:
    """How many pages, in words."""
    n_pages = n_bytes // PAGE
    return f"{n_pages} page{'s' * (n_pages > 1)}"
