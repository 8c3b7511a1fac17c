"""Checks of notebooks/08_random_access.ipynb."""

import mmap
import random

import numpy as np

from qm9lab.course.check import Verdict, ask, attempt, hint, not_numbers, number, right
from qm9lab.course.folders import lesson_folder
from qm9lab.measure import touched

ALIGNMENT_BYTES = 65_536


def _draw_place(seed: int) -> tuple[int, int, int, int, int, int]:
    """Bytes of a page, offset of ``pos``, a molecule and its first row, an atom of it, an axis."""
    draw = random.Random(seed)
    molecule = draw.randrange(1_000, 120_000)
    page = draw.choice([4, 16]) * 1024
    offset = draw.randrange(20, 400) * ALIGNMENT_BYTES
    first_row = 18 * molecule + draw.randrange(-900, 900)
    return page, offset, molecule, first_row, draw.randrange(2, 9), draw.randrange(1, 3)


def question_1(seed: int) -> str:
    """The question for ``seed``."""
    page, offset, molecule, first_row, atom, axis = _draw_place(seed)
    return ask(
        f"Pages of {page // 1024} KiB. The section pos begins at byte {offset:,} of the file "
        "and has a row of 3 float32 (x, y, z) for each atom of each molecule. "
        f"atom_offsets[{molecule}] is {first_row:,}. On which page of the file (counted from 0) "
        f"does the {'xyz'[axis]} coordinate of atom {atom} (counted from 0) of molecule "
        f"{molecule} lie?"
    )


def exercise_1(answer, seed: int) -> Verdict:
    """Check the page of one coordinate of one atom."""
    page, offset, molecule, first_row, atom, axis = _draw_place(seed)
    row, wrong_row = first_row + atom, molecule + atom

    def byte(start, row, row_bytes=12):
        return start + row_bytes * row + 4 * axis

    expected = byte(offset, row) // page
    return number(
        answer,
        expected,
        {
            expected + 1: "pages count from 0, as bytes do.",
            byte(offset, row): "that is the byte. On which page does it lie?",
            byte(0, row) // page: "that is the page of the section. Where does the section begin?",
            byte(offset, wrong_row) // page: "a row is an atom, not a molecule: which row is the "
            "molecule's first?",
            byte(0, wrong_row) // page: "a row is an atom, and the section does not begin at "
            "byte 0.",
            byte(offset, row, 4) // page: "how many bytes has a row of three float32?",
            byte(offset, row, 24) // page: "a float32 has 4 bytes.",
            offset // page: "there the section begins. How far into it is the row?",
        },
        "first the row, then its bytes into the section, then the section's place, then the page.",
        "The row, its byte in the section, in the file, the page: as many steps for any molecule.",
    )


