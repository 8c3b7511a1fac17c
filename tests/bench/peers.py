"""The tools that are compared, one class a tool, each in the way that its makers recommend.

Every class writes the same records (``build``), and answers the same questions about them. A file
that is ``k`` times as large is written a piece at a time (``build_scaled``), so that memory does
not limit it. Opening is making an object; ``close`` gives everything back, so that a file can be
made cold again.
"""

import itertools
import json
import mmap
import os
import struct
from pathlib import Path

import numpy as np

from qm9lab import columns, records
from qm9lab.columns import ALIGNMENT_BYTES, FIELDS, SECTIONS, Molecule, Section

U0 = 7
"""The column of ``y`` that is the one property."""

BLOCK = np.empty(1 << 20, np.uint8)
SHAPES = {name: kind.n_columns for name, kind in SECTIONS.items()}
VIEWS = ("y", "z", "pos", "x", "edge_index", "edge_attr")


# What counts as touching ---------------------------------------------------------------------


def touch(molecule: Molecule) -> None:
    """Copy every byte of a molecule's arrays; its number and strings were read when it was made."""
    for view in molecule[1:7]:
        view.tobytes("A")


def touch_all(array: np.ndarray) -> int:
    """Copy every byte of an array into one block of 1 MiB, as ``cat`` does; how many there were."""
    raw, n = array.reshape(-1).view(np.uint8), len(BLOCK)
    for start in range(0, len(raw), n):
        part = raw[start : start + n]
        np.copyto(BLOCK[: len(part)], part)
    return len(raw)


# Records, k times over -----------------------------------------------------------------------


def pieces(arrays, name: str, k: int):
    """A section ``k`` times over, a piece at a time: rows repeat, offsets go on rising."""
    array = arrays[name]
    if not name.endswith("_offsets"):
        yield from itertools.repeat(array, k)
        return
    for copy in range(k):
        yield array[:-1] + copy * array[-1]
    yield array[-1:] * k


def scaled_shape(arrays, name: str, k: int) -> tuple[int, ...]:
    rows, *rest = arrays[name].shape
    return ((rows - 1) * k + 1 if name.endswith("_offsets") else rows * k, *rest)


def molecules(arrays):
    """Every molecule, as views."""
    whole = Arrays(arrays)
    return (whole.molecule(index) for index in range(len(arrays["idx"])))


def make_data(fields):
    """A Data object in the way of ``MappedQM9.get``: no tool waits for the constructor of Data."""
    from torch_geometric.data import Data

    data = Data()
    data._store._mapping.update(fields)
    return data


def data_of(m: Molecule):
    """A Data object over a molecule's own bytes."""
    from torch import from_numpy, tensor

    fields = {name: from_numpy(getattr(m, name)) for name in ("x", "edge_index", "edge_attr")}
    fields |= {"y": from_numpy(m.y)[None], "pos": from_numpy(m.pos), "z": from_numpy(m.z)}
    return make_data(fields | {"smiles": m.smiles, "name": m.name, "idx": tensor([m.idx])})


def of_data(data) -> Molecule:
    """The arrays of a Data object."""
    views = {name: data[name].numpy() for name in VIEWS}
    return Molecule(data.idx.item(), views.pop("y")[0], *views.values(), data.smiles, data.name)


def joined(datas) -> dict:
    """Data objects one after another, as ``Columns.gather`` does it."""
    import torch

    taken = {name: torch.cat([d[name] for d in datas]).numpy() for name in ("idx", *VIEWS[:4])}
    taken["edge_index"] = torch.cat([d.edge_index for d in datas], 1).T.numpy()
    taken["edge_attr"] = torch.cat([d.edge_attr for d in datas]).numpy()
    return taken | {name: [d[name] for d in datas] for name in ("smiles", "name")}


