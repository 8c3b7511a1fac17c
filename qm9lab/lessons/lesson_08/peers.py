"""The same molecules in other tools: how each writes them, opens them and gets one.

For each tool two functions: ``write_...(molecules, path)``, where ``molecules`` is a
``columns.MappedQM9``, and ``open_...(path)``, which returns a function from a molecule's number to
its nine fields in the order of ``columns.FIELDS``. Lesson 08 prints their code. Each imports its
tool by itself; what is not installed is said not to be available.
"""

import importlib.util
import inspect
import json
import mmap
import operator
import os
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from qm9lab import columns, processes

fields = operator.itemgetter(*columns.FIELDS)


def write_pyg_in_memory(molecules, path):
    from torch_geometric.data import InMemoryDataset

    InMemoryDataset.save(list(molecules), path)


def open_pyg_in_memory(path):
    from torch_geometric.data import InMemoryDataset

    dataset = InMemoryDataset()
    dataset.load(path)
    return lambda k: fields(dataset[k])


def write_pyg_on_disk(molecules, path):
    from torch_geometric.data import OnDiskDataset

    dataset = OnDiskDataset(path, log=False)
    dataset.extend([molecule.clone() for molecule in molecules])
    dataset.close()


def open_pyg_on_disk(path):
    from torch_geometric.data import OnDiskDataset

    dataset = OnDiskDataset(path, log=False)
    return lambda k: fields(dataset[k])


def write_lmdb(molecules, path):
    import lmdb

    with lmdb.open(path, subdir=False, map_size=2**26) as db, db.begin(write=True) as transaction:
        for k in range(len(molecules)):
            value = pickle.dumps(tuple(molecules.columns.molecule(k)))
            transaction.put(b"%06d" % k, value)


def open_lmdb(path):
    import lmdb

    db = lmdb.open(path, subdir=False, readonly=True, lock=False)
    transaction = db.begin(buffers=True)
    return lambda k: pickle.loads(transaction.get(b"%06d" % k))


def write_datasets(molecules, path):
    import datasets

    datasets.disable_progress_bars()
    rows = map(molecules.columns.molecule, range(len(molecules)))
    by_field = {
        name: [value if isinstance(value, str) else np.ravel(value) for value in values]
        for name, values in zip(columns.FIELDS, zip(*rows, strict=True), strict=True)
    }
    datasets.Dataset.from_dict(by_field).save_to_disk(path)


def open_datasets(path):
    import datasets

    table = datasets.load_from_disk(path).with_format("numpy")
    return lambda k: fields(table[k])


def write_npy(molecules, path):
    os.mkdir(path)
    for name in columns.SECTIONS:
        np.save(f"{path}/{name}.npy", molecules.columns[name])


def open_npy(path):
    arrays = {name: np.load(f"{path}/{name}.npy", mmap_mode="r") for name in columns.SECTIONS}

    def rows(name, k):
        ends = columns.OFFSETS.get(columns.SECTIONS[name].rows_of)
        found = arrays[name][slice(*arrays[ends][k : k + 2]) if ends else k]
        return found.T if name == "edge_index" else found

    return lambda k: [rows(name, k) for name in columns.FIELDS]


def write_columns(molecules, path):
    columns.write_arrays(path, {name: molecules.columns[name] for name in columns.SECTIONS})


def open_columns(path):
    with open(path, "rb") as f:
        mm = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
    return columns.Columns(mm).molecule


TOOLS: dict[str, tuple[str, Callable, Callable]] = {
    "PyG InMemoryDataset": ("torch_geometric", write_pyg_in_memory, open_pyg_in_memory),
    "PyG OnDiskDataset": ("torch_geometric", write_pyg_on_disk, open_pyg_on_disk),
    "LMDB, pickled": ("lmdb", write_lmdb, open_lmdb),
    "datasets (Arrow)": ("datasets", write_datasets, open_datasets),
    "np.memmap, .npy": ("numpy", write_npy, open_npy),
    "columns": ("numpy", write_columns, open_columns),
}
"""Name -> package that it needs, how it writes, how it opens."""


class Source(str):
    """Source code, shown as it is."""

    def __repr__(self) -> str:
        return str(self)


def code(*names: str) -> Source:
    """How tools write, open and get: the source of their functions."""
    both = [inspect.getsource(function) for name in names for function in TOOLS[name][1:]]
    return Source("\n".join(both).rstrip())


class Peer(NamedTuple):
    """What one tool cost. All but ``name`` and ``source`` are None where it is not installed.

    Attributes
    ----------
    name : of TOOLS
    get_s : seconds for one random molecule, all of its bytes read, warm; the best of five rounds
    anonymous_bytes, file_bytes : resident memory that opening and 1,000 molecules added; None
        where the system gives no split
    disk_bytes : length of its files
    crc32 : of all bytes of the molecules: the same for tools that hold the same
    source : ``not available here, because ...``, or ""
    """

    name: str
    get_s: float | None
    anonymous_bytes: int | None
    file_bytes: int | None
    disk_bytes: int | None
    crc32: int | None
    source: str


