"""The published JSON Schemas, compiled for use.

They are read from the folder that ships inside the package or, in an editable install, from the
root of the repository. A reference between schemas is resolved within that folder: the network is
never asked.
"""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

from blackboxml import published

if TYPE_CHECKING:
    from pathlib import Path

    from jsonschema.protocols import Validator
    from referencing import Registry

VERSION = published.VERSION
_SUFFIX = ".schema.json"


def folder(version: str | None = None) -> Path:
    """The folder with the schemas of a version.

    Args:
        version: The version, None for the newest that is known.

    Raises:
        BlackboxError: The installation lacks them.
    """
    return published.folder("schemas", version)


def names(version: str | None = None) -> list[str]:
    """The names that `load` and `validator` take, sorted."""
    return sorted(path.name.removesuffix(_SUFFIX) for path in folder(version).glob(f"*{_SUFFIX}"))


def load(name: str, version: str | None = None) -> dict[str, Any]:
    """One schema as parsed JSON, shared by all callers: not to be changed.

    Args:
        name: One of `names()`, such as `"manifest"`.
        version: The version, None for the newest that is known.

    Raises:
        ValueError: There is no schema of that name.
        BlackboxError: The installation lacks the schemas.
    """
    return _load(name, version or published.newest())


def validator(name: str, version: str | None = None) -> Validator:
    """A JSON Schema 2020-12 validator of one schema, which knows all the others.

    Args:
        name: As for `load`.
        version: As for `load`.

    Raises:
        ValueError: There is no schema of that name.
        BlackboxError: The installation lacks the schemas.
        jsonschema.exceptions.SchemaError: The schema itself is invalid.
    """
    return _validator(name, version or published.newest())


def is_valid(name: str, document: Any, version: str | None = None) -> bool:
    """Tell whether a document is valid under a schema; a hundred times faster than `validator`.

    What it finds wrong `validator` explains. A document that it cannot take counts as wrong.

    Args:
        name: As for `load`.
        document: Any JSON value.
        version: As for `load`.
    """
    try:
        return bool(_quick(name, version or published.newest()).is_valid(document))
    except (ValueError, TypeError, OverflowError):
        return False


@cache
def _load(name: str, version: str) -> dict[str, Any]:
    known = names(version)
    if name not in known:
        raise ValueError(f"no schema named {name!r}; there are: {', '.join(known)}")
    document: dict[str, Any] = json.loads((folder(version) / f"{name}{_SUFFIX}").read_bytes())
    return document


@cache
def _validator(name: str, version: str) -> Validator:
    from jsonschema import Draft202012Validator

    schema = load(name, version)
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema, registry=_registry(version))


@cache
def _quick(name: str, version: str) -> Any:
    """The validator of `is_valid`."""
    import jsonschema_rs

    base = load("defs", version)["$id"].removesuffix(f"defs{_SUFFIX}")
    documents = [(f"{base}{each}{_SUFFIX}", load(each, version)) for each in names(version)]
    registry = jsonschema_rs.Registry(documents)
    return jsonschema_rs.Draft202012Validator(load(name, version), registry=registry)


@cache
def _registry(version: str) -> Registry[Any]:
    """All schemas, by their `$id` and by their file name; retrieving anything else fails."""
    from referencing import Registry
    from referencing.jsonschema import DRAFT202012

    registry: Registry[Any] = Registry()
    for name in names(version):
        resource = DRAFT202012.create_resource(load(name, version))
        registry = registry.with_resource(f"{name}{_SUFFIX}", resource)
        if resource.id() is not None:
            registry = registry.with_resource(str(resource.id()), resource)
    return registry
