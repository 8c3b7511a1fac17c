"""Costs on a cold file, and the live page map without a browser: both show what the kernel says.

The kernel is asked a second time without the package: /proc/self/pagemap and mincore(2) here, and
util-linux's ``fincore`` for counts.
"""

import ctypes
import mmap
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from qm9lab import measure
from qm9lab.lessons.lesson_06 import pages, widget
from qm9lab.measure import Faults, Missing, PageStates

ROOT = Path(__file__).resolve().parent.parent
PAGE = mmap.PAGESIZE
LINUX = sys.platform == "linux"
N_PAGES = 700
RECORD = 1000


@pytest.fixture
def path():
    """A file in the repository's folder, which usually lies on a disk."""
    with tempfile.TemporaryDirectory(dir=ROOT, prefix="page-map-") as folder:
        path = Path(folder) / "pages.dat"
        path.write_bytes(os.urandom(N_PAGES * PAGE - 100))
        if LINUX and measure.file_system(path) in measure.MEMORY_ONLY:
            pytest.skip("not available here: this folder is in memory, its files stay cached")
        if LINUX:
            assert measure.make_cold(path).is_cold
        yield path


def map_file(path, **how):
    with open(path, "r+b") as f:
        return mmap.mmap(f.fileno(), 0, **how)


def session_of(path, **how):
    starts = range(0, path.stat().st_size, RECORD)
    return pages.Session(path, lambda path: map_file(path, **how), starts)


@pytest.fixture
def session(path):
    session = session_of(path)
    yield session
    session.mm.close()


