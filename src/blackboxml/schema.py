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


def folder() -> Path:
    """The folder with the schemas of this version.

    Raises:
        BlackboxError: The installation lacks them.
    """
    return published.folder("schemas")


def names() -> list[str]:
    """The names that `load` and `validator` take, sorted."""
    return sorted(path.name.removesuffix(_SUFFIX) for path in folder().glob(f"*{_SUFFIX}"))


@cache
def load(name: str) -> dict[str, Any]:
    """One schema as parsed JSON, shared by all callers: not to be changed.

    Args:
        name: One of `names()`, such as `"manifest"`.

    Raises:
        ValueError: There is no schema of that name.
        BlackboxError: The installation lacks the schemas.
    """
    if name not in names():
        raise ValueError(f"no schema named {name!r}; there are: {', '.join(names())}")
    document: dict[str, Any] = json.loads((folder() / f"{name}{_SUFFIX}").read_bytes())
    return document


@cache
def validator(name: str) -> Validator:
    """A JSON Schema 2020-12 validator of one schema, which knows all the others.

    Args:
        name: As for `load`.

    Raises:
        ValueError: There is no schema of that name.
        BlackboxError: The installation lacks the schemas.
        jsonschema.exceptions.SchemaError: The schema itself is invalid.
    """
    from jsonschema import Draft202012Validator

    schema = load(name)
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema, registry=_registry())


@cache
def _registry() -> Registry[Any]:
    """All schemas, by their `$id` and by their file name; retrieving anything else fails."""
    from referencing import Registry
    from referencing.jsonschema import DRAFT202012

    registry: Registry[Any] = Registry()
    for name in names():
        resource = DRAFT202012.create_resource(load(name))
        registry = registry.with_resource(f"{name}{_SUFFIX}", resource)
        if resource.id() is not None:
            registry = registry.with_resource(str(resource.id()), resource)
    return registry
