"""Values of any origin become exact numbers, or are refused."""

from __future__ import annotations

import enum
import gc
import math
import subprocess
import sys
import weakref
from decimal import Decimal
from fractions import Fraction
from types import ModuleType
from unittest.mock import MagicMock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from blackboxml.base import scalar
from blackboxml.base.scalar import spell, to_number, to_step

INTEGERS = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64]


class Level(enum.IntEnum):
    HIGH = 3


class Metres(float):
    def __float__(self) -> float:
        return -1.0


class EagerTensor:
    """Stands in for TensorFlow's, of which no wheel exists for every Python tested here.

    Like the real one it has `shape`, `dtype` without `kind`, and `numpy()`, but no `item()`.
    """

    def __init__(self, array: np.generic | np.ndarray) -> None:
        self._array = array
        self.dtype = object()

    @property
    def shape(self) -> TensorShape:
        return TensorShape(self._array.shape)

    def numpy(self) -> np.generic | np.ndarray:
        return self._array


class TensorShape:
    def __init__(self, lengths: tuple[int, ...] | None) -> None:
        self.lengths = lengths

    def __iter__(self):
        if self.lengths is None:
            raise ValueError("Cannot iterate over a shape with unknown rank.")
        return iter(self.lengths)


def same(found: object, wanted: object) -> bool:
    if isinstance(wanted, float) and math.isnan(wanted):
        return type(found) is float and math.isnan(found)
    return type(found) is type(wanted) and found == wanted


@pytest.mark.parametrize("value", [True, False, 0, -(2**63), 2**63 - 1, 0.1, -0.0, math.inf])
def test_a_python_number_is_itself(value: object) -> None:
    assert same(to_number(value), value)


def test_nan_stays_nan() -> None:
    assert same(to_number(math.nan), math.nan)
    assert same(to_number(np.float32("nan")), math.nan)
    assert same(to_number(np.longdouble("nan")), math.nan)


def test_a_subclass_becomes_the_plain_number_that_it_holds() -> None:
    assert same(to_number(Level.HIGH), 3)
    assert same(to_number(Metres(2.5)), 2.5)


@pytest.mark.parametrize("kind", INTEGERS)
def test_a_numpy_integer_is_an_int(kind: type[np.integer]) -> None:
    assert same(to_number(kind(7)), 7)
    assert same(to_number(np.array(7, dtype=kind)), 7)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.longdouble])
def test_a_numpy_float_is_a_float_of_the_same_value(kind: type[np.floating]) -> None:
    value = kind(0.1) if kind is not np.longdouble else kind(0.125)
    assert same(to_number(value), float(value))
    assert same(to_number(np.array(value)), float(value))


def test_a_numpy_bool_is_a_bool() -> None:
    assert to_number(np.bool_(True)) is True
    assert to_number(np.array(False)) is False


@given(st.integers(-(2**63), 2**63 - 1))
def test_every_int64_is_exact(value: int) -> None:
    for origin in (
        np.int64(value),
        np.array(value),
        torch.tensor(value),
        EagerTensor(np.int64(value)),
    ):
        assert same(to_number(origin), value)


@given(st.floats(width=32))
def test_every_float32_is_exact(value: float) -> None:
    with np.errstate(all="ignore"):
        origins = (np.float32(value), torch.tensor(value, dtype=torch.float32))
    for origin in origins:
        assert same(to_number(origin), value)


@pytest.mark.parametrize(
    "dtype",
    [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64, torch.uint8],
)
def test_a_torch_scalar_is_a_number_of_its_kind(dtype: torch.dtype) -> None:
    found = to_number(torch.tensor(2, dtype=dtype))
    assert same(found, 2.0 if dtype.is_floating_point else 2)
    assert to_number(torch.tensor(True)) is True


