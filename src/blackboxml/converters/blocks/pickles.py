"""Pickles read as data: nothing that one names is ever imported, called or built.

The opcodes of Python's pickle machine (Lib/pickletools.py describes them) are followed on a stack
of plain values. What a pickle would import and call stays a `Named` or a `Made`; of these only
NumPy's numbers and arrays, UUIDs, encoded bytes and a few containers are understood, from what
stands in the pickle.
"""

from __future__ import annotations

import math
import pickletools
import re
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_STEPS: Final = 20_000_000
"""Opcodes after which a pickle is given up."""

_MOST_DIGITS: Final = 4_000
_KINDS: Final = re.compile(r"[<>|=]?(?:[biuf][1-8]|c(?:8|16))")
_MARK: Final = object()
_SAME: Final = frozenset(["PROTO", "FRAME", "STOP"])
_PUSHED: Final = frozenset(
    [
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("UNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINUNICODE", "BINBYTES", "BINBYTES8"),
        *("SHORT_BINBYTES", "BYTEARRAY8", "STRING", "BINSTRING", "SHORT_BINSTRING"),
    ]
)
_CONSTANTS: Final = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES: Final = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_GETS: Final = frozenset(["GET", "BINGET", "LONG_BINGET"])
_PUTS: Final = frozenset(["PUT", "BINPUT", "LONG_BINPUT"])
_NUMPY: Final = re.compile(r"numpy\.(?:_?core\.)?(?:multiarray|numeric)\.(\w+)")
_CONTAINERS: Final = {
    "set": set,
    "frozenset": frozenset,
    "list": list,
    "tuple": tuple,
    "bytes": bytes,
    "bytearray": bytes,
}


class UnsafePickleError(ValueError):
    """It is no pickle, is damaged, or does what is not followed."""


@dataclass(frozen=True, slots=True)
class Named:
    """What a pickle would import."""

    name: str


@dataclass(slots=True, eq=False)
class Made:
    """What a pickle would get from a call; nothing was called.

    Attributes:
        name: Full name of the class or function.
        arguments: The arguments.
        state: What it would be given afterwards.
        entries: Keys and values that it would be given.
        members: Elements that it would be given.
    """

    name: str
    arguments: tuple[Any, ...] = ()
    state: Any = None
    entries: dict[Any, Any] = field(default_factory=dict)
    members: list[Any] = field(default_factory=list)


def load(data: bytes) -> Any:
    """Return what a pickle describes, as plain values, NumPy's, and `Made` for all others.

    Raises:
        UnsafePickleError: If it cannot be followed to its end.
    """
    machine = _Machine()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if count > MOST_STEPS:
                raise UnsafePickleError(f"it has more than {MOST_STEPS:,} steps")
            machine.step(opcode.name, argument)
        return machine.result()
    except UnsafePickleError:
        raise
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
        MemoryError,
    ) as error:
        raise UnsafePickleError(f"it is damaged: {error}") from None


