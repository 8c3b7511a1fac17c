"""QM9 from the CSV files of the package qm9pack to the tensors of PyTorch Geometric's ``QM9``.

PyTorch Geometric (PyG) reads ``gdb9.sdf``, a file of molecule blocks. The CSV files hold the
same molecules without bonds to hydrogen, so each block is written here in memory (heavy-atom
bonds from the SMILES, every hydrogen bonded to its nearest heavy atom, the count checked against
the SMILES) and read with RDKit in the way in which PyG reads it. What PyG then does with one
molecule after the other is done here with NumPy over all atoms at once.

RDKit's share is spread over worker processes that run ``serve`` and are spoken to through pipes:
``multiprocessing`` would run the caller's script again in each of them, and a learner's script has
no ``if __name__ == "__main__"``.

Source: torch_geometric/datasets/qm9.py (2.8.1); qm9pack 1.0.3 (PyPI).
"""

import hashlib
import io
import os
import pickle
import queue
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np

from . import Source
from .whole_files import REBUILD, DataError

N_WORKERS_MAX = 8
MOLECULES_PER_CHUNK = 1000

# The source's columns in the order of PyG's targets 0 to 11 and 16 to 18; 12 to 15, the
# atomization energies, are computed from 7 to 10.
PROPERTIES = (
    "Dipole_debye",
    "Polarizability_bohr3",
    "HOMO_au",
    "LUMO_au",
    "HOMO_LUMO_gap_au",
    "R2_bohr2",
    "ZPVE_au",
    "InternalEnergy_0K_au",
    "InternalEnergy_298K_au",
    "Enthalphy_298K_au",
    "GibbsFreeEnergy_298K_au",
    "Heatcapacity_Cv_cal_mol_K",
)
ROTATIONAL = ("RotA_GHz", "RotB_GHz", "RotC_GHz")

ELEMENTS = {"H": 1, "C": 6, "N": 7, "O": 8, "F": 9}
"""Symbol to atomic number, in the order of the first five columns of ``x``."""

KCALMOL_PER_HARTREE = 627.509
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

LONGEST_BOND_ANGSTROM = 1.8
"""Of two heavy atoms. All are shorter, but for two bonds each in gdb_133857 and gdb_133859."""


class Molecules(NamedTuple):
    """Some molecules as the source has them, atoms of all of them end to end.

    Attributes
    ----------
    index : (n_molecules,) int64, the number in ``gdb_NNN``, from 1
    smiles : list of str, without hydrogens
    n_atoms : (n_molecules,) int64
    z : (n_atoms in all,) int64, atomic numbers
    position : (n_atoms in all, 3) float64, angstrom
    """

    index: np.ndarray
    smiles: list[str]
    n_atoms: np.ndarray
    z: np.ndarray
    position: np.ndarray


class Graphs(NamedTuple):
    """What a molecule block says once RDKit has read it, for some molecules end to end.

    Attributes
    ----------
    smiles : list of str, with explicit hydrogens and stereo marks
    position : (n_atoms in all, 3) float32, angstrom, of four decimals
    bonds : (n_bonds in all, 3) int64: first atom, second atom (counted from the first atom of
        the first molecule), order 1 to 3
    """

    smiles: list[str]
    position: np.ndarray
    bonds: np.ndarray


