"""Hyper-parameters as a typed JSON tree, and back.

What JSON has stands for itself: null, bool, int64, finite float64, text, list, dict with text for
keys. Whatever else can be rebuilt is an object with one member whose name begins with `$`. These
come back equal, and the comparison is the contract: `decode_config(encode_config(x)) == x`.

A few types become their plain counterpart, because analysis wants their content more than their
class: dataclass instances and namespaces become dicts, sets sorted lists, members of an enumeration
their value where that is plain, arrays and tensors of up to 10,000 elements nested lists, NumPy
scalars and 0-d arrays numbers. Anything else is kept for a person to read, as `$repr`: its type and
text. That is ISO 8601 for dates and times, and `repr` without memory addresses for the rest, so
that the same configuration gives the same tree.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import operator
import re
import sys
from collections.abc import Mapping
from datetime import date, time
from enum import Enum
from pathlib import PurePath, PurePosixPath
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from blackboxml.base.scalar import NON_FINITE, spell, to_number
from blackboxml.errors import ConfigError
from blackboxml.model import INT64_MAX, INT64_MIN, LIMITS

if TYPE_CHECKING:
    from collections.abc import Callable

Tree: TypeAlias = bool | int | float | str | list["Tree"] | dict[str, "Tree"] | None
"""A typed tree: JSON values and tagged objects."""

MAX_ARRAY_SIZE: Final = 10_000
"""Elements up to which an array is kept as nested lists."""

MAX_REPR: Final = 10_000
"""Characters of a `$repr`; longer texts end in `…`."""

_LEVELS_ABOVE: Final = 3
"""In `config.json` a tree of old values stands in document, `replaced`, and entry."""

_MAX_DIGITS: Final = 4_300
"""Decimal digits that Python converts to an int unless told otherwise."""

_PAIR: Final = 2


def encode_config(config: object) -> dict[str, Tree]:
    """Return `config` as a typed tree that shares nothing with it.

    Args:
        config: A mapping, a dataclass instance or a namespace such as `argparse.Namespace`. Where
            a key of a mapping is not text, or begins with `$`, its tree is a `$dict`.

    Raises:
        ConfigError: `config` is none of these, contains itself, or nests so deep that
            `config.json` would exceed 64 levels. Names the place, as in `config.model.layers[3]`.

    >>> encode_config({"lr": 0.1, "betas": (0.9, 0.999)})
    {'lr': 0.1, 'betas': {'$tuple': [0.9, 0.999]}}
    """
    fields = _fields(config)
    if fields is None:
        raise ConfigError(
            f"config is a {type(config).__name__}; give a mapping, a dataclass instance or an "
            "argparse.Namespace"
        )
    place = _Place("config", _LEVELS_ABOVE, ())
    return _mapping(fields, place.inside(config, 1))


def decode_config(tree: Mapping[str, Any]) -> dict[Any, Any]:
    """Return the configuration that a typed tree stands for.

    `$path` gives a `pathlib.PurePosixPath`, `$repr` its text. A tag that this version does not know
    is left as it stands, and so is a `$dict` whose keys cannot be those of a dict, or not all at
    once, such as `[1]`, or `1` and `1.0`: it gives `{"$dict": [[key, value], …]}`.

    Raises:
        ConfigError: The tree is not one of a mapping, nests deeper than 64 levels, or the content
            of a tag is not what the format says. Names the place.
    """
    config = _decode(tree, "config", 1)
    if not isinstance(config, dict):
        raise ConfigError(f"config is a {type(config).__name__}, not an object")
    return config


# ---- encoding ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class _Place:
    path: str
    depth: int  # JSON arrays and objects that are open here
    parents: tuple[int, ...]  # identities of the containers that are open here

    def at(self, key: object) -> _Place:
        """Return the place of a member of the container that is open here."""
        plain = isinstance(key, str) and key.isidentifier()
        step = f".{key}" if plain else f"[{key!r:.40}]"
        return _Place(self.path + step, self.depth, self.parents)

    def inside(self, value: object, levels: int) -> _Place:
        """Open a container that takes so many levels of JSON."""
        if id(value) in self.parents:
            raise ConfigError(f"{self.path} is a {type(value).__name__} that contains itself")
        parents = (*self.parents, id(value))
        return _Place(self.path, self.deeper(levels), parents)

    def deeper(self, levels: int) -> int:
        """Return the depth that many levels further down."""
        if self.depth + levels > LIMITS.depth:
            raise ConfigError(
                f"{self.path} nests deeper than {LIMITS.depth} levels of JSON; flatten it"
            )
        return self.depth + levels


def _encode(value: Any, place: _Place) -> Tree:
    kind = type(value)
    if value is None or kind is bool:
        return value  # type: ignore[no-any-return]
    try:
        for kinds, encode in _ENCODERS:
            if issubclass(kind, kinds):
                return encode(value, place)
        return _object(value, place)
    except ConfigError:
        raise
    except Exception:  # noqa: BLE001 - a foreign object that cannot be taken apart is described
        return _repr(value, place)


def _tag(name: str, content: str, place: _Place) -> Tree:
    place.deeper(1)
    return {name: content}


def _member(value: Any, place: _Place) -> Tree:
    plain = value.value is None or isinstance(value.value, (bool, int, float, str))
    return _encode(value.value, place) if plain else _repr(value, place)


def _text(value: str, place: _Place) -> Tree:
    text = str.__str__(value)
    return text if _is_unicode(text) else _repr(value, place)


def _integer(value: int, place: _Place) -> Tree:
    number = operator.index(value)
    if INT64_MIN <= number <= INT64_MAX:
        return number
    if number.bit_length() * math.log10(2) < _MAX_DIGITS - 1:
        return _tag("$int", str(number), place)
    return _repr(value, place, hex(number))


def _float(value: float, place: _Place) -> Tree:
    number = float.__float__(value)
    spelled = spell(number)
    return _tag("$float", spelled, place) if isinstance(spelled, str) else spelled


def _path(value: PurePath, place: _Place) -> Tree:
    text = value.as_posix()
    return _tag("$path", text, place) if _is_unicode(text) else _repr(value, place)


def _bytes(value: bytes, place: _Place) -> Tree:
    return _tag("$bytes", base64.b64encode(value).decode("ascii"), place)


def _list(value: list[Any], place: _Place) -> list[Tree]:
    place = place.inside(value, 1)
    return [_encode(item, place.at(index)) for index, item in enumerate(value)]


def _tuple(value: tuple[Any, ...], place: _Place) -> Tree:
    place = place.inside(value, 2)
    return {"$tuple": [_encode(item, place.at(index)) for index, item in enumerate(value)]}


def _set(value: set[Any] | frozenset[Any], place: _Place) -> Tree:
    def order(item: Tree) -> tuple[bool, float, str]:
        if isinstance(item, (bool, int, float)):
            return (False, item, "")
        return (True, 0, json.dumps(item))

    place = place.inside(value, 1)
    return sorted((_encode(item, place) for item in value), key=order)


def _map(value: Mapping[Any, Any], place: _Place) -> Tree:
    return _mapping(value, place.inside(value, 1))


def _mapping(fields: Mapping[Any, Any], place: _Place) -> dict[str, Tree]:
    items = list(fields.items())
    if all(isinstance(key, str) and key[:1] != "$" and _is_unicode(key) for key, _ in items):
        return {str.__str__(key): _encode(item, place.at(key)) for key, item in items}
    place = dataclasses.replace(place, depth=place.deeper(2))
    pairs: list[Tree] = [[_key(key, place), _encode(item, place.at(key))] for key, item in items]
    return {"$dict": pairs}


def _key(key: object, place: _Place) -> Tree:
    """Encode a key so that it can be one again: what would become a list or a dict is `$repr`."""
    tree = _encode(key, place.at(key))
    try:
        hash(_decode(tree, place.path, place.depth))
    except TypeError:
        return _repr(key, place)
    return tree


def _fields(value: object) -> Mapping[Any, Any] | None:
    kind = type(value)
    if isinstance(value, Mapping):
        return value
    if dataclasses.is_dataclass(kind):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(kind)}
    argparse: Any = sys.modules.get("argparse")  # a namespace of it means that it is loaded
    namespaces = (SimpleNamespace, getattr(argparse, "Namespace", SimpleNamespace))
    return vars(value) if issubclass(kind, namespaces) else None


def _object(value: Any, place: _Place) -> Tree:
    fields = _fields(value)
    if fields is not None:
        return _mapping(fields, place.inside(value, 1))
    # Those of pandas, which have iloc, would lose their labels.
    if not hasattr(value, "shape") or hasattr(value, "iloc"):
        return _repr(value, place)
    shape = tuple(map(int, value.shape))
    if not shape:
        return _encode(to_number(value), place)
    is_time = getattr(getattr(value, "dtype", None), "kind", None) in ("m", "M")
    if is_time or math.prod(shape) > MAX_ARRAY_SIZE:
        return _repr(value, place)
    array = value if hasattr(value, "tolist") else value.numpy()
    return _list(array.tolist(), place)


def _repr(value: Any, place: _Place, text: str | None = None) -> Tree:
    place.deeper(2)
    kind = type(value)
    if text is None:
        try:
            # An address differs from run to run, though the configuration is the same.
            iso = issubclass(kind, (date, time))
            text = value.isoformat() if iso else re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))
        except Exception as error:  # noqa: BLE001 - a configuration must not fail for its looks
            text = f"<{kind.__qualname__} whose repr raised {type(error).__name__}>"
    if len(text) > MAX_REPR:
        text = text[: MAX_REPR - 1] + "…"
    text = text.encode(errors="backslashreplace").decode()
    return {"$repr": {"type": f"{kind.__module__}.{kind.__qualname__}", "text": text}}


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate, as in the name of a file that is not UTF-8
        return False
    return True


_ENCODERS: Final[tuple[tuple[type | tuple[type, ...], Callable[[Any, _Place], Tree]], ...]] = (
    (Enum, _member),  # before the number or text that a member may be as well
    (str, _text),
    (int, _integer),
    (float, _float),
    (list, _list),
    (tuple, _tuple),
    (Mapping, _map),
    ((set, frozenset), _set),
    (PurePath, _path),
    ((bytes, bytearray, memoryview), _bytes),
)


# ---- decoding ----------------------------------------------------------------------------------


def _decode(tree: Any, path: str, depth: int) -> Any:
    if not isinstance(tree, (list, dict)):
        if type(tree) is int and not INT64_MIN <= tree <= INT64_MAX:
            raise ConfigError(f"{path} is {tree}, beyond int64; it is spelled as $int")
        return tree
    if depth > LIMITS.depth:
        raise ConfigError(f"{path} nests deeper than {LIMITS.depth} levels of JSON")
    if isinstance(tree, list):
        return [_decode(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(tree)]
    if len(tree) == 1:
        [(tag, content)] = tree.items()
        decode = _DECODERS.get(tag)
        if decode is not None:
            try:
                return decode(content, path, depth + 1)
            except ConfigError:
                raise
            except (ArithmeticError, LookupError, TypeError, ValueError) as error:
                raise ConfigError(f"{path} has a damaged {tag}: {error}") from error
    return {key: _decode(item, f"{path}.{key}", depth + 1) for key, item in tree.items()}


def _decode_int(content: Any, _path: str, _depth: int) -> int:
    if len(content) > _MAX_DIGITS or re.fullmatch(r"-?[1-9][0-9]*", content) is None:
        raise ValueError("wanted the decimal digits of an integer")
    return int(content)


def _decode_list(content: Any, path: str, depth: int) -> list[Any]:
    if not isinstance(content, list):
        raise TypeError(f"wanted an array, not {type(content).__name__}")
    return [_decode(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(content)]


def _decode_dict(content: Any, path: str, depth: int) -> dict[Any, Any]:
    if not all(isinstance(pair, list) and len(pair) == _PAIR for pair in content):
        raise TypeError("wanted pairs of key and value")
    pairs = _decode_list(content, path, depth)
    try:
        found = dict(pairs)
    except TypeError:  # a key is a list or a mapping
        return {"$dict": pairs}
    return found if len(found) == len(pairs) else {"$dict": pairs}


def _decode_text(content: Any, _path: str, _depth: int) -> str:
    if not isinstance(content["text"], str):
        raise TypeError("wanted a text")
    return content["text"]


_DECODERS: Final[dict[str, Callable[[Any, str, int], Any]]] = {
    "$float": lambda content, _path, _depth: NON_FINITE[content],
    "$int": _decode_int,
    "$tuple": lambda content, path, depth: tuple(_decode_list(content, path, depth)),
    "$dict": _decode_dict,
    "$path": lambda content, _path, _depth: PurePosixPath(content),
    "$bytes": lambda content, _path, _depth: base64.b64decode(content, validate=True),
    "$repr": _decode_text,
}
