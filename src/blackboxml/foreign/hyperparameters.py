"""Hyper-parameters in files of other programs: JSON and YAML, read as data and never as objects.

A YAML tag such as `!!python/object` stands for a constructor. It becomes `{"tag": …, "value": …}`
and nothing is imported or called. Anchors cannot be used to make a small file grow without bounds.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from blackboxml.base.extras import require
from blackboxml.foreign.interchange import open_plain

if TYPE_CHECKING:
    from pathlib import Path

MOST_BYTES: Final = 2**24
MOST_NODES: Final = 200_000
DEEPEST: Final = 60

_STRING: Final = "tag:yaml.org,2002:str"


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; NaN and infinities as Python writes them are accepted.

    Raises:
        ValueError: If it is damaged, holds no object, or is too large.
        OSError: If it cannot be read.
    """
    try:
        document = json.loads(_text(path))
    except RecursionError:
        message = f"{path} nests too deep"
        raise ValueError(message) from None
    return _mapping(document, path, "an object")


def read_yaml(path: Path, extra: str) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Args:
        path: The file.
        extra: The extra of this package that brings PyYAML, for the message where it is missing.

    Raises:
        ValueError: If it is damaged, holds no mapping, or is too large.
        OSError: If it cannot be read.
        MissingDependencyError: If PyYAML is not installed.
    """
    yaml = require("yaml", extra)
    text = _text(path)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        budget = [MOST_NODES]
        document = {} if node is None else _value(node, yaml, budget, 0)
    except (yaml.YAMLError, RecursionError) as error:
        message = f"{path} is no YAML that can be read: {error}"
        raise ValueError(message) from None
    return _mapping(document, path, "a mapping")


def _mapping(document: Any, path: Path, wanted: str) -> dict[str, Any]:
    """Return what a file holds if it has names and values."""
    if isinstance(document, dict):
        return document
    message = f"{path} holds {type(document).__name__}, wanted {wanted}"
    raise ValueError(message)


def _text(path: Path) -> str:
    """Return the text of a file of a bounded size."""
    with open_plain(path) as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        message = f"{path} is larger than {MOST_BYTES:,} bytes"
        raise ValueError(message)
    return data.decode("utf-8-sig")


def _value(node: Any, yaml: Any, budget: list[int], depth: int) -> Any:
    """Return what a node of the YAML graph stands for; each use of an anchor counts."""
    budget[0] -= 1
    if budget[0] < 0 or depth > DEEPEST:
        message = "it is too large or nests too deep"
        raise yaml.YAMLError(message)
    known = node.tag.startswith("tag:yaml.org,2002:") and "python" not in node.tag
    if isinstance(node, yaml.ScalarNode):
        value = _scalar(node, yaml) if known else node.value
    elif isinstance(node, yaml.SequenceNode):
        value = [_value(each, yaml, budget, depth + 1) for each in node.value]
    else:
        value = {
            _key(_value(key, yaml, budget, depth + 1)): _value(each, yaml, budget, depth + 1)
            for key, each in node.value
        }
    if known:
        return value
    if node.tag.endswith("python/tuple") and isinstance(value, list):
        return tuple(value)
    return {"tag": node.tag.removeprefix("tag:yaml.org,2002:"), "value": value}


def _scalar(node: Any, yaml: Any) -> Any:
    """Return a plain scalar: null, bool, int, float, or the text as it stands."""
    loader = yaml.SafeLoader("")
    try:
        value = loader.construct_object(node)
    except (yaml.YAMLError, ValueError, OverflowError):
        return node.value
    finally:
        loader.dispose()
    return value if value is None or isinstance(value, bool | int | float | str) else node.value


def _key(value: Any) -> Any:
    """Return a key that can be hashed."""
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
