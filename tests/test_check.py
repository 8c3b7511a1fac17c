"""Each check on its stub, on each known wrong answer and on right ones, for many seeds."""

import errno
import io
import mmap
import os
import random
import re
import struct
import sys
import tempfile
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from qm9lab import measure, records
from qm9lab.course.check import NOT_YET, Verdict, number, reveal
from qm9lab.lessons.lesson_00 import check as lesson_00
from qm9lab.lessons.lesson_01 import check as lesson_01
from qm9lab.lessons.lesson_02 import check as lesson_02
from qm9lab.lessons.lesson_03 import check as lesson_03
from qm9lab.lessons.lesson_04 import check as lesson_04
from qm9lab.lessons.lesson_05 import check as lesson_05
from qm9lab.lessons.lesson_06 import check as lesson_06
from qm9lab.lessons.lesson_07 import check as lesson_07
from qm9lab.lessons.lesson_08 import check as lesson_08
from qm9lab.lessons.lesson_09 import check as lesson_09
from qm9lab.lessons.lesson_10 import check as lesson_10
from qm9lab.lessons.lesson_10 import limits
from qm9lab.lessons.lesson_11 import check as lesson_11

ROOT = Path(__file__).resolve().parent.parent
SEEDS = range(1, 41)
STUBS = (..., None)


def numbers(question: str) -> list[int]:
    """The whole numbers of a question, in order."""
    return [int(word.replace(",", "")) for word in re.findall(r"\d[\d,]*\d|\d", question)]


def test_questions_differ_between_seeds_and_stay_for_one():
    modules = (lesson_00, lesson_01, lesson_02, lesson_03)
    modules += (lesson_04, lesson_05, lesson_06, lesson_07, lesson_10)
    modules += (lesson_08, lesson_09)
    modules += (lesson_11,)
    questions = [
        getattr(m, name) for m in modules for name in dir(m) if name.startswith("question_")
    ]
    assert len(questions) >= 11
    for question in questions:
        asked = [question(seed) for seed in SEEDS]
        assert asked == [question(seed) for seed in SEEDS]
        assert len(set(asked)) >= 4


SEEDED = {
    lesson_00.exercise_1: lesson_00.question_1,
    lesson_00.exercise_2: lesson_00.question_2,
    lesson_01.exercise_1: lesson_01.question_1,
    lesson_01.exercise_3: lesson_01.question_3,
    lesson_02.exercise_2: lesson_02.question_2,
    lesson_03.exercise_1: lesson_03.question_1,
    lesson_03.exercise_2: lesson_03.question_2,
    lesson_03.exercise_3: lesson_03.question_3,
    lesson_04.exercise_1: lesson_04.question_1,
    lesson_05.exercise_1: lesson_05.question_1,
    lesson_05.exercise_2: lesson_05.question_2,
    lesson_06.exercise_1: lesson_06.question_1,
    lesson_06.exercise_2: lesson_06.question_2,
    lesson_07.exercise_1: lesson_07.question_1,
    lesson_07.exercise_2: lesson_07.question_2,
    lesson_08.exercise_1: lesson_08.question_1,
    lesson_08.exercise_2: lesson_08.question_2,
    lesson_09.exercise_1: lesson_09.question_1,
    lesson_09.exercise_2: lesson_09.question_2,
    lesson_10.exercise_1: lesson_10.question_1,
    lesson_10.exercise_2: lesson_10.question_2,
    lesson_11.exercise_1: lesson_11.question_1,
    lesson_11.exercise_2: lesson_11.question_2,
}


@pytest.mark.parametrize("exercise", SEEDED, ids=lambda f: f"{f.__module__[-9:]}.{f.__name__}")
def test_a_stub_is_not_yet_and_nonsense_is_never_right(exercise):
    for stub in STUBS:
        assert exercise(stub, seed=1) == NOT_YET
    for nonsense in (-1, 3.5, "nonsense", b"", [], True, {}):
        verdict = exercise(nonsense, seed=1)
        assert not verdict.right and verdict != NOT_YET and verdict.text.startswith("Not quite: ")


def judge(exercise, seed, right_answer, wrong: dict):
    """The right answer is right; each wrong one (that is not right by chance) gets its hint."""
    assert exercise(right_answer, seed).right, (seed, right_answer)
    for answer, words in wrong.items():
        if answer != right_answer:
            verdict = exercise(answer, seed)
            assert not verdict.right and words in verdict.text, (seed, answer, verdict)
            assert str(right_answer) not in verdict.text.split(), "a hint gave the answer away"


