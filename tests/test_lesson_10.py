"""Lesson 10: what its helpers compute and its scripts report, each against another instrument."""

import json
import mmap
import os
import platform
import random
import re
import resource
import sys
import tempfile
from pathlib import Path

import nbformat
import numpy as np
import pytest

from qm9lab import files, measure
from qm9lab.course import folders, outcomes, plots
from qm9lab.lessons.lesson_10 import claims, limits
from qm9lab.lessons.lesson_10 import pictures as costs
from qm9lab.processes import run_script

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "notebooks" / "10_costs_and_limits.ipynb"
PAGE, MIB = mmap.PAGESIZE, 1 << 20
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
x86_64 = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="MAP_32BIT is x86-64's"
)


def write(path, content):
    with open(path, "wb", buffering=0) as f:
        files.write_all(f, content, PAGE)


# Pages and holes -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_pages_are_those_of_the_bytes_one_by_one(seed):
    draw = random.Random(seed)
    page = draw.choice([512, 4096, 16_384])
    spans = [(draw.randrange(5 * page), draw.randrange(1, 3 * page)) for _ in range(5)]
    pages = [{b // page for b in range(start, start + n)} for start, n in spans]
    assert limits.mapped_bytes(spans, page) == sum(map(len, pages)) * page
    assert limits.mapped_bytes([]) == 0


@pytest.mark.parametrize("seed", range(20))
def test_the_largest_hole_is_that_of_the_addresses_one_by_one(seed):
    draw = random.Random(seed)
    taken = [(at, at + draw.randrange(1, 9)) for at in draw.sample(range(-5, 60), 6)]
    window = (draw.randrange(0, 9), draw.randrange(40, 70))
    inside = {a for start, end in taken for a in range(start, end)}
    free = "".join("." if a not in inside else "t" for a in range(*window)).split("t")
    assert largest_hole(taken, *window) == max(map(len, free))
    assert largest_hole([], 3, 5) == 2 and largest_hole([(0, 9)], 3, 5) == 0


def largest_hole(taken, begin, end):
    return limits.Window(begin, end, 0, taken, 0, 0).hole_bytes


# Claims --------------------------------------------------------------------------------------


@pytest.fixture
def missing(monkeypatch):
    monkeypatch.delenv("QM9LAB_STRICT", raising=False)
    return measure.Missing("of a test")


def test_a_verdict_is_computed_from_its_cases(missing):
    assert claims.judge({"a": True, "b": np.True_}) == "true"
    assert claims.judge({"a": False}) == "false"
    assert claims.judge({"a": True, "b": False}) == "it depends"
    assert claims.judge({"a": True, "b": missing}) == "true"
    assert claims.judge({"a": missing, "b": measure.Missing("another")}) is missing


@pytest.mark.parametrize("wrong", [None, 1, 0.5, "holds", [True]])
def test_a_case_that_is_no_truth_value_is_an_error_and_not_missing(wrong):
    with pytest.raises(TypeError, match="case 'a': expected True, False or Missing, found"):
        claims.judge({"a": wrong})


def test_the_table_of_claims(missing, monkeypatch):
    listed = [
        claims.Claim("b", "c", "d", ["x", "y"]),
        claims.Claim("d", "e", "f", ["x"]),
        claims.Claim("g", "h", "i", ["x"]),
    ]
    monkeypatch.setattr(claims, "public_claims", lambda: listed)
    cases = {1: {"x": False, "y": missing}, 2: {"x": True}, 3: {"x": missing}}
    assert claims.table(["False", "depends", ...], cases).splitlines() == [
        "your guesses: 1 of 3 as computed here",
        " 1 false (your guess: False): b",
        f"   d? x: does not hold; y: {missing}",
        " 2 true (your guess: depends): d",
        "   f? x: holds",
        f" 3 {missing} (your guess: none yet): g",
        f"   i? x: {missing}",
    ]
    for wrong in ({}, {"y": True}):  # not what the learner read before guessing
        with pytest.raises(ValueError, match=r"claim 2: expected \['x'\], found"):
            claims.table([..., ..., ...], cases | {2: wrong})


def test_the_lesson_shows_the_claims_of_the_package_before_the_guess():
    public = claims.public_claims()
    assert len(public) == 12 and len({claim.address for claim in public}) == 12
    assert all(len(set(claim.cases)) == len(claim.cases) > 0 for claim in public)
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    text = next(cell.source for cell in cells if cell.source.startswith("## Twelve public claims"))
    rows = re.findall(r"^\| \d+ \| \[(.*)\]\((.*)\) \| (.*) \| (.*) \|$", text, re.M)
    assert rows == [(*claim[:3], "; ".join(claim.cases)) for claim in public]


# Pictures ------------------------------------------------------------------------------------


@pytest.fixture
def ax():
    return plots.new_figure(8, 3).subplots()


def texts(ax):
    return [t.get_text() for t in ax.texts if t.get_text()]


def a_window(answer):
    taken = [(1 << 30, 5 << 28), (7 << 28, 1 << 31)]
    return limits.Window(1 << 30, 1 << 31, 1 << 29, taken, answer, 7)


@pytest.mark.parametrize(
    ("answer", "words"), [("ENOMEM", "in one piece: ENOMEM"), (1 << 30, "the kernel gave it")]
)
def test_a_window_has_its_pieces_to_scale_and_the_kernel_s_answer(ax, answer, words):
    window = a_window(answer)
    costs.address_window(ax, window, 1 << 29)
    boxes = [(p.get_x(), p.get_width()) for p in ax.patches]
    assert boxes == [(0, 100), (0, 25), (75, 25), (0, 50)]
    assert "taken (grey): 512 MiB, free (white): 512 MiB, largest hole: 512 MiB" in texts(ax)
    assert {"address 1.00 GiB", "address 2.00 GiB"} <= set(texts(ax))
    assert texts(ax)[-1].startswith("asked for, to scale: 512 MiB") and words in texts(ax)[-1]
    assert window.hole_bytes == 1 << 29 and window.has_room == (answer != "ENOMEM")
    assert window.results == ("ENOMEM" if answer == "ENOMEM" else "there", "there")


# The lesson's scripts against other instruments --------------------------------------------------


def cell_source(beginning):
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    (found,) = [cell.source for cell in cells if cell.source.startswith(beginning)]
    return found


@pytest.fixture(scope="module")
def scripts():
    """The scripts for child processes that the lesson's cells define."""
    found = {}
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        for match in re.finditer(r'^([A-Z]+) = r"""\n(.*?)"""', cell.source, re.M | re.S):
            found[match[1]] = match[2] + "\n"
    return found


@pytest.fixture
def scratch():
    """A folder on the data's disk: that of the tests may be in memory."""
    with tempfile.TemporaryDirectory(dir=folders.lesson_folder()) as folder:
        yield Path(folder)


@pytest.fixture
def one_page(scratch):
    path = scratch / "one.dat"
    path.write_bytes(b"x")
    return path


def lines_of(script, *args):
    """What each line of a script's output holds, as JSON."""
    done = run_script(script, *args)
    assert done.returncode == 0, done.stderr
    return list(map(json.loads, done.stdout.splitlines()))


ROLLUP = r"""
def rollup():
    with open("/proc/self/smaps_rollup") as f:
        lines = dict(line.split(":") for line in f.readlines()[1:])
    return [1024 * int(lines[name].split()[0]) for name in ("Rss", "Pss")]
"""


@linux
def test_rss_counts_a_page_for_each_map_of_it_and_pss_once(scripts, scratch):
    """PSS divides each page by the maps of it, whoever made them: the page cache's side."""
    path = scratch / "packed.dat"
    path.write_bytes(bytes(100 * 45))
    spans = [(45 * k, 45) for k in range(100)]
    script = ROLLUP + scripts["WASTE"].replace("with open", "first = rollup()\nwith open", 1)
    script = script.replace("if sys.platform", "after = rollup()\nif sys.platform", 1)
    script += "print(json.dumps([b - a for a, b in zip(first, after)]))"
    counted, (rss, pss) = lines_of(script, path, json.dumps(spans))
    expected = limits.mapped_bytes(spans)
    assert expected == counted and expected <= rss < expected + 32 * PAGE
    assert pss < 0.3 * expected


@linux
@pytest.mark.parametrize("limit", [64, 256, 1000])
def test_descriptors_run_out_at_the_limit_whatever_it_is(scripts, one_page, limit):
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < limit:
        pytest.skip(f"this process may not have {limit} descriptors")
    script = scripts["DESCRIPTORS"].replace("256, 256", f"{limit}, {limit}")
    # A second count of what was open: the kernel's, by name, when the limit is met.
    script += "os.close(0)\nprint(len(os.listdir('/proc/self/fd')) - 1)\n"
    (before, n_maps, error), still_open = lines_of(script, one_page)
    assert error == "EMFILE" and before + 1 + n_maps == limit
    assert still_open == n_maps + before - 1  # without 0 and the last file


@linux
def test_c_maps_outnumber_the_descriptors(scripts, one_page):
    script = "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
    script += scripts["MAPS"].replace("1_200_000", "1_000")
    script += "print(sum(sys.argv[1] in line for line in open('/proc/self/maps')))\n"
    (_, n_maps, error, most), n_regions = lines_of(script, one_page)
    assert n_maps == n_regions == 1000 and error == "no error"
    assert most == int(Path("/proc/sys/vm/max_map_count").read_text())


@linux
@pytest.mark.timing
def test_regions_run_out_at_max_map_count_and_take_malloc_with_them(scripts, one_page):
    """The exit status reports the MemoryError: 3.13.5 cannot print one at this limit."""
    if int(Path("/proc/sys/vm/max_map_count").read_text()) > 1_200_000:
        pytest.skip("so many regions that the lesson stops before")
    done = run_script(scripts["MAPS"], one_page)
    before, n_maps, error, most = outcomes.values_of(done, 4)
    assert error == "ENOMEM" and done.returncode == 3 and not done.stderr
    # The kernel refuses when there are more than the limit (mm/mmap.c), so it allows one more.
    assert abs(before + n_maps - most - 1) < 20


def window_of(scripts, piece_mib, asked_mib, freed):
    script = scripts["WINDOW"] + scripts["HOLES"]
    done = run_script(script, piece_mib * MIB, asked_mib * MIB, freed)
    return limits.Window(*outcomes.values_of(done, 6))


@x86_64
@pytest.mark.parametrize(("piece", "asked"), [(32, 96), (16, 96), (64, 192)])
def test_three_pieces_worth_is_never_there(scripts, piece, asked):
    window = window_of(scripts, piece, asked, "every 2nd")
    assert window.results == ("ENOMEM", "there") and window.freed_bytes > 2 * asked * MIB
    assert window.begin >= 1 << 30 and all(end <= window.end for _, end in window.taken)
    # The list of regions is the kernel's: what is not in it is free.
    n_taken = sum(end - start for start, end in window.taken)
    assert window.end - window.begin - n_taken >= window.freed_bytes
    assert window.hole_bytes < asked * MIB


@x86_64
@pytest.mark.parametrize(
    ("piece", "freed"), [(16, "every 2nd"), (32, "every 4th"), (64, "the first half")]
)
def test_the_kernel_agrees_with_the_computed_hole(scripts, piece, freed):
    """Where the hole is well above or below what is asked: its lower edge is drawn at random."""
    for asked in (8, 320):
        window = window_of(scripts, piece, asked, freed)
        assert window.has_room == (window.hole_bytes >= asked * MIB), (asked, window)


@linux
@pytest.mark.parametrize("n_spans", [1, 8])
def test_tables_are_whole_pages_that_cover_a_span(scripts, scratch, n_spans):
    span = PAGE * PAGE // 8
    if n_spans * span > 256 * MIB:
        pytest.skip("pages so large that the file would be, too")
    path = scratch / "tables.dat"
    write(path, bytes(n_spans * span))
    for step in (PAGE, span):
        ((n, kib, huge_kib),) = lines_of(scripts["KIB"] + scripts["TABLES"], path, step)
        assert n == n_spans * span // step
        mapped_small = n_spans * span - 1024 * huge_kib
        assert abs(1024 * kib - 8 * mapped_small // PAGE) <= 4 * PAGE


@linux
@pytest.mark.timing
def test_a_flush_a_record_makes_a_page_a_record_dirty_and_faults_agree(scripts, scratch):
    path = scratch / "flush.dat"
    if measure.file_system(scratch) in measure.MEMORY_ONLY or not os.path.exists("/proc/self/io"):
        pytest.skip("no disk, or no account of it")
    write(path, bytes(3 * PAGE))
    spans = [(45 * k, 45) for k in range(200)]
    script = scripts["FLUSH"].replace("for k,", "first = measure.faults()\nfor k,", 1)
    script = f"from qm9lab import measure\n{script}print(measure.faults().since(first).minor)"
    n_once, faults_once = lines_of(script, path, json.dumps(spans), 200)
    n_each, faults_each = lines_of(script, path, json.dumps(spans), 1)
    assert n_once >= 3 and n_each > 20 * n_once
    # After a flush a store is a minor fault, once for each page made dirty.
    assert faults_each - faults_once > 150
    assert n_each >= limits.mapped_bytes(spans) // PAGE


REGION = r"""
import os, psutil
path = os.path.realpath(sys.argv[1])
ours = [m for m in psutil.Process().memory_maps(grouped=False) if m.path == path]
print(json.dumps([sum(m.rss + m.swap for m in ours), sum(m.anonymous + m.swap for m in ours)]))
"""


def kept_script(scripts, way):
    """The lesson's script; for a private map with the changes that the lesson's cell makes."""
    kept = scripts["KIB"] + scripts["KEPT"]
    if way == "private":
        kept = kept.replace("READ", "COPY").replace("    mm[::", "    mm[:: mmap.PAGESIZE] = mm[::")
    return kept


@linux
@pytest.mark.timing
@pytest.mark.parametrize("way", ["shared", "private"])
def test_what_is_kept_is_what_the_region_s_own_account_says(scripts, scratch, way):
    if measure.file_system(scratch) in (*measure.MEMORY_ONLY, "overlay"):
        pytest.skip("no disk to page out to")
    path, size = scratch / "kept.dat", 16 * MIB
    write(path, bytes(size))
    measure.make_cold(path)
    shares, (rss, own) = lines_of(kept_script(scripts, way) + REGION, path)
    n_expected = 0 if way == "shared" else size
    assert own == n_expected and rss == pytest.approx(n_expected, abs=0.05 * size)
    assert [shares[4], shares[9]] == pytest.approx([own / size, rss / size], abs=0.1)
    assert shares[6] == pytest.approx(1, abs=0.1) and shares[7] < 0.1
    cached = shares[10:]
    assert cached[1:4] == pytest.approx([1, 1, 1])
    assert way == "private" or cached[4] < 0.05
    assert bytes(size) == path.read_bytes()


@linux
def test_on_tmpfs_rss_falls_and_the_pages_stay_cached(scripts, monkeypatch):
    """What the first edition took for proof that they were gone; claim 3 asks the page cache."""
    if not os.path.isdir("/dev/shm") or measure.file_system("/dev/shm") != "tmpfs":
        pytest.skip("no tmpfs")
    monkeypatch.delenv("QM9LAB_STRICT", raising=False)  # tmpfs has no dirty pages to count
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as f:
        f.write(bytes(4 * MIB))
        f.flush()
        (shares,) = lines_of(kept_script(scripts, "shared"), f.name)
    assert shares[6] > 0.9 and shares[9] < 0.1  # RSS after the scan, and after MADV_PAGEOUT
    assert shares[14] == 1  # the page cache
    names = {"rss": shares[5:10], "own": shares[:5], "cached": shares[10:], "private": shares}
    names |= {"cases": {}, "seen": "new", "after": b"new", "n_dirty": [1, 1, 1], "claims": claims}
    exec(cell_source("cases[1] ="), names)
    assert names["cases"][3]["clean"] is False


@linux
def test_two_gib_of_addresses_hold_one_and_not_two(scripts, scratch):
    path = scratch / "sparse.dat"
    path.touch()
    os.truncate(path, 4 << 30)
    # The size of the address space, which the limit is on, as the kernel reports it.
    script = scripts["NARROW"] + "print(open('/proc/self/statm').read().split()[0])"
    answers, n_pages = lines_of(script, path)
    assert answers == ["a map", "ENOMEM"] and 0 < n_pages * PAGE < 1 << 30


@linux
def test_a_large_map_that_ulimit_refuses_is_caught_and_shown(scratch):
    path = scratch / "sparse.dat"
    path.touch()
    os.truncate(path, 8 << 30)
    function = cell_source("NARROW =").partition("\n\n\n")[2]
    script = "import errno, json, resource, sys\nimport numpy as np\n" + function
    script += "\nprint(json.dumps(map_whole(sys.argv[1])))"
    limit = "\nresource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))\ndef map_whole"
    assert lines_of(script, path) == ["8,589,934,592 bytes"]
    assert lines_of(script.replace("\ndef map_whole", limit), path) == ["ENOMEM"]


@linux
def test_what_was_killed_lost_nothing_and_what_was_cut_short_died(scripts, scratch):
    path = scratch / "end.dat"
    path.write_bytes(b"old" + bytes(3 * PAGE))
    killed = run_script(scripts["KILLED"], path)
    assert killed.signal == "SIGKILL" and outcomes.value_of(killed) == "new"
    assert path.read_bytes() == b"new" + bytes(3 * PAGE)
    cut = run_script(scripts["CUT"], path)
    assert cut.signal == "SIGBUS" and outcomes.value_of(cut) == "b''"
