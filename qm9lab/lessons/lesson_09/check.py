"""Checks of notebooks/09_sharing.ipynb."""

import random

from qm9lab.course.check import Verdict, ask, attempt, hint, number, right


def _draw_readers(seed: int) -> tuple[int, int, int, list[tuple[int, int, int, int]]]:
    """Size of a file in MiB, how much of it the maps have touched, how many map it, and a table.

    The table has, for each process, RSS, PSS, USS and owned memory in MiB. No sum of a column,
    alone or with the file, is the total cost. So the maps touch only a part, which is never one
    file when it is counted several times. One or two processes use ``read()``, so that the cache
    has the whole file.
    """
    draw = random.Random(seed)
    size, n_maps = 72 * draw.randint(2, 7), draw.choice([0, 1, 2, 2, 3])
    part = size * draw.choice([3, 5, 7, 9]) // 12
    rows = []
    for k in range(n_maps + draw.randint(1, 2)):
        own = draw.randrange(1, 9)
        if k < n_maps:
            alone = part if n_maps == 1 else 0
            rows.append((part + own, part // n_maps + own, alone + own, own))
        else:
            rows.append((size + own,) * 4)
    draw.shuffle(rows)
    return size, part, n_maps, rows


def question_1(seed: int) -> str:
    """The question for ``seed``."""
    size, part, n_maps, rows = _draw_readers(seed)
    table = "\n".join(
        f"  {letter} {rss:7} {pss:6} {uss:6} {own:7}"
        for letter, (rss, pss, uss, own) in zip("ABCDE", rows, strict=False)
    )
    who = f"Of {len(rows)} processes {len(rows) - n_maps} got all of it with read()"
    if n_maps:
        who += f"; {n_maps} mapped it, and touched the same {part} MiB of it"
    text = ask(
        f"A file of {size} MiB was cold. {who}. Now the page cache has all of its {size} MiB. "
        "What each process has added, in MiB:"
    )
    return (
        f"{text}\n        RSS    PSS    USS   owned\n{table}\n"
        "How many MiB of the machine's memory do they all cost together?"
    )


def exercise_1(answer, seed: int) -> Verdict:
    """Check what all processes and the page cache take together."""
    size, _, _, rows = _draw_readers(seed)
    rss, pss, uss, own = (sum(column) for column in zip(*rows, strict=True))
    too_often = "RSS, PSS and USS include mapped pages of the cache: count each page once."
    no_cache = "the page cache has the file, too. Which of these numbers includes it?"
    mistakes = dict.fromkeys((rss, rss + size, pss + size, uss + size), too_often)
    mistakes[pss] = "PSS finds the page cache only where somebody maps it."
    mistakes |= dict.fromkeys((own, uss), no_cache)
    return number(
        answer,
        own + size,
        mistakes,
        "which memory has an owner, and which belongs to the page cache?",
        "What they own, plus the page cache once.",
    )


class _Shared:
    """A number and a lock that keep a log: r, w for read and write, + and - for the lock."""

    def __init__(self, value: int, fails: bool = False):
        self.value, self.fails, self.log, self.is_held = value, fails, "", False

    def __getitem__(self, index):
        self.log += "r"
        return [self.value][index]

    def __setitem__(self, index, value):
        self.log += "w"
        if self.fails:
            raise OverflowError("the number is too large")
        [self.value][index] = value
        self.value = value

    def __len__(self):
        return 1

    def _no_number(self, other):
        raise TypeError("counter is a map with a number in it: did you mean counter[0]?")

    __add__ = __radd__ = __iadd__ = _no_number


class _Lock:
    """A lock that, like a real one, keeps out its own holder, too."""

    def __init__(self, shared: _Shared):
        self._shared = shared

    def acquire(self, *args, **kwargs):
        if self._shared.is_held:
            raise RuntimeError("asked for a lock that it already has: it would wait for ever")
        self._shared.is_held = True
        self._shared.log += "+"
        return True

    def release(self):
        if not self._shared.is_held:
            raise RuntimeError("released a lock that it does not have")
        self._shared.is_held = False
        self._shared.log += "-"

    __enter__ = acquire

    def __exit__(self, *exception):
        self.release()


def exercise_2(function) -> Verdict:
    """Check a function that adds to a shared number under a lock."""
    shared = _Shared(37)
    _, verdict = attempt(function, shared, _Lock(shared), 5, returns=False)
    return verdict or _judge_log(shared) or _judge_failed(function) or right(
        "Nobody can come between read and write, and a failure leaves nobody waiting."
    )  # fmt: skip


def _judge_log(shared: _Shared) -> Verdict | None:
    log = shared.log
    if "w" not in log:
        return hint("your function wrote nothing to counter[0].")
    if shared.value != 42:
        return hint(f"adding 5 to 37 should give 42, but the number is {shared.value}.")
    if "+" not in log:
        return hint("your function adds, but never asks for the lock.")
    if shared.is_held:
        return hint("the lock was not released: everybody else waits for ever.")
    log = log[: log.rindex("w") + 1]  # a read after the last write does no harm
    outside = "".join(part.partition("-")[2] for part in ("-" + log).split("+"))
    if "r" in outside:
        return hint("the number was read without the lock: it may be old when you write.")
    if "w" in outside:
        return hint("the number was written after the lock had been released.")
    if "r" not in log[: log.index("w")].rpartition("+")[2]:
        return hint("the lock was released between the read and the write.")
    return None


def _judge_failed(function) -> Verdict | None:
    """The write fails: the lock must be released all the same."""
    shared = _Shared(37, fails=True)
    try:
        function(shared, _Lock(shared), 5)
    except Exception as error:
        if not isinstance(error, OverflowError):
            return hint(f"a write failed, and your function raised {error!r}")
    if shared.is_held:
        return hint("a write failed, and you kept the lock. What always releases it?")
    return None
