"""A slice of `make torture-hostile`; libraries that are known to be bad are found out."""

from __future__ import annotations

import sys

import pytest

from tests.torture import hostile
from tests.torture.attacks import run_attacks, source_attacks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify tells what is opened")

NAMES = [*run_attacks(), *source_attacks()]
SLICE = ["link as run.json", "pipe as train.parquet", "dataset: external storage"]


def test_attacks_reach_nothing_and_execute_nothing() -> None:
    tally = hostile.campaign(20261121, [NAMES.index(name) for name in SLICE])
    assert not tally.failures, "\n".join(what for _, what in tally.failures)
    assert sum(tally.counts.values()) == len(SLICE)
    assert tally.told["answered"] + tally.told["refused"] > 30


@pytest.mark.parametrize(
    ("variant", "attack", "said"),
    [
        ("following", "link as metrics.1.jsonl", "it opens secret outside"),
        ("unpickling", "media: pickle", "it does os.system"),
        ("allocating", "5 GiB of metrics.jsonl", "MemoryError"),
    ],
)
def test_a_bad_library_is_found_out(variant: str, attack: str, said: str) -> None:
    number = NAMES.index(attack)
    tally = hostile.campaign(1, [number, number + len(NAMES)], variant=variant, only=["read"])
    assert any(said in what for _, what in tally.failures), tally


def test_attacks_are_many_and_each_is_another() -> None:
    assert len(NAMES) > 300
    assert len(NAMES) == len(set(NAMES)) == hostile.count_attacks()
    assert hostile.VARIANTS.keys() == {"following", "unpickling", "allocating"}
