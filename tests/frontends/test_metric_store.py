"""Means over the batches of an epoch."""

from __future__ import annotations

import gc
import math
import weakref
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from blackboxml.errors import MetricError
from blackboxml.frontends.metric_store import MetricStore

FINITE = st.floats(allow_nan=False, allow_infinity=False)
WEIGHTS = st.integers(1, 10**6) | st.floats(min_value=0, exclude_min=True, allow_infinity=False)


def test_values_are_weighted_by_their_samples() -> None:
    store = MetricStore()
    store.update({"accuracy": 1.0}, n=30)
    store.update({"accuracy": 0.0}, n=10)
    assert store.compute() == {"accuracy": 0.75}


def test_a_batch_weighs_one_unless_told_otherwise() -> None:
    store = MetricStore()
    store.update({"loss": 1})
    store.update({"loss": 2.0})
    assert store.compute() == {"loss": 1.5}


def test_each_metric_has_its_own_weights_and_the_order_is_that_of_first_sight() -> None:
    store = MetricStore()
    store.update({"loss": 1.0, "accuracy": 0.0}, n=1)
    store.update({"f1": 0.5, "loss": 4.0}, n=2)
    assert list(store.compute().items()) == [("loss", 3.0), ("accuracy", 0.0), ("f1", 0.5)]


def test_computing_without_values_is_an_error() -> None:
    store = MetricStore()
    with pytest.raises(ValueError, match=r"call update\(\) before compute"):
        store.compute()
    store.update({})
    with pytest.raises(ValueError, match="nothing to average"):
        store.compute()
    store.update({"loss": 1.0})
    store.reset()
    with pytest.raises(ValueError, match="nothing to average"):
        store.compute()


def test_reset_forgets_values_weights_and_order() -> None:
    store = MetricStore()
    store.update({"a": 1.0, "b": 1.0}, n=100)
    store.reset()
    store.update({"b": 3.0})
    store.update({"a": 5.0})
    assert list(store.compute().items()) == [("b", 3.0), ("a", 5.0)]


def test_computing_does_not_end_the_epoch() -> None:
    store = MetricStore()
    store.update({"a": 1.0})
    assert store.compute() == store.compute() == {"a": 1.0}
    store.update({"a": 2.0})
    assert store.compute() == {"a": 1.5}


@pytest.mark.parametrize("n", [0, -1, 0.0, math.nan, math.inf, -math.inf, "3", None, np.zeros(2)])
def test_a_weight_that_is_no_positive_number_is_refused(n: object) -> None:
    store = MetricStore()
    with pytest.raises(ValueError, match="the weight n"):
        store.update({"loss": 1.0}, n=n)
    with pytest.raises(ValueError, match="nothing to average"):
        store.compute()


def test_a_value_that_is_no_number_is_named_and_nothing_of_the_batch_is_added() -> None:
    store = MetricStore()
    with pytest.raises(MetricError, match="metric 'name': the str 'resnet' is not a number"):
        store.update({"loss": 1.0, "name": "resnet"})
    with pytest.raises(ValueError, match="nothing to average"):
        store.compute()


def test_no_tensor_is_kept() -> None:
    store = MetricStore()
    loss = torch.tensor(2.0, requires_grad=True) * 2
    store.update({"loss": loss}, n=np.int64(8))
    alive = weakref.ref(loss)
    del loss
    gc.collect()
    assert alive() is None
    assert store.compute() == {"loss": 4.0}
    assert type(store.compute()["loss"]) is float


@pytest.mark.parametrize(
    ("values", "mean"),
    [
        ([1.0, math.nan, 1.0], math.nan),
        ([1.0, math.inf], math.inf),
        ([-math.inf, 1e308], -math.inf),
        ([math.inf, -math.inf], math.nan),
        ([math.nan, math.inf], math.nan),
    ],
)
def test_values_that_are_not_finite_stay_visible(values: list[float], mean: float) -> None:
    store = MetricStore()
    for value in values:
        store.update({"loss": value, "finite": 1.0})
    assert store.compute()["loss"] == pytest.approx(mean, nan_ok=True)
    assert store.compute()["finite"] == 1.0


@given(FINITE, WEIGHTS)
def test_the_mean_of_one_value_is_that_value(value: float, n: float) -> None:
    store = MetricStore()
    store.update({"loss": value}, n=n)
    assert store.compute() == {"loss": value}


@given(st.lists(st.tuples(FINITE | st.integers(-(2**63), 2**63 - 1), WEIGHTS), min_size=1))
def test_the_mean_is_the_exact_one_rounded_once(batches: list[tuple[float, float]]) -> None:
    store = MetricStore()
    for value, n in batches:
        store.update({"loss": value}, n=n)
    total = sum(Fraction(value) * Fraction(n) for value, n in batches)
    exact = total / sum(Fraction(n) for _, n in batches)
    assert store.compute() == {"loss": float(exact)}
