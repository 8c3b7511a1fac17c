"""Side by side: the kit's file of columns and the tools that people would pick instead.

    make bench                      all molecules, about ten minutes on two quiet cores
    make bench ARGS=--quick         a few thousand, less than a minute: for a look, not for quoting

Writes one table (CSV and Markdown) and one picture (SVG) into ``tests/bench/results/``, a quick run
into ``build/bench/``, and prints the table and each target of the kit with the ratio that was
measured. Exits with 0 whether a target is met or not, and with 1 if a tool gives other records than
the data set or a run fails. Files are built in a scratch folder below the data folder.
"""

import argparse
import json
import os
import platform
import shutil
import sys
import time
from pathlib import Path

import psutil
import report
import targets
from peers import TOOLS, Ours
from report import Table

from qm9lab import measure, processes
from qm9lab.course import folders

HERE = Path(__file__).resolve().parent
SCRIPT = "import sys; sys.path.insert(0, sys.argv.pop(1)); import stages; stages.main()"
GIB = 1 << 30
N_ALL = 130_831
"""Molecules of QM9: what sizes are foretold from."""


class Bench:
    """One run: settings, scratch folder, and what was found so far."""

    def __init__(self, options) -> None:
        self.options, self.table = options, Table()
        self.folder = folders.lesson_folder() / "bench"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.tools, self.n, self.n_bytes = list(options.tools), 0, {}

    def job(self, kind: str, tools, **more) -> dict:
        base = {"kind": kind, "tools": list(tools), "folder": str(self.folder), "n": self.n,
                "n_molecules": self.options.molecules, "rounds": self.options.rounds,
                "budget_s": self.options.budget_s}  # fmt: skip
        return base | more

    def run(self, *jobs) -> None:
        """Do jobs and take what they found: each in a fresh process or, quick, forked from one.

        Raises
        ------
        SystemExit
            With the child's last words, if a job fails.
        """
        forked = self.options.quick and hasattr(os, "fork")
        for together in [jobs] if forked else [[job] for job in jobs]:
            what = f"{together[0]['kind']}: {', '.join(together[0]['tools'])}"
            if len(together) > 1:
                what = f"{len(together)} jobs"
            begin = time.perf_counter()
            done = processes.run_script(SCRIPT, HERE, json.dumps(together), timeout_s=1800)
            if done.returncode != 0:
                raise SystemExit(f"bench: {what}: {done.how_it_ended}\n{done.stderr.strip()}")
            if not self.options.quiet:
                say(f"  {time.perf_counter() - begin:6.1f} s  {what}")
            for job, found in zip(together, json.loads(done.stdout.splitlines()[-1]), strict=True):
                if found is not None:
                    getattr(self, f"take_{job['kind']}")(job, found)

    # The stages ------------------------------------------------------------------------------

    def measure(self) -> None:
        """All stages, in this order; a quick run does them in one process that forks."""
        self.make_room()
        stages = (self.first_jobs, self.build_jobs, self.time_jobs, self.growth_jobs)
        if self.options.quick:
            self.n = self.options.molecules
            self.run(*(job for stage in stages for job in stage()))
        else:
            for stage in stages:
                self.run(*stage())

    def make_room(self) -> None:
        """Whether the disk has room for every tool's file of the same records.

        Raises
        ------
        SystemExit
            If it has not.
        """
        needed = 9 * 332e6 * (self.options.molecules or N_ALL) / N_ALL
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise SystemExit(
                f"bench: needs {needed / GIB:.1f} GiB for files, found {free / GIB:.1f} GiB free "
                f"in {self.folder}: make room, or set QM9LAB_DATA to a folder on another disk"
            )

    def first_jobs(self) -> list:
        return [self.job("available", self.tools)]

    def build_jobs(self) -> list:
        return [self.job("build", self.tools)]

    def time_jobs(self) -> list:
        """Times, warm and cold, and what each tool adds to a process of its own."""
        with_data = [name for name in self.tools if TOOLS[name].has_data]
        for name in set(self.tools) - set(with_data):
            why = "not available here, because its file holds only SMILES and U0"
            self.table.say(name, 1, "warm", "Data objects", why)
        jobs = [self.job("warm", self.tools), self.job("cold", self.tools)]
        rounds = min(self.options.rounds, 3)
        jobs.append(self.job("loader", with_data, n_loaded=self.options.loaded, rounds=rounds))
        for name in self.tools:
            jobs.append(self.memory_job(name, 1))
            if name == Ours.name or not self.options.quick:
                jobs.append(self.memory_job(name, 1, "cold"))
        return jobs

    def memory_job(self, name: str, scale: int, temperature: str = "warm") -> dict:
        return self.job("memory", [name], scale=scale, temperature=temperature,
                        with_data=name == Ours.name, n_drawn=self.options.drawn)  # fmt: skip

    def growth_jobs(self) -> list:
        """The same questions of files that are 4, 16, ... times as large, one file at a time."""
        for path in self.folder.glob("x1-*"):
            if path.name != f"x1-{Ours.file_name}":
                (shutil.rmtree if path.is_dir() else Path.unlink)(path)
        jobs = []
        for scale in self.options.scales:
            for name in self.tools if scale > 1 else ():
                if reason := self.too_large(name, scale):
                    self.table.say(name, scale, "alone", "", f"not measured, because {reason}")
                else:
                    jobs.append(self.job("scale", [name], scale=scale))
                    jobs.append(self.memory_job(name, scale) | {"remove": True})
        return jobs

    # What they found -------------------------------------------------------------------------

    def take_available(self, job, found) -> None:
        self.versions = found["versions"]
        for name, reason in found["missing"].items():
            self.table.forget(name)
            self.table.say(name, 1, "", "", reason)
            self.tools.remove(name)

    def take_build(self, job, found) -> None:
        self.n, self.n_bytes = found["n_molecules"], found["n_bytes"]
        self.field_bytes = found["field_bytes"]
        self.table.add_samples(1, "warm", found["samples"])
        for name, n_bytes in self.n_bytes.items():
            self.table.add(name, 1, "warm", "file size", [n_bytes], "bytes")
        each = ", ".join(f"{name} {n:,}" for name, n in found["checked"].items())
        say(f"equal to the data set, field by field, molecules compared: {each}")

    def take_warm(self, job, found) -> None:
        self.table.add_samples(1, "warm", found["samples"])

    take_loader = take_warm

    def take_cold(self, job, found) -> None:
        self.table.add_samples(1, "cold", found["samples"])
        for what, reason in found["why"].items():
            name, _, operation = what.partition(", ")
            self.table.say(name, 1, "cold", operation, reason)

    def take_scale(self, job, found) -> None:
        """Nothing: the job that comes next measures the file."""

    def take_memory(self, job, found) -> None:
        (name,), scale, temperature = job["tools"], job["scale"], job["temperature"]
        if "why" in found:
            self.table.say(name, scale, "alone, cold", "", found["why"])
            return
        process = "alone" if temperature == "warm" else "alone, cold"
        for operation, seconds, *added in found["steps"]:
            self.table.add(name, scale, process, operation, seconds, "s")
            self.table.add_memory(name, scale, process, operation, *added)
            if process == "alone" and scale == 1 and TOOLS[name].is_slow:
                if self.table.best(name, 1, "warm", operation) is None:  # asked once, here
                    self.table.add(name, 1, "warm", operation, seconds, "s")
        self.table.add(name, scale, process, "file size", [found["n_bytes"]], "bytes")

    def too_large(self, name: str, scale: int) -> str:
        """Why a tool is not measured at a scale; "" if it is."""
        tool = TOOLS[name]
        if self.options.quick:
            return "a quick run builds it once" if tool.is_slow else ""
        n_bytes, held = self.n_bytes[name] * scale, self.n_bytes[Ours.name]
        limit, free = self.options.scratch_gb * 1e9, shutil.disk_usage(self.folder).free
        if tool.is_slow:
            built_s = self.table.best(name, 1, "warm", "build") * scale
            return f"building it would take about {built_s:,.0f} s"
        if n_bytes + held > limit:
            return f"the file would be {n_bytes / 1e9:.1f} GB, over the limit of {limit / 1e9:g} GB"
        if n_bytes * 1.2 > free:
            return f"the file would be {n_bytes / 1e9:.1f} GB and {free / 1e9:.1f} GB are free"
        available = psutil.virtual_memory().available
        if tool.is_held and 3 * n_bytes > min(available, 6 * GIB):
            return f"it would hold about {n_bytes / 1e9:.1f} GB in memory, and as much to build it"
        if n_bytes * 1.3 > available:
            return (f"{n_bytes / 1e9:.1f} GB do not stay in the page cache with "
                    f"{available / 1e9:.1f} GB of memory available")  # fmt: skip
        return ""

    def machine(self) -> list[str]:
        """What it ran on: no names, no paths."""
        memory = psutil.virtual_memory().total
        packages = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return [
            f"{platform.system()} {platform.release().split('-')[0]}, {platform.machine()}, "
            f"{os.cpu_count()} cores, {memory / GIB:.0f} GiB of memory, "
            f"{measure.file_system(self.folder)}",
            f"Python {platform.python_version()}, {packages}",
            f"{self.n:,} molecules, {self.field_bytes / (1 << 20):,.0f} MiB of fields and offsets"
            + (", a quick run: for a look, not for quoting" if self.options.quick else ""),
        ]


