"""A validator that lacks one check fails the corpus: each is taken away, and a case tells."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import pytest

from blackboxml.conformance.case import Case, load
from blackboxml.conformance.compare import compare_validate
from blackboxml.conformance.library import judge
from blackboxml.errors import Findings, Problem
from blackboxml.validation import proof, rules
from blackboxml.validation.catalogue import rules as catalogue
from blackboxml.validation.subject import RULES
from tests.corpus.bases import FIXTURES
from tests.corpus.missing import STAND_FOR, breaks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from blackboxml.validation.subject import Subject

CASES = load(FIXTURES)
UNENDED = [case for case in CASES if case.expect["verdict"] == "incomplete"][:1]
CHECKABLE = [rule.id for rule in catalogue() if rule.checked != "behaviour"]


@cache
def cases_of(rule: str) -> list[Case]:
    """Return the cases in which a rule has to be found broken, the smallest first."""
    found = [case for case in CASES if breaks(case, rule) and "generate" not in case.overlay]
    found += [case for case in CASES if breaks(case, rule) and "generate" in case.overlay]
    return sorted(found, key=lambda case: (case.rule != rule, len(case.expect["findings"])))


def fails(cases: list[Case], folder: Path) -> bool:
    """Tell whether a case does not come out as it has to."""
    for number, case in enumerate(cases):
        run = folder / str(number)
        case.build(run)
        try:
            if compare_validate(case.expect, judge(run)):
                return True
        except Exception:  # noqa: BLE001 - a check that is gone may leave the next without a need
            return True
    return False


@pytest.mark.parametrize("rule", CHECKABLE)
def test_a_validator_that_does_not_report_a_rule_fails(
    rule: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dropped = STAND_FOR.get(rule, (rule,))
    append = Findings.append

    def append_others(self: Findings, problem: Problem) -> None:
        if not problem.rule.startswith(dropped):
            append(self, problem)

    monkeypatch.setattr(Findings, "append", append_others)
    assert fails(cases_of(rule)[:1], tmp_path)


@pytest.mark.parametrize("check", rules.CHECKS, ids=lambda check: check.__name__)
def test_a_validator_without_a_check_fails(
    check: Callable[[Subject], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(proof, "prove", lambda directory: None)
    left = tuple(each for each in rules.CHECKS if each is not check)
    monkeypatch.setattr(rules, "CHECKS", left)
    several = [case for rule in sorted(RULES[check]) for case in cases_of(rule)]
    assert fails(several or UNENDED, tmp_path)


@pytest.mark.parametrize("folder", ["invalid", "warn", "hostile", "future"])
def test_a_validator_that_finds_nothing_fails_every_case_with_a_finding(folder: str) -> None:
    nothing = {"verdict": "valid", "findings": []}
    for case in CASES:
        if case.name.startswith(folder) and case.expect["findings"]:
            assert compare_validate(case.expect, nothing), case.name
