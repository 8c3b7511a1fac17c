"""The data set over a map against PyTorch Geometric's own in memory, field by field."""

import copy
import gc
import mmap
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from columns_files import put, seal, some_arrays, span

from qm9lab import columns, measure, qm9
from qm9lab.columns import Columns, ColumnsError
from qm9lab.course import folders

N_MOLECULES = 130_831
FIELDS = {"x", "edge_index", "edge_attr", "y", "pos", "z", "smiles", "name", "idx"}
linux = pytest.mark.skipif(sys.platform != "linux", reason="measured by Linux's own means")
posix = pytest.mark.skipif(os.name != "posix", reason="needs fork")


@pytest.fixture(scope="module", autouse=True)
def imports():
    """Not when the tests are collected: torch takes seconds, for whoever runs other tests."""
    global Data, DataLoader, MappedQM9, Subset, module, torch
    import torch
    from torch.utils.data import Subset
    from torch_geometric.data import Data
    from torch_geometric.loader import DataLoader

    from qm9lab.columns import MappedQM9
    from qm9lab.columns import mapped as module


@pytest.fixture(scope="module")
def in_memory():
    return qm9.dataset(progress=False)


@pytest.fixture(scope="module")
def whole(in_memory):
    """All of QM9 as a file, which goes with the test process."""
    path = folders.lesson_folder() / "all_of_qm9.cols"
    columns.write(path, in_memory)
    yield path
    path.unlink()


@pytest.fixture(scope="module")
def sixty(in_memory, tmp_path_factory):
    """60 molecules in memory, and the bytes of their file."""
    part, path = in_memory[4000:4060], tmp_path_factory.mktemp("part") / "small.cols"
    columns.write(path, part)
    return part, path.read_bytes()


@pytest.fixture
def small(sixty, tmp_path):
    """A file of these molecules, to be spoiled, and the same in memory."""
    path = tmp_path / "small.cols"
    path.write_bytes(sixty[1])
    return path, sixty[0]


def differences(found, expected):
    """Fields in which two ``Data`` differ: their names, types, dtypes, shapes, values."""
    found, expected = found.to_dict(), expected.to_dict()
    if found.keys() != expected.keys():
        return sorted(found.keys() ^ expected.keys())
    different = []
    for name, right in expected.items():
        value = found[name]
        if type(value) is not type(right):
            different.append(name)
        elif not isinstance(right, torch.Tensor):
            different += [name] * (value != right)
        elif value.dtype is not right.dtype or not torch.equal(value, right):  # shapes, too
            different.append(name)
    return different


def assert_same(found, expected):
    assert type(found) is type(expected)
    assert differences(found, expected) == []


# Equality ------------------------------------------------------------------------------------


def test_molecules_are_those_in_memory_field_by_field(whole, in_memory):
    """Every 16th and the last; test_the_sections_are_the_data_set_in_one_piece compares all."""
    dataset, right = MappedQM9(whole), copy.copy(in_memory)  # which keeps what it makes
    assert len(dataset) == len(right) == N_MOLECULES
    for k in (*range(0, N_MOLECULES, 16), N_MOLECULES - 1):
        found, expected = dataset[k], right[k]
        assert not (wrong := differences(found, expected)), f"molecule {k}: {wrong}"
        assert expected.to_dict().keys() == FIELDS


def test_a_difference_is_found():
    one = Data(x=torch.zeros(2, 3), name="a", idx=torch.tensor([1]))
    assert differences(one, copy.copy(one)) == []
    others = {
        "x": [torch.ones(2, 3), torch.zeros(3, 2), torch.zeros(2, 3).double(), None],
        "name": ["b", b"a"],
        "idx": [torch.tensor([2]), torch.tensor(1), torch.tensor([1], dtype=torch.int32)],
    }
    for name, values in others.items():
        for value in values:
            other = copy.copy(one)
            other[name] = value
            assert name in differences(other, one), (name, value)
    assert differences(Data(x=one.x), one) == ["idx", "name"]


