"""`blackbox validate`: runs against the specification."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from blackboxml.cli import output, places
from blackboxml.cli.arguments import positive
from blackboxml.cli.status import BAD, OK, UNDECIDED, USAGE

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from blackboxml.cli.arguments import Adder
    from blackboxml.validation import Report

_LEVELS: Final = ("schema", "structure", "integrity", "full")
_FORMS: Final = ("text", "json", "sarif", "junit", "github")
_MOST_LINES: Final = 20
"""Runs up to which each is named; of more, those that are valid are only counted."""

_EXIT_STATUS: Final = (
    "Exit status: 0 valid, 1 invalid (or a warning, with --fail-on warning), 2 wrong usage, "
    "3 undecided: incomplete, unsupported or unreadable."
)


def add_to(add: Adder) -> None:
    """Declare the arguments."""
    added = add(
        "validate",
        "check runs against the specification",
        "blackbox validate blackboxml_logs --format sarif --output findings.sarif",
        run,
    )
    added.description = f"{added.description} {_EXIT_STATUS}"
    added.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="a run, a file in one, or a folder to look for runs in",
    )
    added.add_argument(
        "--containing",
        action="store_true",
        help="take each PATH for a file, validate the runs that hold one, and pass over the rest",
    )
    added.add_argument(
        "--level",
        choices=_LEVELS,
        default="full",
        help="how much to look at; full compares every value (default: %(default)s)",
    )
    added.add_argument(
        "--format", choices=_FORMS, default="text", help="form of the report (default: text)"
    )
    added.add_argument(
        "--json",
        action="store_const",
        const="json",
        dest="format",
        help="the same as --format json",
    )
    added.add_argument(
        "--output", metavar="FILE", help="write the report to a file, and a summary to the terminal"
    )
    added.add_argument("--sarif", metavar="FILE", help="write the findings to a file as SARIF too")
    added.add_argument(
        "--fail-on",
        choices=("warning", "error"),
        default="error",
        help="the least severity that gives exit status 1 (default: %(default)s)",
    )
    added.add_argument(
        "--ignore",
        action="append",
        default=[],
        metavar="ID",
        help="leave a rule out, as BB-LAY-008 (repeatable)",
    )
    added.add_argument(
        "--accept-incomplete",
        action="store_true",
        help="take runs that have not ended in order for valid",
    )
    added.add_argument(
        "--jobs",
        type=positive,
        metavar="N",
        help="processes that work at once (default: one on each core)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Do the work and return the exit status."""
    from blackboxml.validation.single import find_rule

    try:
        ignored = [find_rule(name) for name in arguments.ignore]
    except ValueError as error:
        output.note(f"error: --ignore: {error}")
        return USAGE
    # A file that is gone was in a run too.
    named = () if arguments.containing else arguments.paths
    missing = [path for path in named if not os.path.lexists(path)]
    for path in missing:
        output.note(f"error: {path}: no such file or directory")
    if missing:
        return USAGE
    started = time.perf_counter()
    reports = list(_validate(arguments, ignored))
    _tell(arguments, reports, time.perf_counter() - started)
    return exit_status(
        reports,
        fail_on_warning=arguments.fail_on == "warning",
        accept_incomplete=arguments.accept_incomplete,
    )


def exit_status(
    reports: Sequence[Report], *, fail_on_warning: bool = False, accept_incomplete: bool = False
) -> int:
    """Return what a gate needs to know of many runs: the worst of them decides."""
    verdicts = {report.verdict for report in reports}
    if "invalid" in verdicts or (fail_on_warning and any(report.problems for report in reports)):
        return BAD
    accepted = {"valid", "incomplete"} if accept_incomplete else {"valid"}
    return OK if verdicts <= accepted else UNDECIDED


def _validate(arguments: argparse.Namespace, ignored: list[str]) -> Iterator[Report]:
    """Yield the reports of all runs, with a bar on a terminal and each told as it comes."""
    from blackboxml.base.process import cores
    from blackboxml.validation import validate, validate_all

    runs = places.runs_containing if arguments.containing else places.runs_at
    paths = list(runs(arguments.paths))
    options: dict[str, Any] = {"level": arguments.level, "ignore": ignored}
    live = arguments.format == "text" and arguments.output is None
    what = f"validating {paths[0].name}" if len(paths) == 1 else f"validating {len(paths):,} runs"
    with output.Progress(what) as progress:
        if len(paths) == 1:
            found = _one(validate, validate_all, paths[0], options, progress)
        else:
            found = validate_all(paths, jobs=arguments.jobs or cores(), **options)
        for count, report in enumerate(found, start=1):
            if len(paths) > 1:
                progress.update(count / len(paths))
            if live and (len(paths) <= _MOST_LINES or report.verdict != "valid" or report.problems):
                with progress.paused():
                    _print(report)
            yield report


def _one(
    validate: Any, validate_all: Any, path: Path, options: dict[str, Any], progress: output.Progress
) -> Iterator[Report]:
    """Yield the report of a single run, telling how far it is looked at."""
    from blackboxml.errors import NotARunError

    try:
        yield validate(path, progress=progress.update, **options)
    except NotARunError:
        yield from validate_all([path], **options)


def _print(report: Report) -> None:
    """Print a report for a person."""
    from blackboxml.cli import findings

    output.show(findings.run_text(report, Path.cwd(), ascii_only=output.is_ascii()))
    sys.stdout.flush()


def _tell(arguments: argparse.Namespace, reports: list[Report], seconds: float) -> None:
    """Print, or write down, what is left to tell once all runs were looked at."""
    from blackboxml.cli import findings
    from blackboxml.validation.renderers import render

    if arguments.sarif is not None:
        _write(arguments.sarif, render("sarif", reports))
    if arguments.format != "text":
        text = render(arguments.format, reports)
    elif arguments.output is not None:
        texts = [findings.run_text(report, Path.cwd()) for report in reports]
        text = "".join(f"{output.plain_text(each)}\n" for each in texts)
    else:
        if len(reports) != 1:
            output.show(findings.summary(reports, seconds))
        return
    if arguments.output is None:
        print(text, end="")
        return
    _write(arguments.output, text)
    output.show(findings.summary(reports, seconds))


def _write(path: str, text: str) -> None:
    """Write a report to a file."""
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
