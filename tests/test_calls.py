"""The call explorer: every combination of the six parameters, and what the kernel says of it.

The calls are made by ``qm9lab.calls`` in child processes. What is compared with them: the causes
of errors as mmap(2) gives them, in the order in which the kernel looks; the region's own account
in smaps; the bytes of the file; and what Python's mmap answers here, in this process.
"""

import errno
import gzip
import itertools
import mmap
import os
import random
import re
import sys
import time
from pathlib import Path

import pytest
from matplotlib.colors import to_hex

from qm9lab import processes
from qm9lab.course import plots
from qm9lab.lessons.lesson_03 import calls, in_child, words
from qm9lab.lessons.lesson_03 import pictures as parameters
from qm9lab.lessons.lesson_03.choice import ADDR, CONTROLS, OFFSET, PAGE, SIZE, Choice
from qm9lab.measure import Region
from qm9lab.processes import run_script

pytestmark = pytest.mark.skipif(bool(calls.why_not()), reason=calls.why_not() or "Linux")

ALL = [Choice(*values) for values in itertools.product(*CONTROLS.values())]
LENGTH = dict(zip(("0", "1", "file", "more", "2**60"), CONTROLS["length"], strict=True))
WRITABLE = Choice(prot="PROT_READ|PROT_WRITE", fd='"r+b"')
BLUE = plots.MEANINGS["mapped in this process"].color.lower()
# A value of each control that is never the reason for an error.
GOOD = WRITABLE._replace(flags="MAP_SHARED")


# Every combination ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("calls")


@pytest.fixture(scope="module")
def outcomes(folder):
    """The outcome of each combination.

    The touches are made where addr is NULL: elsewhere they would be the same
    (test_an_address_changes_the_place_alone), and each deadly one takes a fork.
    """
    touched = {choice: choice.addr == "NULL" for choice in ALL}
    found = {}
    for touch in (True, False):
        chosen = [choice for choice in ALL if touched[choice] == touch]
        for k in range(0, len(chosen), 1000):
            answers = calls.make_all(folder, chosen[k : k + 1000], touch=touch, timeout_s=120)
            found.update(zip(chosen[k : k + 1000], answers, strict=True))
    return found


@pytest.fixture(scope="module")
def facts(folder):
    """What a script of the test's own finds out about low addresses and about noexec."""
    script = """
import ctypes, mmap, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
for addr in (0, mmap.PAGESIZE):
    print(libc.mmap(addr, mmap.PAGESIZE, 0, 0x100022, -1, 0) != ctypes.c_void_p(-1).value)
print(bool(os.statvfs(sys.argv[1]).f_flag & os.ST_NOEXEC))
"""
    null, page_1, noexec = (word == "True" for word in run_script(script, folder).stdout.split())
    low = [addr for addr, may in ((0, null), (PAGE, page_1)) if may]
    return {"may_map_at": low, "noexec": noexec}


@pytest.mark.slow
def test_every_combination_has_an_answer(outcomes):
    assert len(outcomes) == len(ALL) > 30_000
    for choice, outcome in outcomes.items():
        assert outcome.choice == choice and outcome.sentence
        if outcome.error:
            assert outcome.region is None and outcome.message and outcome.meaning
            assert outcome.change and set(outcome.change) <= set(CONTROLS)
            assert outcome.sentence.startswith(outcome.error)
        else:
            assert outcome.region.start <= outcome.address
            assert outcome.address + outcome.span_bytes <= outcome.region.end
    errors = {outcome.error for outcome in outcomes.values()}
    assert errors >= {"", "EINVAL", "EBADF", "ENOMEM", "EACCES", "ENODEV", "EEXIST", "EOVERFLOW"}


@pytest.mark.slow
def test_the_error_is_that_of_the_first_cause_that_the_kernel_meets(outcomes, facts):
    for choice, outcome in outcomes.items():
        holding = [cause for cause in words.CAUSES if cause.holds(choice, facts)]
        assert outcome.error == (holding[0].error if holding else ""), choice
        if holding:
            assert outcome.meaning == holding[0].meaning


