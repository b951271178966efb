"""JUnit XML, which test reports are made from: a suite for each run, a case for each rule.

The rules that a run has nothing to do with are left out. A case fails by its errors; what are only
warnings stand in its output. The first case is the verdict: it is skipped where the run has not
ended, and an error where it could not be read.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree as ET

from blackboxml.validation.catalogue import rule
from blackboxml.validation.renderers import file_path, place, run_path
from blackboxml.validation.report import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from blackboxml.errors import Problem
    from blackboxml.validation.report import Report

_FAILED: Final = Outcome("failed")

# What XML 1.0 cannot hold, not even escaped.
_UNFIT: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(reports: Sequence[Report], base: Path) -> str:
    """Return the reports as one document."""
    top = ET.Element("testsuites", name="blackbox validate")
    for report in reports:
        _add_suite(top, report, base)
    for count in ("tests", "failures", "errors", "skipped"):
        top.set(count, str(sum(int(suite.get(count, "0")) for suite in top)))
    ET.indent(top)
    return ET.tostring(top, encoding="unicode", xml_declaration=False) + "\n"


def _add_suite(top: ET.Element, report: Report, base: Path) -> None:
    """Add a run."""
    path = run_path(report, base)
    suite = ET.SubElement(top, "testsuite", name=fit(path))
    properties = ET.SubElement(suite, "properties")
    for name, value in (("verdict", report.verdict), ("level", report.level)):
        ET.SubElement(properties, "property", name=name, value=value)
    _add_verdict(suite, report, path)
    found: dict[str, list[Problem]] = {}
    for problem in report.problems:
        found.setdefault(problem.rule, []).append(problem)
    for name, outcome in {**dict.fromkeys(found, _FAILED), **report.outcomes}.items():
        if outcome.state != "not_applicable":
            lines = [_line(report, problem, base) for problem in found.get(name, [])]
            _add_case(suite, path, name, outcome, lines)
    counts = {"tests": "testcase", "failures": "*/failure", "errors": "*/error"}
    for count, what in {**counts, "skipped": "*/skipped"}.items():
        suite.set(count, str(len(suite.findall(what))))


def _add_verdict(suite: ET.Element, report: Report, path: str) -> None:
    """Add the case of the run as a whole."""
    case = ET.SubElement(suite, "testcase", classname=fit(path), name="verdict")
    said = fit(f"{report.verdict}: {report.reason}")
    if report.verdict in {"unreadable", "unsupported"}:
        ET.SubElement(case, "error", message=said, type=report.verdict)
    elif report.verdict == "incomplete":
        ET.SubElement(case, "skipped", message=said)


def _add_case(
    suite: ET.Element, path: str, name: str, outcome: Outcome, lines: list[tuple[str, str]]
) -> None:
    """Add the case of a rule."""
    title = f"{name} {rule(name).slug}"
    case = ET.SubElement(suite, "testcase", classname=fit(path), name=title)
    for severity, element in (("error", "failure"), ("warning", "system-out")):
        own = [text for kind, text in lines if kind == severity]
        if not own:
            continue
        told = ET.SubElement(case, element)
        told.text = "\n".join(own)
        if element == "failure":
            told.set("message", own[0].partition(": ")[2])
            told.set("type", severity)
    if outcome.state == "skipped":
        ET.SubElement(case, "skipped", message=fit(str(outcome.why)))


def _line(report: Report, problem: Problem, base: Path) -> tuple[str, str]:
    """Return the severity of a finding, and the finding as one line."""
    where = place(problem)
    path = file_path(report, problem, base)
    found = f"{path} ({where})" if where else path
    cure = f" [mend: {problem.cure}]" if problem.cure else ""
    text = f"{problem.severity}: {found}: {problem.message}{cure}"
    return problem.severity, fit(" ".join(text.splitlines()))


def fit(text: str) -> str:
    """Return text without what XML cannot hold, spelled out instead."""
    return _UNFIT.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
