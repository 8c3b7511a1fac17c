"""The call explorer: combinations of the six parameters, and what the kernel does.

The calls run in child processes. We compare them with the causes of errors in mmap(2), in the
order in which the kernel checks them, with the region's own account in smaps, with the bytes of
the file, and with what Python's mmap does in this process.
"""

import ctypes
import errno
import gzip
import itertools
import mmap
import os
import random
import re
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from matplotlib.colors import to_hex

from qm9lab import measure, processes
from qm9lab.course import plots
from qm9lab.lessons.lesson_03 import calls, words
from qm9lab.lessons.lesson_03 import pictures as parameters
from qm9lab.lessons.lesson_03.choice import (
    CONTROLS,
    FD,
    FILES,
    LETTERS,
    OFFSET,
    PAGE,
    SIZE,
    Choice,
)
from qm9lab.measure import Missing, Region
from qm9lab.measure.missing import STRICT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux has these calls")

ALL = [Choice(*values) for values in itertools.product(*CONTROLS.values())]
N_TOUCHED = 600
LENGTH = dict(zip(("0", "1", "file", "more", "2**60"), CONTROLS["length"], strict=True))
WRITABLE = Choice(prot="PROT_READ|PROT_WRITE", fd="r+b")
BLUE = plots.MEANINGS["mapped in this process"].color.lower()
# A value of each control that is never the reason for an error.
GOOD = WRITABLE._replace(flags="MAP_SHARED")


# Combinations of choices -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("calls")


def causes(choice, facts):
    return list(words.causes(choice, facts))


def all_causes():
    """Each cause that some choice has, on a system on which all of them can hold."""
    facts = {"too low": ["NULL", "page 1"], "noexec": True}
    return {cause for choice in ALL for cause in words.causes(choice, facts)}


@pytest.fixture(scope="module")
def outcomes(folder, facts):
    """The outcomes of choices that show all there is in ``ALL``, drawn until none shows more.

    All there is: any three values together, where there is a cause of an error and where there is
    none, and all sets of causes that can hold at once. A touch takes a fork, so that touches are
    made for some of the choices only.
    """
    seen, chosen = set(), []
    for choice in random.Random(3).sample(ALL, len(ALL)):
        found = tuple(causes(choice, facts))
        shows = {(not found, *three) for three in enumerate(itertools.combinations(choice, 3))}
        if not shows | {found} <= seen:
            chosen.append(choice)
            seen |= shows | {found}
    made = calls.make_all(folder, chosen[:N_TOUCHED])
    made += calls.make_all(folder, chosen[N_TOUCHED:], touch=False)
    return dict(zip(chosen, made, strict=True))


@pytest.fixture(scope="module")
def facts(folder):
    """What a function of the test's own finds out about low addresses and about noexec."""
    return processes.run(find_facts, folder).value


def find_facts(folder):
    import ctypes
    import mmap
    import os

    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    low = []
    for name, addr in (("NULL", 0), ("page 1", mmap.PAGESIZE)):
        if libc.mmap(addr, mmap.PAGESIZE, 0, 0x100022, -1, 0) == ctypes.c_void_p(-1).value:
            low.append(name)
    return {"too low": low, "noexec": bool(os.statvfs(folder).f_flag & os.ST_NOEXEC)}


@pytest.mark.slow
def test_every_combination_has_an_answer(outcomes):
    assert 1000 < len(outcomes) < len(ALL)
    for choice, outcome in outcomes.items():
        assert outcome.choice == choice and outcome.sentence
        if outcome.error:
            meaning, change = outcome.cause
            assert outcome.region is None and outcome.message and meaning
            assert change and set(change) <= set(CONTROLS)
            assert outcome.sentence.startswith(outcome.error)
        else:
            assert outcome.region.start <= outcome.address
            assert outcome.address + choice.span_bytes <= outcome.region.end
    errors = {outcome.error for outcome in outcomes.values()}
    assert errors >= {"", "EINVAL", "EBADF", "ENOMEM", "EACCES", "ENODEV", "EEXIST", "EOVERFLOW"}


@pytest.mark.slow
def test_the_error_is_that_of_the_first_cause_that_the_kernel_meets(outcomes, facts):
    for choice, outcome in outcomes.items():
        holding = causes(choice, facts)
        head, meaning = holding[0] if holding else ("", "")
        error, _, change = head.partition(" ")
        assert outcome.error == error, choice
        if holding:
            assert outcome.cause == (meaning, tuple(change.split()))


