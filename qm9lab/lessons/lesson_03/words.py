"""Words for a call: as C and as Python write it, why it fails, and what came out."""

from collections.abc import Callable
from typing import NamedTuple

from .choice import ADDR, CONTROLS, LENGTH, OFFSET, PAGE, Choice, Outcome

# The text of the calls ------------------------------------------------------------------------

OPENED = {
    '"rb"': ("open(path, O_RDONLY)", 'open(path, "rb")'),
    '"r+b"': ("open(path, O_RDWR)", 'open(path, "r+b")'),
    "O_WRONLY": ("open(path, O_WRONLY)", "os.open(path, os.O_WRONLY)"),
    "empty file": ("open(empty_path, O_RDWR)", 'open(empty_path, "r+b")'),
    "folder": ("open(folder, O_RDONLY)", "os.open(folder, os.O_RDONLY)"),
    "closed": ("open(path, O_RDWR); close(fd)", 'open(path, "r+b"); f.close()'),
}


def c_call(choice: Choice, addr: int | None = None) -> str:
    """The C call, in one line or two; ``addr`` by its name until the child has one."""
    first = f"fd = {OPENED[choice.fd][0]};\n" if choice.fd in OPENED else ""
    where = "NULL" if choice.addr == "NULL" else choice.addr if addr is None else f"{addr:#x}"
    length = "1UL << 60" if choice.length == "2**60" else LENGTH[choice.length]
    offset = OFFSET[choice.offset]
    return (
        f"{first}mmap({where}, {length}, {_spaced(choice.prot)}, {_spaced(choice.flags)}, "
        f"{'fd' if first else '-1'}, {offset if offset < 2**32 else hex(offset)});"
    )


def python_call(choice: Choice) -> str | None:
    """The Python call, in a few lines; None where Python's mmap cannot say it."""
    if why_not_python(choice):
        return None
    names = {"PROT_NONE": "0", "0": "0"}
    prot, flags = (
        " | ".join(names.get(name, f"mmap.{name}") for name in text.split("|"))
        for text in (choice.prot, choice.flags)
    )
    first, fd = "", "-1"
    if choice.fd in OPENED:
        opened = OPENED[choice.fd][1]
        first, fd = (
            (f"fd = {opened}\n", "fd")
            if opened.startswith("os.")
            else (f"f = {opened}\n", "f.fileno()")
        )
    length = "2**60" if choice.length == "2**60" else LENGTH[choice.length]
    offset = OFFSET[choice.offset]
    offset = offset if offset < 2**32 else "2**63 - mmap.PAGESIZE"
    return f"{first}mm = mmap.mmap({fd}, {length}, {flags},\n{' ' * 15}{prot}, offset={offset})"


def why_not_python(choice: Choice) -> str:
    """Why Python's mmap cannot make this call, or ""."""
    if choice.is_fixed:
        return "Python's mmap has no addr, so there is nothing for MAP_FIXED_NOREPLACE to fix"
    if choice.addr != "NULL":
        return "Python's mmap has no addr: it always passes NULL"
    return ""


def _spaced(text: str) -> str:
    return text.replace("|", " | ")


# What an error means --------------------------------------------------------------------------


class Cause(NamedTuple):
    """One reason why the kernel refuses: its errno, when it holds, and what to change."""

    error: str
    change: tuple[str, ...]
    holds: Callable[[Choice, dict], bool]
    meaning: str


def _low(choice: Choice, facts: dict) -> bool:
    kind, address = ADDR[choice.addr]
    return choice.is_fixed and kind == "zero" and address not in facts["may_map_at"]


# In the order in which they are looked at, a crooked offset by the C library already (glibc), the
# rest by the kernel (mm/mmap.c, do_mmap): the first that holds is told.
CAUSES = (
    Cause(
        "EINVAL",
        ("offset",),
        lambda c, _: OFFSET[c.offset] % PAGE != 0,
        "offset must be a multiple of the page size: a mapping joins whole pages of the file to "
        "whole pages of addresses.",
    ),
    Cause(
        "EBADF",
        ("fd", "flags"),
        lambda c, _: c.fd in ("closed", "-1") and not c.is_anonymous,
        "fd is not an open file, and without MAP_ANONYMOUS there must be one.",
    ),
    Cause(
        "EINVAL",
        ("length",),
        lambda c, _: c.length == "0",
        "length is 0, and the kernel makes no empty region. (To Python 0 means the whole file: "
        "it asks for the size and passes that on.)",
    ),
    Cause(
        "ENOMEM",
        ("length",),
        lambda c, _: c.length == "2**60",
        "length is more than the whole address space of a process. It is addresses that run out, "
        "not memory.",
    ),
    Cause(
        "EINVAL",
        ("addr", "flags"),
        lambda c, _: c.is_fixed and ADDR[c.addr][1] % PAGE != 0,
        "with MAP_FIXED_NOREPLACE addr is an order, and an order must be a multiple of the page "
        "size. Only a hint may be rounded.",
    ),
    Cause(
        "EPERM",
        ("addr", "flags"),
        _low,
        "so low an address is kept free (vm.mmap_min_addr), so that using a NULL pointer crashes. "
        "Only a privileged process may map there.",
    ),
    Cause(
        "EEXIST",
        ("addr", "flags"),
        lambda c, _: c.is_fixed and c.addr == "page in use",
        "MAP_FIXED_NOREPLACE asks for exactly these addresses, and a region is there already.",
    ),
    Cause(
        "EOVERFLOW",
        ("offset",),
        lambda c, _: c.offset.startswith("2**63") and not c.is_anonymous and c.fd != "folder",
        "offset + length is beyond the last byte that a file can have.",
    ),
    Cause(
        "EACCES",
        ("prot", "flags", "fd"),
        lambda c, _: (
            "SHARED" in c.flags
            and not c.is_anonymous
            and "WRITE" in c.prot
            and c.fd in ('"rb"', "folder")
        ),
        "a shared map to write into needs a file that was opened for reading and writing. "
        "(A private map of a file needs only reading: its stores never reach the file.)",
    ),
    Cause(
        "EACCES",
        ("fd",),
        lambda c, _: c.fd == "O_WRONLY" and not c.is_anonymous and c.flags != "0",
        "the file was opened for writing only, and every map of a file must be able to read it: "
        "to store one byte the kernel first needs the page.",
    ),
    Cause(
        "EPERM",
        ("prot",),
        lambda c, facts: facts["noexec"] and "EXEC" in c.prot and not c.is_anonymous,
        "PROT_EXEC, but the file is on a file system that is mounted noexec.",
    ),
    Cause(
        "ENODEV",
        ("fd",),
        lambda c, _: c.fd == "folder" and not c.is_anonymous and c.flags != "0",
        "what is open is a folder, and there is no way to map one.",
    ),
    Cause(
        "EINVAL",
        ("flags",),
        lambda c, _: c.flags == "0",
        "flags must say MAP_SHARED or MAP_PRIVATE: nobody but you knows who is to see a store.",
    ),
)