# --- reading the source -------------------------------------------------------------------------


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
    """Read, check and sort the source.

    Returns
    -------
    Molecules
    (n_molecules, 19) float64 array
        PyG's targets before its conversion: hartree and kcal/mol where PyG has eV.

    Raises
    ------
    DataError
        If a file is missing, has another checksum, or the molecules are not as many as expected.
    """
    import polars as pl

    numbers = (*PROPERTIES, *ROTATIONAL)
    columns = ["Index", "SMILES", "N_atoms", "Elements", "XYZ_Ang", *numbers]
    parts = []
    for path, expected in source_files(source).items():
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise DataError(
                f"{path}: expected a CSV file of QM9, found {error.strerror}: run `{source.remedy}`"
            ) from error
        found = hashlib.sha256(raw).hexdigest()
        if found != expected:
            raise DataError(
                f"{path}: expected SHA-256 {expected}, found {found}: the file was changed or cut "
                f"short; run `{source.remedy}`"
            )
        # What was hashed is what is parsed: the bytes, not the path a second time.
        types = dict.fromkeys(numbers, pl.Float64)
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
        position=position.cast(pl.Float64).to_numpy().reshape(-1, 3),
    )
    properties = table.select(PROPERTIES).to_numpy()
    rotational = table.select(ROTATIONAL).to_numpy()
    atomization = atomization_energies(molecules, properties[:, 7:11])
    targets = np.hstack([properties, atomization, rotational])
    return molecules, np.ascontiguousarray(targets)  # polars' columns make it Fortran's order


def atomization_energies(molecules: Molecules, energies: np.ndarray) -> np.ndarray:
    """U0, U, H and G less the free atoms', (n_molecules, 4) float64, from hartree to kcal/mol.

    The source table of PyG prints them with nine decimals, which a six-decimal energy times
    627.509 needs; rounding to nine removes what binary arithmetic adds.
    """
    molecule = np.repeat(np.arange(len(molecules.n_atoms)), molecules.n_atoms)
    free = np.zeros_like(energies)
    for z, reference in zip(ELEMENTS.values(), REFERENCE_ATOMS_HARTREE, strict=True):
        count = np.bincount(molecule[molecules.z == z], minlength=len(free))
        free += count[:, None] * reference
    return np.round((energies - free) * KCALMOL_PER_HARTREE, 9)


# --- in the worker processes --------------------------------------------------------------------


def graphs(molecules: Molecules) -> Graphs:
    """Find the bonds, write each molecule's block and read it as PyG does.

    Raises
    ------
    DataError
        If the coordinates and the SMILES of a molecule do not tell of the same atoms.
    """
    from rdkit import Chem, RDLogger

    RDLogger.DisableLog("rdApp.*")
    index, smiles, n_atoms, z, position = molecules
    end = np.cumsum(n_atoms)
    molecule = np.repeat(np.arange(len(n_atoms)), n_atoms)
    heavy, hydrogen = np.flatnonzero(z > 1), np.flatnonzero(z == 1)
    n_heavy = np.bincount(molecule[heavy], minlength=len(n_atoms))
    heavy_end = np.cumsum(n_heavy)

    # The nearest heavy atom of the same molecule, all hydrogens at once: one row of heavy atoms
    # a molecule, with an atom at infinity where it has fewer than the others.
    row = np.full((len(n_atoms), n_heavy.max(), 3), np.inf)
    in_row = np.arange(len(heavy)) - (heavy_end - n_heavy)[molecule[heavy]]
    row[molecule[heavy], in_row] = position[heavy]
    distance2 = ((position[hydrogen, None] - row[molecule[hydrogen]]) ** 2).sum(axis=-1)
    owner = heavy[(heavy_end - n_heavy)[molecule[hydrogen]] + distance2.argmin(axis=1)]
    n_hydrogens = np.bincount(owner, minlength=len(z))
    hydrogen_end = np.cumsum(n_atoms - n_heavy)

    symbol_of = {number: symbol for symbol, number in ELEMENTS.items()}
    all_smiles, all_positions, all_bonds = [], [], []
    for i in range(len(n_atoms)):
        first = int(end[i] - n_atoms[i])
        span = slice(first, first + int(n_atoms[i]))
        at = (heavy[heavy_end[i] - n_heavy[i] : heavy_end[i]] - first).tolist()
        # The bonds stay as the source draws them: the full sanitization would redraw the double
        # bonds of aromatic rings. The clean-up writes N(=O)=O as [N+](=O)[O-].
        flat = Chem.MolFromSmiles(smiles[i], sanitize=False)
        Chem.SanitizeMol(flat, Chem.SANITIZE_CLEANUP | Chem.SANITIZE_PROPERTIES)
        atoms = list(flat.GetAtoms())
        drawn = [
            (bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), int(bond.GetBondType()))
            for bond in flat.GetBonds()
        ]
        expected = [(atom.GetAtomicNum(), atom.GetTotalNumHs()) for atom in atoms]
        elements, counts = z[span].tolist(), n_hydrogens[span].tolist()
        found = [(elements[k], counts[k]) for k in at]
        if found != expected:
            order = place(expected, drawn, found, position[span][at])
            if order is None:
                raise DataError(
                    f"gdb_{index[i]}, {smiles[i]}: expected heavy atoms (atomic number, number of "
                    f"hydrogens) {expected}, found {found} in the coordinates: the source is "
                    "damaged"
                )
            at = [at[k] for k in order]
        bonds = [(at[a], at[b], order) for a, b, order in drawn]
        mine = slice(hydrogen_end[i] - (n_atoms[i] - n_heavy[i]), hydrogen_end[i])
        owners, hydrogens = (owner[mine] - first).tolist(), (hydrogen[mine] - first).tolist()
        bonds += [(a, b, 1) for a, b in zip(owners, hydrogens, strict=True)]
        charges = [(k, atom.GetFormalCharge()) for k, atom in zip(at, atoms, strict=True)]
        block = molecule_block(
            f"gdb_{index[i]}",
            [symbol_of[number] for number in elements],
            position[span].tolist(),
            bonds,
            [(k, charge) for k, charge in charges if charge],
        )
        mol = Chem.MolFromMolBlock(block, sanitize=False, removeHs=False)
        all_smiles.append(Chem.MolToSmiles(mol, isomericSmiles=True))
        all_positions.append(mol.GetConformer().GetPositions())
        all_bonds += [(first + a, first + b, order) for a, b, order in bonds]
    return Graphs(
        all_smiles,
        np.concatenate(all_positions).astype(np.float32),
        np.array(all_bonds, dtype=np.int64).reshape(-1, 3),
    )


