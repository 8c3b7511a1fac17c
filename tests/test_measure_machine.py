"""Calibration: against hand-written measurements, and the card that keeps it."""

import json
import mmap
import os
import random

import pytest

from qm9lab import measure
from qm9lab.course import folders
from qm9lab.measure import machine

pytestmark = pytest.mark.timing


@pytest.fixture
def counted(monkeypatch):
    """How often the machine was really measured."""
    times, real = [], machine._measure
    monkeypatch.setattr(machine, "_measure", lambda *words: times.append(1) or real(*words))
    return times


def test_it_agrees_with_a_measurement_by_hand():
    folder = folders.lesson_folder()
    found = measure.calibrate(folder)
    assert found.page_bytes == mmap.PAGESIZE
    assert found.granularity_bytes == mmap.ALLOCATIONGRANULARITY
    assert found.file_system == measure.file_system(folder)
    assert found.fault_source == measure.faults().source
    assert [p for p in folder.iterdir() if p.name.startswith("calibrate-")] == []
    if found.can_evict is not True:
        pytest.skip(f"can evict: {found.can_evict}")
    path = folder / "by_hand.dat"
    path.write_bytes(os.urandom(machine.FILE_BYTES))
    assert measure.make_cold(path).is_cold is True
    with path.open("rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as mm:
        assert mm[len(mm) // 2] >= 0
        assert measure.cache_state(path).n_cached == found.readahead_pages
    path.read_bytes()
    with path.open("rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as mm:
        mm[random.randrange(len(mm))]
        mapped = measure.mapped_pages(mm)
    path.unlink()
    assert 1 <= found.fault_around_small_pages <= found.readahead_pages
    assert mapped.sum() >= 1


def test_each_number_stands_under_its_own_name(tmp_path, monkeypatch):
    """(pages mapped, pages cached) by one touch, of the two files and of the cold one."""
    touched, cold = [], []

    def one_touch(path):
        touched.append(path.stem)
        return (7, 70) if path.stem == "large_pieces" else (9, 80) if cold else (5, 50)

    def make_cold(path):
        cold.append(path.stem)
        return measure.CacheState(1, 0, 0, True, "cachestat")

    monkeypatch.setattr(machine, "_one_touch", one_touch)
    monkeypatch.setattr(machine, "make_cold", make_cold)
    found = measure.calibrate(tmp_path)
    assert (found.fault_around_small_pages, found.fault_around_large_pages) == (5, 7)
    assert found.can_evict and found.readahead_pages == 80
    assert cold == ["small_pieces"] and sorted(set(touched)) == ["large_pieces", "small_pieces"]


def test_the_card_is_written_and_read_back(tmp_path, counted):
    card = tmp_path / "new" / "card.json"
    first = measure.calibrate(tmp_path, card)
    assert counted == [1] and json.loads(card.read_text())["page_bytes"] == mmap.PAGESIZE
    assert measure.calibrate(tmp_path, card) == first and counted == [1]
    assert [p.name for p in card.parent.iterdir()] == ["card.json"]


@pytest.mark.parametrize(
    "name", ["kernel", "python", "file_system", "page_bytes", "fault_source", "readahead_setting"]
)
def test_a_card_of_another_machine_is_measured_anew(tmp_path, counted, name):
    card = tmp_path / "card.json"
    found = measure.calibrate(tmp_path, card)
    card.write_text(json.dumps({**found._asdict(), name: "another"}))
    assert measure.calibrate(tmp_path, card)[:4] == found[:4]
    assert counted == [1, 1] and json.loads(card.read_text())[name] != "another"


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '{"page_bytes": 1}', "\x00"])
def test_a_damaged_card_is_measured_anew(tmp_path, counted, text):
    card = tmp_path / "card.json"
    card.write_text(text)
    assert measure.calibrate(tmp_path, card).page_bytes == mmap.PAGESIZE
    assert counted == [1]


def test_a_card_that_cannot_be_written_is_done_without(tmp_path, counted):
    (tmp_path / "file").touch()
    found = measure.calibrate(tmp_path, tmp_path / "file" / "card.json")
    assert found.page_bytes == mmap.PAGESIZE and counted == [1]


def test_the_card_lies_beside_the_data_or_in_the_user_s_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("QM9LAB_DATA", str(tmp_path))
    assert folders.machine_card().parent == tmp_path and folders.machine_card().suffix == ".json"
    monkeypatch.setenv("QM9LAB_DATA", str(tmp_path / "not_there_yet"))
    assert folders.machine_card().parent == tmp_path / "not_there_yet"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    import platformdirs

    assert folders.machine_card().parent == platformdirs.user_cache_path("qm9lab")