def test_a_torch_tensor_with_a_graph_gives_its_value_and_is_let_go() -> None:
    weight = torch.nn.Parameter(torch.tensor(3.0))
    loss = (weight * 2).bfloat16()
    assert loss.requires_grad
    assert same(to_number(weight), 3.0)
    assert same(to_number(loss), 6.0)
    alive = weakref.ref(loss)
    del loss
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int32", "uint8", "bool"])
def test_a_jax_scalar_is_a_number_of_its_kind(dtype: str) -> None:
    found = to_number(jnp.asarray(1, dtype=dtype))
    assert same(found, True if dtype == "bool" else 1.0 if "float" in dtype else 1)


def test_a_jax_tracer_is_refused() -> None:
    @jax.jit
    def step(loss: jax.Array) -> jax.Array:
        with pytest.raises(ValueError, match=r"gave no number .*ConcretizationTypeError"):
            to_number(loss)
        return loss

    step(1.0)


@pytest.mark.parametrize(
    ("held", "wanted"),
    [
        (np.float32(0.5), 0.5),
        (np.array(2, dtype=np.int64), 2),
        (np.bool_(True), True),
        (np.asarray(jnp.asarray(1.5, dtype="bfloat16")), 1.5),
    ],
)
def test_an_eager_tensor_of_tensorflow_is_read_through_numpy(
    held: np.generic, wanted: object
) -> None:
    assert same(to_number(EagerTensor(held)), wanted)


def test_a_labelled_array_of_no_dimension_is_a_number() -> None:
    assert same(to_number(xr.DataArray(1.5)), 1.5)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (2**63, "64 bits does not fit int64; log float"),
        (-(2**63) - 1, "does not fit int64"),
        pytest.param(10**5000, "does not fit int64", id="an int too long to print"),
        (np.uint64(2**63), "does not fit int64"),
        (np.array(2**64 - 1, dtype=np.uint64), "does not fit int64"),
        (torch.tensor(2**63, dtype=torch.uint64), "does not fit int64"),
        (1j, "real and value.imag"),
        (np.complex64(1), "real and value.imag"),
        (np.complex128(1), "real and value.imag"),
        (torch.tensor(1j), "real and value.imag"),
        (None, "leave the metric out"),
        ("0.5", "the str '0.5' is not a number"),
        (b"0.5", "the bytes b'0.5' is not a number"),
        (np.str_("a"), "not a number"),
        (np.array("a"), "not a number"),
        (Decimal("0.1"), r"log float\(value\)"),
        (Fraction(1, 3), r"log float\(value\)"),
        (np.array(Decimal("0.1")), r"log float\(value\)"),
        ([1.0], "log its elements"),
        ({"a": 1}, "log its elements"),
        (np.array([1.5]), r"shape \(1,\) is not a number; log value.item\(\)"),
        (torch.tensor([[1.5]]), r"shape \(1, 1\) is not a number; log value.item\(\)"),
        (jnp.asarray([1.5]), r"shape \(1,\) is not a number; log value.item\(\)"),
        (EagerTensor(np.ones(1)), r"log value.numpy\(\).item\(\)"),
        (np.zeros((2, 3)), r"shape \(2, 3\) is not a number; log .* its mean"),
        (np.zeros(0), r"shape \(0,\) is not a number"),
        (EagerTensor(np.array(b"text", dtype=object)), "not a number"),
        (np.timedelta64(1, "s"), "log its seconds"),
        (np.array(1, dtype="datetime64[ns]"), "log its seconds"),
        (xr.DataArray(np.datetime64(1, "ns")), "log its seconds"),
        (np.ma.masked, "holds no number"),
        (np.ma.array(1.0, mask=True), "holds no number"),
        (torch.tensor(1.0, device="meta"), "gave no number .*meta tensors"),
        (jax.random.key(0), "gave no number"),
        (object(), "of type object is not a number; log a bool"),
        (float, "of type type is not a number"),
        (MagicMock(), "MagicMock"),
    ],
)
def test_what_cannot_be_stored_exactly_is_refused_with_its_cure(value: object, reason: str) -> None:
    for _ in range(2):  # the second time its type may have been learned
        with pytest.raises(ValueError, match=reason) as caught:
            to_number(value)
        assert "\n" not in str(caught.value)
        assert "; " in str(caught.value)


