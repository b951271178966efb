"""A slice of `make torture-kills` and `make torture-calls`; bad writers are found out."""

from __future__ import annotations

import sys

import pytest

from tests.torture import calls, kills
from tests.torture.scenarios import SCENARIOS, WORK
from tests.torture.trials import VARIANTS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="shim.c is preloaded as on Linux")

KILLS = 30
POINTS = 45


def test_processes_killed_at_random_lose_nothing_acknowledged() -> None:
    tally = kills.campaign(20261121, KILLS)
    assert not tally.failures
    assert sum(tally.counts.values()) == KILLS
    assert tally.ends["killed"] > KILLS / 2


def test_system_calls_that_fail_cost_nothing_silently() -> None:
    tally, labels = calls.campaign(limit=POINTS, seed=20261121, names=WORK)
    assert not [(labels[number], what) for number, _, what in tally.failures]
    assert sum(tally.counts.values()) == POINTS
    assert len(labels) > 10_000


@pytest.mark.parametrize(
    ("variant", "name", "count"),
    [("buffered", "log", 30), ("in-place", "finish", 30), ("trusting", "catalogue", 6)],
)
def test_a_bad_library_that_is_killed_is_found_out(variant: str, name: str, count: int) -> None:
    assert kills.campaign(1, count, names=[name], variant=variant).failures


def test_a_writer_that_takes_no_notice_of_errors_is_found_out() -> None:
    tally, _ = calls.campaign(
        names=["log"], faults=["enospc"], variant="forgiving", limit=20, seed=1
    )
    assert any("acknowledged" in what for _, _, what in tally.failures)


@pytest.mark.parametrize("variant", ["", "blaming"])
def test_who_takes_what_is_refused_for_damage_is_found_out(variant: str) -> None:
    tally, _ = calls.campaign(
        names=["read"], faults=["eio-reading"], variant=variant, limit=20, seed=1
    )
    found = [what for _, _, what in tally.failures]
    if variant:
        assert any("found invalid" in what for what in found)
    else:
        assert not found


@pytest.mark.parametrize("variant", ["", "blaming"])
def test_who_imports_a_part_of_a_source_for_the_whole_is_found_out(variant: str) -> None:
    tally, _ = calls.campaign(
        names=["import-tensorboard"], faults=["eio-reading"], variant=variant, limit=15, seed=1
    )
    assert bool(tally.failures) == bool(variant), tally.failures


def test_each_variant_is_tried() -> None:
    assert VARIANTS.keys() == {"blaming", "buffered", "in-place", "forgiving", "trusting"}
    assert len(WORK) >= 17
    assert len(SCENARIOS) - len(WORK) >= 15
