"""The indexed file: a section for each field of QM9, any molecule one computed offset away.

All integers are little-endian. The file begins with a header, then come the sections, each at a
multiple of 65,536 bytes, so that each can be mapped alone where the granularity of ``offset`` is
4,096 (Linux), 16,384 (Apple silicon) or 65,536 bytes (Windows)::

    0    preamble, 64 bytes (PREAMBLE): magic, byte order, version, number of molecules, number of
         sections, length of the file, CRC-32 of preamble and table
    64   table, 64 bytes a section (ENTRY): name, dtype, rows, columns, offset, length, CRC-32
    ...  zeros up to 65,536
    65536   the first section, then zeros up to the next multiple of 65,536, and so on

A section is a NumPy array in C order, as SECTIONS says. Fields of which each molecule has another
number of rows lie one molecule after another; ``atom_offsets[i]`` and ``atom_offsets[i + 1]`` are
the first row of molecule i and the row after its last. Edges are written as pairs, one row an edge,
so that a molecule's edges lie together: ``edge_index`` of PyG is their transpose.

``Columns`` reads any buffer that holds such a file, and opens none. ``MappedQM9`` is a PyTorch
Geometric (PyG) data set over a file that it maps.

Source: derived in notebooks/08_random_access.ipynb.
"""

from .layout import (
    ALIGNMENT_BYTES,
    ENTRY,
    FIELDS,
    OFFSETS,
    PREAMBLE,
    SECTIONS,
    ColumnsError,
    Section,
    header,
    read_header,
)
from .reading import Columns, Molecule
from .writing import arrays, write, write_arrays

__all__ = [
    "ALIGNMENT_BYTES",
    "ENTRY",
    "FIELDS",
    "OFFSETS",
    "PREAMBLE",
    "SECTIONS",
    "Columns",
    "ColumnsError",
    "MappedQM9",
    "Molecule",
    "Section",
    "arrays",
    "header",
    "read_header",
    "write",
    "write_arrays",
]


def __getattr__(name: str) -> type:
    # MappedQM9 needs torch_geometric, which costs seconds: imported when it is first asked for.
    if name != "MappedQM9":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .mapped import MappedQM9

    return MappedQM9
