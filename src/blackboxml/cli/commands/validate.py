"""`blackbox validate`: runs against the specification."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blackboxml.cli import output, places
from blackboxml.cli.arguments import add_json
from blackboxml.cli.status import BAD, OK
from blackboxml.errors import BlackboxError

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from blackboxml.cli.arguments import Adder
    from blackboxml.validation import Report


def add_to(add: Adder) -> None:
    """Declare the arguments."""
    added = add(
        "validate",
        "check runs against the specification",
        "blackbox validate blackboxml_logs",
        run,
    )
    added.add_argument(
        "paths", nargs="+", metavar="PATH", help="a run, or a folder to look for runs in"
    )
    add_json(added)


def run(arguments: argparse.Namespace) -> int:
    """Do the work and return the exit status."""
    from blackboxml.cli.overview import reason
    from blackboxml.validation import validate

    told: list[dict[str, Any]] = []
    for path in places.runs_at(arguments.paths):
        try:
            with output.Progress(f"validating {path.name}"):
                report = validate(path)
        except (BlackboxError, OSError) as error:
            told.append({"path": path, "ok": False, "error": reason(error)})
            output.complain(error)
            continue
        members = {"problems": report.problems, "checked": report.checked}
        told.append({"path": path, "ok": report.ok, **members})
        if not arguments.json:
            output.print_problems(report.problems)
            _print_verdict(path, report)
    if arguments.json:
        output.print_json(told)
    return OK if all(entry["ok"] for entry in told) else BAD


def _print_verdict(path: Path, report: Report) -> None:
    """Print the last line of a validation."""
    from blackboxml.cli import terminal

    errors = sum(problem.severity == "error" for problem in report.problems)
    found = [
        f"{number} {what}{'s' * (number != 1)}"
        for number, what in ((errors, "error"), (len(report.problems) - errors, "warning"))
        if number
    ]
    verdict = ": ".join(filter(None, ("valid" if report.ok else "invalid", ", ".join(found))))
    print(f"{terminal.safe(path)}: {verdict}", flush=True)
