"""Words for a call: as C and as Python write it, why it fails, and what it made."""

from qm9lab.measure import is_missing

from .choice import CONTROLS, FD, IN_USE, LENGTH, OFFSET, PAGE, Choice

# The text of the calls ------------------------------------------------------------------------


def c_call(choice: Choice, addr: int | None = None) -> str:
    """The C call, in one line or two; ``addr`` by its name until the child has one."""
    where = choice.addr if addr is None or choice.addr == "NULL" else f"{addr:#x}"
    length = "1UL << 60" if choice.length == "2**60" else LENGTH[choice.length]
    offset = OFFSET[choice.offset]
    offset = offset if offset < 2**32 else hex(offset)
    prot, flags = (text.replace("|", " | ") for text in (choice.prot, choice.flags))
    opened = FD[choice.fd].in_c
    first, fd = (f"fd = {opened};\n", "fd") if opened else ("", "-1")
    return f"{first}mmap({where}, {length}, {prot}, {flags}, {fd}, {offset});"


def python_call(choice: Choice) -> str:
    """The Python call, in a few lines; "" if Python's mmap cannot make it."""
    if choice.no_python_call:
        return ""
    prot, flags = (
        " | ".join(f"mmap.{name}" for name in text.split("|")) if "_" in text else "0"
        for text in (choice.prot.replace("PROT_NONE", "0"), choice.flags)
    )
    length = "2**60" if choice.length == "2**60" else LENGTH[choice.length]
    offset = OFFSET[choice.offset]
    offset = offset if offset < 2**32 else "2**63 - mmap.PAGESIZE"
    opened = FD[choice.fd].in_python
    first, fd = (f"fd = {opened}\n", "fd") if opened else ("", "-1")
    if opened.startswith("open"):
        first, fd = f"f = {opened}\n", "f.fileno()"
    return f"{first}mm = mmap.mmap({fd}, {length}, {flags},\n{' ' * 15}{prot}, offset={offset})"


# What an error means --------------------------------------------------------------------------

# The errno, and after it the parameters to change; when that holds; and what it means.
# In the order in which they are checked: an unaligned offset by the C library (glibc), the rest by
# the kernel (mm/mmap.c, do_mmap). The first that holds is reported.
CAUSES = (
    (
        ("EINVAL", "offset"),
        lambda c, _: OFFSET[c.offset] % PAGE != 0,
        "offset must be a multiple of the page size, because mmap maps whole pages of the file.",
    ),
    (
        ("EBADF", "fd", "flags"),
        lambda c, _: c.fd in ("closed", "-1") and not c.is_anonymous,
        "fd is not an open file, and without MAP_ANONYMOUS a call needs one.",
    ),
    (
        ("EINVAL", "length"),
        lambda c, _: c.length == "0",
        "length is 0, and the kernel makes no empty region. In Python, 0 means the whole file: "
        "Python asks for the size and passes the size on.",
    ),
    (
        ("ENOMEM", "length"),
        lambda c, _: c.length == "2**60",
        "length is more than the whole address space of a process. You run out of addresses here, "
        "not of memory.",
    ),
    (
        ("EINVAL", "addr", "flags"),
        lambda c, _: c.is_fixed and c.addr == "free page + 100",
        "with MAP_FIXED_NOREPLACE addr is an order, and an order must be a multiple of the page "
        "size. The kernel rounds only hints.",
    ),
    (
        ("EPERM", "addr", "flags"),
        lambda c, facts: c.is_fixed and c.addr in facts["too low"],
        "Linux keeps such low addresses free (vm.mmap_min_addr), so that a program that uses a "
        "NULL pointer crashes. Only a privileged process may map there.",
    ),
    (
        ("EEXIST", "addr", "flags"),
        lambda c, _: c.is_fixed and c.addr == IN_USE,
        "MAP_FIXED_NOREPLACE asks for exactly these addresses, but another region has them.",
    ),
    (
        ("EOVERFLOW", "offset"),
        lambda c, _: c.offset.startswith("2**63") and not c.is_anonymous and c.fd != "folder",
        "offset + length is past the last byte that a file can have.",
    ),
    (
        ("EACCES", "prot", "flags", "fd"),
        lambda c, _: (
            "SHARED" in c.flags
            and not c.is_anonymous
            and "WRITE" in c.prot
            and c.fd in ('"rb"', "folder")
        ),
        "a writable shared map needs a file that was opened for reading and writing. A private "
        "map needs reading only, because what you write never reaches the file.",
    ),
    (
        ("EACCES", "fd"),
        lambda c, _: c.fd == "O_WRONLY" and not c.is_anonymous and c.flags != "0",
        "the file was opened for writing only, but a map must be able to read its file: before "
        "you can write one byte, the kernel reads the page.",
    ),
    (
        ("EPERM", "prot"),
        lambda c, facts: facts["noexec"] and "EXEC" in c.prot and not c.is_anonymous,
        "PROT_EXEC does not work for a file on a file system that is mounted noexec.",
    ),
    (
        ("ENODEV", "fd"),
        lambda c, _: c.fd == "folder" and not c.is_anonymous and c.flags != "0",
        "fd is an open folder, and a folder cannot be mapped.",
    ),
    (
        ("EINVAL", "flags"),
        lambda c, _: c.flags == "0",
        "flags needs MAP_SHARED or MAP_PRIVATE: the kernel cannot guess whether your changes "
        "should reach the file.",
    ),
)


