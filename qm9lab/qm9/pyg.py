"""``qm9.QM9``: PyTorch Geometric's class over one processed file, which never runs code.

Source: torch_geometric/datasets/qm9.py and torch_geometric/data/in_memory_dataset.py (2.8.1).
"""

import pickle
import re
from pathlib import Path
from typing import Any

import torch
import torch_geometric.datasets
from torch_geometric.data import Data
from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
from torch_geometric.data.storage import GlobalStorage

from .build import in_pyg_units
from .source import Source, read_source

OLD_FILES = [DataEdgeAttr, DataTensorAttr, GlobalStorage]
"""What a file of an older PyG is made of: data, too, so that we can report what it is."""

FIELDS = {
    "x": "torch.float32 ({n}, 11)",
    "edge_index": "torch.int64 (2, {n})",
    "edge_attr": "torch.float32 ({n}, 4)",
    "y": "torch.float32 ({n}, 19)",
    "pos": "torch.float32 ({n}, 3)",
    "z": "torch.int64 ({n},)",
    "smiles": "{n} strings",
    "name": "{n} strings",
    "idx": "torch.int64 ({n},)",
}
"""Type and shape of each field of n atoms, edges or molecules."""


class QM9(torch_geometric.datasets.QM9):
    """PyG's ``QM9`` over a file as ``InMemoryDataset.save`` writes it, without download.

    ValueError if it is no such file: what was expected and what was found.
    """

    has_download = has_process = False

    def __init__(self, path: Path) -> None:
        self._path = path
        super().__init__(root=str(path.parent))

    @property
    def processed_dir(self) -> str:
        return str(self._path.parent)

    @property
    def processed_file_names(self) -> str:
        return self._path.name

    def load(self, path: str, data_cls: type = Data) -> None:
        """Read the file as data only. PyG would try again with ``weights_only=False``."""
        try:
            with torch.serialization.safe_globals(OLD_FILES):
                loaded = torch.load(path, weights_only=True)
        except MemoryError:
            raise  # says nothing about the file
        except Exception as error:  # torch and pickle have many words for a damaged file
            found = f"that it cannot be read ({type(error).__name__})"
            asked = re.search(r"GLOBAL (\S+)", str(error))
            if isinstance(error, pickle.UnpicklingError) and asked:
                found = f"a pickle that asks for {asked[1]}, which we did not run"
            raise ValueError(f"expected a data set of PyTorch Geometric, found {found}") from error
        parts = loaded if isinstance(loaded, tuple) else (loaded,)
        if len(parts) != 3 or not all(isinstance(part, dict) for part in parts[:2]):
            raise ValueError(
                "expected (dict, dict, class), as PyTorch Geometric saves a data set since 2.4, "
                f"found ({', '.join(type(part).__name__ for part in parts)})"
            )
        self.data, self.slices = Data.from_dict(parts[0]), parts[1]


def check(dataset: QM9, source: Source) -> None:
    """Compare a data set that PyG processed with the source; ValueError at the first difference.

    Values are compared of names, atoms, positions and targets alone: bonds and SMILES depend on
    the version of RDKit.
    """
    molecules, targets = read_source(source)
    values = {
        "name": [f"gdb_{index}" for index in molecules.index],
        "z": torch.tensor(molecules.z),
        "pos": torch.tensor(molecules.position, dtype=torch.float32),
        "y": in_pyg_units(targets),
    }
    data = dataset._data.to_dict()
    for name, kind in FIELDS.items():
        if name not in data:
            raise ValueError(f"expected the fields {', '.join(FIELDS)}, found none named {name}")
        found, ends = data[name], torch.as_tensor(dataset.slices.get(name, ()))
        if ends.shape != (source.n_molecules + 1,):
            raise ValueError(f"expected {source.n_molecules} molecules, found {len(ends) - 1}")
        if ends[0] != 0 or (ends.diff() < 0).any():
            raise ValueError(f"{name}: expected slices that rise from 0, found others")
        expected = kind.format(n=int(ends[-1]))
        if _kind(found) != expected:
            raise ValueError(f"{name}: expected {expected}, found {_kind(found)}")
        if name in values and not _equal(found, values[name]):
            raise ValueError(f"{name}: expected the values of the source, found others")


def _kind(values: Any) -> str:
    if isinstance(values, torch.Tensor):
        return f"{values.dtype} {tuple(values.shape)}"
    if isinstance(values, list) and all(isinstance(value, str) for value in values):
        return f"{len(values)} strings"
    return type(values).__name__


def _equal(found: Any, expected: Any) -> bool:
    if isinstance(expected, list):
        return found == expected
    # PyG's file has the same decimals, some of them rounded: positions to four digits.
    return found.shape == expected.shape and torch.allclose(found, expected, 1e-4, 1e-3)


QM9.__module__ = "qm9lab.qm9"  # where callers, and the pickles of a DataLoader, know it
