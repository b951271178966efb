"""`config.json`: strict JSON, its schema, and what a schema cannot say of the typed tree."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from blackboxml.errors import LimitError, UnsafePathError
from blackboxml.model import CONFIG, CONFIG_FORMAT, INT64_MAX, INT64_MIN
from blackboxml.validation.document import (
    check_schema,
    check_version,
    parse,
    pointer,
    pointer_to,
    walk,
)
from blackboxml.validation.subject import checks

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

    from blackboxml.validation.subject import Subject

_CONTAINERS = frozenset(["$tuple", "$dict"])
_TAGS = frozenset(["$float", "$int", "$path", "$bytes", "$repr"]) | _CONTAINERS
_NONE = object()

_NUMBERS = ("BB-CFG-004", "BB-CFG-006")
_TREE = ("BB-CFG-007", "BB-CFG-009", "BB-CFG-011", "BB-CFG-015")


@checks(
    "schema",
    *("BB-CFG-001", *_NUMBERS, *_TREE, "BB-LIM-001"),
    *("BB-VER-001", "BB-VER-003", "BB-VER-006", "BB-VER-007"),
)
def check_config(subject: Subject) -> None:
    """Read the configuration, if there is one."""
    if CONFIG not in subject.files:
        return
    subject.look("BB-CFG-001", *_NUMBERS, *_TREE, "BB-LIM-001")
    document = _read(subject)
    if document is _NONE:
        subject.skip(f"{CONFIG} is not read", *_NUMBERS, *_TREE)
    elif not check_version(subject, document, CONFIG_FORMAT, CONFIG, "BB-CFG-001"):
        why = f"{CONFIG} is not of a version that is known"
        subject.skip(why, "BB-CFG-001", *_NUMBERS, *_TREE)
    else:
        _check_numbers(subject, document)
        if check_schema(subject, document, "config", CONFIG, _rule):
            _check_tags(subject, document)
            _check_order(subject, document)
        else:
            subject.skip(f"{CONFIG} is not valid", "BB-CFG-009", "BB-CFG-011", "BB-CFG-015")


def _read(subject: Subject) -> Any:
    """Return the document, `_NONE` if there is none to judge."""
    try:
        data = subject.directory.read(CONFIG, subject.limits.config_bytes)
        return parse(data, subject.limits.depth, shorten=True)
    except LimitError as error:
        subject.report("BB-LIM-001", str(error), CONFIG)
    except OSError as error:
        subject.skip(subject.refuse(CONFIG, error), "BB-CFG-001")
    except (UnsafePathError, ValueError) as error:
        message = f"{error}; wanted one strict JSON document in UTF-8"
        subject.report("BB-CFG-001", message, CONFIG)
    return _NONE


def _rule(error: ValidationError, _: list[Any]) -> str:
    """Return the rule that a breach of the schema breaks."""
    return "BB-CFG-007" if error.validator == "maxProperties" else "BB-CFG-001"


def _check_numbers(subject: Subject, document: Any) -> None:
    """Check that every number is an int64 or a finite float64."""
    for place, value, _ in walk(document):
        if isinstance(value, float) and math.isinf(value):
            message = "a number beyond float64; infinity is written with `$float`"
            subject.report("BB-CFG-006", message, CONFIG, pointer=pointer_to(place))
        elif type(value) is int and not INT64_MIN <= value <= INT64_MAX:
            message = f"{str(value)[:40]} is beyond int64; it is written with `$int`"
            subject.report("BB-CFG-004", message, CONFIG, pointer=pointer_to(place))


def _check_order(subject: Subject, document: dict[str, Any]) -> None:
    """Check that what was replaced stands in the order of attempts."""
    last = 0
    for at, entry in enumerate(document.get("replaced", [])):
        if entry["attempt"] < last:
            message = f"attempt {entry['attempt']} follows attempt {last}"
            where = pointer(["replaced", at, "attempt"])
            subject.report("BB-CFG-015", message, CONFIG, pointer=where)
        last = entry["attempt"]


def _check_tags(subject: Subject, document: dict[str, Any]) -> None:
    """Check the integers of `$int`, and note tags that this version does not know."""
    for place, value, _ in walk(document, _holds_tree):
        tag = next(iter(value), "") if isinstance(value, dict) else ""
        if not tag.startswith("$"):
            continue
        if tag == "$int" and _fits(value[tag]):
            message = f"{value[tag]} is an int64 and has a token of its own"
            subject.report("BB-CFG-009", message, CONFIG, pointer=pointer_to((place, tag)))
        if tag not in _TAGS:
            message = f"the tag {tag!r:.80} is not known and is given as it stands"
            where = pointer_to((place, tag))
            subject.report("BB-CFG-011", message, CONFIG, severity="warning", pointer=where)


def _holds_tree(value: Any) -> bool:
    """Tell whether what is inside a value is part of the typed tree."""
    tag = next(iter(value), "") if isinstance(value, dict) else ""
    return not tag.startswith("$") or tag in _CONTAINERS


def _fits(digits: str) -> bool:
    """Tell whether decimal digits are an int64."""
    return len(digits) <= len(str(INT64_MIN)) and INT64_MIN <= int(digits) <= INT64_MAX
