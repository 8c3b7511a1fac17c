"""Checks of notebooks/08_random_access.ipynb."""

import mmap
import random
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from qm9lab.course.check import NOT_YET, Verdict, ask, attempt, hint, is_stub, number, right
from qm9lab.measure import touched

ALIGNMENT_BYTES = 65_536


class _Place(NamedTuple):
    """A coordinate in the section ``pos``: all numbers but ``page`` count from 0."""

    page: int  # bytes
    offset: int  # of the section, in bytes
    molecule: int
    first_atom: int  # of the molecule, in the section
    atom: int  # in the molecule
    axis: int  # x, y, z


def _draw_place(seed: int) -> _Place:
    draw = random.Random(seed)
    molecule = draw.randrange(1_000, 120_000)
    return _Place(
        page=draw.choice([4, 16]) * 1024,
        offset=draw.randrange(20, 400) * ALIGNMENT_BYTES,
        molecule=molecule,
        first_atom=18 * molecule + draw.randrange(-900, 900),
        atom=draw.randrange(2, 9),
        axis=draw.randrange(1, 3),
    )


def question_1(seed: int) -> str:
    """The question for ``seed``."""
    at = _draw_place(seed)
    return ask(
        f"Pages of {at.page // 1024} KiB. The section pos begins at byte {at.offset:,} of the file "
        "and has a row of 3 float32 (x, y, z) for each atom of each molecule. "
        f"atom_offsets[{at.molecule}] is {at.first_atom:,}. On which page of the file (counted "
        f"from 0) does the {'xyz'[at.axis]} coordinate of atom {at.atom} (counted from 0) of "
        f"molecule {at.molecule} lie?"
    )


def exercise_1(answer, seed: int) -> Verdict:
    """Check the page of one coordinate of one atom."""
    at = _draw_place(seed)

    def page(start, row, row_bytes=12):
        return (start + row_bytes * row + 4 * at.axis) // at.page

    row = at.first_atom + at.atom
    return number(
        answer,
        page(at.offset, row),
        {
            page(at.offset, row) + 1: "pages count from 0, as bytes do.",
            at.offset + 12 * row + 4 * at.axis: "that is the byte. On which page does it lie?",
            page(0, row): "that is the page of the section. Where does the section begin?",
            page(at.offset, at.molecule + at.atom): "a row is an atom, not a molecule: which row "
            "is the molecule's first?",
            page(0, at.molecule + at.atom): "a row is an atom, and the section does not begin at "
            "byte 0.",
            page(at.offset, row, 4): "how many bytes has a row of three float32?",
            page(at.offset, row, 24): "a float32 has 4 bytes.",
            at.offset // at.page: "there the section begins. How far into it is the row?",
        },
        "first the row, then its bytes into the section, then the section's place, then the page.",
        "The row, its byte in the section, in the file, the page: as many steps for any molecule.",
    )