@pytest.mark.skipif(np.finfo(np.longdouble).nmant <= 52, reason="long double is double here")
def test_an_extended_float_that_no_float64_equals_is_refused() -> None:
    for value in (np.longdouble(1) + np.finfo(np.longdouble).eps, np.longdouble("1e4000")):
        with pytest.raises(ValueError, match="is not exactly a float64"):
            to_number(value)
        with pytest.raises(ValueError, match="is not exactly a float64"):
            to_number(np.array(value))
    assert same(to_number(np.longdouble("inf")), math.inf)


def test_an_object_that_raises_whatever_is_asked_of_it_is_refused() -> None:
    class Hostile:
        def __getattribute__(self, name: str) -> object:
            raise KeyError(name)

    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    class Mute:
        shape = ()

        def item(self) -> object:
            raise MuteError

    class UnhashableMeta(type):
        def __hash__(cls) -> int:
            raise OSError

    class Unhashable(metaclass=UnhashableMeta):
        pass

    for value in (Hostile(), Mute(), Unhashable()):
        with pytest.raises(ValueError, match=r"not a number|gave no number"):
            to_number(value)


def test_a_shape_of_unknown_rank_is_refused() -> None:
    class Symbolic:
        shape = TensorShape(None)

    with pytest.raises(ValueError, match=r"gave no number .*unknown rank"):
        to_number(Symbolic())


def test_a_kind_of_array_that_unwraps_to_itself_for_ever_is_refused() -> None:
    class Endless:
        shape = ()

        def item(self) -> Endless:
            return Endless()

    with pytest.raises(ValueError, match="type Endless holds no number"):
        to_number(Endless())


def test_a_class_made_in_a_function_is_not_kept_alive() -> None:
    class Local(float):
        pass

    assert same(to_number(Local(1.5)), 1.5)
    alive = weakref.ref(Local)
    del Local
    gc.collect()
    assert alive() is None


def test_the_table_of_learned_types_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    table = dict(scalar._CONVERTERS)
    monkeypatch.setattr(scalar, "_CONVERTERS", table)
    module = ModuleType("many_types")
    monkeypatch.setitem(sys.modules, "many_types", module)
    for number in range(400):
        kind = type(f"T{number}", (float,), {"__module__": "many_types"})
        setattr(module, kind.__name__, kind)
        assert same(to_number(kind(number)), float(number))
    assert len(table) == 256


def test_the_type_of_a_numpy_scalar_is_looked_up_and_not_learned_again() -> None:
    to_number(np.float32(1))
    assert scalar._CONVERTERS[np.float32] is float


@pytest.mark.parametrize("value", [0, -5, 2**63 - 1, np.int32(4), np.array(4), torch.tensor(4)])
def test_a_step_is_an_int64_of_any_origin(value: object) -> None:
    assert same(to_step(value), int(value))


@pytest.mark.parametrize("value", [1.5, 3.0, np.float64(3), True, np.bool_(True), None, "3", 2**63])
def test_anything_else_is_no_step(value: object) -> None:
    with pytest.raises(ValueError, match="; "):
        to_step(value)


def test_importing_the_foundation_loads_no_numpy_and_no_framework() -> None:
    code = (
        "import sys, blackboxml.base.naming, blackboxml.base.scalar, blackboxml.config\n"
        "import blackboxml.base.environment, blackboxml.base.process\n"
        "import blackboxml.frontends.metric_store\n"
        "blackboxml.base.scalar.to_number(0.5), blackboxml.base.environment.capture()\n"
        "blackboxml.config.encode_config({'a': object()})\n"
        "heavy = {'numpy', 'torch', 'jax', 'tensorflow', 'pandas', 'importlib.metadata'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("value", "spelled"),
    [
        (math.nan, "NaN"),
        (-math.nan, "NaN"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        (1.5, 1.5),
        (3, 3),
        (True, True),
    ],
)
def test_what_json_lacks_is_spelled(value: float, spelled: object) -> None:
    assert spell(value) == spelled
    assert type(spell(value)) is type(spelled)
