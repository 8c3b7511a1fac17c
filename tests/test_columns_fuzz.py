"""Ten thousand mutated files: no signal, no hang, no large allocation, nothing but ColumnsError.

The fuzzer (columns_fuzz.py) runs in a child process. QM9LAB_FUZZ_SEED and QM9LAB_FUZZ_FILES
choose other files and more of them.
"""

import json
import os
import sys
from pathlib import Path

import pytest
from columns_files import some_arrays

from qm9lab import columns
from qm9lab.processes import run_script

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="its memory limit is Linux's RLIMIT_DATA"),
]
ROOT = Path(__file__).resolve().parent.parent
SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
import columns_fuzz
columns_fuzz.main(*sys.argv[2:])
"""
BY_HYPOTHESIS = SCRIPT.replace("argv[2:]", "argv[2:], draws=columns_fuzz.search")
KINDS = {
    "header_field", "header_bytes", "entries", "consistent", "offsets", "text", "bits", "cut",
    "extend", "noise", "block",
}  # fmt: skip
OUTCOMES = ("refused when opened", "refused when used", "accepted")

# What is broken in the package -> what the fuzzer must end with.
FOUND = {
    "sections are not checked": "Error: ",
    "spans are not checked": "Wrong: ",
    "molecules are not checked": "Wrong: ",
    "batches are not checked": "Wrong: gathered what",
    "texts are not checked": "UnicodeDecodeError: ",
    "verify checks no offsets": "Wrong: verified, and yet offsets fall",
    "verify checks no checksums": "Wrong: a change was not seen",
    "reads what is not there": "SIGSEGV",
    "takes much memory": "MemoryError",
    "hangs": "SIGALRM",
}


def fuzz(folder, seed, n_files, *broken, script=SCRIPT):
    words = (Path(__file__).parent, folder, seed, n_files, *broken)
    done = run_script(script, *words, timeout_s=900, cwd=ROOT)
    assert done.returncode == 0, f"{done.how_it_ended}: {done.last_line}"
    return json.loads(done.stdout)


def test_mutated_files_are_refused_or_harmless(tmp_path, capsys):
    seed = os.environ.get("QM9LAB_FUZZ_SEED", "1")
    n_files = int(os.environ.get("QM9LAB_FUZZ_FILES", "10000"))
    found = fuzz(tmp_path, seed, n_files)
    table = {kind: dict.fromkeys(OUTCOMES, 0) for kind in sorted(KINDS)}
    for kind, outcome, n in found["counts"]:
        table[kind][outcome] = n
    total = {outcome: sum(row[outcome] for row in table.values()) for outcome in OUTCOMES}
    with capsys.disabled():
        print(f"\n{n_files} different mutated files, seed {seed}, {found['elapsed_s']:.0f} s")
        print(f"{'':14}" + "".join(f"{outcome:>21}" for outcome in OUTCOMES))
        for kind, row in (*table.items(), ("all", total)):
            print(f"{kind:14}" + "".join(f"{row[outcome]:21}" for outcome in OUTCOMES))
    assert sum(total.values()) == n_files
    if n_files >= 10_000:
        assert all(sum(row.values()) >= 200 for row in table.values())
        assert min(total.values()) >= 100, "each outcome must come up, or the mutations are dull"


def test_files_that_hypothesis_draws_are_refused_or_harmless(tmp_path):
    seed = os.environ.get("QM9LAB_FUZZ_SEED", "1")
    n_files = int(os.environ.get("QM9LAB_FUZZ_FILES", "10000"))
    found = fuzz(tmp_path, seed, n_files, script=BY_HYPOTHESIS)
    outcomes = {outcome for _, outcome, _ in found["counts"]}
    assert {kind for kind, *_ in found["counts"]} == KINDS and outcomes == set(OUTCOMES)
    assert sum(n for *_, n in found["counts"]) >= n_files


def test_what_hypothesis_draws_can_fail(tmp_path):
    names = ("spans are not checked", "texts are not checked", "verify checks no checksums")
    found = fuzz(tmp_path, 1, 2000, *names, script=BY_HYPOTHESIS)
    wrong = {name: said for name, said in found.items() if FOUND[name] not in said}
    assert not wrong, wrong
    assert all("mutation=" in said for said in found.values()), "the case that it shrank to"


def test_the_fuzzer_can_fail(tmp_path):
    found = fuzz(tmp_path, 1, 3000, *FOUND)
    wrong = {name: said for name, said in found.items() if FOUND[name] not in said}
    assert not wrong, wrong


def test_a_case_is_the_same_file_each_time_and_another_than_the_others(tmp_path):
    import columns_fuzz

    columns.write_arrays(tmp_path / "base.cols", some_arrays(12))
    bases, seen = [(tmp_path / "base.cols").read_bytes()], set()
    for case in range(200):
        kind, _, raw, sealed = columns_fuzz.mutated(bases, 1, case)
        assert columns_fuzz.mutated(bases, 1, case) == (kind, bases[0], raw, sealed)
        assert raw != bases[0] and kind in KINDS
        seen.add(bytes(raw))
    assert len(seen) > 170
