"""What the catalogue calls mended is mended: each broken run of the corpus, and what is said of it.

A finding of such a rule tells its reader to run `blackbox repair`. That has to give a valid run, in
which everything is that could be read before, and which states what is gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from blackboxml import open_run, validate
from blackboxml.conformance.case import Case, load
from blackboxml.conformance.library import read
from blackboxml.errors import BlackboxError
from blackboxml.repair import repair
from blackboxml.validation.catalogue import rule
from tests.corpus.bases import FIXTURES
from tests.corpus.test_corpus import files

if TYPE_CHECKING:
    from pathlib import Path

Place = tuple[int, int, int]
MOST = 1000
"""More records than an attempt of a base has."""


def is_to_be_mended(case: Case) -> bool:
    """Tell whether all that is wrong in a case is called mended."""
    wrong = [each["rule"] for each in case.expect["findings"] if each["severity"] == "error"]
    about = rule(case.rule).mended and case.name.startswith("torn/")
    return bool(about or wrong) and all(rule(each).mended for each in wrong)


CASES = [case for case in load(FIXTURES) if is_to_be_mended(case)]


def records(path: Path) -> dict[Place, Any]:
    """Return what a reader gives, by attempt, rank and `seq`; nothing if it gives nothing."""
    try:
        found = list(open_run(path).records("all"))
    except BlackboxError:
        return {}
    return {(each.attempt, each.rank, each.seq): repr(each) for each in found}


def stated(path: Path) -> set[Place]:
    """Return which records a reader says are lost, as far as a base could have had them."""
    try:
        lost = read(path).get("lost", [])
    except BlackboxError:
        return set()
    return {
        (loss["attempt"], loss["rank"], seq)
        for loss in lost
        for seq in range(int(loss["first"]), min(int(loss["last"]), MOST) + 1)
    }


def test_there_are_cases_of_nearly_every_mended_rule() -> None:
    assert len({case.rule for case in CASES}) > 70


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_called_mended_is_mended(case: Case, tmp_path: Path) -> None:
    damaged, mended = tmp_path / "damaged", tmp_path / "mended"
    case.build(damaged)
    before, readable = files(damaged), records(damaged)
    report = repair(damaged, mended, force=True)
    assert files(damaged) == before
    assert validate(mended).verdict == "valid"
    assert report.actions
    found = records(mended)
    assert {place: found.get(place) for place in readable} == readable
    missing = records(case.base).keys() - found.keys()
    last = {place[:2]: place for place in sorted(found)}
    known = {place for place in missing if place < last.get(place[:2], ())}
    known |= missing & stated(damaged)  # what came last may be gone without a trace
    assert known <= stated(mended)
    assert report.lossy or not known
