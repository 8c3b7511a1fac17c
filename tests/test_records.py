"""The record layout, against its own definition and against every kind of bad bytes."""

import math
import mmap
import struct
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm9lab import qm9, records
from qm9lab.records import RecordError, pack, unpack, walk

texts = st.text(min_size=1, max_size=80).filter(lambda s: s.encode("utf-8", "ignore").decode() == s)
pairs = st.lists(st.tuples(texts, st.floats(width=64)), max_size=30)


def same(a: float, b: float) -> bool:
    """Equal, with NaN equal to NaN."""
    return a == b or (math.isnan(a) and math.isnan(b))


@given(pairs)
def test_what_was_packed_is_walked(molecules):
    packed = [pack(text, value) for text, value in molecules]
    offset = 0
    walked = list(walk(b"".join(packed)))
    assert len(walked) == len(molecules)
    for (at, text, value), (text_in, value_in), record in zip(
        walked, molecules, packed, strict=True
    ):
        assert at == offset and text == text_in and same(value, value_in)
        offset += len(record)


@given(texts, st.floats(width=64))
def test_the_layout_is_the_one_that_struct_spells_out(text, value):
    raw = text.encode()
    assert pack(text, value) == struct.pack(f"<I{len(raw)}sd", len(raw), raw, value)


@given(pairs, st.integers(0, 400))
def test_a_file_cut_short_never_gives_a_record_that_was_not_there(molecules, cut):
    whole = b"".join(pack(text, value) for text, value in molecules)
    short = whole[: min(cut, len(whole))]
    found = []
    try:
        for record in walk(short):
            found.append(record)
    except RecordError as error:
        assert str(error).startswith(f"offset {sum(len(pack(t, v)) for _, t, v in found)}:")
    else:
        assert sum(len(pack(text, value)) for _, text, value in found) == len(short)
    assert len(found) <= len(molecules)
    for (_, text, value), (text_in, value_in) in zip(found, molecules, strict=False):
        assert text == text_in and same(value, value_in)


@given(st.binary(max_size=300))
def test_no_bytes_make_walk_fail_in_another_way(raw):
    try:
        n_bytes = sum(len(pack(text, value)) for _, text, value in walk(raw))
    except RecordError:
        return
    assert n_bytes == len(raw)


@pytest.mark.parametrize(
    ("raw", "offset", "words"),
    [
        (pack("CC", 1.0) + b"\x01", 14, "expected a length of 4 bytes, found 1"),
        (pack("CC", 1.0)[:-1], 0, "expected 2 bytes of SMILES and 8 of value, found 9"),
        (b"\xff" * 20, 0, "expected 4294967295 bytes of SMILES"),
        (pack("CC", 1.0) + bytes(40), 14, "found 0: zero padding"),
        (b"\x02\0\0\0\x43\xfe" + bytes(8), 0, "found byte 0xfe at offset 5"),
    ],
)
def test_bad_bytes_say_where_and_what(raw, offset, words):
    for reader in (lambda: list(walk(raw)), lambda: unpack(raw, offset)):
        with pytest.raises(RecordError, match=f"offset {offset}: .*{words}"):
            reader()


def test_zero_padding_is_no_record_and_an_empty_smiles_is_refused():
    with pytest.raises(RecordError, match="zero padding"):
        pack("", 1.0)
    with pytest.raises(RecordError, match=r"expected text that UTF-8 can hold, found '\\ud800'$"):
        pack("\ud800", 1.0)
    read = []
    with pytest.raises(RecordError):
        read.extend(walk(pack("C", 1.0) + bytes(1 << 16)))
    assert list(walk(b"")) == [] and read == [(0, "C", 1.0)]


@pytest.mark.parametrize("offset", [-1, -14, 15, 10**12])
def test_an_offset_outside_the_buffer_is_a_record_error(offset):
    with pytest.raises(RecordError, match=f"offset {offset}:"):
        unpack(pack("CC", 1.0), offset)


def test_unpack_says_where_the_value_and_the_next_record_are():
    raw = pack("CC", 1.0) + pack("CCO", -2.5)
    record = unpack(raw, 14)
    assert record == ("CCO", -2.5, 14 + 4 + 3, len(raw))
    assert struct.unpack_from("<d", raw, record.value_offset_bytes) == (-2.5,)


def test_any_buffer_will_do_and_a_map_can_be_closed_afterwards():
    raw = pack("CC", 1.0) + pack("CCO", -2.5)
    anonymous = mmap.mmap(-1, len(raw))
    anonymous[:] = raw
    buffers = [raw, bytearray(raw), memoryview(raw), np.frombuffer(raw, np.uint8), anonymous]
    buffers.append(np.frombuffer(raw + b"\0", np.uint8)[:-1].view("u1"))
    for buf in buffers:
        assert list(walk(buf)) == [(0, "CC", 1.0), (14, "CCO", -2.5)]
        assert unpack(buf, 14).smiles == "CCO"
    stopped = walk(anonymous)
    next(stopped)
    with pytest.raises(BufferError):
        anonymous.close()
    stopped.close()
    anonymous.close()


@pytest.mark.timing
def test_walking_the_whole_file_takes_a_quarter_of_a_second():
    raw = qm9.record_file().read_bytes()

    def seconds() -> float:
        start = time.process_time()  # of a processor: it waits for nothing but its turn
        assert sum(1 for _ in walk(raw)) == 130_831
        return time.process_time() - start

    assert any(seconds() <= 0.25 for _ in range(20))


def test_a_dozen_lines_of_struct_and_open_reach_the_very_last_byte():
    path = qm9.record_file()
    n_records = 0
    with open(path, "rb") as f:
        while prefix := f.read(4):
            (length,) = struct.unpack("<I", prefix)
            assert length > 0
            text, value = f.read(length), f.read(8)
            assert len(text) == length and len(value) == 8
            n_records += 1
        assert f.tell() == path.stat().st_size
    assert n_records == 130_831
    assert records.OVERHEAD_BYTES == 12
