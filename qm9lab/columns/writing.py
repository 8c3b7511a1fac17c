"""Writing an indexed file from a data set: whole, or not at all."""

import errno
import os
import secrets
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .layout import (
    ALIGNMENT_BYTES,
    FIELDS,
    OFFSETS,
    SECTIONS,
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


def arrays(dataset: "InMemoryDataset") -> dict[str, np.ndarray]:
    """The sections of a data set as arrays, without a copy but of the edges and strings.

    Parameters
    ----------
    dataset : ``qm9.dataset()``, or a part of it such as ``qm9.dataset()[:1000]``

    Raises
    ------
    TypeError
        If it is not a PyG ``InMemoryDataset`` with the fields of QM9.
    """
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
        texts = [text.encode() for text in found[name]]
        ends = np.cumsum([0, *map(len, texts)], dtype="<i8")
        found[f"{name}_offsets"] = ends
        found[name] = np.frombuffer(b"".join(texts), np.uint8)
    found["edge_index"] = found["edge_index"].T.contiguous()
    found = {
        name: np.ascontiguousarray(found[name], dtype=kind.dtype) for name, kind in SECTIONS.items()
    }
    part = dataset._indices
    return found if part is None else _part(found, np.asarray(part, dtype=np.intp))


def _part(whole: Mapping[str, np.ndarray], indices: np.ndarray) -> dict[str, np.ndarray]:
    """Of the sections of a data set those of some molecules, in the order of ``indices``."""
    part, rows = {}, {"molecule": indices}
    for rows_of, name in OFFSETS.items():
        first = whole[name][indices]
        counts = whole[name][indices + 1] - first
        rows[rows_of] = row_numbers(first, counts)
        part[name] = np.concatenate([np.zeros(1, "<i8"), np.cumsum(counts)])
    return part | {name: whole[name][rows[SECTIONS[name].rows_of]] for name in FIELDS}


def write(path: str | os.PathLike, dataset: "InMemoryDataset") -> None:
    """Write a data set as an indexed file, whole or not at all.

    Parameters
    ----------
    path : where; a file that is there is replaced when the new one is whole, and keeps neither its
        permissions nor its other names; of a symbolic link, the file that it points to
    dataset : ``qm9.dataset()``, or a part of it

    Raises
    ------
    TypeError
        See ``arrays``.
    OSError
        If it cannot be written; nothing is left under ``path`` then but what was there. Windows
        replaces no file that someone has open or mapped: PermissionError.

    Notes
    -----
    A process that is killed while it writes leaves ``.NAME.*.tmp`` in the folder.
    """
    write_arrays(path, arrays(dataset))


def write_arrays(path: str | os.PathLike, arrays: Mapping[str, np.ndarray]) -> None:
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
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb", buffering=0) as f, ThreadPoolExecutor(1) as pool:
            # The checksums are computed while the sections are written and the disk takes them.
            in_time = [pool.submit(zlib.crc32, bytes_of(arrays[name])) for name in SECTIONS]
            for entry in entries:
                _write_at(f, entry.offset_bytes, bytes_of(arrays[entry.name]))
            f.truncate(n_bytes)  # where the last sections are empty
            os.fsync(f.fileno())
            entries = [e._replace(crc32=c.result()) for e, c in zip(entries, in_time, strict=True)]
            _write_at(f, 0, header(entries, n_molecules, n_bytes).ljust(ALIGNMENT_BYTES, b"\0"))
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _write_at(f: FileIO, offset_bytes: int, content) -> None:
    """Write all bytes of a buffer: one write(2) may take fewer, and takes no more than 2 GiB."""
    f.seek(offset_bytes)
    left = memoryview(content)
    while left:
        left = left[f.write(left) :]


def _sync_folder(folder: Path) -> None:
    """Make the new name durable, where a folder can be opened and synced (not on Windows)."""
    with suppress(OSError):  # the file is whole and in its place, whatever this says
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
