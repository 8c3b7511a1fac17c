"""Checks of notebooks/11_train_from_the_map.ipynb."""

import random
import sys

import numpy as np

from qm9lab.course.check import Verdict, ask, attempt, hint, number, right


def _draw_batch(seed: int) -> tuple[int, int, int, int]:
    """Molecules a batch, bytes of a short and of a long piece, bytes of a page."""
    draw = random.Random(seed)
    page = draw.choice([4, 16, 64]) * 1024
    short = draw.randrange(100, 900)
    long = draw.randrange(1, 4) * page + draw.randrange(page // 4, 3 * page // 4)
    return draw.choice([16, 32, 48, 96, 128]), short, long, page


def question_1(seed: int) -> str:
    """The question for ``seed``."""
    n, short, long, page = _draw_batch(seed)
    return ask(
        f"A batch of {n} molecules, drawn at random from a file far larger than that. Of each "
        f"molecule {short} bytes are read from one section and {long} bytes from another, each in "
        f"one piece that may begin at any byte. A page has {page} bytes. On how many pages do the "
        "pieces of the batch lie at most?"
    )


def exercise_1(answer, seed: int) -> Verdict:
    """Check the most pages that a batch can touch."""
    n, short, long, page = _draw_batch(seed)

    def at_most(n_bytes):
        return (n_bytes - 2) // page + 2  # the first byte is the last one of its page

    def at_least(n_bytes):
        return -(-n_bytes // page)

    neighbours = "that is when the molecules are neighbours, so that their bytes lie together."
    return number(
        answer,
        n * (at_most(short) + at_most(long)),
        {
            n * (at_least(short) + at_least(long)): (
                "that is when each piece begins at the beginning of a page. May it begin elsewhere?"
            ),
            at_least(n * (short + long)): neighbours,
            at_least(n * short) + at_least(n * long): neighbours,
            at_most(short) + at_most(long): "those are the pages of one molecule.",
            n * (1 + at_most(long)): "may a piece that is shorter than a page lie on two?",
            n * 4: "the long piece is longer than a page.",
        },
        "find the most for one piece of each kind first. Each molecule has both, and two sections "
        "share no page.",
        "It is pages that come from the disk, not bytes.",
    )


def _draw_workers(seed: int) -> tuple[int, int, int, int]:
    """MiB of the data set, workers, MiB that each writes to, MiB of its own objects."""
    draw = random.Random(seed)
    return tuple(draw.randrange(*ends) for ends in ((200, 900), (2, 9), (11, 40), (2, 10)))


def question_2(seed: int) -> str:
    """The question for ``seed``."""
    held, n_workers, written, made = _draw_workers(seed)
    return ask(
        f"A parent holds a data set of {held} MiB in memory and forks {n_workers} workers. Each "
        f"worker writes to {written} MiB of the pages that it shares with its parent (using a "
        f"Python string changes its reference count), and keeps {made} MiB of new objects. How "
        "many MiB of anonymous memory do parent and workers have together for the data set, the "
        "copies and the new objects, each page counted once?"
    )


def exercise_2(answer, seed: int) -> Verdict:
    """Check what parent and forked workers own together."""
    held, n, written, made = _draw_workers(seed)
    not_copied = "does fork copy a page that nobody writes to?"
    copied = "what happens to a shared page when a worker writes to it?"
    return number(
        answer,
        held + n * (written + made),
        {
            (n + 1) * held: f"that counts it once a process. {not_copied.capitalize()}",
            (n + 1) * held + n * made: not_copied,
            (n + 1) * held + n * (written + made): not_copied,
            held: copied,
            held + n * made: copied,
            held + n * written: "the objects that a worker keeps are in its memory, too.",
            held + written + made: "that is with one worker.",
            n * (written + made): "the parent's own pages count as well.",
        },
        "start with the parent's pages. Which pages does each worker add to them?",
        "Over a map the first term is gone: nobody owns the data.",
    )


CASES = ((10, 4, 1), (1000, 64, 2), (1000, 64, 3), (777, 100, 4))


def exercise_3(in_blocks) -> Verdict:
    """Check an order of molecules that is shuffled in blocks."""
    before, orders = _generators(), []
    for n, block, seed in (*CASES, CASES[1]):
        result, verdict = attempt(in_blocks, n, block, seed)
        verdict = verdict or _wrong_type(result)
        if verdict:
            return verdict
        orders.append([int(number) for number in result])
        verdict = _problem(orders[-1], n, block)
        if verdict:
            return verdict
    if orders[1] != orders[-1]:
        return hint("two calls with the same seed gave two orders: nobody can repeat that training")
    if orders[1] == orders[2]:
        return hint("two seeds gave the same order.")
    if before != _generators():
        return hint(
            "your function has changed a generator that all share: others draw another number "
            "from it now. Make one of your own from the seed."
        )
    return right("sampler=in_blocks(...) in the DataLoader, and a block's pages come together.")


def _wrong_type(result) -> Verdict | None:
    """What is wrong with the type of an order, or None."""
    kind = type(result).__name__
    if hasattr(result, "__iter__") and not hasattr(result, "__len__"):
        return hint(
            f"expected a list, an array or a tensor, found a {kind}. A DataLoader asks for the "
            "length, and reads the order again in every epoch."
        )
    try:
        if any(np.ndim(part) for part in result):
            return hint("expected a list of numbers, found one of lists: join the blocks.")
        [int(number) for number in result]
    except (TypeError, ValueError):
        return hint(f"expected a list of numbers, found a {kind}.")
    return None


def _problem(order: list[int], n: int, block: int) -> Verdict | None:
    """What is wrong with one order, or None."""
    if len(order) < n and len(order) == n // block * block:
        return hint(f"{n} molecules, blocks of {block}: the last block is shorter. It is missing.")
    if sorted(order) != list(range(n)):
        return hint(f"each number from 0 to {n - 1} once was asked for.")
    at, blocks = 0, []
    while at < n:
        start = order[at] // block * block
        end = min(start + block, n)
        part = order[at : at + end - start]
        if sorted(part) != list(range(start, end)):
            return hint("the molecules of a block do not all come one after another.")
        blocks.append(part)
        at += len(part)
    long_blocks = [part for part in blocks if len(part) > 10]
    if not long_blocks:  # so few may stand in order by chance
        return None
    if blocks == sorted(blocks, key=min):
        return hint("the blocks come in the order of the file.")
    if any(part == sorted(part) for part in long_blocks):
        return hint("within a block the molecules stand in the order of the file.")
    shuffles = {tuple(number - min(part) for number in part) for part in long_blocks}
    if len(shuffles) < len(long_blocks):
        return hint("blocks are shuffled in the same way: draw again for each.")
    return None


def _generators() -> list:
    """The state of every generator that all code of this process shares."""
    kind, keys, *rest = np.random.get_state()
    states = [random.getstate(), kind, keys.tolist(), rest]
    if "torch" in sys.modules:
        states.append(sys.modules["torch"].random.get_rng_state().tolist())
    return states
