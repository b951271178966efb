"""How an answer differs from what a case expects; numbers by value, in the type of their column."""

from __future__ import annotations

import json
import math
import re
import struct
from typing import TYPE_CHECKING, Any, Final

from blackboxml.base.scalar import NON_FINITE
from blackboxml.model import INT64_MAX, INT64_MIN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)")
_FLOAT: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_PLACE: Final = ("file", "line", "offset", "pointer")
_INDEX: Final = {
    "step": "int64",
    "time": "float64",
    "attempt": "int64",
    "rank": "int64",
    "seq": "int64",
    "effective": "bool",
}
_INSIDE: Final = frozenset(["tuple", "mapping", "unknown"])
_MOST: Final = 20
_MISSING: Final = object()


class _FormError(ValueError):
    """A value is not of the form that the protocol gives it."""


def compare_validate(expect: dict[str, Any], answer: dict[str, Any]) -> list[str]:
    """Return how the verdict and the findings differ."""
    verdict, found = answer.get("verdict"), answer.get("findings")
    differences = []
    if verdict != expect["verdict"]:
        differences.append(f"the verdict is {verdict!r}, wanted {expect['verdict']!r}")
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        return [*differences, "there is no array of findings"]
    have = {_finding(each) for each in found}
    want = {_finding(each) for each in expect["findings"]}
    differences += [f"not found: {each}" for each in sorted(want - have)]
    differences += [f"not expected: {each}" for each in sorted(have - want)]
    return differences[:_MOST]


def compare_read(expect: dict[str, Any], answer: dict[str, Any]) -> list[str]:
    """Return how the values that a reader gives differ; what is not expected is not compared."""
    wanted = expect["read"]
    refused = bool(wanted.get("refused", False))
    if bool(answer.get("refused", False)) != refused:
        return [f"the run was {'not ' * refused}refused"]
    if refused:
        return []
    differences: list[str] = []
    for member, want in wanted.items():
        have = answer.get(member, _MISSING)
        if have is _MISSING:
            differences.append(f"{member} is missing")
            continue
        try:
            differences += _MEMBERS.get(member, _compare_json)(member, want, have)
        except (_FormError, KeyError, TypeError, ValueError) as error:
            differences.append(f"{member} is not of the form it has to be: {error!r:.300}")
    return differences[:_MOST]


def _finding(finding: dict[str, Any]) -> str:
    """Return a finding as text, without what does not count."""
    place = {key: finding[key] for key in _PLACE if finding.get(key) not in {None, ""}}
    return json.dumps({"rule": finding["rule"], "severity": finding["severity"]} | place)


def _compare_json(member: str, want: Any, have: Any) -> Iterator[str]:
    """Compare texts and arrays of texts as they stand."""
    if want != have or type(want) is not type(have):
        yield f"{member} is {_short(have)}, wanted {_short(want)}"


def _compare_config(member: str, want: Any, have: Any) -> Iterator[str]:
    """Compare typed trees."""
    yield from _compare_tree(member, want, have)


def _compare_tree(place: str, want: Any, have: Any) -> Iterator[str]:
    """Compare two values of a configuration."""
    kind = next(iter(want)) if isinstance(want, dict) else ""
    if kind == "tuple" and isinstance(have, list):
        have = {"tuple": have}
    if kind == "repr" and isinstance(have, str):
        have = {"repr": {**want["repr"], "text": have}}
    if isinstance(want, list) and isinstance(have, list):
        yield from _compare_items(place, want, have)
    elif kind in _INSIDE and isinstance(have, dict) and list(have) == [kind]:
        yield from _compare_items(place, want[kind], have[kind])
    elif _plain(kind, want) != _plain(kind, have):
        yield f"{place} is {_short(have)}, wanted {_short(want)}"


def _plain(kind: str, value: Any) -> Any:
    """Return a value without others inside so that equal ones are equal."""
    if kind in {"int64", "float64"} and isinstance(value, dict) and list(value) == [kind]:
        return _number(kind, value[kind])
    return type(value), value


def _compare_items(place: str, want: list[Any], have: list[Any]) -> Iterator[str]:
    """Compare two arrays of values."""
    if len(want) != len(have):
        yield f"{place} has {len(have)} items, wanted {len(want)}"
        return
    for at, (each, other) in enumerate(zip(want, have, strict=True)):
        yield from _compare_tree(f"{place}/{at}", each, other)


