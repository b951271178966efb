"""Tables as datasets of xarray and as statistics."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blackboxml.journal.table import INDEX, METRIC, STATISTIC
from blackboxml.reader.arrays import summarise, to_dataset
from tests.histories import bits

RUN = {"id": "0" * 32, "name": "x"}


def table(columns: dict[str, Any], steps: list[int] | None = None) -> pa.Table:
    """Return a table whose columns are those of metrics of the same names."""
    arrays = {name: pa.array(values) for name, values in columns.items()}
    rows = len(next(iter(arrays.values())))
    index = [pa.array(range(rows), pa.int64()).cast(kind) for kind in INDEX.values()]
    if steps is not None:
        index[0] = pa.array(steps, pa.int64())
    fields = [pa.field(name, kind) for name, kind in INDEX.items()]
    for name, array in arrays.items():
        metric, _, statistic = name.partition("|")
        metadata = {METRIC: f"g/{metric}".encode()}
        if statistic:
            metadata[STATISTIC] = statistic.encode()
        fields.append(pa.field(name.replace("|", "/"), array.type, metadata=metadata))
    return pa.Table.from_arrays([*index, *arrays.values()], schema=pa.schema(fields))


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.none() | st.floats()), min_size=1).filter(
        lambda pairs: any(value is not None for _, value in pairs)
    )
)
def test_statistics_are_those_of_the_values_that_are_there(
    pairs: list[tuple[int, float | None]],
) -> None:
    steps, values = (list(each) for each in zip(*pairs, strict=True))
    said = summarise([table({"a": pa.array(values, pa.float64())}, steps)])["g/a"]
    there = [(step, value) for step, value in pairs if value is not None]
    finite = [value for _, value in there if math.isfinite(value)]
    assert said.n == len(there)
    assert said.nonfinite == len(there) - len(finite)
    assert (said.first_step, said.last_step) == (min(there)[0], max(step for step, _ in there))
    assert bits(said.last) == bits([v for step, v in there if step == said.last_step][-1])
    if not finite:
        assert said.min is said.max is said.mean is said.std is None
        return
    assert (said.min, said.max) == (min(finite), max(finite))
    with np.errstate(over="ignore", invalid="ignore"):
        np.testing.assert_allclose(said.mean, np.mean(finite))
        np.testing.assert_allclose(said.std, np.std(finite))


@given(
    st.lists(
        st.lists(st.tuples(st.integers(-3, 3), st.none() | st.floats(-1e9, 1e9)), min_size=1),
        min_size=2,
        max_size=5,
    )
)
def test_statistics_of_pieces_are_those_of_the_whole(
    pieces: list[list[tuple[int, float | None]]],
) -> None:
    tables = [
        table({"a": pa.array([value for _, value in each], pa.float64())}, [at for at, _ in each])
        for each in pieces
    ]
    found, whole = summarise(tables), summarise([pa.concat_tables(tables)])
    assert found.keys() == whole.keys()
    for said, wanted in zip(found.values(), whole.values(), strict=True):
        exact = ("min", "max", "last", "n", "first_step", "last_step", "nonfinite")
        for name in exact:
            assert bits(getattr(said, name)) == bits(getattr(wanted, name))
        np.testing.assert_allclose(said.mean, wanted.mean, rtol=1e-12, atol=1e-6)
        np.testing.assert_allclose(said.std, wanted.std, rtol=1e-9, atol=1e-6)


def test_integers_and_bools_keep_their_type() -> None:
    found = summarise([table({"n": [2**63 - 1, 3, None], "b": [True, False, None]})])
    assert (found["g/n"].max, found["g/n"].last) == (2**63 - 1, 3)
    assert type(found["g/n"].min) is int
    assert found["g/b"].max is True
    assert found["g/b"].last is False
    assert found["g/b"].mean == 0.5


def test_a_metric_without_values_and_a_statistic_have_no_summary() -> None:
    found = summarise([table({"a": pa.nulls(2, pa.float64()), "a|mean": [1.0, 2.0]})])
    assert found == {}


@pytest.mark.parametrize(
    ("values", "kind", "wanted"),
    [
        (pa.array([1, 2]), "int64", [1, 2]),
        (pa.array([1, None]), "float64", [1.0, math.nan]),
        (pa.array([True, False]), "bool", [True, False]),
        (pa.array([True, None]), "float32", [1.0, math.nan]),
        (pa.array([-0.0, None]), "float64", [-0.0, math.nan]),
        (pa.array([2**53 + 1, None]), "float64", [2.0**53, math.nan]),
    ],
)
def test_a_variable_has_the_type_that_xarray_decodes(
    values: pa.Array, kind: str, wanted: list[Any]
) -> None:
    variable = to_dataset(table({"a": values}), {}, RUN, "g")["a"]
    assert str(variable.dtype) == kind
    assert list(map(bits, variable.values.tolist())) == list(map(bits, wanted))


def test_variables_say_what_they_are() -> None:
    described = {"g/a": {"unit": "m", "description": "length"}}
    columns = {"a": [1.0], "a|mean": [2.0], "a|count": [3], "b/c": [4.0], "50%": [5.0]}
    found = to_dataset(table(columns), described, RUN, "g")
    assert list(found.data_vars) == ["a", "a.mean", "a.count", "b.c", "50%25"]
    assert found["a"].attrs == {"metric": "g/a", "units": "m", "long_name": "length"}
    assert found["a.mean"].attrs["statistic"] == "mean"
    assert set(found.coords) == {"step", "time", "rank", "attempt"}
    assert found.attrs["run_name"] == "x"
    assert found.attrs["group"] == "g"
