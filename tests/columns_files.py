"""Small indexed files for the tests, and the header's fields as the format's description has them.

Nothing here uses the package's own structs: places are written out as numbers, so that a change of
the layout is seen.
"""

import struct
import zlib

import numpy as np

from qm9lab import columns

PREAMBLE_BYTES = ENTRY_BYTES = 64
NAMES = list(columns.SECTIONS)
HEADER_BYTES = PREAMBLE_BYTES + len(NAMES) * ENTRY_BYTES

PREAMBLE_AT = {
    "magic": (0, "8s"),
    "byte_order": (8, "<I"),
    "version": (12, "<I"),
    "n_molecules": (16, "<Q"),
    "n_sections": (24, "<Q"),
    "n_bytes": (32, "<Q"),
    "crc32": (40, "<I"),
    "spare": (44, "20s"),
}
ENTRY_AT = {
    "name": (0, "16s"),
    "dtype": (16, "8s"),
    "n_rows": (24, "<Q"),
    "n_columns": (32, "<Q"),
    "offset": (40, "<Q"),
    "length": (48, "<Q"),
    "crc32": (56, "<I"),
    "spare": (60, "4s"),
}


def _place(name, section):
    """Offset in the file, in bytes, and struct's letters."""
    if section is None:
        return PREAMBLE_AT[name]
    at, letters = ENTRY_AT[name]
    number = NAMES.index(section) if isinstance(section, str) else section
    return PREAMBLE_BYTES + number * ENTRY_BYTES + at, letters


def field(raw, name, section=None):
    """A field of the preamble or, given a section's name or number, of its entry."""
    at, letters = _place(name, section)
    return struct.unpack_from(letters, raw, at)[0]


def put(raw, name, value, section=None):
    at, letters = _place(name, section)
    struct.pack_into(letters, raw, at, value)


def span(raw, section):
    """First byte of a section and the one behind its last, as the table says."""
    offset = field(raw, "offset", section)
    return offset, offset + field(raw, "length", section)


def seal(raw, sections=()):
    """Compute the checksums of some sections anew, then the header's."""
    for name in sections:
        put(raw, "crc32", zlib.crc32(raw[slice(*span(raw, name))]), name)
    put(raw, "crc32", 0)
    put(raw, "crc32", zlib.crc32(raw[:HEADER_BYTES]))


def some_arrays(n_molecules, seed=1):
    """Sections of molecules that are made up: some without atoms, texts with long characters."""
    draw = np.random.default_rng(seed)
    words = ["C", "[NH3+]", "", "é=O", "原子", "F\0F", "🧪", "N#N"]
    texts = {
        "smiles": ["".join(draw.choice(words, draw.integers(6))) for _ in range(n_molecules)],
        "name": [f"gdb_{k}" for k in range(n_molecules)],
    }
    found, n_rows = {}, {"molecule": n_molecules}
    for kind in ("atom", "edge", "smiles", "name"):
        if kind in texts:
            raw = [text.encode() for text in texts[kind]]
            counts = [len(text) for text in raw]
            found[kind] = np.frombuffer(b"".join(raw), "|u1")
        else:
            counts = draw.integers(0, 30, n_molecules)
        found[columns.OFFSETS[kind]] = np.cumsum([0, *counts], dtype="<i8")
        n_rows[kind] = int(found[columns.OFFSETS[kind]][-1])
    for name, kind in columns.SECTIONS.items():
        if name not in found:
            n = n_rows[kind.rows_of]
            shape = (n, kind.n_columns) if kind.n_columns else (n,)
            found[name] = draw.integers(-100, 100, shape).astype(kind.dtype)
    return {name: found[name] for name in NAMES}