class _Machine:
    """The stack and the memo."""

    def __init__(self) -> None:
        """Begin empty."""
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def result(self) -> Any:
        """Return what is left."""
        [value] = self._stack
        return understand(value)

    def step(self, name: str, argument: Any) -> None:
        """Follow one opcode."""
        stack = self._stack
        if name in _PUSHED:
            stack.append(argument)
        elif name in _GETS:
            stack.append(self._memo[argument])
        elif name in _PUTS:
            self._memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            count = _TUPLES[name]
            stack[-count:] = [tuple(stack[-count:])]
        elif name not in _SAME:
            handle = getattr(self, f"_{name.lower()}", None)
            if handle is None:
                raise UnsafePickleError(f"it has the opcode {name}")
            handle(argument)

    def _popped(self) -> list[Any]:
        """Take all above the last mark."""
        at = len(self._stack) - 1
        while self._stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise UnsafePickleError("it lacks a mark")
        found = self._stack[at + 1 :]
        del self._stack[at:]
        return found

    def _mark(self, _: Any) -> None:
        self._stack.append(_MARK)

    def _pop(self, _: Any) -> None:
        self._stack.pop()

    def _pop_mark(self, _: Any) -> None:
        self._popped()

    def _dup(self, _: Any) -> None:
        self._stack.append(self._stack[-1])

    def _empty_tuple(self, _: Any) -> None:
        self._stack.append(())

    def _empty_list(self, _: Any) -> None:
        self._stack.append([])

    def _empty_dict(self, _: Any) -> None:
        self._stack.append({})

    def _empty_set(self, _: Any) -> None:
        self._stack.append(set())

    def _tuple(self, _: Any) -> None:
        self._stack.append(tuple(self._popped()))

    def _list(self, _: Any) -> None:
        self._stack.append(self._popped())

    def _dict(self, _: Any) -> None:
        self._stack.append(_pairs(self._popped()))

    def _frozenset(self, _: Any) -> None:
        self._stack.append(frozenset(map(_key, self._popped())))

    def _append(self, _: Any) -> None:
        self._extend([self._stack.pop()])

    def _appends(self, _: Any) -> None:
        self._extend(self._popped())

    def _extend(self, found: list[Any]) -> None:
        target = self._stack[-1]
        (target.members if isinstance(target, Made) else target).extend(found)

    def _additems(self, _: Any) -> None:
        found = self._popped()
        self._stack[-1].update(map(_key, found))

    def _setitem(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._update([key, value])

    def _setitems(self, _: Any) -> None:
        self._update(self._popped())

    def _update(self, found: list[Any]) -> None:
        target = self._stack[-1]
        (target.entries if isinstance(target, Made) else target).update(_pairs(found))

    def _global(self, argument: str) -> None:
        self._stack.append(Named(argument.replace(" ", ".")))

    def _stack_global(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not (
            isinstance(name, str) and isinstance(module, str)
        ):  # each would hold the last twice
            raise UnsafePickleError("it names something by what is no text")
        self._stack.append(Named(f"{module}.{name}"))

    def _reduce(self, _: Any) -> None:
        arguments, called = self._stack.pop(), self._stack.pop()
        self._stack.append(Made(_name(called), tuple(arguments)))

    def _newobj(self, argument: Any) -> None:
        self._reduce(argument)

    def _newobj_ex(self, argument: Any) -> None:
        self._stack.pop()
        self._reduce(argument)

    def _obj(self, _: Any) -> None:
        called, *arguments = self._popped()
        self._stack.append(Made(_name(called), tuple(arguments)))

    def _inst(self, argument: str) -> None:
        self._stack.append(Made(argument.replace(" ", "."), tuple(self._popped())))

    def _build(self, _: Any) -> None:
        state = self._stack.pop()
        if not isinstance(self._stack[-1], Made):
            raise UnsafePickleError("it gives a state to what has none")
        self._stack[-1].state = state

    def _persid(self, argument: Any) -> None:
        self._stack.append(Made("persistent", (argument,)))

    def _binpersid(self, _: Any) -> None:
        self._stack.append(Made("persistent", (self._stack.pop(),)))


def _name(called: Any) -> str:
    """Return the name of what would be called."""
    return called.name if isinstance(called, Named) else "unknown"


def _pairs(found: list[Any]) -> dict[Any, Any]:
    """Return keys and values in turn as a dict."""
    return {_key(key): value for key, value in zip(found[::2], found[1::2], strict=True)}


def _key(key: Any) -> Any:
    """Return what can be a key; one that nests would be hashed without a bound on its depth."""
    found = understand(key)
    if isinstance(found, tuple) and any(isinstance(each, (tuple, frozenset)) for each in found):
        raise UnsafePickleError("it has a key that is no plain value")
    return found


def understand(value: Any) -> Any:
    """Return a value of the pickle as one of Python or NumPy, where it is known for one.

    Only the outermost level is looked at.
    """
    if not isinstance(value, Made):
        return value
    try:
        return _understand(value)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, MemoryError):
        return value


def _understand(value: Made) -> Any:
    """Return what a call is known to give, or the call itself."""
    known = _NUMPY.fullmatch(value.name)
    make = _KNOWN.get(value.name if known is None else f"numpy:{known[1]}")
    if make is not None:
        return make(value)
    module, _, short = value.name.rpartition(".")
    if module in ("builtins", "__builtin__"):
        return _builtin(value, short)
    return value


def _scalar(value: Made) -> Any:
    """Return a number of NumPy."""
    kind, data = value.arguments
    return np.frombuffer(_raw(data), _dtype(kind), 1)[0]


def _reconstructed(value: Made) -> Any:
    """Return an array of NumPy that was pickled with a state."""
    _, shape, kind, fortran, data = value.state
    return _array(shape, kind, data, "F" if fortran else "C")


def _from_buffer(value: Made) -> Any:
    """Return an array of NumPy that was pickled by protocol 5."""
    data, kind, shape, order = value.arguments
    return _array(shape, kind, data, order)


def _encoded(value: Made) -> Any:
    """Return bytes, which protocol 2 has as text."""
    text, encoding = value.arguments
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(encoding)
    return text.encode("latin-1")


def _dict(value: Made) -> Any:
    """Return what a kind of dict holds."""
    pairs = value.arguments[0] if value.arguments else ()
    if isinstance(pairs, list):
        return OrderedDict(_pairs([part for pair in pairs for part in pair]))
    return OrderedDict(value.entries)


def _builtin(value: Made, short: str) -> Any:
    """Return a complex number, or a container made of another one."""
    parts = [understand(each) for each in value.arguments]
    if short == "complex":
        return complex(*parts)
    if short == "bytearray" and parts and isinstance(parts[0], str):
        return parts[0].encode("latin-1")
    if short in ("set", "frozenset") and parts:
        return _CONTAINERS[short](map(_key, parts[0]))
    if short in _CONTAINERS and all(isinstance(each, (list, tuple, bytes)) for each in parts):
        return _CONTAINERS[short](*parts)
    return value


_KNOWN: Final[dict[str, Callable[[Made], Any]]] = {
    "numpy:scalar": _scalar,
    "numpy:_reconstruct": _reconstructed,
    "numpy:_frombuffer": _from_buffer,
    "_codecs.encode": _encoded,
    "uuid.UUID": lambda value: UUID(int=value.state["int"]),
    "collections.OrderedDict": _dict,
    "collections.defaultdict": _dict,
}


def _dtype(kind: Any) -> np.dtype[Any]:
    """Return a plain type of NumPy, and no other."""
    if not isinstance(kind, Made) or kind.name != "numpy.dtype":
        raise ValueError("a type of NumPy is wanted")
    text = kind.arguments[0]
    text = text.decode("ascii") if isinstance(text, bytes) else text
    if not isinstance(text, str) or _KINDS.fullmatch(text) is None:
        raise ValueError(f"{text!r:.20} is no plain type")
    found: np.dtype[Any] = np.dtype(text)
    order = kind.state[1] if kind.state is not None else "="
    order = order.decode("ascii") if isinstance(order, bytes) else order
    if order == ">":
        return found.newbyteorder(">")
    return found.newbyteorder("<") if order == "<" else found


def _raw(data: Any) -> bytes:
    """Return bytes; a pickle of Python 2 has them as text."""
    found = understand(data)
    if isinstance(found, str):
        return found.encode("latin-1")
    if not isinstance(found, (bytes, bytearray)):
        raise TypeError("bytes are wanted")
    return bytes(found)


def _array(shape: Any, kind: Any, data: Any, order: Any) -> Any:
    """Return an array whose bytes are all there."""
    raw, known = _raw(data), _dtype(kind)
    if math.prod(shape) * known.itemsize != len(raw):
        raise ValueError("the size of an array does not fit its bytes")
    return np.frombuffer(raw, known).reshape(shape, order="F" if order == "F" else "C")


def simplify(value: Any, budget: int = 1_000_000) -> Any:
    """Return a value with all that is inside it understood.

    Raises:
        UnsafePickleError: If something in it is unknown, it contains itself, or is larger than
            `budget` values; a small pickle can describe a very large one.
    """
    left = [budget]

    def inside(each: Any, depth: int) -> Any:
        left[0] -= 1
        if left[0] < 0 or depth < 0:
            raise UnsafePickleError("it is too large, too deep, or contains itself")
        each = understand(each)
        if isinstance(each, (Made, Named)):
            raise UnsafePickleError(f"it needs {each.name:.100}")
        if isinstance(each, dict):
            return {inside(key, depth - 1): inside(of, depth - 1) for key, of in each.items()}
        if isinstance(each, (list, tuple, set, frozenset)):
            return type(each)(inside(of, depth - 1) for of in each)
        if isinstance(each, int) and each.bit_length() > _MOST_DIGITS:
            raise UnsafePickleError("it has an integer of thousands of digits")
        return each

    return inside(value, 100)