# Each tool writes, and then is measured, in a fork of one process that has imported what all need:
# so the imports are paid once, and no tool finds memory that another has freed. Where there is no
# fork (Windows) they take turns in one process.
SCRIPT = r"""
import json, os, sys, time, zlib
import numpy as np
from qm9lab import columns, measure
from qm9lab.lessons.lesson_08 import peers
from qm9lab.measure import touched
folder, source, names = sys.argv[1], sys.argv[2], sys.argv[3:]
for package in {peers.TOOLS[name][0] for name in names}:
    __import__(package)
molecules = columns.MappedQM9(source)
numbers = np.random.default_rng(8).integers(len(molecules), size=1000).tolist()

def go(get, check=0):
    for k in numbers:
        check = zlib.crc32(touched.every_byte(get(k)), check)
    return check

def one_tool(name):
    path = os.path.join(folder, peers.file_name(name))
    before = measure.resident()
    get = peers.TOOLS[name][2](path)
    check, after = go(get), measure.resident()
    added = [None if a is None else a - b for a, b in zip(after[:2], before[:2])]
    best = 1e9
    for _ in range(5):
        begin = time.perf_counter()
        go(get)
        best = min(best, (time.perf_counter() - begin) / len(numbers))
    return [name, best, *added, peers.size_of(path), check]

def in_fork(act, *args):
    if not hasattr(os, "fork"):
        return act(*args)
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(read_end)
            with open(write_end, "w") as f:
                json.dump(act(*args), f)
            code = 0
        finally:
            os._exit(code)
    os.close(write_end)
    with open(read_end) as f:
        answer = f.read()
    assert os.waitpid(pid, 0)[1] == 0, args
    return json.loads(answer)

for name in names:
    in_fork(peers.TOOLS[name][1], molecules, os.path.join(folder, peers.file_name(name)))
for name in names:
    print(json.dumps(in_fork(one_tool, name)))
"""


def file_name(name: str) -> str:
    """The name of a tool's file or folder."""
    return "".join(c if c.isalnum() else "_" for c in name)


def size_of(path) -> int:
    """Length of a file, or of all files in a folder, in bytes."""
    path = Path(path)
    return sum(p.stat().st_size for p in (path, *path.rglob("*")) if p.is_file())


def measure_all(source, folder, timeout_s: float = 300.0) -> list[Peer]:
    """Write the molecules of an indexed file with each tool, and measure each, in child processes.

    Parameters
    ----------
    source : a file that ``columns.write`` wrote
    folder : where a folder for the tools' files is made, and removed again

    Raises
    ------
    RuntimeError
        If the child fails; with its last words.
    """
    here = [name for name, (package, *_) in TOOLS.items() if importlib.util.find_spec(package)]
    with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as own:
        done = processes.run_script(SCRIPT, own, source, *here, timeout_s=timeout_s)
    if done.returncode != 0:
        raise RuntimeError(
            f"expected a measurement of each tool, found {done.how_it_ended}: {done.last_line}"
        )
    found = [Peer(*json.loads(line), "") for line in done.stdout.splitlines()]
    missing = (
        Peer(name, *[None] * 5, f"not available here, because {package} is not installed")
        for name, (package, *_) in TOOLS.items()
        if name not in here
    )
    return [*found, *missing]


def fastest_first(peers: list[Peer]) -> list[str]:
    """Names of the tools that are installed, by the time of one molecule."""
    there = (peer for peer in peers if not peer.source)
    return [peer.name for peer in sorted(there, key=lambda peer: peer.get_s)]


def table(peers: list[Peer], why_no_split: str = "") -> Source:
    """A line a tool: time, memory, length of its files."""
    head = f"{'':20} {'one molecule':>14} {'owned':>11} {'borrowed':>11} {'on disk':>11}"
    lines = [head]
    for peer in peers:
        if peer.source:
            lines.append(f"{peer.name:20} {peer.source}")
            continue
        sizes = peer.anonymous_bytes, peer.file_bytes, peer.disk_bytes
        words = ("-" if n is None else f"{n / 2**20:,.1f} MiB" for n in sizes)
        lines.append(
            f"{peer.name:20} {1e6 * peer.get_s:>11,.1f} µs " + " ".join(map("{:>11}".format, words))
        )
    if any(p.anonymous_bytes is None and not p.source for p in peers):
        lines.append(f"-: {why_no_split}")
    return Source("\n".join(lines))
