"""QM9 from its source to the tensors of PyTorch Geometric's (PyG's) ``QM9``.

PyG reads ``gdb9.sdf``, a file of molecule blocks. The CSV files hold the same molecules without
bonds to hydrogen. So we write each block in memory and read it with RDKit in the way PyG does.
Heavy-atom bonds come from the SMILES. Each hydrogen is bonded to its nearest heavy atom, and the
number of hydrogens of each atom is checked against the SMILES. Worker processes do this. The rest
is NumPy over all atoms at once.

Source: torch_geometric/datasets/qm9.py (2.8.1).
"""

import contextlib
import io
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .data_folder import REBUILD
from .source import ELEMENTS, DataError, Molecules, Source, read_source

if TYPE_CHECKING:
    import torch

MOLECULES_PER_CHUNK = 500
N_WORKERS_MAX = 8

Tensors = tuple[dict[str, Any], dict[str, "torch.Tensor"], type]
"""What PyG's ``InMemoryDataset.save`` writes: the fields of all molecules end to end; where each
molecule begins in each field, (n_molecules + 1,) int64; and the class of one molecule."""

OTHER_ORDER = {
    23: [2, 1, 0, 3],
    24: [2, 0, 1, 3],
    486: [4, 2, 1, 0, 3, 5],
    52466: [8, 7, 6, 5, 4, 3, 2, 1, 0],
    59818: [2, 1, 3, 0, 4, 5, 6, 7, 8],
    133487: [8, 7, 0, 1, 2, 3, 4, 5, 6],
}
"""Number in ``gdb_NNN`` to where in the coordinates each heavy atom of the SMILES is, for the
molecules whose atoms have another order there."""


class Graphs(NamedTuple):
    """What RDKit reads from the blocks of some molecules, end to end."""

    smiles: list[str]  # with explicit hydrogens and stereo marks
    position: np.ndarray  # (n_atoms in all, 3) float32, angstrom, of four decimals
    bonds: np.ndarray  # (n_bonds in all, 3) int64: two atoms, numbered through, and order 1 to 3


def saved(source: Source, progress: bool) -> memoryview:
    """The whole data set as the bytes of its file."""
    import torch

    f = io.BytesIO()
    torch.save(build(source, progress), f)
    return f.getbuffer()


def build(source: Source, progress: bool) -> Tensors:
    """The whole data set; DataError if the source is missing, changed or contradicts itself."""
    from tqdm.auto import tqdm

    molecules, targets = read_source(source)
    smiles, positions, bonds, n_atoms = [], [], [], 0
    n = len(molecules.n_atoms)
    with tqdm(total=n, desc="building QM9", unit=" molecules", disable=not progress) as bar:
        for part in in_workers(list(chunks(molecules))):
            part.bonds[:, :2] += n_atoms
            n_atoms += len(part.position)
            smiles += part.smiles
            positions.append(part.position)
            bonds.append(part.bonds)
            bar.update(len(part.smiles))
    whole = Graphs(smiles, np.concatenate(positions), np.concatenate(bonds))
    return collate(molecules, whole, targets)


def chunks(molecules: Molecules) -> Iterator[Molecules]:
    """The molecules, ``MOLECULES_PER_CHUNK`` at a time."""
    index, smiles, n_atoms, z, position = molecules
    atom_end = np.concatenate([[0], np.cumsum(n_atoms)])
    for start in range(0, len(n_atoms), MOLECULES_PER_CHUNK):
        stop = min(start + MOLECULES_PER_CHUNK, len(n_atoms))
        some, atoms = slice(start, stop), slice(atom_end[start], atom_end[stop])
        yield Molecules(index[some], smiles[some], n_atoms[some], z[atoms], position[atoms])


def in_pyg_units(targets: np.ndarray) -> "torch.Tensor":
    """The source's targets as PyG's ``y``: first to float32, then times a float32 factor."""
    import torch
    from torch_geometric.datasets.qm9 import conversion

    return torch.from_numpy(targets).to(torch.float32) * conversion.view(1, -1)


