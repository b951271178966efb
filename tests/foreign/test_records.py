"""Where the records of an event file lie, whatever their sizes and however these repeat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blackboxml.foreign.tensorboard.records import FOOT, HEAD, frame, read_chunks

if TYPE_CHECKING:
    from pathlib import Path

STRETCHES = st.lists(
    st.tuples(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.integers(1, 60)),
    max_size=5,
)
"""Sizes of data, and how often they come one after the other."""


@given(STRETCHES, st.integers(0, 60), st.integers(0, 3000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_records_are_found_in_any_pattern(
    tmp_path: Path, stretches: list[tuple[list[int], int]], cut: int, damage: int
) -> None:
    sizes = [size for pattern, count in stretches for size in pattern * count]
    parts = [frame(bytes([size]) * size) for size in sizes]
    data = bytearray(b"".join(parts))
    del data[len(data) - cut :]
    wanted, at = [], 0
    for size in sizes:
        whole = at + HEAD + size + FOOT
        if whole <= len(data):
            wanted.append((at + HEAD, size))
        at = whole
    if damage < len(wanted):  # the length of a record: it is passed over, the others are there
        data[wanted[damage][0] - HEAD] ^= 1
        del wanted[damage]
    path = tmp_path / "events"
    path.write_bytes(data)
    found = []
    for chunk in read_chunks(path, lambda *_: None):
        starts = (chunk.starts + chunk.offset).tolist()
        found += list(zip(starts, chunk.lengths.tolist(), strict=True))
    assert found == wanted