def kernel_says(path, mm):
    """``(cached, mapped)`` by mincore and pagemap, read here."""
    n_pages = -(-len(mm) // PAGE)
    view = np.frombuffer(mm, np.uint8)
    address = view.ctypes.data
    del view
    with open("/proc/self/pagemap", "rb") as f:
        f.seek(address // PAGE * 8)
        entries = np.frombuffer(f.read(n_pages * 8), np.uint64)
    vector = np.zeros(n_pages, np.uint8)
    where, size = ctypes.c_void_p(address), ctypes.c_size_t(len(mm))
    assert not ctypes.CDLL(None).mincore(where, size, ctypes.c_void_p(vector.ctypes.data))
    return vector & 1 == 1, entries >> np.uint64(63) == 1


def fincore(path):
    """Pages of the file in the cache, by util-linux."""
    words = ["fincore", "--noheadings", "--raw", "--output", "PAGES", str(path)]
    return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


# Costs on a cold file ---------------------------------------------------------------------------


def cost_of(path, touch, advice):
    """As the lesson types it."""
    missing = pages.start_cold(path, advice)
    if missing:
        return missing
    with map_file(path) as mm:
        mm.madvise(pages.ADVICE[advice])
        before = pages.look(path, mm)
        start = measure.faults(thread=True)
        touch(mm)
        faults = measure.faults(thread=True).since(start)
        after = pages.look(path, mm)
    return pages.Cost(before, faults, after)


@pytest.mark.timing
@pytest.mark.skipif(not LINUX, reason="the counts are Linux's")
def test_what_each_advice_costs(path):
    def touch(mm):
        mm[300 * PAGE]

    costs = {name: cost_of(path, touch, name) for name in ("RANDOM", "WILLNEED", "POPULATE_READ")}
    counts = {name: [int(word) for word in pages.row(name, cost).split()[1:]]
              for name, cost in costs.items()}  # fmt: skip
    assert counts["RANDOM"] == [0, 0, 0, 1, 1, 1]
    assert counts["WILLNEED"][1] == 0 < counts["WILLNEED"][0]
    assert counts["POPULATE_READ"] == [N_PAGES, N_PAGES, 0, 0, N_PAGES, N_PAGES]
    assert costs["RANDOM"].after.cached[300] and fincore(path) == N_PAGES


@pytest.mark.skipif(not LINUX, reason="the counts are Linux's")
def test_a_write_maps_no_neighbours_where_the_cache_holds_single_pages(path):
    """What the lesson says of fault-around; here with pages that were written one by one."""
    contents = path.read_bytes()
    with path.open("wb", buffering=0) as f:
        for at in range(0, len(contents), PAGE):
            f.write(contents[at : at + PAGE])
    n_mapped = {}
    for write in (False, True):
        with map_file(path) as mm:
            for at in range(0, 640 * PAGE, 64 * PAGE):
                if write:
                    mm[at] = contents[at]
                else:
                    mm[at]
            n_mapped[write] = kernel_says(path, mm)[1].sum()
    assert n_mapped[False] >= n_mapped[True] == 10


@pytest.mark.skipif(not LINUX, reason="asks madvise(2)")
def test_a_cost_that_is_not_available_has_its_reason_once(path, monkeypatch):
    monkeypatch.delenv("QM9LAB_STRICT", raising=False)
    monkeypatch.setattr(pages, "ADVICE", {"RANDOM": None, "POPULATE_READ": 9999})
    for advice, why in (("RANDOM", "Linux has no MADV_RANDOM"), ("POPULATE_READ", "refuses MADV_")):
        cost = cost_of(path, None, advice)
        assert measure.is_missing(cost.before.cached, cost.faults.major, cost.after.mapped)
        row = pages.row(advice, cost)
        assert row.count(why) == row.count("not available here, because") == 1
        assert pages.png({advice: cost.after})[:4] == b"\x89PNG"


@pytest.mark.skipif(not LINUX, reason="maps a file in memory")
def test_a_file_in_memory_has_no_costs(monkeypatch):
    monkeypatch.delenv("QM9LAB_STRICT", raising=False)
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as f:
        if measure.file_system(f.name) not in measure.MEMORY_ONLY:
            pytest.skip("not available here: /dev/shm is not in memory")
        assert "has no disk" in str(pages.start_cold(f.name, "RANDOM").faults.major)


@pytest.mark.skipif(not LINUX, reason="makes a file cold")
def test_a_file_that_somebody_maps_is_not_cold(path):
    with map_file(path) as mm:
        mm[0]
        with pytest.raises(RuntimeError, match="found 1[0-9]* of 700: a process has them mapped"):
            pages.start_cold(path, "RANDOM")


# The page map -----------------------------------------------------------------------------------


ACTS = {
    "read": lambda s, d: s.touch(d.randrange(s.n_pages)),
    "write": lambda s, d: s.touch(d.randrange(s.n_pages), write=True),
    "molecule": lambda s, d: s.touch_molecule(d.randrange(s.n_molecules), d.random() < 0.5),
    "scan": lambda s, d: s.scan(d.random() < 0.2),
    "cold": lambda s, d: s.make_cold(),
    "flush": lambda s, d: s.flush(),
    "drop": lambda s, d: s.drop(),
    "look": lambda s, d: s.look(),
    "advise": lambda s, d: s.advise(d.choice([*pages.MODES, *pages.ACTIONS])),
}
OFTEN = ["read", "write", "molecule", "advise", "drop", "cold", "flush", "look", "scan"]


@pytest.mark.timing
@pytest.mark.skipif(not LINUX, reason="asks /proc/self/pagemap")
@pytest.mark.parametrize("seed", range(12))
def test_after_each_act_the_map_is_what_the_kernel_says(seed, path, session):
    contents, draw = path.read_bytes(), random.Random(seed)
    view = widget.PageMap(session)
    for n, act in enumerate(draw.choices(OFTEN, [6, 4, 4, 4, 2, 2, 1, 1, 1], k=25)):
        ACTS[act](session, draw)
        deadline = time.monotonic() + 5
        while True:  # the kernel writes back and reads ahead when it likes: look until it rests
            cached, mapped = kernel_says(path, session.mm)
            if np.array_equal(cached, session.now.cached) or time.monotonic() > deadline:
                break
            session.look()
        now = session.now
        assert np.array_equal(now.cached, cached) and np.array_equal(now.mapped, mapped), (n, act)
        if shutil.which("fincore"):
            assert now.cached.sum() == fincore(path)
        assert not (now.dirty & ~now.cached).any()
        if act in ("read", "write", "molecule", "scan"):
            step = next(step for step in session.steps[::-1] if step.name != "look again")
            assert step.after.mapped[list(step.touched)].all(), (n, act)
        view._hear(view, {"act": "look"}, [])
        drawn = np.frombuffer(view.states, np.uint8)
        assert np.array_equal(drawn & pages.MAPPED > 0, session.now.mapped)
        assert np.array_equal(drawn & pages.CACHED > 0, session.now.cached)
        assert np.array_equal(drawn & pages.DIRTY > 0, session.now.dirty)
    assert path.read_bytes() == contents, "writes put back what was there"


def test_what_each_act_does(path, session):
    if not LINUX:
        pytest.skip("the counts are Linux's")
    session.make_cold()
    assert "No page is left" in session.steps[-1].sentence
    session.advise("RANDOM")
    assert session.mode == "RANDOM"
    step = session.touch(300)
    assert step.faults[:2] == (0, 1) and "on disk only" in step.sentence
    assert session.now.cached.sum() == session.now.mapped.sum() == 1
    step = session.touch(300)
    assert step.faults[:2] == (0, 0) and "mapped already" in step.sentence
    assert "No other page changed" in step.sentence
    step = session.touch(300, write=True)
    assert step.faults[:2] == (1, 0) and session.now.dirty.sum() == 1
    step = session.make_cold()
    assert "1 page stayed: what is mapped is not evicted" in step.sentence
    assert not session.now.dirty.any()
    session.touch(301, write=True)
    assert "no longer dirty" in session.flush().sentence and not session.now.dirty.any()
    step = session.advise("DONTNEED")
    assert "2 no longer mapped" in step.sentence and session.now.cached.sum() == 2
    step = session.touch(300)
    assert step.faults[:2] == (1, 0) and "in the page cache, not mapped" in step.sentence
    session.drop()
    assert session.mode == "NORMAL" and not session.now.mapped.any()
    session.scan()
    assert session.now.mapped.all() and session.steps[-1].touched == list(range(N_PAGES))


@pytest.mark.skipif(not LINUX, reason="Linux's advice")
def test_populate_read_maps_all_or_gives_the_reason(session):
    step = session.advise("POPULATE_READ")
    assert session.now.mapped.all() or "not available here, because" in step.sentence


def test_advice_that_the_kernel_refuses_is_reported(session, monkeypatch):
    monkeypatch.setattr(pages, "ADVICE", {"POPULATE_READ": 9999})
    sentence = session.advise("POPULATE_READ").sentence
    assert sentence.startswith("madvise POPULATE_READ: not available here, because [Errno 22]")
    assert session.mode == "NORMAL"


def test_a_map_to_read_only_says_that_it_cannot_be_written_to(path):
    session = session_of(path, access=mmap.ACCESS_READ)
    assert "Write to page 3: " in session.touch(3, write=True).sentence
    assert "can't modify" in session.steps[-1].sentence
    session.mm.close()


def test_molecules_and_their_pages(session):
    size = N_PAGES * PAGE - 100
    spans = [range(at, min(at + RECORD, size)) for at in range(0, size, RECORD)]
    on_page = [[] for _ in range(N_PAGES)]
    for molecule, span in enumerate(spans):
        touched = sorted({byte // PAGE for byte in (span[0], span[-1])})
        for page in touched:
            on_page[page].append(molecule)
    found = session.molecules_by_page().tolist()
    assert found == [[each[0], each[-1]] for each in on_page]
    for molecule in (0, 4, 2000, len(spans) - 1):
        on = [page for page, numbers in enumerate(on_page) if molecule in numbers]
        assert session.touch_molecule(molecule).touched == on


@pytest.mark.parametrize("call", ["touch", "touch_molecule"])
def test_a_page_or_molecule_that_is_not_there_is_refused(session, call):
    for number in (-1, 10**6):
        with pytest.raises(IndexError, match=f"expected .* found {number}"):
            getattr(session, call)(number)


def test_what_the_system_does_not_show_is_unknown_and_has_its_reason(session, monkeypatch):
    monkeypatch.delenv("QM9LAB_STRICT", raising=False)
    no_mincore, no_proc = Missing("Windows has no mincore"), Missing("Windows has no /proc")
    nothing = PageStates(no_mincore, no_proc, no_mincore, no_proc)
    no_faults = Faults(*[Missing("psutil counts no faults")] * 2, "")
    monkeypatch.setattr(measure, "page_states", lambda path, mm: nothing)
    monkeypatch.setattr(measure, "faults", lambda thread: no_faults)
    session.now = nothing
    view = widget.PageMap(session)
    for message in MESSAGES:
        view._hear(view, message, [])
    session.make_cold()
    assert f"Whether it is cold is {no_mincore}" in session.steps[-1].sentence
    sentence = session.touch(3).sentence
    assert f"minor faults {no_faults.minor}. The cause is {no_mincore}" in sentence
    assert set(view.states) == {pages.UNKNOWN}
    why = f"cached: {no_mincore}; mapped: {no_proc}; dirty: {no_mincore}; copied: {no_proc}"
    assert view.facts["unavailable"] == why and view.lines[0][1:] == ["?"] * 5
    assert view._repr_mimebundle_()[0]["image/png"][:4] == b"\x89PNG"


def test_a_system_that_counts_both_kinds_together(session, monkeypatch):
    monkeypatch.delenv("QM9LAB_STRICT", raising=False)
    together = Faults(0, Missing("Windows counts both together"), "psutil num_page_faults")
    monkeypatch.setattr(measure, "faults", lambda thread: together)
    assert f"major faults {together.major}, 0 minor faults" in session.touch(3).sentence


MESSAGES = [
    {"act": "touch", "args": [5, False]},
    {"act": "touch", "args": [5, True]},
    {"act": "touch_molecule", "args": [9, False]},
    {"act": "scan", "args": [False]},
    {"act": "advise", "args": ["RANDOM"]},
    *({"act": act, "args": []} for act in ("flush", "drop", "make_cold", "look")),
]


def test_the_widget_does_what_it_is_asked_and_shows_it(session):
    view = widget.PageMap(session)
    assert view.sentence == widget.START and view.step == 0
    assert view.facts["n_pages"] == N_PAGES and (not LINUX or view.facts["unavailable"] == "")
    for n, message in enumerate(MESSAGES, 1):
        view._hear(view, message, [])
        assert view.step == len(session.steps) == n and view.sentence == session.steps[-1].sentence
        touched = session.steps[-1].touched
        assert len(view.states) == N_PAGES
        assert view.touched == (touched if len(touched) <= widget.MOST_RINGS else [])
        assert view.mode == session.mode
    assert [line[0] for line in view.lines] == [step.name for step in session.steps[:-7:-1]]
    first = np.frombuffer(view.molecules, "<i4").reshape(-1, 2)
    assert np.array_equal(first, session.molecules_by_page())


def test_the_widget_shows_a_picture_and_a_sentence_where_it_is_not_live(session):
    view = widget.PageMap(session)
    session.touch(3)
    view._show()
    data, _ = view._repr_mimebundle_()
    assert data["image/png"][:4] == b"\x89PNG" and data["text/plain"] == session.steps[-1].sentence
    assert "application/vnd.jupyter.widget-view+json" in data


def test_the_view_asks_for_nothing_from_the_web():
    folder = Path(widget.__file__).parent
    for name in ("page_map.js", "page_map.css"):
        source = (folder / name).read_text(encoding="utf-8")
        assert "http" not in source and "import " not in source and "@import" not in source


@pytest.mark.parametrize("n_pages", [1, 15, 16, 40, 2411, 32_768, 262_144])
def test_all_pages_fit_into_the_canvas(n_pages):
    n = pages.columns(n_pages)
    cell = min(22, 900 // n)
    assert cell >= 1 and -(-n_pages // n) * cell <= 400 and n * cell <= 900


@pytest.mark.timing
@pytest.mark.skipif(not LINUX, reason="128 MiB of pagemap")
def test_128_mib_are_shown_within_a_tenth_of_a_second():
    """From the end of the act to the message: the look, the words, and one byte a page."""
    with tempfile.TemporaryDirectory(dir=ROOT, prefix="page-map-") as folder:
        path = Path(folder) / "big.dat"
        with open(path, "wb") as f:
            for _ in range(128):
                f.write(bytes(1 << 20))
        session = session_of(path)
        view = widget.PageMap(session)
        for page in range(0, session.n_pages, 2):  # every second page dirty: the slowest
            session.mm[page * PAGE] = 0
        elapsed_s = []
        for _ in range(5):
            start_s = time.perf_counter()
            view._hear(view, {"act": "touch", "args": [7]}, [])
            elapsed_s.append(time.perf_counter() - start_s)
        session.mm.close()
    assert min(elapsed_s) < 0.1, elapsed_s