@pytest.mark.parametrize("seed", SEEDS)
def test_pages_of_a_file(seed):
    kib, n_bytes = numbers(lesson_00.question_1(seed))
    page = kib * 1024
    judge(
        lesson_00.exercise_1,
        seed,
        len(range(0, n_bytes, page)),
        {n_bytes // page: "last, partly filled", n_bytes / page: "whole", 10**9: "left over"},
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_where_a_page_begins(seed):
    kib, offset = numbers(lesson_00.question_2(seed))
    page = kib * 1024
    begins = max(range(0, offset + 1, page))
    judge(
        lesson_00.exercise_2,
        seed,
        begins,
        {
            begins // page: "counts blocks",
            begins + page: "behind the byte",
            offset - begins: "how far behind",
            offset: "before alignment",
            10**12 + 1: "multiple",
        },
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_where_the_value_is(seed):
    offset, n_smiles = numbers(lesson_01.question_1(seed))
    record = records.pack("C" * n_smiles, 1.0)
    value_at = records.unpack(bytes(offset) + record, offset).value_offset_bytes
    judge(
        lesson_01.exercise_1,
        seed,
        value_at,
        {
            offset + n_smiles: "length prefix",
            offset + len(record): "next record",
            4 + n_smiles: "not from the file's first byte",
            offset + 4: "SMILES begins",
            offset: "record begins",
            offset + n_smiles + 8: "the prefix is an I",
            1: "walk along",
        },
    )


def by_struct(f, offset):
    f.seek(offset)
    (n,) = struct.unpack("<I", f.read(4))
    f.seek(n, io.SEEK_CUR)
    return struct.unpack("<d", f.read(8))[0]


def skipping(body):
    """A reader of a value that seeks to the record, reads its length, and then does ``body``."""

    def read_value(f, offset):
        f.seek(offset)
        (n,) = struct.unpack("<I", f.read(4))
        return body(f, n)

    return read_value


def blank(*args): ...


def all_at_once(f, offset):
    buf = bytearray(10**4)
    f.seek(0)
    n_bytes = f.readinto(buf)
    return records.unpack(buf[:n_bytes], offset).value


def skip_to(f, offset, prefix, base):
    f.seek(offset)
    (n,) = struct.unpack("<I", f.read(4))
    f.seek(base + prefix + n)
    return struct.unpack("<d", f.read(8))[0]


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (blank, "Not yet"),
        (lambda f, offset: print(f.read(0)), "is `return` missing"),
        (lambda f, offset: 1 / 0, "ZeroDivisionError"),
        (lambda f, offset: by_struct(f, 0), "record 0's value"),
        (skipping(lambda f, n: struct.unpack("<d", f.read(8))[0]), "SMILES comes first"),
        (lambda f, offset: skip_to(f, offset, 4, 0), "add the record's own offset"),
        (lambda f, offset: skip_to(f, offset, 0, offset), "length prefix"),
        (skipping(lambda f, n: struct.unpack("<d", f.read(n + 8)[n:])), "tuple"),
        (skipping(lambda f, n: f.read(n + 8)[n:]), "which function"),
        (skipping(lambda f, n: struct.unpack(">d", f.read(n + 8)[n:])[0]), "other order"),
        (skipping(lambda f, n: struct.unpack("<d", f.read(n + 8)[n:])[0]), "seek over the text"),
        (lambda f, offset: 0.5, "came out as"),
        (lambda f, offset: records.unpack(f.getvalue(), offset).value, "no getvalue"),
        (lambda f, offset: all_at_once(f, offset), "were read: seek"),
        (by_struct, "Right"),
    ],
)
def test_read_one_value(function, words):
    verdict = lesson_01.exercise_2(function)
    assert words in verdict.text and verdict.right == (words == "Right")


@pytest.mark.parametrize("seed", SEEDS)
def test_read_with_your_eyes(seed):
    raw = bytes.fromhex(lesson_01.question_3(seed))
    smiles = raw[4 : 4 + raw[0]].decode()
    judge(
        lesson_01.exercise_3,
        seed,
        smiles,
        {
            smiles + "\x00": "",
            raw[:4].decode() + smiles: "length, not text",
            smiles[:-1] or "X": "",
            "XYZ": "split the bytes",
        },
    )
    assert "decode" in lesson_01.exercise_3(smiles.encode(), seed).text
    if smiles != smiles[::-1]:
        assert "byte order" in lesson_01.exercise_3(smiles[::-1], seed).text


def map_it(path, **how):
    with open(path, "r+b") as f:
        return mmap.mmap(f.fileno(), how.pop("length", 0), **how)


def map_and_keep_the_file_open(path, kept=[]):  # noqa: B006
    kept.append(open(path, "rb"))  # noqa: SIM115
    return mmap.mmap(kept[-1].fileno(), 0, access=mmap.ACCESS_READ)


def map_and_close_it(path):
    with map_it(path, access=mmap.ACCESS_READ) as mm:
        return mm


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (blank, "Not yet"),
        (lambda path: print(path), "is `return` missing"),
        (lambda path: path.read_bytes(), "copy"),
        (lambda path: memoryview(map_it(path)), "the map itself"),
        (lambda path: "map", "this is a str"),
        (map_and_close_it, "closed already"),
        (lambda path: map_it(path, length=4096), "what means"),
        (map_it, "changed the file"),
        (lambda path: map_it(path, access=mmap.ACCESS_COPY), "private copy"),
        (map_and_keep_the_file_open, "still open"),
        (lambda path: 1 / 0, "ZeroDivisionError"),
        (lambda path: map_it(path, access=mmap.ACCESS_READ), "Right"),
        (lambda path: map_it(path, prot=mmap.PROT_READ), "Right"),
    ],
)
def test_a_map_to_look_at(function, words):
    verdict = lesson_02.exercise_1(function)
    assert words in verdict.text and verdict.right == (words == "Right")


@pytest.mark.parametrize("seed", SEEDS)
def test_copy_or_window(seed):
    """The answer is found by running the lines on a real map, not by reading the check's table."""
    import numpy as np

    copies = ""
    for line in lesson_02.question_2(seed).splitlines():
        letter, code = line.split(")", 1)
        with_map = {"mm": mmap.mmap(-1, mmap.PAGESIZE), "np": np}
        exec(code.strip(), with_map)
        before = bytes(with_map["part"])
        with_map["mm"][:] = b"\xff" * mmap.PAGESIZE
        copies += letter if bytes(with_map["part"]) == before else ""
    others = "".join(sorted(set("abcde") - set(copies)))
    judge(
        lesson_02.exercise_2,
        seed,
        copies,
        {others: "windows", copies[:-1]: "at least one more", copies + others[0]: "would a store"},
    )
    assert lesson_02.exercise_2(copies[::-1].upper(), seed).right
    assert lesson_02.exercise_2(", ".join(copies), seed).right
    assert "letters a to e only" in lesson_02.exercise_2(" and ".join(copies), seed).text
    assert "letters" in lesson_02.exercise_2(7, seed).text