def explain(choice: Choice, error: str, facts: dict) -> tuple[str, tuple[str, ...]]:
    """What an errno means for this choice, and which parameters to change.

    Parameters
    ----------
    error : str
        The errno's name, such as ``"EINVAL"``.
    facts : dict
        What holds in the child: ``noexec`` (its folder's mount), ``may_map_at`` (low addresses).

    Source: mmap(2), ERRORS.
    """
    for cause in CAUSES:
        if cause.error == error and cause.holds(choice, facts):
            return cause.meaning, cause.change
    if error == "ENOMEM":
        return "the kernel has no memory or no more regions for this process just now.", ("length",)
    return "no cause that this explorer knows of: see mmap(2), ERRORS.", tuple(CONTROLS)


# What came out --------------------------------------------------------------------------------

PERMS = {"r": "readable", "w": "writable", "x": "executable", "s": "shared", "p": "private"}


def hint(outcome: Outcome) -> str:
    """What became of ``addr``, in words; "" where none was given."""
    choice, addr, address = outcome.choice, outcome.addr, outcome.address
    if choice.is_fixed:
        return f"addr was an order: the region is at {address:#x}"
    if choice.addr == "NULL":
        return f"the kernel chose the place, {address:#x}"
    if address == addr:
        return f"the hint {addr:#x} was taken"
    if 0 < addr - address < PAGE:
        return f"the hint {addr:#x} was rounded down to a page, {address:#x}"
    if addr <= PAGE:
        return f"the hint {addr:#x} is too low: the kernel went up to {address:#x}"
    return f"the hint {addr:#x} is in use: the kernel went elsewhere, to {address:#x}"


def behind(outcome: Outcome) -> str:
    """What is behind the region: pages of the file, or none."""
    if outcome.choice.is_anonymous:
        return "no file, but zeros (fd is not looked at)"
    parts = [f"{outcome.file_bytes:,} bytes of the file"]
    if outcome.zero_bytes:
        parts.append(f"{outcome.zero_bytes:,} of zeros to the end of that page")
    if outcome.lost_bytes:
        n_pages = outcome.lost_bytes // PAGE
        parts.append(f"{n_pages} page{'s' * (n_pages > 1)} past the end of the file")
    return ", ".join(parts)


def touched(outcome: Outcome, where: str) -> str:
    """What reading and storing the ``where`` ("first" or "last") byte gave."""
    results = {touch.act: touch.result for touch in outcome.touches if touch.where == where}
    if not results:
        return ""
    read, store = results["read"], results["store"]
    if read.startswith("SIG"):
        return f"reading it is {read}" + ("" if store == read else f", a store {store}")
    seen = f"reads {0 if read == chr(0) else repr(read)}"
    if store.startswith("SIG"):
        return f"{seen}, a store is {store}"
    if outcome.choice.is_anonymous:
        return f"{seen} and can be stored to"
    if outcome.region.perms[3] == "p":
        return f"{seen}, a store goes to a copy"
    at = 0 if where == "first" else outcome.span_bytes - 1
    there = outcome.offset_bytes + at in outcome.stored
    return f"{seen}, a store {'reaches' if there else 'does not reach'} the file"


def describe(outcome: Outcome) -> str:
    """The outcome in words, as a sentence or a few."""
    if outcome.missing:
        return outcome.missing
    if outcome.error:
        change = " or ".join(outcome.change)
        return f"{outcome.error}, {outcome.message}: {outcome.meaning} Change {change}."
    perms = ", ".join(PERMS[letter] for letter in outcome.region.perms if letter != "-")
    n_pages = outcome.span_bytes // PAGE
    parts = [
        f"{n_pages} page{'s' * (n_pages > 1)}, {outcome.region.perms} ({perms}): {hint(outcome)}.",
        f"Behind it: {behind(outcome)}.",
    ]
    if outcome.present is not None:
        parts.append(f"Mapped when the call returned: {sum(outcome.present)} of {n_pages}.")
    for where in ("first", "last"):
        if words := touched(outcome, where):
            parts.append(f"The {where} byte {words}.")
    return " ".join(parts).replace("byte reading it", "byte: reading it")