def place(
    expected: list[tuple[int, int]],
    bonds: list[tuple[int, int, int]],
    found: list[tuple[int, int]],
    position: np.ndarray,
) -> list[int] | None:
    """Which atom found is which atom expected, when they do not stand in the same order.

    They do in all of QM9 but six molecules, five of them chains with triple bonds.

    Parameters
    ----------
    expected, found : list of (atomic number, number of hydrogens)
    bonds : list of (atom, atom, order)
        Between expected atoms.
    position : (len(found), 3) float64, angstrom

    Returns
    -------
    list of int or None
        For each atom expected, one found that is the same, as long as no bond is longer than
        ``LONGEST_BOND_ANGSTROM``. None if there is no such order.
    """
    distance = np.sqrt(((position[:, None] - position[None]) ** 2).sum(axis=-1))
    near = distance < LONGEST_BOND_ANGSTROM

    def extend(chosen: list[int]) -> list[int] | None:
        k = len(chosen)
        if k == len(expected):
            return chosen
        before = [min(a, b) for a, b, _ in bonds if max(a, b) == k]
        for candidate in range(len(found)):
            fits = candidate not in chosen and found[candidate] == expected[k]
            if fits and all(near[candidate, chosen[j]] for j in before):
                whole = extend([*chosen, candidate])
                if whole is not None:
                    return whole
        return None

    return extend([]) if len(found) == len(expected) else None


def molecule_block(
    name: str,
    symbols: list[str],
    position: list[list[float]],
    bonds: list[tuple[int, int, int]],
    charges: list[tuple[int, int]],
) -> str:
    """The text of one molecule as in ``gdb9.sdf``; atoms in ``bonds``, ``charges`` from 0.

    Coordinates (angstrom) get four decimals, as there.

    Source: the V2000 format in BIOVIA's "CTfile Formats".
    """
    lines = [f"{name}\n  qm9lab            3D\n\n"]  # "3D" stands in columns 21 and 22
    lines.append(f"{len(symbols):3d}{len(bonds):3d}  0  0  0  0  0  0  0  0999 V2000\n")
    lines += [
        f"{x:10.4f}{y:10.4f}{z:10.4f} {symbol:<3} 0  0  0  0  0  0  0  0  0  0  0  0\n"
        for symbol, (x, y, z) in zip(symbols, position, strict=True)
    ]
    lines += [f"{a + 1:3d}{b + 1:3d}{order:3d}  0\n" for a, b, order in bonds]
    for k in range(0, len(charges), 8):  # a line holds eight
        some = charges[k : k + 8]
        lines.append(f"M  CHG{len(some):3d}" + "".join(f"{a + 1:4d}{q:4d}" for a, q in some) + "\n")
    return "".join(lines) + "M  END\n"


