"""The indexed file: its bytes against the description, its writer against what goes wrong."""

import ast
import builtins
import ctypes
import errno
import io
import mmap
import os
import re
import signal
import stat
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from columns_files import (
    ENTRY_BYTES,
    HEADER_BYTES,
    NAMES,
    PREAMBLE_BYTES,
    field,
    put,
    seal,
    some_arrays,
    span,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qm9lab import columns, measure, qm9
from qm9lab.columns import Columns, ColumnsError, layout, writing
from qm9lab.course import folders

ROOT = Path(__file__).resolve().parent.parent
MAGIC = bytes([0x89, 0x51, 0x4D, 0x39, 0x0D, 0x0A, 0x1A, 0x0A])
linux = pytest.mark.skipif(sys.platform != "linux", reason="counts by Linux's own means")
posix = pytest.mark.skipif(os.name != "posix", reason="signals, modes and links of Unix")
DTYPES = {
    "atom_offsets": "q", "edge_offsets": "q", "smiles_offsets": "q", "name_offsets": "q",
    "idx": "q", "y": "f", "z": "q", "pos": "f", "x": "f", "edge_index": "q", "edge_attr": "f",
    "smiles": "B", "name": "B",
}  # fmt: skip
N_COLUMNS = {"y": 19, "pos": 3, "x": 11, "edge_index": 2, "edge_attr": 4}


@pytest.fixture(scope="module")
def arrays():
    return some_arrays(50)


@pytest.fixture(scope="module")
def good(arrays, tmp_path_factory):
    """The bytes of a file of 50 molecules."""
    path = tmp_path_factory.mktemp("columns") / "good.cols"
    columns.write_arrays(path, arrays)
    return path.read_bytes()


@pytest.fixture
def path(good, tmp_path):
    """The same as a file of this test's own."""
    path = tmp_path / "molecules.cols"
    path.write_bytes(good)
    return path


@pytest.fixture(scope="module")
def qm9_dataset():
    return qm9.dataset(progress=False)


def names_in(folder):
    return sorted(p.name for p in folder.iterdir())


def expected_molecule(arrays, k):
    """Its fields, cut out of the arrays by hand."""

    def rows(of):
        ends = arrays[f"{of}_offsets"]
        return slice(int(ends[k]), int(ends[k + 1]))

    found = {name: arrays[name][rows("atom")] for name in ("z", "pos", "x")}
    found |= {"edge_index": arrays["edge_index"][rows("edge")].T}
    found |= {"edge_attr": arrays["edge_attr"][rows("edge")], "y": arrays["y"][k]}
    found |= {"idx": int(arrays["idx"][k])}
    texts = {name: arrays[name][rows(name)].tobytes().decode() for name in ("smiles", "name")}
    return found | texts


def assert_same(molecule, expected):
    assert set(molecule._fields) == set(expected)
    for name, value in expected.items():
        found = getattr(molecule, name)
        if isinstance(value, np.ndarray):
            assert (found.dtype, found.shape) == (value.dtype, value.shape), name
            assert np.array_equal(found, value), name
        else:
            assert type(found) is type(value) and found == value, name


# Bytes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_molecules", [0, 1, 50])
def test_the_header_is_byte_for_byte_what_the_description_says(tmp_path, n_molecules):
    arrays, path = some_arrays(n_molecules), tmp_path / "x.cols"
    columns.write_arrays(path, arrays)
    raw = path.read_bytes()
    expected, at = b"", 65_536
    for name, letter in DTYPES.items():
        array, size = arrays[name], struct.calcsize("<" + letter)
        n_rows, n_columns = len(array), N_COLUMNS.get(name, 0)
        n_bytes = n_rows * max(n_columns, 1) * size
        expected += name.encode().ljust(16, b"\0") + array.dtype.str.encode().ljust(8, b"\0")
        expected += b"".join(n.to_bytes(8, "little") for n in (n_rows, n_columns, at, n_bytes))
        expected += zlib.crc32(array.tobytes()).to_bytes(4, "little") + bytes(4)
        values = struct.unpack_from(f"<{array.size}{letter}", raw, at)
        assert array.ravel().tolist() == list(values), name
        end = at + n_bytes
        at = (end + 65_535) // 65_536 * 65_536
        assert not any(raw[end:at]), "zeros between the sections"
    assert len(raw) == end
    start = MAGIC + bytes([4, 3, 2, 1]) + bytes([1, 0, 0, 0])
    start += b"".join(n.to_bytes(8, "little") for n in (n_molecules, 13, len(raw)))
    crc32 = zlib.crc32(start + bytes(24) + expected)
    start += crc32.to_bytes(4, "little") + bytes(20)
    assert len(start) == PREAMBLE_BYTES and len(expected) == 13 * ENTRY_BYTES
    assert raw[:HEADER_BYTES] == start + expected
    assert not any(raw[HEADER_BYTES:65_536])


def test_the_constants_say_the_same():
    assert columns.PREAMBLE.size == PREAMBLE_BYTES and columns.ENTRY.size == ENTRY_BYTES
    assert columns.ALIGNMENT_BYTES == 65_536 and layout.MAGIC == MAGIC
    assert NAMES == list(DTYPES)
    assert HEADER_BYTES < 65_536


def test_each_section_can_be_mapped_alone(path, arrays):
    with open(path, "rb") as f:
        for section in columns.read_header(path.read_bytes(), path):
            assert section.offset_bytes % 65_536 == 0
            length, offset = section.length_bytes, section.offset_bytes
            with mmap.mmap(f.fileno(), length, access=mmap.ACCESS_READ, offset=offset) as mm:
                assert mm[:] == arrays[section.name].tobytes()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.text(max_size=8), st.integers(0, 5), st.integers(0, 5)), max_size=8),
    st.integers(0, 2**32 - 1),
)
def test_what_was_written_is_read(tmp_path_factory, molecules, seed):
    draw, arrays = np.random.default_rng(seed), some_arrays(len(molecules))
    texts = [m[0].encode("utf-8", "replace") for m in molecules]
    ends = {"atom": [m[1] for m in molecules], "edge": [m[2] for m in molecules]}
    ends |= {"smiles": list(map(len, texts)), "name": list(map(len, texts))}
    for of, name in columns.OFFSETS.items():
        arrays[name] = np.cumsum([0, *ends[of]], dtype="<i8")
    arrays["smiles"] = arrays["name"] = np.frombuffer(b"".join(texts), "|u1")
    for name in NAMES[4:11]:  # any bytes: NaN and infinity among them
        kind = columns.SECTIONS[name]
        n = len(molecules) if kind.rows_of == "molecule" else arrays[f"{kind.rows_of}_offsets"][-1]
        shape = (n, kind.n_columns) if kind.n_columns else (n,)
        size = np.dtype(kind.dtype).itemsize
        raw = draw.bytes(int(np.prod(shape)) * size)
        arrays[name] = np.frombuffer(raw, kind.dtype).reshape(shape)
    path = tmp_path_factory.getbasetemp() / "any.cols"
    columns.write_arrays(path, arrays)
    found = Columns(path.read_bytes(), path)
    found.verify()
    assert all(found[name].tobytes() == arrays[name].tobytes() for name in NAMES)
    assert found.gather(range(len(found)), "smiles")["smiles"] == [t.decode() for t in texts]


