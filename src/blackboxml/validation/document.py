"""Strict JSON documents, and their schemas."""

from __future__ import annotations

import codecs
import json
import re
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import orjson

from blackboxml import published
from blackboxml.base import schema
from blackboxml.errors import LimitError, UnsupportedVersionError
from blackboxml.journal import check_format

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from jsonschema.exceptions import ValidationError

    from blackboxml.validation.subject import Subject

_MOST: Final = 50
"""Breaches of a schema that are reported of one document or line."""

_OTHER: Final = object()
_PRETTY: Final = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
_MOST_DIGITS: Final = 4000
REFUSALS: Final = frozenset(["BB-VER-001", "BB-VER-006"])
"""Rules whose breach says that a newer reader is needed."""

_FEATURE = re.compile("[a-z0-9][a-z0-9.-]{0,63}")
_SURROGATE = re.compile("[\ud800-\udfff]")
_LONGEST_MESSAGE: Final = 300


def parse(data: bytes, depth: int, *, shorten: bool = False) -> Any:
    """Return a JSON document.

    Args:
        data: The whole file.
        depth: Most levels of arrays and objects.
        shorten: Take the first digits of an integer that has thousands, rather than refuse it.

    Raises:
        LimitError: If it is nested deeper.
        ValueError: Saying why it is no strict JSON document in UTF-8.
    """
    document = _parse_canonical(data, depth)
    if document is not _OTHER:
        return document
    if not data:
        raise ValueError("it is empty")
    if b"\0" in data:
        raise ValueError(f"it holds a NUL byte at offset {data.index(0)}")
    if data.startswith(codecs.BOM_UTF8):
        raise ValueError("it begins with a byte order mark")
    try:
        document = json.loads(
            data.decode(),
            object_pairs_hook=_unique,
            parse_constant=_refuse,
            parse_int=_shortened if shorten else _integer,
        )
    except RecursionError:
        raise LimitError(f"it is nested deeper than {depth} levels") from None
    for _, value, level in walk(document):
        if level > depth:
            raise LimitError(f"it is nested deeper than {depth} levels")
        texts = [value] if isinstance(value, str) else value if isinstance(value, dict) else []
        if any(_SURROGATE.search(text) for text in texts):
            raise ValueError("it holds a lone surrogate, which is no Unicode")
    return document


def _parse_canonical(data: bytes, depth: int) -> Any:
    """Return a document that is spelled as programs write it, `_OTHER` if it is not.

    What is spelled again byte for byte repeats no key, holds no number beyond its type, and no text
    that is not Unicode.
    """
    nested = data.count(b"{") + data.count(b"[") > depth
    if nested and b"\n" + b"  " * depth in data:
        return _OTHER
    try:
        document = orjson.loads(data)
        if orjson.dumps(document, option=_PRETTY) == data:
            return document
        if not nested and orjson.dumps(document) == data:
            return document
    except (ValueError, TypeError):
        pass
    return _OTHER


def walk(
    document: Any,
    enter: Callable[[Any], bool] = lambda _: True,
) -> Iterator[tuple[Place, Any, int]]:
    """Yield every value inside a JSON document, itself first, with its place and its level.

    Args:
        document: The document.
        enter: Tells whether to look inside a value.

    Yields:
        Where the value is, the value, and the count of arrays and objects that it is in, itself
        included if it is one.
    """
    stack: list[tuple[Place, Any, int]] = [(None, document, 0)]
    while stack:
        place, value, above = stack.pop()
        inside: Iterable[tuple[Any, Any]] = ()
        level = above
        if isinstance(value, dict):
            inside, level = value.items(), above + 1
        elif isinstance(value, list):
            inside, level = enumerate(value), above + 1
        yield place, value, level
        if inside and enter(value):
            stack += [((place, key), inner, level) for key, inner in inside]


Place = tuple[Any, Any] | None
"""The place of what a value is in, and its key there; None for the document."""


def pointer_to(place: Place) -> str:
    """Return the JSON pointer of a place that `walk` gave."""
    keys = []
    while place is not None:
        place, key = place
        keys.append(key)
    return pointer(reversed(keys))


def pointer(keys: Iterable[Any]) -> str:
    """Return keys and indices as a JSON pointer (RFC 6901)."""
    return "".join(f"/{str(key).replace('~', '~0').replace('/', '~1')}" for key in keys)


