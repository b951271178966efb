"""The rules of the specification: their catalogue, who checks them, and what shows it."""

from __future__ import annotations

import ast
import json
import re
import shutil
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from blackboxml.validation import catalogue
from blackboxml.validation.rules import CHECKS
from blackboxml.validation.subject import RULES as CHECKED
from spec import rules as generator

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
SPEC = ROOT / "spec" / "1.0"
SOURCE = ROOT / "src" / "blackboxml"
RULES = {rule.id: rule for rule in catalogue.rules()}
BEHAVIOUR = {name for name, rule in RULES.items() if rule.checked == "behaviour"}
CASES = generator.load_cases(ROOT / "fixtures" / "cases")

NOTED = {
    "BB-LAY-006",  # a file whose own name no path of the run can spell
    "BB-LAY-013",  # scratch
    "BB-MAN-013",  # a manifest that is behind its journals
    "BB-MAN-014",  # no manifest
    "BB-CFG-011",  # an unknown tag
    "BB-JNL-011",  # an unknown kind of record
    "BB-MED-010",  # an unknown kind of medium
    "BB-SEA-014",  # SHA256SUMS of before a resume
}
"""Absolute rules by which a validator also reports what breaks none: what a reader lives with."""

UNTESTED = {
    "BB-MAN-017": "a permission that this library makes no use of: such a run is refused",
    "BB-SEC-007": "advice that is left to the caller: a dataset is checked and read in-process",
    "BB-SEC-010": "no program here makes a page",
    "BB-SEC-011": "the CSV that converters write is read by programs, cell by cell",
}
"""Rules of behaviour without a test, and why."""


# ---- the catalogue is what the prose says -------------------------------------------------------


def test_the_catalogue_is_what_the_prose_says() -> None:
    prose = generator.parse()
    assert generator.differences(generator.load(), prose) == {}, "python spec/rules.py"
    assert (SPEC / generator.CATALOGUE).read_text("utf-8") == generator.render(prose)
    assert generator.main([]) == 0


def test_the_library_reads_the_catalogue_as_it_is_published() -> None:
    published = generator.load()
    assert [rule.id for rule in catalogue.rules()] == [rule["id"] for rule in published]
    for rule in published:
        found = catalogue.rule(rule["id"])
        assert {key: getattr(found, key) for key in rule} == rule
        assert found.absolute == (found.level in {"MUST", "MUST NOT"})


def test_a_rule_that_there_is_not_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'BB-JNL-999'"):
        catalogue.rule("BB-JNL-999")


# ---- the generator accepts no change by accident ------------------------------------------------

OLD = "**BB-JNL-004** *crc-matches* (journal; structure; mended) — The `crc` of a line MUST"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SPEC, tmp_path / "spec"))


def edit(folder: Path, old: str, new: str, chapter: str = "journal.md") -> None:
    text = (folder / chapter).read_text("utf-8")
    assert text.count(old) == 1
    (folder / chapter).write_text(text.replace(old, new), "utf-8")


def accepted(folder: Path) -> dict[str, dict[str, Any]]:
    return {rule["id"]: rule for rule in generator.load(folder)}


