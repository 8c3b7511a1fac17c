"""What runs in child processes: each job measures one thing and gives its samples back as JSON.

A job is a dict; ``kind`` names the function here that does it. In a full run each job has a fresh
process. A quick run imports everything once and forks a process for each job, which is faster and
says less about faults: a forked process copies the pages that it writes to.
"""

import contextlib
import gc
import io
import json
import mmap
import os
import random
import shutil
import subprocess
import sys
import time
import warnings
import zlib
from collections import defaultdict
from importlib import metadata
from pathlib import Path
from unittest import mock

import numpy as np
import peers
from peers import TOOLS, U0, Ours, touch

from qm9lab import columns, measure, qm9

SEED = 9
BATCH = 1024
TURNS = 5
"""Of short operations so many times as many rounds: the less each takes, the less disturbs it."""

RAGGED = ("z", "pos", "x", "edge_index", "edge_attr")
ADVICE = {"MADV_SEQUENTIAL": 2, "MADV_WILLNEED": 3, "MADV_POPULATE_READ": 22}
"""Linux's numbers; Python up to 3.13 has no name for the last."""

BASELINE = "baseline"
SLOW = "not measured, because it computes for most of a minute: cold or warm makes no difference"


class Samples:
    """Seconds of each repetition, by tool and operation, and whether another one is worth it."""

    def __init__(self, budget_s: float) -> None:
        self.budget_s, self.seconds, self.spent_s = budget_s, defaultdict(list), defaultdict(float)

    def wants(self, *key) -> bool:
        """Whether another repetition fits into the time that an operation may take in all."""
        taken = len(self.seconds[key])
        return not taken or self.spent_s[key] * (taken + 1) / taken <= self.budget_s

    @contextlib.contextmanager
    def take(self, *key, n: int = 1):
        begin = time.perf_counter()
        yield
        self.add(time.perf_counter() - begin, *key, n=n)

    def add(self, elapsed_s: float, *key, n: int = 1) -> None:
        self.seconds[key].append(elapsed_s / n)
        self.spent_s[key] += elapsed_s

    def rows(self) -> list:
        return [[*key, seconds] for key, seconds in self.seconds.items() if seconds]


def rotated(names, k: int) -> list:
    """The tools in another order each round, so that none is always first."""
    names = list(names)
    return names[k % len(names) :] + names[: k % len(names)]


def chosen(job, tools=TOOLS) -> dict:
    return {name: tools[name] for name in job["tools"]}


def path_of(job, tool, scale: int = 1) -> Path:
    return Path(job["folder"], f"x{scale}-{tool.file_name}")


def remove(path) -> None:
    shutil.rmtree(path) if os.path.isdir(path) else Path(path).unlink(missing_ok=True)


def flush(paths) -> None:
    for path in paths:
        with open(path, "rb") as f:
            os.fsync(f.fileno())


def source(job) -> dict:
    """The records, from the file of ours at x1, which was compared with the data set."""
    with open(path_of(job, Ours), "rb") as f:
        mm = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
    whole = columns.Columns(mm)
    return {name: whole[name] for name in columns.SECTIONS}


# Build, and compare --------------------------------------------------------------------------


def build(job) -> dict:
    """Write every tool's file in rounds, then compare what each of them answers."""
    dataset = qm9.dataset(progress=False)
    if job["n_molecules"]:
        dataset = dataset[: job["n_molecules"]].copy()
    arrays, samples = columns.arrays(dataset), Samples(job["budget_s"])
    tools, plain = chosen(job), path_of(job, Ours).with_name("one-write")
    n_bytes = {}

    def one(name, operation, path, write, *arguments) -> None:
        if samples.wants(name, operation):
            remove(path)
            with samples.take(name, operation):
                write(*arguments)
            # So that nothing waits to be written while the next one is timed.
            flush(peers.Tool.paths(path))

    def flushed(tool, path) -> None:
        tool.build(arrays, path)
        flush(tool.paths(path))

    for k in range(job["rounds"]):
        for name in rotated(tools, k):
            tool, path = tools[name], path_of(job, tools[name])
            one(name, "build", path, flushed, tool, path)
            n_bytes[name] = sum(p.stat().st_size for p in tool.paths(path))
            if tool is Ours:
                whole = path.read_bytes()
                one(BASELINE, "one write(), fsync", plain, write_once, plain, whole, True)
                with mock.patch("os.fsync"):
                    one(name, "build, no fsync", path, tool.build, arrays, path)
                flush([path])
                with samples.take(BASELINE, "zlib.crc32 of the same bytes"):
                    zlib.crc32(whole)
                one(BASELINE, "one write(), no fsync", plain, write_once, plain, whole, False)
    remove(plain)
    checked = {}
    for name, tool in tools.items():
        tool.build_other(arrays, path_of(job, tool))
        checked[name] = agrees(tool, path_of(job, tool), dataset, arrays)
    found = {"n_molecules": len(dataset), "n_bytes": n_bytes, "checked": checked}
    found["field_bytes"] = sum(array.nbytes for array in arrays.values())
    return found | {"samples": samples.rows()}


