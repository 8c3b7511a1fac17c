"""Where QM9 comes from: the CSV files of the package ``qm9pack``, checked and parsed.

Source: Ramakrishnan, Dral, Rupp, von Lilienfeld, Scientific Data 1, 140022 (2014);
qm9pack 1.0.3 (PyPI); the units of PyTorch Geometric's QM9.
"""

import hashlib
import io
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np

_UNITS = {"mu": "D", "alpha": "a0^3", "R2": "a0^2", "Cv": "cal/(mol K)"}
_UNITS |= dict.fromkeys("ABC", "GHz")
_SYMBOLS = "mu alpha homo lumo gap R2 ZPVE U0 U H G Cv U0_atom U_atom H_atom G_atom A B C".split()
TARGETS = tuple((symbol, _UNITS.get(symbol, "eV")) for symbol in _SYMBOLS)
"""Symbol and unit of each column of ``y``. Source: docstring of torch_geometric.datasets.QM9."""

# The source's columns in the order of PyG's targets 0 to 11 and 16 to 18. Targets 12 to 15, the
# atomization energies, are computed from 7 to 10.
PROPERTIES = (
    "Dipole_debye Polarizability_bohr3 HOMO_au LUMO_au HOMO_LUMO_gap_au R2_bohr2 ZPVE_au "
    "InternalEnergy_0K_au InternalEnergy_298K_au Enthalphy_298K_au GibbsFreeEnergy_298K_au "
    "Heatcapacity_Cv_cal_mol_K RotA_GHz RotB_GHz RotC_GHz"
).split()

ELEMENTS = {"H": 1, "C": 6, "N": 7, "O": 8, "F": 9}
"""Symbol to atomic number, in the order of the first five columns of ``x``."""

REFERENCE_ATOMS_HARTREE = np.array(
    [
        [-0.500273, -0.498857, -0.497912, -0.510927],
        [-37.846772, -37.845355, -37.844411, -37.861317],
        [-54.583861, -54.582445, -54.581501, -54.598897],
        [-75.064579, -75.063163, -75.062219, -75.079532],
        [-99.718730, -99.717314, -99.716370, -99.733544],
    ]
)
"""Energies of the free atoms, (element, U0 U H G). Source: atomref.txt of the QM9 paper."""


class DataError(RuntimeError):
    """QM9 is not available: the path, what was expected, what was found, and what to do."""

    __module__ = "qm9lab.qm9"  # where callers know it


class Source(NamedTuple):
    """CSV files that QM9 is built from."""

    sha256: Mapping[str, str]  # file name to hexadecimal SHA-256
    n_molecules: int  # in all files together
    folder: Path | None = None  # where the files lie; None is the installed package qm9pack
    remedy: str = "pip install --force-reinstall qm9pack==1.0.3"


QM9PACK = Source(
    {
        "qm9_part1.csv": "19f0a5d595462d52cd82eef3370f3e9eb55a1f52cb14985657200349568deff3",
        "qm9_part2.csv": "2bca113fdc0b28a13563c80ed9b240e934f3da6c64c64fe74ddb4f0f36036e61",
        "qm9_part3.csv": "9c5efb5733d2af149db8d95d36ff198b4ffed12d9f7b344220a1e5877d5c6a43",
    },
    n_molecules=130_831,
)
"""qm9pack 1.0.3 from PyPI, the only release that we tested."""


class Molecules(NamedTuple):
    """Some molecules as the source has them, with the atoms of all of them end to end."""

    index: np.ndarray  # (n_molecules,) int64, the number in ``gdb_NNN``, from 1
    smiles: list[str]  # without hydrogens
    n_atoms: np.ndarray  # (n_molecules,) int64
    z: np.ndarray  # (n_atoms in all,) int64, atomic numbers
    position: np.ndarray  # (n_atoms in all, 3) float64, angstrom, of four decimals as in gdb9.sdf


