"""Each check on its stub, on each known wrong answer and on right ones, for many seeds."""

import errno
import importlib
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
from qm9lab.measure import Missing

ROOT = Path(__file__).resolve().parent.parent
SEEDS = range(1, 41)
STUBS = (..., None)


def numbers(question: str) -> list[int]:
    """The whole numbers of a question, in order."""
    return [int(word.replace(",", "")) for word in re.findall(r"\d[\d,]*\d|\d", question)]


def name_of(function) -> str:
    return f"{function.__module__}.{function.__name__}"[15:]


LESSON = [importlib.import_module(f"qm9lab.lessons.lesson_{n:02}.check") for n in range(12)]
QUESTIONS = {  # exercise -> its question
    getattr(module, name.replace("question", "exercise")): getattr(module, name)
    for module in LESSON
    for name in dir(module)
    if name.startswith("question_")
}


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=name_of)
def test_questions_differ_between_seeds_and_stay_for_one(question):
    asked = [question(seed) for seed in SEEDS]
    assert asked == [question(seed) for seed in SEEDS]
    assert len(set(asked)) >= 4


@pytest.mark.parametrize("exercise", QUESTIONS, ids=name_of)
def test_a_stub_is_not_yet_and_nonsense_is_never_right(exercise):
    for stub in STUBS:
        assert exercise(stub, seed=1) == NOT_YET
    for nonsense in (-1, 3.5, "nonsense", b"", [], True, {}):
        verdict = exercise(nonsense, seed=1)
        assert not verdict.right and verdict != NOT_YET and verdict.text.startswith("Not quite: ")


WORKED_OUT, FUNCTIONS = {}, {}


def worked_out(exercise):
    """For a function that finds, from a question, its right answer and the hints for wrong ones.

    What it returns after those is right as well.
    """
    return lambda answers: WORKED_OUT.setdefault(exercise, answers)