def serve() -> None:
    """Read ``Molecules`` from standard input, write ``Graphs`` to standard output, to its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, who ends us
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)  # what a library prints must not stand among the answers
        while True:
            try:
                molecules = pickle.load(sys.stdin.buffer)
            except (EOFError, pickle.UnpicklingError):  # the parent was killed
                return
            try:
                answer = graphs(molecules)
            except Exception as error:
                answer = error
            try:
                pickle.dump(answer, out)
                out.flush()
            except BrokenPipeError:  # likewise
                os._exit(1)


# --- in the parent ------------------------------------------------------------------------------


def build(source: Source, progress: bool) -> tuple[dict, dict, type]:
    """The whole data set in PyG's format for ``InMemoryDataset.save``.

    Returns
    -------
    data : dict of what all molecules have, end to end
    slices : dict of (n_molecules + 1,) int64, where each molecule begins
    class of one molecule

    Raises
    ------
    DataError
        If the source is missing, changed or at odds with itself.
    """
    from tqdm.auto import tqdm

    molecules, targets = read_source(source)
    n_molecules = len(molecules.n_atoms)
    parts, n_atoms_before = [], 0
    bar = tqdm(
        total=n_molecules,
        desc="building QM9",
        unit=" molecules",
        disable=not progress,
        mininterval=0.5,
    )
    with bar:
        for part in in_workers(list(chunks(molecules))):
            part.bonds[:, :2] += n_atoms_before
            n_atoms_before += len(part.position)
            parts.append(part)
            bar.update(len(part.smiles))
    whole = Graphs(
        [smiles for part in parts for smiles in part.smiles],
        np.concatenate([part.position for part in parts]),
        np.concatenate([part.bonds for part in parts]),
    )
    return collate(molecules, whole, targets)


def chunks(molecules: Molecules) -> Iterator[Molecules]:
    """The molecules, a thousand at a time."""
    atom_end = np.concatenate([[0], np.cumsum(molecules.n_atoms)])
    n_molecules = len(molecules.n_atoms)
    for start in range(0, n_molecules, MOLECULES_PER_CHUNK):
        stop = min(start + MOLECULES_PER_CHUNK, n_molecules)
        some, atoms = slice(start, stop), slice(atom_end[start], atom_end[stop])
        index, smiles, n_atoms, z, position = molecules
        yield Molecules(index[some], smiles[some], n_atoms[some], z[atoms], position[atoms])


def in_workers(jobs: list[Molecules]) -> Iterator[Graphs]:
    """``map(graphs, jobs)``, in order, in as many processes as there are cores for us."""
    try:
        n_cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        n_cores = os.cpu_count() or 1
    n_workers = min(n_cores, N_WORKERS_MAX, len(jobs))
    free: queue.SimpleQueue[subprocess.Popen] = queue.SimpleQueue()

    def ask(job: Molecules) -> Graphs:
        worker = free.get()
        try:
            pickle.dump(job, worker.stdin)
            worker.stdin.flush()
            answer = pickle.load(worker.stdout)
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            worker.kill()
            raise DataError(
                f"expected an answer from worker process {worker.pid}, found that it ended "
                f"(exit status {worker.wait()}): make sure that some 500 MiB of memory are free "
                f"and run `{REBUILD}` again"
            ) from error
        finally:
            free.put(worker)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with worker_processes(n_workers) as workers, ThreadPoolExecutor(n_workers) as threads:
        for worker in workers:
            free.put(worker)
        try:
            yield from threads.map(ask, jobs)
        except BaseException:  # do not wait for the answers under way
            for worker in workers:
                worker.kill()
            raise


@contextmanager
def worker_processes(n_workers: int) -> Iterator[list[subprocess.Popen]]:
    """Processes that run ``serve``; they end with the block, or when this process is killed."""
    # -P keeps the current folder, whose files may be named like modules, off their path.
    # Not with -m, which would name the classes of what goes through the pipes __main__.Graphs.
    command = [sys.executable, "-P", "-c", f"from {__name__} import serve; serve()"]
    path = [str(Path(__file__).resolve().parents[2]), *filter(None, sys.path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    workers: list[subprocess.Popen] = []
    try:
        for _ in range(n_workers):
            pipe = subprocess.PIPE
            workers.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment))
        yield workers
    finally:
        for worker in workers:
            worker.kill()  # it has no work and holds nothing
            worker.stdout.close()
            try:
                worker.stdin.close()
            except OSError:  # what was not sent yet has nowhere to go
                pass
            worker.wait()


def collate(molecules: Molecules, whole: Graphs, targets: np.ndarray) -> tuple[dict, dict, type]:
    """All molecules' tensors, end to end, with the values that PyG's ``QM9.process`` gives."""
    import torch
    from torch_geometric.data import Data
    from torch_geometric.datasets.qm9 import conversion

    n_molecules, n_atoms, z = len(molecules.n_atoms), len(molecules.z), molecules.z
    atom_start = np.cumsum(molecules.n_atoms) - molecules.n_atoms
    molecule = np.repeat(np.arange(n_molecules), molecules.n_atoms)

    # Each bond stands twice, sorted by (row, column) in each molecule; numbered through all
    # molecules, atoms sort by molecule at the same time.
    first, second, order = whole.bonds.T
    row, col = np.concatenate([first, second]), np.concatenate([second, first])
    edges = np.argsort(row * n_atoms + col)
    row, col, order = row[edges], col[edges], np.concatenate([order, order])[edges]

    # 5 columns say the element; then atomic number, aromatic, sp, sp2, sp3, number of hydrogens.
    # PyG reads without sanitization, so RDKit has found nothing aromatic and no hybridization.
    x = np.zeros((n_atoms, 11), dtype=np.float32)
    column_of_z = {number: column for column, number in enumerate(ELEMENTS.values())}
    x[np.arange(n_atoms), [column_of_z[number] for number in z.tolist()]] = 1
    x[:, 5] = z
    x[:, 10] = np.bincount(col[z[row] == 1], minlength=n_atoms)
    edge_attr = np.zeros((len(row), 4), dtype=np.float32)  # single, double, triple, aromatic
    edge_attr[np.arange(len(row)), order - 1] = 1

    start = atom_start[molecule[row]]
    # PyG's arithmetic: decimals to float32 first, then times a float32 factor.
    y = torch.from_numpy(targets).to(torch.float32) * conversion.view(1, -1)
    data = Data(
        x=torch.from_numpy(x),
        edge_index=torch.from_numpy(np.stack([row - start, col - start])),
        edge_attr=torch.from_numpy(edge_attr),
        y=y,
        pos=torch.from_numpy(whole.position),
        z=torch.from_numpy(z.copy()),
        smiles=whole.smiles,
        name=[f"gdb_{index}" for index in molecules.index],
        idx=torch.from_numpy(molecules.index - 1),
    ).to_dict()

    def slices(counts: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.concatenate([[0], np.cumsum(counts)]))

    per_atom = molecules.n_atoms
    per_edge = np.bincount(molecule[row], minlength=n_molecules)
    counts = {"edge_index": per_edge, "edge_attr": per_edge}
    counts |= {"x": per_atom, "pos": per_atom, "z": per_atom}
    one = np.ones(n_molecules, dtype=np.int64)
    return data, {key: slices(counts.get(key, one)) for key in data}, Data