def source_files(source: Source) -> dict[Path, str]:
    """Where the source's CSV files are, and the SHA-256 that each must have."""
    folder = source.folder
    if folder is None:
        try:  # importing qm9pack would pull in setuptools' old pkg_resources and pandas
            folder = Path(str(metadata.distribution("qm9pack").locate_file("qm9pack/data")))
        except metadata.PackageNotFoundError as error:
            raise DataError(
                "expected the installed package qm9pack 1.0.3, the source of QM9, in "
                f"{sys.prefix}, found none: run `{source.remedy}`"
            ) from error
    return {folder / name: sha256 for name, sha256 in source.sha256.items()}


def read_source(source: Source) -> tuple[Molecules, np.ndarray]:
    """The molecules, and PyG's targets before its conversion, (n_molecules, 19) float64.

    Those are in hartree and kcal/mol where PyG has eV. DataError if a file is missing or has
    another checksum, or if the number of molecules is wrong.
    """
    import polars as pl

    columns = ["Index", "SMILES", "N_atoms", "Elements", "XYZ_Ang", *PROPERTIES]
    types = dict.fromkeys(PROPERTIES, pl.Float64)
    parts = []
    for path, expected in source_files(source).items():
        try:
            raw = path.read_bytes()
            found = hashlib.sha256(raw).hexdigest()
        except OSError as error:
            found = error.strerror
        if found != expected:
            raise DataError(
                f"{path}: expected a CSV file of QM9 with the SHA-256 {expected}, found {found}: "
                f"run `{source.remedy}`"
            )
        # We parse the bytes that we hashed, and do not read the path again.
        parts.append(pl.read_csv(io.BytesIO(raw), columns=columns, schema_overrides=types))
    table = pl.concat(parts).sort("Index")
    if len(table) != source.n_molecules or not table["Index"].is_unique().all():
        raise DataError(
            f"{path.parent}: expected {source.n_molecules} different molecules, "
            f"found {table['Index'].n_unique()} in {len(table)} lines: run `{source.remedy}`"
        )
    # Not as JSON: the source writes "0." where JSON wants "0.0".
    position = table["XYZ_Ang"].str.replace_all(r"[\[\]]", "").str.split(",").explode()
    symbol = table["Elements"].str.extract_all("[A-Z][a-z]?").explode()
    molecules = Molecules(
        index=table["Index"].to_numpy(),
        smiles=table["SMILES"].to_list(),
        n_atoms=table["N_atoms"].to_numpy(),
        z=symbol.replace_strict(ELEMENTS, return_dtype=pl.Int64).to_numpy(),
        position=four_decimals(position.cast(pl.Float64).to_numpy()).reshape(-1, 3),
    )
    properties = table.select(PROPERTIES).to_numpy()
    atomization = atomization_energies(molecules, properties[:, 7:11])
    targets = np.hstack([properties[:, :12], atomization, properties[:, 12:]])
    return molecules, np.ascontiguousarray(targets)  # polars returns Fortran order


def four_decimals(values: np.ndarray) -> np.ndarray:
    """Numbers as "%.4f" prints them: exact also at a tie, where NumPy multiplies before it rounds.

    ``values`` and result are (n,) float64.
    """
    rounded = values.round(4)
    for k in np.flatnonzero(abs(abs(values * 1e4) % 1 - 0.5) < 1e-6):
        rounded[k] = round(float(values[k]), 4)  # Python rounds exactly
    return rounded


def atomization_energies(molecules: Molecules, energies: np.ndarray) -> np.ndarray:
    """U0, U, H and G minus the free atoms', (n_molecules, 4) float64, from hartree to kcal/mol.

    Exact to nine decimals, as PyG's own table prints them: rounding removes binary noise.
    """
    molecule = np.repeat(np.arange(len(molecules.n_atoms)), molecules.n_atoms)
    free = np.zeros_like(energies)
    for z, reference in zip(ELEMENTS.values(), REFERENCE_ATOMS_HARTREE, strict=True):
        count = np.bincount(molecule[molecules.z == z], minlength=len(free))
        free += count[:, None] * reference
    return np.round((energies - free) * 627.509, 9)  # kcal/mol a hartree
