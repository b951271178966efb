"""What a medium may be: its value by its kind, and what else a record says of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict

import orjson

from blackboxml.base.scalar import NON_FINITE, spell, to_number
from blackboxml.errors import MetricError
from blackboxml.model import INT64_MAX

if TYPE_CHECKING:
    import os

LARGEST_VALUE: Final = 64 * 2**10
"""A value of more bytes than this goes into a file (BB-MED-009)."""

DIMENSION: Final = re.compile(
    r"(?!(?:draw|step|time|rank|attempt|seq)\Z)[A-Za-z_][A-Za-z0-9_-]{0,63}\Z"
)
"""What a dimension may be called."""

_JSON_FILES: Final = frozenset(["figure", "artifact"])
"""Kinds that are in files alone, of which one may be JSON."""

_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+")
_SHA256: Final = re.compile("[0-9a-f]{64}")
DEEPEST: Final = 60
"""Levels of lists and objects in a value; its record may have four more."""

_PLAIN: Final = (
    orjson.OPT_STRICT_INTEGER
    | orjson.OPT_PASSTHROUGH_SUBCLASS
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
)
_IN_FILES: Final = frozenset(["image", "array", "figure", "artifact"])


class Content(TypedDict, total=False):
    """What a medium is: one of `value`, `data`, `path` and `reference`, and what is said of it.

    Attributes:
        value: The thing itself as JSON; put into a file if it takes more than 64 KiB.
        data: The content of its file.
        path: The file, which is copied.
        link: Link the file where the file system can, in place of copying it. What is written
            into it later changes the run too.
        reference: `uri` of an artifact that stays where it is, and `bytes` and `sha256` if they
            are known.
        media_type: Such as `image/png`.
        dims: Names of the dimensions of an array.
        entry: Path of the file in a folder that is one artifact.
        folder: Where the file goes; `media` by default.
        time: Unix seconds; by default now.
    """

    value: Any
    data: bytes | None
    path: str | os.PathLike[str] | None
    link: bool
    reference: Mapping[str, Any] | None
    media_type: str | None
    dims: Sequence[str] | None
    entry: str | None
    folder: Literal["media", "artifacts"]
    time: float | None


def value_fault(kind: str, value: Any) -> str | None:
    """Return what is wrong with a value as it stands in a record, None if nothing is.

    Args:
        kind: The kind of the medium; of one that this version does not know, any value is right.
        value: Any JSON, numbers that JSON lacks spelled as in a journal.
    """
    if kind in _IN_FILES:
        return f"what is of the kind {kind!r} is in a file, and has no value"
    if kind == "text":
        return None if isinstance(value, str) else "wanted a text"
    if kind == "histogram":
        return _histogram_fault(value)
    if kind == "table":
        return _table_fault(value)
    if kind == "graph":
        return _lists_fault(value, "nodes", "edges")
    return None


def _histogram_fault(value: Any) -> str | None:
    """Return what is wrong with a histogram."""
    if fault := _lists_fault(value, "edges", "counts"):
        return fault
    edges, counts = value["edges"], value["counts"]
    if not all(map(_is_number, [*edges, *counts])):
        return '"edges" and "counts" hold numbers'
    if len(edges) != len(counts) + 1:
        return f"{len(edges):,} edges and {len(counts):,} counts, wanted one edge more than counts"
    numbers = [float(edge) for edge in edges]
    if not all(left <= right for left, right in pairwise(numbers)):
        return '"edges" do not ascend'
    return None


def _table_fault(value: Any) -> str | None:
    """Return what is wrong with a table."""
    if fault := _lists_fault(value, "columns", "rows"):
        return fault
    columns, rows = value["columns"], value["rows"]
    if not all(isinstance(name, str) for name in columns):
        return '"columns" holds names'
    for at, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(columns):
            return f"row {at:,} is not a list of one cell for each column"
    return None


def _lists_fault(value: Any, *names: str) -> str | None:
    """Return that a value is no object with certain lists, None if it is."""
    if isinstance(value, dict) and all(isinstance(value.get(name), list) for name in names):
        return None
    return f"wanted an object with the lists {' and '.join(names)}"


def _is_number(value: Any) -> bool:
    """Tell whether a value is a number as a record spells it."""
    if isinstance(value, str):
        return value in NON_FINITE
    return isinstance(value, int | float) and not isinstance(value, bool)


def take_value(medium: dict[str, Any], value: Any) -> bytes | None:
    """Put a value into a medium if it may stand there; return it as the content of a file if not.

    Args:
        medium: `name`, `kind` and perhaps `media_type`; receives `value` or `media_type`.
        value: The thing itself.

    Raises:
        MetricError: If it is nothing for its kind.
    """
    name, kind = medium["name"], medium["kind"]
    plain, text = _plain_json(value, name)
    fault = value_fault(kind, plain)
    if fault is not None and kind not in _JSON_FILES:
        message = f"the value of medium {name!r:.80} is no {kind}: {fault}"
        raise MetricError(message)
    if fault is None and len(text) <= LARGEST_VALUE:
        medium["value"] = plain
        return None
    if kind == "text" and isinstance(plain, str):
        medium.setdefault("media_type", "text/plain")
        return plain.encode()
    medium.setdefault("media_type", "application/json")
    return text


def _plain_json(value: Any, name: str) -> tuple[Any, bytes]:
    """Return a value as JSON that owes nothing to the caller's objects, and its text.

    Raises:
        MetricError: If it holds something that JSON cannot, or nests too deep.
    """
    try:
        text = orjson.dumps(value, None, _PLAIN)
        if b"null" not in text:  # so it spells NaN, too
            return orjson.loads(text), text
    except TypeError:
        pass  # what only the careful way can turn into JSON
    plain = _plain(value, name, DEEPEST)
    return plain, orjson.dumps(plain)


def _plain(value: Any, name: str, depth: int) -> Any:
    """Return a value as JSON, numbers that are not finite spelled as in a journal.

    Raises:
        MetricError: If it holds something that JSON cannot, or nests too deep.
    """
    if depth < 0:
        message = f"the value of medium {name!r:.80} nests deeper than {DEEPEST} levels"
        raise MetricError(message)
    match value:
        case str():
            return _text(value, f"a text in the value of medium {name!r:.80}", least=0)
        case None | bool():
            return value
        case dict() if all(isinstance(key, str) for key in value):
            what = f"a name in the value of medium {name!r:.80}"
            return {
                _text(key, what, least=0): _plain(each, name, depth - 1)
                for key, each in value.items()
            }
        case list() | tuple():
            return [_plain(each, name, depth - 1) for each in value]
    try:
        return spell(to_number(value))
    except ValueError as error:
        message = f"the value of medium {name!r:.80} cannot be stored as JSON: {error}"
        raise MetricError(message) from None


def check_dims(name: str, kind: str, dims: object) -> list[str]:
    """Return the names of the dimensions of an array.

    Raises:
        MetricError: If they are not different names that a dimension may have.
    """
    listed = isinstance(dims, Sequence) and not isinstance(dims, str)
    found: list[Any] = list(dims) if listed else [dims]  # type: ignore[call-overload]
    if kind != "array" or len(set(map(str, found))) < len(found):
        message = f"dims of the {kind} {name!r:.80} are {dims!r:.80}, wanted names for an array"
        raise MetricError(message)
    for each in found:
        if not isinstance(each, str) or not DIMENSION.match(each):
            message = (
                f"the dimension {each!r:.80} of medium {name!r:.80} cannot be called so: a name "
                "has letters, digits, _ and -, and is none of draw, step, time, rank, attempt, seq"
            )
            raise MetricError(message)
    return found


def check_reference(name: str, kind: str, reference: object) -> dict[str, Any]:
    """Return a reference to something outside the run.

    Raises:
        MetricError: If the medium is no artifact, or the reference is none.
    """
    said = dict(reference) if isinstance(reference, Mapping) else {}
    uri, size, sha256 = (said.get(key) for key in ("uri", "bytes", "sha256"))
    wrong = ""
    if kind != "artifact" or not said.keys() <= {"uri", "bytes", "sha256"}:
        wrong = f"the reference of the {kind} {name!r:.80} is {reference!r:.200}"
    elif not isinstance(uri, str) or not _URI.fullmatch(uri):
        wrong = f"the reference of medium {name!r:.80} names {uri!r:.200}, wanted an absolute URI"
    elif size is not None and not (type(size) is int and 0 <= size <= INT64_MAX):
        wrong = f"the reference of medium {name!r:.80} has {size!r:.80} bytes"
    elif sha256 is not None and not (isinstance(sha256, str) and _SHA256.fullmatch(sha256)):
        wrong = f"the reference of medium {name!r:.80} has the SHA-256 {sha256!r:.80}"
    if wrong:
        raise MetricError(wrong)
    return {key: each for key, each in said.items() if each is not None}


def check_entry(name: str, entry: object) -> str:
    """Return the path of a file in a folder that is one artifact.

    Raises:
        MetricError: If it is no text.
    """
    return _text(entry, f"the entry of medium {name!r:.80}")


def _text(text: object, what: str, least: int = 1) -> str:
    """Return a text of a least length that can be stored."""
    if isinstance(text, str) and len(text) >= least:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            message = f"{what} is no valid text: {error}"
            raise MetricError(message) from None
        return str(text)
    message = f"{what} is {text!r:.80}, wanted text"
    raise MetricError(message)
