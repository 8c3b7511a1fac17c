"""QM9, offline: 130,831 small organic molecules with 19 computed properties.

It is built once from the CSV files of the PyPI package ``qm9pack``, and kept as the data set that
PyTorch Geometric (PyG) would have made of its own download::

    molecules = qm9.dataset()      # as torch_geometric.datasets.QM9
    path = qm9.record_file()       # SMILES and U0 of all molecules, in the layout of records.py

Both lie in the data folder, each next to its checksum in a file that ``sha256sum -c`` reads.

Source: Ramakrishnan, Dral, Rupp, von Lilienfeld, Scientific Data 1, 140022 (2014).
"""

from .data_folder import folder, others_can_write
from .dataset import DATASET_FILE, dataset, prepare, record_file
from .source import QM9PACK, TARGETS, DataError, Source

__all__ = [
    "DATASET_FILE",
    "QM9",
    "QM9PACK",
    "TARGETS",
    "DataError",
    "Source",
    "dataset",
    "folder",
    "others_can_write",
    "prepare",
    "record_file",
]


def __getattr__(name: str) -> type:
    # QM9 needs torch_geometric, which takes seconds to import: only when it is first asked for.
    if name != "QM9":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .pyg import QM9

    return QM9