@pytest.mark.slow
def test_changing_what_is_named_fixes_it(outcomes, folder):
    """Put what the explorer says to change right, again and again: a region comes out."""
    found, wrong = dict(outcomes), list(outcomes.values())
    for _ in range(7):
        wrong = [outcome for outcome in wrong if outcome.error]
        named = [{name: getattr(GOOD, name) for name in outcome.cause[1]} for outcome in wrong]
        after = [o.choice._replace(**good) for o, good in zip(wrong, named, strict=True)]
        new = list(set(after) - found.keys())
        found |= zip(new, calls.make_all(folder, new, touch=False), strict=True)
        for outcome, choice in zip(wrong, after, strict=True):
            assert not found[choice].error or found[choice].cause != outcome.cause, choice
        wrong = [found[choice] for choice in set(after)]
    assert not wrong


@pytest.mark.slow
def test_what_is_named_is_a_cause_by_itself(folder):
    """Each cause shows with all other parameters good, one value of a flag aside."""
    good = GOOD._replace(addr="free page")
    fixed = good._replace(flags="MAP_SHARED|MAP_FIXED_NOREPLACE")
    cases = [(c, n, v) for c in (good, fixed) for n in CONTROLS for v in CONTROLS[n]]
    chosen = [choice._replace(**{name: value}) for choice, name, value in cases]
    alone = set()
    chosen.append(GOOD._replace(fd="folder", prot="PROT_READ"))
    made = calls.make_all(folder, chosen, touch=False)
    for (_, name, _), outcome in zip(cases, made, strict=False):
        if outcome.error:
            alone.add(outcome.cause[0])
            assert name in outcome.cause[1]
    alone.add(made[-1].cause[0])
    never_here = {meaning for head, meaning in all_causes() if head.startswith("EPERM")}
    assert alone | never_here == {meaning for _, meaning in all_causes()}


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
        assert choice.span_bytes % PAGE == 0 <= choice.span_bytes - choice.numbers[0] < PAGE
        if choice.is_anonymous:
            assert outcome.written == [] and "path" not in region.name
        else:
            assert region.end - region.start == choice.span_bytes
            assert region.offset_bytes == OFFSET[choice.offset]
            assert region.name.endswith("/empty_path" if choice.fd == "empty file" else "/path")
        if choice.is_fixed or choice.addr == "free page":
            assert outcome.address == outcome.addr
        if choice.addr == "free page + 100" and not choice.is_fixed:
            assert outcome.address == outcome.addr - 100
        if choice.addr == "page in use":
            assert outcome.address != outcome.addr


