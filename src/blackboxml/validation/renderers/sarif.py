"""SARIF 2.1.0, which code scanning reads: the rules that are broken, and each finding as a result.

A finding in a run is placed by the path of its file. Verdicts that no finding explains, and runs
that could not be read, are notifications of the invocation.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from blackboxml.validation.catalogue import rule
from blackboxml.validation.renderers import file_path, run_path
from blackboxml.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from blackboxml.errors import Problem
    from blackboxml.validation.report import Report

_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"
_SITE: Final = "https://blackboxml.org/"
_LEVELS: Final = {"unreadable": "error", "unsupported": "error", "incomplete": "note"}


def render(reports: Sequence[Report], base: Path) -> str:
    """Return the reports as one document."""
    broken = sorted({problem.rule for report in reports for problem in report.problems})
    places = {name: at for at, name in enumerate(broken)}
    results = [
        _result(report, problem, places[problem.rule], base)
        for report in reports
        for problem in report.problems
    ]
    invocation: dict[str, Any] = {"executionSuccessful": True}
    notes = [_note(report, base) for report in reports if report.reason is not None]
    if notes:
        invocation["toolExecutionNotifications"] = notes
    driver = {
        "name": "blackbox validate",
        "version": __version__,
        "semanticVersion": __version__,
        "informationUri": _SITE,
        "rules": [_rule(name) for name in broken],
    }
    document = {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": driver},
                "invocations": [invocation],
                "originalUriBaseIds": {
                    "SRCROOT": {"description": {"text": "the working directory"}}
                },
                "columnKind": "utf16CodeUnits",
                "results": results,
                "properties": {
                    "verdicts": {run_path(report, base): report.verdict for report in reports}
                },
            }
        ],
    }
    return json.dumps(document, indent=2) + "\n"


def _rule(name: str) -> dict[str, Any]:
    """Return a rule as SARIF describes one."""
    known = rule(name)
    return {
        "id": known.id,
        "name": "".join(part.capitalize() for part in known.slug.split("-")),
        "shortDescription": {"text": known.slug.replace("-", " ")},
        "fullDescription": {"text": known.text},
        "help": {"text": f"{known.text}\n\nblackbox rules {known.id} says more."},
        "helpUri": f"{_SITE}spec/1.0/{known.chapter}",
        "defaultConfiguration": {"level": "error" if known.absolute else "warning"},
        "properties": {"tags": sorted({known.chapter, known.applies_to, known.checked})},
    }


def _result(report: Report, problem: Problem, at: int, base: Path) -> dict[str, Any]:
    """Return a finding."""
    path = file_path(report, problem, base)
    text = problem.message if problem.cure is None else f"{problem.message}\nMend: {problem.cure}"
    physical: dict[str, Any] = {"artifactLocation": _artifact(path)}
    region = {"startLine": problem.line, "byteOffset": problem.offset}
    region = {key: value for key, value in region.items() if value is not None}
    if region:
        physical["region"] = region
    location: dict[str, Any] = {"physicalLocation": physical}
    if problem.pointer:
        location["logicalLocations"] = [
            {"fullyQualifiedName": problem.pointer, "kind": "member"},
        ]
    members = {"run": run_path(report, base), "file": problem.file, "cure": problem.cure}
    identity = "\0".join(
        map(str, (problem.rule, path, problem.line, problem.pointer, problem.message))
    )
    return {
        "ruleId": problem.rule,
        "ruleIndex": at,
        "level": problem.severity,
        "message": {"text": text},
        "locations": [location],
        "partialFingerprints": {
            "blackboxFinding/v1": hashlib.sha256(identity.encode()).hexdigest()[:32]
        },
        "properties": {key: value for key, value in members.items() if value},
    }


def _note(report: Report, base: Path) -> dict[str, Any]:
    """Return why a run is neither valid nor invalid."""
    path = run_path(report, base)
    return {
        "level": _LEVELS.get(report.verdict, "note"),
        "message": {"text": f"{report.verdict}: {report.reason}"},
        "locations": [{"physicalLocation": {"artifactLocation": _artifact(path)}}],
        "descriptor": {"id": report.verdict},
    }


def _artifact(path: str) -> dict[str, str]:
    """Return a path as a URI, relative to the base where it is below it."""
    uri = quote(path, safe="/-._~")
    if path.startswith("/"):
        return {"uri": f"file://{uri}"}
    return {"uri": uri, "uriBaseId": "SRCROOT"}
