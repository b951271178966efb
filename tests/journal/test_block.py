"""Lines that are made many at a time are those that are made one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blackboxml.base.scalar import spell
from blackboxml.errors import MetricError
from blackboxml.journal import encode
from blackboxml.journal.block import check_lines, encode_points
from blackboxml.journal.metric import Points
from blackboxml.model import LIMITS

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn

KINDS = {
    np.dtype(np.float64): st.floats(width=64),
    np.dtype(np.int64): st.integers(-(2**63), 2**63 - 1),
    np.dtype(np.bool_): st.booleans(),
}
NAMES = ["loss", "a/b", 'quo"te', "50%b", "comma,colon:", "日本", "back\\slash", "}", "x" * 200]


@st.composite
def several(draw: DrawFn) -> Points:
    """Records of a few layouts, in any order; every layout has one."""
    layouts = draw(st.lists(st.lists(st.sampled_from(NAMES), min_size=1, unique=True), min_size=1))
    more = st.lists(st.integers(0, len(layouts) - 1), max_size=20)
    which = draw(st.permutations([*range(len(layouts)), *draw(more)]))
    values = []
    for place, names in enumerate(layouts):
        kinds = [draw(st.sampled_from(sorted(KINDS, key=str))) for _ in names]
        count = which.count(place)
        cells = [draw(st.lists(KINDS[k], min_size=count, max_size=count)) for k in kinds]
        values.append([np.array(c, k) for c, k in zip(cells, kinds, strict=True)])
    count = len(which)
    steps = draw(st.lists(KINDS[np.dtype(np.int64)], min_size=count, max_size=count))
    finite = st.floats(allow_nan=False, allow_infinity=False)
    times = draw(st.lists(finite, min_size=count, max_size=count))
    return Points(
        np.array(steps, np.int64),
        np.array(times, np.float64),
        np.array(which, np.intp),
        [tuple(names) for names in layouts],
        values,
    )


def singly(points: Points, first_seq: int) -> bytes:
    lines = []
    for seq, (step, time, metrics) in enumerate(points.records(), start=first_seq):
        spelled = {name: spell(value) for name, value in metrics.items()}
        lines.append(encode({"seq": seq, "step": step, "time": time, "metrics": spelled}))
    return b"".join(lines)


@given(several(), st.integers(0, 2**62))
def test_lines_are_those_of_single_records(points: Points, first_seq: int) -> None:
    assert encode_points(points, first_seq) == singly(points, first_seq)


def plain(names: tuple[str, ...], count: int) -> Points:
    values: list[Any] = [np.arange(count) / 7 for _ in names]
    steps = np.arange(count)
    return Points(steps, steps / 3, np.zeros(count, np.intp), [names], [values])


def test_more_lines_than_are_checked_at_once() -> None:
    points = plain(("a", "b"), 5000)
    lines = encode_points(points, 1)
    assert lines == singly(points, 1)
    assert check_lines(lines, LIMITS.line_bytes) == len(points)


def test_a_line_that_is_too_long_is_refused() -> None:
    names = tuple(f"{place:0>1000}" for place in range(LIMITS.line_bytes // 1000 + 1))
    with pytest.raises(MetricError, match="log it in several calls"):
        encode_points(plain(names, 2), 0)
