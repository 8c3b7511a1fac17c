"""Lesson 10: what its helpers compute and its scripts say, each against another instrument."""

import json
import mmap
import os
import platform
import random
import re
import resource
import sys
import time
import tomllib
from pathlib import Path

import nbformat
import pytest

from qm9lab import measure
from qm9lab.course import folders, plots
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


# Pages and holes -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_pages_are_those_of_the_bytes_one_by_one(seed):
    draw = random.Random(seed)
    page = draw.choice([512, 4096, 16_384])
    spans = [(draw.randrange(5 * page), draw.randrange(1, 3 * page)) for _ in range(5)]
    pages = [{b // page for b in range(start, start + n)} for start, n in spans]
    assert [limits.pages_spanned(*span, page) for span in spans] == list(map(len, pages))
    asked, mapped = found = limits.waste(spans, page)
    assert (asked, mapped) == (sum(n for _, n in spans), sum(map(len, pages)) * page)
    assert found.share == 1 - asked / mapped


def test_nothing_asked_for_takes_no_page():
    assert limits.pages_spanned(100, 0) == 0
    assert limits.waste([]) == (0, 0) and limits.waste([]).share == 0.0
    assert limits.waste([(0, PAGE)]).share == 0.0


@pytest.mark.parametrize("seed", range(20))
def test_holes_are_those_of_the_addresses_one_by_one(seed):
    draw = random.Random(seed)
    taken = [(at, at + draw.randrange(1, 9)) for at in draw.sample(range(-5, 60), 6)]
    window = (draw.randrange(0, 9), draw.randrange(40, 70))
    free = set(range(*window)) - {a for start, end in taken for a in range(start, end)}
    found = limits.holes(taken, window)
    assert {a for start, end in found for a in range(start, end)} == free
    assert all(start < end for start, end in found)
    assert all(one[1] < two[0] for one, two in zip(found, found[1:], strict=False))
    assert limits.largest_hole(taken, window) == max((b - a for a, b in found), default=0)


def test_a_window_left_out_reaches_from_the_first_to_the_last():
    assert limits.holes([(8, 9), (1, 3), (2, 5)]) == [(5, 8)]
    assert limits.holes([]) == [] and limits.largest_hole([]) == 0
    assert limits.holes([], (3, 5)) == [(3, 5)]


# Claims --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cases", "verdict"),
    [
        ({"a": True, "b": True}, "true"),
        ({"a": False}, "false"),
        ({"a": True, "b": False}, "it depends"),
        ({"a": True, "b": None}, "true"),
        ({"a": None}, "not available here, because this system could not try it"),
    ],
)
def test_a_verdict_is_computed_from_its_cases(cases, verdict):
    assert claims.judge(cases).verdict == verdict
    words = {True: "holds", False: "does not hold", None: "could not be tried here"}
    assert claims.judge(cases).cases == "; ".join(f"{c}: {words[h]}" for c, h in cases.items())


def test_the_table_of_claims_fills():
    listed = [
        claims.Claim("<a>", "http://x.org?a&b", "a < b", ("x", "y")),
        claims.Claim("b", "c", "d", ("x", "y", "z")),
        claims.Claim("d", "e", "f", ("x",)),
    ]
    table = claims.Claims(["False", "depends"], listed)
    assert table.verdicts == [None] * 3 and table.n_right == 0
    missing = None
    table.judge(1, {"x": lambda: 1 < 0, "y": lambda: None})
    table.judge(2, {"x": lambda: True, "y": lambda: None < 1, "z": lambda: missing["a"]})
    table.judge(3, {"x": lambda: True})
    assert table.verdicts == ["false", "true", "true"] and table.n_right == 1
    first, second, third = repr(table).splitlines()[:3]
    assert first == "your guesses: 1 of 3 as computed here"
    assert second == " 1 FALSE (your guess: False): <a>"
    assert third == "   a < b? x: does not hold; y: could not be tried here"
    html = table._repr_html_()
    assert '<a href="http://x.org?a&amp;b">&lt;a&gt;</a>' in html and html.count("<tr>") == 4
    assert ">a &lt; b</td>" in html and "x: does not hold<br>y: could not be tried here" in html
    assert "none yet" in html and first in html
    for number in (0, 4):
        with pytest.raises(ValueError, match=f"a claim from 1 to 3, found {number}"):
            table.judge(number, {})
    with pytest.raises(ValueError, match=r"claim 3: expected the cases \['x'\], found \['y'\]"):
        table.judge(3, {"y": lambda: True})  # not what the learner read before guessing
    with pytest.raises(NameError):  # a slip of the pen is no verdict
        table.judge(3, {"x": lambda: missing_name})  # noqa: F821


def test_what_a_script_said_or_why_it_said_nothing():
    assert limits.said(run_script("print('[1, null]')\nprint('more')\n1 / 0")) == ([1, None], "")
    value, why = limits.said(run_script("import sys\nsys.exit('this system has none')"))
    assert value is None and why == "not available here, because this system has none"
    assert limits.said(run_script("")).why == "not available here, because exit status 0"


def test_a_file_is_written_in_pieces(tmp_path):
    content = random.Random(1).randbytes(1000)
    for piece in (1, 300, 1000, 5000):
        limits.write_in_pieces(tmp_path / "x", content, piece)
        assert (tmp_path / "x").read_bytes() == content


def test_the_lesson_shows_the_claims_of_the_package_before_the_guess():
    listed = tomllib.loads((ROOT / "qm9lab" / "claims.toml").read_text("utf-8"))["claims"]
    public = claims.public_claims()
    assert [{**c._asdict(), "cases": list(c.cases)} for c in public] == listed
    assert len(public) == 12 and len({claim.address for claim in public}) == 12
    assert all(len(set(claim.cases)) == len(claim.cases) > 0 for claim in public)
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    text = next(cell.source for cell in cells if cell.source.startswith("## Twelve public claims"))
    rows = re.findall(r"^\| \d+ \| \[(.*)\]\((.*)\) \| (.*) \| (.*) \|$", text, re.M)
    assert rows == [(*claim[:3], "; ".join(claim.cases)) for claim in public]
    # And each is judged in the cells: the names of the cases there, judge compares.
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    assert sorted(map(int, re.findall(r"public\.judge\((\d+),", code))) == list(range(1, 13))


# Pictures ------------------------------------------------------------------------------------


@pytest.fixture
def ax():
    return plots.new_figure(8, 3).subplots()


def texts(ax):
    return [t.get_text() for t in ax.texts if t.get_text()]


def test_a_bar_of_waste_is_as_long_as_its_bytes_and_says_what_is_missing(ax):
    costs.waste_bars(ax, [("computed", 1024, 4096), ("RSS", 1024, None), ("tight", 2048, 2048)])
    widths = [patch.get_width() for patch in ax.patches]
    assert widths == [0.25, 0.75, 0.5, 0.0]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["asked for", "not asked for"]
    said = "4 KiB, 75.0% of it not asked for", "not available here, because only Linux tells it"
    assert texts(ax) == [*said, "2 KiB, 0.0% of it not asked for"]


def a_window(answer):
    taken = [(1 << 30, 5 << 28), (7 << 28, 1 << 31)]
    return limits.Window(1 << 30, 1 << 31, 1 << 29, taken, answer, 7)


@pytest.mark.parametrize(
    ("answer", "words"), [("ENOMEM", "in one piece: ENOMEM"), (1 << 30, "the kernel gave it")]
)
def test_a_window_has_its_pieces_to_scale_and_the_kernel_s_word(ax, answer, words):
    window = a_window(answer)
    costs.address_window(ax, window, 1 << 29)
    boxes = [(p.get_x(), p.get_width()) for p in ax.patches]
    assert boxes == [(0, 100), (0, 25), (75, 25), (0, 50)]
    assert "taken (grey): 512 MiB, free (white): 512 MiB, largest hole: 512 MiB" in texts(ax)
    assert {"address 1.00 GiB", "address 2.00 GiB"} <= set(texts(ax))
    assert texts(ax)[-1].startswith("asked for, to scale: 512 MiB") and words in texts(ax)[-1]
    assert window.hole_bytes == 1 << 29 and window.has_room == (answer != "ENOMEM")
    assert window.outcomes == ("ENOMEM" if answer == "ENOMEM" else "there", "there")
    assert str(window).startswith("largest hole: 512 MiB, ")


def test_the_calculator_without_a_window_says_why():
    figure = costs.calculator(plots.new_figure(8, 3), [("a", 1, 2)], "because", 1)
    assert texts(figure.axes[1]) == ["because"]


# The lesson's scripts against other instruments --------------------------------------------------


@pytest.fixture(scope="module")
def scripts():
    """The scripts for child processes that the lesson's cells define."""
    found = {}
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        if cell.cell_type != "code":
            continue
        for match in re.finditer(r'^([A-Z]+) = r"""\n(.*?)"""', cell.source, re.M | re.S):
            found[match[1]] = match[2] + "\n"
    return found


@pytest.fixture
def scratch(tmp_path_factory):
    """A folder on the data's disk: that of the tests may be in memory."""
    folder = folders.lesson_folder() / "test_costs"
    folder.mkdir()
    yield folder
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def test_the_scripts_type_the_calls_that_they_are_about(scripts):
    calls = {
        "WASTE": "mmap.mmap(f.fileno(), delta + length, access=mmap.ACCESS_READ, offset=start",
        "DESCRIPTORS": "resource.setrlimit(resource.RLIMIT_NOFILE",
        "MAPS": "libc.mmap(*one)",
        "WINDOW": "c_mmap(None, size, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | flag, -1, 0)",
        "HOLES": "unmap(start, piece)",
        "KIB": "/proc/self/",
        "TABLES": "VmPTE",
        "FLUSH": "mm.flush()",
        "CUT": "f.truncate(mmap.PAGESIZE)",
        "KEPT": "for advice in (mmap.MADV_DONTNEED, 21):",
        "KILLED": "os.kill(os.getpid(), 9)",
        "NARROW": "resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))",
    }
    assert set(scripts) == set(calls)
    for name, call in calls.items():
        assert call in scripts[name], name
        compile(scripts[name], name, "exec")


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
    script = script.replace("sys.platform", "after = rollup()\nsys.platform", 1)
    script += "print(*(b - a for a, b in zip(first, after)))"
    counted, both = run_script(script, path, json.dumps(spans)).stdout.splitlines()
    rss, pss = map(int, both.split())
    expected = limits.waste(spans).mapped_bytes
    assert expected == int(counted) and expected <= rss < expected + 32 * PAGE
    assert pss < 0.3 * expected


@linux
@pytest.mark.parametrize("limit", [64, 256, 1000])
def test_descriptors_run_out_at_the_limit_whatever_it_is(scripts, scratch, limit):
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < limit:
        pytest.skip(f"this process may not have {limit} descriptors")
    path = scratch / "one.dat"
    path.write_bytes(b"x")
    script = scripts["DESCRIPTORS"].replace("256, 256", f"{limit}, {limit}")
    # Another count of what was open: the kernel's, by name, when the limit is met.
    script += "os.close(0)\nprint(len(os.listdir('/proc/self/fd')) - 1)\n"
    said, still_open = run_script(script, path).stdout.splitlines()
    said = json.loads(said)
    assert said["error"] == "EMFILE" and said["in all"] == limit
    assert said["in all"] == said["maps"] + said["before"] + said["the file"]
    assert int(still_open) == said["maps"] + said["before"] - 1  # without 0 and the last file


@linux
def test_c_maps_outnumber_the_descriptors(scripts, scratch):
    path = scratch / "one.dat"
    path.write_bytes(b"x")
    script = "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
    script += scripts["MAPS"].replace("1_200_000", "1_000")
    script += "print(sum(sys.argv[1] in line for line in open('/proc/self/maps')))\n"
    done = run_script(script, path)
    said, n_regions = map(json.loads, done.stdout.splitlines())
    assert said["maps"] == n_regions == 1000 and said["error"] is None and done.returncode == 0
    assert said["vm.max_map_count"] == int(Path("/proc/sys/vm/max_map_count").read_text())


@linux
@pytest.mark.timing
def test_regions_run_out_at_max_map_count_and_take_malloc_with_them(scripts, scratch):
    path = scratch / "one.dat"
    path.write_bytes(b"x")
    if int(Path("/proc/sys/vm/max_map_count").read_text()) > 1_200_000:
        pytest.skip("so many regions that the lesson stops before")
    done = run_script(scripts["MAPS"], path)
    said, why = limits.said(done)
    assert not why and said["error"] == "ENOMEM" and "MemoryError" in done.last_line
    # The kernel refuses when there are more than the limit (mm/mmap.c), so one more is to be had.
    assert said["in all"] == said["maps"] + said["before"]
    assert abs(said["in all"] - said["vm.max_map_count"] - 1) < 20


@x86_64
@pytest.mark.parametrize(("piece", "asked"), [(32, 96), (16, 96), (64, 192)])
@pytest.mark.parametrize("attempt", range(3))
def test_three_pieces_worth_is_never_there(scripts, piece, asked, attempt):
    arguments = piece * MIB, asked * MIB, "every 2nd"
    done = run_script(scripts["WINDOW"] + scripts["HOLES"], *arguments)
    window = limits.Window(*limits.said(done).value)
    assert window.outcomes == ("ENOMEM", "there") and window.freed_bytes > 2 * asked * MIB
    assert window.begin >= 1 << 30 and all(end <= window.end for _, end in window.taken)
    # The list of regions is the kernel's: what is not in it is free.
    n_taken = sum(end - start for start, end in window.taken)
    assert window.end - window.begin - n_taken >= window.freed_bytes
    assert window.hole_bytes < asked * MIB


@x86_64
@pytest.mark.parametrize("freed", ["every 2nd", "every 4th", "the first half"])
@pytest.mark.parametrize("piece", [16, 32, 64])
def test_the_kernel_agrees_with_the_computed_hole(scripts, piece, freed):
    """Where the hole is well above or below what is asked: its lower edge is drawn at random."""
    for asked in (8, 320):
        done = run_script(scripts["WINDOW"] + scripts["HOLES"], piece * MIB, asked * MIB, freed)
        window = limits.Window(*limits.said(done).value)
        assert window.has_room == (window.hole_bytes >= asked * MIB), (asked, str(window))


@linux
@pytest.mark.parametrize("n_spans", [1, 8])
def test_tables_are_whole_pages_that_cover_a_span(scripts, scratch, n_spans):
    span = PAGE * PAGE // 8
    if n_spans * span > 256 * MIB:
        pytest.skip("pages so large that the file would be, too")
    path = scratch / "tables.dat"
    with open(path, "wb", buffering=0) as f:
        f.writelines([bytes(PAGE)] * (n_spans * span // PAGE))
    for step in (PAGE, span):
        script = scripts["KIB"] + scripts["TABLES"]
        n, kib, huge_kib = json.loads(run_script(script, path, step).stdout)
        assert n == n_spans * span // step
        mapped_small = n_spans * span - 1024 * huge_kib
        assert abs(1024 * kib - 8 * mapped_small // PAGE) <= 4 * PAGE


@linux
@pytest.mark.timing
def test_a_flush_a_record_writes_a_page_a_record_and_the_device_says_so(scripts, scratch):
    path = scratch / "flush.dat"
    if measure.file_system(scratch) in measure.MEMORY_ONLY or not os.path.exists("/proc/self/io"):
        pytest.skip("no disk, or no account of it")
    with open(path, "wb", buffering=0) as f:
        f.writelines([bytes(PAGE)] * 3)
    spans = [(45 * k, 45) for k in range(200)]

    def run(every):
        script = scripts["FLUSH"].replace("for k,", "first = measure.faults()\nfor k,", 1)
        script = f"from qm9lab import measure\n{script}print(measure.faults().since(first).minor)"
        done = run_script(script, path, json.dumps(spans), every)
        assert done.returncode == 0, done.stderr
        return map(int, done.stdout.split())

    n_once, faults_once = run(200)
    n_each, faults_each = run(1)
    assert n_once >= 3 and n_each > 20 * n_once
    # Another witness: after a flush a store is a minor fault, once for each page made dirty.
    assert faults_each - faults_once > 150
    assert n_each >= limits.waste(spans).mapped_bytes // PAGE


REGION = r"""
import psutil
ours = [m for m in psutil.Process().memory_maps(grouped=False) if m.path == sys.argv[1]]
print(json.dumps([sum(m.rss + m.swap for m in ours), sum(m.anonymous + m.swap for m in ours)]))
"""


@linux
@pytest.mark.timing
@pytest.mark.parametrize("way", ["shared, read", "private, stored to"])
def test_what_is_kept_is_what_the_region_s_own_account_says(scripts, scratch, way):
    if measure.file_system(scratch) in measure.MEMORY_ONLY:
        pytest.skip("no disk to page out to")
    path, size = scratch / "kept.dat", 16 * MIB
    limits.write_in_pieces(path, bytes(size), PAGE)
    measure.make_cold(path)
    kept = scripts["KEPT"]
    if way != "shared, read":  # as the lesson makes STORED of it
        stores = "    mm[:: mmap.PAGESIZE] = mm[::"
        kept = kept.replace("READ", "COPY").replace("    mm[::", stores)
    done = run_script(scripts["KIB"] + kept + REGION, path)
    assert done.returncode == 0, done.stderr
    story, (rss, own) = map(json.loads, done.stdout.splitlines())
    n_expected = 0 if way == "shared, read" else size
    assert own == n_expected and rss == pytest.approx(n_expected, abs=0.05 * size)
    assert story[-1] == pytest.approx([own / size, rss / size], abs=0.1)
    assert story[1][1] == pytest.approx(1, abs=0.1) and story[2][1] < 0.1
    assert bytes(size) == path.read_bytes()


@linux
def test_two_gib_of_addresses_hold_one_and_not_two(scripts, scratch):
    path = scratch / "sparse.dat"
    path.touch()
    os.truncate(path, 4 << 30)
    # Another witness: the size of the address space, which the limit is on, as the kernel says it.
    script = scripts["NARROW"] + "print(open('/proc/self/statm').read().split()[0])"
    answers, n_pages = run_script(script, path).stdout.splitlines()
    assert json.loads(answers) == ["a map", "ENOMEM"] and 0 < int(n_pages) * PAGE < 1 << 30


@linux
def test_what_was_killed_lost_nothing_and_what_was_cut_short_died(scripts, scratch):
    path = scratch / "end.dat"
    path.write_bytes(b"old" + bytes(3 * PAGE))
    killed = run_script(scripts["KILLED"], path)
    assert killed.signal == "SIGKILL" and json.loads(killed.stdout) == "new"
    assert path.read_bytes() == b"new" + bytes(3 * PAGE)
    cut = run_script(scripts["CUT"], path)
    assert cut.signal == "SIGBUS" and cut.stdout == "read: b''\n"


# The lesson ----------------------------------------------------------------------------------


@linux
@pytest.mark.slow
@pytest.mark.timing
def test_the_lesson_takes_less_than_a_minute_and_leaves_nothing(capsys):
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell("print(folders.lesson_folder())"))
    start_s = time.monotonic()
    resources = {"metadata": {"path": str(NOTEBOOK.parent)}}
    NotebookClient(notebook, timeout=120, resources=resources).execute()
    elapsed_s = time.monotonic() - start_s
    with capsys.disabled():
        print(f"\nlesson 10: {elapsed_s:.0f} s")
    folder = Path(notebook.cells[-1].outputs[0]["text"].strip())
    assert elapsed_s < 120 and not folder.exists()
