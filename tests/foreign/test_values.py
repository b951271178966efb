"""Values of other systems: names mended and never merged, values that come back as they were."""

from __future__ import annotations

import math
import tempfile
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blackboxml import open_run
from blackboxml.base.naming import check_metric_name
from blackboxml.foreign import values as foreign
from blackboxml.foreign.interchange import Ledger
from blackboxml.writer import RunWriter

ODD = st.text(st.sampled_from(["a", "_", "/", "\n", "\x7f", "\ud800", "é", "2"]), max_size=6)


@given(st.lists(ODD, unique=True))
def test_two_names_never_become_one(names: list[str]) -> None:
    ledger = Ledger()
    mend = foreign.Names(ledger)
    mended = [mend(name) for name in names]
    assert len(set(mended)) == len(names)
    assert [mend(name) for name in names] == mended
    for name in mended:
        check_metric_name(name)
    assert ledger.total("changed", "field") == sum(map(str.__ne__, names, mended))


def test_a_name_that_can_stand_is_kept() -> None:
    mend = foreign.Names(Ledger())
    assert [mend(name) for name in ("loss", "train/loss/é", "a b")] == [
        "loss",
        "train/loss/é",
        "a b",
    ]
    assert mend("/loss/") == "loss_2"
    assert len(mend("é" * 2000).encode()) <= 1024
    assert mend("") == "unnamed"


def test_a_number_does_not_make_a_name_too_long() -> None:
    mend = foreign.Names(Ledger())
    longest = "é" * 512
    assert mend(longest) == longest
    mended = mend(f"{longest}/")
    assert mended.endswith("é_2")
    check_metric_name(mended)


def come_back(values: list[Any]) -> tuple[list[Any], Ledger]:
    """Record values as media, and read them from the run."""
    ledger = Ledger()
    with tempfile.TemporaryDirectory() as folder:
        writer = RunWriter.create(folder, "values", sync="none")
        for value in values:
            medium = foreign.to_medium("x", value, 0, None, ledger)
            writer.log_media(
                "x",
                medium.kind,
                0,
                value=medium.value,
                data=medium.data,
                media_type=medium.media_type,
            )
        writer.finish("completed")
        run = open_run(writer.path)
        return [foreign.from_medium(run, record) for record in run.media()], ledger


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(blacklist_categories=["Cs"]), max_size=5)
    | st.binary(max_size=5),
    lambda inside: (
        st.lists(inside, max_size=3)
        | st.tuples(inside, inside)
        | st.dictionaries(st.text("a$", max_size=2) | st.integers(0, 9), inside, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=30, deadline=None)
@given(st.lists(VALUES, max_size=4))
def test_a_value_that_is_no_number_comes_back_as_it_was(values: list[Any]) -> None:
    found, ledger = come_back(values)
    assert repr(found) == repr(values)
    assert not ledger.counts


@pytest.mark.parametrize(
    "array", [np.arange(6.0).reshape(2, 3), np.zeros((0, 2)), np.array([True]), np.array([1 + 2j])]
)
def test_an_array_comes_back_as_it_was(array: Any) -> None:
    [found], _ = come_back([array])
    assert (found.dtype, found.shape, found.tolist()) == (array.dtype, array.shape, array.tolist())


def test_what_cannot_be_kept_is_described_and_told() -> None:
    deep: Any = []
    for _ in range(200):
        deep = [deep]
    found, ledger = come_back([deep, object(), "\ud800", PurePosixPath("a/b"), "long" * 50_000])
    assert found[2:] == ["\\ud800", PurePosixPath("a/b"), "long" * 50_000]
    assert ledger.total("changed", "event") == 2
    assert ledger.total("changed", "text") == 1


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (1.5, 1.5),
        (True, True),
        (2**63, None),
        (np.float32(0.1), float(np.float32(0.1))),
        (np.array(3), 3),
        (np.array([3]), None),
        ("1", None),
        (None, None),
        (1j, None),
    ],
)
def test_a_number_is_one_of_three_kinds(value: Any, number: Any) -> None:
    found = foreign.number(value)
    assert (type(found), found) == (type(number), number)


def test_json_has_names_for_what_is_not_finite() -> None:
    tree = {"a": [1.5, math.inf, {"b": -math.inf}], "c": "text"}
    assert foreign.to_json(tree) == {"a": [1.5, "Infinity", {"b": "-Infinity"}], "c": "text"}
    assert foreign.from_json(foreign.to_json(tree)) == tree
    with pytest.raises(ValueError, match="64 bits"):
        foreign.to_json([2**64])
