"""Checks of notebooks/01_bytes_on_disk.ipynb."""

import io
import random
import struct

from qm9lab import records
from qm9lab.course.check import NOT_YET, Verdict, ask, attempt, hint, is_stub, number, right

MOLECULES = ("CCO", "C=O", "CC#N", "OC=O", "CNC", "C1CC1", "NC=O", "CC(C)O", "COC")


def _draw(seed: int) -> tuple[int, int]:
    """Where a record begins, and how many bytes its SMILES has."""
    draw = random.Random(seed)
    return draw.randint(500, 90_000), draw.randint(17, 80)


def question_1(seed: int) -> str:
    """The question for ``seed``."""
    offset, n_smiles = _draw(seed)
    return ask(
        f"A record begins at offset {offset:,}; its SMILES has {n_smiles} bytes. "
        "At which offset of the file does its value begin?"
    )


def exercise_1(answer, seed: int) -> Verdict:
    """Check the offset of a record's value."""
    offset, n_smiles = _draw(seed)
    return number(
        answer,
        offset + 4 + n_smiles,
        {
            offset + n_smiles: "you forgot the length prefix.",
            offset + n_smiles + 12: "that is where the next record begins, after the value.",
            offset + n_smiles + 8: "the prefix is an I, not a d: how many bytes does it take?",
            4 + n_smiles: "that counts from the record's start, not from the file's first byte.",
            offset + 4: "that is where the SMILES begins.",
            offset: "that is where the record begins.",
        },
        "walk along the picture: which fields lie before the value, and how long are they?",
        "Record offset + 4 + length.",
    )


class _CountingFile(io.BytesIO):
    """Bytes that count how many of them were read."""

    n_read = 0

    def read(self, size=-1):
        got = super().read(size)
        self.n_read += len(got)
        return got

    def readinto(self, buffer):
        got = self.read(len(buffer))
        buffer[: len(got)] = got
        return len(got)

    def getvalue(self):
        raise io.UnsupportedOperation("a file on a disk has no getvalue")

    getbuffer = getvalue


def exercise_2(function) -> Verdict:
    """Check a function that reads one record's value."""
    values = [2.5, -1101.4878, 1e300, 0.0]
    texts = ["CCOCCOCC", "[H]C([H])([H])[H]", "CCO" * 30, "C=O"]
    packed = [records.pack(text, value) for text, value in zip(texts, values, strict=True)]
    contents, offset = b"".join(packed), 0
    for text, value, record in zip(texts, values, packed, strict=True):
        file = _CountingFile(contents)
        found, verdict = attempt(function, file, offset)
        if verdict:
            return verdict
        if isinstance(found, tuple):
            return hint("struct.unpack returns a tuple, even for one value: take the value out.")
        if isinstance(found, bytes):
            return hint("those are the value's bytes: which function turns them into a number?")
        mistakes = {
            _double_at(contents, offset + 4): "that is right after the length: the SMILES comes "
            "first, skip its bytes.",
            _double_at(contents, offset + len(text)): "you forgot the length prefix.",
            _double_at(contents, 4 + len(text)): "4 + length counts from the record: add the "
            "record's own offset.",
            values[0]: "that is record 0's value: seek to the record's own offset first.",
            struct.unpack(">d", record[-8:])[0]: "the bytes are in the other order: see the "
            "format's first character.",
        }
        if found != value:
            otherwise = f"for a SMILES of {len(text)} bytes the value came out as {found!r}."
            return number(found, value, mistakes, otherwise)
        if file.n_read > 12:
            return hint(
                f"the value is right, but {file.n_read} bytes were read: seek over the text."
            )
        offset += len(record)
    return right("You read twelve bytes, however long the text is.")


def _double_at(contents: bytes, offset: int) -> float:
    return struct.unpack_from("<d", contents, offset)[0]


def _draw_record(seed: int) -> tuple[str, bytes]:
    """A SMILES and its record."""
    draw = random.Random(seed)
    smiles = draw.choice(MOLECULES)
    return smiles, records.pack(smiles, draw.randint(-9, 9) / 4)


def question_3(seed: int) -> str:
    """The question for ``seed``: a record in hexadecimal."""
    return _draw_record(seed)[1].hex(" ")


def exercise_3(answer, seed: int) -> Verdict:
    """Check a SMILES that was read from hexadecimal bytes."""
    smiles, record = _draw_record(seed)
    if is_stub(answer):
        return NOT_YET
    if isinstance(answer, bytes):
        return hint("those are bytes: decode them to text.")
    if answer == smiles:
        return right("The length said where the text ends.")
    if not isinstance(answer, str):
        return hint(f"text was asked for, this is a {type(answer).__name__}.")
    if answer == smiles[::-1]:
        return hint("only numbers have a byte order. Text stands in reading order.")
    if answer.startswith(smiles):
        return hint("your text runs on into the value: the length says how many bytes are text.")
    if answer.endswith(smiles) or "\x00" in answer:
        return hint("the first four bytes are the length, not text.")
    if smiles.startswith(answer):
        return hint("there is more text: read the length again, smallest byte first.")
    return hint("split the bytes as 4, then as many as those say, then 8.")