@worked_out(LESSON[0].exercise_1)
def pages_of_a_file(question):
    kib, n_bytes = numbers(question)
    page = kib * 1024
    wrong = {n_bytes // page: "last, partly filled", n_bytes / page: "whole pages"}
    return len(range(0, n_bytes, page)), wrong | {10**9: "left over"}


def any_record(mm, offset):
    record = records.unpack(mm, offset)
    return record.smiles, record.value, record.end_bytes


FUNCTIONS[LESSON[0].exercise_2] = [  # read any record
    (lambda mm, offset: any_record(mm, offset)[:2], "three values"),
    (lambda mm, offset: records.unpack(mm, offset), "three values"),
    (lambda mm, offset: (mm[4:5], *any_record(mm, offset)[1:]), "decode"),
    (lambda mm, offset: ("C", struct.unpack_from("<d", mm, 5), 13), "take the number out"),
    (lambda mm, offset: any_record(mm, 0), "count from the one that you were given"),
    (lambda mm, offset: ("C", 2.0, 13), "offset 0 has another"),
    (lambda mm, offset: (*any_record(mm, offset)[:2], any_record(mm, offset)[2] - 8), "8 bytes"),
    (
        lambda mm, offset: (*any_record(mm, offset)[:2], any_record(mm, offset)[2] - offset),
        "length",
    ),
    (any_record, "Right"),
]


@worked_out(LESSON[1].exercise_1)
def where_the_value_is(question):
    offset, n_smiles = numbers(question)
    record = records.pack("C" * n_smiles, 1.0)
    value_at = records.unpack(bytes(offset) + record, offset).value_offset_bytes
    return value_at, {
        offset + n_smiles: "length prefix",
        offset + len(record): "next record",
        4 + n_smiles: "not from the file's first byte",
        offset + 4: "SMILES begins",
        offset: "record begins",
        offset + n_smiles + 8: "the prefix is an I",
        1: "walk along",
    }


def by_struct(f, offset, prefix=4, base=None):
    f.seek(offset)
    (n,) = struct.unpack("<I", f.read(4))
    f.seek((offset if base is None else base) + prefix + n)
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


FUNCTIONS[LESSON[1].exercise_2] = [  # read one value
    (lambda f, offset: by_struct(f, 0), "record 0's value"),
    (skipping(lambda f, n: struct.unpack("<d", f.read(8))[0]), "SMILES comes first"),
    (lambda f, offset: by_struct(f, offset, base=0), "add the record's own offset"),
    (lambda f, offset: by_struct(f, offset, prefix=0), "length prefix"),
    (skipping(lambda f, n: struct.unpack("<d", f.read(n + 8)[n:])), "tuple"),
    (skipping(lambda f, n: f.read(n + 8)[n:]), "which function"),
    (skipping(lambda f, n: struct.unpack(">d", f.read(n + 8)[n:])[0]), "other order"),
    (skipping(lambda f, n: struct.unpack("<d", f.read(n + 8)[n:])[0]), "seek over the text"),
    (lambda f, offset: 0.5, "came out as"),
    (lambda f, offset: records.unpack(f.getvalue(), offset).value, "no getvalue"),
    (all_at_once, "were read: seek"),
    (by_struct, "Right"),
]


@worked_out(LESSON[1].exercise_3)
def read_with_your_eyes(question):
    raw = bytes.fromhex(question)
    smiles = raw[4 : 4 + raw[0]].decode()
    return smiles, {
        smiles + "\x00": "",
        raw[:4].decode() + smiles: "length, not text",
        smiles[:-1] or "X": "",
        "XYZ": "split the bytes",
        smiles.encode(): "decode",
        smiles[::-1]: "byte order",
    }


def map_it(path, **how):
    with open(path, "r+b") as f:
        return mmap.mmap(f.fileno(), how.pop("length", 0), **how)


def map_and_keep_the_file_open(path, kept=[]):  # noqa: B006
    kept.append(open(path, "rb"))  # noqa: SIM115
    return mmap.mmap(kept[-1].fileno(), 0, access=mmap.ACCESS_READ)


def map_without_a_name(path):
    return mmap.mmap(open(path, "rb").fileno(), 0, access=mmap.ACCESS_READ)  # noqa: SIM115


def map_and_close_it(path):
    with map_it(path, access=mmap.ACCESS_READ) as mm:
        return mm


FUNCTIONS[LESSON[2].exercise_1] = [  # a map to look at
    (lambda path: path.read_bytes(), "copy"),
    (lambda path: memoryview(map_it(path)), "the map itself"),
    (lambda path: "map", "this is a str"),
    (map_and_close_it, "closed already"),
    (lambda path: map_it(path, length=4096), "which length means all"),
    (map_it, "changed the file"),
    (lambda path: map_it(path, access=mmap.ACCESS_COPY), "private copy"),
    (map_and_keep_the_file_open, "still open"),
    (map_without_a_name, "kept no name for it"),
    (lambda path: map_it(path, access=mmap.ACCESS_READ), "Right"),
    (lambda path: map_it(path, prot=mmap.PROT_READ), "Right"),
]


@worked_out(LESSON[2].exercise_2)
def copy_or_view(question):
    """The answer is found by running the lines on a real map, not by reading the check's table."""
    copies = ""
    for line in question.splitlines():
        letter, code = line.split(")", 1)
        with_map = {"mm": mmap.mmap(-1, mmap.PAGESIZE), "np": np}
        exec(code.strip(), with_map)
        before = bytes(with_map["part"])
        with_map["mm"][:] = b"\xff" * mmap.PAGESIZE
        copies += letter if bytes(with_map["part"]) == before else ""
    others = "".join(sorted(set("abcde") - set(copies)))
    wrong = {
        others: "views",
        copies[:-1]: "at least one more",
        copies + others[0]: "part show",
        " and ".join(copies): "letters a to e only",
        7: "letters",
    }
    return copies, wrong, copies[::-1].upper(), ", ".join(copies)


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
    question = LESSON[3].question_1(seed)
    made = what_comes(question, tmp_path)
    hints = {}
    for name in LESSON[3].NAMES:
        verdict = LESSON[3].exercise_1(name, seed)
        assert verdict.right == (name == made), (seed, name, verdict)
        hints[name] = verdict.text
    assert len(set(hints.values()) - {hints[made]}) == 1
    if made == "EACCES":
        assert LESSON[3].exercise_1("PermissionError", seed).right
    assert LESSON[3].exercise_1(made.lower(), seed).right
    assert "which one" in LESSON[3].exercise_1("OSError", seed).text
    assert "one of these" in LESSON[3].exercise_1("KeyError", seed).text


def test_all_the_calls_are_asked_and_all_the_names_come_up():
    asked = {LESSON[3].question_1(seed) for seed in range(1, 200)}
    assert len(asked) == len(LESSON[3].CALLS)
    assert {name for _, name, _ in LESSON[3].CALLS} == set(LESSON[3].NAMES)


def map_part(path, start, n, mode="r+b", delta=None, more=0, **how):
    """A view of ``n`` bytes from ``start``, right unless something else is asked for."""
    ahead = start % mmap.ALLOCATIONGRANULARITY
    with open(path, mode) as f:
        mm = mmap.mmap(f.fileno(), ahead + n + more, offset=start - ahead, **how)
    return memoryview(mm)[ahead if delta is None else delta :]


def map_unaligned(path, start, n):
    with open(path, "r+b") as f:
        return memoryview(mmap.mmap(f.fileno(), n, offset=start))


def map_all(path, start, n):
    with open(path, "r+b") as f:
        return memoryview(mmap.mmap(f.fileno(), 0))[start : start + n]


FUNCTIONS[LESSON[3].exercise_2] = [  # a part of a file, to change
    (lambda path, start, n: map_part(path, start, n).tobytes(), "this is a bytes"),
    (lambda path, start, n: map_part(path, start, n).obj, "this is a mmap"),
    (lambda path, start, n: (map_part(path, start, n), 0), "this is a tuple"),
    (lambda path, start, n: memoryview(path.read_bytes())[start : start + n], "not of a map"),
    (map_unaligned, "multiple of the granularity"),
    (map_all, "map only the part"),
    (lambda *which: map_part(*which, mode="rb"), "opened like this"),
    (lambda *which: map_part(*which, mode="wb"), "which mode keeps"),
    (lambda *which: map_part(*which, mode="w+b"), "which mode keeps"),
    (lambda *which: map_part(*which, mode="rb", access=mmap.ACCESS_READ), "read-only"),
    (lambda *which: map_part(*which, access=mmap.ACCESS_COPY), "does not reach the file"),
    (lambda *which: map_part(*which, delta=0), "were asked for"),
    (lambda *which: map_part(*which, delta=0)[: which[2]], "other bytes"),
    (lambda *which: map_part(*which, more=2**30), "where does this map end"),
    (map_part, "Right"),
    (lambda *which: map_part(*which, access=mmap.ACCESS_WRITE), "Right"),
]


@worked_out(LESSON[4].exercise_1)
def phantoms(question):
    mib, used = numbers(question)
    phantoms = len(range(12, mib * 1024 * 1024 - used + 1, 12))
    size = mib << 20
    return phantoms, {
        size // 12: "subtract them first",
        (size - used) // 4: "a length and a value",
        (size - used) // 8: "a value and a length",
        phantoms + 1: "last few bytes",
        size - used: "how many does one phantom take",
        3: "how many zero bytes",
    }


def builder(*faults, extra=0, shift=0, n_flush=1):
    """A builder of record files with the faults that are asked for."""

    def build(path, packed):
        target = path if "in place" in faults else path + ".partial"
        if "remove first" in faults:
            Path(path).unlink(missing_ok=True)
        size = sum(len(record or b"") for record in packed) + extra
        with open(target, "w+b") as f:
            f.truncate(size)
            if "rename first" in faults:
                os.replace(target, path)
            with mmap.mmap(f.fileno(), 0) as mm:
                if "flush first" in faults:
                    mm.flush()
                offset = 0
                for record in packed:
                    mm[offset : offset + len(record)] = record
                    offset += len(record) - shift
                for _ in range(n_flush):
                    mm.flush()
                if "flush late" in faults:
                    os.replace(target, path)
                    mm.flush()
        if "copy" in faults:
            Path(path).write_bytes(Path(target).read_bytes())
        elif not {"in place", "no rename", "rename first", "flush late"} & set(faults):
            os.replace(target, path)

    return build


def with_another_name(path, packed, Map=mmap.mmap):  # noqa: N803
    temporary = Path(path + ".partial")
    temporary.write_bytes(b"".join(packed))
    with open(temporary, "r+b") as f, Map(f.fileno(), 0) as mm:
        mm.flush()
    os.replace(temporary, path)


def forgiving(path, packed):
    builder()(path, [record for record in packed if isinstance(record, bytes)])


def in_place(path, packed):
    Path(path).touch()
    builder("in place")(path, packed)


FUNCTIONS[LESSON[4].exercise_2] = [  # a builder to trust
    (lambda path, packed: print(path), "no file has the name"),
    (lambda path, packed: Path(path).write_bytes(b"".join(packed)), "not made through a map"),
    (builder(n_flush=0), "never flushed"),
    (builder(n_flush=400), "400 times"),
    (builder("rename first"), "a broken file"),
    (builder("flush first", n_flush=0), "after the last record"),
    (builder("flush late", n_flush=0), "before the rename"),
    (with_another_name, "no call of mmap.mmap was seen"),
    (builder(extra=100), "phantoms"),
    (builder("no rename"), "did you rename"),
    (builder(shift=1), "does each record begin"),
    (builder("copy"), "still there"),
    (lambda path, packed: builder()(path, packed[:-1]), "the records"),
    (forgiving, "raised no error"),
    (builder("remove first"), "was gone"),
    (in_place, "a broken file"),
    (builder("in place"), "a broken file"),
    (builder(), "Right"),
]


def adding(base=4, offset=None, order="<", write=struct.pack_into, keep=True, close=False):
    """A function for exercise 1 of lesson 05 that goes wrong in the given way."""

    def add(mm, start, amount):
        start = start if offset is None else offset
        at = start + base + struct.unpack_from("<I", mm, start)[0]
        (value,) = struct.unpack_from(f"{order}d", mm, at)
        write(f"{order}d", mm, at, value + amount if keep else amount)
        if close:
            mm.close()

    return add


FUNCTIONS[LESSON[5].exercise_1] = [  # add to an energy
    (adding(write=lambda form, mm, at, value: value), "has not changed"),
    (adding(write=lambda form, mm, *rest: struct.pack_into(form, bytearray(mm), *rest)), "itself"),
    (
        adding(write=lambda form, mm, *rest: struct.pack_into(form, mm[:], *rest)),
        "raised TypeError",
    ),
    (adding(base=0), "other bytes changed"),
    (adding(offset=0), "other bytes changed"),
    (adding(keep=False), "Read the old energy first"),
    (adding(order=">"), "the energy is"),
    (adding(close=True), "closed the map"),
    (adding(), "Right"),
]


@pytest.mark.parametrize("seed", SEEDS)
def test_three_observers(seed):
    story = LESSON[5].question_2(seed).splitlines()[1]
    answers = ["".join(answer) for answer in product("ops", repeat=3)]
    verdicts = {answer: LESSON[5].exercise_2(answer, seed) for answer in answers}
    right = [answer for answer in answers if verdicts[answer].right]
    assert len(right) == 1, story
    private, shared, read = right[0]
    assert shared == read == ("s" if story.count("S writes") == 1 else "o")
    own_copy = "P writes" in story and "again" not in story
    assert private == ("p" if own_copy else shared)
    for answer in answers:
        if answer[1] != answer[2]:
            assert "the same page" in verdicts[answer].text
    assert "3 characters" in LESSON[5].exercise_2("xyz", seed).text
    assert LESSON[5].exercise_2(", ".join(right[0].upper()), seed).right


def test_the_stories_have_different_ends():
    answers = ["".join(answer) for answer in product("ops", repeat=3)]
    ends = {next(a for a in answers if LESSON[5].exercise_2(a, seed).right) for seed in SEEDS}
    assert ends == {"poo", "sss", "pss", "ooo"}


def play(story, path):
    """The story of a page on this machine's kernel: the fault of each touch, as m, M or -."""
    mm, seen = map_it(path), ""
    for act in story:
        names = {"mm": mm, "map_file": map_it, "path": path, "mmap": mmap}
        exec(LESSON[6].ACTS[act][1], names | {"evict": measure.evict} | globals(), names)
        mm = names["mm"]
        before = measure.faults(thread=True)
        mm[0]
        found = measure.faults(thread=True).since(before)
        seen += "M" if found.major else "m" if found.minor else "-"
    mm.close()
    return seen


@pytest.mark.timing
@pytest.mark.parametrize("seed", SEEDS)
def test_minor_or_major_is_what_the_kernel_does(seed):
    with tempfile.TemporaryDirectory(dir=ROOT) as folder:
        path = Path(folder) / "one_page.dat"
        path.write_bytes(bytes(mmap.PAGESIZE))
        if measure.file_system(path) in measure.MEMORY_ONLY:
            pytest.skip("not available here: this folder is in memory, its files stay cached")
        measure.make_cold(path)
        seen = play(LESSON[6]._draw_story(seed), path)
    assert LESSON[6].exercise_1(seen, seed).right, (seen, LESSON[6].question_1(seed))


@pytest.mark.parametrize("seed", SEEDS)
def test_minor_or_major(seed):
    story = LESSON[6]._draw_story(seed)
    answers = ["".join(answer) for answer in product("mM-", repeat=len(story))]
    right = [answer for answer in answers if LESSON[6].exercise_1(answer, seed).right]
    assert len(right) == 1
    for at, act in enumerate(story):
        for wrong in set("mM-") - {right[0][at]}:
            verdict = LESSON[6].exercise_1(right[0][:at] + wrong + right[0][at + 1 :], seed)
            assert verdict.text.startswith(f"Not quite: touch {at + 1}: ")
            words = LESSON[6].HINTS[act]
            if right[0][at] == "m" and wrong == "-":
                words = "is there an entry"
            assert words in verdict.text
    assert LESSON[6].exercise_1(" ".join(right[0]), seed).right
    assert "characters" in LESSON[6].exercise_1(right[0][:-1], seed).text


def read_cold(path, start, end, advice=getattr(mmap, "MADV_RANDOM", 0), first=0):  # noqa: B008
    with map_it(path, access=mmap.ACCESS_READ) as mm:
        mm[:first]
        mm.madvise(advice)
        return mm[start:end]


FUNCTIONS[LESSON[6].exercise_2] = [  # read no page too many
    (lambda path, start, end: path.read_bytes(), "found others"),
    (lambda path, start, end: read_cold(path, start, end + 1), "found others"),
    (lambda path, start, end: path.read_bytes()[start:end], "Who loaded the others"),
    (lambda path, start, end: read_cold(path, start, end, 0), "Who loaded the others"),
    (lambda path, start, end: read_cold(path, start, end, 2), "Who loaded the others"),
    (lambda path, start, end: read_cold(path, start, end, first=1), "Who loaded the others"),
    (read_cold, "Right"),
]


@worked_out(LESSON[7].exercise_1)
def who_read_and_who_mapped(question):
    """The answer is found from the table that is shown: rss - shared is what a process owns."""
    lines = question.splitlines()
    size = numbers(lines[0])[0]
    rows = {line.split()[0]: numbers(line) for line in lines[2:5]}
    reader = max(rows, key=lambda letter: rows[letter][0] - rows[letter][1])
    scanner = max(rows, key=lambda letter: rows[letter][1])
    other = min(rows, key=lambda letter: rows[letter][0])
    assert rows[scanner][0] > rows[reader][0] >= size > 10 * rows[other][0]
    right = reader + scanner + other
    wrong = {scanner + reader + other: "went by RSS", reader + other + scanner: "one byte"}
    return right, wrong | {"ABA": "different letters"}, ", ".join(right.lower())


@worked_out(LESSON[7].exercise_2)
def what_readahead_brings_in_page_by_page(question):
    question = " ".join(question.split())
    n_pages, window = numbers(question)[:2]
    touched = numbers(question.split("touches the pages")[1])

    def pages_loaded(n_pages):
        loaded = set()
        for page in touched:
            start = page - page % window
            loaded |= set(range(start, min(start + window, n_pages)))
        return len(loaded)

    n_reads = len({page // window for page in touched})
    cached, grown = pages_loaded(n_pages), pages_loaded(3 * n_pages)
    wrong = {
        (len(touched), 1): "MADV_RANDOM",
        (n_reads, 1): "counted disk reads",
        (len(touched) * window, 1): "loaded already",
        (n_pages, 1): "not every part",
        (1, grown): "in which part",
        (cached, 3 * cached): "same pages as before",
        (cached, 1): "first number is right",
    }
    if grown != cached:
        wrong[n_reads * window, grown] = "end of its last part"
        wrong[cached, cached] = "not any more"
    return (cached, grown), wrong


@worked_out(LESSON[10].exercise_1)
def what_rss_counts_byte_by_byte(question):
    head, tail = " ".join(question.split()).split("maps the records")
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
    return n_counted * page - asked, wrong


@worked_out(LESSON[10].exercise_2)
def the_largest_hole_mib_by_mib(question):
    head, *table = question.splitlines()
    window = numbers(head)[1]
    regions = [numbers(line) for line in table if " to " in line and "from" not in line]
    taken = {mib for start, end in regions for mib in range(start, end)}
    free = "".join("t" if mib in taken else "." for mib in range(window)).split("t")
    sizes = [len(hole) for hole in free if hole]
    inner = max(sizes[1:-1])
    assert len(regions) == 5 and len(sizes) == 6
    wrong = {
        sum(sizes): "several pieces",
        max(end - start for start, end in regions): "largest region",
        max(sizes) << 20: "MiB were asked",
        len(sizes): "counted the holes",
        1: "write down",
    }
    if inner not in (max(sizes), *wrong):
        wrong[inner] = "before the first"
    return max(sizes), wrong


def map_from(path, offset, length, access=mmap.ACCESS_READ):
    with open(path, "rb") as f:
        return mmap.mmap(f.fileno(), length, access=access, offset=offset)


def whole_map(path):
    return memoryview(map_from(path, 0, 0))


def map_range(path, offset, length):
    delta = offset % mmap.ALLOCATIONGRANULARITY
    return memoryview(map_from(path, offset - delta, delta + length))[delta:]


def map_page_range(path, offset, length):
    delta = offset % mmap.ALLOCATIONGRANULARITY
    whole = -(-(delta + length) // mmap.PAGESIZE) * mmap.PAGESIZE
    whole = min(whole, os.path.getsize(path) - offset + delta)
    return memoryview(map_from(path, offset - delta, whole))[delta : delta + length]


FUNCTIONS[LESSON[10].exercise_3] = [  # a map of what is needed
    (map_from, "raised OSError"),
    (lambda path, offset, length: map_from(path, 0, 0), "give a view of the bytes"),
    (lambda path, offset, length: bytes(map_range(path, offset, length)), "a copy"),
    (lambda path, offset, length: memoryview(b"x" * length), "a window on a map"),
    (lambda path, offset, length: "x" * length, "found a str"),
    (lambda path, offset, length: whole_map(path)[offset:], "found others"),
    (lambda path, offset, length: map_range(path, offset, length + 1), "found others"),
    (lambda path, offset, length: whole_map(path)[offset : offset + length], "which of those"),
    (map_page_range, "which of those"),
    (map_range, "Right"),
]


@worked_out(LESSON[8].exercise_1)
def the_page_of_an_atom_s_coordinate(question):
    question = " ".join(question.split())
    kib, start, *_, row = numbers(question.partition("On which page")[0])
    molecule = int(re.search(r"atom_offsets\[(\d+)\]", question)[1])
    axis, atom = re.search(r"does the (\w) coordinate of atom (\d+)", question).groups()
    page, axis, atom = kib * 1024, "xyz".index(axis), int(atom)
    # A section of which each row is its own number in bytes: read where the coordinate is.
    at = range(start, start + 12 * (row + atom + 1), 12)[row + atom] + 4 * axis
    return at // page, {
        at // page + 1: "count from 0",
        at: "that is the byte",
        (at - start) // page: "Where does the section begin",
        (start + 12 * (molecule + atom) + 4 * axis) // page: "an atom, not a molecule",
        (12 * (molecule + atom) + 4 * axis) // page: "not begin at byte 0",
        (start + 4 * (row + atom) + 4 * axis) // page: "how many bytes has a row",
        (start + 24 * (row + atom) + 4 * axis) // page: "float32 has 4",
        start // page: "How far into it",
        10**9: "first the row",
    }


@worked_out(LESSON[8].exercise_2)
def a_scan(question):
    kib, n, n_fields = numbers(question)[:3]
    field = int(re.search(r"property\s+(\d+)", question)[1])
    page = kib * 1024
    rows = len({(4 * (k * n_fields + field)) // page for k in range(n)})
    columns = len({(4 * (field * n + k)) // page for k in range(n)})
    n_pages = -(-4 * n * n_fields // page)
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
    if len({rows, columns, n_pages, n, 7}) < 5:  # two mistakes, one number: either hint helps
        wrong = dict.fromkeys(wrong, "")
    return (rows, columns), wrong, [rows, columns]


def test_both_kinds_of_records_are_asked():
    scans = {seed: LESSON[8]._draw_scan(seed) for seed in SEEDS}
    is_wide = {seed: 4 * n_fields > page for seed, (page, _, n_fields, _) in scans.items()}
    assert 5 < sum(is_wide.values()) < len(scans) - 5
    for seed in SEEDS:
        right, *_ = a_scan(LESSON[8].question_2(seed))
        verdict = LESSON[8].exercise_2(right, seed)
        assert ("one page a molecule" in verdict.text) == is_wide[seed]


def smiles(ends, text, k):
    return text[ends[k] : ends[k + 1]].tobytes().decode()


FUNCTIONS[LESSON[8].exercise_3] = [  # a smiles in one step
    (lambda ends, text, k: text[ends[k] : ends[k + 1]], "A str was asked for"),
    (lambda ends, text, k: bytes(text[ends[k] : ends[k + 1]]), "A str was asked for"),
    (lambda ends, text, k: 7, "this is a int"),
    (lambda ends, text, k: smiles(ends, text, k - 1), "a neighbour"),
    (lambda ends, text, k: text[ends[k] :].tobytes().decode(), "another text"),
    (lambda ends, text, k: text[k : k + 9].tobytes().decode(), "another text"),
    (lambda ends, text, k: text.tobytes()[ends[k] : ends[k + 1]].decode(), "what else does"),
    (lambda ends, text, k: smiles(ends.copy(), text, k), "what else does your function read"),
    (smiles, "Right"),
]


@worked_out(LESSON[9].exercise_1)
def what_all_of_them_take(question):
    told, table = question.split("owned\n")
    size = numbers(told)[0]
    rows = [numbers(line) for line in table.splitlines()[:-1]]
    rss, pss, uss, own = map(sum, zip(*rows, strict=True))
    gone, somebody_maps = own + size, "mapped it" in told
    too_often, no_cache = "count each page once", "the page cache has the file"
    wrong = {rss: too_often, pss: "only where somebody maps it", 1: "has an owner"}
    wrong |= dict.fromkeys((own, uss), no_cache)
    if somebody_maps:
        wrong |= dict.fromkeys((rss + size, pss + size), too_often)
    assert gone not in wrong  # no wrong way is right by chance
    assert somebody_maps == (own != rss) and max(rows)[0] > size  # and one has all of it
    return gone, wrong


def test_tables_with_and_without_somebody_who_maps():
    kinds = {"mapped it" in LESSON[9].question_1(seed) for seed in SEEDS}
    assert kinds == {True, False} and "mapped it" in LESSON[9].question_1(1)


def adding(steps):
    """A function that adds by these steps: + and - for the lock, r and w for read and write."""

    def add(counter, lock, amount):
        for step in steps:
            if step == "+":
                lock.acquire()
            elif step == "-":
                lock.release()
            elif step == "r":
                value = counter[0]
            else:
                counter[0] = value + amount

    return add


def locked(counter, lock, amount):
    with lock:
        counter[0] += amount
    return counter[0]


def without_index(counter, lock, amount):
    with lock:
        counter += amount


def given_back_always(counter, lock, amount):
    lock.acquire()
    try:
        counter[0] += amount
    finally:
        lock.release()


FUNCTIONS[LESSON[9].exercise_2] = [  # add and lose nothing
    (lambda counter, lock, amount: amount, "wrote nothing"),
    (lambda counter, lock, amount: locked(counter, lock, 2 * amount), "the number is 47"),
    (adding("rw"), "never asks"),
    (without_index, "did you mean counter[0]?"),
    (adding("r+w-"), "read without the lock"),
    (adding("+r-w"), "had been released"),
    (adding("+r-+w-"), "between the read and the write"),
    (adding("+rw"), "not released"),
    (adding("+rw-"), "a write failed"),
    (adding("++rw--"), "wait for ever"),
    (given_back_always, "Right"),
    (locked, "Right"),
]


@worked_out(LESSON[11].exercise_1)
def the_most_pages_of_a_batch(question):
    n, short, long, page = numbers(question)

    def most(n_bytes):
        return max(len({at // page for at in (k, k + n_bytes - 1)}) for k in range(page))

    assert most(short) == 2 and short < page < long
    pieces = 2 + max((k + long - 1) // page + 1 for k in range(page))
    return n * pieces, {
        n * (1 + -(-long // page)): "May it begin elsewhere",
        -(-n * short // page) + -(-n * long // page): "neighbours",
        pieces: "one molecule",
        n * (pieces - 1): "shorter than a page",
        n * 4: "longer than a page",
        10**9 + 1: "the most for one piece of each kind",
    }


@worked_out(LESSON[11].exercise_2)
def what_parent_and_workers_own(question):
    held, n, written, made = numbers(question)
    right = held + sum(written + made for _ in range(n))
    return right, {
        (n + 1) * held: "counts it once a process",
        (n + 1) * held + n * made: "that nobody writes to",
        (n + 1) * held + n * (written + made): "that nobody writes to",
        held: "when a worker writes",
        held + n * made: "when a worker writes",
        held + n * written: "objects that a worker keeps",
        held + written + made: "with one worker",
        n * (written + made): "parent's own pages",
        1: "start with the parent's",
    }


def in_blocks(n, block, seed, whole=True, blocks_too=True, within=True, alike=False, draw=None):
    """An order that is shuffled in blocks, or one that some known mistake makes."""
    draw = draw or random.Random(seed)
    parts = [list(range(k, min(k + block, n))) for k in range(0, n, block)]
    parts = parts if whole else [part for part in parts if len(part) == block]
    for part in parts if within else ():
        (random.Random(seed) if alike else draw).shuffle(part)
    if blocks_too:
        draw.shuffle(parts)
    return [number for part in parts for number in part]


def by_the_shared_generator(n, block, seed):
    random.seed(seed)
    return in_blocks(n, block, seed, draw=random)


FUNCTIONS[LESSON[11].exercise_3] = [  # an order that is shuffled in blocks
    (partial(in_blocks, whole=False), "It is missing"),
    (partial(in_blocks, blocks_too=False), "the blocks come in the order"),
    (partial(in_blocks, within=False), "within a block"),
    (
        lambda n, block, seed: random.Random(seed).sample(range(n), n),
        "do not all come one after another",
    ),
    (lambda n, block, seed: in_blocks(n, block, None), "same seed gave two orders"),
    (lambda n, block, seed: in_blocks(n, block, 1), "two seeds gave the same"),
    (by_the_shared_generator, "a generator that all share"),
    (lambda n, block, seed: [0] * n, "each number from 0"),
    (lambda n, block, seed: 7, "expected a list of numbers, found a int"),
    (lambda n, block, seed: ["a"], "expected a list of numbers, found a list"),
    (lambda *which: iter(in_blocks(*which)), "again in every epoch"),
    (lambda n, block, seed: [[*range(n)]], "join the blocks"),
    (lambda n, block, seed: np.zeros((2, n)), "join the blocks"),
    (partial(in_blocks, alike=True), "draw again for each"),
    (lambda n, block: [], "TypeError"),
    (in_blocks, "Right"),
    (lambda *which: np.array(in_blocks(*which)), "Right"),
]


@pytest.mark.parametrize("exercise", WORKED_OUT, ids=name_of)
def test_a_right_answer_is_right_and_a_wrong_one_gets_its_hint(exercise):
    for seed in SEEDS:
        right, wrong, *also = WORKED_OUT[exercise](QUESTIONS[exercise](seed))
        assert all(exercise(answer, seed).right for answer in (right, *also)), (seed, right)
        for answer, words in wrong.items():
            if answer != right:  # none is right by chance
                verdict = exercise(answer, seed)
                assert not verdict.right and words in verdict.text, (seed, answer, verdict)
                assert str(right) not in verdict.text.split(), "a hint gave the answer away"


@pytest.mark.parametrize(
    ("exercise", "function", "words"),
    [(exercise, *row) for exercise, rows in FUNCTIONS.items() for row in rows],
    ids=lambda part: name_of(part) if part in FUNCTIONS else None,
)
def test_a_function_gets_the_hint_for_what_it_does(exercise, function, words, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(ROOT))  # on a disk, where /tmp may not be
    verdict = exercise(function)
    assert words in verdict.text and verdict.right == (words == "Right"), verdict
    assert not list(ROOT.glob("tmp*/*.dat"))


@pytest.mark.parametrize("exercise", FUNCTIONS, ids=name_of)
def test_a_function_that_is_a_stub_raises_or_returns_nothing(exercise):
    assert all(exercise(stub) == NOT_YET for stub in (*STUBS, blank))
    assert "raised ZeroDivisionError" in exercise(lambda *args: 1 / 0).text
    returns_nothing = (LESSON[4].exercise_2, LESSON[5].exercise_1, LESSON[9].exercise_2)
    if exercise not in returns_nothing:
        assert "is `return` missing" in exercise(lambda *args: print(end="")).text


def test_an_order_may_be_a_tensor():
    import torch

    assert LESSON[11].exercise_3(lambda *which: torch.tensor(in_blocks(*which))).right


def test_a_number_that_is_right_is_right_though_a_mistake_leads_to_it_too():
    assert number(4, 4, {4: "a mistake"}, "no").right
    assert number(4.0, 4, {}, "no").right and number(np.int64(4), 4, {}, "no").right
    assert "found True" in number(True, 1, {}, "no").text
    assert number((1, ...), (1, 2), {}, "no") == NOT_YET and number([1, 2], (1, 2), {}, "").right
    for answer in (1, (1,), (1, 2, 3)):
        assert "2 numbers" in number(answer, (1, 2), {}, "no").text
    for answer in ((1, "x"), (1, float("nan")), (1, True)):
        assert "found" in number(answer, (1, 2), {}, "no").text


def test_a_guess_beside_what_was_measured():
    assert repr(reveal(..., 1234, "pages")) == "your guess: not made yet   measured: 1,234 pages"
    assert repr(reveal((..., ...), (1, "r--s"))) == "your guess: not made yet   measured: 1 | r--s"
    assert repr(reveal((5, ...), (1, 2))) == "your guess: 5 | not made yet   measured: 1 | 2"
    assert repr(reveal("all", "all")) == "your guess: all   measured: all"
    assert repr(reveal([...], [])) == "your guess: not made yet   measured: none"
    assert repr(reveal(2, np.sum([True] * 2048))) == "your guess: 2   measured: 2,048"


def test_a_reveal_of_what_is_missing_has_its_reason_once_and_no_unit(monkeypatch):
    monkeypatch.delenv("QM9LAB_STRICT", raising=False)
    none, other = Missing("of this"), Missing("of that")
    why = "not available here, because of this"
    assert repr(reveal(5, none, "pages")) == f"your guess: 5   measured: {why}"
    assert repr(reveal((5, 6), (none, none), "pages")) == f"your guess: 5 | 6   measured: {why}"
    assert repr(reveal((5, 6), (1, none), "pages")) == f"your guess: 5 | 6   measured: 1 | {why}"
    assert repr(reveal(5, (none, other))).endswith(f"{why} | not available here, because of that")
    assert repr(Verdict(True, "Right.")) == "Right."