def test_the_sections_are_the_data_set_in_one_piece(whole, in_memory):
    """The second instrument: whole arrays, through a map of our own and no Data in between."""
    with open(whole, "rb") as f:
        mm = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
    found, right = Columns(mm, whole), in_memory._data
    for name in ("x", "edge_attr", "y", "pos", "z", "idx"):
        assert np.array_equal(found[name], right[name].numpy()), name
    assert np.array_equal(found["edge_index"].T, right.edge_index.numpy())
    for name, of in {"atom": "z", "edge": "edge_attr"}.items():
        assert np.array_equal(found[f"{name}_offsets"], in_memory.slices[of].numpy()), name
    assert found["smiles"].tobytes() == "".join(right.smiles).encode()
    assert found["name"].tobytes() == "".join(right.name).encode()
    texts = found.gather(range(N_MOLECULES), ["smiles", "name"])
    assert texts["smiles"] == right.smiles and texts["name"] == right.name
    found.verify()


def test_indices_of_every_kind(small):
    path, right = small
    dataset = MappedQM9(path)
    for k in (0, 59, -1, -60, np.int64(7), torch.tensor(7)):
        assert_same(dataset[k], right[k])
    for k in (-1, np.int8(-60), np.uint8(59)):
        assert_same(dataset.get(k), right[int(k)])
    for wrong in (60, -61):
        with pytest.raises(IndexError):
            dataset[wrong]
        with pytest.raises(IndexError, match="from 0 to 59"):
            dataset.get(wrong)


@pytest.mark.parametrize(
    "part",
    [
        pytest.param(slice(10, 20), id="slice"),
        pytest.param(slice(None, None, -7), id="backwards"),
        pytest.param(slice(0.5), id="half"),
        pytest.param(slice(0, 0), id="none"),
        pytest.param([3, 1, 3], id="list"),
        pytest.param(lambda: torch.tensor([5, 6]), id="tensor"),
        pytest.param(np.arange(60) % 3 == 0, id="mask"),
        pytest.param(lambda: torch.arange(60) > 55, id="mask of torch"),
    ],
)
def test_parts_are_those_of_the_data_set_in_memory(small, part):
    path, right = small
    part = part() if callable(part) else part
    dataset, right = MappedQM9(path)[part], right[part]
    assert isinstance(dataset, MappedQM9) and len(dataset) == len(right)
    for found, expected in zip(dataset, right, strict=True):
        assert_same(found, expected)
    again = pickle.loads(pickle.dumps(dataset))
    assert len(again) == len(right)
    for found, expected in zip(again, right, strict=True):
        assert_same(found, expected)


def test_a_part_of_a_part_and_a_shuffle(small):
    path, right = small
    dataset = MappedQM9(path)
    assert_same(dataset[10:][::2][3], right[16])
    shuffled, order = dataset.shuffle(return_perm=True)
    assert sorted(order.tolist()) == list(range(60))
    for found, k in zip(shuffled, order, strict=True):
        assert_same(found, right[int(k)])


def double_y(one):
    one.y = one.y * 2
    return one


def test_a_transform_is_applied_and_does_not_reach_the_file(small):
    path, right = small
    raw = path.read_bytes()
    dataset = MappedQM9(path, transform=double_y)
    for _ in range(2):
        assert torch.equal(dataset[5].y, right[5].y * 2)
    assert torch.equal(dataset[3:][2].y, right[5].y * 2)
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[5].y, right[5].y * 2)
    assert path.read_bytes() == raw


# The map -------------------------------------------------------------------------------------


def test_a_store_into_a_tensor_does_not_reach_the_file(small):
    path, right = small
    raw = path.read_bytes()
    dataset, other = MappedQM9(path), MappedQM9(path)
    one = dataset[5]
    for name in ("x", "edge_index", "edge_attr", "y", "pos", "z", "idx"):
        one[name].fill_(3)
    assert (dataset[5].pos == 3).all(), "a view of this process's own copy of the page"
    assert_same(other[5], right[5])
    assert_same(MappedQM9(path)[5], right[5])
    assert path.read_bytes() == raw


def test_tensors_are_views_of_the_map(small):
    dataset = MappedQM9(small[0])
    whole = {name: dataset.columns[name] for name in columns.SECTIONS}
    one = dataset[5]
    for name in ("x", "edge_index", "edge_attr", "y", "pos", "z", "idx"):
        assert np.shares_memory(one[name].numpy(), whole[name]), name