@pytest.mark.parametrize("seed", SEEDS)
def test_align_an_offset(seed):
    granularity, offset = numbers(lesson_03.question_1(seed))[:2]
    aligned = max(range(0, offset + 1, granularity))
    delta = offset - aligned
    judge(
        lesson_03.exercise_1,
        seed,
        (aligned, delta),
        {
            (delta, aligned): "wrong order",
            (aligned // granularity, delta): "counts granules",
            (offset, 0): "before alignment",
            (aligned, 0): "index 0",
            (aligned, offset): "not from the file's",
            (aligned + granularity, granularity - delta): "rounded up",
            (aligned + granularity, delta - granularity): "rounded up",
            (aligned, granularity - delta): "the next boundary",
            (7, 7): "not above",
            (aligned,): "two numbers",
            (aligned, "x"): "two whole numbers",
            (float(aligned), 0.5): "two whole numbers",
        },
    )
    assert lesson_03.exercise_1([aligned, delta], seed).right
    assert lesson_03.exercise_1((aligned, ...), seed) == NOT_YET


def what_comes(question: str, folder) -> str:
    """What comes of the call in a question: the call is made, and nothing else is looked at."""
    granule = mmap.ALLOCATIONGRANULARITY
    path, empty = folder / "path", folder / "empty"
    path.write_bytes(b"x" * (granule * 5 // 2))
    empty.touch()
    names = {"mmap": mmap, "os": os, "path": path, "empty": empty, "granule": granule}
    names["size"] = path.stat().st_size
    try:
        exec(question.split("\n\n")[1], names)
        return "a map"
    except ValueError:
        return "ValueError"
    except OSError as error:
        return errno.errorcode[error.errno]
    finally:
        if "f" in names:
            names["f"].close()
        elif "os.close" not in question:
            os.close(names["fd"])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.skipif(sys.platform != "linux", reason="the question is about Linux")
def test_name_the_error_by_making_the_call(seed, tmp_path):
    question = lesson_03.question_2(seed)
    made = what_comes(question, tmp_path)
    hints = {}
    for name in lesson_03.NAMES:
        verdict = lesson_03.exercise_2(name, seed)
        assert verdict.right == (name == made), (seed, name, verdict)
        hints[name] = verdict.text
    assert len(set(hints.values()) - {hints[made]}) == 1
    if made == "EACCES":
        assert lesson_03.exercise_2("PermissionError", seed).right
    assert lesson_03.exercise_2(made.lower(), seed).right
    assert "which one" in lesson_03.exercise_2("OSError", seed).text
    assert "one of these" in lesson_03.exercise_2("KeyError", seed).text


def test_all_the_calls_are_asked_and_all_the_names_come_up():
    asked = {lesson_03.question_2(seed) for seed in range(1, 200)}
    assert len(asked) == len(lesson_03.CALLS)
    assert {name for _, name, _ in lesson_03.CALLS} == set(lesson_03.NAMES)


@pytest.mark.parametrize("seed", SEEDS)
def test_span_and_zeros_page_by_page(seed):
    """Counted one page after another, as the kernel would map them."""
    page, size, offset, length = numbers(lesson_03.question_3(seed))[:4]
    span = 0
    while span < length:
        span += page
    zeros = len(range(size, offset + span))
    to_the_end = offset + length == size
    judge(
        lesson_03.exercise_3,
        seed,
        (span, zeros),
        {
            (zeros, span): "wrong order" if zeros else "",
            (length, zeros): "whole pages",
            (span - page, 0): "rounded down",
            (span // page, zeros): "counts pages",
            (-(-size // page) * page, zeros): "the whole file",
            (span, 0): "what comes behind" if to_the_end else "",
            (span, span - length): "" if to_the_end else "but does the file",
            (1, 1): "round the length up",
        },
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_phantoms(seed):
    mib, used = numbers(lesson_04.question_1(seed))
    rest = mib * 1024 * 1024 - used
    phantoms = 0
    while rest >= 12 * 100_000:
        phantoms, rest = phantoms + 100_000, rest - 12 * 100_000
    while rest >= 12:
        phantoms, rest = phantoms + 1, rest - 12
    size = mib << 20
    judge(
        lesson_04.exercise_1,
        seed,
        phantoms,
        {
            size // 12: "take them off first",
            (size - used) // 4: "its length and its value",
            (size - used) // 8: "its value and its length",
            phantoms + 1: "last few bytes",
            size - used: "how many does one phantom take",
            3: "how many zero bytes",
        },
    )


def builder(
    *,
    temporary=True,
    extra=0,
    shift=0,
    rename=True,
    remove_first=False,
    copy=False,
    n_flush=1,
    rename_first=False,
    flush_first=False,
    flush_late=False,
):
    """A builder of record files with the faults that are asked for."""

    def build(path, packed):
        target = path.with_suffix(".partial") if temporary else path
        if remove_first:
            path.unlink(missing_ok=True)
        size = sum(len(record or b"") for record in packed) + extra
        with open(target, "w+b") as f:
            f.truncate(size)
            if rename_first:
                os.replace(target, path)
            with mmap.mmap(f.fileno(), 0) as mm:
                if flush_first:
                    mm.flush()
                offset = 0
                for record in packed:
                    mm[offset : offset + len(record)] = record
                    offset += len(record) - shift
                for _ in range(n_flush):
                    mm.flush()
                if flush_late:
                    os.replace(target, path)
                    mm.flush()
        if copy:
            path.write_bytes(target.read_bytes())
        elif temporary and rename and not (rename_first or flush_late):
            os.replace(target, path)

    return build


def with_another_name(path, packed, Map=mmap.mmap):  # noqa: N803
    temporary = path.with_suffix(".partial")
    temporary.write_bytes(b"".join(packed))
    with open(temporary, "r+b") as f, Map(f.fileno(), 0) as mm:
        mm.flush()
    os.replace(temporary, path)


def forgiving(path, packed):
    builder()(path, [record for record in packed if isinstance(record, bytes)])


def in_place(path, packed):
    path.touch()
    builder(temporary=False)(path, packed)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (blank, "Not yet"),
        (lambda path, packed: print(path), "no file has the name"),
        (lambda path, packed: path.write_bytes(b"".join(packed)), "not made through a map"),
        (builder(n_flush=0), "no mm.flush() was seen"),
        (builder(n_flush=400), "400 times"),
        (builder(rename_first=True), "a broken file"),
        (builder(flush_first=True, n_flush=0), "after the last store"),
        (builder(flush_late=True, n_flush=0), "before the rename"),
        (with_another_name, "no call of mmap.mmap was seen"),
        (lambda path, packed: 1 / 0, "ZeroDivisionError"),
        (builder(extra=100), "phantoms"),
        (builder(rename=False), "did you rename"),
        (builder(shift=1), "does each record begin"),
        (builder(copy=True), "left over"),
        (lambda path, packed: builder()(path, packed[:-1]), "the records"),
        (forgiving, "did not object"),
        (builder(remove_first=True), "was gone"),
        (in_place, "a broken file"),
        (builder(temporary=False), "a broken file"),
        (builder(), "Right"),
    ],
)
def test_a_builder_to_trust(function, words):
    verdict = lesson_04.exercise_2(function)
    assert words in verdict.text and verdict.right == (words == "Right"), verdict


@pytest.mark.parametrize("seed", SEEDS)
def test_three_witnesses(seed):
    story = lesson_05.question_1(seed).splitlines()[1]
    answers = ["".join(answer) for answer in product("ops", repeat=3)]
    verdicts = {answer: lesson_05.exercise_1(answer, seed) for answer in answers}
    right = [answer for answer in answers if verdicts[answer].right]
    assert len(right) == 1, story
    private, shared, read = right[0]
    assert shared == read == ("s" if story.count("S stores") == 1 else "o")
    own_copy = "P stores" in story and "anew" not in story
    assert private == ("p" if own_copy else shared)
    for answer in answers:
        if answer[1] != answer[2]:
            assert "the same page" in verdicts[answer].text
    assert "three characters" in lesson_05.exercise_1("xyz", seed).text
    assert lesson_05.exercise_1(", ".join(right[0].upper()), seed).right


def test_the_stories_have_different_ends():
    answers = ["".join(answer) for answer in product("ops", repeat=3)]
    ends = {next(a for a in answers if lesson_05.exercise_1(a, seed).right) for seed in SEEDS}
    assert ends == {"poo", "sss", "pss", "ooo"}
    n_pages = set()
    for seed in SEEDS:
        right = [n for n in range(1, 20) if lesson_05.exercise_2(n, seed).right]
        n_pages.update(right)
        assert len(right) == 1
    assert len(n_pages) >= 3


@pytest.mark.parametrize("seed", SEEDS)
def test_dirty_pages_by_storing_into_a_real_map(seed):
    """Counted on a private map: each page that was stored to becomes anonymous, and no other."""
    kib, _, *offsets, _ = numbers(lesson_05.question_2(seed).replace("8 bytes", "8 bytes", 1)) + [0]
    pages = {(offset + k) // (kib * 1024) for offset in offsets for k in range(8)}
    judge(
        lesson_05.exercise_2,
        seed,
        len(pages),
        {
            len(offsets): "counted stores",
            len({offset // (kib * 1024) for offset in offsets}): "last byte",
            8 * len(offsets): "counted bytes",
            1000: "for each store",
        },
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_major_faults_of_reads(seed):
    kib, _, *offsets = numbers(lesson_06.question_1(seed))
    page = kib * 1024
    touched = [(offset + k) // page for offset in offsets for k in (0, 99)]
    judge(
        lesson_06.exercise_1,
        seed,
        len(set(touched)),
        {
            100 * len(offsets): "counted bytes",
            max(touched) + 1: "nobody touched",
            len(offsets): "counted reads",
            len({offset // page for offset in offsets}): "last byte",
            1000: "first and its last byte",
        },
    )
    with_repeats = sum(1 + (a != b) for a, b in zip(touched[::2], touched[1::2], strict=True))
    if with_repeats not in (len(offsets), len(set(touched))):
        assert "second touch" in lesson_06.exercise_1(with_repeats, seed).text


def play(story, path):
    """The story of a page on this machine's kernel: the fault of each touch, as m, M or -."""
    map_file = partial(map_it, path)
    mm, said = map_file(), ""
    for act in story:
        names = {"mm": mm, "map_file": map_file, "path": path, "mmap": mmap}
        exec(lesson_06.ACTS[act], names | {"evict": measure.evict} | globals(), names)
        mm = names["mm"]
        before = measure.faults(thread=True)
        mm[0]
        found = measure.faults(thread=True).since(before)
        said += "M" if found.major else "m" if found.minor else "-"
    mm.close()
    return said


@pytest.mark.timing
@pytest.mark.parametrize("seed", SEEDS)
def test_minor_or_major_is_what_the_kernel_does(seed):
    with tempfile.TemporaryDirectory(dir=ROOT) as folder:
        path = Path(folder) / "one_page.dat"
        path.write_bytes(bytes(mmap.PAGESIZE))
        if measure.make_cold(path).n_cached != 0:
            pytest.skip("not available here: this folder's files cannot be made cold")
        seen = play(lesson_06._draw_story(seed), path)
    assert lesson_06.exercise_2(seen, seed).right, (seen, lesson_06.question_2(seed))


@pytest.mark.parametrize("seed", SEEDS)
def test_minor_or_major(seed):
    story = lesson_06._draw_story(seed)
    answers = ["".join(answer) for answer in product("mM-", repeat=len(story))]
    right = [answer for answer in answers if lesson_06.exercise_2(answer, seed).right]
    assert len(right) == 1
    for at, act in enumerate(story):
        for wrong in set("mM-") - {right[0][at]}:
            verdict = lesson_06.exercise_2(right[0][:at] + wrong + right[0][at + 1 :], seed)
            assert verdict.text.startswith(f"Not quite: touch {at + 1}: ")
            words = {
                "again": "is the entry gone",
                "evict": "does evict get hold",
                "cold": "where is it now",
                "dontneed": "DONTNEED" if wrong == "M" else "is there an entry",
                "map": "closing a map" if wrong == "M" else "is there an entry",
                "other": "go through" if wrong == "M" else "is there an entry",
            }
            assert words[act] in verdict.text
    assert lesson_06.exercise_2(" ".join(right[0]), seed).right
    assert "characters" in lesson_06.exercise_2(right[0][:-1], seed).text


def read_cold(path, start, end, advice=getattr(mmap, "MADV_RANDOM", 0), first=0):  # noqa: B008
    with map_it(path, access=mmap.ACCESS_READ) as mm:
        mm[:first]
        mm.madvise(advice)
        return mm[start:end]


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (blank, "Not yet"),
        (lambda path, start, end: print(path.read_bytes()[:0]), "is `return` missing"),
        (lambda path, start, end: 1 / 0, "ZeroDivisionError"),
        (lambda path, start, end: path.read_bytes(), "found others"),
        (lambda path, start, end: read_cold(path, start, end + 1), "found others"),
        (lambda path, start, end: path.read_bytes()[start:end], "who brought the others"),
        (lambda path, start, end: read_cold(path, start, end, 0), "who brought the others"),
        (lambda path, start, end: read_cold(path, start, end, 2), "who brought the others"),
        (lambda path, start, end: read_cold(path, start, end, first=1), "who brought the others"),
        (read_cold, "Right"),
    ],
)
def test_read_no_page_too_many(function, words, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(ROOT))  # on a disk, where /tmp may not be
    verdict = lesson_06.exercise_3(function)
    assert words in verdict.text and verdict.right == (words == "Right"), verdict
    assert not list(ROOT.glob("tmp*/read_cold.dat"))


@pytest.mark.parametrize("seed", SEEDS)
def test_who_read_and_who_mapped(seed):
    """The answer is found from the table that is shown: rss - shared is what a process owns."""
    lines = lesson_07.question_1(seed).splitlines()
    size = numbers(lines[0])[0]
    rows = {line.split()[0]: numbers(line) for line in lines[2:5]}
    reader = max(rows, key=lambda letter: rows[letter][0] - rows[letter][1])
    scanner = max(rows, key=lambda letter: rows[letter][1])
    other = min(rows, key=lambda letter: rows[letter][0])
    assert rows[scanner][0] > rows[reader][0] >= size > 10 * rows[other][0]
    right = reader + scanner + other
    words = {scanner + reader + other: "went by RSS", reader + other + scanner: "one byte"}
    judge(lesson_07.exercise_1, seed, right, words | {"ABA": "different letters"})
    assert lesson_07.exercise_1(", ".join(right.lower()), seed).right


@pytest.mark.parametrize("seed", SEEDS)
def test_what_readahead_brings_in_page_by_page(seed):
    question = " ".join(lesson_07.question_2(seed).split())
    n_pages, window = numbers(question)[:2]
    touched = numbers(question.split("touches the pages")[1])
    cached = set()
    for page in touched:
        start = page - page % window
        cached |= set(range(start, min(start + window, n_pages)))
    windows = {page // window for page in touched}
    wrong = {
        len(touched): "MADV_RANDOM",
        len(windows): "counted windows",
        len(touched) * window: "already",
        n_pages: "not every window",
        1: "in which window",
    }
    if len(windows) * window != len(cached):
        wrong[len(windows) * window] = "end of its last window"
    judge(lesson_07.exercise_2, seed, len(cached), wrong)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_rss_counts_byte_by_byte(seed):
    head, tail = " ".join(lesson_10.question_1(seed).split()).split("maps the records")
    (page, record), chosen = numbers(head)[:2], numbers(tail)[:3]
    maps = [{b // page for b in range(k * record, (k + 1) * record)} for k in chosen]
    asked, n_counted = 3 * record, sum(len(pages) for pages in maps)
    n_different = len(set().union(*maps))
    assert n_counted > 3 and n_different < n_counted  # both misconceptions show
    wrong = {
        n_counted * page: "take off",
        n_counted: "counted pages",
        3 * page - asked: "on one page",
        3 * page: "on one page",
        asked: "what was asked for",
        n_different * page: "have a page in common",
        7: "begin and end",
    }
    wrong[n_different * page - asked] = "in common"
    judge(lesson_10.exercise_1, seed, n_counted * page - asked, wrong)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_largest_hole_mib_by_mib(seed):
    head, *table = lesson_10.question_2(seed).splitlines()
    window = numbers(head)[1]
    regions = [numbers(line) for line in table if " to " in line and "from" not in line]
    taken = {mib for start, end in regions for mib in range(start, end)}
    free = "".join("t" if mib in taken else "." for mib in range(window)).split("t")
    sizes = [len(hole) for hole in free if hole]
    inner = limits.largest_hole([(a, b) for a, b in regions])
    assert len(regions) == 5 and limits.largest_hole(regions, (0, window)) == max(sizes)
    wrong = {
        sum(sizes): "several pieces",
        max(end - start for start, end in regions): "largest region",
        max(sizes) << 20: "MiB were asked",
        len(sizes): "counted the holes",
        1: "write down",
    }
    if inner not in (max(sizes), *wrong):
        wrong[inner] = "before the first"
    judge(lesson_10.exercise_2, seed, max(sizes), wrong)


def map_from(path, offset, length, access=mmap.ACCESS_READ):
    with open(path, "rb") as f:
        return mmap.mmap(f.fileno(), length, access=access, offset=offset)


def map_range(path, offset, length):
    delta = offset % mmap.ALLOCATIONGRANULARITY
    return memoryview(map_from(path, offset - delta, delta + length))[delta:]


def map_page_range(path, offset, length):
    delta = offset % mmap.ALLOCATIONGRANULARITY
    whole = -(-(delta + length) // mmap.PAGESIZE) * mmap.PAGESIZE
    whole = min(whole, os.path.getsize(path) - offset + delta)
    return memoryview(map_from(path, offset - delta, whole))[delta : delta + length]


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (blank, "Not yet"),
        (lambda path, offset, length: print(end=""), "is `return` missing"),
        (lambda path, offset, length: 1 / 0, "ZeroDivisionError"),
        (lambda path, offset, length: map_from(path, offset, length), "raised OSError"),
        (lambda path, offset, length: map_from(path, 0, 0), "give a view of the bytes"),
        (lambda path, offset, length: bytes(map_range(path, offset, length)), "a copy"),
        (lambda path, offset, length: memoryview(b"x" * length), "a window on a map"),
        (lambda path, offset, length: "x" * length, "found a str"),
        (lambda path, offset, length: memoryview(map_from(path, 0, 0))[offset:], "found others"),
        (
            lambda path, offset, length: memoryview(
                map_from(path, offset - offset % mmap.ALLOCATIONGRANULARITY, length)
            ),
            "found others",
        ),
        (
            lambda path, offset, length: memoryview(map_from(path, 0, 0))[offset : offset + length],
            "which of those",
        ),
        (map_page_range, "which of those"),
        (map_range, "Right"),
    ],
)
def test_a_map_of_what_is_needed(function, words):
    verdict = lesson_10.exercise_3(function)
    assert words in verdict.text and verdict.right == (words == "Right"), verdict


@pytest.mark.parametrize("seed", SEEDS)
def test_the_page_of_an_atom_s_coordinate(seed):
    question = " ".join(lesson_08.question_1(seed).split())
    kib, start, *_, row = numbers(question.partition("On which page")[0])
    molecule = int(re.search(r"atom_offsets\[(\d+)\]", question)[1])
    axis, atom = re.search(r"does the (\w) coordinate of atom (\d+)", question).groups()
    page, axis, atom = kib * 1024, "xyz".index(axis), int(atom)
    # A section of which each row is its own number in bytes: read where the coordinate is.
    at = range(start, start + 12 * (row + atom + 1), 12)[row + atom] + 4 * axis
    judge(
        lesson_08.exercise_1,
        seed,
        at // page,
        {
            at: "that is the byte",
            (at - start) // page: "Where does the section begin",
            (start + 12 * (molecule + atom) + 4 * axis) // page: "an atom, not a molecule",
            (12 * (molecule + atom) + 4 * axis) // page: "not begin at byte 0",
            (start + 4 * (row + atom) + 4 * axis) // page: "how many bytes has a row",
            (start + 24 * (row + atom) + 4 * axis) // page: "float32 has 4",
            start // page: "How far into it",
            10**9: "first the row",
        },
    )
    assert "count from 0" in lesson_08.exercise_1(at // page + 1, seed).text


@pytest.mark.parametrize("seed", SEEDS)
def test_a_scan_in_rows_and_in_columns_page_by_page(seed):
    question = lesson_08.question_2(seed)
    kib, n, n_fields = numbers(question)[:3]
    field = int(re.search(r"property\s+(\d+)", question)[1])
    page = kib * 1024
    rows = len({(4 * (k * n_fields + field)) // page for k in range(n)})
    columns = len({(4 * (field * n + k)) // page for k in range(n)})
    n_pages, wide = -(-4 * n * n_fields // page), 4 * n_fields > page
    wrong = {
        (columns, rows): "the wrong way round",
        (n_pages, columns): "longer than a page",
        (n, columns): "how many records share",
        (columns, columns): "how far apart",
        (7, columns): "longer or shorter",
        (rows, rows): "in what order",
        (rows, n_pages): "one column",
        (rows, n): "how many values share",
        (rows, 4 * n): "bytes",
        (rows, 7): "first and last byte",
    }
    for answer, words in wrong.items():
        verdict = lesson_08.exercise_2(answer, seed)
        if answer == (rows, columns):
            continue
        assert not verdict.right
        # Where two mistakes lead to one number, either hint is a help.
        if len({rows, columns, n_pages, n, 7}) == 5 or words in ("the wrong way round", "bytes"):
            assert words in verdict.text, (seed, answer, verdict)
    assert lesson_08.exercise_2((rows, columns), seed).right
    assert lesson_08.exercise_2([rows, columns], seed).right
    assert ("one page a molecule" in lesson_08.exercise_2((rows, columns), seed).text) == wide
    assert lesson_08.exercise_2((..., columns), seed) == NOT_YET
    assert "two numbers" in lesson_08.exercise_2(rows, seed).text


def test_both_kinds_of_records_are_asked():
    rows = {lesson_08._draw_scan(seed) for seed in SEEDS}
    assert 5 < sum(4 * scan.n_fields > scan.page for scan in rows) < len(rows) - 5


def smiles(ends, text, k):
    return text[ends[k] : ends[k + 1]].tobytes().decode()


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (blank, "Not yet"),
        (lambda ends, text, k: print(end=""), "is `return` missing"),
        (lambda ends, text, k: 1 / 0, "ZeroDivisionError"),
        (lambda ends, text, k: text[ends[k] : ends[k + 1]], "A str was asked for"),
        (lambda ends, text, k: bytes(text[ends[k] : ends[k + 1]]), "A str was asked for"),
        (lambda ends, text, k: 7, "this is a int"),
        (lambda ends, text, k: smiles(ends, text, k - 1), "a neighbour"),
        (lambda ends, text, k: text[ends[k] :].tobytes().decode(), "another text"),
        (lambda ends, text, k: text[k : k + 9].tobytes().decode(), "another text"),
        (
            lambda ends, text, k: text.tobytes()[ends[k] : ends[k + 1]].decode(),
            "what else does your function read",
        ),
        (
            lambda ends, text, k: smiles(np.cumsum([0, *np.diff(ends)]), text, k),
            "what else does your function read",
        ),
        (smiles, "Right"),
    ],
)
def test_a_smiles_in_one_step(function, words, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(ROOT))  # on a disk, where /tmp may not be
    verdict = lesson_08.exercise_3(function)
    assert words in verdict.text and verdict.right == (words == "Right"), verdict
    assert not list(ROOT.glob("tmp*/sections.dat"))


@pytest.mark.parametrize("seed", SEEDS)
def test_rss_pss_and_uss_from_page_tables(seed):
    rows = [line.split("  ") for line in lesson_09.question_1(seed).splitlines()[3:6]]
    rows = [[part.split() for part in row if part.strip()] for row in rows]
    maps = {name: pages for (name,), pages, _ in rows}
    own = int(rows[0][2][0])
    mappers = [sum(page in pages for pages in maps.values()) for page in maps["A"]]
    assert set(mappers) == {1, 2, 3}
    rss, pss = len(mappers) + own, sum(1 / n for n in mappers) + own
    uss = mappers.count(1) + own
    assert lesson_09.exercise_1((rss, pss, uss), seed).right
    assert lesson_09.exercise_1((rss, round(pss, 2), float(uss)), seed).right
    wrong = {
        (len(mappers), pss, uss): "RSS: RSS counts all",
        (len(mappers) + 1, pss, uss): "RSS: left are the numbers",
        (rss, pss + 0.04, uss): "PSS: almost",
        (rss, rss, uss): "PSS: a page counts by the part",
        (rss, pss - own, uss): "PSS: who else has",
        (rss, len(mappers) / 3 + own, uss): "PSS: count for each page",
        (rss, pss, mappers.count(1)): "USS: nobody else",
        (rss, pss, own): "USS: is there a page",
        (rss, pss, rss): "USS: that is RSS",
        (rss, pss, 99): "USS: go through",
        (rss, pss, "x"): "a number of pages",
        (rss, pss, float("nan")): "a number of pages",
        (rss, pss): "three numbers",
    }
    for answer, words in wrong.items():
        verdict = lesson_09.exercise_1(answer, seed)
        if answer[1] == pytest.approx(pss) and words.startswith("PSS"):
            continue  # right by chance
        assert not verdict.right and words in verdict.text, (seed, answer, verdict)
    assert lesson_09.exercise_1((rss, ..., ...), seed) == NOT_YET


@pytest.mark.parametrize("seed", SEEDS)
def test_what_all_of_them_take(seed):
    told, table = lesson_09.question_2(seed).split("anonymous\n")
    size = numbers(told)[0]
    rows = [numbers(line) for line in table.splitlines()[:-1]]
    rss, pss, uss, own = map(sum, zip(*rows, strict=True))
    gone, somebody_maps = own + size, "mapped it" in told
    too_often, no_cache = "count each once", "the page cache has the file"
    wrong = {rss: too_often, pss: "only where somebody maps it", 1: "has an owner"}
    wrong |= dict.fromkeys((own, uss), no_cache)
    if somebody_maps:
        wrong |= dict.fromkeys((rss + size, pss + size), too_often)
    assert gone not in wrong  # no wrong way is right by chance
    judge(lesson_09.exercise_2, seed, gone, wrong)
    assert somebody_maps == (own != rss) and max(rows)[0] > size  # and one has all of it


def test_tables_with_and_without_somebody_who_maps():
    kinds = {"mapped it" in lesson_09.question_2(seed) for seed in SEEDS}
    assert kinds == {True, False} and "mapped it" in lesson_09.question_2(1)


def locked(counter, lock, amount):
    with lock:
        counter[0] += amount


def unlocked(counter, lock, amount):
    counter[0] += amount


def without_index(counter, lock, amount):
    with lock:
        counter += amount


def read_before(counter, lock, amount):
    value = counter[0]
    with lock:
        counter[0] = value + amount


def stored_after(counter, lock, amount):
    with lock:
        value = counter[0]
    counter[0] = value + amount


def in_two_locks(counter, lock, amount):
    with lock:
        value = counter[0]
    with lock:
        counter[0] = value + amount


def never_given_back(counter, lock, amount):
    lock.acquire()
    counter[0] += amount


def not_given_back_on_failure(counter, lock, amount):
    never_given_back(counter, lock, amount)
    lock.release()


def given_back_always(counter, lock, amount):
    lock.acquire()
    try:
        counter[0] += amount
    finally:
        lock.release()


def asked_twice(counter, lock, amount):
    with lock, lock:
        counter[0] += amount


def looks_afterwards(counter, lock, amount):
    locked(counter, lock, amount)
    return counter[0]


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (blank, "Not yet"),
        (..., "Not yet"),
        (lambda counter, lock, amount: amount, "nothing was stored"),
        (lambda counter, lock, amount: locked(counter, lock, 2 * amount), "now it is 47"),
        (unlocked, "nobody asked"),
        (without_index, "did you mean counter[0]?"),
        (read_before, "read without the lock"),
        (stored_after, "had been given back"),
        (in_two_locks, "between reading and storing"),
        (never_given_back, "not given back"),
        (not_given_back_on_failure, "a store failed"),
        (asked_twice, "wait for ever"),
        (given_back_always, "Right"),
        (looks_afterwards, "Right"),
        (locked, "Right"),
    ],
)
def test_add_and_lose_nothing(function, words):
    verdict = lesson_09.exercise_3(function)
    assert words in verdict.text and verdict.right == (words == "Right"), verdict


@pytest.mark.parametrize("seed", SEEDS)
def test_the_most_pages_of_a_batch(seed):
    n, short, long, page = numbers(lesson_11.question_1(seed))

    def most(n_bytes):
        return max(len({at // page for at in (k, k + n_bytes - 1)}) for k in range(page))

    assert most(short) == 2 and short < page < long
    pieces = 2 + max((k + long - 1) // page + 1 for k in range(page))
    wrong = {
        n * (1 + -(-long // page)): "May it begin elsewhere",
        -(-n * short // page) + -(-n * long // page): "neighbours",
        pieces: "one molecule",
        n * (pieces - 1): "shorter than a page",
        n * 4: "longer than a page",
        10**9 + 1: "the most for one piece of each kind",
    }
    judge(lesson_11.exercise_1, seed, n * pieces, wrong)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_a_family_owns(seed):
    held, n, stored, made = numbers(lesson_11.question_2(seed))
    right = held + sum(stored + made for _ in range(n))
    wrong = {
        (n + 1) * held: "counts it once a process",
        (n + 1) * held + n * made: "that nobody stores to",
        (n + 1) * held + n * (stored + made): "that nobody stores to",
        held: "when a worker stores",
        held + n * made: "when a worker stores",
        held + n * stored: "objects that a worker keeps",
        held + stored + made: "with one worker",
        n * (stored + made): "parent's own pages",
        1: "start with the parent's",
    }
    judge(lesson_11.exercise_2, seed, right, wrong)


def in_blocks(n, block, seed, whole=True, blocks_too=True, within=True, draw=None):
    """An order that is shuffled in blocks, or one that some known mistake makes."""
    draw = draw or random.Random(seed)
    parts = [list(range(k, min(k + block, n))) for k in range(0, n, block)]
    parts = parts if whole else [part for part in parts if len(part) == block]
    if blocks_too:
        draw.shuffle(parts)
    for part in parts if within else ():
        draw.shuffle(part)
    return [number for part in parts for number in part]


def all_shuffled(n, block, seed):
    return random.Random(seed).sample(range(n), n)


def all_blocks_alike(n, block, seed):
    parts = [list(range(k, min(k + block, n))) for k in range(0, n, block)]
    for part in parts:
        random.Random(seed).shuffle(part)
    random.Random(seed).shuffle(parts)
    return [number for part in parts for number in part]


def by_the_shared_generator(n, block, seed):
    random.seed(seed)
    return in_blocks(n, block, seed, draw=random)


@pytest.mark.parametrize(
    "answer, words",
    [
        (partial(in_blocks, whole=False), "It is missing"),
        (partial(in_blocks, blocks_too=False), "the blocks come in the order"),
        (partial(in_blocks, within=False), "within a block"),
        (all_shuffled, "do not all come one after another"),
        (lambda n, block, seed: in_blocks(n, block, None), "same seed gave two orders"),
        (lambda n, block, seed: in_blocks(n, block, 1), "two seeds gave the same"),
        (by_the_shared_generator, "a generator that all share"),
        (lambda n, block, seed: [0] * n, "each number from 0"),
        (lambda n, block, seed: 7, "expected a list of numbers, found a int"),
        (lambda n, block, seed: ["a"], "expected a list of numbers, found a list"),
        (lambda *which: iter(in_blocks(*which)), "begins anew in every epoch"),
        (lambda n, block, seed: [[*range(n)]], "join the blocks"),
        (lambda n, block, seed: np.zeros((2, n)), "join the blocks"),
        (all_blocks_alike, "draw anew for each"),
        (lambda n, block: [], "TypeError"),
    ],
)
def test_an_order_that_is_not_shuffled_in_blocks_gets_its_hint(answer, words):
    verdict = lesson_11.exercise_3(answer)
    assert not verdict.right and words in verdict.text, verdict


def test_an_order_shuffled_in_blocks_is_right_as_a_list_an_array_or_a_tensor():
    import torch

    assert lesson_11.exercise_3(in_blocks).right
    assert lesson_11.exercise_3(lambda *which: torch.tensor(in_blocks(*which))).right
    assert lesson_11.exercise_3(lambda *which: np.array(in_blocks(*which))).right

    def stub(n, block, seed): ...

    assert all(lesson_11.exercise_3(answer) == NOT_YET for answer in (*STUBS, stub))


def test_a_number_that_is_right_is_right_though_a_mistake_leads_to_it_too():
    assert number(4, 4, {4: "a mistake"}, "no").right
    assert number(4.0, 4, {}, "no").right and number(np.int64(4), 4, {}, "no").right
    assert "this is a bool" in number(True, 1, {}, "no").text


def test_a_guess_beside_what_was_measured():
    assert repr(reveal(..., 1234, "pages")) == "your guess: none yet   measured: 1,234 pages"
    assert repr(reveal((..., ...), (1, "r--s"))) == "your guess: none yet   measured: 1 | r--s"
    assert repr(reveal((5, ...), (1, 2))) == "your guess: 5 | none yet   measured: 1 | 2"
    assert repr(reveal("all", "all")) == "your guess: all   measured: all"


def test_a_reveal_of_what_is_missing_says_its_reason_once_and_no_unit():
    why = "not available here, because of this"
    assert repr(reveal(5, why, "pages")) == f"your guess: 5   measured: {why}"
    assert repr(reveal((5, 6), (why, why), "pages")) == f"your guess: 5 | 6   measured: {why}"
    assert repr(reveal((5, 6), (1, why), "pages")) == f"your guess: 5 | 6   measured: 1 | {why}"
    assert repr(Verdict(True, "Right.")) == "Right."
