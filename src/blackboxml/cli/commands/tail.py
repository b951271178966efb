"""`blackbox tail`: the last points of a run, and those to come."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from blackboxml.cli import output, places
from blackboxml.cli.arguments import add_json, add_run, natural
from blackboxml.cli.status import OK

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blackboxml.cli.arguments import Adder


def add_to(add: Adder) -> None:
    """Declare the arguments."""
    added = add("tail", "print the points that were logged last", "blackbox tail -f resnet", run)
    add_run(added)
    added.add_argument(
        "-n", "--number", type=natural, default=10, metavar="N", help="how many (default: 10)"
    )
    added.add_argument(
        "-f", "--follow", action="store_true", help="go on with new points until the run ends"
    )
    added.add_argument("--poll", type=float, default=0.5, help=argparse.SUPPRESS)
    add_json(added, "print one JSON object a line")


def run(arguments: argparse.Namespace) -> int:
    """Do the work and return the exit status."""
    from blackboxml.cli import overview
    from blackboxml.reader import open_run

    reader = open_run(places.find(arguments.run, arguments.log_dir))
    if not arguments.follow:
        if arguments.number:
            with output.Progress("reading the run"):
                points = overview.in_order(overview.last_points(reader, arguments.number))
            _print_points(points[-arguments.number :], arguments)
        return OK
    _print_points(overview.follow(reader, arguments.number, arguments.poll), arguments)
    verdict = reader.verdict
    output.note(f"{reader.path}: the run is over: {verdict.status} ({verdict.reason})")
    return OK


def _print_points(points: Iterable[Any], arguments: argparse.Namespace) -> None:
    """Print points as they come, a line each."""
    from blackboxml.cli import terminal

    ranks = False
    for record in points:
        ranks = ranks or record.rank > 0
        if arguments.json:
            line = terminal.dumps(record, indent=None, ascii_only=output.is_ascii())
        else:
            line = terminal.record_line(record, rank=ranks)
        print(line, flush=arguments.follow)
