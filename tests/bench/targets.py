"""What the kit's file must reach: each target with the ratio that was measured in this run.

Times are compared best against best, so that what else the machine does counts as little as
possible; the open alone by its median. Where a number is missing, the target says so.
"""

from typing import NamedTuple

from peers import Datasets, InMemory, Lmdb, OnDisk, Ours
from report import STEPS, Table
from stages import ADVICE, BASELINE

MIB = 1 << 20
PASS, SHORT = "pass", "falls short"


class Target(NamedTuple):
    """One target: in words, what was measured, its limit, and the verdict."""

    claim: str
    measured: str
    limit: str
    verdict: str


class Judge:
    """Collects targets over a table."""

    def __init__(self, table: Table) -> None:
        self.table, self.found = table, []

    def at_most(self, claim, value, limit, form="{:.2f}") -> None:
        self._judge(claim, value, form, f"at most {form.format(limit)}", lambda: value <= limit)

    def at_least(self, claim, value, limit, form="{:.2f}") -> None:
        self._judge(claim, value, form, f"at least {form.format(limit)}", lambda: value >= limit)

    def more_than(self, claim, value, limit, form="{:.2f}") -> None:
        self._judge(claim, value, form, f"more than {form.format(limit)}", lambda: value > limit)

    def below(self, claim, value, limit, form="{:.2f}") -> None:
        self._judge(claim, value, form, f"below {form.format(limit)}", lambda: value < limit)

    def told(self, claim, value, form="{:.2f}") -> None:
        """A ratio without a limit, told beside a target."""
        self._judge(claim, value, form, "", None)

    def _judge(self, claim, value, form, limit, holds) -> None:
        if value is None:
            self.found.append(Target(claim, "not measured", limit, ""))
            return
        verdict = "" if holds is None else PASS if holds() else SHORT
        self.found.append(Target(claim, form.format(value), limit, verdict))

    def best(self, tool, operation, temperature="warm", scale=1):
        return self.table.best(getattr(tool, "name", tool), scale, temperature, operation)


def ratio(a, b):
    return None if a is None or b is None else a / b


def judge(table: Table) -> list[Target]:
    """Every target, from the table of a run."""
    j, best = Judge(table), Judge(table).best
    write = ratio(best(Ours, "build"), best(BASELINE, "one write(), fsync"))
    j.at_most("build / one write() of the same bytes, both with fsync", write, 1.5)
    write = ratio(best(Ours, "build, no fsync"), best(BASELINE, "one write(), no fsync"))
    j.at_most("build / one write() of the same bytes, both without fsync", write, 1.5)
    checksum = ratio(best(BASELINE, "zlib.crc32 of the same bytes"),
                     best(BASELINE, "one write(), no fsync"))  # fmt: skip
    j.told("zlib.crc32 of these bytes on one core / one write() without fsync", checksum)

    scales = [scale for scale in table.scales() if scale <= 16]
    for scale in sorted({1, scales[-1] if scales else 1}):
        cell = table.cell(Ours.name, scale, "alone", "open")
        j.at_most(f"open, x{scale} (ms)", cell.median and cell.median * 1e3, 1.0)
        parts = cell.anonymous_bytes, cell.file_bytes
        grown = None if None in parts else sum(parts) / MIB
        j.below(f"memory after open, x{scale}, anonymous and file (MiB)", grown, 1.0)

    mine = best(Ours, "random molecule")
    j.more_than("LMDB / ours, one random molecule", ratio(best(Lmdb, "random molecule"), mine), 1.0)
    for tool, how, other in (
        (OnDisk, "with a schema", "without a schema"),
        (Datasets, "numpy format", "its Arrow columns"),
    ):
        recommended = ratio(best(tool, "random molecule"), mine)
        j.at_least(f"{tool.name} / ours, one random molecule ({how})", recommended, 50, "{:.0f}")
        another = ratio(best(tool, "random molecule, another way"), mine)
        j.at_least(f"{tool.name} / ours, one random molecule ({other})", another, 50, "{:.0f}")
    data = ratio(best(InMemory, "Data object"), best(Ours, "Data object"))
    j.at_least("in-memory ds[i] / ours, Data object, first gets", data, 4)
    data = ratio(best(InMemory, "Data object, again"), best(Ours, "Data object, again"))
    j.told("in-memory ds[i] / ours, Data object, once more (it keeps them)", data, "{:.1f}")

    column = best(Ours, "batch of 1,024, one property")
    j.at_most("batch of 1,024, one property (us a molecule)", column and column * 1e6 / 1024, 0.3)
    ragged = best(Ours, "batch, ragged fields")
    joined = ratio(best(Ours, "single gets, ragged fields joined"), ragged)
    j.at_least("1,024 single gets joined to the same arrays / batch of 1,024, ragged", joined, 5)
    views = ratio(best(Ours, "single gets, views alone"), ragged)
    j.told("1,024 single gets as views, no byte of them copied / batch, ragged", views, "{:.1f}")

    mean, in_ram = best(Ours, "mean of one property, alternating"), "np.mean in RAM, rows of 19"
    j.at_most("mean of one property / np.mean of the same rows in RAM",
              ratio(mean, best(BASELINE, in_ram)), 1.2)  # fmt: skip
    other = ratio(mean, best(BASELINE, "np.mean in RAM, a column"))
    j.told("mean of one property / np.mean of a column of its own in RAM", other, "{:.1f}")

    cat = best(BASELINE, "cat FILE > /dev/null", "cold")
    advised = {a: t for a in ADVICE if (t := best(Ours, f"full pass, {a}", "cold"))}
    advice = min(advised, key=advised.get, default="advised")
    j.at_most(f"cold full pass, {advice} / cat FILE > /dev/null, cold",
              ratio(advised.get(advice), cat), 1.1)  # fmt: skip
    j.told("cold full pass, no advice / cat", ratio(best(Ours, "full pass", "cold"), cat))

    if len(scales) > 1:
        grown = {step: memory_growth(table, step, scales[-1]) for step in STEPS}
        grown = {step: value for step, value in grown.items() if value is not None}
        worst = max(grown, key=grown.get, default=None)
        claim = f"anonymous memory, x{scales[-1]} less x1, worst of all steps"
        j.below(f"{claim} (MiB){f': {worst}' if worst else ''}", grown.get(worst), 5.0)
    else:
        j.below("anonymous memory, largest scale less x1 (MiB)", None, 5.0)
    return j.found


def memory_growth(table: Table, step: str, scale: int) -> float | None:
    """MiB of anonymous memory that ours has more at ``scale`` than at x1, after a step."""
    one, many = (table.cell(Ours.name, s, "alone", step).anonymous_bytes for s in (1, scale))
    return None if one is None or many is None else (many - one) / MIB
