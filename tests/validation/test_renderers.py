"""Every form carries the same findings: each is parsed back and compared with the reports."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from blackboxml import validate
from blackboxml.base import schema
from blackboxml.cli import findings
from blackboxml.errors import Problem
from blackboxml.validation import Report, catalogue, validate_all
from blackboxml.validation.renderers import RENDERERS, render
from tests.validation import runs

if TYPE_CHECKING:
    from collections.abc import Callable

Found = Counter[tuple[str, str, str, str, str]]
"""Rule, severity, path, place in the file, message."""

HOSTILE = "50% of\r\nit, a:b ::error::x <&>\"']]>"


@pytest.fixture
def reports(
    recorded: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[Report]:
    """Reports of every verdict, and of findings of every form."""
    monkeypatch.chdir(tmp_path)
    copies = {}
    for name, source in recorded.items():
        copies[name] = runs.copy(source, tmp_path).relative_to(tmp_path)
    (copies["sealed"] / "a name, with 50%.txt").touch()
    runs.edit_bytes(copies["sealed"], "metrics.jsonl", lambda data: runs.flipped(data, 500))
    runs.change(copies["ranks"], lambda manifest: manifest["environment"].update(x=1))
    runs.change(copies["ranks"], lambda manifest: manifest.update(duration_seconds=99))
    runs.change(copies["packed"], lambda manifest: manifest["format"].update(version="3.0"))
    with (copies["ended"] / "metrics.jsonl").open("rb+") as journal:
        journal.truncate(copies["ended"].joinpath("metrics.jsonl").stat().st_size - 3)
    runs.change(copies["ended"], unended)
    found = [*validate_all(copies.values(), jobs=1), *validate_all(["nowhere"])]
    problems = [
        Problem("BB-JNL-004", "error", HOSTILE, "metrics.jsonl", 3, 120, None, HOSTILE),
        Problem("BB-VER-011", "warning", HOSTILE, "run.json", pointer="/a~1b/50%,:"),
        Problem("BB-LIM-005", "error", "x"),
    ]
    found.append(Report(Path("made/up"), verdict="invalid", problems=problems))
    assert {each.verdict for each in found} == {
        *("valid", "invalid", "incomplete", "unsupported", "unreadable")
    } - {"valid"} | {each.verdict for each in found if each.verdict == "valid"}
    return found


def unended(manifest: dict[str, Any]) -> None:
    """Make a manifest that of a run that goes on."""
    for holder in (manifest, *manifest["attempts"]):
        holder["status"] = "running"
        for key in ("end", "duration_seconds"):
            holder.pop(key, None)


def place_of(problem: Any) -> str:
    """Line, byte and pointer as text."""
    return f"{problem.get('line', '')}|{problem.get('offset', '')}|{problem.get('pointer', '')}"


def wanted(reports: list[Report]) -> Found:
    return Counter(
        (
            each.rule,
            each.severity,
            f"{report.path}/{each.file}" if each.file else str(report.path),
            "|".join(
                "" if value is None else str(value)
                for value in (each.line, each.offset, each.pointer)
            ),
            each.message,
        )
        for report in reports
        for each in report.problems
    )


def from_json(text: str) -> Found:
    return Counter(
        (
            each["rule"],
            each["severity"],
            f"{report['path']}/{each['file']}" if "file" in each else report["path"],
            place_of(each),
            each["message"],
        )
        for report in json.loads(text)
        for each in report["problems"]
    )


def from_sarif(text: str) -> Found:
    (run,) = json.loads(text)["runs"]
    found: Found = Counter()
    for result in run["results"]:
        (location,) = result["locations"]
        physical = location["physicalLocation"]
        region = physical.get("region", {})
        logical = location.get("logicalLocations", [{}])[0]
        place = {
            "line": region.get("startLine", ""),
            "offset": region.get("byteOffset", ""),
            "pointer": logical.get("fullyQualifiedName", ""),
        }
        message = result["message"]["text"]
        if "cure" in result["properties"]:
            message = message.removesuffix(f"\nMend: {result['properties']['cure']}")
        rule = run["tool"]["driver"]["rules"][result["ruleIndex"]]
        assert rule["id"] == result["ruleId"]
        uri = unquote(physical["artifactLocation"]["uri"])
        found[result["ruleId"], result["level"], uri, place_of(place), message] += 1
    return found


LINE = re.compile(
    r"(?P<severity>error|warning): (?P<path>.*?)(?: \((?P<place>(?:line|byte|at) [^)]*)\))?: "
    r"(?P<message>.*?)(?: \[mend: (?P<cure>.*)\])?"
)


def from_place(text: str | None) -> str:
    """`line 3, byte 120` as `3|120|`."""
    parts = {"line": "", "byte": "", "at": ""}
    for part in (text or "").split(", ", 2):
        word, _, value = part.partition(" ")
        if word in parts:
            parts[word] = value
    return "|".join(parts.values())


def from_junit(text: str) -> Found:
    found: Found = Counter()
    for case in ET.fromstring(text).iter("testcase"):
        for told in (*case.iter("failure"), *case.iter("system-out")):
            for line in str(told.text).split("\n"):
                match = LINE.fullmatch(line)
                assert match is not None, line
                assert (told.tag == "failure") == (match["severity"] == "error")
                name = str(case.get("name")).partition(" ")[0]
                place = from_place(match["place"])
                found[name, match["severity"], match["path"], place, match["message"]] += 1
    return found


COMMAND = re.compile(r"::(?P<command>error|warning|notice) (?P<properties>[^:]*)::(?P<data>.*)")


def unescaped(text: str) -> str:
    for code, character in (("%2C", ","), ("%3A", ":"), ("%0A", "\n"), ("%0D", "\r")):
        text = text.replace(code, character)
    return text.replace("%25", "%")


def from_github(text: str) -> Found:
    found: Found = Counter()
    for line in text.splitlines():
        match = COMMAND.fullmatch(line)
        assert match is not None, line
        pairs = (each.partition("=") for each in match["properties"].split(","))
        properties = {key: unescaped(value) for key, _, value in pairs}
        rule = properties["title"].partition(" ")[0]
        if not rule.startswith("BB-"):
            continue
        said = unescaped(match["data"]).rpartition("\nWanted: ")[0]
        place = re.match(r"((?:(?:line|byte) \d+(?:, )?)*(?:at [^ ]*)?): ", said)
        message = said[place.end() :] if place and place[1] else said
        where = from_place(place[1] if place else "")
        assert properties.get("line", "") == where.split("|")[0]
        found[rule, match["command"], properties["file"], where, message] += 1
    return found


PARSERS: dict[str, Callable[[str], Found]] = {
    "json": from_json,
    "sarif": from_sarif,
    "junit": from_junit,
    "github": from_github,
}


def flat(found: Found) -> Found:
    """Findings whose messages are on one line."""
    return Counter({(*key[:4], " ".join(key[4].splitlines())): found[key] for key in found})


def test_there_is_a_parser_of_every_form() -> None:
    assert set(PARSERS) == set(RENDERERS)
    with pytest.raises(ValueError, match="the forms are json, sarif, junit, github"):
        render("html", [])


@pytest.mark.rule("BB-VAL-005")
@pytest.mark.parametrize("form", RENDERERS)
def test_every_form_carries_the_same_findings(reports: list[Report], form: str) -> None:
    found, known = PARSERS[form](render(form, reports)), wanted(reports)
    assert known.total() > 8
    if form == "junit":
        found, known = flat(found), flat(known)
    assert found == known


def test_text_carries_the_same_findings(reports: list[Report]) -> None:
    for report in reports:
        screen = Console(file=io.StringIO(), width=100_000, color_system=None)
        screen.print(findings.run_text(report, Path.cwd()))
        text = screen.file.getvalue()  # type: ignore[attr-defined]
        blocks = [block.splitlines() for block in text.split("\n\n")[1:] if block.strip()]
        told: Counter[tuple[str, str, str]] = Counter()
        for block in blocks:
            severity, rule, _ = block[1].split()
            said = "".join(line[4:] for line in block[2:]).removeprefix("found")
            message = re.split("(?:wanted|mend) {2,4}", said)[0]
            told[rule, severity, "".join(message.split())] += 1
        assert told == Counter(
            (each.rule, each.severity, "".join(findings.safe(each.message).split()))
            for each in report.problems
        )


@pytest.mark.parametrize("form", RENDERERS)
def test_every_form_tells_why_nothing_is_decided(reports: list[Report], form: str) -> None:
    text = render(form, reports)
    for report in reports:
        if report.reason is not None:
            assert report.reason.split(":")[0].split()[0] in text
            assert report.verdict in text


def test_json_keeps_its_schema(reports: list[Report]) -> None:
    for document in json.loads(render("json", reports)):
        schema.validator("validation-report").validate(document)
    (report,) = json.loads(render("json", reports[:1]))
    assert report["outcomes"].keys() == {
        rule.id for rule in catalogue.rules() if rule.checked != "behaviour"
    }


def test_sarif_is_what_code_scanning_asks_for(reports: list[Report]) -> None:
    document = json.loads(render("sarif", reports))
    assert document["version"] == "2.1.0"
    assert document["$schema"].endswith("sarif-2.1.0.json")
    (run,) = document["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"]
    assert len({rule["id"] for rule in driver["rules"]}) == len(driver["rules"])
    for rule in driver["rules"]:
        assert rule["defaultConfiguration"]["level"] in {"error", "warning"}
        assert rule["shortDescription"]["text"]
        assert len(set(rule["properties"]["tags"])) == len(rule["properties"]["tags"])
        assert rule["fullDescription"]["text"]
        assert re.fullmatch("[A-Z][A-Za-z0-9]+", rule["name"])
    for result in run["results"]:
        assert result["level"] in {"error", "warning"}
        physical = result["locations"][0]["physicalLocation"]
        assert re.fullmatch(r"[A-Za-z0-9._~/%-]+", physical["artifactLocation"]["uri"])
        assert physical["artifactLocation"]["uriBaseId"] in run["originalUriBaseIds"]
        assert physical.get("region", {"startLine": 1}).get("startLine", 1) >= 1
    (invocation,) = run["invocations"]
    told = [each["descriptor"]["id"] for each in invocation["toolExecutionNotifications"]]
    assert told == [report.verdict for report in reports if report.reason is not None]


def test_a_path_outside_of_the_base_is_told_whole(tmp_path: Path, sealed: Path) -> None:
    report = validate(sealed)
    report.problems.append(Problem("BB-LIM-005", "error", "x", "a b"))
    text = render("sarif", [report], tmp_path / "elsewhere")
    (result,) = json.loads(text)["runs"][0]["results"]
    location = result["locations"][0]["physicalLocation"]["artifactLocation"]
    assert location == {"uri": f"file://{sealed}/a%20b"}
    assert f"file={sealed}/a b," in render("github", [report], tmp_path / "elsewhere")
    assert "file=a b," in render("github", [report], sealed)


def test_junit_counts_what_it_holds(reports: list[Report]) -> None:
    top = ET.fromstring(render("junit", reports))
    assert len(top) == len(reports)
    for suite, report in zip(top, reports, strict=True):
        cases = suite.findall("testcase")
        assert int(str(suite.get("tests"))) == len(cases)
        assert int(str(suite.get("failures"))) == len(suite.findall("testcase/failure"))
        assert all(len(case.findall("failure")) <= 1 for case in cases)
        errors = report.verdict in {"unreadable", "unsupported"}
        assert int(str(suite.get("errors"))) == errors
        states = Counter(each.state for each in report.outcomes.values())
        rules = {*report.outcomes, *(each.rule for each in report.problems)}
        assert len(cases) == 1 + len(rules) - states["not_applicable"]
        skipped = states["skipped"] + (report.verdict == "incomplete")
        assert int(str(suite.get("skipped"))) == skipped
    for count in ("tests", "failures", "errors", "skipped"):
        assert int(str(top.get(count))) == sum(int(str(suite.get(count))) for suite in top)


def test_what_xml_cannot_hold_is_spelled_out(tmp_path: Path) -> None:
    problem = Problem("BB-LIM-005", "error", "a\x00b\x1b[31m\ud800\uffffc")
    outcome = validate_all(["nowhere"])
    report = next(iter(outcome))
    report = Report(tmp_path / "a\x01", "full", "invalid", None, [problem], report.outcomes)
    text = render("junit", [report])
    assert ET.fromstring(text).find("testsuite") is not None
    assert "a\\x00b\\x1b[31m\\ud800\\uffffc" in text


@pytest.mark.parametrize("form", RENDERERS)
def test_no_reports_are_a_document_too(form: str) -> None:
    assert PARSERS[form](render(form, [])) == Counter()