@pytest.mark.slow
def test_changing_what_is_named_mends_it(outcomes):
    """Put what the explorer says to change right, again and again: a region comes out."""
    for choice, outcome in outcomes.items():
        n_steps = 0
        while outcome.error:
            before = outcome.error, outcome.meaning
            good = {name: getattr(GOOD, name) for name in outcome.change}
            outcome = outcomes[outcome.choice._replace(**good)]
            assert (outcome.error, outcome.meaning) != before, choice
            n_steps += 1
            assert n_steps <= 6


@pytest.mark.slow
def test_what_is_named_is_a_cause_by_itself(outcomes):
    """Each cause shows with all other parameters good, one value of a flag aside."""
    alone = set()
    for name in CONTROLS:
        for value in CONTROLS[name]:
            for flags in ("MAP_SHARED", "MAP_SHARED|MAP_FIXED_NOREPLACE"):
                choice = GOOD._replace(**{"addr": "free page", "flags": flags} | {name: value})
                outcome = outcomes[choice]
                if outcome.error:
                    alone.add(outcome.meaning)
                    assert name in outcome.change
    alone.add(outcomes[GOOD._replace(fd="folder", prot="PROT_READ")].meaning)
    never_here = {cause.meaning for cause in words.CAUSES if cause.error == "EPERM"}
    assert alone | never_here == {cause.meaning for cause in words.CAUSES}


@pytest.mark.slow
def test_the_region_is_what_was_asked_for(outcomes):
    for choice, outcome in outcomes.items():
        if outcome.error:
            continue
        region, prot = outcome.region, choice.prot
        perms = "".join(
            letter if name in prot else "-"
            for letter, name in (("r", "READ"), ("w", "WRITE"), ("x", "EXEC"))
        )
        assert region.perms == perms + ("s" if "SHARED" in choice.flags else "p"), choice
        assert outcome.span_bytes % PAGE == 0 <= outcome.span_bytes - outcome.length_bytes < PAGE
        if choice.is_anonymous:
            assert outcome.stored == () and "letters" not in region.name
        else:
            assert region.end - region.start == outcome.span_bytes
            assert region.offset_bytes == OFFSET[choice.offset]
            assert region.name.endswith("empty.dat" if choice.fd == "empty file" else "letters.dat")
        if choice.is_fixed or choice.addr == "free page":
            assert outcome.address == outcome.addr
        if choice.addr == "free page + 100" and not choice.is_fixed:
            assert outcome.address == outcome.addr - 100
        if choice.addr == "page in use":
            assert outcome.address != outcome.addr


