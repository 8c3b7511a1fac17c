"""The bench: all tools hold the same records, what is missing is said, ratios are judged."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qm9lab import columns, qm9

BENCH = Path(__file__).resolve().parent / "bench"
sys.path.insert(0, str(BENCH))

import bench  # noqa: E402
import peers  # noqa: E402
import report  # noqa: E402
import stages  # noqa: E402
import targets  # noqa: E402

N = 300
BROKEN = 'raise ImportError("safetensors is left out by the test")\n'


@pytest.fixture(scope="module")
def arrays():
    """Sections of molecules that are made up, as large as those of QM9."""
    draw = np.random.default_rng(1)
    rows = {"molecule": N}
    found = {}
    for rows_of, most in (("atom", 29), ("edge", 56), ("smiles", 28), ("name", 10)):
        ends = np.cumsum([0, *draw.integers(1, most, N)])
        found[f"{rows_of}_offsets"], rows[rows_of] = ends, ends[-1]
    for name in columns.FIELDS:
        dtype, n_columns, rows_of, _ = columns.SECTIONS[name]
        shape = (rows[rows_of], n_columns) if n_columns else (rows[rows_of],)
        found[name] = draw.integers(65, 91, shape).astype(dtype)
    return found


@pytest.fixture(scope="module")
def dataset(arrays, tmp_path_factory):
    """The same as PyG's dataset in memory."""
    path = tmp_path_factory.mktemp("pyg") / "made_up.pt"
    peers.InMemory.build(arrays, path)
    return peers.InMemory(path).rows


def wanted(name):
    """A tool, or a skip with the reason why it is not here."""
    tool = peers.TOOLS[name]
    if reason := peers.why_not(tool):
        pytest.skip(reason)
    return tool


# The tools -----------------------------------------------------------------------------------


def test_pyg_s_dataset_has_the_sections_that_it_was_made_from(dataset, arrays):
    for name, array in columns.arrays(dataset).items():
        assert np.array_equal(array, arrays[name])


@pytest.mark.parametrize("name", peers.TOOLS)
def test_a_tool_gives_the_records_of_the_data_set(name, dataset, arrays, tmp_path):
    tool, path = wanted(name), tmp_path / peers.TOOLS[name].file_name
    tool.build(arrays, path)
    assert stages.agrees(tool, path, dataset, arrays) == N
    assert sum(p.stat().st_size for p in tool.paths(path)) > 0


@pytest.mark.parametrize("name", [n for n, tool in peers.TOOLS.items() if not tool.is_slow])
def test_a_file_that_is_larger_holds_the_records_again_and_again(name, arrays, tmp_path):
    tool, path, k = wanted(name), tmp_path / "scaled", 3
    tool.build_scaled(arrays, path, k)
    opened, truth = tool(path), peers.Arrays(arrays)
    assert len(opened) == k * N
    for i in (0, N - 1, N, 2 * N + 5, 3 * N - 1):
        one, expected = opened.molecule(i), truth.molecule(i % N)
        if tool is peers.Records:
            expected = (expected.smiles, float(expected.y[peers.U0]))
        for a, b in zip(one, expected, strict=True):
            assert np.array_equal(a, b)
    assert opened.mean() == pytest.approx(truth.mean(), rel=1e-9)
    opened.close()


def test_a_file_of_ours_that_was_scaled_has_the_right_checksums(arrays, tmp_path):
    peers.Ours.build_scaled(arrays, tmp_path / "ours", 2)
    whole = columns.Columns((tmp_path / "ours").read_bytes())
    whole.verify()
    assert len(whole) == 2 * N


@pytest.mark.parametrize("field", ["y", "z", "pos", "x", "edge_index", "edge_attr", "smiles"])
def test_a_tool_with_another_record_is_found(field, dataset, arrays, tmp_path):
    changed = {name: array.copy() for name, array in arrays.items()}
    changed[field].reshape(-1)[-1] += 1
    peers.Ours.build(changed, tmp_path / "ours")
    with pytest.raises(AssertionError, match=f"qm9lab.columns: {field} from molecule 0"):
        stages.agrees(peers.Ours, tmp_path / "ours", dataset, arrays)


