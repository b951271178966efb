"""A slice of the mutants of `make torture-mutants`, and proof that a bad validator is found out."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.torture.mutants import Plan, bits_of, campaign, describe
from tests.torture.subjects import BASES
from tests.torture.variants import VARIANTS

if TYPE_CHECKING:
    from pathlib import Path

SLICE = 200


def test_no_mutant_fools_the_validator_or_surprises_the_reader() -> None:
    plan = Plan(seed=20261121)
    outcome = campaign(plan, SLICE)
    assert not outcome.failures, "\n".join(describe(plan, each) for each in outcome.failures)
    assert sum(outcome.counts.values()) == SLICE
    assert outcome.counts.keys() == {path.name for path in BASES.iterdir()} | {"unchanged"}


def test_a_flip_of_any_bit_of_a_sealed_run_is_noticed() -> None:
    plan = Plan(bits="sealed", stride=1999)
    count = -(-bits_of(BASES / "sealed") // plan.stride)
    outcome = campaign(plan, count)
    assert not outcome.failures, "\n".join(describe(plan, each) for each in outcome.failures)
    assert outcome.counts == {"sealed": count}


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of one base, so that a variant comes upon what it misses soon."""
    place = tmp_path_factory.mktemp("bases")
    for name in ("minimal", "sealed"):
        shutil.copytree(BASES / name, place / name / name)
    return place


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_bad_validator_is_found_out(few: Path, variant: str) -> None:
    base = few / ("sealed" if variant == "no-digests" else "minimal")
    count = 20 if variant == "dying" else 120
    outcome = campaign(Plan(bases=str(base), variant=variant), count)
    assert outcome.failures
    said = {"raising": "validate raised KeyError", "dying": "the process ends with 70"}
    wanted = said.get(variant, "nothing was found")
    assert any(each["what"].startswith(wanted) for each in outcome.failures)


def test_a_campaign_goes_on_where_it_was(few: Path, tmp_path: Path) -> None:
    plan, log = Plan(bases=str(few / "minimal")), tmp_path / "log"
    campaign(plan, 40, log=log, chunk=20)
    first = log.read_text()
    outcome = campaign(plan, 60, log=log, chunk=20)
    assert log.read_text().startswith(first)
    assert log.read_text().count("\n") == 3
    assert sum(outcome.counts.values()) == 60
