"""Mutated indexed files, opened and used to the last byte. Runs in a child process.

``python columns_fuzz.py FOLDER SEED COUNT [BROKEN ...]`` prints what came of the files, as JSON.
It ends itself with a message at the first file of which something else came than a ColumnsError
or the truth; a signal or a MemoryError ends it too. Case k of a seed is always the same file.
Given names of BROKEN, it breaks a part of the package first, in a forked process for each, and
prints how each of these ended.
"""

import ctypes
import itertools
import json
import mmap
import os
import random
import re
import resource
import signal
import sys
import time
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
from columns_files import HEADER_BYTES, NAMES, PREAMBLE_BYTES, field, put, seal, some_arrays, span

from qm9lab import columns
from qm9lab.columns import ColumnsError, MappedQM9, layout, reading

ROOM_BYTES = 16 << 20
"""How much more memory of its own the process may have than before the first file (1 MiB)."""

CASE_S = 30
BLOCK = 1 << 16
OFFSETS = list(columns.OFFSETS.values())
NUMBERS = ("n_rows", "n_columns", "offset", "length", "crc32")


# Mutations: each gets its own random.Random and a bytearray, and says whether it made the
# header's checksum fit again.


def odd_number(draw, near=0):
    edges = (0, 1, 8, 13, 64, BLOCK, 2**31, 2**32, 2**63, 2**64, near)
    far = draw.choice((0, 0, 1, -1, 8, -8, BLOCK, -BLOCK))
    return draw.choice((draw.choice(edges) + far, draw.randrange(2**64), near + far)) % 2**64


def header_field(draw, raw):
    """One to three fields, the checksum made to fit."""
    for _ in range(draw.randint(1, 3)):
        section = draw.choice((None, *NAMES))
        if section is None:
            name = draw.choice(("byte_order", "version", "n_molecules", "n_sections", "n_bytes"))
        else:
            name = draw.choice((*NUMBERS, "name", "dtype"))
        if name in ("name", "dtype"):
            other = field(raw, name, draw.choice(NAMES))
            value = draw.choice((other, draw.randbytes(8), b">f8", b"|O", b""))
        else:
            bits = 32 if name in ("byte_order", "version", "crc32") else 64
            value = odd_number(draw, field(raw, name, section)) % 2**bits
        put(raw, name, value, section)
    seal(raw)
    return True


def header_bytes(draw, raw):
    """Random bytes somewhere in the header; the checksum fits in half of them."""
    at = draw.randrange(HEADER_BYTES)
    raw[at : at + draw.choice((1, 1, 4, 60))] = draw.randbytes(draw.choice((1, 1, 4, 60)))
    if sealed := draw.random() < 0.5:
        seal(raw)
    return sealed


def entries(draw, raw):
    """Entries of the table swapped, doubled or dropped."""
    table = [bytes(raw[at : at + 64]) for at in range(PREAMBLE_BYTES, HEADER_BYTES, 64)]
    a, b = draw.sample(range(len(table)), 2)
    match draw.randrange(4):
        case 0:
            table[a], table[b] = table[b], table[a]
        case 1:
            table[a] = table[b]
        case 2:
            table.insert(a, table.pop(b))
        case 3:
            del table[a]
            put(raw, "n_sections", len(table))
    raw[PREAMBLE_BYTES:HEADER_BYTES] = b"".join(table).ljust(HEADER_BYTES - PREAMBLE_BYTES, b"\0")
    seal(raw)
    return True