@linux
def test_the_map_goes_with_the_last_tensor_over_it(small):
    def n_maps():
        gc.collect()
        return sum(region.name == str(small[0]) for region in measure.address_space.regions())

    dataset = MappedQM9(small[0])
    assert n_maps() == 1
    one, part = dataset[5].pos, dataset[10:]
    assert n_maps() == 1
    del dataset, part
    assert n_maps() == 1
    assert one.sum() == one.clone().sum()
    del one
    assert n_maps() == 0


@linux
def test_a_file_larger_than_memory_is_mapped(tmp_path):
    """Sparse: as a private map without MAP_NORESERVE the kernel would refuse it."""
    path, n_bytes = tmp_path / "large.cols", 1 << 40
    columns.write_arrays(path, some_arrays(5))
    raw = bytearray(path.read_bytes())
    first, _ = span(raw, "name")
    put(raw, "n_rows", n_bytes - first, "name")
    put(raw, "length", n_bytes - first, "name")
    put(raw, "n_bytes", n_bytes)
    seal(raw)
    mode = Path("/proc/sys/vm/overcommit_memory").read_text().strip()
    if mode == "2":
        pytest.skip("vm.overcommit_memory is 2: every private map counts as promised memory")
    try:
        with open(path, "r+b") as f:
            f.write(raw)
            try:
                f.truncate(n_bytes)
            except OSError as error:
                pytest.skip(f"no file of 1 TiB on this file system ({error.strerror})")
            if mode == "0":
                with pytest.raises(OSError, match="Cannot allocate"):
                    mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY)
        dataset = MappedQM9(path)
        assert len(dataset) == 5 and dataset[4].num_nodes == len(dataset[4].z)
    finally:
        path.unlink()


