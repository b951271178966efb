"""`blackbox show`: one run and the statistics of its metrics."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from blackboxml.cli import output, places
from blackboxml.cli.arguments import add_json, add_run
from blackboxml.cli.status import OK
from blackboxml.errors import ManifestError, NotARunError

if TYPE_CHECKING:
    import argparse

    from blackboxml.cli.arguments import Adder


def add_to(add: Adder) -> None:
    """Declare the arguments."""
    added = add(
        "show",
        "show what one run is and the statistics of its metrics",
        "blackbox show resnet",
        run,
    )
    add_run(added)
    add_json(added)


def run(arguments: argparse.Namespace) -> int:
    """Do the work and return the exit status."""
    from blackboxml.cli import terminal
    from blackboxml.frontends.store import load_run
    from blackboxml.reader import open_run

    path = places.find(arguments.run, arguments.log_dir)
    try:
        reader = open_run(path)
    except (NotARunError, ManifestError):
        output.print_json(load_run(path))  # of blackboxml 0.5, or the same error again
        return OK
    with output.Progress("reading the run"):
        summary = reader.summary()
    verdict = reader.verdict
    config = reader.config
    if arguments.json:
        output.print_json(
            {
                "path": reader.path,
                "status": verdict.status,
                "reason": verdict.reason,
                "manifest": reader.manifest,
                "config": config,
                "summary": summary,
                "problems": reader.problems,
            }
        )
        return OK
    output.show(terminal.run_header(reader, datetime.now(UTC)))
    print()
    if summary:
        units = terminal.units(reader.manifest["groups"]) if reader.sealed else {}
        output.show(terminal.metrics_table(summary, units))
    else:
        print("no metrics were logged.")
    if reader.problems:
        print()
        output.print_problems(reader.problems)
    return OK