def consistent(draw, raw):
    """Other numbers of rows, in all places that must agree; the header's checks let most pass."""
    changed = draw.choice(("molecule", "atom", "edge", "smiles", "name"))
    sizes = {
        n: np.dtype(k.dtype).itemsize * max(k.n_columns, 1) for n, k in layout.SECTIONS.items()
    }
    now = field(raw, "n_molecules") if changed == "molecule" else 0
    for name, kind in layout.SECTIONS.items():
        if kind.rows_of == changed:
            now = field(raw, "n_rows", name)
    most = BLOCK // max(sizes[n] for n, k in layout.SECTIONS.items() if k.rows_of == changed)
    near = max(now + draw.choice((-2, -1, 1, 2)), 0)
    n_rows = draw.choice((near, near, most, most + 1, draw.randrange(most), 0))
    if changed == "molecule":
        put(raw, "n_molecules", n_rows)
    move, free, touched = draw.random() < 0.5, BLOCK, []
    for name, kind in layout.SECTIONS.items():
        ends = changed == "molecule" and kind.rows_of == "end"
        if ends or kind.rows_of == changed:
            put(raw, "n_rows", n_rows + ends, name)
            put(raw, "length", (n_rows + ends) * sizes[name], name)
            touched.append(name)
        if move:
            put(raw, "offset", free, name)
        end = span(raw, name)[1]
        free = -(-end // BLOCK) * BLOCK
    if move:
        raw.extend(bytes(max(end - len(raw), 0)))
        del raw[end:]
        put(raw, "n_bytes", end)
    if draw.random() < 0.5:  # the offsets agree, too: another file, and a good one
        for name in OFFSETS:
            first, end = span(raw, name)
            of = next(n for n in NAMES if columns.OFFSETS.get(layout.SECTIONS[n].rows_of) == name)
            ends = np.frombuffer(raw, "<i8", (end - first) // 8, first).copy()
            ends[:] = np.minimum(np.maximum.accumulate(ends), field(raw, "n_rows", of))
            ends[-1:] = field(raw, "n_rows", of)
            raw[first:end] = ends.tobytes()
    seal(raw, (touched, NAMES, ())[draw.randrange(3)])
    return True


def offsets(draw, raw):
    """Offsets that fall, repeat, or lead out of their section."""
    name = draw.choice(OFFSETS)
    ends = np.frombuffer(raw, "<i8", field(raw, "n_rows", name), field(raw, "offset", name))
    n_rows = int(ends[-1])
    match draw.randrange(6):
        case 0:
            ends[:] = ends[::-1].copy()
        case 1:
            ends[:] = [(0, n_rows)[k % 2] for k in range(len(ends))]
        case 2:
            ends += draw.choice((-1, 1, 8, n_rows, -n_rows))
        case 3:
            ends[:] = draw.choice((0, n_rows))
        case _:
            odd = (-1, 0, n_rows, n_rows + 1, 2**62, 2**63 - 1, -(2**63))
            for _ in range(draw.randint(1, 3)):
                value = draw.choice((*odd, draw.randrange(n_rows + 1)))
                ends[draw.randrange(len(ends))] = value
    return close(draw, raw, name)


def text(draw, raw):
    """Bytes that are no UTF-8, or characters that lie across two molecules."""
    name = draw.choice(("smiles", "name"))
    first, end = span(raw, name)
    if first < end:
        at = draw.randrange(first, end)
        new = draw.choice((b"\xff", b"\x80", b"\xc3", "é".encode(), b"\xed\xa0\x80", b"\xf4\x90"))
        raw[at : at + len(new)] = new
    return close(draw, raw, name)


def close(draw, raw, name):
    """In two of three cases both checksums fit again."""
    if sealed := draw.random() < 0.67:
        seal(raw, [name])
    return sealed


def bits(draw, raw):
    """One to three bits, anywhere or in a section."""
    spans = {name: span(raw, name) for name in NAMES}  # before a bit changes what the table says
    for _ in range(draw.randint(1, 3)):
        first, end = spans[draw.choice(NAMES)]
        if draw.random() < 0.1 or first == end:
            first, end = 0, len(raw)
        raw[draw.randrange(first, end)] ^= 1 << draw.randrange(8)
    return False


def cut(draw, raw):
    """Cut short; in half of the files the header agrees."""
    edge = draw.choice((0, 8, 40, 64, HEADER_BYTES, *(e for n in NAMES for e in span(raw, n))))
    to = draw.choice((draw.randrange(len(raw)), edge + draw.choice((-1, 0, 1))))
    del raw[max(to, 0) :]
    return agree(draw, raw)


def extend(draw, raw):
    """More bytes behind the end; in half of the files the header agrees."""
    raw += draw.choice((bytes, draw.randbytes))(
        draw.choice((1, 8, 4096, BLOCK, draw.randrange(1, 3 * BLOCK)))
    )
    return agree(draw, raw)


def agree(draw, raw):
    if sealed := len(raw) >= HEADER_BYTES and draw.random() < 0.5:
        put(raw, "n_bytes", len(raw))
        seal(raw)
    return sealed


def noise(draw, raw):
    """Random bytes, after as much of a good file as may be."""
    kept = draw.choice((0, 4, 8, 16, 64, 128, HEADER_BYTES, BLOCK))
    raw[kept:] = draw.randbytes(draw.choice((0, 1, 100, 5000, BLOCK, 2 * BLOCK)))
    return False


def block(draw, raw):
    """A block of the file in another place, or zeros; in half of them all checksums fit."""
    n_bytes = draw.choice((1, 64, 512, 4096, BLOCK))
    starts = [*range(0, len(raw), BLOCK), draw.randrange(len(raw)), draw.randrange(HEADER_BYTES)]
    source, target = draw.choice(starts), draw.choice(starts)
    new = bytes(n_bytes) if draw.random() < 0.3 else raw[source : source + n_bytes]
    raw[target : target + n_bytes] = new
    if sealed := draw.random() < 0.5:
        seal(raw, [n for n in NAMES if span(raw, n)[1] <= len(raw)])
    return sealed


MUTATIONS = (
    header_field, header_bytes, entries, consistent, offsets, text, bits, cut, extend, noise, block,
)  # fmt: skip


# What must be true of every file -------------------------------------------------------------


class Wrong(Exception):
    """Something else came of a file than a ColumnsError or the truth."""


def holds(condition, what):
    if not condition:
        raise Wrong(what)


class Examined:
    """A file, opened in both ways and used; ``outcome`` says what came of it."""

    def __init__(self, path):
        self.path = path
        self.outcome = "accepted"
        dataset = self.ask(MappedQM9, path)
        if os.path.getsize(path) == 0:
            holds(dataset is None, "an empty file was accepted")
            return
        with open(path, "rb") as f:
            mm = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
        opened = self.ask(columns.Columns, mm, path)
        holds((dataset is None) == (opened is None), "Columns and MappedQM9 do not agree")
        if opened is None:
            self.outcome = "refused when opened"
            mm.close()  # what raised the error holds no view
        else:
            self.use(opened, dataset)
            holds(legal(Path(path).read_bytes()), "a file that breaks the format was opened")
            del opened
            mm.close()

    def ask(self, call, *args):
        """The answer, or None after a ColumnsError as it should be."""
        try:
            return call(*args)
        except ColumnsError as error:
            self.outcome = "refused when used"
            said = rf"{re.escape(str(self.path))}: .*expected .+, found .+: .+"
            holds(re.fullmatch(said, str(error), re.DOTALL), f"said only: {error}")
            return None

    def use(self, opened, dataset):
        everything = range(len(opened))
        found = [self.ask(opened.molecule, k) for k in everything]
        for k, molecule in enumerate(found):
            one = self.ask(dataset.get, k)
            holds((one is None) == (molecule is None), f"MappedQM9 does not agree on {k}")
            if molecule is None:
                continue
            n_atoms, n_edges = len(molecule.z), len(molecule.edge_attr)
            holds(molecule.pos.shape == (n_atoms, 3), f"atoms of {k}")
            holds(molecule.x.shape == (n_atoms, 11), f"atoms of {k}")
            holds(molecule.edge_index.shape == (2, n_edges), f"edges of {k}")
            holds(one.pos.shape == (n_atoms, 3) and one.z.shape == (n_atoms,), f"Data of {k}")
            holds(one.edge_index.shape == (2, n_edges), f"Data of {k}")
            holds((one.smiles, one.name) == (molecule.smiles, molecule.name), f"texts of {k}")
        good = [k for k in everything if found[k] is not None]
        rise = all((np.diff(opened[name]) >= 0).all() for name in OFFSETS)
        for indices in (everything, good, good[::2], good[1::2], good[::-1] + good[:1]):
            batch = self.ask(opened.gather, indices)
            chosen = [found[k] for k in indices]
            if None in chosen:
                holds(batch is None, "gathered what cannot be had singly")
            elif batch is None:
                holds(not rise, "not gathered, and yet all molecules are to be had singly")
            else:
                self.same(batch, chosen)
        self.verified = self.ask(lambda: opened.verify() or True)
        if self.verified:
            holds(rise, "verified, and yet offsets fall")
            holds(len(good) == len(found) or text_is_wrong(opened), "verified, and yet not to read")

    @staticmethod
    def same(batch, chosen):
        for name in ("z", "pos", "x", "edge_attr", "y"):
            singly = b"".join(getattr(m, name).tobytes() for m in chosen)
            holds(batch[name].tobytes() == singly, f"gathered another {name}")
        pairs = b"".join(m.edge_index.T.tobytes() for m in chosen)
        holds(batch["edge_index"].tobytes() == pairs, "gathered other edges")
        holds(batch["idx"].tolist() == [m.idx for m in chosen], "gathered another idx")
        holds(batch["n_atoms"].tolist() == [len(m.z) for m in chosen], "gathered other numbers")
        for name in ("smiles", "name"):
            holds(batch[name] == [getattr(m, name) for m in chosen], f"gathered another {name}")


def text_is_wrong(opened):
    """Whether a text is no UTF-8, found without the package's own ways."""
    for name in ("smiles", "name"):
        ends, raw = opened[f"{name}_offsets"].tolist(), opened[name].tobytes()
        for first, end in itertools.pairwise(ends):
            try:
                raw[first:end].decode()
            except UnicodeDecodeError:
                return True
    return False


def legal(raw):
    """Whether the header says what the format allows, found without the package's own ways."""
    spans = [span(raw, name) for name in NAMES]
    numbers = [field(raw, name) for name in ("byte_order", "version", "n_sections", "n_bytes")]
    return (
        (field(raw, "magic"), *numbers)
        == (b"\x89QM9\r\n\x1a\n", 0x01020304, 1, len(NAMES), len(raw))
        and [field(raw, "name", k).rstrip(b"\0").decode() for k in range(len(NAMES))] == NAMES
        and all(first % BLOCK == 0 and first >= BLOCK for first, _ in spans)
        and all(end <= first for (_, end), (first, _) in itertools.pairwise(spans))
        and spans[-1][1] <= len(raw)
    )


def must_be_seen(base, raw, sealed):
    """Whether a reader can know that the file is not as it was written."""
    if raw[:HEADER_BYTES] != base[:HEADER_BYTES]:
        return not sealed
    return len(raw) != len(base) or any(raw[s] != base[s] for s in used(base))


def used(base):
    """Where the header and the sections of a good file lie."""
    return [slice(HEADER_BYTES), *(slice(*span(base, name)) for name in NAMES)]


# One file after another ----------------------------------------------------------------------


class Files:
    """One file, rewritten in place, block by block where it differs, as cases follow."""

    def __init__(self, path):
        self.path, self.there = path, b""
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)

    def write(self, raw):
        os.ftruncate(self.fd, len(raw))
        for at in range(0, len(raw), BLOCK):
            if raw[at : at + BLOCK] != self.there[at : at + BLOCK]:
                os.pwrite(self.fd, raw[at : at + BLOCK], at)
        self.there = bytes(raw)


def mutated(bases, seed, case):
    """The file of a case: which mutation, its base, its bytes, whether its header was sealed."""
    draw = random.Random(f"{seed}-{case}")
    mutate = MUTATIONS[case % len(MUTATIONS)]
    base = raw = None
    while raw == base:  # an empty section has no text to change
        base = draw.choice(bases)
        raw = bytearray(base)
        sealed = mutate(draw, raw)
    return mutate.__name__, base, raw, sealed


def limit_memory():
    """RLIMIT_DATA (getrlimit(2)) a little above what this process has."""
    with open("/proc/self/status") as f:
        kib = next(int(line.split()[1]) for line in f if line.startswith("VmData:"))
    limit = kib * 1024 + ROOM_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def fuzz(folder, bases, seed, count):
    """What came of ``count`` different files, by mutation and outcome."""
    counts, different, files = Counter(), set(), Files(folder / f"mutated-{os.getpid()}.cols")
    for base in bases:  # before memory is limited: what torch and NumPy keep for themselves
        files.write(base)
        found = Examined(files.path)
        holds(found.outcome == "accepted" and found.verified, "a good file was refused")
    limit_memory()
    for case in itertools.count():
        kind, base, raw, sealed = mutated(bases, seed, case)
        different.add(hash((len(raw), *(zlib.crc32(raw[s]) for s in used(base)))))
        if len(different) == counts.total():
            continue  # there was such a file before
        try:
            counts[kind, outcome_of(files, base, raw, sealed)] += 1
        except Exception as error:
            sys.exit(f"case {case} of seed {seed} ({kind}): {type(error).__name__}: {error}")
        if len(different) == count:
            os.unlink(files.path)
            return counts


def outcome_of(files, base, raw, sealed):
    """What came of a mutated file, after all checks."""
    files.write(raw)
    signal.alarm(CASE_S)  # a hang is ended by SIGALRM
    try:
        found = Examined(files.path)
        if must_be_seen(base, raw, sealed):
            holds(found.outcome != "accepted", "a change was not seen")
    finally:
        signal.alarm(0)
    return found.outcome


# The fuzzer must be able to fail -------------------------------------------------------------


def unchecked_span(self, index, rows_of):
    ends = self._ends[rows_of][0]
    return ends[index], ends[index + 1]


def unchecked_molecule(self, index, right=reading.Columns.molecule):
    parts = list(self._of_molecule)
    parts[1:8:2] = [sys.maxsize] * 4  # the number of rows of atoms, edges, SMILES and names
    self._of_molecule = parts
    return right(self, index)


def unchecked_spans(self, indices, rows_of):
    ends = self._arrays[self._ends[rows_of][1]]
    return ends[indices], ends[indices + 1]


def unchecked_text(self, index, name):
    first, end = self._span(index, name)
    return self[name][first:end].tobytes().decode()


def offsets_alone(self):
    for _, name, n_rows in self._ends.values():
        layout.check_ends(name, self[name], n_rows, self.path)


def instead(call):
    """In place of ``Columns.molecule``: does something terrible at every hundredth molecule."""
    right, calls = reading.Columns.molecule, itertools.count(1)

    def molecule(self, index):
        if next(calls) % 100 == 0:
            call()
        return right(self, index)

    return molecule


BROKEN = {
    "sections are not checked": (layout, "check_sections", lambda *_: None),
    "spans are not checked": (reading.Columns, "_span", unchecked_span),
    "molecules are not checked": (reading.Columns, "molecule", unchecked_molecule),
    "batches are not checked": (reading.Columns, "_spans", unchecked_spans),
    "texts are not checked": (reading.Columns, "_text", unchecked_text),
    "verify checks no offsets": (reading, "check_ends", lambda *_: None),
    "verify checks no checksums": (reading.Columns, "verify", offsets_alone),
    "reads what is not there": (reading.Columns, "molecule", instead(lambda: ctypes.string_at(0))),
    "takes much memory": (reading.Columns, "molecule", instead(lambda: bytearray(1 << 26))),
    "hangs": (reading.Columns, "molecule", instead(lambda: time.sleep(60))),
}


def with_broken(name, folder, bases, seed, count):
    """How the fuzzer ends when a part of the package is broken: its message or its signal."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read_fd)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        setattr(*BROKEN[name])
        globals()["CASE_S"] = 2
        try:
            fuzz(folder, bases, seed, count)
        except SystemExit as stopped:
            os.write(write_fd, str(stopped).encode())
            os._exit(1)
        os._exit(0)
    os.close(write_fd)
    with open(read_fd) as f:
        said = f.read()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return signal.Signals(-code).name if code < 0 else said if code else "nothing was found"


def main(folder, seed, count, *broken):
    folder, seed, count, bases = Path(folder), int(seed), int(count), []
    for n_molecules in (12, 5, 1, 0):
        path = folder / "base.cols"
        columns.write_arrays(path, some_arrays(n_molecules, seed=n_molecules))
        bases.append(path.read_bytes())
    bases = [bases[k] for k in (0, 0, 0, 1, 1, 2, 3)]
    if broken:
        ended = {name: with_broken(name, folder, bases, seed, count) for name in broken}
        print(json.dumps(ended))
        return
    counts = fuzz(folder, bases, seed, count)
    print(json.dumps([[kind, outcome, n] for (kind, outcome), n in counts.items()]))


if __name__ == "__main__":
    main(*sys.argv[1:])