def test_a_file_that_is_none_is_refused_with_its_path(tmp_path):
    path = tmp_path / "empty.cols"
    path.touch()
    with pytest.raises(ColumnsError, match=rf"{path}: expected a file, found 0 bytes: write"):
        MappedQM9(path)
    path.write_bytes(b"id,smiles\n")
    with pytest.raises(ColumnsError, match=rf"{path}: expected a file that begins with"):
        MappedQM9(path)
    with pytest.raises(ColumnsError, match=rf"{tmp_path}: expected a regular file"):
        MappedQM9(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")  # to open it would wait for a writer
        with pytest.raises(ColumnsError, match="pipe: expected a regular file"):
            MappedQM9(tmp_path / "pipe")
    with pytest.raises(FileNotFoundError):
        MappedQM9(tmp_path / "nowhere.cols")


def test_on_other_systems_the_map_is_made_with_access_copy(small, monkeypatch):
    path, right = small
    monkeypatch.setattr(module.sys, "platform", "darwin")
    for name in ("MAP_PRIVATE", "PROT_READ"):
        monkeypatch.delattr(module.mmap, name, raising=False)
    assert_same(MappedQM9(path)[5], right[5])


# Pickles and workers -------------------------------------------------------------------------


def test_pickled_it_is_a_path(whole, in_memory):
    dataset = MappedQM9(whole)
    expected = dataset[77]
    pickled = pickle.dumps(dataset)
    assert len(pickled) < 1000 and whole.name.encode() in pickled
    again = pickle.loads(pickled)
    assert again.path == whole and again.path.is_absolute()
    assert "columns" not in vars(again), "mapped when it is first needed"
    assert_same(again[77], expected)
    assert_same(copy.deepcopy(dataset)[77], expected)
    assert_same(pickle.loads(pickle.dumps(again[:100]))[77], expected)


def test_a_relative_path_is_found_from_another_folder(small, tmp_path, monkeypatch):
    path, right = small
    monkeypatch.chdir(path.parent)
    pickled = pickle.dumps(MappedQM9(path.name))
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert_same(pickle.loads(pickled)[5], right[5])


@pytest.mark.parametrize("change", ["another part", "one value", "gone", "no such file"])
def test_another_file_under_the_name_is_refused_where_it_is_mapped_anew(small, in_memory, change):
    path, right = small
    dataset = MappedQM9(path)
    pickled, one = pickle.dumps(dataset), dataset[5]
    if change == "another part":
        columns.write(path, in_memory[:60])
    elif change == "one value":
        arrays = columns.arrays(right)
        arrays["pos"][0, 0] += 1
        columns.write_arrays(path, arrays)
    elif change == "gone":
        path.unlink()
    else:
        path.unlink()
        path.write_bytes(b"something else")
    error = FileNotFoundError if change == "gone" else ColumnsError
    said = {"gone": "No such file", "no such file": "a file that begins with"}
    said = said.get(change, "another under its name: make the data set again")
    with pytest.raises(error, match=said):
        pickle.loads(pickled)[5]
    assert_same(one, right[5])
    assert_same(dataset[5], right[5])  # the map is of the file that was there


def test_the_same_content_written_again_is_accepted(small):
    path, right = small
    pickled = pickle.dumps(MappedQM9(path))
    columns.write(path, right)
    assert_same(pickle.loads(pickled)[5], right[5])


def batches(dataset, n_epochs, **how):
    generator = torch.Generator().manual_seed(3)
    loader = DataLoader(dataset, batch_size=16, shuffle=True, generator=generator, **how)
    return [batch for _ in range(n_epochs) for batch in loader]


@pytest.mark.slow
@pytest.mark.parametrize(
    "context, kind",
    [
        *[(None, kind) for kind in ("all", "part", "Subset")],
        *[pytest.param("fork", kind, marks=posix) for kind in ("all", "part", "Subset")],
        ("spawn", "part"),
    ],
)
def test_a_loader_gives_the_batches_of_the_data_set_in_memory(small, context, kind):
    path, right = small
    dataset = MappedQM9(path, transform=double_y)
    right = copy.copy(right)
    right.transform = double_y
    if kind == "part":
        dataset, right = dataset[7:50], right[7:50]
    elif kind == "Subset":
        dataset, right = Subset(dataset, range(5, 59, 2)), Subset(right, range(5, 59, 2))
    n_workers = n_epochs = 1 if context == "spawn" else 2  # such workers take seconds to start
    how = {"num_workers": n_workers, "multiprocessing_context": context} if context else {}
    found, expected = batches(dataset, n_epochs, **how), batches(right, n_epochs)
    assert len(found) == len(expected) > 2
    for one, other in zip(found, expected, strict=True):
        assert differences(one, other) == []
        assert torch.equal(one.batch, other.batch) and torch.equal(one.ptr, other.ptr)


@posix
def test_a_worker_that_finds_another_file_says_so_to_the_one_who_asked(small, in_memory):
    path, _ = small
    part = pickle.loads(pickle.dumps(MappedQM9(path)[7:50]))  # not mapped yet
    columns.write(path, in_memory[:60])
    loader = DataLoader(part, batch_size=8, num_workers=1, multiprocessing_context="fork")
    with pytest.raises(
        ColumnsError, match="(?s)in DataLoader worker.*another under its name: make"
    ):
        next(iter(loader))


@posix
@pytest.mark.slow
def test_a_forked_worker_keeps_the_map_that_it_inherits(small, in_memory):
    path, right = small
    dataset = MappedQM9(path)
    columns.write(path, in_memory[:60])
    loader = DataLoader(dataset, batch_size=60, num_workers=1, multiprocessing_context="fork")
    batch = next(iter(loader))
    assert batch.name == [one.name for one in right]


@posix
def test_a_child_that_is_forked_by_hand_has_the_map_and_stores_of_its_own(small):
    path, right = small
    raw, dataset = path.read_bytes(), MappedQM9(path)
    dataset[0].pos.fill_(0)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            dataset[5].pos.fill_(7)
            status = int(not ((dataset[0].pos == 0).all() and (dataset[5].pos == 7).all()))
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert (dataset[0].pos == 0).all()
    assert_same(dataset[5], right[5])
    assert path.read_bytes() == raw


# What it costs -------------------------------------------------------------------------------


@linux
@pytest.mark.timing
def test_opening_all_of_qm9_takes_no_memory_and_maps_the_first_pages_alone(whole):
    MappedQM9(whole)  # what is imported and kept at the first time
    before = measure.resident()
    dataset = MappedQM9(whole)
    after = measure.resident()
    assert after.anonymous_bytes - before.anonymous_bytes < 1 << 20
    mapped = measure.mapped_pages(np.asarray(dataset.columns["idx"]))
    assert not mapped.any()
    assert dataset[100_000].num_nodes == len(dataset[100_000].z)