def collate(molecules: Molecules, whole: Graphs, targets: np.ndarray) -> Tensors:
    """All molecules' tensors, with the values that PyG's ``QM9.process`` gives."""
    import torch
    from torch_geometric.data import Data

    n_molecules, n_atoms, z = len(molecules.n_atoms), len(molecules.z), molecules.z
    atom_start = np.cumsum(molecules.n_atoms) - molecules.n_atoms
    molecule = np.repeat(np.arange(n_molecules), molecules.n_atoms)

    # Each bond stands twice, sorted by (row, column) in each molecule. Atoms are numbered through
    # all molecules, so this sorts by molecule at the same time.
    first, second, order = whole.bonds.T
    row, col = np.concatenate([first, second]), np.concatenate([second, first])
    edges = np.argsort(row * n_atoms + col)
    row, col, order = row[edges], col[edges], np.concatenate([order, order])[edges]

    # Columns of x: 5 for the element, then atomic number, aromatic, sp, sp2, sp3, number of
    # hydrogens. PyG reads without sanitization, so RDKit has found nothing aromatic and no
    # hybridization.
    x = np.zeros((n_atoms, 11), dtype=np.float32)
    x[:, :5] = z[:, None] == list(ELEMENTS.values())
    x[:, 5] = z
    x[:, 10] = np.bincount(col[z[row] == 1], minlength=n_atoms)
    # Columns of edge_attr: single, double, triple, aromatic.
    edge_attr = (order[:, None] == [1, 2, 3, 4]).astype(np.float32)

    start = atom_start[molecule[row]]
    data = Data(
        x=torch.from_numpy(x),
        edge_index=torch.from_numpy(np.stack([row - start, col - start])),
        edge_attr=torch.from_numpy(edge_attr),
        y=in_pyg_units(targets),
        pos=torch.from_numpy(whole.position),
        z=torch.from_numpy(z.copy()),
        smiles=whole.smiles,
        name=[f"gdb_{index}" for index in molecules.index],
        idx=torch.from_numpy(molecules.index - 1),
    ).to_dict()

    slices = {}
    for name in data:
        counts = np.ones(n_molecules, dtype=np.int64)
        if name in ("x", "pos", "z"):
            counts = molecules.n_atoms
        elif name in ("edge_index", "edge_attr"):
            counts = np.bincount(molecule[row], minlength=n_molecules)
        slices[name] = torch.from_numpy(np.concatenate([[0], np.cumsum(counts)]))
    return data, slices, Data


def graphs(molecules: Molecules) -> Graphs:
    """Find the bonds, write each molecule's block and read it as PyG does.

    DataError if the coordinates and the SMILES of a molecule have different atoms.
    """
    from rdkit import Chem, RDLogger

    RDLogger.DisableLog("rdApp.*")
    numbers = molecules.z.tolist()
    hydrogen, neighbour = hydrogens(molecules)
    n_hydrogens = np.bincount(neighbour, minlength=len(numbers)).tolist()
    to_hydrogen = iter(zip(neighbour.tolist(), hydrogen.tolist(), strict=True))
    symbol_of = {number: symbol for symbol, number in ELEMENTS.items()}
    atom_lines = [
        f"{x:10.4f}{y:10.4f}{z:10.4f} {symbol_of[number]:<3} 0  0  0  0  0  0  0  0  0  0  0  0\n"
        for number, (x, y, z) in zip(numbers, molecules.position.tolist(), strict=True)
    ]
    all_smiles, all_positions, all_bonds = [], [], []
    last = 0
    for index, smiles, n_atoms in zip(*molecules[:3], strict=True):
        first, last = last, last + int(n_atoms)
        heavy = [k for k in range(first, last) if numbers[k] > 1]
        if index in OTHER_ORDER:
            heavy = [heavy[k] for k in OTHER_ORDER[index]]
        # The bonds stay as the source draws them: the full sanitization would redraw the double
        # bonds of aromatic rings. The clean-up writes N(=O)=O as [N+](=O)[O-].
        flat = Chem.MolFromSmiles(smiles, sanitize=False)
        Chem.SanitizeMol(flat, Chem.SANITIZE_CLEANUP | Chem.SANITIZE_PROPERTIES)
        # By number: RDKit's own iterators make the whole build a tenth slower.
        atoms = [flat.GetAtomWithIdx(k) for k in range(flat.GetNumAtoms())]
        expected = [(atom.GetAtomicNum(), atom.GetTotalNumHs()) for atom in atoms]
        found = [(numbers[k], n_hydrogens[k]) for k in heavy]
        if found != expected:
            raise DataError(
                f"gdb_{index}, {smiles}: expected heavy atoms (atomic number, number of hydrogens) "
                f"{expected}, found {found} in the coordinates: the source is damaged"
            )
        bonds = [
            (heavy[bond.GetBeginAtomIdx()], heavy[bond.GetEndAtomIdx()], int(bond.GetBondType()))
            for bond in map(flat.GetBondWithIdx, range(flat.GetNumBonds()))
        ]
        bonds += [(*next(to_hydrogen), 1) for _ in range(last - first - len(heavy))]
        charges = {k - first: atom.GetFormalCharge() for k, atom in zip(heavy, atoms, strict=True)}
        block = molecule_block(
            f"gdb_{index}",
            atom_lines[first:last],
            [(a - first, b - first, order) for a, b, order in bonds],
            [(k, charge) for k, charge in charges.items() if charge],
        )
        mol = Chem.MolFromMolBlock(block, sanitize=False, removeHs=False)
        all_smiles.append(Chem.MolToSmiles(mol, isomericSmiles=True))
        all_positions.append(mol.GetConformer().GetPositions())
        all_bonds += bonds
    return Graphs(
        all_smiles,
        np.concatenate(all_positions).astype(np.float32),
        np.array(all_bonds, dtype=np.int64).reshape(-1, 3),
    )