class Arrays:
    """Sections as arrays, wherever they lie, read as a learner would read them."""

    def __init__(self, arrays) -> None:
        self.arrays, self._tensors = arrays, None

    def __len__(self) -> int:
        return len(self.arrays["idx"])

    def molecule(self, i: int) -> Molecule:
        a = self.arrays
        ends, edges = a["atom_offsets"], a["edge_offsets"]
        atom = slice(ends[i], ends[i + 1])
        edge = slice(edges[i], edges[i + 1])
        texts = (
            a[name][a[f"{name}_offsets"][i] : a[f"{name}_offsets"][i + 1]].tobytes().decode()
            for name in ("smiles", "name")
        )
        return Molecule(a["idx"].item(i), a["y"][i], a["z"][atom], a["pos"][atom], a["x"][atom],
                        a["edge_index"][edge].T, a["edge_attr"][edge], *texts)  # fmt: skip

    def data(self, i: int):
        if self._tensors is None:
            import torch

            self._tensors = {n: torch.from_numpy(np.asarray(a)) for n, a in self.arrays.items()}
        t, a = self._tensors, self.arrays
        atom, atom_end = a["atom_offsets"][i : i + 2].tolist()
        edge, edge_end = a["edge_offsets"][i : i + 2].tolist()
        texts = {
            name: a[name][slice(*a[f"{name}_offsets"][i : i + 2])].tobytes().decode()
            for name in ("smiles", "name")
        }
        fields = {name: t[name][atom:atom_end] for name in ("x", "pos", "z")}
        fields |= {"y": t["y"][i : i + 1], "idx": t["idx"][i : i + 1]}
        fields["edge_index"] = t["edge_index"][edge:edge_end].t()
        fields["edge_attr"] = t["edge_attr"][edge:edge_end]
        return make_data(fields | texts)

    def batch(self, indices) -> dict:
        taken, rows = {}, {}
        for name in FIELDS:
            a, rows_of = self.arrays[name], SECTIONS[name].rows_of
            if rows_of == "molecule":
                taken[name] = a[indices]
                continue
            if rows_of not in rows:
                ends = self.arrays[columns.OFFSETS[rows_of]]
                counts = ends[indices + 1] - ends[indices]
                before = np.cumsum(counts) - counts
                numbers = np.arange(counts.sum()) + np.repeat(ends[indices] - before, counts)
                rows[rows_of] = numbers, counts
            taken[name] = a[rows[rows_of][0]]
            if name in ("smiles", "name"):
                text, ends = taken[name].tobytes().decode(), np.cumsum(rows[rows_of][1]).tolist()
                taken[name] = [text[a:b] for a, b in zip([0, *ends], ends, strict=False)]
        return taken

    def column(self, indices) -> np.ndarray:
        return self.arrays["y"][indices, U0]

    def mean(self) -> float:
        return float(self.arrays["y"][:, U0].mean(dtype=np.float64))

    def sweep(self) -> int:
        return sum(touch_all(array) for array in self.arrays.values())


# The tools -----------------------------------------------------------------------------------


class Tool:
    """What every tool says of itself; a question that it cannot answer is None.

    Attributes
    ----------
    name : as in the table
    file_name : of its file, or folder, in the scratch folder
    needs : modules to import
    how : how it is used here
    is_slow : a full pass or a build takes a minute: measured once
    is_held : holds all records in memory, so that memory limits how far it is scaled
    has_data : can make Data objects
    other_way : another way to one molecule, measured beside the recommended one
    """

    name = file_name = how = ""
    needs: tuple[str, ...] = ()
    is_slow = is_held = False
    has_data = True
    other_way = ""

    def close(self) -> None:
        self.__dict__.clear()

    def forget(self) -> None:
        """Drop what earlier questions left in the process."""

    def settle(self) -> None:
        """Pass over all that it maps, so that what comes next makes no page fault."""
        if not self.is_slow:
            self.sweep()

    @classmethod
    def build_other(cls, arrays, path) -> None:
        """Write what the other way to a molecule needs beside the file; most need nothing."""

    @classmethod
    def paths(cls, path) -> list[Path]:
        path = Path(path)
        return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]

    @classmethod
    def for_loader(cls, path, n: int):
        """An object that a DataLoader may send to a worker, and a function that closes it."""
        rows = Lazy(cls, path, n)
        return rows, rows.close