def write_once(path, whole: bytes, sync: bool) -> None:
    with open(path, "wb", buffering=0) as f:
        n_written = f.write(whole)
        if sync:
            os.fsync(f.fileno())
    if n_written != len(whole):
        raise OSError(f"{path}: expected one write of {len(whole)} bytes, found {n_written}")


def agrees(tool, path, dataset, arrays) -> int:
    """Compare a tool's answers with the data set; how many molecules were compared.

    All molecules, a batch at a time; a hundred of them one by one, as views and as Data; the mean;
    and that a full pass has touched as many bytes as there are.

    Raises
    ------
    AssertionError
        At the first difference, with the tool and the field.
    """
    opened, truth, n = tool(path), peers.Arrays(arrays), len(dataset)
    # The records are walked from the first byte each time: all of them in one batch.
    at_once = n if tool is peers.Records else 4096
    for start in range(0, n, at_once):
        indices = np.arange(start, min(start + at_once, n))
        expected, found = truth.batch(indices), opened.batch(indices)
        if tool is peers.Records:
            expected = {"smiles": expected["smiles"], "U0": expected["y"][:, U0].astype(float)}
        for field, value in expected.items():
            same(tool, f"{field} from molecule {start}", value, found[field])
        if start == 0 or not tool.is_slow:
            same(tool, "one property", truth.column(indices), opened.column(indices))
    for i in random.Random(SEED).sample(range(n), 5 if tool is peers.Records else 100):
        one, expected = opened.molecule(i), truth.molecule(i)
        if tool is peers.Records:
            same(tool, i, (expected.smiles, float(expected.y[U0])), one)
            continue
        for field in columns.FIELDS:
            same(tool, f"{field} of molecule {i}", getattr(expected, field), getattr(one, field))
        made, theirs = opened.data(i), dataset[i]
        same(tool, f"keys of Data {i}", set(theirs.keys()), set(made.keys()))
        for field in theirs.keys():
            same(tool, f"{field} of Data {i}", theirs[field], made[field])
    same(tool, "mean", True, bool(np.isclose(truth.mean(), opened.mean(), rtol=1e-9)))
    least = 1 if tool is peers.Records else sum(arrays[name].nbytes for name in columns.FIELDS)
    same(tool, "bytes of a full pass", True, opened.sweep() >= least)
    opened.close()
    return start + len(indices)


def same(tool, what, expected, found) -> None:
    if hasattr(expected, "shape"):
        alike = expected.shape == found.shape and bool((expected == found).all())
        alike = alike and (expected.dtype == found.dtype or "property" in what)
    else:
        alike = expected == found
    if not alike:
        raise AssertionError(f"{tool.name}: {what}: expected {expected}, found {found}")


# Times ---------------------------------------------------------------------------------------


