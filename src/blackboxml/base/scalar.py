"""Numbers of any origin as the three that the format stores: bool, int64, float64.

Strategy: a value is stored exactly or refused. What to do with it depends on its type alone, so
each type is looked up in a table of converters, which makes a NumPy scalar cost about as much as a
call of `float`. A new type is learned by what it can do (`shape`, `item()`, `numpy()`). Frameworks
are found in `sys.modules` where they are loaded already; none is ever imported.
"""

from __future__ import annotations

import math
import operator
import sys
from typing import TYPE_CHECKING, Any, Final

from blackboxml.model import INT64_MAX, INT64_MIN

if TYPE_CHECKING:
    from collections.abc import Callable

    from blackboxml.model import Number

    Converter = Callable[[Any], Number]

NON_FINITE: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
"""How the numbers that JSON lacks are spelled."""

_LEARNED_TYPES: Final = 256
"""Types the table may hold; past it, converters are found anew for every value."""

_WRAPPINGS: Final = 3
"""A tensor may hold an array, which holds a NumPy scalar, which holds a number."""


def spell(value: Number) -> Number | str:
    """Return a number as it stands in JSON: itself, or the name of a non-finite float."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def to_number(value: object) -> Number:
    """Return `value` as an exact bool, int64 or float64 that shares nothing with it.

    Accepts bool, int, float and their subclasses, NumPy scalars, and arrays or tensors of shape
    () of NumPy, PyTorch, TensorFlow, JAX and others that offer `item()` or `numpy()`. A tensor on
    an accelerator is copied from there, which waits for the computation that it is the result of.

    Raises:
        ValueError: The value is no number, has a shape other than (), or is neither in
            -2^63 … 2^63 - 1 nor exactly a float64. The message is one clause with its cure, for
            the caller to put the metric's name before.
    """
    try:
        convert = _CONVERTERS[type(value)]
    except Exception:  # noqa: BLE001 - a metaclass may raise what it likes when it is hashed
        return _convert_and_learn(value)
    return convert(value)


def to_step(value: object) -> int:
    """Return `value` as an int64 step.

    Raises:
        ValueError: The value is not an integer in -2^63 … 2^63 - 1. A bool is a mistake, and so
            is a float: 1.5 is no step, and which step 3.0 means is for the caller to say.
    """
    number = to_number(value)
    if type(number) is int:
        return number
    cure = "give an int" if isinstance(number, bool) else "give int(step)"
    raise ValueError(f"a step is an integer, not the {type(number).__name__} {number!r}; {cure}")


def _convert_and_learn(value: object) -> Number:
    kind = type(value)
    try:
        convert = _converter(kind)
        number = convert(value)
        # A class that its own module holds lives on anyway. Another one, made inside a function,
        # must not be kept alive by a table.
        home = sys.modules.get(kind.__module__)
        held = home is not None and vars(home).get(kind.__name__) is kind
        if held and len(_CONVERTERS) < _LEARNED_TYPES:
            _CONVERTERS[kind] = convert
    except ValueError:
        raise
    except Exception as error:
        raise _unreadable(value, error) from error
    return number


def _converter(kind: type) -> Converter:
    if kind is bool:
        return bool
    numpy: Any = sys.modules.get("numpy")  # another thread may be importing it just now
    if hasattr(numpy, "generic") and issubclass(kind, numpy.generic):
        return _numpy_converter(kind, numpy)
    if issubclass(kind, float):
        return float.__float__  # float() would call what a subclass puts in its place
    if issubclass(kind, int):
        return _from_integer
    return _from_array


def _numpy_converter(kind: type, numpy: Any) -> Converter:
    if issubclass(kind, (numpy.datetime64, numpy.timedelta64)):
        return _refuse_time
    if issubclass(kind, numpy.bool_):
        return bool
    if issubclass(kind, numpy.integer):
        return _from_integer if numpy.iinfo(kind).max > INT64_MAX else operator.index
    if issubclass(kind, (numpy.float16, numpy.float32, numpy.float64)):
        return float
    if issubclass(kind, numpy.floating):
        return _from_extended
    return _from_array


def _from_integer(value: Any) -> int:
    number = operator.index(value)
    if INT64_MIN <= number <= INT64_MAX:
        return number
    raise ValueError(
        f"an integer of {number.bit_length()} bits does not fit int64; log float(value)"
    )


def _from_extended(value: Any) -> float:
    number = float(value)
    if value == number or value != value:  # noqa: PLR0124 - true of NaN alone
        return number
    kind = type(value).__name__
    raise ValueError(f"the {kind} {value!r:.60} is not exactly a float64; log float(value)")


def _from_array(value: Any) -> Number:
    for _ in range(_WRAPPINGS):
        value = _unwrap(value)
        convert = _converter(type(value))
        if convert is not _from_array:
            return convert(value)
    name = type(value).__name__
    raise ValueError(f"a value of type {name} holds no number; log a bool, an int or a float")


def _unwrap(value: Any) -> Any:
    """Return what a 0-d array or tensor holds: a Python number, or one wrapping fewer."""
    kind = type(value)
    try:
        shape = tuple(map(int, value.shape))
        is_time = getattr(getattr(value, "dtype", None), "kind", None) in ("m", "M")
    except AttributeError:
        raise _refusal(value) from None
    except Exception as error:
        raise _unreadable(value, error) from error
    if shape:
        single = "value.item()" if hasattr(kind, "item") else "value.numpy().item()"
        cure = single if set(shape) == {1} else "a number made of it, such as its mean"
        raise ValueError(f"an array of shape {shape} is not a number; log {cure}")
    if is_time:  # item() would give the count of some unit, or a datetime
        raise _refused_time(value)
    numpy: Any = sys.modules.get("numpy")
    try:
        if hasattr(numpy, "ndarray") and issubclass(kind, numpy.ndarray):
            return value[()]  # unlike item(), keeps a mask or a unit for what follows to refuse
        return value.item() if hasattr(value, "item") else value.numpy()
    except Exception as error:
        raise _unreadable(value, error) from error


def _refuse_time(value: Any) -> Number:
    raise _refused_time(value)


def _refused_time(value: object) -> ValueError:
    name = type(value).__name__
    return ValueError(f"a time of type {name} is not a number; log its seconds as a float")


def _refusal(value: Any) -> ValueError:
    kind = type(value)
    name = kind.__name__
    if value is None:
        message = "None is not a number; leave the metric out where it has no value"
    elif issubclass(kind, (str, bytes)):
        message = f"the {name} {value[:40]!r} is not a number; log float(value) if it spells one"
    elif issubclass(kind, complex):
        message = "a complex number cannot be stored; log value.real and value.imag"
    elif hasattr(kind, "__float__"):
        message = f"a {name} is not exactly a float64 in general; log float(value)"
    elif issubclass(kind, (list, tuple, set, dict)):
        message = f"a {name} is not a number; log its elements under names of their own"
    else:
        message = f"a value of type {name} is not a number; log a bool, an int or a float"
    return ValueError(message)


def _unreadable(value: object, error: Exception) -> ValueError:
    try:
        text = str(error).partition("\n")[0]
    except Exception:  # noqa: BLE001 - the exception is as foreign as the value
        text = ""
    reason = f"{type(error).__name__}: {text:.120}" if text else type(error).__name__
    name = type(value).__name__
    return ValueError(f"a value of type {name} gave no number ({reason}); log a float instead")


_CONVERTERS: dict[type, Converter] = {bool: bool, int: _from_integer, float: float}
