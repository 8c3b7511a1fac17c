"""``columns.MappedQM9``: a PyTorch Geometric data set over an indexed file that it maps."""

import mmap
import os
import stat
import sys
import zlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch_geometric.data
from torch_geometric.data import Data

from .layout import AGAIN, ColumnsError, header
from .reading import Columns

if TYPE_CHECKING:
    import torch

NORESERVE = 0x4000
"""MAP_NORESERVE of Linux, which Python names from 3.13 on (asm-generic/mman.h)."""


class MappedQM9(torch_geometric.data.Dataset):  # type: ignore[misc]  # it has no types
    """QM9 from an indexed file, equal to ``qm9.dataset()`` field by field.

    ``dataset[i]`` makes a ``Data`` whose tensors are views into the map: it reads the offsets of
    the molecule, and no page of a tensor until that tensor is used. The map is private, so a store
    into a tensor copies that page and never reaches the file.

    Pickled, it is its path. A worker that is spawned maps the file again when it first needs it.
    One that is forked inherits the map. Either way all share the file's pages in the page cache.

    Parameters
    ----------
    path : a file that ``columns.write`` wrote
    transform : as for torch_geometric.data.Dataset

    Attributes
    ----------
    path : Path
    columns : Columns, over the map

    Raises
    ------
    OSError
        If the file cannot be opened or mapped.
    ColumnsError
        If it is no such file or, when a worker maps it, another one than the data set was made
        with.

    Notes
    -----
    Linux counts a private map that can be stored to against RLIMIT_DATA (getrlimit(2)), and under
    ``vm.overcommit_memory`` 2 as memory that was promised, though no store may ever come. Where
    that is too strict, ``Columns`` over a map with ``ACCESS_READ`` costs neither.
    """

    def __init__(
        self, path: str | os.PathLike[str], transform: Callable[[Data], Any] | None = None
    ) -> None:
        super().__init__(root=None, transform=transform)
        self.path = Path(path).absolute()
        self._crc32 = None
        self._crc32 = self._header_crc32(self.columns)

    @cached_property
    def columns(self) -> Columns:
        """The file's columns, over a map that is made when they are first asked for."""
        # The data set keeps no name of the map: it goes with the last tensor over it.
        columns = Columns(_map(self.path), self.path)
        if self._crc32 not in (None, self._header_crc32(columns)):
            raise ColumnsError(
                f"{self.path}: expected the file that the data set was made with, found another "
                "under its name: make the data set again"
            )
        return columns

    @cached_property
    def _tensors(self) -> "dict[str, torch.Tensor]":
        return self.columns.tensors()

    @staticmethod
    def _header_crc32(columns: Columns) -> int:
        """Of the checksums of all sections, and where they lie: another content, another number."""
        return zlib.crc32(header(columns.sections.values(), len(columns), 0))

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("columns", "_tensors")}

    def __copy__(self) -> "MappedQM9":
        """A part such as ``dataset[:1000]`` shares the map."""
        other = self.__class__.__new__(self.__class__)
        other.__dict__.update(self.__dict__)
        return other

    def len(self) -> int:
        """The number of molecules in the file."""
        return len(self.columns)

    def get(self, idx: int) -> Data:
        """One molecule. Errors as for ``Columns.span``."""
        columns, tensors = self.columns, self._tensors
        idx = columns._index(idx)
        atom, atom_end = columns._span(idx, "atom")
        edge, edge_end = columns._span(idx, "edge")
        fields = {
            "x": tensors["x"][atom:atom_end],
            "edge_index": tensors["edge_index"][edge:edge_end].t(),
            "edge_attr": tensors["edge_attr"][edge:edge_end],
            "y": tensors["y"][idx : idx + 1],
            "pos": tensors["pos"][atom:atom_end],
            "z": tensors["z"][atom:atom_end],
            "smiles": columns._text(idx, "smiles"),
            "name": columns._text(idx, "name"),
            "idx": tensors["idx"][idx : idx + 1],
        }
        # Data(**fields) does the same in several times the time: at each field its store looks for
        # a cache that a new one has not got, and catches the AttributeError.
        data = Data()
        data._store._mapping.update(fields)
        return data


def _map(path: Path) -> mmap.mmap:
    """Map a whole file so that stores stay in this process: ``MAP_PRIVATE`` of mmap(2).

    On Linux with ``MAP_NORESERVE``, which ``ACCESS_COPY`` lacks: as if every page were to be stored
    to, the kernel would else refuse a file larger than memory and swap.
    """
    # Before it is opened: that may wait for ever, as on a pipe.
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ColumnsError(f"{path}: expected a regular file, found none: give another path")
    with open(path, "rb") as f:
        if os.fstat(f.fileno()).st_size == 0:
            raise ColumnsError(f"{path}: expected a file, found 0 bytes: {AGAIN}")
        if sys.platform != "linux":
            return mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY)
        flags, prot = mmap.MAP_PRIVATE | NORESERVE, mmap.PROT_READ | mmap.PROT_WRITE
        return mmap.mmap(f.fileno(), 0, flags=flags, prot=prot)


MappedQM9.__module__ = "qm9lab.columns"  # where callers, and pickles, know it