@pytest.mark.parametrize(
    "new",
    [
        OLD.replace("a line MUST", "each line MUST"),
        OLD.replace("MUST", "SHOULD"),
        OLD.replace("; mended", ""),
        OLD.replace("structure", "integrity"),
        OLD.replace("(journal;", "(writer;"),
        OLD.replace("crc-matches", "crc-equal"),
    ],
)
def test_a_change_of_a_rule_has_to_be_accepted_by_its_id(
    folder: Path, new: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (folder / "rules.json").read_bytes()
    edit(folder, OLD, new)
    assert generator.main([], folder) == 1
    assert "BB-JNL-004" in capsys.readouterr().out
    assert generator.main(["--accept", "BB-JNL-003"], folder) == 1
    assert (folder / "rules.json").read_bytes() == before
    assert generator.main(["--accept", "BB-JNL-004"], folder) == 0
    assert (folder / "rules.json").read_bytes() != before
    assert generator.main([], folder) == 0


def test_the_steps_that_a_rule_speaks_of_are_part_of_it(folder: Path) -> None:
    text = accepted(folder)["BB-MRG-013"]["text"]
    assert text.splitlines()[2].startswith("2. After a metrics record of step *s*")
    edit(folder, "given or automatic, it is *s* + 1.", "it is *s* + 2.", "merge.md")
    assert list(generator.differences(generator.load(folder), generator.parse(folder))) == [
        "BB-MRG-013"
    ]


def test_wrapping_and_links_are_no_change(folder: Path) -> None:
    edit(folder, OLD, OLD.replace(" — ", " —\n"))
    edit(folder, "rules of [liveness](liveness.md).", "rules of\nliveness.", "layout.md")
    assert generator.main([], folder) == 0


def test_one_change_is_accepted_without_the_other(folder: Path) -> None:
    before = accepted(folder)
    edit(folder, OLD, OLD.replace("MUST", "SHOULD"))
    edit(folder, "*line-length* (journal; schema; mended)", "*line-length* (journal; schema)")
    assert generator.main(["--accept", "BB-JNL-002"], folder) == 1
    after = accepted(folder)
    assert after["BB-JNL-002"]["mended"] is False
    assert after["BB-JNL-004"] == before["BB-JNL-004"]
    assert list(after) == list(before)
    assert generator.main(["--accept", "all"], folder) == 0
    assert accepted(folder)["BB-JNL-004"]["level"] == "SHOULD"


def test_a_rule_that_is_gone_or_new_has_to_be_accepted(folder: Path) -> None:
    before = accepted(folder)
    edit(folder, OLD, OLD.replace("JNL-004", "JNL-099"))
    assert generator.main([], folder) == 1
    assert generator.main(["--accept", "BB-JNL-004"], folder) == 1
    assert set(accepted(folder)) == set(before) - {"BB-JNL-004"}
    assert generator.main(["--accept", "BB-JNL-099"], folder) == 0
    assert set(accepted(folder)) == set(before) - {"BB-JNL-004"} | {"BB-JNL-099"}


@pytest.mark.parametrize(
    "new",
    [
        OLD.replace("structure", "sometimes"),
        OLD.replace("(journal;", "(line;"),
        OLD.replace(" (journal; structure; mended)", ""),
        OLD.replace("MUST", "must"),
        OLD.replace("MUST", "MUST, and MAY,"),
        OLD.replace("JNL", "MAN"),
        OLD.replace("JNL-004", "JNL-005"),
        OLD.replace("crc-matches", "crc-last"),
    ],
)
def test_what_only_looks_like_a_rule_is_an_error(
    folder: Path, new: str, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(folder, OLD, new)
    assert generator.main(["--accept", "all"], folder) == 1
    assert "journal.md: " in capsys.readouterr().err


def test_a_chapter_that_is_listed_and_missing_is_an_error(folder: Path) -> None:
    (folder / "media.md").unlink()
    assert generator.main([], folder) == 1


def test_a_change_that_is_none_is_said_to_be_none(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generator.main(["--accept", "BB-JNL-004"], folder) == 1
    assert "BB-JNL-004" in capsys.readouterr().err


def test_a_catalogue_that_was_edited_by_hand_is_noticed(folder: Path) -> None:
    path = folder / "rules.json"
    path.write_text(path.read_text("utf-8").replace("\n", "\r\n"), "utf-8", newline="")
    assert generator.main([], folder) == 1
    assert generator.main(["--accept", "all"], folder) == 0
    assert generator.main([], folder) == 0


# ---- the validator checks what can be checked ---------------------------------------------------


def constants(path: Path) -> Iterator[str]:
    """The identifiers of rules that a module has as values."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from re.findall(r"\ABB-[A-Z]{3}-[0-9]{3}\Z", node.value)


def test_every_rule_that_the_source_names_is_in_the_catalogue() -> None:
    named = {name for path in SOURCE.rglob("*.py") for name in constants(path)}
    assert named
    assert named <= RULES.keys()


@pytest.mark.rule("BB-VAL-004")
def test_what_is_found_in_a_run_is_never_a_rule_of_behaviour() -> None:
    # A repair says why it does what it does: it may name a rule of behaviour.
    sources = [path for path in SOURCE.rglob("*.py") if "repair" not in path.parts]
    named = {name: path for path in sources for name in constants(path)}
    assert not {name: named[name] for name in named.keys() & BEHAVIOUR}


def test_every_rule_that_files_can_show_has_a_check_and_no_other_has_one() -> None:
    assert set(CHECKED) == set(CHECKS)
    checked = {name for check in CHECKED.values() for name in check}
    assert checked == RULES.keys() - BEHAVIOUR


def test_each_check_says_how_its_rules_are_checked_as_the_prose_does() -> None:
    wrong = {
        (check.__name__, name): how
        for check, rules in CHECKED.items()
        for name, how in rules.items()
        if how != RULES[name].checked
    }
    assert not wrong


# ---- the corpus shows it ------------------------------------------------------------------------


def test_the_corpus_has_a_case_and_a_neighbour_for_every_rule_that_files_can_show() -> None:
    assert generator.uncovered(generator.load(), CASES) == []


def test_what_a_corpus_lacks_is_told() -> None:
    def case(verdict: str, rule: str, *found: str) -> dict[str, Any]:
        findings = [{"rule": each} for each in found]
        return {"rule": rule, "expect": {"verdict": verdict, "findings": findings}}

    rules = [rule for rule in generator.load() if rule["id"] in {"BB-JNL-004", "BB-JNL-023"}]
    whole = [case("invalid", "BB-JNL-004", "BB-JNL-004"), case("valid", "BB-JNL-004")]
    assert generator.uncovered(rules, whole) == []
    no_case = "BB-JNL-004 crc-matches: no case breaks it"
    no_neighbour = "BB-JNL-004 crc-matches: no valid case is its neighbour"
    assert generator.uncovered(rules, []) == [no_case, no_neighbour]
    assert generator.uncovered(rules, whole[:1]) == [no_neighbour]
    assert generator.uncovered(rules, whole[1:]) == [no_case]
    other = [case("invalid", "BB-JNL-004", "BB-JNL-003"), case("valid", "BB-JNL-003")]
    assert generator.uncovered(rules, other) == [no_case, no_neighbour]
    wrong = [whole[0], case("invalid", "BB-JNL-004", "BB-JNL-003")]
    assert generator.uncovered(rules, wrong) == [no_neighbour]


def test_the_cases_name_rules_that_there_are() -> None:
    assert CASES
    named = {case["rule"] for case in CASES}
    named |= {finding["rule"] for case in CASES for finding in case["expect"]["findings"]}
    assert named <= RULES.keys()
    assert not named & BEHAVIOUR - {case["rule"] for case in CASES}


@pytest.mark.rule("BB-VAL-006")
def test_the_level_of_a_rule_decides_how_severe_its_findings_are() -> None:
    found = {
        (finding["rule"], finding["severity"])
        for case in CASES
        for finding in case["expect"]["findings"]
    }
    errors = {name for name, severity in found if severity == "error"}
    warnings = {name for name, severity in found if severity == "warning"}
    advice = {name for name, rule in RULES.items() if not rule.absolute}
    assert not errors & advice
    assert warnings - advice == NOTED


OF_LINES = {
    *(name for name in RULES if name.startswith(("BB-JNL-", "BB-GRP-00"))),
    *(f"BB-MED-{number:03}" for number in (1, 3, 5, 6, 9, 10, 12)),
} - {
    "BB-JNL-010",  # also said of a journal that goes on after another has ended
    *(f"BB-GRP-{number:03}" for number in range(4, 9)),  # of the manifest and sealed files
}
"""Rules of a line of a journal: whoever breaks one does so on a line."""

OF_WHOLE_RUNS = {"BB-SEA-009", "BB-MRG-001"}
"""Rules of a packed run that no single file breaks."""


@pytest.mark.rule("BB-VAL-005")
def test_every_finding_of_the_corpus_names_its_place() -> None:
    for case in CASES:
        for finding in case["expect"]["findings"]:
            place = case["slug"], finding
            assert finding.get("file") or finding["rule"] in OF_WHOLE_RUNS, place
            if finding["rule"] in OF_LINES:
                assert {"line", "offset"} & finding.keys(), place
            if finding["rule"] == "BB-MAN-006" and finding["file"] == "run.json":
                assert "pointer" in finding, place


# ---- tests of programs hold the rest ------------------------------------------------------------


def marks() -> dict[str, set[str]]:
    """The tests that name a rule they prove, by rule."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not (isinstance(node, ast.FunctionDef) and node.name.startswith("test_")):
                continue
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.rule":
                    for name in mark.args:
                        found[ast.literal_eval(name)].add(f"{path.name}::{node.name}")
    return found


def test_tests_prove_rules_of_behaviour_alone() -> None:
    # What files can show is shown by the corpus.
    assert not {name: tests for name, tests in marks().items() if name not in BEHAVIOUR}


def test_every_rule_of_behaviour_has_a_test_that_proves_it() -> None:
    assert BEHAVIOUR - marks().keys() == UNTESTED.keys()
    assert all(len(reason) > 20 for reason in UNTESTED.values())


def test_the_coverage_is_whole() -> None:
    """Every rule is either shown by cases or proved by a test."""
    shown = {case["rule"] for case in CASES} & (RULES.keys() - BEHAVIOUR)
    proved = marks().keys() & BEHAVIOUR
    assert len(shown) + len(proved) + len(UNTESTED) == len(RULES)
    assert json.loads((SPEC / "rules.json").read_bytes())["format"] == generator.FORMAT
