"""The few commands, ``python -m qm9lab COMMAND``: each a thin call into the package.

An expected failure is one line on standard error and exit status 1, never a traceback.
"""

import argparse
import sys
from pathlib import Path

from . import qm9
from .course import copies


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m qm9lab", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("data", help="get QM9 ready: build it, or verify what is there")
    command.set_defaults(run=_data)
    command = commands.add_parser("copy", help="copy the lessons, except over edited copies")
    command.set_defaults(run=_copy)
    command.add_argument("--to", type=Path, default=Path("work"), metavar="FOLDER")
    command = commands.add_parser("fresh", help="move the copies aside and copy the lessons again")
    command.set_defaults(run=_fresh)
    command.add_argument("--to", type=Path, default=Path("work"), metavar="FOLDER")
    command = commands.add_parser("exact", help="check that faults, pages and memory agree here")
    command.set_defaults(run=_exact)
    command.add_argument("--traces", type=int, default=200, metavar="N")
    command.add_argument("--seed", type=int, default=7)

    arguments = parser.parse_args(argv)
    try:
        return arguments.run(arguments) or 0
    except (qm9.DataError, copies.LessonError) as error:
        print(f"qm9lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("qm9lab: interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _data(arguments: argparse.Namespace) -> None:
    sizes = [f"{path} ({path.stat().st_size / 1e6:.0f} MB)" for path in qm9.prepare(progress=True)]
    print("QM9 is ready:", " and ".join(sizes))
    if qm9.others_can_write():
        print(
            f"qm9lab: warning: {qm9.folder()}: other users can change the data here: run "
            f"`chmod -R go-w {qm9.folder()}`",
            file=sys.stderr,
        )


def _copy(arguments: argparse.Namespace) -> None:
    _report(copies.copy(arguments.to), arguments.to)


def _fresh(arguments: argparse.Namespace) -> None:
    old, copied = copies.fresh(arguments.to)
    if old is not None:
        print(f"moved the former copies to {old}")
    _report(copied, arguments.to)


def _exact(arguments: argparse.Namespace) -> int:
    from . import measure
    from .course import folders

    found = measure.exact(folders.lesson_folder(), arguments.traces, arguments.seed)
    if isinstance(found, measure.Missing):
        print("exact protocol:", found)
        return 0
    print(
        f"traces: {found.n_traces}   mismatches: {len(found.mismatches)}   "
        f"({found.n_pages:,} distinct pages touched on {found.source}, seed {arguments.seed})"
    )
    print("compared: major faults, Rss of the map (smaps), pages mapped (pagemap), pages cached")
    print(f"RSS of the whole process grew by the same number in {found.n_rss_exact} traces")
    for mismatch in found.mismatches:
        print("mismatch:", mismatch, file=sys.stderr)
    return 1 if found.mismatches else 0


def _report(states: dict[str, str], work: Path) -> None:
    n_new, n_updated = (list(states.values()).count(state) for state in ("new", "updated"))
    print(f"lessons in {work}: {len(states)} ({n_new} new, {n_updated} updated)")
    edited = [name for name, state in states.items() if state == "edited"]
    if edited:
        print("left as you edited them (make fresh starts again):", ", ".join(edited))


if __name__ == "__main__":
    sys.exit(main())