class Lazy:
    """A data set for DataLoader that opens its tool where it is used first."""

    def __init__(self, tool, path, n) -> None:
        self.tool, self.path, self.n, self.opened = tool, path, n, None

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i):
        if self.opened is None:
            self.opened = self.tool(self.path)
        return self.opened.data(i)

    def close(self) -> None:
        if self.opened is not None:
            self.opened.close()


class Ours(Tool):
    name, file_name, needs = "qm9lab.columns", "ours.cols", ()
    how = "Columns over a map (ACCESS_READ); Data from MappedQM9"

    def __init__(self, path, advice: int | None = None) -> None:
        self.path = path
        with open(path, "rb") as f:
            self.mm = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
        if advice is not None:
            self.mm.madvise(advice)
        self.columns = columns.Columns(self.mm, path)
        self.molecule, self.mapped = self.columns.molecule, None

    def __len__(self) -> int:
        return len(self.columns)

    def data(self, i: int):
        if self.mapped is None:
            self.mapped = columns.MappedQM9(self.path)
        return self.mapped[i]

    def settle(self) -> None:
        self.sweep()
        self.data(0)  # maps the file once more
        for name in SECTIONS:
            touch_all(self.mapped.columns[name])

    def batch(self, indices) -> dict:
        return self.columns.gather(indices)

    def column(self, indices) -> np.ndarray:
        return self.columns.gather(indices, ["y"])["y"][:, U0]

    def mean(self) -> float:
        return float(self.columns["y"][:, U0].mean(dtype=np.float64))

    def sweep(self) -> int:
        return sum(touch_all(self.columns[name]) for name in SECTIONS)

    @classmethod
    def for_loader(cls, path, n: int):
        return columns.MappedQM9(path), lambda: None

    @staticmethod
    def build(arrays, path) -> None:
        columns.write_arrays(path, arrays)

    @staticmethod
    def build_scaled(arrays, path, k: int) -> None:
        import zlib

        entries, end = [], ALIGNMENT_BYTES
        with open(path, "wb") as f:
            for name in SECTIONS:
                f.seek(end)
                crc32 = n_bytes = 0
                for piece in pieces(arrays, name, k):
                    raw = piece.reshape(-1).view(np.uint8)
                    crc32, n_bytes = zlib.crc32(raw, crc32), n_bytes + f.write(raw)
                shape = scaled_shape(arrays, name, k)
                entries.append(Section(name, SECTIONS[name].dtype, shape, end, n_bytes, crc32))
                whole = end + n_bytes
                end = -(-whole // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
            f.seek(0)
            f.write(columns.header(entries, len(arrays["idx"]) * k, whole))
            f.flush()
            os.fsync(f.fileno())


class Npy(Arrays, Tool):
    name, file_name = "np.memmap (.npy)", "npy"
    how = "one .npy file a section, np.load(mmap_mode='c')"

    def __init__(self, path) -> None:
        self.path = path
        super().__init__({n: np.load(Path(path, f"{n}.npy"), mmap_mode="c") for n in SECTIONS})

    @classmethod
    def build(cls, arrays, path) -> None:
        os.makedirs(path, exist_ok=True)
        for name in SECTIONS:
            np.save(Path(path, f"{name}.npy"), arrays[name])

    @staticmethod
    def build_scaled(arrays, path, k: int) -> None:
        os.makedirs(path)
        for name in SECTIONS:
            shape = scaled_shape(arrays, name, k)
            head = {"descr": arrays[name].dtype.str, "fortran_order": False, "shape": shape}
            with open(Path(path, f"{name}.npy"), "wb") as f:
                np.lib.format.write_array_header_1_0(f, head)
                for piece in pieces(arrays, name, k):
                    f.write(piece.reshape(-1).view(np.uint8))


class Safetensors(Arrays, Tool):
    name, file_name = "safetensors", "qm9.safetensors"
    needs = ("safetensors.torch", "torch_geometric")
    how = "one tensor a section, strings as bytes with offsets; load_file maps the file"

    def __init__(self, path) -> None:
        from safetensors.torch import load_file

        self.path, tensors = path, load_file(path)
        super().__init__({name: tensor.numpy() for name, tensor in tensors.items()})
        self._tensors = tensors

    @staticmethod
    def build(arrays, path) -> None:
        from safetensors.numpy import save_file

        save_file({name: arrays[name] for name in SECTIONS}, path)

    @staticmethod
    def build_scaled(arrays, path, k: int) -> None:
        codes, head, end = {"<i8": "I64", "<f4": "F32", "|u1": "U8"}, {}, 0
        for name in sorted(SECTIONS, key=lambda name: -arrays[name].itemsize):
            begin, shape = end, scaled_shape(arrays, name, k)
            end += int(np.prod(shape)) * arrays[name].itemsize
            code = codes[arrays[name].dtype.str]
            head[name] = {"dtype": code, "shape": shape, "data_offsets": [begin, end]}
        text = json.dumps(head).encode()
        text += b" " * (-len(text) % 8)
        with open(path, "wb") as f:
            f.write(struct.pack("<Q", len(text)) + text)
            for name in head:
                for piece in pieces(arrays, name, k):
                    f.write(piece.reshape(-1).view(np.uint8))


class Lmdb(Tool):
    name, file_name, needs = "LMDB", "qm9.lmdb", ("lmdb",)
    how = "one value a molecule, its fields as raw bytes; buffers=True, one long read transaction"
    other_way = "get, and one copy of the value: no fields, no strings"

    KEY, HEAD, U0_AT = struct.Struct(">I"), struct.Struct("<HHHHq"), 16 + 4 * U0
    I8, F4 = np.dtype("<i8"), np.dtype("<f4")

    def __init__(self, path) -> None:
        import lmdb

        self.path = path
        self.env = lmdb.open(str(path), subdir=False, readonly=True, lock=False, max_spare_txns=1)
        self.txn = self.env.begin(buffers=True)
        self.get, self.key = self.txn.get, self.KEY.pack

    def close(self) -> None:
        self.txn.abort()
        self.env.close()
        super().close()

    def __len__(self) -> int:
        return self.env.stat()["entries"]

    def molecule(self, i: int) -> Molecule:
        return self.fields(self.get(self.key(i)))

    @classmethod
    def fields(cls, value) -> Molecule:
        n, e, n_smiles, n_name, idx = cls.HEAD.unpack_from(value)
        array, i8, f4 = np.ndarray, cls.I8, cls.F4
        z = 16 + 80  # 19 float32 and 4 bytes that keep the next field aligned
        edge_index = z + 8 * n
        pos = edge_index + 16 * e
        x = pos + 12 * n
        edge_attr = x + 44 * n
        smiles = edge_attr + 16 * e
        name = smiles + n_smiles
        return Molecule(
            idx,
            array((19,), f4, value, 16),
            array((n,), i8, value, z),
            array((n, 3), f4, value, pos),
            array((n, 11), f4, value, x),
            array((2, e), i8, value, edge_index),
            array((e, 4), f4, value, edge_attr),
            str(value[smiles:name], "utf-8"),
            str(value[name : name + n_name], "utf-8"),
        )

    @classmethod
    def value(cls, m: Molecule) -> bytes:
        smiles, name = m.smiles.encode(), m.name.encode()
        head = cls.HEAD.pack(len(m.z), m.edge_index.shape[1], len(smiles), len(name), m.idx)
        arrays = (m.z, m.edge_index, m.pos, m.x, m.edge_attr)
        parts = (head, m.y.tobytes(), bytes(4), *(a.tobytes() for a in arrays), smiles, name)
        return b"".join(parts)

    def other_molecule(self, i: int) -> bytes:
        return bytes(self.get(self.key(i)))

    def data(self, i: int):
        return data_of(self.fields(bytearray(self.get(self.key(i)))))

    def batch(self, indices) -> dict:
        found = [self.molecule(i) for i in indices.tolist()]
        taken = {name: np.concatenate([getattr(m, name) for m in found]) for name in VIEWS[1:4]}
        taken["edge_index"] = np.concatenate([m.edge_index for m in found], 1).T
        taken["edge_attr"] = np.concatenate([m.edge_attr for m in found])
        taken["y"], taken["idx"] = np.stack([m.y for m in found]), np.array([m.idx for m in found])
        return taken | {name: [getattr(m, name) for m in found] for name in ("smiles", "name")}

    def column(self, indices) -> np.ndarray:
        get, key, read, at = self.get, self.key, struct.Struct("<f").unpack_from, self.U0_AT
        return np.array([read(get(key(i)), at)[0] for i in indices.tolist()], np.float32)

    def mean(self) -> float:
        read, at = struct.Struct("<f").unpack_from, self.U0_AT
        values = self.txn.cursor().iternext(keys=False)
        return float(np.fromiter((read(value, at)[0] for value in values), float).mean())

    def sweep(self) -> int:
        return sum(len(bytes(value)) for value in self.txn.cursor().iternext(keys=False))

    @classmethod
    def build(cls, arrays, path) -> None:
        cls.build_scaled(arrays, path, 1)

    @classmethod
    def build_scaled(cls, arrays, path, k: int) -> None:
        import lmdb

        n = len(arrays["idx"])
        # A map only as large as may be needed: a page or more a value, and one for the tree.
        size = k * (n * 3 * mmap.PAGESIZE + (64 << 20))
        with lmdb.open(str(path), subdir=False, map_size=size, lock=False) as env:
            for copy in range(k):
                values = (cls.value(m) for m in molecules(arrays))
                keys = map(cls.KEY.pack, range(copy * n, copy * n + n))
                with env.begin(write=True) as txn:
                    txn.cursor().putmulti(zip(keys, values, strict=True), append=True)


class Records(Tool):
    name, file_name = "the article's records", "qm9.records"
    how = "walked from the first byte; holds only SMILES and U0"
    has_data = False

    def __init__(self, path) -> None:
        self.path = path
        with open(path, "rb") as f:
            self.mm = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)

    def __len__(self) -> int:
        return sum(1 for _ in records.walk(self.mm))

    def molecule(self, i: int):
        _, smiles, value = next(itertools.islice(records.walk(self.mm), i, None))
        return smiles, value

    def batch(self, indices) -> dict:
        """The strings and values of molecules, in one walk to the last of them."""
        wanted, found = set(indices.tolist()), {}
        for i, (_, smiles, value) in enumerate(itertools.islice(records.walk(self.mm),
                                                                max(wanted) + 1)):  # fmt: skip
            if i in wanted:
                found[i] = smiles, value
        smiles, values = zip(*(found[i] for i in indices.tolist()), strict=True)
        return {"smiles": list(smiles), "U0": np.array(values)}

    def column(self, indices) -> np.ndarray:
        return self.batch(indices)["U0"]

    def mean(self) -> float:
        return float(np.fromiter((value for _, _, value in records.walk(self.mm)), float).mean())

    def sweep(self) -> int:
        return sum(len(s) + records.OVERHEAD_BYTES for _, s, _ in records.walk(self.mm))

    @classmethod
    def build(cls, arrays, path) -> None:
        cls.build_scaled(arrays, path, 1)

    @staticmethod
    def build_scaled(arrays, path, k: int) -> None:
        ends, text = arrays["smiles_offsets"].tolist(), arrays["smiles"].tobytes().decode()
        values = arrays["y"][:, U0].tolist()
        spans = zip(ends, ends[1:], values, strict=False)
        whole = b"".join(records.pack(text[a:b], value) for a, b, value in spans)
        with open(path, "wb") as f:
            for _ in range(k):
                f.write(whole)