def _compare_groups(member: str, want: Any, have: Any) -> Iterator[str]:
    """Compare all groups."""
    names = [[group["group"] for group in groups] for groups in (want, have)]
    if names[0] != names[1]:
        yield f"{member} are {_short(names[1])}, wanted {_short(names[0])}"
        return
    for expected, found in zip(want, have, strict=True):
        yield from _compare_group(f"group {expected['group']!r}", expected, found)


def _compare_group(place: str, want: dict[str, Any], have: dict[str, Any]) -> Iterator[str]:
    """Compare the rows and columns of one group."""
    if want.get("unreadable", False) or have.get("unreadable", False):
        if want.get("unreadable", False) != have.get("unreadable", False):
            yield f"{place} is {'not ' * bool(want.get('unreadable'))}unreadable"
        return
    for name, kind in _INDEX.items():
        yield from _compare_values(f"{place}, {name}", kind, want[name], have[name])
    heads = [[_head(column) for column in group["columns"]] for group in (want, have)]
    if heads[0] != heads[1]:
        yield f"{place} has the columns {_short(heads[1])}, wanted {_short(heads[0])}"
        return
    for column, found in zip(want["columns"], have["columns"], strict=True):
        where = f"{place}, {'/'.join(filter(None, (column['metric'], column.get('statistic'))))}"
        yield from _compare_values(where, column["type"], column["values"], found["values"])


def _head(column: dict[str, Any]) -> dict[str, Any]:
    """Return what a column says of itself."""
    names = ("metric", "statistic", "type", "unit", "description")
    return {name: column[name] for name in names if column.get(name) is not None}


def _compare_values(place: str, kind: str, want: list[Any], have: list[Any]) -> Iterator[str]:
    """Compare two columns; the first difference is told."""
    left, right = ([_value(kind, each) for each in values] for values in (want, have))
    if len(left) != len(right):
        yield f"{place} has {len(right)} values, wanted {len(left)}"
        return
    for row, (each, other) in enumerate(zip(left, right, strict=True)):
        if each != other:
            yield f"{place}, row {row}, is {_short(have[row])}, wanted {_short(want[row])}"
            return


def _compare_sets(*numbers: str) -> Callable[[str, Any, Any], Iterator[str]]:
    """Return what compares arrays whose order does not count; `numbers` are int64."""

    def keys(found: Iterable[Any]) -> set[str]:
        return {json.dumps(_normal(each, numbers), sort_keys=True) for each in found}

    def compare(member: str, want: Any, have: Any) -> Iterator[str]:
        left, right = keys(want), keys(have)
        yield from (f"{member} lacks {each}" for each in sorted(left - right))
        yield from (f"{member} has {each} too" for each in sorted(right - left))

    return compare


def _normal(entry: Any, numbers: Iterable[str]) -> Any:
    """Return an entry with its numbers as such."""
    if not isinstance(entry, dict):
        return entry
    return entry | {name: _value("int64", entry[name]) for name in numbers}


def _value(kind: str, value: Any) -> Any:
    """Return a value so that equal ones are equal, null included."""
    return None if value is None else _number(kind, value)


def _number(kind: str, value: Any) -> Any:
    """Return a number of a type so that equal ones are equal."""
    if kind == "bool":
        if isinstance(value, bool):
            return value
    elif kind == "int64":
        if isinstance(value, str) and _INTEGER.fullmatch(value):
            value = int(value)
        if type(value) is int and INT64_MIN <= value <= INT64_MAX:
            return value
    elif kind == "float64":
        if isinstance(value, str):
            if value not in NON_FINITE and not _FLOAT.fullmatch(value):
                raise _FormError(f"{value!r:.80} is no float64")
            value = NON_FINITE[value] if value in NON_FINITE else float(value)
        if type(value) in {int, float}:
            return "NaN" if math.isnan(value) else struct.pack(">d", value)
    raise _FormError(f"{value!r:.80} is no {kind}")


def _short(value: Any) -> str:
    """Return a value as JSON, shortened."""
    return f"{json.dumps(value, default=str):.300}"


_MEMBERS: Final[dict[str, Callable[[str, Any, Any], Iterator[str]]]] = {
    "config": _compare_config,
    "groups": _compare_groups,
    "damaged": _compare_sets("line", "offset"),
    "lost": _compare_sets("attempt", "rank", "first", "last"),
    "left_out": _compare_sets(),
}