def _draw_scan(seed: int) -> tuple[int, int, int, int]:
    """Bytes of a page, molecules and fields of a table, and the field that is asked of all."""
    draw = random.Random(seed)
    page = draw.choice([4, 16]) * 1024
    # Half of the records are longer than a page: then some pages hold none of the values.
    n_fields = draw.choice([draw.randrange(12, 60), page // 2 + 8 * draw.randrange(1, 30)])
    n_molecules = draw.randrange(5, 40) * 1_000
    return page, n_molecules, n_fields, draw.randrange(2, 12)


def question_2(seed: int) -> str:
    """The question for ``seed``."""
    page, n_molecules, n_fields, field = _draw_scan(seed)
    return ask(
        f"Pages of {page // 1024} KiB. A table of {n_molecules:,} molecules, each with "
        f"{n_fields:,} float32, is kept in rows in one file and in columns in another; each "
        f"table begins at byte 0. The mean of property {field} (counted from 0) is asked. "
        "How many pages are touched in rows, how many in columns? Answer with both: rows, columns."
    )


def exercise_2(answer, seed: int) -> Verdict:
    """Check the pages that the mean of one property touches: (rows, columns)."""
    verdict = not_numbers(answer, 2)
    if verdict:
        return verdict
    page, n_molecules, n_fields, field = _draw_scan(seed)
    molecules = np.arange(n_molecules)
    in_rows = molecules * n_fields + field
    in_columns = molecules + n_molecules * field
    # By brute force: the page of each value's own byte.
    rows, columns = (len(np.unique(4 * at // page)) for at in (in_rows, in_columns))
    if tuple(answer) == (columns, rows):
        return hint("you have the two the wrong way round.")
    record_bytes, column_bytes = 4 * n_fields, 4 * n_molecules
    n_pages = -(-record_bytes * n_molecules // page)
    at_least = -(-column_bytes // page)
    apart = "rows: how far apart do two values of one property lie?"
    verdict = number(
        answer[0],
        rows,
        {
            columns: apart,
            at_least: apart,
            n_pages: "rows: a record is longer than a page. Does each page hold such a value?",
            n_molecules: "rows: how many records share a page?",
        },
        f"rows: is a record of {record_bytes:,} bytes longer or shorter than a page?",
    )
    if not verdict.right:
        return verdict
    return number(
        answer[1],
        columns,
        {
            rows: "columns: in what order does the file hold the values?",
            n_pages: "columns: one column of the table was asked for.",
            n_molecules: "columns: how many values share a page?",
            column_bytes: "columns: you counted bytes.",
            column_bytes // page: "columns: does the column begin and end with a page?",
            at_least: "columns: does the column begin with a page?",
            at_least + 1: "columns: on which page does its first byte lie, on which its last?",
        },
        "columns: where in the file do the column's first and last byte lie?",
        "A record longer than a page: one page a molecule."
        if record_bytes > page
        else "In rows nearly every page holds some of the values; in columns they lie together.",
    )


def exercise_3(function) -> Verdict:
    """Check a function that gets one SMILES from two sections and touches no page too many."""
    draw = random.Random(8)
    texts = [draw.randbytes(draw.randrange(3, 60)).hex() for _ in range(5_000)]
    offsets = np.cumsum([0, *map(len, texts)], dtype="<i8")
    start = -(-offsets.nbytes // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
    path = lesson_folder() / "exercise_3.dat"
    path.write_bytes(offsets.tobytes().ljust(start, b"\0") + "".join(texts).encode())
    asked = 2_345

    def look_up(mm, k):
        ends, text = np.frombuffer(mm, "<i8", len(offsets)), np.frombuffer(mm, "u1", -1, start)
        found, verdict = attempt(function, ends, text, k)
        return verdict or _judge_smiles(found, texts, k)

    with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as mm:
        for k in (asked, 0, len(texts) - 1):
            verdict = look_up(mm, k)
            if verdict is not None:
                return verdict
    n_touched = touched.pages(path, look_up, asked).n
    text_start, text_end = start + offsets[asked : asked + 2]
    n_needed = _n_pages(8 * asked, 8 * asked + 16) + _n_pages(text_start, text_end)
    if not n_touched <= n_needed:
        return hint(
            f"the text is right, but {n_touched} pages were touched, and the two offsets and the "
            f"text lie on {n_needed}: what else does your function read?"
        )
    return right("Two offsets, one slice, wherever the molecule lies.")


def _n_pages(start, end) -> int:
    return int((end - 1) // mmap.PAGESIZE - start // mmap.PAGESIZE + 1)


def _judge_smiles(found, texts, k: int) -> Verdict | None:
    """What is wrong with the answer for molecule k, or None."""
    if isinstance(found, bytes | bytearray | memoryview | np.ndarray):
        return hint("those are bytes, or an array of them. A str was asked for.")
    if not isinstance(found, str):
        return hint(f"a str was asked for, this is a {type(found).__name__}.")
    if found == texts[k]:
        return None
    if found in (texts[k - 1], texts[(k + 1) % len(texts)]):
        return hint("that is a neighbour. Where does a molecule begin, and where does it end?")
    return hint(f"molecule {k} is another text. Which two of the offsets does it lie between?")
