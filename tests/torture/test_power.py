"""Power cuts, on a disk that is as forgetful as POSIX lets it be, and bad writers are found out.

`make torture-power` does it on real file systems.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.torture import power, syncs

if TYPE_CHECKING:
    from pathlib import Path

CUTS = 80


def found(scratch: Path, count: int, variant: str = "") -> list[str]:
    faults = []
    drawn = syncs.states(scratch, 20261121, count, variant)
    for number, (place, stage, records) in enumerate(drawn):
        try:
            fault = power.check(place, stage, records, sealing=number % 10 == 0)
        except Exception as error:  # noqa: BLE001 - a state that cannot be looked at is a finding
            fault = f"{type(error).__name__}: {error}"
        if fault is not None:
            faults.append(f"state {number}, {stage} {records}: {fault}")
    return faults


def test_what_was_synced_is_there_after_a_power_cut(tmp_path: Path) -> None:
    assert not found(tmp_path, CUTS)


@pytest.mark.parametrize("variant", [name for name in power.VARIANTS if name])
def test_a_writer_that_syncs_too_little_is_found_out(tmp_path: Path, variant: str) -> None:
    assert found(tmp_path, 20, variant)
