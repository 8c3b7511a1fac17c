"""The byte layout of the indexed file: sections, header, and the checks that a header allows."""

import os
import struct
import zlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from typing_extensions import Buffer  # collections.abc.Buffer from Python 3.12 on

Array = npt.NDArray[Any]

ALIGNMENT_BYTES = 65_536
"""Sections begin at multiples of it: the largest granularity among the systems."""

MAGIC = b"\x89QM9\r\n\x1a\n"
"""As in PNG: a copy that was made as text, or through 7 bits, no longer begins so."""

BYTE_ORDER = 0x01020304
VERSION = 1
PREAMBLE = struct.Struct("<8sIIQQQI20x")
ENTRY = struct.Struct("<16s8sQQQQI4x")
_BEFORE_CRC = struct.Struct("<8sIIQQQ").size

AGAIN = "write it again with columns.write"


class Kind(NamedTuple):
    """What a section holds."""

    dtype: str  # NumPy's name for it, byte order included
    n_columns: int  # 0 where a row is one number
    rows_of: str  # what a row is; "smiles" and "name" a byte, "end" one a molecule and one more
    unit: str = ""  # of the numbers; "" where they have none


SECTIONS: Mapping[str, Kind] = {
    "atom_offsets": Kind("<i8", 0, "end", "atoms"),
    "edge_offsets": Kind("<i8", 0, "end", "edges"),
    "smiles_offsets": Kind("<i8", 0, "end", "bytes"),
    "name_offsets": Kind("<i8", 0, "end", "bytes"),
    "idx": Kind("<i8", 0, "molecule"),
    "y": Kind("<f4", 19, "molecule", "qm9.TARGETS"),
    "z": Kind("<i8", 0, "atom"),
    "pos": Kind("<f4", 3, "atom", "angstrom"),
    "x": Kind("<f4", 11, "atom"),
    "edge_index": Kind("<i8", 2, "edge"),
    "edge_attr": Kind("<f4", 4, "edge"),
    "smiles": Kind("|u1", 0, "smiles", "UTF-8"),
    "name": Kind("|u1", 0, "name", "UTF-8"),
}
"""Every section of version 1, in the order in which they are written."""

OFFSETS = {rows_of: f"{rows_of}_offsets" for rows_of in ("atom", "edge", "smiles", "name")}
"""Rows of what -> the section that says where a molecule's begin."""

FIELDS = tuple(name for name, kind in SECTIONS.items() if kind.rows_of != "end")
"""The fields of a molecule, by the names that PyG gives them."""


class ColumnsError(ValueError):
    """Not such a file, or a damaged one: the path, what was expected, found, and what to do."""


class Section(NamedTuple):
    """Where a section lies, as the table of the header says."""

    name: str
    dtype: str
    shape: tuple[int, ...]  # (n_rows,) or (n_rows, n_columns)
    offset_bytes: int  # from the beginning of the file, a multiple of ALIGNMENT_BYTES
    length_bytes: int  # without the zeros after it
    crc32: int  # of these bytes, zlib.crc32


def header(entries: Iterable[Section], n_molecules: int, n_bytes: int) -> bytes:
    """Preamble and table of a file of ``n_bytes`` bytes, with their checksum."""
    table = b""
    for name, dtype, shape, *where in entries:
        n_rows, n_columns, *_ = (*shape, 0)
        table += ENTRY.pack(name.encode(), dtype.encode(), n_rows, n_columns, *where)
    fields = MAGIC, BYTE_ORDER, VERSION, n_molecules, len(table) // ENTRY.size, n_bytes
    crc32 = zlib.crc32(table, zlib.crc32(PREAMBLE.pack(*fields, 0)))
    return PREAMBLE.pack(*fields, crc32) + table


def bytes_of(array: Array) -> memoryview:
    """The bytes of an array in C order, without a copy."""
    return array.reshape(-1).view(np.uint8).data


def n_rows_of(rows_of: str, arrays: Mapping[str, Array]) -> int:
    """How many rows of a kind there are in all, such as "atom"."""
    return next(len(arrays[name]) for name, kind in SECTIONS.items() if kind.rows_of == rows_of)


def row_numbers(first: Array, counts: Array) -> Array:
    """Numbers of all rows of molecules whose first rows are ``first``, of ``counts`` rows each."""
    before = np.cumsum(counts) - counts
    rows: Array = np.arange(counts.sum()) + np.repeat(first - before, counts)
    return rows


def check_ends(name: str, ends: Array, n_rows: int, path: str | os.PathLike[str]) -> None:
    """ColumnsError if offsets do not rise from 0 to the number of rows that they part."""
    wrong = ends[1:] < ends[:-1]
    wrong_at = int(wrong.argmax()) if wrong.any() else None
    if wrong_at is None and (ends[0], ends[-1]) == (0, n_rows):
        return
    found = "{} to {}".format(*(ends[[0, -1]] if wrong_at is None else ends[wrong_at:][:2]))
    where = "" if wrong_at is None else f" at molecule {wrong_at}"
    raise ColumnsError(
        f"{path}: section {name!r}: expected offsets that rise from 0 to {n_rows}, found {found}"
        f"{where}: it is a damaged copy; {AGAIN}"
    )


