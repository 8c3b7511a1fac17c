"""Writing an indexed file from a data set: whole, or not at all."""

import errno
import os
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qm9lab import files

from .layout import (
    ALIGNMENT_BYTES,
    FIELDS,
    OFFSETS,
    SECTIONS,
    Array,
    ColumnsError,
    Section,
    bytes_of,
    check_ends,
    check_sections,
    header,
    n_rows_of,
    row_numbers,
)

if TYPE_CHECKING:
    from torch_geometric.data import InMemoryDataset


def arrays(dataset: "InMemoryDataset") -> dict[str, Array]:
    """The sections of a data set as arrays, without a copy but of the edges and strings.

    Parameters
    ----------
    dataset : ``qm9.dataset()``, or a part of it such as ``qm9.dataset()[:1000]``

    Raises
    ------
    TypeError
        If it is not a PyG ``InMemoryDataset`` with the fields of QM9.
    ColumnsError
        If a SMILES or a name is no text that UTF-8 can hold.
    """
    if getattr(dataset, "slices", ()) is None:
        raise TypeError(
            "expected a data set of several molecules, found one element, which PyG keeps without "
            "slices: take a part of a larger one, such as qm9.dataset()[:1]"
        )
    try:
        data, slices = dataset._data, dataset.slices
        found = {name: data[name] for name in FIELDS}
        found["atom_offsets"], found["edge_offsets"] = slices["z"], slices["edge_attr"]
    except (AttributeError, KeyError, TypeError) as error:
        raise TypeError(
            f"expected PyG's QM9 as an InMemoryDataset, found {type(dataset).__name__} "
            f"({type(error).__name__}: {error}): take qm9.dataset()"
        ) from error
    for name in ("smiles", "name"):
        try:
            texts = [text.encode() for text in found[name]]
        except UnicodeEncodeError as error:
            raise ColumnsError(
                f"{name}: expected text that UTF-8 can hold, found {error.object!r}: correct it "
                "in the data set"
            ) from error
        ends = np.cumsum([0, *map(len, texts)], dtype="<i8")
        found[f"{name}_offsets"] = ends
        found[name] = np.frombuffer(b"".join(texts), np.uint8)
    found["edge_index"] = found["edge_index"].T.contiguous()
    found = {
        name: np.ascontiguousarray(found[name], dtype=kind.dtype) for name, kind in SECTIONS.items()
    }
    part = dataset._indices
    return found if part is None else _part(found, np.asarray(part, dtype=np.intp))


def _part(whole: Mapping[str, Array], indices: Array) -> dict[str, Array]:
    """Of the sections of a data set those of some molecules, in the order of ``indices``."""
    part, rows = {}, {"molecule": indices}
    for rows_of, name in OFFSETS.items():
        first = whole[name][indices]
        counts = whole[name][indices + 1] - first
        rows[rows_of] = row_numbers(first, counts)
        part[name] = np.concatenate([np.zeros(1, "<i8"), np.cumsum(counts)])
    return part | {name: whole[name][rows[SECTIONS[name].rows_of]] for name in FIELDS}


def write(path: str | os.PathLike[str], dataset: "InMemoryDataset") -> None:
    """Write a data set as an indexed file, whole or not at all.

    Parameters
    ----------
    path : where, as for ``qm9lab.files.replacing``
    dataset : ``qm9.dataset()``, or a part of it

    Raises
    ------
    TypeError, ColumnsError
        See ``arrays``.
    OSError
        If it cannot be written; nothing is left under ``path`` then but what was there.
    """
    write_arrays(path, arrays(dataset))


def write_arrays(path: str | os.PathLike[str], arrays: Mapping[str, Array]) -> None:
    """Write sections: a temporary name in the same folder, fsync(2), rename(2).

    Parameters
    ----------
    path : as for ``write``
    arrays : one array for each of SECTIONS, with its dtype; copied where not in C order

    Raises
    ------
    ColumnsError
        If the arrays do not fit together: before anything is written.
    OSError
        See ``write``.
    """
    path, entries, end = Path(os.path.realpath(path)), [], ALIGNMENT_BYTES
    arrays = {name: np.ascontiguousarray(arrays[name]) for name in SECTIONS}
    for name, array in arrays.items():
        entries.append(Section(name, array.dtype.str, array.shape, end, array.nbytes, 0))
        n_bytes = end + array.nbytes
        end = -(-n_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
    n_molecules = len(arrays["idx"])
    check_sections(entries, n_molecules, n_bytes, path)
    for rows_of, name in OFFSETS.items():
        check_ends(name, arrays[name], n_rows_of(rows_of, arrays), path)
    if path.exists() and not path.is_file():
        raise FileExistsError(errno.EEXIST, "expected a file to replace, found none", str(path))
    with files.replacing(path) as f, ThreadPoolExecutor(1) as pool:
        # The checksums are computed while the sections are written and the disk takes them.
        in_time = [pool.submit(zlib.crc32, bytes_of(arrays[name])) for name in SECTIONS]
        for entry in entries:
            f.seek(entry.offset_bytes)
            files.write_all(f, bytes_of(arrays[entry.name]))
        f.truncate(n_bytes)  # where the last sections are empty
        os.fsync(f.fileno())
        entries = [e._replace(crc32=c.result()) for e, c in zip(entries, in_time, strict=True)]
        f.seek(0)
        files.write_all(f, header(entries, n_molecules, n_bytes).ljust(ALIGNMENT_BYTES, b"\0"))