def expected_touch(outcome, act, at):
    """What reading or storing byte ``at`` of a region gives, by mmap(2)'s rules."""
    choice = outcome.choice
    allowed = "WRITE" in choice.prot if act == "store" else choice.prot != "PROT_NONE"
    if not allowed:
        return {"SIGSEGV"}
    if not choice.is_anonymous and at >= outcome.file_bytes + outcome.zero_bytes:
        return {"SIGBUS"}
    if act == "store":
        return {"done"}
    if choice.is_anonymous or at >= outcome.file_bytes:
        return {"\0"}
    return {"abc"[(OFFSET[choice.offset] + at) // PAGE]}


@pytest.mark.slow
def test_the_touches_give_what_the_manual_says(outcomes):
    n_touched = 0
    for choice, outcome in outcomes.items():
        for touch in outcome.touches:
            at = 0 if touch.where == "first" else outcome.span_bytes - 1
            expected = expected_touch(outcome, touch.act, at)
            if choice.prot == "PROT_WRITE" and touch.act == "read":
                expected = expected | {"SIGSEGV"}  # as the processor has it
            assert touch.result in expected, (choice, touch)
            n_touched += 1
        reached = [
            OFFSET[choice.offset] + at
            for at, touch in zip((0, outcome.span_bytes - 1), outcome.touches[1::2], strict=False)
            if touch.result == "done" and at < (outcome.file_bytes or 0)
        ]
        shared = "SHARED" in choice.flags and not choice.is_anonymous
        assert list(outcome.stored) == (sorted(reached) if shared else []), choice
    assert n_touched > 4000


@pytest.mark.slow
def test_populate_maps_all_that_there_is(outcomes):
    for choice, outcome in outcomes.items():
        if outcome.present is None:
            continue
        assert len(outcome.present) == outcome.span_bytes // PAGE
        if "POPULATE" not in choice.flags:
            assert not any(outcome.present), choice
        elif choice.prot == "PROT_NONE":
            assert not any(outcome.present)
        elif choice.prot != "PROT_WRITE":
            n_there = -(-outcome.file_bytes // PAGE)
            assert outcome.present == tuple(k < n_there for k in range(len(outcome.present)))


@pytest.mark.slow
def test_an_address_changes_the_place_alone(outcomes, folder):
    elsewhere = [c for c in ALL if c.addr != "NULL" and not outcomes[c].error]
    chosen = random.Random(5).sample(elsewhere, 150)
    for outcome in calls.make_all(folder, chosen, timeout_s=120):
        flags = "MAP_SHARED" if outcome.choice.is_fixed else outcome.choice.flags
        plain = outcomes[outcome.choice._replace(addr="NULL", flags=flags)]
        assert outcome.touches == plain.touches and outcome.stored == plain.stored
        assert outcome.region.perms == plain.region.perms


@pytest.mark.slow
def test_python_says_what_it_says_here(outcomes, tmp_path):
    """The Python call of each combination that has one, made again in this process."""
    in_child_names = {"path": tmp_path / in_child.NAME, "empty_path": tmp_path / in_child.EMPTY}
    in_child_names["path"].write_bytes(in_child.letters())
    in_child_names["empty_path"].touch()
    n_made = 0
    for choice, outcome in outcomes.items():
        if not outcome.python_call:
            assert choice.addr != "NULL" or choice.is_fixed
            assert "no addr" in outcome.python_says
            continue
        said = made_here(outcome.python_call, {**in_child_names, "folder": tmp_path})
        assert outcome.python_says.partition(", ")[0] == said, choice
        n_made += 1
    assert n_made > 5000


def made_here(code, names):
    names |= {"mmap": mmap, "os": os}
    try:
        exec(code, names)
        with names["mm"] as mm:
            return f"a map of {len(mm):,} bytes"
    except OSError as error:
        return f"{type(error).__name__}: {errno.errorcode[error.errno]}"
    except ValueError as error:
        return f"ValueError: {error}".partition(", ")[0]
    finally:
        if "f" in names:
            names["f"].close()
        if "fd" in names:
            os.close(names["fd"])


# One call --------------------------------------------------------------------------------------


def test_the_default_choice_works_and_nothing_is_left_behind(tmp_path):
    outcome = calls.make(tmp_path, Choice())
    assert not outcome.error and outcome.region.perms == "r--s"
    assert outcome.region in outcome.regions and len(outcome.regions) > 10
    assert any("stack" in region.name for region in outcome.regions)
    assert list(tmp_path.iterdir()) == []
    assert outcome.zero_bytes == 3 * PAGE - SIZE and outcome.lost_bytes == 0


def test_smaps_says_the_same(tmp_path):
    """The region's own account, smaps, read by a script that knows in_child.c_mmap alone."""
    script = (
        Path(in_child.__file__).read_text().partition("if __name__")[0]
        + r"""
import re
fd = os.open(sys.argv[1], os.O_RDWR)
address = c_mmap(None, int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), fd, int(sys.argv[5]))
text = open("/proc/self/smaps").read()
block = re.search(rf"^{address:x}-[\s\S]*?VmFlags:.*$", text, re.M)[0]
print(re.search(r"Size: +(\d+)", block)[1], re.search(r"Rss: +(\d+)", block)[1],
      *re.search(r"VmFlags: (.*)", block)[1].split())
"""
    )
    path = tmp_path / "x"
    path.write_bytes(in_child.letters())
    for choice in (Choice(), WRITABLE, WRITABLE._replace(flags="MAP_PRIVATE", offset="one page"),
                   Choice(prot="PROT_READ|PROT_EXEC"), Choice(flags="MAP_SHARED|MAP_POPULATE"),
                   WRITABLE._replace(length=LENGTH["more"])):  # fmt: skip
        outcome = calls.make(tmp_path, choice)
        request = calls._request(choice)
        numbers = [request[name] for name in ("length", "prot", "flags", "offset")]
        said = run_script(script, path, *numbers).stdout.split()
        assert int(said[0]) * 1024 == outcome.span_bytes
        assert int(said[1]) * 1024 == sum(outcome.present) * PAGE
        flags = {"r": "rd", "w": "wr", "x": "ex", "s": "sh"}
        for letter, flag in flags.items():
            assert (letter in outcome.region.perms) == (flag in said[2:]), (choice, said)


def test_one_call_is_quick_enough_for_a_control(tmp_path):
    calls.make(tmp_path, Choice())
    elapsed_s = []
    for _ in range(5):
        start_s = time.perf_counter()
        calls.make(tmp_path, Choice(length=LENGTH["more"]))
        elapsed_s.append(time.perf_counter() - start_s)
    assert min(elapsed_s) < 0.5


def test_a_child_that_dies_is_said(tmp_path, monkeypatch):
    died = run_script("raise SystemExit('no room')")
    monkeypatch.setattr(processes, "run_script", lambda *args, **how: died)
    with pytest.raises(RuntimeError, match="ended without: exit status 1, no room"):
        calls.make(tmp_path, Choice())
    assert list(tmp_path.iterdir()) == []


# Words -----------------------------------------------------------------------------------------


def test_the_calls_as_they_are_written():
    choice = WRITABLE._replace(addr="free page", flags="MAP_SHARED|MAP_POPULATE", offset="one page")
    assert words.c_call(choice, 0x1000000000) == (
        "fd = open(path, O_RDWR);\n"
        f"mmap(0x1000000000, {SIZE}, PROT_READ | PROT_WRITE, "
        f"MAP_SHARED | MAP_POPULATE, fd, {PAGE});"
    )
    assert "mmap(free page, " in words.c_call(choice)
    assert words.python_call(choice) is None
    assert words.python_call(WRITABLE) == (
        f'f = open(path, "r+b")\nmm = mmap.mmap(f.fileno(), {SIZE}, mmap.MAP_SHARED,\n'
        f"{' ' * 15}mmap.PROT_READ | mmap.PROT_WRITE, offset=0)"
    )
    nothing = Choice(flags="0", fd="-1", prot="PROT_NONE")
    assert words.python_call(nothing).replace("\n" + " " * 15, " ") == (
        f"mm = mmap.mmap(-1, {SIZE}, 0, 0, offset=0)"
    )


def manual():
    """The text of the manual page mmap(2), in one line, without markup; None if there is none."""
    for path in (Path("/usr/share/man/man2/mmap.2.gz"), Path("/usr/share/man/man2/mmap.2")):
        if path.exists():
            data = path.read_bytes()
            text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
            text = re.sub(r"\\f.|\\%|\\-", lambda m: "-" if m[0] == r"\-" else "", text)
            text = re.sub(r"^\.(?:BR?|IR?|RB|RI|TP|B|I) ?", "", text, flags=re.M)
            return " ".join(text.replace('"', "").split())
    return None


# What the manual says of each cause; the words that our meaning rests on.
MANUAL = {
    "EINVAL": ("not aligned on a page boundary", "length was 0", "none of MAP_PRIVATE"),
    "EBADF": ("not a valid file descriptor (and MAP_ANONYMOUS was not set)",),
    "EACCES": ("fd is not open for reading", "PROT_WRITE is set, but fd is not open in read/write"),
    "EEXIST": ("clashes with an existing mapping",),
    "ENODEV": ("does not support memory mapping",),
    "EPERM": ("mounted no-exec",),
    "ENOMEM": ("No memory is available",),
    "EOVERFLOW": ("would overflow",),
}


@pytest.mark.skipif(manual() is None, reason="the manual page mmap(2) is not installed")
def test_each_errno_is_in_the_manual_for_that_reason():
    errors = manual().partition("ERRORS")[2]
    for error, phrases in MANUAL.items():
        assert re.search(rf"\b{error}\b", errors)
        for phrase in phrases:
            assert phrase in errors, (error, phrase)
    assert {cause.error for cause in words.CAUSES} == set(MANUAL)


def test_an_error_of_another_cause_is_not_explained_away():
    facts = {"may_map_at": [], "noexec": False}
    meaning, change = words.explain(Choice(), "EAGAIN", facts)
    assert "no cause that this explorer knows of" in meaning and set(change) == set(CONTROLS)
    assert "no memory" in words.explain(Choice(), "ENOMEM", facts)[0]
    low = Choice(flags="MAP_SHARED|MAP_FIXED_NOREPLACE")
    assert words.explain(low, "EPERM", facts)[1] == ("addr", "flags")
    noexec = Choice(prot="PROT_READ|PROT_EXEC")
    assert "noexec" in words.explain(noexec, "EPERM", facts | {"noexec": True})[0]


# Elsewhere -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("platform", "reason"), [("win32", "Windows has no mmap"), ("darwin", "/proc/self/maps")]
)
def test_where_there_is_no_such_call_the_reason_is_said(tmp_path, monkeypatch, platform, reason):
    monkeypatch.setattr(sys, "platform", platform)
    outcome = calls.make(tmp_path, Choice(addr="page 1"))
    assert outcome.missing.startswith("not available here, because") and reason in outcome.missing
    assert outcome.sentence == outcome.missing and not outcome.regions
    assert outcome.c_call and not outcome.python_call and "no addr" in outcome.python_says


def test_every_control_has_its_values():
    assert set(ADDR) == set(CONTROLS["addr"]) and set(Choice()._fields) == set(CONTROLS)
    for name, value in Choice()._asdict().items():
        assert value in CONTROLS[name]


# Pictures --------------------------------------------------------------------------------------


def texts(figure):
    return [t for ax in figure.axes for t in ax.texts if t.get_text().strip()]


@pytest.mark.slow
def test_pictures_show_what_came_out_and_nothing_is_cut_off(folder):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    pick = random.Random(11)
    ends = [GOOD._replace(**{name: value}) for name in CONTROLS for value in CONTROLS[name]]
    for choice in ends + pick.sample(ALL, 15):
        outcome = calls.make(folder, choice)
        figure = parameters.call(outcome, PAGE)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        width, height = figure.bbox.size
        for text in texts(figure):
            box = text.get_window_extent(canvas.get_renderer())
            assert -1 <= box.x0 and box.x1 <= width + 1, (choice, text.get_text())
            assert -1 <= box.y0 and box.y1 <= height + 1, (choice, text.get_text())
        words_shown = [text.get_text() for text in texts(figure)]
        lit = [p for ax in figure.axes for p in ax.patches if to_hex(p.get_facecolor()) == BLUE]
        if outcome.error:
            marked = [t.partition(" ")[0] for t in words_shown if t.endswith("change")]
            assert tuple(sorted(marked)) == tuple(sorted(outcome.change)) and not lit
            assert outcome.error in words_shown and outcome.message in words_shown
        else:
            assert any(outcome.region.perms in text for text in words_shown)
            assert any(text.endswith(f", at {outcome.address:#x}") for text in words_shown)
            assert f"{outcome.address:#x}" in words_shown  # in the address space
            assert len(lit) == 1 + sum(outcome.present or ())


def test_where_calls_cannot_be_made_the_picture_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    figure = parameters.call(calls.make(tmp_path, Choice()), PAGE)
    shown = " ".join(text.get_text() for text in texts(figure))
    assert "not available here, because" in " ".join(shown.split()) and "mmap.mmap" in shown


def test_a_region_below_the_program_does_not_take_its_name():
    new, program = Region(16 * PAGE, 17 * PAGE, "r--s", 0, "new"), 2**40
    regions = [new, Region(program, program + PAGE, "r-xp", 0, "/bin/python")]
    assert [label for _, _, label, _ in plots.neighbourhoods(regions, "new")] == [
        "our map",
        "program",
    ]


def test_a_region_that_the_kernel_shows_with_its_neighbour_is_drawn_alone():
    region = Region(4 * PAGE, 9 * PAGE, "rw-p", 0, "")
    outcome = calls.Outcome(
        Choice(), address=5 * PAGE, region=region, regions=(region, Region(0, PAGE, "r--p", 0, "x"))
    )
    cut = [(r.start // PAGE, r.end // PAGE, r.name) for r in parameters.with_the_new_one(outcome)]
    assert cut == [(4, 5, ""), (5, 8, parameters.NEW), (8, 9, ""), (0, 1, "x")]