def hydrogens(molecules: Molecules) -> tuple[np.ndarray, np.ndarray]:
    """All hydrogens and the heavy atom nearest to each, numbers of atoms, (n_hydrogens,) int64."""
    _, _, n_atoms, z, position = molecules
    molecule = np.repeat(np.arange(len(n_atoms)), n_atoms)
    heavy, hydrogen = np.flatnonzero(z > 1), np.flatnonzero(z == 1)
    n_heavy = np.bincount(molecule[heavy], minlength=len(n_atoms))
    first = np.cumsum(n_heavy) - n_heavy
    # One row of heavy atoms a molecule, filled up with atoms at infinity.
    row = np.full((len(n_atoms), n_heavy.max(), 3), np.inf)
    row[molecule[heavy], np.arange(len(heavy)) - first[molecule[heavy]]] = position[heavy]
    distance2 = ((position[hydrogen, None] - row[molecule[hydrogen]]) ** 2).sum(axis=-1)
    return hydrogen, heavy[first[molecule[hydrogen]] + distance2.argmin(axis=1)]


def molecule_block(
    name: str, atom_lines: list[str], bonds: list[tuple[int, ...]], charges: list[tuple[int, int]]
) -> str:
    """The text of one molecule as in ``gdb9.sdf``; atoms in ``bonds``, ``charges`` from 0.

    Source: the V2000 format in BIOVIA's "CTfile Formats". "3D" stands in columns 21 and 22.
    """
    counts = f"{len(atom_lines):3d}{len(bonds):3d}  0  0  0  0  0  0  0  0999 V2000\n"
    lines = [f"{name}\n  qm9lab            3D\n\n", counts, *atom_lines]
    lines += [f"{a + 1:3d}{b + 1:3d}{order:3d}  0\n" for a, b, order in bonds]
    for k in range(0, len(charges), 8):  # a line holds eight
        some = charges[k : k + 8]
        lines.append(f"M  CHG{len(some):3d}" + "".join(f"{a + 1:4d}{q:4d}" for a, q in some) + "\n")
    return "".join(lines) + "M  END\n"


def in_workers(jobs: list[Molecules]) -> Iterator[Graphs]:
    """``map(graphs, jobs)``, in order, in as many processes as there are cores for us.

    The workers end with the loop over the results or, when this process is killed, at the next one.
    """
    ours = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count())
    n_workers = min(len(ours), N_WORKERS_MAX, len(jobs))
    # The current folder, whose files may be named like modules, is not on the path (-P). Not with
    # -m, which would name the classes of what goes through the pipes __main__.Graphs.
    path = [str(Path(__file__).resolve().parents[2]), *filter(None, sys.path)]
    code = f"import sys; sys.path[:] = {path}; from {__name__} import serve; serve()"
    command, pipe = [sys.executable, "-P", "-c", code], subprocess.PIPE
    workers: list[subprocess.Popen] = []
    try:
        for _ in range(n_workers):
            workers.append(subprocess.Popen(command, stdin=pipe, stdout=pipe))
        for k, worker in enumerate(workers):
            # OSError: it has ended already, as we report below.
            with contextlib.suppress(OSError), worker.stdin:
                pickle.dump(jobs[k::n_workers], worker.stdin)
        for k in range(len(jobs)):
            yield _next_result(workers[k % n_workers])
    finally:
        for worker in workers:
            # It has no work or is not wanted, and holds nothing. What it has not read is lost.
            with contextlib.suppress(OSError), worker:  # closes the pipes and waits
                worker.kill()


def _next_result(worker: subprocess.Popen) -> Graphs:
    try:
        result = pickle.load(worker.stdout)
    except (EOFError, OSError, pickle.UnpicklingError) as error:
        worker.kill()
        raise DataError(
            f"expected a result from worker process {worker.pid}, found that it ended (exit status "
            f"{worker.wait()}): make sure that 1.5 GiB of memory are free and run `{REBUILD}` again"
        ) from error
    if isinstance(result, Exception):
        raise result
    return result


def serve() -> None:
    """A worker: a list of ``Molecules`` from standard input, their ``Graphs`` to its output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not mix with the results
    try:
        for molecules in pickle.load(sys.stdin.buffer):
            try:
                result = graphs(molecules)
            except Exception as error:
                result = error
            pickle.dump(result, out)
            out.flush()
    except (EOFError, pickle.UnpicklingError, BrokenPipeError):  # the parent was killed
        os._exit(1)