def warm(job) -> dict:
    """Every operation on files that are in the page cache, the tools taking turns in rounds.

    What is mapped was passed over once, so that no time is that of a first touch: that is what
    ``memory`` tells.
    """
    tools, samples = chosen(job), Samples(job["budget_s"])
    for tool in tools.values():
        heat(tool.paths(path_of(job, tool)))
    gc.collect()
    gc.disable()
    for k in range(job["rounds"]):
        for name in rotated(tools, k):
            if samples.wants(name, "open"):
                with samples.take(name, "open"):
                    opened = tools[name](path_of(job, tools[name]))
                with samples.take(name, "first molecule"):
                    take(opened.molecule, [0])
                opened.close()
    opened = {name: tool(path_of(job, tool)) for name, tool in tools.items()}
    for tool in opened.values():
        tool.settle()
    order = random.Random(SEED)
    n = job["n"]
    for k in range(job["rounds"] * TURNS):
        drawn = order.sample(range(n), min(3 * BATCH, n // 2))
        batch = np.array(order.choices(range(n), k=BATCH))
        for operation, measured in OPERATIONS.items():
            for name in rotated(opened, k):
                if takes_long(opened[name], operation, n):
                    continue  # ``memory`` has asked it, once
                if samples.wants(name, operation):
                    measured(samples, (name, operation), opened[name], drawn, batch)
    return {"samples": samples.rows()}


def takes_long(tool, operation: str, n: int) -> bool:
    """Whether an operation takes most of a minute."""
    return tool.is_slow and operation in ("mean of one property", "full pass") and n > 20_000


def take(get, indices) -> None:
    """Molecules as views, and every byte of them; the walked records have no views."""
    for i in indices:
        molecule = get(i)
        if len(molecule) > 2:
            touch(molecule)


def heat(paths) -> None:
    for path in paths:
        measure.bring_to(path, "warm")


def few(get, drawn, samples) -> list:
    """As many of the molecules as are read in a hundredth of the budget, at least 3."""
    get(drawn[-1])  # the first one may open or import something
    begin = time.perf_counter()
    get(drawn[-1])
    each_s = time.perf_counter() - begin
    return drawn[: max(3, min(len(drawn) - 1, int(samples.budget_s / 100 / each_s)))]


def one_molecule(samples, key, opened, drawn, batch) -> None:
    indices = few(opened.molecule, drawn, samples)
    opened.forget()
    with samples.take(*key, n=len(indices)):
        take(opened.molecule, indices)


def another_way(samples, key, opened, drawn, batch) -> None:
    if opened.other_way:
        indices = few(opened.other_molecule, drawn, samples)
        with samples.take(*key, n=len(indices)):
            for i in indices:
                opened.other_molecule(i)


def data_objects(samples, key, opened, drawn, batch) -> None:
    if opened.has_data:
        opened.forget()
        indices = few(opened.data, drawn, samples)
        with samples.take(*key, n=len(indices)):
            for i in indices:
                opened.data(i)
        with samples.take(key[0], "Data object, again", n=len(indices)):
            for i in indices:
                opened.data(i)


def once(name, *, batched: bool = False):
    """An operation that is one call of the tool."""

    def measured(samples, key, opened, drawn, batch) -> None:
        opened.forget()
        arguments = [batch] if batched else []
        with samples.take(*key):
            getattr(opened, name)(*arguments)

    return measured


def ours_alone(samples, key, opened, drawn, batch) -> None:
    """What only our own targets need: ragged fields gathered and one by one, and means in RAM."""
    if not isinstance(opened, Ours):
        return
    whole, name, parts = opened.columns, opened.name, np.array_split(np.array(drawn), 3)
    # Each from molecules of its own, which no other has brought into the processor's caches.
    with samples.take(name, "batch, ragged fields"):
        whole.gather(parts[0], RAGGED)
    with samples.take(name, "single gets, ragged fields joined"):
        found = [whole.molecule(i) for i in parts[1].tolist()]
        for field in RAGGED:
            np.concatenate([getattr(m, field) for m in found], int(field == "edge_index"))
    with samples.take(name, "single gets, views alone"):
        for i in parts[2].tolist():
            whole.molecule(i)
    in_ram = np.array(whole["y"])
    column = np.ascontiguousarray(in_ram[:, U0])
    for _ in range(5):
        with samples.take(name, "mean of one property, alternating"):
            opened.mean()
        with samples.take(BASELINE, "np.mean in RAM, rows of 19"):
            float(in_ram[:, U0].mean(dtype=np.float64))
        with samples.take(BASELINE, "np.mean in RAM, a column"):
            float(column.mean(dtype=np.float64))


OPERATIONS = {
    "random molecule": one_molecule,
    "random molecule, another way": another_way,
    "batch of 1,024": once("batch", batched=True),
    "batch of 1,024, one property": once("column", batched=True),
    "mean of one property": once("mean"),
    "full pass": once("sweep"),
    "Data object": data_objects,
    "of ours alone": ours_alone,
}


def not_cold(state) -> str:
    """Why a file is not cold, in words."""
    if measure.is_missing(state.is_cold):
        return str(state.is_cold)
    return f"{state.n_cached} pages stay in the page cache"


def cold(job) -> dict:
    """Operations on files that are not in the page cache, verified before each."""
    tools, samples, why = chosen(job), Samples(job["budget_s"]), {}
    order, n = random.Random(SEED), job["n"]
    gc.collect()
    cat = shutil.which("cat")

    def chilled(name) -> bool:
        for path in tools[name].paths(path_of(job, tools[name])):
            state = measure.make_cold(path)
            if state.is_cold is not True:
                why[name] = not_cold(state)
        return name not in why

    for k in range(job["rounds"]):
        index = order.randrange(n)
        for name in rotated(tools, k):
            tool, path = tools[name], path_of(job, tools[name])
            if samples.wants(name, "random molecule") and chilled(name):
                with samples.take(name, "open"):
                    opened = tool(path)
                with samples.take(name, "random molecule"):
                    take(opened.molecule, [index])
                opened.close()
            if tool is Ours and hasattr(mmap, "MADV_RANDOM") and chilled(name):
                opened = tool(path, mmap.MADV_RANDOM)  # one page a fault, no readahead
                with samples.take(name, "random molecule, MADV_RANDOM"):
                    take(opened.molecule, [index])
                opened.close()
            if takes_long(tool, "full pass", n):
                why[f"{name}, full pass"] = SLOW
                continue
            if samples.wants(name, "full pass") and chilled(name):
                with samples.take(name, "full pass"):
                    opened = tool(path)
                    opened.sweep()
                opened.close()
            for advice, number in ADVICE.items() if tool is Ours else ():
                if samples.wants(name, f"full pass, {advice}") and chilled(name):
                    with contextlib.suppress(OSError, AttributeError):  # a kernel without it
                        with samples.take(name, f"full pass, {advice}"):
                            opened = tool(path, number)
                            opened.sweep()
                        opened.close()
            if tool is Ours and cat and chilled(name):
                with samples.take(BASELINE, "cat FILE > /dev/null"):
                    subprocess.run([cat, str(path)], stdout=subprocess.DEVNULL, check=True)
    return {"samples": samples.rows(), "why": why}


def loader(job) -> dict:
    """Molecules through a DataLoader, shuffled, in batches of 128, workers' start included.

    Each time the tool is opened anew, before the clock starts, or by the worker, after it has.
    """
    import torch
    from torch_geometric.loader import DataLoader

    samples, draw = Samples(job["budget_s"]), random.Random(SEED)
    tools, n = chosen(job), job["n"]
    for tool in tools.values():
        heat(tool.paths(path_of(job, tool)))
    for k in range(job["rounds"]):
        indices = draw.sample(range(n), min(job["n_loaded"], n))
        for n_workers in (0, 2):
            for name in rotated(tools, k):
                tool, operation = tools[name], f"DataLoader, {n_workers} workers"
                if not samples.wants(name, operation):
                    continue
                rows, close = tool.for_loader(path_of(job, tool), n)
                part = torch.utils.data.Subset(rows, indices)
                batches = DataLoader(part, batch_size=128, num_workers=n_workers)
                begin = time.perf_counter()
                n_loaded = sum(batch.num_graphs for batch in batches)
                samples.add(time.perf_counter() - begin, name, operation, n=n_loaded)
                close()
                del rows, part, batches
                same(tool, operation, len(indices), n_loaded)
    return {"samples": samples.rows()}


# Memory --------------------------------------------------------------------------------------


def memory(job) -> dict:
    """One tool in a process of its own: what it has added after each step, since the baseline."""
    (name,), scale = job["tools"], job["scale"]
    tool, path = TOOLS[name], path_of(job, TOOLS[name], job["scale"])
    draw, steps = random.Random(SEED), []
    n = job["n"] * scale
    drawn = draw.sample(range(n), min(job["n_drawn"], n // 2))
    batch = np.array(draw.choices(range(n), k=BATCH))
    peers.BLOCK[:] = 0
    state = [measure.bring_to(p, job["temperature"]) for p in tool.paths(path)]
    if job["temperature"] == "cold":
        for each in state:
            if each.is_cold is not True:
                return {"why": not_cold(each)}
    gc.collect()
    gc.disable()
    baseline = [measure.resident(), measure.faults()]

    def reading() -> list:
        memory, faults = measure.resident(), measure.faults().since(baseline[1])
        own = memory.anonymous_bytes - baseline[0].anonymous_bytes
        shared = memory.file_bytes - baseline[0].file_bytes
        # A value that is missing is null in the JSON of the results.
        counts = own, shared, faults.minor, faults.major
        return [None if measure.is_missing(count) else count for count in counts]

    def step(operation, function, n=1) -> None:
        begin = time.perf_counter()
        function()
        steps.append([operation, [(time.perf_counter() - begin) / n], *reading()])

    held = []
    step("open", lambda: held.append(tool(path)))
    opened = held[0]
    step("first molecule", lambda: take(opened.molecule, [0]))
    few_drawn = drawn[:5] if tool is peers.Records else drawn
    step("random molecule", lambda: take(opened.molecule, few_drawn), len(few_drawn))
    step("batch of 1,024", lambda: opened.batch(batch))
    for operation, function in (("mean of one property", opened.mean), ("full pass", opened.sweep)):
        if job["temperature"] == "warm" or not takes_long(tool, operation, n):
            step(operation, function)
    if tool.has_data and (job["with_data"] or "torch_geometric" in tool.needs):
        before = reading()
        import torch_geometric.data  # noqa: F401

        _ = columns.MappedQM9  # what is imported here is not what the tool adds
        imported = [None if a is None else a - b for a, b in zip(reading(), before, strict=True)]
        step("Data object", lambda: [opened.data(i) for i in drawn], len(drawn))
        added = steps[-1][2:]
        steps[-1][2:] = [None if a is None else a - b for a, b in zip(added, imported, strict=True)]
    arrays = source(job)
    for i in draw.sample(range(n), 3 if tool is peers.Records else 20):
        one, expected = opened.molecule(i), peers.Arrays(arrays).molecule(i % job["n"])
        if tool is peers.Records:
            one, expected = [one], [(expected.smiles, float(expected.y[U0]))]
        for field, (a, b) in enumerate(zip(expected, one, strict=True)):
            same(tool, f"x{scale}, molecule {i}, field {field}", a, b)
    n_bytes = sum(p.stat().st_size for p in tool.paths(path))
    opened.close()
    while len(steps[0][1]) < 7 and sum(steps[0][1]) < 0.5:  # opening, once more and again
        begin = time.perf_counter()
        opened = tool(path)
        steps[0][1].append(time.perf_counter() - begin)
        opened.close()
    if job.get("remove"):
        remove(path)
    return {"steps": steps, "n_bytes": n_bytes}


def scale(job) -> dict:
    """Write a tool's file as many times as large."""
    tool = TOOLS[job["tools"][0]]
    path = path_of(job, tool, job["scale"])
    with contextlib.suppress(FileNotFoundError):
        remove(path)
    tool.build_scaled(source(job), path, job["scale"])
    flush(tool.paths(path))
    return {}


def available(job) -> dict:
    """Which tools can be measured here, and the versions of what they need."""
    why = {name: peers.why_not(tool) for name, tool in chosen(job).items()}
    packages = ("numpy", "torch", "torch_geometric", "lmdb", "datasets", "pyarrow", "safetensors")
    versions = {}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {"missing": {name: reason for name, reason in why.items() if reason},
            "versions": versions}  # fmt: skip


# Running -------------------------------------------------------------------------------------


JOBS = {f.__name__: f for f in (build, warm, cold, loader, memory, scale, available)}


def prepare(job) -> None:
    """Before anything is imported: no network, no files outside the scratch folder, no noise."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY",
                 "HF_DATASETS_DISABLE_PROGRESS_BARS", "TQDM_DISABLE"):  # fmt: skip
        os.environ[name] = "1"
    os.environ["HF_HOME"] = str(Path(job["folder"], "hf"))
    warnings.simplefilter("ignore")


def run(job) -> dict:
    """One job in this process, with all that its tools need imported first."""
    for name in job["tools"] if job["kind"] != "available" else ():
        reason = peers.why_not(TOOLS[name])
        if reason:
            raise ImportError(f"{name}: {reason}")
    if job["kind"] != "memory":
        import torch_geometric.loader  # noqa: F401
    return JOBS[job["kind"]](job)


def run_forked(job) -> dict:
    """One job in a process that is forked from this one."""
    with open(Path(job["folder"], "answer.json"), "w+b") as answer:
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                answer.write(json.dumps(run(job)).encode())
                answer.flush()
                status = 0
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        _, status = os.waitpid(pid, 0)
        answer.seek(0)
        if status:
            raise RuntimeError(f"{job['kind']} {job['tools']}: see above")
        return json.loads(answer.read())


def main() -> None:
    """The jobs of ``sys.argv[1]``; their answers, or None for a tool that is not here, as JSON."""
    jobs = json.loads(sys.argv[1])
    prepare(jobs[0])
    answers, missing = [], {}
    with contextlib.redirect_stdout(io.StringIO()):
        for job in jobs:
            wanted = [name for name in job["tools"] if name not in missing]
            if job["kind"] == "available":  # in this process, so that it has all imports
                answers.append(run(job))
                missing = answers[-1]["missing"]
            elif not wanted:
                answers.append(None)
            else:
                measured = run_forked if len(jobs) > 1 else run
                answers.append(measured(job | {"tools": wanted}))
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
