"""QM9 from its source to the tensors of PyTorch Geometric's (PyG's) ``QM9``.

PyG reads ``gdb9.sdf`` with RDKit. The CSV files hold the same molecules without bonds to hydrogen.
So we have RDKit put each molecule together: bonds between heavy atoms from the SMILES, a bond of
each hydrogen to its nearest heavy atom, stereo marks from the coordinates, as in PyG. The number of
hydrogens of each atom is checked against the SMILES. Worker processes do this. The rest is NumPy
over all atoms at once.

Source: torch_geometric/datasets/qm9.py (2.8.1).
"""

import contextlib
import importlib
import io
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
    """What RDKit finds in some molecules, end to end."""

    smiles: list[str]  # with explicit hydrogens and stereo marks
    # (3, n_edges in all) int64: two atoms, numbered through, and the bond's order, 1 to 3. Each
    # bond stands twice, and each molecule's are sorted by the two atoms.
    edges: np.ndarray


def saved(tensors: Tensors) -> memoryview:
    """The whole data set as the bytes of its file."""
    import torch

    f = io.BytesIO()
    torch.save(tensors, f)
    return f.getbuffer()


def build(source: Source, progress: bool) -> Tensors:
    """The whole data set; DataError if the source is missing, changed or contradicts itself."""
    from tqdm.auto import tqdm

    molecules, targets = read_source(source)
    smiles, edges, n_atoms = [], [], 0
    n = len(molecules.n_atoms)
    parts = list(chunks(molecules))
    bar = tqdm(total=n, desc="building QM9", unit=" molecules", disable=not progress)
    with bar, ThreadPoolExecutor(1) as background:
        # PyG takes seconds to import: meanwhile.
        background.submit(importlib.import_module, "torch_geometric.datasets.qm9")
        for part, found in zip(parts, in_workers(parts), strict=True):
            found.edges[:2] += n_atoms
            n_atoms += len(part.z)
            smiles += found.smiles
            edges.append(found.edges)
            bar.update(len(found.smiles))
    return collate(molecules, Graphs(smiles, np.concatenate(edges, axis=1)), targets)


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

    row, col, order = whole.edges

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
        pos=torch.from_numpy(molecules.position.astype(np.float32)),
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
    """Put each molecule together from its SMILES and its coordinates, as PyG reads it.

    DataError if the coordinates and the SMILES of a molecule have different atoms.
    """
    from rdkit import Chem, RDLogger

    RDLogger.DisableLog("rdApp.*")
    _, _, n_atoms, z, position = molecules
    hydrogen, neighbour = hydrogens(molecules)
    order = rdkit_order(molecules, hydrogen, neighbour)
    n_hydrogens = np.bincount(neighbour, minlength=len(z))
    atoms, position = list(zip(z[order], n_hydrogens[order], strict=True)), position[order]
    all_smiles, bonds = [], []
    for index, smiles, n, stop in zip(*molecules[:3], np.cumsum(n_atoms), strict=True):
        # The bonds stay as the source draws them: the full sanitization would redraw the double
        # bonds of aromatic rings. The clean-up writes N(=O)=O as [N+](=O)[O-].
        mol = Chem.MolFromSmiles(smiles, sanitize=False)
        Chem.SanitizeMol(mol, Chem.SANITIZE_CLEANUP | Chem.SANITIZE_PROPERTIES)
        # By number: RDKit's own iterators make the whole build a tenth slower.
        named = map(mol.GetAtomWithIdx, range(mol.GetNumAtoms()))
        expected = [(atom.GetAtomicNum(), atom.GetTotalNumHs()) for atom in named]
        start = stop - n
        found = [atom for atom in atoms[start:stop] if atom[0] > 1]
        if found != expected:
            raise DataError(
                f"gdb_{index}, {smiles}: expected heavy atoms (atomic number, number of hydrogens) "
                f"{expected}, found {found} in the coordinates: the source is damaged"
            )
        bond_order = Chem.GetAdjacencyMatrix(mol, useBO=True)
        first, second = bond_order.nonzero()
        bonds.append((order[start + first], order[start + second], bond_order[first, second]))
        mol = Chem.AddHs(mol)
        conformer = Chem.Conformer(int(n))
        conformer.SetPositions(position[start:stop])
        mol.AddConformer(conformer)
        Chem.AssignAtomChiralTagsFromStructure(mol)
        Chem.DetectBondStereochemistry(mol)
        all_smiles.append(Chem.MolToSmiles(mol))
    single = np.ones(len(hydrogen))
    bonds += [(hydrogen, neighbour, single), (neighbour, hydrogen, single)]
    edges = [np.concatenate(part).astype(np.int64) for part in zip(*bonds, strict=True)]
    return Graphs(all_smiles, np.stack(edges)[:, np.lexsort(edges[1::-1])])


def rdkit_order(molecules: Molecules, hydrogen: np.ndarray, neighbour: np.ndarray) -> np.ndarray:
    """The atoms as RDKit has them after adding hydrogens to a SMILES, (n_atoms in all,) int64.

    Each molecule's heavy atoms come first, as the SMILES names them. The hydrogens follow in the
    order of their heavy atoms.
    """
    index, _, n_atoms, z, _ = molecules
    molecule = np.repeat(np.arange(len(n_atoms)), n_atoms)
    rank = np.arange(len(z))
    for k in np.flatnonzero(np.isin(index, list(OTHER_ORDER))):
        heavy = np.flatnonzero((molecule == k) & (z > 1))
        rank[heavy[OTHER_ORDER[index[k]]]] = heavy
    rank[hydrogen] = rank[neighbour]
    return np.lexsort([rank, z == 1, molecule])


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