class Datasets(Tool):
    name, file_name, needs = "datasets (Arrow)", "arrow", ("datasets", "torch_geometric")
    how = "with_format('numpy') for a molecule, 'torch' for Data, 'arrow' for batch, mean and pass"
    other_way = "with_format('arrow'), its columns as NumPy views"

    def __init__(self, path) -> None:
        import datasets

        self.path, self.rows = path, datasets.load_from_disk(str(path))
        self.numpy, self.torch = self.rows.with_format("numpy"), self.rows.with_format("torch")
        self.arrow = self.rows.with_format("arrow")

    def __len__(self) -> int:
        return len(self.rows)

    @staticmethod
    def fields(row) -> Molecule:
        return Molecule(
            row["idx"].item(),
            row["y"],
            row["z"],
            row["pos"].reshape(-1, 3),
            row["x"].reshape(-1, 11),
            row["edge_index"].reshape(-1, 2).T,
            row["edge_attr"].reshape(-1, 4),
            str(row["smiles"]),
            str(row["name"]),
        )

    def molecule(self, i: int) -> Molecule:
        return self.fields(self.numpy[i])

    def other_molecule(self, i: int) -> Molecule:
        table = self.arrow[i]
        row = dict(zip(table.column_names, (c.chunk(0) for c in table.columns), strict=True))
        texts = {name: row[name][0].as_py() for name in ("smiles", "name")}
        views = {name: row[name].flatten().to_numpy() for name in VIEWS}
        molecule = self.fields({"idx": row["idx"].to_numpy()} | views | texts)
        touch(molecule)
        return molecule

    def data(self, i: int):
        row = self.torch[i]
        for name in ("pos", "x", "edge_index", "edge_attr"):
            row[name] = row[name].view(-1, SHAPES[name])
        row |= {"edge_index": row["edge_index"].t(), "y": row["y"][None], "idx": row["idx"][None]}
        return make_data(row)

    def batch(self, indices) -> dict:
        table, taken = self.arrow[indices], {}
        for name in FIELDS:
            column = table.column(name).combine_chunks()
            if name in ("smiles", "name"):
                taken[name] = column.to_pylist()
            elif name == "idx":
                taken[name] = column.to_numpy()
            else:
                taken[name] = column.flatten().to_numpy()
                if SHAPES[name]:
                    taken[name] = taken[name].reshape(-1, SHAPES[name])
        return taken

    def column(self, indices) -> np.ndarray:
        column = self.arrow.select_columns("y")[indices].column("y").combine_chunks()
        return column.flatten().to_numpy().reshape(-1, 19)[:, U0]

    def mean(self) -> float:
        chunks = self.arrow[:].column("y").chunks
        total = sum(c.flatten().to_numpy().reshape(-1, 19)[:, U0].sum(dtype=float) for c in chunks)
        return float(total / len(self))

    def sweep(self) -> int:
        buffers = (b for c in self.arrow[:].columns for part in c.chunks for b in part.buffers())
        return sum(touch_all(np.frombuffer(b, np.uint8)) for b in buffers if b is not None)

    @staticmethod
    def _rows(arrays):
        import pyarrow as pa
        from datasets import Dataset

        def lists(rows_of, name):
            ends = arrays[columns.OFFSETS[rows_of]] * max(SHAPES[name], 1)
            return pa.ListArray.from_arrays(ends.astype("<i4"), arrays[name].reshape(-1))

        def texts(name):
            ends = pa.py_buffer(arrays[f"{name}_offsets"].astype("<i4"))
            n = len(arrays["idx"])
            return pa.StringArray.from_buffers(n, ends, pa.py_buffer(arrays[name]))

        table = {"idx": arrays["idx"], "smiles": texts("smiles"), "name": texts("name")}
        table["y"] = pa.FixedSizeListArray.from_arrays(arrays["y"].reshape(-1), 19)
        table |= {name: lists("atom", name) for name in ("z", "pos", "x")}
        table |= {name: lists("edge", name) for name in ("edge_index", "edge_attr")}
        return Dataset(pa.table(table))

    @classmethod
    def build(cls, arrays, path) -> None:
        cls._rows(arrays).save_to_disk(str(path))

    @classmethod
    def build_scaled(cls, arrays, path, k: int) -> None:
        import datasets

        datasets.concatenate_datasets([cls._rows(arrays)] * k).save_to_disk(str(path))