# What is refused -----------------------------------------------------------------------------


def change(name, value, section=None):
    """A field put into a good file, the header's checksum made to fit."""

    def make(raw):
        put(raw, name, value, section)
        seal(raw)
        return raw

    return make


def foreign(raw):
    """As a machine of the other byte order would have written the preamble."""
    fields = struct.unpack_from("<8sIIQQQI20x", raw)
    struct.pack_into(">8sIIQQQI20x", raw, 0, *fields)
    return raw


def unsealed(raw):
    put(raw, "n_rows", 7, "pos")
    return raw


def fewer_atoms(raw):
    """Consistent in itself, but not with the other sections of atoms."""
    put(raw, "n_rows", 1, "pos")
    put(raw, "length", 12, "pos")
    seal(raw)
    return raw


def wraps_around(raw):
    """Of which 12 bytes a row are as many as before, if one counts in 64 bits."""
    n_rows = field(raw, "n_rows", "pos") + 2**62
    for name in ("z", "pos", "x"):
        put(raw, "n_rows", n_rows, name)
    seal(raw)
    return raw


OTHER = "it is another file or a damaged copy; write it again with columns.write"
BEGINS = re.escape(f"a file that begins with {MAGIC!r}")
# What is wrong -> how it is made; patterns of what the message says was expected and was found;
# what it says to do.
REFUSED = {
    "empty": (lambda raw: b"", BEGINS, "b''", OTHER),
    "text": (lambda raw: b"id,smiles\n", BEGINS, "b'id,smile'", OTHER),
    "zeros": (lambda raw: bytes(len(raw)), BEGINS, re.escape(repr(bytes(8))), OTHER),
    "copied as text": (lambda raw: raw.replace(b"\r\n", b"\n"), BEGINS, ".*QM9.n.*", OTHER),
    "cut in the magic": (lambda raw: raw[:7], BEGINS, re.escape(repr(MAGIC[:7])), OTHER),
    "cut in the preamble": (lambda raw: raw[:63], "a preamble of 64 bytes", "63 bytes", OTHER),
    "cut in the table": (
        lambda raw: raw[: HEADER_BYTES - 1], "a table of 13 sections", "the end after 895 bytes",
        OTHER,
    ),
    "foreign": (
        foreign, "the byte order mark 0x01020304", "a file of the other byte order", OTHER,
    ),
    "no order": (change("byte_order", 7), "the byte order mark 0x01020304", "0x00000007", OTHER),
    "newer": (change("version", 2), "version 1", "version 2", "install a newer qm9lab"),
    "older": (change("version", 0), "version 1", "version 0", "write it again with columns.write"),
    "no sections": (change("n_sections", 0), "13 sections", "0", OTHER),
    "too many": (change("n_sections", 2**64 - 1), "13 sections", f"{2**64 - 1}", OTHER),
    "changed": (unsealed, "a header with CRC-32 [0-9a-f]{8}", "[0-9a-f]{8}", OTHER),
    "cut short": (lambda raw: raw[:-1], r"\d+ bytes, as the header says", r"\d+ bytes", OTHER),
    "longer": (lambda raw: raw + b"\0", r"\d+ bytes, as the header says", r"\d+ bytes", OTHER),
    "says too much": (change("n_bytes", 2**63), f"{2**63} bytes, as .*", r"\d+ bytes", OTHER),
    "name": (change("name", b"poss", "pos"), "the section 'pos' in its place", "'poss'", OTHER),
    "no name": (change("name", b"\xff" * 16, "pos"), "the section 'pos' in .*", "'.+'", OTHER),
    "big-endian": (change("dtype", b">f4", "pos"), "the dtype '<f4'", "'>f4'", OTHER),
    "objects": (change("dtype", b"|O", "pos"), "the dtype '<f4'", r"'\|O'", OTHER),
    "columns": (change("n_columns", 4, "pos"), r"the shape \(\d+, 3\)", r"\(\d+, 4\)", OTHER),
    "no columns": (change("n_columns", 0, "pos"), r"the shape \(\d+, 3\)", r"\(\d+,\)", OTHER),
    "molecules": (change("n_molecules", 49), r"the shape \(50,\)", r"\(51,\)", OTHER),
    "no end": (change("n_molecules", 2**64 - 1), r"the shape \(\d{20},\)", r"\(51,\)", OTHER),
    "fewer atoms": (fewer_atoms, r"the shape \(\d+, 3\)", r"\(1, 3\)", OTHER),
    "wraps around": (wraps_around, r"a length that is that of \(\d{19},\)", r"\d+ bytes", OTHER),
    "length": (change("length", 5, "pos"), r"a length that is that of .*3\)", "5 bytes", OTHER),
    "misaligned": (change("offset", 65_537, "idx"), "a multiple of 65536", "offset 65537", OTHER),
    "in the header": (change("offset", 0, NAMES[0]), "an offset of 65536 .*", "offset 0", OTHER),
    "overlapping": (change("offset", 65_536, "idx"), r"an offset of \d+ .*", "offset 65536", OTHER),
    "behind": (change("offset", 2**30, "name"), "an end within .*", r"its end at .+", OTHER),
    "far behind": (change("offset", 2**64 - 2**16, "name"), "an end .*", r"its end at \d+", OTHER),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_such_file_is_refused_in_words(good, kind):
    make, expected, found, remedy = REFUSED[kind]
    raw = bytes(make(bytearray(good)))
    with pytest.raises(ColumnsError) as refused:
        Columns(raw, "/some/where.cols")
    pattern = rf"/some/where\.cols: (section '.+': )?expected {expected}, found {found}: {remedy}"
    assert re.fullmatch(pattern, str(refused.value)), str(refused.value)


def test_each_refusal_of_the_header_is_one_of_these(good):
    tree = ast.parse(Path(layout.__file__).read_text(encoding="utf-8"))
    calls = {n.lineno for n in ast.walk(tree) if isinstance(n, ast.Call) and is_refuse(n.func)}
    made = set()
    for make, *_ in REFUSED.values():
        with pytest.raises(ColumnsError) as refused:
            Columns(make(bytearray(good)))
        made.add(refused.traceback[-2].lineno + 1)
    assert made == calls


def is_refuse(func):
    return isinstance(func, ast.Name) and func.id == "refuse"


def test_each_bit_of_the_header_counts(good):
    for at in range(HEADER_BYTES):
        raw = bytearray(good)
        raw[at] ^= 1 << (at % 8)
        with pytest.raises(ColumnsError):
            Columns(raw)


def test_each_length_but_the_right_one_is_refused(good):
    for n_bytes in (*range(0, 2000, 7), *range(65_536, len(good), 65_536), len(good) - 1):
        with pytest.raises(ColumnsError):
            Columns(good[:n_bytes])


def test_the_buffer_can_be_closed_after_a_refusal(path):
    with open(path, "r+b") as f:
        f.truncate(100_000)
    with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as mm:
        with pytest.raises(ColumnsError) as refused:
            Columns(mm, path)
        mm.close()  # while the error and its traceback live
    assert refused.traceback


# Writing -------------------------------------------------------------------------------------


def without(arrays, name, changed):
    return {**arrays, name: changed(arrays[name])}


def at_index(k, value):
    def changed(ends):
        ends = ends.copy()
        ends[k] = value
        return ends

    return changed


@pytest.mark.parametrize(
    "name, changed, expected",
    [
        ("pos", lambda a: a.astype("<f8"), "the dtype '<f4', found '<f8'"),
        ("pos", lambda a: a.astype(">f4"), "the dtype '<f4', found '>f4'"),
        ("pos", lambda a: a[:-1], "the shape"),
        ("pos", lambda a: a.ravel(), "the shape"),
        ("idx", lambda a: a[0], "the shape"),
        ("atom_offsets", lambda a: a[:-1], "the shape"),
        ("atom_offsets", lambda a: a + 1, "offsets that rise from 0 to"),
        ("edge_offsets", at_index(-1, 1), "offsets that rise from 0 to .* at molecule 49"),
        ("name_offsets", at_index(7, -1), "offsets that rise .* found .* to -1 at molecule 6"),
        ("smiles_offsets", at_index(-1, 2**62), "offsets that rise from 0 to .*, found 0 to 461"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_before_anything_is_written(
    arrays, tmp_path, name, changed, expected
):
    with pytest.raises(ColumnsError, match=rf"x\.cols: section '\w+': expected {expected}"):
        columns.write_arrays(tmp_path / "x.cols", without(arrays, name, changed))
    assert names_in(tmp_path) == []


def test_arrays_in_any_order_of_memory_are_written_in_c_order(arrays, good, tmp_path):
    other = {n: np.asfortranarray(a) for n, a in arrays.items()}
    other["idx"] = np.repeat(arrays["idx"], 2)[::2]
    assert not (other["pos"].flags.c_contiguous or other["idx"].flags.c_contiguous)
    columns.write_arrays(tmp_path / "x.cols", other)
    assert (tmp_path / "x.cols").read_bytes() == good


def part_of(dataset, kind):
    return {
        "none": dataset[:0],
        "one": dataset[77:78],
        "the first": dataset[:300],
        "a choice": dataset[[130_000, 5, 5, 17]],
        "of a part": dataset[1000:2000][::-7],
    }[kind]


@pytest.mark.parametrize("kind", ["none", "one", "the first", "a choice", "of a part"])
def test_a_part_of_the_data_set_is_written_in_its_order(qm9_dataset, tmp_path, kind):
    part, path = part_of(qm9_dataset, kind), tmp_path / "part.cols"
    columns.write(path, part)
    found = Columns(path.read_bytes(), path)
    found.verify()
    assert len(found) == len(part)
    for molecule, expected in zip(map(found.molecule, range(len(found))), part, strict=True):
        for name in molecule._fields:
            value = getattr(molecule, name)
            if isinstance(value, np.ndarray):
                right = expected[name].numpy()
                right = right[0] if name == "y" else right
                assert value.dtype == right.dtype and np.array_equal(value, right), name
            else:
                assert value == expected[name], name


@pytest.mark.parametrize("wrong", [None, [1, 2], {"pos": 1}])
def test_what_is_no_data_set_is_refused(tmp_path, wrong):
    with pytest.raises(TypeError, match=r"expected PyG's QM9 .* found .*: take qm9\.dataset\(\)"):
        columns.write(tmp_path / "x.cols", wrong)
    assert names_in(tmp_path) == []


def test_text_that_utf8_cannot_hold_is_one_error(qm9_dataset, tmp_path):
    dataset = qm9_dataset.copy([0, 1, 2])
    dataset._data.smiles[1] = "C\ud800"
    with pytest.raises(ColumnsError, match=r"smiles: expected text that UTF-8 .*'C\\ud800'"):
        columns.write(tmp_path / "x.cols", dataset)
    assert names_in(tmp_path) == []


def test_one_element_is_one_error(qm9_dataset, tmp_path):
    dataset = qm9_dataset.copy([5])
    assert dataset.slices is None
    with pytest.raises(TypeError, match=r"found one element, .*: take a part of a larger one"):
        columns.write(tmp_path / "x.cols", dataset)
    columns.write(tmp_path / "x.cols", qm9_dataset[5:6])


def test_a_name_of_250_bytes(tmp_path, arrays, good):
    path = tmp_path / ("x" * 250)
    columns.write_arrays(path, arrays)
    assert path.read_bytes() == good


READER = """
import sys
from qm9lab.columns import Columns
n = 0
seen = set()
print("ready", flush=True)
while not seen >= {"10", "20"} or n < 200:
    with open(sys.argv[1], "rb") as f:
        found = Columns(f.read())
    found.verify()
    seen.add(str(len(found)))
    n += 1
print(n, sorted(seen))
"""


def test_a_reader_seeswhole_files_alone(tmp_path):
    """A second process opens the name again and again while it is written anew."""
    path, two = tmp_path / "x.cols", [some_arrays(10), some_arrays(20)]
    columns.write_arrays(path, two[0])
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, cwd=ROOT,
    )  # fmt: skip
    assert reader.stdout.readline() == "ready\n"
    n_written = 0
    while reader.poll() is None:
        columns.write_arrays(path, two[n_written % 2])
        n_written += 1
    out, err = reader.communicate()
    assert reader.returncode == 0, err
    assert out.split(maxsplit=1)[1] == "['10', '20']\n" and n_written > 1
    assert names_in(tmp_path) == ["x.cols"]


# Waits for ever at one step of the writing, or raises there.
STOPPED = """
import errno, os, sys, time, zlib
sys.path.insert(0, sys.argv[4])
from columns_files import some_arrays
from qm9lab import columns
from qm9lab.columns import writing

def stop(*args):
    print("here", flush=True)
    time.sleep(600)

right = writing.header
steps = {"checksum": (zlib, "crc32"), "header": (writing, "header"), "fsync": (os, "fsync"),
         "replace": (os, "replace")}
module, name = steps[sys.argv[2]]
setattr(module, name, stop)
columns.write_arrays(sys.argv[1], some_arrays(int(sys.argv[3])))
"""


@posix
@pytest.mark.parametrize("step", ["checksum", "header", "fsync", "replace"])
@pytest.mark.parametrize("before", [True, False])
def test_killed_while_it_writes_the_old_file_stays(good, tmp_path, step, before):
    path = tmp_path / "x.cols"
    if before:
        path.write_bytes(good)
    writer = subprocess.Popen(
        [sys.executable, "-c", STOPPED, path, step, "20", Path(__file__).parent],
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    with writer:
        assert writer.stdout.readline() == "here\n"
        writer.send_signal(signal.SIGKILL)
    assert writer.returncode == -signal.SIGKILL
    assert path.exists() == before
    if before:
        assert path.read_bytes() == good
    left = [name for name in names_in(tmp_path) if name != "x.cols"]
    assert all(re.fullmatch(r"\.x\.cols\.\w+\.tmp", name) for name in left) and len(left) == 1
    columns.write_arrays(path, some_arrays(20))  # what was left does not stand in the way
    Columns(path.read_bytes()).verify()


@pytest.mark.parametrize("step", ["crc32", "header", "fsync", "replace"])
@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), MemoryError()],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_what_goes_wrong_leaves_nothing_behind(good, arrays, tmp_path, monkeypatch, step, error):
    def fail(*args):
        raise error

    path = tmp_path / "x.cols"
    path.write_bytes(good)
    module = {"crc32": zlib, "header": writing}.get(step, os)
    with monkeypatch.context() as patch, pytest.raises(type(error)):
        patch.setattr(module, step, fail)
        columns.write_arrays(path, some_arrays(20))
    assert names_in(tmp_path) == ["x.cols"] and path.read_bytes() == good


@posix
def test_the_bytes_are_on_the_disk_before_the_name_is(tmp_path, arrays, monkeypatch):
    calls = []

    def fsync(fd, right=os.fsync):
        calls.append("folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else os.fstat(fd).st_size)
        right(fd)

    def replace(source, target, right=os.replace):
        calls.append("replace")
        right(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    columns.write_arrays(tmp_path / "x.cols", arrays)
    n_bytes = (tmp_path / "x.cols").stat().st_size
    assert calls == [n_bytes, n_bytes, "replace", "folder"]  # the sections, then the header


def test_a_write_that_takes_fewer_bytes_is_gone_on_with(tmp_path, arrays, monkeypatch):
    class Slow(io.FileIO):
        def write(self, content):
            return super().write(memoryview(content)[:40_000])

    def slow(path, mode, buffering, right=open):
        assert buffering == 0
        return Slow(path, mode)

    columns.write_arrays(tmp_path / "whole.cols", arrays)
    monkeypatch.setattr(writing, "open", slow, raising=False)
    columns.write_arrays(tmp_path / "slow.cols", arrays)
    whole, slow = ((tmp_path / f"{name}.cols").read_bytes() for name in ("whole", "slow"))
    assert len(whole) > 40_000
    assert slow == whole


def test_a_folder_that_cannot_be_synced_is_no_reason_to_fail(tmp_path, arrays, monkeypatch):
    def refuse(*args):
        raise PermissionError

    monkeypatch.setattr(os, "open", refuse)
    columns.write_arrays(tmp_path / "x.cols", arrays)
    assert names_in(tmp_path) == ["x.cols"]


def test_an_interrupt_just_after_the_file_was_replaced(tmp_path, monkeypatch, arrays):
    def replace(source, target, right=os.replace):
        right(source, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        columns.write_arrays(tmp_path / "x.cols", arrays)
    assert names_in(tmp_path) == ["x.cols"]


FULL = """
import resource, signal, sys
sys.path.insert(0, sys.argv[2])
from columns_files import some_arrays
from qm9lab import columns
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), -1))
try:
    columns.write_arrays(sys.argv[1], some_arrays(50))
except OSError as error:
    print(error.strerror)
"""


@posix
@pytest.mark.parametrize("n_bytes", [0, 1000, 65_536, 70_000, 800_000])
def test_a_file_that_may_not_grow_leaves_nothing_behind(good, tmp_path, n_bytes):
    path = tmp_path / "x.cols"
    path.write_bytes(good)
    done = subprocess.run(
        [sys.executable, "-c", FULL, path, Path(__file__).parent, str(n_bytes)],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("File too large\n", 0), done.stderr
    assert names_in(tmp_path) == ["x.cols"] and path.read_bytes() == good


def mounted(folder, n_bytes):
    """Whether a file system of so many bytes could be mounted there; root can."""
    words = ["mount", "-t", "tmpfs", "-o", f"size={n_bytes}", "qm9lab-test", folder]
    return subprocess.run(words, capture_output=True).returncode == 0


@linux
def test_a_full_disk_leaves_nothing_behind(tmp_path, arrays):
    full = tmp_path / "full"
    full.mkdir()
    if not (hasattr(os, "geteuid") and os.geteuid() == 0 and mounted(full, 100_000)):
        pytest.skip("only root can mount a small file system")
    try:
        with pytest.raises(OSError, match="No space left") as refused:
            columns.write_arrays(full / "x.cols", arrays)
        assert refused.value.errno == errno.ENOSPC and names_in(full) == []
    finally:
        subprocess.run(["umount", full], check=True)


@posix
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions_are_those_of_any_new_file(tmp_path, arrays, umask):
    before = os.umask(umask)
    try:
        columns.write_arrays(tmp_path / "x.cols", arrays)
    finally:
        assert os.umask(before) == umask
    assert stat.S_IMODE((tmp_path / "x.cols").stat().st_mode) == 0o666 & ~umask


def test_the_umask_of_the_process_is_never_moved(tmp_path, arrays, monkeypatch):
    monkeypatch.setattr(os, "umask", None)  # other threads make files at the same time
    columns.write_arrays(tmp_path / "x.cols", arrays)


@posix
def test_of_a_symbolic_link_the_file_is_replaced_that_it_points_to(tmp_path, arrays, good):
    (tmp_path / "elsewhere").mkdir()
    link, target = tmp_path / "link.cols", tmp_path / "elsewhere" / "target.cols"
    link.symlink_to(Path("elsewhere", "target.cols"))
    for _ in range(2):  # dangling, then not
        columns.write_arrays(link, arrays)
        assert link.is_symlink() and not target.is_symlink() and target.read_bytes() == good
    assert names_in(tmp_path) == ["elsewhere", "link.cols"]
    assert names_in(target.parent) == ["target.cols"]


def test_a_relative_path(tmp_path, arrays, good, monkeypatch):
    monkeypatch.chdir(tmp_path)
    columns.write_arrays("x.cols", arrays)
    assert names_in(tmp_path) == ["x.cols"] and Path("x.cols").read_bytes() == good


def test_only_a_file_is_replaced(tmp_path, arrays):
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileExistsError, match="expected a file to replace"):
        columns.write_arrays(tmp_path / "folder", arrays)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(FileExistsError):
            columns.write_arrays(tmp_path / "pipe", arrays)
    with pytest.raises(FileNotFoundError):
        columns.write_arrays(tmp_path / "nowhere" / "x.cols", arrays)
    assert set(names_in(tmp_path)) <= {"folder", "pipe"}


@posix
def test_a_map_of_the_file_that_was_replaced_lives_on(path, good):
    with open(path, "rb") as f:
        mm = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
    old = Columns(mm, path)
    columns.write_arrays(path, some_arrays(7))
    old.verify()
    assert len(old) == 50 and len(Columns(path.read_bytes())) == 7


# Reading -------------------------------------------------------------------------------------


def buffers(path):
    """Buffers of every kind over the same bytes: name -> buffer, whether it can be written."""
    raw = path.read_bytes()
    with open(path, "rb") as f:
        maps = [
            mmap.mmap(f.fileno(), 0, access=access)
            for access in (mmap.ACCESS_READ, mmap.ACCESS_COPY)
        ]
    c_array = (ctypes.c_char * len(raw)).from_buffer_copy(raw)
    return {
        "bytes": (raw, False),
        "bytearray": (bytearray(raw), True),
        "memoryview": (memoryview(raw), False),
        "ACCESS_READ": (maps[0], False),
        "ACCESS_COPY": (maps[1], True),
        "np.memmap": (np.memmap(path, np.uint8, "r"), False),
        "np.memmap c": (np.memmap(path, np.uint8, "c"), True),
        "ctypes": (c_array, True),
        "at an odd address": (memoryview(b"." + raw)[1:], False),
        "at an odd address, written": (memoryview(bytearray(b"." + raw))[1:], True),
    }


BUFFERS = [
    "bytes", "bytearray", "memoryview", "ACCESS_READ", "ACCESS_COPY", "np.memmap", "np.memmap c",
    "ctypes", "at an odd address", "at an odd address, written",
]  # fmt: skip


@pytest.mark.parametrize("kind", BUFFERS)
def test_over_any_buffer(path, arrays, kind):
    buffer, writeable = buffers(path)[kind]
    found = Columns(buffer, path)
    found.verify()
    assert len(found) == 50 and found.path == path
    for name in NAMES:
        assert found[name].dtype == arrays[name].dtype and found[name].shape == arrays[name].shape
        assert np.array_equal(found[name], arrays[name]), name
        assert found[name].flags.writeable == writeable
    for k in range(50):
        assert_same(found.molecule(k), expected_molecule(arrays, k))
    batch = found.gather([3, 1, 3])
    assert batch["idx"].tolist() == arrays["idx"][[3, 1, 3]].tolist()
    if not writeable:
        with pytest.raises(ValueError, match="ACCESS_COPY"):
            found.tensors()
        return
    tensors = found.tensors()
    assert set(tensors) == set(NAMES)
    for name, tensor in tensors.items():
        assert np.shares_memory(tensor.numpy(), found[name]), name
        assert np.array_equal(tensor.numpy(), arrays[name]), name


def test_a_store_through_the_buffer_is_seen_in_the_views(good):
    raw = bytearray(good)
    found = Columns(raw)
    molecule, tensor = found.molecule(9), found.tensors()["pos"]
    molecule.pos[0] = 1.5, 2.5, 3.5
    first, _ = found.span(9, "atom")
    assert tensor[first].tolist() == [1.5, 2.5, 3.5]
    at = found.sections["pos"].offset_bytes + 12 * first
    assert struct.unpack_from("<3f", raw, at) == (1.5, 2.5, 3.5)


def test_views_share_memory_with_the_buffer_and_take_no_more(path):
    with open(path, "rb") as f:
        mm = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
    found, whole = Columns(mm, path), np.frombuffer(mm, np.uint8)
    for name in NAMES:
        assert np.shares_memory(found[name], whole), name
    molecule = found.molecule(9)
    for name in ("y", "z", "pos", "x", "edge_index", "edge_attr"):
        view = getattr(molecule, name)
        assert view.size and np.shares_memory(view, whole), name
        assert not view.flags.owndata


def test_whatever_it_does_it_opens_and_maps_nothing(path, monkeypatch):
    with open(path, "rb") as f:
        mm = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY)
    import torch  # noqa: F401, since importing opens files

    def refuse(*args, **kwargs):
        raise AssertionError("expected no file to be opened or mapped")

    for module, name in ((builtins, "open"), (io, "open"), (os, "open"), (mmap, "mmap")):
        monkeypatch.setattr(module, name, refuse)
    monkeypatch.setattr(np, "memmap", refuse)
    found = Columns(mm, path)
    found.molecule(3), found.smiles(3), found.gather([1, 2]), found.tensors(), found.verify()


@pytest.mark.parametrize("number", [int, np.int8, np.int32, np.int64])
def test_negative_indices_count_from_the_end(good, arrays, number):
    found = Columns(good)
    for k in (-1, -50):
        assert_same(found.molecule(number(k)), expected_molecule(arrays, 50 + k))
        assert found.span(number(k), "edge") == found.span(50 + k, "edge")
        assert found.smiles(number(k)) == found.smiles(50 + k)
        assert found.gather([k], "name")["name"] == [f"gdb_{50 + k}"]


def test_small_integers_of_numpy_do_not_wrap_around(tmp_path):
    columns.write_arrays(tmp_path / "x.cols", some_arrays(300))
    found = Columns((tmp_path / "x.cols").read_bytes())
    assert found.molecule(np.uint8(255)).name == "gdb_255"
    assert found.molecule(np.int8(-1)).name == "gdb_299"
    assert found.gather(np.array([-1, 127], np.int8), "name")["name"] == ["gdb_299", "gdb_127"]
    assert found.gather(np.array([255], np.uint8), "idx")["idx"] == found["idx"][255]


@pytest.mark.parametrize("outside", [50, -51, 2**40, 2**64 - 1, -(2**63)])
def test_no_such_molecule(good, outside):
    found = Columns(good)
    for call in (found.molecule, found.smiles, lambda k: found.span(k, "atom")):
        with pytest.raises(IndexError, match=f"from 0 to 49, found {outside}"):
            call(outside)
    with pytest.raises(IndexError, match=f"from 0 to 49, found {outside}"):
        found.gather([outside])


@pytest.mark.parametrize("wrong", [[1.0], [True] * 50, np.ones(50, bool), ["1"], [None], [2**70]])
def test_what_is_no_number_of_a_molecule_is_no_index(good, wrong):
    with pytest.raises(TypeError, match=r"expected integers, found .*np\.flatnonzero\(mask\)"):
        Columns(good).gather(wrong)
    with pytest.raises(TypeError):
        Columns(good).molecule(1.0)


def test_fields_that_are_not_there(good):
    for fields in (["pos", "mass"], "mass", ["atom_offsets"]):
        with pytest.raises(KeyError, match="expected fields of .*'pos'.*, found"):
            Columns(good).gather([1], fields)


indices = st.lists(st.integers(-50, 49), max_size=80)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(indices)
def test_a_batch_is_its_molecules_one_after_another(good, arrays, indices):
    found = Columns(good).gather(np.array(indices, int))
    singly = [expected_molecule(arrays, k % 50) for k in indices]
    fields = set(columns.FIELDS) | {"n_atoms", "n_edges"}
    assert set(found) == fields
    for name in ("z", "pos", "x", "edge_attr"):
        right = np.concatenate([arrays[name][:0], *(m[name] for m in singly)])
        assert found[name].dtype == right.dtype and np.array_equal(found[name], right), name
    pairs = [arrays["edge_index"][:0], *(m["edge_index"].T for m in singly)]
    assert np.array_equal(found["edge_index"], np.concatenate(pairs))
    for name in ("idx", "y"):
        assert np.array_equal(found[name], arrays[name][[k % 50 for k in indices]]), name
    for name in ("smiles", "name"):
        assert found[name] == [m[name] for m in singly]
    assert found["n_atoms"].tolist() == [len(m["z"]) for m in singly]
    assert found["n_edges"].tolist() == [len(m["edge_attr"]) for m in singly]


def test_a_batch_is_its_own(good):
    found, whole = Columns(bytearray(good)), Columns(good)
    batch = found.gather([1, 2])
    for name in set(batch) - {"smiles", "name"}:
        assert batch[name].flags.writeable
        batch[name][:] = 0
    assert all(np.array_equal(found[name], whole[name]) for name in found.sections)
    assert set(found.gather([4], ["pos", "z"])) == {"pos", "z", "n_atoms"}
    assert set(found.gather([4], "y")) == {"y"}


def test_texts_in_ascii_are_cut_as_others_are(tmp_path):
    arrays = some_arrays(4)
    arrays["smiles"] = np.frombuffer(b"CCOCN", "|u1")
    arrays["smiles_offsets"] = np.array([0, 2, 2, 4, 5], "<i8")
    columns.write_arrays(tmp_path / "x.cols", arrays)
    found = Columns((tmp_path / "x.cols").read_bytes())
    assert found.gather([3, 1, 0, 2, 0], "smiles")["smiles"] == ["N", "", "CC", "OC", "CC"]


def test_no_molecules_at_all(tmp_path):
    columns.write_arrays(tmp_path / "x.cols", some_arrays(0))
    for buffer, _ in buffers(tmp_path / "x.cols").values():
        found = Columns(buffer)
        found.verify()
        assert len(found) == 0 and found.gather([])["pos"].shape == (0, 3)
        for k in (0, -1):
            with pytest.raises(IndexError):
                found.molecule(k)


def test_a_map_cannot_be_closed_under_its_views(path):
    with open(path, "rb") as f:
        mm = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
    found = Columns(mm, path)
    with pytest.raises(BufferError):
        mm.close()
    pos = found.molecule(3).pos
    del found
    with pytest.raises(BufferError):
        mm.close()
    del pos
    mm.close()


def test_a_bytearray_cannot_be_resized_under_its_views(good):
    raw = bytearray(good)
    pos = Columns(raw)["pos"][:3]
    with pytest.raises(BufferError):
        raw.extend(bytes(1 << 20))
    del pos
    raw.extend(b"now")


def test_a_store_into_a_tensor_over_a_private_map_does_not_reach_the_file(path, good):
    with open(path, "rb") as f:
        mm = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY)
    found = Columns(mm, path)
    found.tensors()["pos"].fill_(7)
    assert (found["pos"] == 7).all() and path.read_bytes() == good
    with pytest.raises(ColumnsError, match="section 'pos': expected CRC-32"):
        found.verify()


# Damage that the header does not show --------------------------------------------------------


@pytest.mark.parametrize("section", NAMES)
def test_verify_finds_a_flipped_bit_in_every_section(good, section):
    first, end = span(good, section)
    for at, bit in ((first, 0), ((first + end) // 2, 3), (end - 1, 7)):
        raw = bytearray(good)
        raw[at] ^= 1 << bit
        found = Columns(raw, "x.cols")
        said = rf"x\.cols: section '{section}': expected CRC-32 \w{{8}}, found \w{{8}} in \d+ bytes"
        with pytest.raises(ColumnsError, match=f"{said}: it was changed; write it again"):
            found.verify()


def damaged(good, section, changed):
    """A file whose checksums are right and whose section is not."""
    raw = bytearray(good)
    first, end = span(raw, section)
    letters = {"q": "<i8", "B": "|u1", "f": "<f4"}[DTYPES[section]]
    array = np.frombuffer(raw, letters, offset=first, count=(end - first) // int(letters[2]))
    array[:] = changed(array.copy())
    del array
    seal(raw, [section])
    return bytes(raw)


@pytest.mark.parametrize("value", [-1, 2**62, -(2**63), 2**63 - 1])
@pytest.mark.parametrize("section", NAMES[:4])
def test_an_offset_that_leads_out_is_refused_when_it_is_used(good, section, value):
    found = Columns(damaged(good, section, at_index(20, value)), "x.cols")
    said = rf"x\.cols: section '{section}', molecule \d+: expected two offsets that rise within 0 "
    for k in (19, 20):
        for call in (found.molecule, lambda k: found.gather([k])):
            with pytest.raises(ColumnsError, match=rf"{said}to \d+, found -?\d+ and -?\d+: it is"):
                call(k)
    assert found.molecule(18).name == "gdb_18" and found.molecule(21).name == "gdb_21"
    said = rf"x\.cols: section '{section}': expected offsets that rise from 0 to \d+, found "
    with pytest.raises(ColumnsError, match=said):
        found.verify()


@pytest.mark.parametrize("section", ["smiles", "name"])
def test_a_text_that_is_no_utf8_is_refused_when_it_is_used(good, section):
    found = Columns(damaged(good, section, at_index(-1, 0xFF)), "x.cols")
    said = rf"x\.cols: section '{section}', molecule \d+: expected UTF-8, found byte 0x"
    with pytest.raises(ColumnsError, match=said):
        found.gather(range(50))
    with pytest.raises(ColumnsError, match=said):
        for k in range(50):
            found.molecule(k)


def test_offsets_that_rise_and_fall_make_no_batch_larger_than_the_file(tmp_path):
    """Each molecule of even number would have all atoms: 2,000 times the section."""
    n, path = 4_000, tmp_path / "x.cols"
    arrays = {k: a[:0] for k, a in some_arrays(0).items()}
    for name, kind in columns.SECTIONS.items():
        n_rows = {"molecule": n, "end": n + 1, "atom": 100_000}.get(kind.rows_of, 0)
        shape = (n_rows, kind.n_columns) if kind.n_columns else (n_rows,)
        arrays[name] = np.zeros(shape, kind.dtype)
    arrays["atom_offsets"][1:] = 100_000
    columns.write_arrays(path, arrays)
    raw = damaged(path.read_bytes(), "atom_offsets", lambda e: np.arange(n + 1) % 2 * 100_000)
    found = Columns(raw, "x.cols")
    even = np.arange(0, n, 2)
    assert len(found.gather(even[:1], "z")["z"]) == 100_000
    tracemalloc.start()
    for many in (even, np.repeat(even, 2), even[:2], even[::-1]):
        with pytest.raises(ColumnsError, match="'atom_offsets': expected offsets that rise from 0"):
            found.gather(many, "z")
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < len(raw)
    # The caller's own repeats are his to ask for.
    assert len(found.gather([0, 0, 0], "z")["z"]) == 300_000


# What it costs -------------------------------------------------------------------------------


@pytest.fixture
def cold():
    """A larger file on the data folder's disk, cold, mapped and advised: each page one fault."""
    folder = folders.lesson_folder()
    probe = measure.exact(folder, 1)
    if measure.is_missing(probe):
        pytest.skip(str(probe))
    path = folder / "cold.cols"
    columns.write_arrays(path, some_arrays(20_000))
    assert measure.make_cold(path).is_cold
    with open(path, "rb") as f:
        mm = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
    mm.madvise(mmap.MADV_RANDOM)
    yield path, mm
    path.unlink()
    mm.close()


def touched(path, mm):
    """Pages by two instruments: what this process has mapped, what the page cache has."""
    mapped, cached = measure.mapped_pages(mm), measure.cached_pages(path)
    return set(np.flatnonzero(mapped).tolist()), set(np.flatnonzero(cached).tolist())


@linux
@pytest.mark.timing
def test_making_one_touches_the_header_and_nothing_else(cold):
    path, mm = cold
    before = measure.faults(thread=True)
    found = Columns(mm, path)
    assert measure.faults(thread=True).since(before).major == 1
    assert touched(path, mm) == ({0}, {0})
    assert len(found) == 20_000 and touched(path, mm) == ({0}, {0})


@linux
@pytest.mark.timing
def test_a_molecule_touches_its_offsets_and_texts_alone_until_it_is_used(cold):
    path, mm = cold
    found, k = Columns(mm, path), 12_345

    def pages(section, first, end):
        if first == end:
            return set()
        start, size = found.sections[section].offset_bytes, found[section].strides[0]
        first, end = start + first * size, start + end * size - 1
        return set(range(first // mmap.PAGESIZE, end // mmap.PAGESIZE + 1))

    molecule = found.molecule(k)
    expected = {0} | pages("idx", k, k + 1)
    expected |= {p for name in NAMES[:4] for p in pages(name, k, k + 2)}
    for name in ("smiles", "name"):
        expected |= pages(name, *found.span(k, name))
    assert touched(path, mm) == (expected, expected)
    assert len(expected) <= 1 + 2 * 7
    molecule.pos.sum()
    expected |= pages("pos", *found.span(k, "atom"))
    assert touched(path, mm) == (expected, expected)
