"""The few commands, ``python -m qm9lab COMMAND``: each a thin call into the package.

An expected failure is one line on standard error and exit status 1, never a traceback.
"""

import argparse
import sys
from pathlib import Path

from . import lessons


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m qm9lab", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("data", help="get QM9 ready: build it, or verify what is there")
    command.set_defaults(run=_data)
    command = commands.add_parser("copy", help="copy the lessons, except over edited copies")
    command.set_defaults(run=_copy)
    command.add_argument("--to", type=Path, default=Path("work"), metavar="FOLDER")
    command = commands.add_parser("fresh", help="move the copies aside and copy the lessons anew")
    command.set_defaults(run=_fresh)
    command.add_argument("--to", type=Path, default=Path("work"), metavar="FOLDER")

    arguments = parser.parse_args(argv)
    from .data import DataError

    try:
        arguments.run(arguments)
    except (DataError, lessons.LessonError) as error:
        print(f"qm9lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("qm9lab: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _data(arguments: argparse.Namespace) -> None:
    from . import data

    sizes = [f"{path} ({path.stat().st_size / 1e6:.0f} MB)" for path in data.prepare(progress=True)]
    print("QM9 is ready:", " and ".join(sizes))


def _copy(arguments: argparse.Namespace) -> None:
    _report(lessons.copy(arguments.to), arguments.to)


def _fresh(arguments: argparse.Namespace) -> None:
    old, copied = lessons.fresh(arguments.to)
    if old is not None:
        print(f"moved the former copies to {old}")
    _report(copied, arguments.to)


def _report(copied: list[lessons.Copied], work: Path) -> None:
    of = {state: [c.name for c in copied if c.state == state] for state in ("new", "updated")}
    print(f"lessons in {work}: {len(copied)} ({len(of['new'])} new, {len(of['updated'])} updated)")
    edited = [c.name for c in copied if c.state == "edited"]
    if edited:
        print("left as you edited them (make fresh starts anew):", ", ".join(edited))


if __name__ == "__main__":
    sys.exit(main())
