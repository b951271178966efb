"""Workflow commands of GitHub Actions: each finding as an annotation of its file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from blackboxml.validation.catalogue import rule
from blackboxml.validation.renderers import file_path, place, run_path

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from blackboxml.errors import Problem
    from blackboxml.validation.report import Report

_COMMANDS: Final = {"unreadable": "error", "unsupported": "error", "incomplete": "notice"}


def render(reports: Sequence[Report], base: Path) -> str:
    """Return one command on each line."""
    lines = []
    for report in reports:
        lines += [_annotate(report, problem, base) for problem in report.problems]
        if report.reason is not None:
            properties = {"file": run_path(report, base), "title": report.verdict}
            lines.append(command(_COMMANDS[report.verdict], properties, report.reason))
    return "".join(f"{line}\n" for line in lines)


def _annotate(report: Report, problem: Problem, base: Path) -> str:
    """Return a finding as a command."""
    known = rule(problem.rule)
    properties = {"file": file_path(report, problem, base)}
    if problem.line is not None:
        properties["line"] = str(problem.line)
    properties["title"] = f"{problem.rule} {known.slug}"
    where = place(problem)
    lines = [f"{where}: {problem.message}" if where else problem.message, f"Wanted: {known.text}"]
    if problem.cure:
        lines.append(f"Mend: {problem.cure}")
    return command(problem.severity, properties, "\n".join(lines))


def command(name: str, properties: dict[str, str], message: str) -> str:
    r"""Return a workflow command, escaped as its reader undoes it.

    >>> command("error", {"file": "a,b", "line": "3"}, "50 % of\nit")
    '::error file=a%2Cb,line=3::50 %25 of%0Ait'
    """
    members = ",".join(f"{key}={_property(value)}" for key, value in properties.items())
    return f"::{name} {members}::{_data(message)}"


def _data(text: str) -> str:
    """Escape a message."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """Escape the value of a property."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")