def explain(choice: Choice, error: str, facts: dict) -> tuple[str, tuple[str, ...]]:
    """What an errno, such as ``"EINVAL"``, means for this choice, and what to change.

    ``facts`` hold in the child: ``noexec`` (its folder's mount), ``too low`` (choices of addr).
    Source: mmap(2), ERRORS.
    """
    for (errno, *change), holds, meaning in CAUSES:
        if errno == error and holds(choice, facts):
            return meaning, tuple(change)
    if error == "ENOMEM":
        return "the kernel has no memory, or no more regions, for this process now.", ("length",)
    return "this explorer knows no cause for it: see mmap(2), ERRORS.", tuple(CONTROLS)


# What the call made -----------------------------------------------------------------------------

PERMS = {"r": "readable", "w": "writable", "x": "executable", "s": "shared", "p": "private"}


def hint(choice: Choice, addr: int, address: int) -> str:
    """What the kernel did with ``addr``, in words."""
    if choice.is_fixed:
        return f"addr was an order: the region is at {address:#x}"
    if choice.addr == "NULL":
        return f"the kernel chose the place, {address:#x}"
    if address == addr:
        return f"the kernel took the hint {addr:#x}"
    if 0 < addr - address < PAGE:
        return f"the kernel rounded the hint {addr:#x} down to a page, {address:#x}"
    if addr <= PAGE:
        return f"the hint {addr:#x} is too low: the kernel went up to {address:#x}"
    return f"the hint {addr:#x} is in use: the kernel chose another place, {address:#x}"


def mapped(choice: Choice) -> str:
    """What the region maps: pages of the file, or none."""
    if choice.is_anonymous:
        return "no file, but zeros (mmap ignores fd)"
    parts = [f"{choice.file_bytes:,} bytes of the file"]
    zero_bytes = -choice.file_bytes % PAGE
    if zero_bytes:
        parts.append(f"{zero_bytes:,} bytes of zeros to the end of that page")
    lost_bytes = choice.span_bytes - choice.file_bytes - zero_bytes  # an access there is SIGBUS
    if lost_bytes:
        parts.append(f"{in_pages(lost_bytes)} past the end of the file")
    return ", ".join(parts)


def touched(result, where: str) -> str:
    """What a read and a write of the ``where`` ("first" or "last") byte did."""
    read, write = result.touches[where]
    if read.startswith("SIG"):
        return f"a read is {read}" + ("" if write == read else f", a write is {write}")
    seen = f"reads {byte(read)}"
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
    if result.missing:
        return str(result.missing)
    if result.error:
        meaning, change = result.cause
        return f"{result.error}, {result.message}: {meaning} Change {' or '.join(change)}."
    choice, letters = result.choice, result.region.perms
    n_pages = choice.span_bytes // PAGE
    n_present = result.present if is_missing(result.present) else sum(result.present)
    parts = [
        f"{in_pages(choice.span_bytes)}, {letters} "
        f"({', '.join(PERMS[letter] for letter in letters if letter != '-')}): "
        f"{hint(choice, result.addr, result.address)}.",
        f"The region maps {mapped(choice)}.",
        f"Mapped when the call returned: {n_present} of {n_pages}.",
    ]
    parts += [f"The {where} byte: {touched(result, where)}." for where in result.touches]
    return " ".join(parts)


def byte(read: str) -> str:
    """A byte that was read, as a number or a letter."""
    return "0" if read == "\0" else repr(read)


def in_pages(n_bytes: int) -> str:
    """How many pages, in words."""
    n_pages = n_bytes // PAGE
    return f"{n_pages} page{'s' * (n_pages > 1)}"