def check_version(
    subject: Subject,
    document: Any,
    name: str,
    file: str,
    rule: str,
    *,
    line: int | None = None,
) -> bool:
    """Tell whether this version of the validator may judge a document; report if not.

    Args:
        subject: The run.
        document: Any JSON.
        name: Name of the format that it has to be.
        file: Where it stands.
        rule: The rule that is broken by a document of another format.
        line: Its line in the file, which is the first if it has lines.
    """
    offset = None if line is None else 0
    form = document.get("format") if isinstance(document, dict) else None
    subject.look("BB-VER-001", "BB-VER-003", "BB-VER-006")
    if isinstance(form, dict):
        _check_feature_names(subject, form.get("features"), file, line)
    if not isinstance(form, dict) or not isinstance(form.get("version"), str):
        message = f'"format" is {form!r:.80}, wanted the name {name!r} and a version'
        subject.report(rule, message, file, line=line, offset=offset)
        return False
    try:
        check_format(document, name)
    except UnsupportedVersionError as error:
        known = form["version"].partition(".")[0] == published.VERSION.partition(".")[0]
        broken = "BB-VER-006" if known else "BB-VER-001"
        cure = "pip install -U blackboxml"
        subject.report(
            broken, str(error), file, line=line, offset=offset, pointer="/format", cure=cure
        )
        return False
    except (TypeError, ValueError) as error:
        subject.report(rule, str(error)[:_LONGEST_MESSAGE], file, line=line, offset=offset)
        return False
    if published.is_newer(form["version"]):
        message = f"it is of version {form['version']}, newer than {published.newest()}"
        subject.report(
            "BB-VER-003",
            message,
            file,
            severity="warning",
            line=line,
            offset=offset,
            pointer="/format/version",
        )
    return True


def _check_feature_names(subject: Subject, features: Any, file: str, line: int | None) -> None:
    """Check how features are called, be they known or not."""
    for at, name in enumerate(features if isinstance(features, list) else []):
        subject.look("BB-VER-007")
        if not isinstance(name, str) or not _FEATURE.fullmatch(name):
            message = f"the feature {name!r:.80} is not named by [a-z0-9][a-z0-9.-]{{0,63}}"
            where = f"/format/features/{at}"
            offset = None if line is None else 0
            subject.report("BB-VER-007", message, file, line=line, offset=offset, pointer=where)


def check_schema(
    subject: Subject,
    document: Any,
    name: str,
    file: str,
    rule: str | Callable[[ValidationError, list[Any]], str],
    *,
    line: int | None = None,
    offset: int | None = None,
    cure: str | None = None,
) -> bool:
    """Tell whether a document is valid against a schema; report what is not.

    Args:
        subject: The run.
        document: Any JSON.
        name: Name of the schema.
        file: Where the document stands.
        rule: The rule that is broken, or what tells it from an error and its place.
        line: The line in the file.
        offset: The offset in the file.
        cure: What mends it.
    """
    version = published.judge_of(_version_of(document))
    if schema.is_valid(name, document, version):
        return True
    valid = True
    for error in islice(schema.validator(name, version).iter_errors(document), _MOST):
        valid = False
        place = _place(error, document)
        subject.report(
            rule if isinstance(rule, str) else rule(error, place),
            _describe(error, place),
            file,
            line=line,
            offset=offset,
            pointer=pointer(place),
            cure=cure,
        )
    return valid


def _version_of(document: Any) -> object:
    """Return the version that a document says it is of; a record says none."""
    form = document.get("format") if isinstance(document, dict) else None
    return form.get("version") if isinstance(form, dict) else None


def equal(left: Any, right: Any) -> bool:
    """Tell whether two JSON values are the same: 1 and 1.0 are, 1 and true are not."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(equal, left, right))
    return bool(left == right)


def _place(error: ValidationError, document: Any) -> list[Any]:
    """Return the keys that lead to an error.

    The library leaves out the last one where the schema of a member is `false`.
    """
    keys = list(error.absolute_path)
    if error.schema is False:
        for key in keys:
            document = document[key]
        if isinstance(document, dict):
            keys += [key for key, value in document.items() if value is error.instance][:1]
    return keys


def _describe(error: ValidationError, place: list[Any]) -> str:
    """Return what was found and what was wanted, shortened."""
    if error.schema is False:
        return f"{place[-1] if place else 'it'!r} must not be here"
    message = str(error.message)
    if len(message) > _LONGEST_MESSAGE:
        found = json.dumps(error.instance)[:80]
        message = f"{found}… breaks {error.validator!r} of the schema"
    return message


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key!r:.80} stands twice")
            seen.add(key)
    return document


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _shortened(token: str) -> int:
    return int(token[:_MOST_DIGITS])


def _integer(token: str) -> int:
    if len(token) > _MOST_DIGITS:
        raise ValueError(f"it holds a number of {len(token):,} digits")
    return int(token)
