"""Reading an indexed file through any buffer: views of one molecule, batches of many."""

import math
import operator
import os
import zlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .layout import (
    AGAIN,
    FIELDS,
    OFFSETS,
    SECTIONS,
    Array,
    ColumnsError,
    bytes_of,
    check_ends,
    n_rows_of,
    read_header,
)

if TYPE_CHECKING:
    import torch
    from typing_extensions import Buffer  # collections.abc.Buffer from Python 3.12 on


class Molecule(NamedTuple):
    """One molecule as views into the buffer; only the two strings are copies."""

    idx: int  # its number in the data set
    y: Array  # (19,) float32, in the units of ``qm9.TARGETS``
    z: Array  # (n_atoms,) int64, atomic numbers
    pos: Array  # (n_atoms, 3) float32, angstrom
    x: Array  # (n_atoms, 11) float32
    edge_index: Array  # (2, n_edges) int64, a transposed view
    edge_attr: Array  # (n_edges, 4) float32
    smiles: str
    name: str


class Columns:
    """The molecules of an indexed file, over a buffer that the caller mapped.

    Making one reads the header alone. Whole sections are views: ``columns["pos"]``. While a view
    lives, the map cannot be closed (``mmap.close`` raises BufferError).

    Parameters
    ----------
    buffer : anything with the buffer protocol that holds a whole file; usually a ``mmap.mmap``
    path : named in errors

    Attributes
    ----------
    sections : dict of name to Section
    path : as given

    Raises
    ------
    ColumnsError
        If the buffer holds no such file. Bytes that only ``verify`` reads are not checked here:
        an offset that leads out of its section is refused when its molecule is asked for.

    Notes
    -----
    If the file under a map is cut short later, reading past its end kills the process with
    SIGBUS (mmap(2)); ``write`` replaces files and never cuts one.
    """

    def __init__(self, buffer: "Buffer", path: str | os.PathLike[str] = "the buffer") -> None:
        self.path = path
        self.sections = {section.name: section for section in read_header(buffer, path)}
        whole = memoryview(buffer).cast("B")
        # Not np.ndarray(shape, dtype, buffer): that keeps no claim (Py_buffer) on the buffer, so a
        # map could be closed under it, and the next look would kill the process.
        self._arrays: dict[str, Array] = {
            s.name: np.frombuffer(
                whole, s.dtype, math.prod(s.shape), s.offset_bytes if s.length_bytes else 0
            ).reshape(s.shape)
            for s in self.sections.values()
        }
        # A memoryview gives one item as a Python int in a third of NumPy's time.
        self._bytes = {
            s.name: whole[s.offset_bytes : s.offset_bytes + s.length_bytes]
            for s in self.sections.values()
        }
        self._ends = {
            rows_of: (self._bytes[name].cast("q"), name, n_rows_of(rows_of, self._arrays))
            for rows_of, name in OFFSETS.items()
        }
        # All that molecule() needs, in one tuple: each look into a dict costs as much as a view.
        self._of_molecule: tuple[Any, ...] = (
            *(part for ends, _, n_rows in self._ends.values() for part in (ends, n_rows)),
            self._bytes["idx"].cast("q"),
            *(self._arrays[name] for name in ("y", "z", "pos", "x", "edge_index", "edge_attr")),
            self._bytes["smiles"],
            self._bytes["name"],
            len(self._arrays["idx"]),
        )

    def __len__(self) -> int:
        """The number of molecules."""
        return len(self._arrays["idx"])

    def __getitem__(self, name: str) -> Array:
        """A whole section as a view, with shape and dtype as in SECTIONS."""
        return self._arrays[name]

    def span(self, index: int, rows_of: str) -> tuple[int, int]:
        """First row of a molecule, and the row after its last.

        Parameters
        ----------
        index : from 0; negative ones count from the end
        rows_of : "atom", "edge", "smiles" or "name"

        Raises
        ------
        IndexError
            If there is no such molecule.
        ColumnsError
            If the offsets there do not lie in their section.
        """
        return self._span(self._index(index), rows_of)

    def _index(self, index: int) -> int:
        """A molecule's index from 0 on, of one that may be negative. Errors as for ``span``."""
        n, index = len(self), operator.index(index)  # NumPy's integers would wrap around
        if not -n <= index < n:
            raise IndexError(f"expected a molecule from 0 to {n - 1}, found {index}")
        return index + n if index < 0 else index

    def _span(self, index: int, rows_of: str) -> tuple[int, int]:
        ends, name, n_rows = self._ends[rows_of]
        first, last = ends[index], ends[index + 1]
        if not 0 <= first <= last <= n_rows:
            raise self._out_of_section(name, index, n_rows, (first, last))
        return first, last

    def _out_of_section(
        self, name: str, index: int, n_rows: int, found: tuple[int, int]
    ) -> ColumnsError:
        return ColumnsError(
            f"{self.path}: section {name!r}, molecule {index}: expected two offsets that rise "
            f"within 0 to {n_rows}, found {found[0]} and {found[1]}: "
            f"it is a damaged copy; {AGAIN}"
        )

    def smiles(self, index: int) -> str:
        """The SMILES of one molecule. Errors as for ``span``."""
        return self._text(self._index(index), "smiles")

    def _text(self, index: int, field: str) -> str:
        first, last = self._span(index, field)
        try:
            return str(self._bytes[field][first:last], "utf-8")
        except UnicodeDecodeError as error:
            raise ColumnsError(
                f"{self.path}: section {field!r}, molecule {index}: expected UTF-8, found byte "
                f"0x{error.object[error.start]:02x}: it is a damaged copy; {AGAIN}"
            ) from error

    def molecule(self, index: int) -> Molecule:
        """One molecule as views, at the same cost wherever it lies. Errors as for ``span``."""
        atoms, n_atoms, edges, n_edges, texts, n_text, names, n_names, *fields = self._of_molecule
        idx, y, z, pos, x, edge_index, edge_attr, smiles, name, n = fields
        if type(index) is not int or not 0 <= index < n:
            index = self._index(index)
        end = index + 1
        a, b, c, d = atoms[index], atoms[end], edges[index], edges[end]
        s, t, u, v = texts[index], texts[end], names[index], names[end]
        if not (
            0 <= a <= b <= n_atoms
            and 0 <= c <= d <= n_edges
            and 0 <= s <= t <= n_text
            and 0 <= u <= v <= n_names
        ):
            (a, b), (c, d), (s, t), (u, v) = (self._span(index, rows_of) for rows_of in OFFSETS)
        atom, edge = slice(a, b), slice(c, d)
        try:
            texts = str(smiles[s:t], "utf-8"), str(name[u:v], "utf-8")
        except UnicodeDecodeError:
            texts = self._text(index, "smiles"), self._text(index, "name")
        views = z[atom], pos[atom], x[atom], edge_index[edge].T, edge_attr[edge]
        return Molecule._make((idx[index], y[index], *views, *texts))

    def gather(self, indices: npt.ArrayLike, fields: Iterable[str] = FIELDS) -> dict[str, Any]:
        """The rows of several molecules, one molecule after another, as new arrays.

        Parameters
        ----------
        indices : (n,) integers, in any order, repeated or negative ones included
        fields : of FIELDS; one may be given as a str

        Returns
        -------
        dict
            For each field its rows as in SECTIONS (``edge_index`` as pairs, numbered within each
            molecule), for ``smiles`` and ``name`` a list of str. With fields of atoms or edges
            also ``n_atoms`` and ``n_edges``, (n,) int64: the rows of each molecule.

        Raises
        ------
        TypeError
            If the indices are not integers: of a mask, give ``np.flatnonzero(mask)``.
        KeyError
            If a field is not one of FIELDS.
        IndexError, ColumnsError
            As for ``span``.
        """
        indices = self._indices(indices)
        fields = (fields,) if isinstance(fields, str) else tuple(fields)
        if unknown := set(fields).difference(FIELDS):
            raise KeyError(f"expected fields of {FIELDS}, found {sorted(unknown)}")
        taken: dict[str, Any] = {}
        spans: dict[str, tuple[Array, Array]] = {}
        for field in fields:
            rows_of = SECTIONS[field].rows_of
            if rows_of == "molecule":
                # Each index was checked: "clip" saves NumPy a second look and a buffer.
                taken[field] = self._arrays[field].take(indices, axis=0, mode="clip")
                continue
            if rows_of not in spans:
                spans[rows_of] = self._spans(indices, rows_of)
            first, last = spans[rows_of]
            if field in ("smiles", "name"):
                taken[field] = self._texts(indices, field, first, last)
            else:
                taken[f"n_{rows_of}s"] = last - first
                array = self._arrays[field]
                joined = np.frombuffer(self._joined(field, first, last), array.dtype)
                taken[field] = joined.reshape(-1, *array.shape[1:])
        return taken

    def _indices(self, indices: npt.ArrayLike) -> Array:
        """Indices of a batch, checked, from 0 on, (n,) intp."""
        found = np.asarray(indices).reshape(-1)
        if found.size and found.dtype.kind not in "iu":
            raise TypeError(
                f"expected integers, found {found.dtype}: of a mask, give np.flatnonzero(mask)"
            )
        n = len(self)
        if found.size and not (-n <= found.min() and found.max() < n):
            outside = found[(found < -n) | (found >= n)][0]
            raise IndexError(f"expected molecules from 0 to {n - 1}, found {outside}")
        found = found.astype(np.intp, copy=False)
        return np.where(found < 0, found + n, found)

    def _joined(self, field: str, first: Array, last: Array) -> bytearray:
        """The bytes of rows ``first`` to ``last`` of several molecules, one after another."""
        array, section = self._arrays[field], self._bytes[field]
        n_bytes = array.itemsize * math.prod(array.shape[1:])
        starts, ends = (first * n_bytes).tolist(), (last * n_bytes).tolist()
        # One memcpy a molecule, where NumPy's take makes one a row.
        return bytearray().join([section[a:b] for a, b in zip(starts, ends, strict=True)])

    def _texts(self, indices: Array, field: str, first: Array, last: Array) -> list[str]:
        """The strings of molecules; those in ASCII, as SMILES are, decoded all at once."""
        joined = self._joined(field, first, last)
        if not joined.isascii():  # a character may have several bytes
            return [self._text(index, field) for index in indices.tolist()]
        text, ends = joined.decode("ascii"), np.cumsum(last - first).tolist()
        return [text[a:b] for a, b in zip([0, *ends], ends, strict=False)]

    def _spans(self, indices: Array, rows_of: str) -> tuple[Array, Array]:
        """First rows of molecules, and the rows after their last, checked; (n,) int64 each."""
        _, name, n_rows = self._ends[rows_of]
        ends = self._arrays[name]
        first, last = ends[indices], ends[indices + 1]
        bad = ~((first >= 0) & (first <= last) & (last <= n_rows))
        if bad.any():
            k = int(bad.argmax())
            raise self._out_of_section(name, int(indices[k]), n_rows, (int(first[k]), int(last[k])))
        if (last - first).sum() > n_rows:  # some are asked for twice, or offsets fall and rise
            once = np.unique(indices)
            if (ends[once + 1] - ends[once]).sum() > n_rows:
                check_ends(name, ends, n_rows, self.path)
        return first, last

    def tensors(self) -> dict[str, "torch.Tensor"]:
        """Each section as a torch tensor over the same bytes, without a copy.

        Raises
        ------
        ValueError
            If the buffer is read-only: torch has no read-only tensors, and a store into one would
            kill the process (SIGSEGV). Over a map with ``ACCESS_COPY`` a store makes a private
            copy of its page and leaves the file alone.
        """
        import torch

        if not self._arrays["idx"].flags.writeable:
            raise ValueError(
                "expected a buffer that can be written, for torch has no read-only tensors, found "
                "a read-only one: map the file with access=mmap.ACCESS_COPY"
            )
        return {name: torch.from_numpy(array) for name, array in self._arrays.items()}

    def verify(self) -> None:
        """Read all sections: their checksums, then whether the offsets rise from 0 to the end.

        Raises
        ------
        ColumnsError
            At the first section that is not as it was written.
        """
        for section in self.sections.values():
            found = zlib.crc32(bytes_of(self._arrays[section.name]))
            if found != section.crc32:
                raise ColumnsError(
                    f"{self.path}: section {section.name!r}: expected CRC-32 "
                    f"{section.crc32:08x}, found {found:08x} in {section.length_bytes} bytes: "
                    f"it was changed; {AGAIN}"
                )
        for _, name, n_rows in self._ends.values():
            check_ends(name, self._arrays[name], n_rows, self.path)