class InMemory(Tool):
    name, file_name, needs = "PyG InMemoryDataset", "qm9.pt", ("torch_geometric",)
    how = "torch.save of the collated data; first gets, since it keeps each Data that it has made"
    is_held = True

    def __init__(self, path) -> None:
        import torch
        from torch_geometric.data import Data, InMemoryDataset

        self.path, self.rows = path, InMemoryDataset(None)
        # Not rows.load(path), which would also unpickle with weights_only=False.
        data, self.rows.slices, _ = torch.load(path, weights_only=True)
        self.rows.data = Data.from_dict(data)
        self.whole = self.rows._data

    def __len__(self) -> int:
        return len(self.rows)

    def forget(self) -> None:
        self.rows._data_list = None
        self.rows[0]  # makes the list of what it keeps, which has one place for each molecule

    def data(self, i: int):
        return self.rows[i]

    def molecule(self, i: int) -> Molecule:
        return of_data(self.rows[i])

    def batch(self, indices) -> dict:
        return joined([self.rows[i] for i in indices.tolist()])

    def column(self, indices) -> np.ndarray:
        return self.whole.y[indices, U0].numpy()

    def mean(self) -> float:
        return float(self.whole.y.numpy()[:, U0].mean(dtype=np.float64))

    def sweep(self) -> int:
        n_bytes = sum(touch_all(self.whole[name].numpy()) for name in ("idx", *VIEWS))
        return n_bytes + sum(len("".join(self.whole[name])) for name in ("smiles", "name"))

    @classmethod
    def for_loader(cls, path, n: int):
        return cls(path).rows, lambda: None

    @classmethod
    def build(cls, arrays, path) -> None:
        import torch
        from torch_geometric.data import Data

        data = Data(**{name: torch.from_numpy(arrays[name]) for name in ("idx", *VIEWS)})
        data.edge_index = data.edge_index.t().contiguous()
        for name in ("smiles", "name"):
            ends, text = arrays[f"{name}_offsets"].tolist(), arrays[name].tobytes().decode()
            data[name] = [text[a:b] for a, b in zip(ends, ends[1:], strict=False)]
        slices = dict.fromkeys(("idx", "y", "smiles", "name"), torch.arange(len(data.idx) + 1))
        slices |= dict.fromkeys(("z", "pos", "x"), torch.from_numpy(arrays["atom_offsets"]))
        edges = torch.from_numpy(arrays["edge_offsets"])
        slices |= dict.fromkeys(("edge_index", "edge_attr"), edges)
        torch.save((data.to_dict(), slices, Data), path)

    @classmethod
    def build_scaled(cls, arrays, path, k: int) -> None:
        cls.build({name: np.concatenate([*pieces(arrays, name, k)]) for name in SECTIONS}, path)