def say(line: str) -> None:
    print(line, flush=True)


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="few molecules, few rounds")
    parser.add_argument("--molecules", type=int, help="the first so many; all of them if left out")
    parser.add_argument("--out", type=Path, help="folder for table and picture")
    parser.add_argument("--scratch-gb", type=float, default=6.0, help="most that files may take")
    parser.add_argument("--scales", help="times as large, for instance 1,4,16,64")
    parser.add_argument("--tools", help=f"of: {', '.join(TOOLS)}")
    parser.add_argument("--quiet", action="store_true", help="no line for each stage")
    options = parser.parse_args(arguments)
    quick = options.quick
    options.molecules = options.molecules or (4000 if quick else 0)
    options.out = options.out or (Path("build/bench") if quick else HERE / "results")
    scales = options.scales or ("1,4" if quick else "1,4,16,64")
    options.scales = sorted({1, *map(int, scales.split(","))})
    options.tools = options.tools.split(",") if options.tools else list(TOOLS)
    if unknown := set(options.tools) - set(TOOLS):
        parser.error(f"expected tools among {list(TOOLS)}, found {sorted(unknown)}")
    if Ours.name not in options.tools:
        parser.error(f"expected {Ours.name} among the tools: all are compared with it")
    options.rounds, options.budget_s = (1, 0.1) if quick else (5, 4.0)
    options.loaded, options.drawn = (512, 100) if quick else (16_384, 1000)
    return options


def main(arguments=None) -> int:
    options, begin = parse(arguments), time.perf_counter()
    bench = Bench(options)
    try:
        bench.measure()
        lines = report.csv(bench.table)
        table = report.read_csv(lines)  # so that the picture can be drawn again from the file
        text = report.markdown(table, bench.machine(), targets.judge(table))
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "bench.csv").write_text(lines, encoding="utf-8")
        (options.out / "bench.md").write_text(text, encoding="utf-8")
        report.draw(table, options.out / "bench.svg")
    finally:
        shutil.rmtree(bench.folder, ignore_errors=True)
    say(f"\n{text}\n{time.perf_counter() - begin:.0f} s in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
