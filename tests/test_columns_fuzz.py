"""Thousands of mutated files: no signal, no hang, no large allocation, nothing but ColumnsError.

The fuzzer (columns_fuzz.py) runs in a child process. QM9LAB_FUZZ_SEED and QM9LAB_FUZZ_FILES
choose other files and more of them.
"""

import json
import os
import sys
from collections import Counter
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
OUTCOMES = {"refused when opened", "refused when used", "accepted"}

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


def fuzz(folder, seed, n_files, *broken):
    words = (Path(__file__).parent, folder, seed, n_files, *broken)
    done = run_script(SCRIPT, *words, timeout_s=900, cwd=ROOT)
    assert done.returncode == 0, f"{done.how_it_ended}: {done.last_line}"
    return json.loads(done.stdout)


def test_mutated_files_are_refused_or_harmless(tmp_path):
    from columns_fuzz import MUTATIONS  # cannot be imported where there is no RLIMIT_DATA

    seed = os.environ.get("QM9LAB_FUZZ_SEED", "1")
    n_files = int(os.environ.get("QM9LAB_FUZZ_FILES", "4000"))
    found = fuzz(tmp_path, seed, n_files)
    kinds, outcomes = Counter(), Counter()
    for kind, outcome, n in found:
        kinds[kind] += n
        outcomes[outcome] += n
    assert kinds.total() == n_files
    assert kinds.keys() == {mutate.__name__ for mutate in MUTATIONS} and outcomes.keys() == OUTCOMES
    assert min(kinds.values()) >= n_files / 50
    assert min(outcomes.values()) >= n_files / 100, "or the mutations are dull"


def test_the_fuzzer_can_fail(tmp_path):
    found = fuzz(tmp_path, 1, 200, *FOUND)  # the first 50 files have been enough
    wrong = {name: said for name, said in found.items() if FOUND[name] not in said}
    assert not wrong, wrong


def test_a_case_is_the_same_file_each_time_and_another_than_the_others(tmp_path):
    import columns_fuzz

    columns.write_arrays(tmp_path / "base.cols", some_arrays(12))
    bases, seen = [(tmp_path / "base.cols").read_bytes()], set()
    for case in range(200):
        kind, _, raw, sealed = columns_fuzz.mutated(bases, 1, case)
        assert columns_fuzz.mutated(bases, 1, case) == (kind, bases[0], raw, sealed)
        assert raw != bases[0]
        seen.add(bytes(raw))
    assert len(seen) > 170