def expected_touch(choice, act, at):
    """What a read or a write of byte ``at`` of a region does, by mmap(2)'s rules."""
    allowed = "WRITE" in choice.prot if act == "write" else choice.prot != "PROT_NONE"
    if not allowed:
        return {"SIGSEGV"}
    if not choice.is_anonymous and at >= -(-choice.file_bytes // PAGE) * PAGE:
        return {"SIGBUS"}
    if act == "write":
        return {"done"}
    if choice.is_anonymous or at >= choice.file_bytes:
        return {"\0"}
    return {"abc"[(OFFSET[choice.offset] + at) // PAGE]}


@pytest.mark.slow
def test_the_touches_give_what_the_manual_says(outcomes):
    seen = Counter()
    for choice, outcome in outcomes.items():
        reached = set()
        for where, results in outcome.touches.items():
            at = 0 if where == "first" else choice.span_bytes - 1
            for act, result in zip(("read", "write"), results, strict=True):
                expected = expected_touch(choice, act, at)
                seen[act, result] += 1
                if choice.prot == "PROT_WRITE" and act == "read":
                    expected = expected | {"SIGSEGV"}  # as the processor has it
                assert result in expected, (choice, where, act, result)
            if results[1] == "done" and at < choice.file_bytes:
                reached.add(OFFSET[choice.offset] + at)
        shared = "SHARED" in choice.flags and not choice.is_anonymous
        assert outcome.written == (sorted(reached) if shared else []), choice
    reads, writes = ("a", "b", "\0", "SIGSEGV", "SIGBUS"), ("done", "SIGSEGV", "SIGBUS")
    assert seen.keys() == {("read", r) for r in reads} | {("write", w) for w in writes}
    assert seen.total() > 400 and min(seen.values()) >= 5


@pytest.mark.slow
def test_populate_maps_all_that_there_is(outcomes):
    for choice, outcome in outcomes.items():
        if outcome.error:
            continue
        assert len(outcome.present) == choice.span_bytes // PAGE
        if "POPULATE" not in choice.flags:
            assert not any(outcome.present), choice
        elif choice.prot == "PROT_NONE":
            assert not any(outcome.present)
        elif choice.prot != "PROT_WRITE":
            n_there = -(-choice.file_bytes // PAGE)
            assert outcome.present == [k < n_there for k in range(len(outcome.present))]


@pytest.mark.slow
def test_python_does_what_it_does_here(outcomes, tmp_path):
    """The Python call of each combination that has one, made again in this process."""
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    fds = {name: calls.descriptor(name, str(tmp_path)) for name in FD}
    n_made = 0
    for choice, outcome in outcomes.items():
        code = words.python_call(choice)
        if not code:
            assert choice.addr != "NULL" or choice.is_fixed
            assert "no addr" in outcome.python_result
            continue
        here = made_here(code, fds[choice.fd])
        assert outcome.python_result.partition(", ")[0] == here, choice
        n_made += 1
    assert n_made > 150
    for name in fds.keys() - {"-1", "closed"}:
        os.close(fds[name])


def made_here(code, fd):
    try:
        with eval(code, {"mmap": mmap, "fd": fd}) as mm:
            return f"a map of {len(mm):,} bytes"
    except OSError as error:
        return f"{type(error).__name__}: {errno.errorcode[error.errno]}"
    except ValueError as error:
        return f"ValueError: {error}".partition(", ")[0]


# One call --------------------------------------------------------------------------------------


def test_the_default_choice_works_and_nothing_is_left_behind(tmp_path):
    outcome = calls.make(tmp_path, Choice())
    assert not outcome.error and outcome.region.perms == "r--s"
    regions = [Region(*each) for each in outcome.facts["regions"]]
    assert len(regions) > 10 and any("stack" in region.name for region in regions)
    assert not any(r.start <= outcome.address < r.end for r in regions)
    assert list(tmp_path.iterdir()) == []
    assert words.shown(Choice()) == (
        f"{SIZE:,} bytes of the file, then {3 * PAGE - SIZE:,} bytes of zeros"
    )


def test_a_folder_may_be_a_relative_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert calls.make(".", Choice()).python_result == f"a map of {SIZE:,} bytes, r--s"


def read_smaps(path, length, prot, flags, offset):
    """The region's own account: size and RSS in KiB, and its flags."""
    import os
    import re

    fd = os.open(path, os.O_RDWR)
    address = c_mmap(None, length, prot, flags, fd, offset)  # noqa: F821 (see uses)
    with open("/proc/self/smaps") as f:
        block = re.search(rf"^{address:x}-[\s\S]*?VmFlags:.*$", f.read(), re.M)[0]
    size, rss = (int(re.search(rf"^{name}: +(\d+)", block, re.M)[1]) for name in ("Size", "Rss"))
    return size, rss, re.search(r"VmFlags: (.*)", block)[1].split()


def test_smaps_shows_the_same(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(LETTERS)
    chosen = (Choice(), WRITABLE, WRITABLE._replace(flags="MAP_PRIVATE", offset="one page"),
              Choice(prot="PROT_READ|PROT_EXEC"), Choice(flags="MAP_SHARED|MAP_POPULATE"),
              WRITABLE._replace(length=LENGTH["more"]))  # fmt: skip
    for choice, outcome in zip(chosen, calls.make_all(tmp_path, chosen), strict=True):
        uses = [calls.c_mmap, ctypes, os]
        size, rss, found = processes.run(read_smaps, path, *choice.numbers, uses=uses).value
        assert size * 1024 == choice.span_bytes
        assert rss * 1024 == sum(outcome.present) * PAGE
        for letter, flag in {"r": "rd", "w": "wr", "x": "ex", "s": "sh"}.items():
            assert (letter in outcome.region.perms) == (flag in found), (choice, found)


def test_one_call_is_quick_enough_for_a_control(tmp_path):
    calls.make(tmp_path, Choice())
    elapsed_s = []
    for _ in range(2):
        start_s = time.perf_counter()
        calls.make(tmp_path, Choice(length=LENGTH["more"]))
        elapsed_s.append(time.perf_counter() - start_s)
    assert min(elapsed_s) < 2  # 0.2 s on an idle core; the machine may be busy


def test_a_child_that_dies_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(calls, "_answer", die)
    with pytest.raises(processes.ProcessError, match="(?s)exit status 1.*no room"):
        calls.make(tmp_path, Choice())
    assert list(tmp_path.iterdir()) == []


def die(folder, choices, touch):
    raise SystemExit("no room")


def test_a_child_that_is_late_gives_a_missing_result(tmp_path, monkeypatch):
    monkeypatch.delenv(STRICT, raising=False)
    late = Missing("this machine is busy")
    monkeypatch.setattr(processes, "run", lambda *args: SimpleNamespace(value=late))
    outcome = calls.make(tmp_path, Choice())
    assert outcome.error is late and outcome.sentence == str(late)


# Words -----------------------------------------------------------------------------------------


def test_the_calls_as_they_are_written():
    choice = WRITABLE._replace(addr="free page", flags="MAP_SHARED|MAP_POPULATE", offset="one page")
    assert words.c_call(choice, 0x1000000000) == (
        f"mmap(0x1000000000, {SIZE}, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, {PAGE})"
    )
    assert "mmap(free page, " in words.c_call(choice)
    assert words.python_call(choice) == ""
    assert words.python_call(WRITABLE) == (
        f"mmap.mmap(fd, {SIZE}, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=0)"
    )
    nothing = Choice(flags="0", fd="-1", prot="PROT_NONE", length="2**60")
    assert words.python_call(nothing) == "mmap.mmap(-1, 0x1000000000000000, 0, 0, offset=0)"


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
    assert {head.split()[0] for head, _ in all_causes()} == set(MANUAL)


def test_an_error_of_another_cause_is_not_explained_away():
    facts = {"too low": ["NULL", "page 1"], "noexec": False}
    meaning, change = words.explain(Choice(), "EAGAIN", facts)
    assert "this explorer knows no cause" in meaning and set(change) == set(CONTROLS)
    assert "no memory" in words.explain(Choice(), "ENOMEM", facts)[0]
    low = Choice(flags="MAP_SHARED|MAP_FIXED_NOREPLACE")
    assert words.explain(low, "EPERM", facts)[1] == ("addr", "flags")
    noexec = Choice(prot="PROT_READ|PROT_EXEC")
    assert "noexec" in words.explain(noexec, "EPERM", facts | {"noexec": True})[0]


# What the lesson says ----------------------------------------------------------------------------

ACCESS = {  # as in the lesson's table: prot and flags, and the ways to open a file that suffice
    mmap.ACCESS_READ: ("r--s", {"rb", "r+b"}),
    mmap.ACCESS_WRITE: ("rw-s", {"r+b"}),
    mmap.ACCESS_COPY: ("rw-p", {"rb", "r+b"}),
    mmap.ACCESS_DEFAULT: ("rw-s", {"r+b"}),
}


@pytest.mark.parametrize("access", ACCESS)
def test_the_table_of_access_is_what_the_kernel_does(access, tmp_path):
    path, (perms, modes) = tmp_path / "x", ACCESS[access]
    path.write_bytes(LETTERS)
    for mode in ("rb", "r+b", "ab"):
        with open(path, mode) as f:
            if mode not in modes:
                with pytest.raises(PermissionError, match="Errno 13"):
                    mmap.mmap(f.fileno(), 0, access=access)
                continue
            with mmap.mmap(f.fileno(), 0, access=access) as mm:
                assert [r.perms for r in measure.regions() if r.name == str(path)] == [perms]
                if "w" in perms:
                    mm[0:1] = b"!"
                else:
                    with pytest.raises(TypeError):
                        mm[0:1] = b"!"
                assert (path.read_bytes() != LETTERS) == (perms == "rw-s")
                path.write_bytes(LETTERS)


def test_the_table_of_errors_is_what_happens(tmp_path):
    def made(fd, length=0, **keywords):
        try:
            mmap.mmap(fd, length, **keywords).close()
        except (OSError, ValueError) as error:
            return errno.errorcode[error.errno] if isinstance(error, OSError) else "ValueError"
        return "a map"

    path, read, both = tmp_path / "x", mmap.ACCESS_READ, mmap.PROT_READ | mmap.PROT_WRITE
    path.write_bytes(LETTERS)
    folder, (pipe, _) = os.open(tmp_path, os.O_RDONLY), os.pipe()
    for fd in (folder, pipe):
        assert made(fd, access=read) == "EINVAL" and made(fd, PAGE, access=read) == "ENODEV"
    with open(path, "rb") as f:
        for length, offset in ((0, 3 * PAGE), (1, 3 * PAGE), (1, 3 * PAGE + 1)):
            assert made(f.fileno(), length, access=read, offset=offset) == "ValueError"
        # Next to access only what is the default.
        assert made(f.fileno(), access=read, flags=mmap.MAP_SHARED, prot=both) == "a map"
        assert made(f.fileno(), access=read, flags=mmap.MAP_PRIVATE) == "ValueError"
        assert made(f.fileno(), access=read, prot=mmap.PROT_READ) == "ValueError"
    with open(path, "wb") as f:  # Python sees the empty file, the kernel how it was opened
        assert made(f.fileno()) == "ValueError"
        f.write(LETTERS)
        f.flush()
        assert made(f.fileno()) == "EACCES"


def test_map_fixed_throws_away_what_was_mapped_there():
    flags, length = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, PAGE
    address = calls.c_mmap(None, length, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
    ctypes.memset(address, 1, length)
    map_fixed = 0x10
    assert calls.c_mmap(address, length, mmap.PROT_READ, flags | map_fixed, -1, 0) == address
    assert ctypes.string_at(address, length) == bytes(length)
    calls.munmap(address, length)


# Elsewhere -------------------------------------------------------------------------------------


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_where_calls_cannot_be_seen_the_reason_is_given(tmp_path, monkeypatch, platform):
    monkeypatch.delenv(STRICT, raising=False)
    monkeypatch.setattr(sys, "platform", platform)
    outcome = calls.make(tmp_path, Choice(addr="page 1"))
    assert outcome.sentence.startswith("not available here, because only 64-bit Linux")
    assert outcome.error.reason in outcome.sentence and not outcome.facts
    assert "no addr" in outcome.python_result


def test_every_control_has_its_values():
    assert Choice()._fields == tuple(CONTROLS)
    for name, value in Choice()._asdict().items():
        assert value in CONTROLS[name]


# Pictures --------------------------------------------------------------------------------------


def texts(figure):
    return [t for ax in figure.axes for t in ax.texts if t.get_text().strip()]


@pytest.mark.slow
def test_pictures_show_what_came_out_and_nothing_is_cut_off(folder):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    pick = random.Random(11)
    ends = {GOOD._replace(**{name: value}) for name in CONTROLS for value in CONTROLS[name]}
    for outcome in calls.make_all(folder, [*ends, *pick.sample(ALL, 6)]):
        choice = outcome.choice
        figure = parameters.call(outcome)
        canvas = FigureCanvasAgg(figure)
        figure.draw_without_rendering()
        width, height = figure.bbox.size
        for text in texts(figure):
            box = text.get_window_extent(canvas.get_renderer())
            assert -1 <= box.x0 and box.x1 <= width + 1, (choice, text.get_text())
            assert -1 <= box.y0 and box.y1 <= height + 1, (choice, text.get_text())
        words_shown = [text.get_text() for text in texts(figure)]
        lit = [p for ax in figure.axes for p in ax.patches if to_hex(p.get_facecolor()) == BLUE]
        if outcome.error:
            named = [t for t in words_shown if t.startswith("change ")]
            changes = [f"change {name}, now {getattr(choice, name)}" for name in outcome.cause[1]]
            assert named == changes and not lit
            assert outcome.error in words_shown and outcome.message in words_shown
        else:
            assert any(text.endswith(f"bytes, {outcome.region.perms}") for text in words_shown)
            assert f"→ a region at {outcome.address:#x}" in words_shown
            assert f"{outcome.address:#x}" in words_shown  # in the address space
            assert len(lit) == sum(outcome.present or ())


def test_where_calls_cannot_be_made_the_picture_says_so(tmp_path, monkeypatch):
    monkeypatch.delenv(STRICT, raising=False)
    monkeypatch.setattr(sys, "platform", "darwin")
    figure = parameters.call(calls.make(tmp_path, Choice()))
    shown = " ".join(text.get_text() for text in texts(figure))
    assert "not available here, because" in " ".join(shown.split()) and "mmap.mmap" in shown


def test_a_region_below_the_program_does_not_take_its_name():
    new, program = Region(16 * PAGE, 17 * PAGE, "r--s", 0, "new"), 2**40
    regions = [new, Region(program, program + PAGE, "r-xp", 0, "/bin/python")]
    assert [label for _, _, label, _ in plots.neighbourhoods(regions, "new")] == [
        "our map",
        "program",
    ]