def _on_disk(path, with_schema: bool = True):
    """An OnDiskDataset; without a schema it pickles each Data object, which is its default."""
    import torch
    from torch_geometric.data import Data, OnDiskDataset

    kinds = {"<i8": torch.int64, "<f4": torch.float32}
    sizes = {name: (-1, n) if (n := SHAPES[name]) else (-1,) for name in ("idx", *VIEWS)}
    sizes["edge_index"] = (2, -1)
    schema = {n: {"dtype": kinds[SECTIONS[n].dtype], "size": size} for n, size in sizes.items()}
    schema |= {"smiles": str, "name": str}

    class QM9OnDisk(OnDiskDataset):
        def serialize(self, data):
            # A pickled tensor takes its whole storage along: only a clone has one of its own.
            return data.to_dict() if with_schema else data.clone()

        def deserialize(self, row):
            return Data.from_dict(row) if with_schema else row

    return QM9OnDisk(str(path), schema=schema if with_schema else object, log=False)


class OnDisk(Tool):
    name, file_name, needs = "PyG OnDiskDataset", "on_disk", ("torch_geometric", "sqlite3")
    how = "SQLite, with a schema: tensors as raw bytes; 1,000 molecules a transaction"
    other_way = "without a schema, its default: Data objects pickled; of the first 4,096 molecules"
    is_slow, N_OTHER = True, 4096

    def __init__(self, path) -> None:
        self.path, self.rows, self.pickled = path, _on_disk(path), None

    def close(self) -> None:
        self.rows.close()
        if self.pickled is not None:
            self.pickled.close()
        super().close()

    @staticmethod
    def other_path(path) -> Path:
        return Path(path).with_name(f"{Path(path).name}_pickled")

    def other_molecule(self, i: int) -> Molecule:
        if self.pickled is None:
            self.pickled = _on_disk(self.other_path(self.path), with_schema=False)
        molecule = of_data(self.pickled[i % len(self.pickled)])
        touch(molecule)
        return molecule

    def __len__(self) -> int:
        return len(self.rows)

    def data(self, i: int):
        return self.rows[i]

    def molecule(self, i: int) -> Molecule:
        return of_data(self.rows[i])

    def batch(self, indices) -> dict:
        return joined(self.rows.multi_get(indices.tolist()))

    def column(self, indices) -> np.ndarray:
        return np.array([d.y[0, U0].item() for d in self.rows.multi_get(indices.tolist())])

    def parts(self):
        n = len(self)
        return (self.rows.multi_get(range(a, min(a + 1000, n))) for a in range(0, n, 1000))

    def mean(self) -> float:
        values = [d.y[0, U0].item() for part in self.parts() for d in part]
        return float(np.mean(values))

    def sweep(self) -> int:
        n_bytes = 0
        for data in itertools.chain.from_iterable(self.parts()):
            n_bytes += sum(len(data[name].numpy().tobytes("A")) for name in ("idx", *VIEWS))
            n_bytes += len(data.smiles) + len(data.name)
        return n_bytes

    @classmethod
    def for_loader(cls, path, n: int):
        rows = _on_disk(path)
        len(rows)
        rows.close()  # a connection must not cross a fork: each worker opens its own
        rows._db = None
        return rows, rows.close

    @classmethod
    def build(cls, arrays, path) -> None:
        cls._fill(_on_disk(path), molecules(arrays))

    @classmethod
    def build_other(cls, arrays, path) -> None:
        few = itertools.islice(molecules(arrays), cls.N_OTHER)
        cls._fill(_on_disk(cls.other_path(path), with_schema=False), few)

    @staticmethod
    def _fill(rows, every) -> None:
        every = map(data_of, every)
        while part := list(itertools.islice(every, 1000)):
            rows.extend(part)
        rows.close()


TOOLS = {
    tool.name: tool for tool in (Ours, Npy, Safetensors, Lmdb, Datasets, InMemory, OnDisk, Records)
}
"""In the order of the table."""


def why_not(tool: type[Tool]) -> str | None:
    """The reason why a tool cannot be measured here, or None."""
    import importlib

    for module in tool.needs:
        try:
            importlib.import_module(module)
        except ImportError as error:
            return f"not available here, because {error}"
    return None
