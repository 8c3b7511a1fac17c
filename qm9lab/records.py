"""The record file's byte layout, as pure functions over any buffer.

One record is three fields, packed without padding, little-endian on every machine:

====================  ==========  ======================================================
field                 format      bytes
====================  ==========  ======================================================
length                ``<I``      4: the number of bytes of the SMILES, never 0
SMILES                UTF-8       as many as ``length`` says
value                 ``<d``      8: one property as an IEEE 754 double
====================  ==========  ======================================================

Records follow one another with no index and no padding, so the offset of record k is known
only after walking over the k records before it. A length of 0 is no record: zero bytes, such
as the rest of a placeholder file, can never be read as data.

Nothing here opens a file. ``buf`` is anything with the buffer protocol: ``bytes``, a
``bytearray``, an ``mmap.mmap``, a ``memoryview``, a NumPy array of ``uint8``.

Source: derived in notebooks/01_bytes_on_disk.ipynb; the layout is the one of the article's
program with its byte order fixed.
"""

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing_extensions import Buffer  # collections.abc.Buffer from Python 3.12 on

LENGTH = struct.Struct("<I")
VALUE = struct.Struct("<d")
OVERHEAD_BYTES = LENGTH.size + VALUE.size
"""Bytes of a record that are not its SMILES."""


class RecordError(ValueError):
    """Bytes that are not a record, with the offset, what was expected and what was found."""


class Record(NamedTuple):
    """One unpacked record.

    Attributes
    ----------
    smiles : str
        The molecule as SMILES.
    value : float
        The property, in whatever unit the file was written in.
    value_offset_bytes : int
        Where the 8 bytes of ``value`` begin in the buffer.
    end_bytes : int
        Offset of the first byte after the record, where the next one begins.
    """

    smiles: str
    value: float
    value_offset_bytes: int
    end_bytes: int


def pack(smiles: str, value: float) -> bytes:
    """One record as bytes.

    Parameters
    ----------
    smiles : str
        At least one character.
    value : float
        Any double; NaN and the infinities keep their bits.

    Raises
    ------
    RecordError
        If ``smiles`` is empty (a length of 0 means "no record here") or is not UTF-8 text.
    """
    try:
        text = smiles.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RecordError(f"expected text that UTF-8 can hold, found {smiles!r}") from error
    if not text:
        raise RecordError(
            "expected a SMILES of at least one character, found an empty one: "
            "a length of 0 means zero padding"
        )
    return LENGTH.pack(len(text)) + text + VALUE.pack(value)


def unpack(buf: "Buffer", offset_bytes: int = 0) -> Record:
    """The record that begins at ``offset_bytes``.

    Raises
    ------
    RecordError
        If no whole record begins there: the buffer is cut short, the length is 0 or runs past
        the end, or the SMILES is not UTF-8.
    """
    with memoryview(buf) as whole, whole.cast("B") as view:
        n_bytes = len(view)
        if not 0 <= offset_bytes <= n_bytes - LENGTH.size:
            raise RecordError(
                f"offset {offset_bytes}: expected a length of {LENGTH.size} bytes, "
                f"found {max(0, n_bytes - max(0, offset_bytes))} bytes before the end of the buffer"
            )
        (length,) = LENGTH.unpack_from(view, offset_bytes)
        start = offset_bytes + LENGTH.size
        value_at = start + length
        if length == 0:
            raise RecordError(
                f"offset {offset_bytes}: expected a length of 1 or more, found 0: "
                "zero padding, not a record"
            )
        if value_at + VALUE.size > n_bytes:
            raise RecordError(
                f"offset {offset_bytes}: expected {length} bytes of SMILES and "
                f"{VALUE.size} of value, found {n_bytes - start} bytes before the end of the buffer"
            )
        try:
            smiles = str(view[start:value_at], "utf-8")
        except UnicodeDecodeError as error:
            raise RecordError(
                f"offset {offset_bytes}: expected UTF-8 in the SMILES, "
                f"found byte 0x{view[start + error.start]:02x} at offset {start + error.start}"
            ) from error
        (value,) = VALUE.unpack_from(view, value_at)
        return Record(smiles, value, value_at, value_at + VALUE.size)


def walk(buf: "Buffer") -> Iterator[tuple[int, str, float]]:
    """Every record from the first byte to the last, in order.

    Yields
    ------
    offset_bytes : int
        Where the record begins in ``buf``.
    smiles : str
    value : float

    Raises
    ------
    RecordError
        At the first offset where no whole record begins, the end of the buffer aside. What
        was yielded before is sound.

    Notes
    -----
    While the walk is under way it holds a view of ``buf``: a map cannot be closed or resized
    until the generator is exhausted, closed or gone.
    """
    with memoryview(buf) as whole, whole.cast("B") as view:
        n_bytes = len(view)
        read_length, read_value = LENGTH.unpack_from, VALUE.unpack_from
        offset = 0
        while offset < n_bytes:
            start = offset + 4
            # The fast path reads a good record without a call of unpack; whatever is odd
            # about the bytes goes to unpack, which finds the words for it.
            if start > n_bytes:
                unpack(view, offset)
            (length,) = read_length(view, offset)
            value_at = start + length
            if not length or value_at + 8 > n_bytes:
                unpack(view, offset)
            try:
                smiles = str(view[start:value_at], "utf-8")
            except UnicodeDecodeError:
                unpack(view, offset)
                raise
            yield offset, smiles, read_value(view, value_at)[0]
            offset = value_at + 8