# A whole run ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """A quick run of few molecules, in which safetensors cannot be imported."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "broken" / "safetensors").mkdir(parents=True)
    (folder / "broken" / "safetensors" / "__init__.py").write_text(BROKEN)
    command = [sys.executable, str(BENCH / "bench.py"), "--quick", "--molecules", "400"]
    command += ["--out", str(folder / "out"), "--scales", "1,3"]
    path = os.pathsep.join([str(folder / "broken"), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout, folder / "out"


@pytest.mark.slow
def test_a_quick_run_compares_first_and_measures_what_is_here(quick):
    out, folder = quick
    (line,) = [line for line in out.splitlines() if line.startswith("equal to the data set")]
    table = report.read_csv((folder / "bench.csv").read_text())
    for name in peers.TOOLS:
        here = name != "safetensors" and not peers.why_not(peers.TOOLS[name])
        assert (f"{name} 400" in line) == here
        assert (table.best(name, 1, "warm", "random molecule") is not None) == here
    assert table.scales() == [1, 3]
    assert (folder / "bench.md").read_text() in out


@pytest.mark.slow
def test_a_tool_that_is_missing_is_named_with_the_reason(quick):
    out, folder = quick
    why = "not available here, because safetensors is left out by the test"
    assert f"safetensors: {why}" in out
    table = report.read_csv((folder / "bench.csv").read_text())
    assert [cell.note for key, cell in table.cells.items() if key.tool == "safetensors"] == [why]


@pytest.mark.slow
def test_a_quick_run_prints_every_target_with_its_verdict(quick):
    out, folder = quick
    found = targets.judge(report.read_csv((folder / "bench.csv").read_text()))
    assert len([target for target in found if target.limit]) == 17
    for target in found:
        assert f"| {target.claim} |" in out
        if target.limit and target.measured != "not measured":
            assert target.verdict in (targets.PASS, targets.SHORT)
    measured = {target.claim for target in found if target.measured != "not measured"}
    assert "in-memory ds[i] / ours, Data object, first gets" in measured


@pytest.mark.slow
def test_the_picture_of_a_table_is_the_same_each_time(quick, tmp_path):
    _, folder = quick
    table = report.read_csv((folder / "bench.csv").read_text())
    report.draw(table, tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_bytes() == (folder / "bench.svg").read_bytes()
    assert report.csv(table) == (folder / "bench.csv").read_text()


@pytest.mark.slow
def test_a_run_leaves_no_path_of_this_machine(quick):
    _, folder = quick
    for path in folder.iterdir():
        text = path.read_text()
        assert str(Path.home()) not in text and str(qm9.folder()) not in text
        assert str(BENCH.parents[1]) not in text


def test_a_job_that_fails_ends_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "SCRIPT", "raise SystemExit('the disk is gone')")
    with pytest.raises(SystemExit, match="jobs: exit status 1\nthe disk is gone"):
        bench.main(["--quick", "--out", str(tmp_path), "--quiet"])


@pytest.mark.parametrize("arguments", [["--tools", "LMDB"], ["--tools", "qm9lab.columns,HDF5"]])
def test_tools_that_cannot_be_compared_are_refused(arguments):
    with pytest.raises(SystemExit) as error:
        bench.parse(arguments)
    assert error.value.code == 2


def test_without_lmdb_the_reason_is_that_of_the_import(monkeypatch):
    monkeypatch.setitem(sys.modules, "lmdb", None)
    reason = peers.why_not(peers.Lmdb)
    assert reason.startswith("not available here, because ") and "lmdb" in reason
    assert peers.why_not(peers.Npy) is None


# What is too large, targets, table -----------------------------------------------------------


@pytest.fixture
def planned(monkeypatch):
    """A bench that has built 300 MB in each tool, on a disk and in a memory of 1 TB."""
    full = bench.Bench.__new__(bench.Bench)
    full.options, full.table, full.folder = bench.parse([]), report.Table(), Path(".")
    full.n_bytes = dict.fromkeys(peers.TOOLS, 300_000_000)
    full.table.add(peers.OnDisk.name, 1, "warm", "build", [70.0], "s")
    room = {"disk": 10**12, "memory": 10**12}
    usage = type("usage", (), {"free": property(lambda self: room["disk"])})
    memory = type("memory", (), {"available": property(lambda self: room["memory"])})
    monkeypatch.setattr(bench.shutil, "disk_usage", lambda path: usage())
    monkeypatch.setattr(bench.psutil, "virtual_memory", lambda: memory())
    return full, room


@pytest.mark.parametrize(
    "tool, scale, room, why",
    [
        (peers.Ours, 16, {}, ""),
        (peers.Ours, 64, {}, "19.2 GB, over the limit of 6 GB"),
        (peers.Ours, 16, {"disk": 5e9}, "4.8 GB and 5.0 GB are free"),
        (peers.Ours, 16, {"memory": 6e9}, "do not stay in the page cache with 6.0 GB"),
        (peers.InMemory, 4, {}, ""),
        (peers.InMemory, 16, {}, "it would hold about 4.8 GB in memory"),
        (peers.OnDisk, 4, {}, "building it would take about 280 s"),
    ],
)
def test_what_does_not_fit_is_said_before_it_is_built(planned, tool, scale, room, why):
    full, limits = planned
    limits |= room
    found = full.too_large(tool.name, scale)
    assert why in found and bool(found) == bool(why)


def a_table(**seconds):
    """A table in which ours takes 1 s for everything, but for what is named."""
    table = report.Table()
    for name in (*report.TIMES, "Data object", "batch, ragged fields"):
        table.add(peers.Ours.name, 1, "warm", name, [1.0], "s")
    for name, value in seconds.items():
        table.add(getattr(peers, name).name, 1, "warm", "random molecule", [value], "s")
    return table


@pytest.mark.parametrize(
    "seconds, verdict",
    [(50.0, targets.PASS), (49.0, targets.SHORT), (None, "")],
)
def test_a_ratio_is_judged_by_its_limit(seconds, verdict):
    table = a_table(**({"OnDisk": seconds} if seconds else {}))
    (found,) = [t for t in targets.judge(table) if "with a schema" in t.claim]
    assert found.verdict == verdict
    assert found.measured == (f"{seconds:.0f}" if seconds else "not measured")


def test_memory_growth_is_judged_by_the_worst_step():
    table = a_table()
    for scale, own in ((1, (1, 2)), (16, (1, 9))):
        for step, mib in zip(("open", "full pass"), own, strict=True):
            table.add(peers.Ours.name, scale, "alone", step, [0.1], "s")
            table.add_memory(peers.Ours.name, scale, "alone", step, mib << 20, 0, 0, 0)
    (found,) = [t for t in targets.judge(table) if "anonymous memory" in t.claim]
    assert (found.measured, found.verdict) == ("7.00", targets.SHORT)
    assert found.claim.endswith("full pass")


@pytest.mark.parametrize(
    "value, text", [(1234.0, "1,230"), (999.4, "999"), (12.34, "12.3"), (0.01234, "0.0123")]
)
def test_a_number_has_three_digits_that_count(value, text):
    assert report.number(value) == text


def test_operations_take_turns_and_stop_at_their_budget():
    assert stages.rotated("abc", 1) == ["b", "c", "a"]
    samples = stages.Samples(1.0)
    samples.add(0.4, "tool", "open")
    assert samples.wants("tool", "open")
    samples.add(0.4, "tool", "open")
    assert not samples.wants("tool", "open") and samples.wants("tool", "build")
