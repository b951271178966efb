"""`blackbox list`: the runs below a folder."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from blackboxml.cli import output
from blackboxml.cli.arguments import add_json, add_root
from blackboxml.cli.status import OK

if TYPE_CHECKING:
    import argparse

    from blackboxml.cli.arguments import Adder
    from blackboxml.cli.overview import Overview

STATUSES: Final = (
    *("running", "completed", "failed", "interrupted", "crashed", "stale"),
    "unreadable",
)


def add_to(add: Adder) -> None:
    """Declare the arguments."""
    added = add(
        "list",
        "list the runs below a folder, newest first",
        "blackbox list --status failed",
        run,
        aliases=["runs"],
    )
    add_root(added)
    added.add_argument("--status", choices=STATUSES, help="only runs of this status")
    added.add_argument(
        "--tag", action="append", default=[], help="only runs with this tag; may be given again"
    )
    add_json(added)


def run(arguments: argparse.Namespace) -> int:
    """Do the work and return the exit status."""
    from blackboxml.cli import terminal
    from blackboxml.cli.overview import describe
    from blackboxml.collection import find_runs

    root = arguments.root or arguments.log_dir
    rows: list[Overview] = []
    with output.Progress("reading runs") as progress:
        paths = list(find_runs(root))
        for done, path in enumerate(paths):
            rows.append(describe(path))
            progress.update(done / len(paths))
    rows = [row for row in rows if _wanted(row, arguments)]
    oldest = datetime.min.replace(tzinfo=UTC)
    rows.sort(key=lambda row: (row.start or oldest, str(row.path)), reverse=True)
    if arguments.json:
        output.print_json(rows)
    elif rows:
        output.show(terminal.runs_table(rows, datetime.now(UTC), output.console().width))
    else:
        print("no runs found.")
    return OK


def _wanted(row: Overview, arguments: argparse.Namespace) -> bool:
    """Tell whether a run passes the filters."""
    return (arguments.status is None or row.status == arguments.status) and all(
        tag in row.tags for tag in arguments.tag
    )
