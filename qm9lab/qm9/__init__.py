"""QM9, offline: where it comes from, where it lies, whether it is whole.

QM9 is 130,831 small organic molecules with 19 computed properties. It is built once from the CSV
files of the PyPI package ``qm9pack``, checked by SHA-256, and kept as the data set that PyTorch
Geometric (PyG) would have made of its own download::

    molecules = qm9.dataset()      # as torch_geometric.datasets.QM9
    path = qm9.record_file()       # SMILES and U0 of all molecules, in the layout of records.py

Both lie in the data folder, each with its checksum beside it in a file that ``sha256sum -c`` reads.
A file appears under its name when it is whole, never before. A folder that has both is only read.

Source: Ramakrishnan, Dral, Rupp, von Lilienfeld, Scientific Data 1, 140022 (2014);
qm9pack 1.0.3; torch_geometric.datasets.QM9.
"""

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from qm9lab import records

from .whole_files import REBUILD, DataError, locked, replacing, say, sidecar, verify

if TYPE_CHECKING:
    from torch_geometric.datasets import QM9 as PyGQM9

TARGETS = (
    ("mu", "D"),
    ("alpha", "a0^3"),
    ("homo", "eV"),
    ("lumo", "eV"),
    ("gap", "eV"),
    ("R2", "a0^2"),
    ("ZPVE", "eV"),
    ("U0", "eV"),
    ("U", "eV"),
    ("H", "eV"),
    ("G", "eV"),
    ("Cv", "cal/(mol K)"),
    ("U0_atom", "eV"),
    ("U_atom", "eV"),
    ("H_atom", "eV"),
    ("G_atom", "eV"),
    ("A", "GHz"),
    ("B", "GHz"),
    ("C", "GHz"),
)
"""Symbol and unit of each column of ``y``. Source: docstring of torch_geometric.datasets.QM9."""

DATASET_FILE = "QM9/processed/qm9lab_v1.pt"
PYG_FILES = ("QM9/processed/data_v3.pt", "processed/data_v3.pt")
"""Where PyG's own processed file is looked for, should the user have it."""


class Source(NamedTuple):
    """CSV files that QM9 is built from.

    Attributes
    ----------
    sha256 : file name to hexadecimal SHA-256
    n_molecules : how many there must be in all
    folder : where they lie; None is the installed package qm9pack
    remedy : the command that brings them back
    """

    sha256: Mapping[str, str]
    n_molecules: int
    folder: Path | None = None
    remedy: str = "pip install --force-reinstall qm9pack==1.0.3"


QM9PACK = Source(
    {
        "qm9_part1.csv": "19f0a5d595462d52cd82eef3370f3e9eb55a1f52cb14985657200349568deff3",
        "qm9_part2.csv": "2bca113fdc0b28a13563c80ed9b240e934f3da6c64c64fe74ddb4f0f36036e61",
        "qm9_part3.csv": "9c5efb5733d2af149db8d95d36ff198b4ffed12d9f7b344220a1e5877d5c6a43",
    },
    n_molecules=130_831,
)
"""qm9pack 1.0.3 from PyPI, the only release whose files this is tested with."""


def folder() -> Path:
    """The data folder: ``QM9LAB_DATA`` if set, else ``data/`` in the repository.

    Where the package is not in a repository (installed elsewhere), the user's data folder.
    """
    chosen = os.environ.get("QM9LAB_DATA")
    if chosen:
        return Path(chosen).expanduser().absolute()
    repository = Path(__file__).resolve().parents[2]
    if (repository / "pyproject.toml").is_file():
        return repository / "data"
    import platformdirs

    return platformdirs.user_data_path("qm9lab")


def dataset(progress: bool = True, *, source: Source = QM9PACK) -> "PyGQM9":
    """QM9, a drop-in for ``torch_geometric.datasets.QM9``; built at the first call.

    Each molecule has ``x`` (n_atoms, 11) float32, ``edge_index`` (2, n_edges) int64, ``edge_attr``
    (n_edges, 4) float32, ``y`` (1, 19) float32 in the units of ``TARGETS``, ``pos`` (n_atoms, 3)
    float32 in angstrom, ``z`` (n_atoms,) int64, ``smiles``, ``name`` and ``idx``. A file
    ``data_v3.pt`` that PyG itself has processed, if it is there, is used as it is, and a line on
    standard error says so.

    Parameters
    ----------
    progress : bool
        Show a progress bar, and that line; both on standard error.
    source : Source
        For tests: other files to build from.

    Raises
    ------
    DataError
        If the source or the built file is damaged, or the data folder cannot be written.

    Source: torch_geometric/datasets/qm9.py, class QM9.
    """
    path = _dataset_file()
    if path is None:
        path = folder() / DATASET_FILE
        with locked(folder(), progress):
            if not os.path.isfile(path):  # else another process has just built it
                import torch

                from . import build

                tensors = build.build(source, progress)
                with replacing(path) as f:
                    torch.save(tensors, f)
    else:
        _accept(path, progress)
    dataset_class = _qm9_class()
    try:
        molecules = dataset_class(path)
        n_molecules = len(molecules)
    except MemoryError:
        raise
    except Exception as error:  # torch and pickle have many words for a damaged file
        raise DataError(
            f"{path}: expected a data set of PyTorch Geometric, found that it cannot be read "
            f"({type(error).__name__}): delete it and run `{REBUILD}`"
        ) from error
    if n_molecules != source.n_molecules:
        raise DataError(
            f"{path}: expected {source.n_molecules} molecules, found {n_molecules}: "
            f"delete it and run `{REBUILD}`"
        )
    return molecules


