"""QM9 as a data set and as a record file: built at the first call, verified afterwards."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qm9lab import records

from .data_folder import REBUILD, folder, home_for, make, sha256_of, verify
from .source import QM9PACK, DataError, Source

if TYPE_CHECKING:
    from .pyg import QM9

DATASET_FILE = "QM9/processed/qm9lab_v1.pt"
U0 = 7
"""The column of ``y`` that the record file has."""

UNSET = "take the data_v3.pt of PyTorch Geometric 2.4 or later, or unset QM9LAB_PYG"


def dataset(
    progress: bool = True,
    *,
    pyg: str | os.PathLike[str] | None = None,
    source: Source = QM9PACK,
) -> "QM9":
    """QM9, a drop-in for ``torch_geometric.datasets.QM9``; built at the first call.

    Each molecule has ``x`` (n_atoms, 11) float32, ``edge_index`` (2, n_edges) int64, ``edge_attr``
    (n_edges, 4) float32, ``y`` (1, 19) float32 in the units of ``TARGETS``, ``pos`` (n_atoms, 3)
    float32 in angstrom, ``z`` (n_atoms,) int64, ``smiles``, ``name`` and ``idx``.

    Parameters
    ----------
    progress : show a progress bar on standard error
    pyg : a file ``data_v3.pt`` that PyG itself has processed, to use in place of the kit's. Its
        content is checked. The environment variable ``QM9LAB_PYG`` does the same, for
        ``record_file`` too.
    source : for tests: other files to build from

    Raises
    ------
    DataError
        If the source or a file is damaged or not QM9, or the data folder cannot be written.
    """
    theirs = _users_file(pyg)
    path = theirs or _kits_file(progress, source)[0]
    from . import pyg as pyg_files

    try:
        molecules = pyg_files.QM9(path)
        if theirs is not None:
            pyg_files.check(molecules, source)
        elif len(molecules) != source.n_molecules:
            raise ValueError(f"expected {source.n_molecules} molecules, found {len(molecules)}")
    except ValueError as error:
        remedy = f"delete it and run `{REBUILD}`" if theirs is None else UNSET
        raise DataError(f"{path}: {error}: {remedy}") from error
    return molecules


def record_file(progress: bool = True, *, source: Source = QM9PACK) -> Path:
    """The file of all molecules' SMILES and U0, in the layout of ``records.pack``.

    Built with ordinary file writes at the first call, from ``dataset()``. The value is ``y``'s
    float32 widened to a double, in eV. DataError as for ``dataset``.
    """
    return _record_file(progress, source)


def prepare(progress: bool = True, *, source: Source = QM9PACK) -> tuple[Path, Path]:
    """Paths of data set and record file, made ready; what is there is only verified.

    Loads no torch, which takes seconds, if both are there. DataError as for ``dataset``.
    """
    theirs, fields = _users_file(), None
    path = theirs
    if path is None:
        path, fields = _kits_file(progress, source)
    return path, _record_file(progress, source, fields)


def _record_file(progress: bool, source: Source, fields: dict[str, Any] | None = None) -> Path:
    """``fields`` are the data set's ``smiles`` and ``y``, if they are in memory already."""
    theirs = _users_file()
    made_from = "" if theirs is None else f"_pyg_{sha256_of(theirs)[:8]}"
    path = folder() / f"qm9_smiles_properties{made_from}.dat"
    if not os.path.isfile(path):
        fields = fields or dataset(progress, source=source)._data
        content = b"".join(map(records.pack, fields["smiles"], fields["y"][:, U0].tolist()))
        make(path, lambda: content, progress)
    verify(path)
    return path


def _kits_file(progress: bool, source: Source) -> tuple[Path, dict[str, Any] | None]:
    """The data set's file, verified, and the fields of all molecules if it was built now."""
    path, built = folder() / DATASET_FILE, []
    if not os.path.isfile(path):
        from . import build

        def content() -> memoryview:
            built.append(build.build(source, progress))
            return build.saved(built[0])

        make(path, content, progress)
    verify(path)
    return path, built[0][0] if built else None


def _users_file(pyg: str | os.PathLike[str] | None = None) -> Path | None:
    """The file of PyG's that the caller or ``QM9LAB_PYG`` asks for."""
    asked = pyg or os.environ.get("QM9LAB_PYG")
    if not asked:
        return None
    with home_for(asked, "QM9LAB_PYG"):
        path = Path(asked).expanduser().absolute()
    if not path.is_file():
        raise DataError(f"{path}: expected a data_v3.pt of PyTorch Geometric, found none: {UNSET}")
    return path
