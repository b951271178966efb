"""A slice of `make torture-concurrency`; libraries that are known to be bad are found out."""

from __future__ import annotations

import sys

import pytest

from tests.torture import concurrency
from tests.torture.plots import PLOTS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked as on Linux")

SLICE = 6


def test_threads_and_processes_at_one_run_do_each_other_no_harm() -> None:
    tally = concurrency.campaign(20261121, range(SLICE))
    assert not tally.failures, "\n".join(what for _, what in tally.failures)
    assert sum(tally.counts.values()) == SLICE
    assert tally.told["records"] > 500
    assert tally.told["answers"] >= 2 * 4  # in the end, of four readers; more if there was time


@pytest.mark.parametrize("variant", concurrency.VARIANTS)
def test_a_bad_library_is_found_out(variant: str) -> None:
    plot = concurrency.VARIANTS[variant][0]
    tally = concurrency.campaign(1, range(4), names=[plot], variant=variant)
    assert tally.failures


def test_each_plot_is_drawn() -> None:
    drawn = {concurrency.draw(20261121, number, tuple(PLOTS))[0] for number in range(60)}
    assert drawn == set(PLOTS)
