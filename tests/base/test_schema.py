from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from blackboxml.base import schema

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = ROOT / "schemas" / schema.VERSION
NAMES = sorted(path.name.removesuffix(".schema.json") for path in PUBLISHED.glob("*.json"))


def test_the_names_are_those_of_the_published_files() -> None:
    assert NAMES
    assert schema.names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_schema_is_valid_under_its_own_metaschema(name: str) -> None:
    document = schema.load(name)
    assert document == json.loads((PUBLISHED / f"{name}.schema.json").read_text("utf-8"))
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(document)


@pytest.mark.parametrize("name", NAMES)
def test_every_schema_compiles_and_resolves_its_references_offline(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    validator = schema.validator(name)
    assert validator is schema.validator(name)
    for instance in ({}, {"format": {}}, [], None, 1):
        list(validator.iter_errors(instance))
    place = schema.load(name).get("$id", f"{name}.schema.json")
    resolver = schema._registry(schema.VERSION).resolver(place)
    for reference in references(schema.load(name)):
        resolver.lookup(reference)


def references(node: object) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [found for value in node.values() for found in references(value)]
    if isinstance(node, list):
        return [found for value in node for found in references(value)]
    return []


def test_an_unknown_schema_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ValueError, match=f"'nonsense'; there are: .*{NAMES[0]}"):
        schema.validator("nonsense")