def record_file(target: int = 7, progress: bool = True, *, source: Source = QM9PACK) -> Path:
    """The file of all molecules' SMILES and one property, in the layout of ``records.pack``.

    Built with ordinary file writes at the first call, from ``dataset()``. The value is ``y``'s
    float32
    widened to a double, in the unit of ``TARGETS[target]``.

    Raises
    ------
    ValueError
        If there is no such target.
    DataError
        If the file is damaged, or cannot be built (see ``dataset``).
    """
    if target not in range(len(TARGETS)):
        raise ValueError(f"expected a target from 0 to {len(TARGETS) - 1}, found {target!r}")
    path = folder() / _record_name(target)
    if _record_is_there(path):
        verify(path)
        return path
    molecules = dataset(progress, source=source)
    with locked(folder(), progress):
        if not _record_is_there(path):
            values = molecules.y[:, target].tolist()
            with replacing(path, _dataset_file()) as f:
                for smiles, value in zip(molecules.smiles, values, strict=True):
                    f.write(records.pack(smiles, value))
    return path


def prepare(progress: bool = True, *, source: Source = QM9PACK) -> tuple[Path, Path]:
    """Make the data set and the record file ready; what is there is only verified.

    Returns
    -------
    dataset, records : Path

    Raises
    ------
    DataError
        See ``dataset`` and ``record_file``.
    """
    if (path := _dataset_file()) is not None:
        _accept(path, progress)
    else:
        dataset(progress, source=source)
        path = folder() / DATASET_FILE
    return path, record_file(progress=progress, source=source)


def is_ready() -> bool:
    """Whether data set and record file are there. Reads no more than their checksum files."""
    return _dataset_file() is not None and _record_is_there(folder() / _record_name(7))


def _dataset_file() -> Path | None:
    candidates = [folder() / name for name in (*PYG_FILES, DATASET_FILE)]
    return next((path for path in candidates if os.path.isfile(path)), None)


def _accept(path: Path, progress: bool) -> None:
    """Check a data set that is there, or say that it is not ours."""
    if path.name == Path(DATASET_FILE).name:
        verify(path)
    elif progress:
        say(f"{path}: using this QM9, which PyTorch Geometric made")


def _record_name(target: int) -> str:
    return "qm9_smiles_properties" + ("" if target == 7 else f"_target_{target:02d}") + ".dat"


def _record_is_there(path: Path) -> bool:
    """Whether the record file is there and was made from the data set that is used now."""
    made_from = _dataset_file()
    if not os.path.isfile(path) or made_from is None:
        return os.path.isfile(path)
    noted, now = _lines(sidecar(path)), _lines(sidecar(made_from))
    if len(noted) < 2:
        return True  # verify will speak of what is missing
    sha256, _, name = noted[1].partition("  ")
    # PyG's own file has no checksum beside it: there the name must do.
    return Path(name).name == made_from.name and (not now or now[0].startswith(sha256))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []


@functools.cache
def _qm9_class() -> type:
    """``QM9``: PyG's class over one processed file, without download and processing."""
    import torch_geometric.datasets

    class QM9(torch_geometric.datasets.QM9):
        has_download = has_process = False

        def __init__(self, path: Path) -> None:
            self._file_name = path.name
            super().__init__(root=str(path.parent.parent))

        @property
        def processed_file_names(self) -> str:
            return self._file_name

    QM9.__module__, QM9.__qualname__, QM9.__doc__ = __name__, "QM9", _qm9_class.__doc__
    return QM9


def __getattr__(name: str) -> type:
    # A DataLoader's workers unpickle the data set by the name qm9lab.qm9.QM9, which importing
    # this module must not make: it needs torch.
    if name == "QM9":
        return _qm9_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
