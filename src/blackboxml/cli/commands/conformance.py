"""`blackbox conformance`: a reader or a validator in any language against the corpus."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from blackboxml.cli import output
from blackboxml.cli.arguments import add_json
from blackboxml.cli.status import BAD, OK, USAGE

if TYPE_CHECKING:
    import argparse

    from blackboxml.cli.arguments import Adder
    from blackboxml.conformance import Result


def add_to(add: Adder) -> None:
    """Declare the arguments."""
    added = add(
        "conformance",
        "run the conformance corpus against a program",
        "blackbox conformance -- node reader.mjs",
        run,
    )
    added.add_argument(
        "--corpus", default="fixtures", metavar="DIR", help="the corpus (default: %(default)s)"
    )
    added.add_argument("--only", default="*", metavar="GLOB", help="cases, such as 'torn/*'")
    added.add_argument(
        "--timeout", type=_seconds, default=10.0, metavar="SECONDS", help="for each answer"
    )
    added.add_argument("--build", metavar="DIR", help="write each case there as a plain directory")
    added.add_argument(
        "--serve", action="store_true", help="be the adapter of this library, on standard input"
    )
    added.add_argument(
        "adapter", nargs="*", metavar="COMMAND", help="the adapter and its arguments, after --"
    )
    add_json(added)


def _seconds(text: str) -> float:
    """Return a number above 0 for argparse."""
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise ValueError(text)
    return seconds


_seconds.__name__ = "number"


def run(arguments: argparse.Namespace) -> int:
    """Do the work and return the exit status."""
    from blackboxml.conformance import AdapterError, CorpusError

    if sum(map(bool, (arguments.adapter, arguments.build, arguments.serve))) != 1:
        output.note("error: wanted one of: -- COMMAND, --build DIR, --serve")
        return USAGE
    try:
        if arguments.serve:
            return _serve()
        if arguments.build:
            return _build(arguments)
        result = _check(arguments)
    except (AdapterError, CorpusError, OSError) as error:
        output.note(f"error: {error}")
        return USAGE
    if arguments.json:
        output.print_json({**dataclasses.asdict(result), "counts": result.counts})
    else:
        _print(result)
    return OK if result.ok else BAD


def _serve() -> int:
    """Answer requests."""
    from blackboxml.conformance.library import serve

    serve(sys.stdin, sys.stdout)
    return OK


def _build(arguments: argparse.Namespace) -> int:
    """Write the cases as directories."""
    from blackboxml.conformance.case import UnsuitedSystemError, choose

    for case in choose(Path(arguments.corpus), arguments.only):
        place = Path(arguments.build) / case.name
        try:
            case.build(place)
        except UnsuitedSystemError as error:
            output.note(f"{case.name} was left out: {error}")
    return OK


def _check(arguments: argparse.Namespace) -> Result:
    """Run the cases."""
    from blackboxml.conformance import run_corpus
    from blackboxml.conformance.adapter import ProcessAdapter

    with (
        ProcessAdapter(arguments.adapter, arguments.timeout) as adapter,
        output.Progress("running the corpus") as progress,
    ):
        return run_corpus(arguments.corpus, adapter, arguments.only, progress.update)


def _print(result: Result) -> None:
    """Print what failed, and the counts."""
    from blackboxml.cli import terminal

    for check in result.checks:
        if check.outcome in {"failed", "left out"}:
            print(f"{check.outcome}: {check.operation} {check.case} ({check.rule})")
            for difference in check.differences:
                print(f"    {terminal.safe(difference)}")
    hello = " ".join(filter(None, (result.hello["name"], result.hello["version"])))
    counts = ", ".join(f"{number} {outcome}" for outcome, number in result.counts.items())
    claims = ", ".join(result.hello["claims"]) or "nothing"
    print(terminal.safe(f"{hello or 'the adapter'}, which claims {claims}: {counts}"))