class _Scan(NamedTuple):
    """A table and the property that is asked of all its molecules."""

    page: int  # bytes
    n_molecules: int
    n_fields: int
    field: int

    def touched(self, layout: str) -> int:
        """Distinct pages, by brute force: each value's own byte."""
        at = np.arange(self.n_molecules)
        if layout == "rows":
            at = at * self.n_fields + self.field
        else:
            at = at + self.n_molecules * self.field
        return len(np.unique(4 * at // self.page))

    @property
    def n_pages(self) -> int:
        return -(-4 * self.n_molecules * self.n_fields // self.page)


def _draw_scan(seed: int) -> _Scan:
    draw = random.Random(seed)
    page = draw.choice([4, 16]) * 1024
    # Half of the records are longer than a page: then some pages hold none of the values.
    n_fields = draw.choice([draw.randrange(12, 60), page // 2 + 8 * draw.randrange(1, 30)])
    n_molecules = draw.randrange(5, 40) * 1_000
    return _Scan(page, n_molecules, n_fields, draw.randrange(2, 12))


def question_2(seed: int) -> str:
    """The question for ``seed``."""
    scan = _draw_scan(seed)
    return ask(
        f"Pages of {scan.page // 1024} KiB. A table of {scan.n_molecules:,} molecules, each with "
        f"{scan.n_fields:,} float32, is kept in rows in one file and in columns in another; each "
        f"table begins at byte 0. The mean of property {scan.field} (counted from 0) is asked. "
        "How many pages are touched in rows, how many in columns? Answer with both: rows, columns."
    )


def exercise_2(answer, seed: int) -> Verdict:
    """Check the pages that the mean of one property touches: (rows, columns)."""
    if is_stub(answer) or (isinstance(answer, tuple) and any(map(is_stub, answer))):
        return NOT_YET
    if not (isinstance(answer, tuple | list) and len(answer) == 2):
        return hint("two numbers were asked for: rows, columns.")
    scan = _draw_scan(seed)
    rows, columns = scan.touched("rows"), scan.touched("columns")
    values, wide = 4 * scan.n_molecules, 4 * scan.n_fields > scan.page
    if tuple(answer) == (columns, rows):
        return hint("you have the two the wrong way round.")
    in_rows = number(
        answer[0],
        rows,
        {
            columns: "rows: how far apart do two values of one property lie?",
            -(-values // scan.page): "rows: how far apart do two values of one property lie?",
            scan.n_pages: "rows: a record is longer than a page. Does each page hold such a value?",
            scan.n_molecules: "rows: how many records share a page?",
        },
        f"rows: is a record of {4 * scan.n_fields:,} bytes longer or shorter than a page?",
    )
    if not in_rows.right:
        return in_rows
    return number(
        answer[1],
        columns,
        {
            rows: "columns: in what order does the file hold the values?",
            scan.n_pages: "columns: one column of the table was asked for.",
            scan.n_molecules: "columns: how many values share a page?",
            values: "columns: you counted bytes.",
            values // scan.page: "columns: does the column begin and end with a page?",
            -(-values // scan.page): "columns: does the column begin with a page?",
            -(-values // scan.page) + 1: "columns: on which page does its first byte lie, on which "
            "its last?",
        },
        "columns: where in the file do the column's first and last byte lie?",
        "A record longer than a page: one page a molecule."
        if wide
        else "In rows nearly every page holds some of the values; in columns they lie together.",
    )


def exercise_3(function) -> Verdict:
    """Check a function that gets one SMILES from two sections, and touches no page too many."""
    draw = random.Random(8)
    texts = [draw.randbytes(draw.randrange(3, 60)).hex() for _ in range(5_000)]
    offsets = np.cumsum([0, *map(len, texts)], dtype="<i8")
    start = -(-offsets.nbytes // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "sections.dat"
        path.write_bytes(offsets.tobytes().ljust(start, b"\0") + "".join(texts).encode())
        for k in (2_345, 0, len(texts) - 1):
            answers = []

            def ask(mm, k=k, answers=answers):
                first = np.frombuffer(mm, "<i8", len(offsets))
                found, verdict = attempt(function, first, np.frombuffer(mm, "u1", -1, start), k)
                if isinstance(found, np.ndarray | memoryview):  # it would keep the map open
                    found = found.tobytes()
                answers.append((found, verdict))

            said = touched.pages(path, ask) if k == 2_345 else None
            if not answers:  # pages cannot be counted here, or need not be
                with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as mm:
                    ask(mm)
            verdict = answers[-1][1] or _judge_smiles(answers[-1][0], texts, k)
            if verdict is not None:
                return verdict
            text = start + offsets[k], start + offsets[k + 1]
            n_needed = _n_pages(8 * k, 8 * k + 16) + _n_pages(*text)
            if said is not None and said.pages is not None and len(said.pages) > n_needed:
                return hint(
                    f"the text is right, but {len(said.pages)} pages were touched, and the two "
                    f"offsets and the text lie on {n_needed}: what else does your function read?"
                )
    return right("Two offsets, one slice, wherever the molecule lies.")


def _n_pages(start: int, end: int) -> int:
    return int((end - 1) // mmap.PAGESIZE - start // mmap.PAGESIZE + 1)


def _judge_smiles(found, texts, k: int) -> Verdict | None:
    """What is wrong with what came for molecule k, or None."""
    if found is None:
        return hint("your function returned None: is `return` missing?")
    if found == texts[k]:
        return None
    if isinstance(found, bytes | bytearray):
        return hint("those are bytes, or an array of them. A str was asked for.")
    if not isinstance(found, str):
        return hint(f"a str was asked for, this is a {type(found).__name__}.")
    if found in (texts[k - 1], texts[(k + 1) % len(texts)]):
        return hint("that is a neighbour. Where does a molecule begin, and where does it end?")
    return hint(f"molecule {k} is another text. Which two of the offsets does it lie between?")