def read_header(
    buffer: "Buffer", path: str | os.PathLike[str] = "the buffer"
) -> tuple[Section, ...]:
    """The sections of a file, after every check that the header alone allows.

    Reads the header and no other byte of ``buffer``, which holds a whole file. ``path`` is named
    in errors.

    Raises
    ------
    ColumnsError
        If it is not such a file, was cut short or changed, or is of another byte order or version.
    """

    def refuse(
        expected: str, found: str, remedy: str = f"it is another file or a damaged copy; {AGAIN}"
    ) -> NoReturn:
        raise ColumnsError(f"{path}: expected {expected}, found {found}: {remedy}")

    with memoryview(buffer) as whole, whole.cast("B") as view:
        n_there = len(view)
        start = bytes(view[: PREAMBLE.size])
        if start[: len(MAGIC)] != MAGIC:
            refuse(f"a file that begins with {MAGIC!r}", f"{start[: len(MAGIC)]!r}")
        if n_there < PREAMBLE.size:
            refuse(f"a preamble of {PREAMBLE.size} bytes", f"{n_there} bytes")
        _, order, version, n_molecules, n_sections, n_bytes, crc32 = PREAMBLE.unpack(start)
        if order != BYTE_ORDER:
            swapped = order == int.from_bytes(BYTE_ORDER.to_bytes(4, "little"), "big")
            found = "a file of the other byte order" if swapped else f"{order:#010x}"
            refuse(f"the byte order mark {BYTE_ORDER:#010x}", found)
        if version != VERSION:
            newer = "install a newer qm9lab" if version > VERSION else AGAIN
            refuse(f"version {VERSION}", f"version {version}", newer)
        if n_sections != len(SECTIONS):
            refuse(f"{len(SECTIONS)} sections", f"{n_sections}")
        table_end = PREAMBLE.size + n_sections * ENTRY.size
        table = bytes(view[PREAMBLE.size : table_end])
        if PREAMBLE.size + len(table) < table_end:
            refuse(f"a table of {n_sections} sections", f"the end after {n_there} bytes")
        # The bytes that are there, the spare ones included, with zeros where the checksum stands.
        checked = start[:_BEFORE_CRC] + bytes(4) + start[_BEFORE_CRC + 4 :]
        if (found_crc32 := zlib.crc32(table, zlib.crc32(checked))) != crc32:
            refuse(f"a header with CRC-32 {crc32:08x}", f"{found_crc32:08x}")
    if n_there != n_bytes:
        refuse(f"{n_bytes} bytes, as the header says", f"{n_there} bytes")
    entries = []
    for name, dtype, n_rows, n_columns, *where in ENTRY.iter_unpack(table):
        name, dtype = (text.rstrip(b"\0").decode("ascii", "replace") for text in (name, dtype))
        shape = (n_rows, n_columns) if n_columns else (n_rows,)
        entries.append(Section(name, dtype, shape, *where))
    check_sections(entries, n_molecules, n_bytes, path)
    return tuple(entries)


def check_sections(
    entries: Iterable[Section], n_molecules: int, n_bytes: int, path: str | os.PathLike[str]
) -> None:
    """ColumnsError at the first section that is not as in SECTIONS, or not within the file."""

    def refuse(section: Section, expected: str, found: str) -> NoReturn:
        raise ColumnsError(
            f"{path}: section {section.name!r}: expected {expected}, found {found}: "
            f"it is another file or a damaged copy; {AGAIN}"
        )

    n_rows = {"molecule": n_molecules, "end": n_molecules + 1}
    free = ALIGNMENT_BYTES
    for section, (name, kind) in zip(entries, SECTIONS.items(), strict=True):
        if section.name != name:
            refuse(section, f"the section {name!r} in its place", repr(section.name))
        if section.dtype != kind.dtype:
            refuse(section, f"the dtype {kind.dtype!r}", repr(section.dtype))
        rows = n_rows.setdefault(kind.rows_of, section.shape[0])
        shape = (rows, kind.n_columns) if kind.n_columns else (rows,)
        if section.shape != shape:
            refuse(section, f"the shape {shape}", f"{section.shape}")
        n_items = rows * max(kind.n_columns, 1)
        if section.length_bytes != n_items * np.dtype(kind.dtype).itemsize:
            refuse(section, f"a length that is that of {shape}", f"{section.length_bytes} bytes")
        if section.offset_bytes % ALIGNMENT_BYTES:
            refuse(section, f"a multiple of {ALIGNMENT_BYTES}", f"offset {section.offset_bytes}")
        if section.offset_bytes < free:
            refuse(section, f"an offset of {free} or more", f"offset {section.offset_bytes}")
        free = section.offset_bytes + section.length_bytes
        if free > n_bytes:
            refuse(section, f"an end within {n_bytes} bytes", f"its end at {free}")
