"""The specification holds together: its rules, its links, its examples and its schemas."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from referencing import Registry, Resource

from spec import rules as catalogue

ROOT = Path(__file__).resolve().parents[1]
SPEC = ROOT / "spec" / "1.0"
SCHEMAS = ROOT / "schemas" / "1.0"
BASE = "https://blackboxml.org/schemas/1.0/"
AREAS = catalogue.chapters()
SCHEMA_FILES = sorted(SCHEMAS.glob("*.schema.json"))
CHAPTERS = sorted(SPEC.glob("*.md"))

FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
KEYWORD = re.compile(
    r"\b(?:MUST NOT|MUST|SHALL NOT|SHALL|SHOULD NOT|SHOULD|NOT RECOMMENDED|RECOMMENDED|REQUIRED"
    r"|MAY|OPTIONAL)\b"
)
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
CRC_SUFFIX = re.compile(rb',"crc":"([0-9a-f]{8})"\}')


class Example(NamedTuple):
    place: str
    language: str
    schema: str
    text: str


def prose(path: Path) -> str:
    return FENCE.sub("", path.read_text("utf-8"))


def paragraphs(path: Path) -> list[str]:
    return [" ".join(each.split()) for each in catalogue.paragraphs(path)]


def examples() -> list[Example]:
    found = []
    for path in CHAPTERS:
        for match in FENCE.finditer(path.read_text("utf-8")):
            language, _, name = match["info"].partition(" ")
            line = path.read_text("utf-8")[: match.start()].count("\n") + 1
            found.append(Example(f"{path.name}:{line}", language, name, match["text"]))
    return found


@cache
def registry() -> Registry[Any]:
    resources = [
        Resource.from_contents(json.loads(path.read_text("utf-8"))) for path in SCHEMA_FILES
    ]
    return Registry().with_resources((each.id() or "", each) for each in resources).crawl()


def validator(name: str) -> Draft202012Validator:
    schema = registry().contents(f"{BASE}{name}.schema.json")
    return Draft202012Validator(schema, registry=registry())


def check(name: str, document: object) -> None:
    error = best_match(validator(name).iter_errors(document))
    assert error is None, f"{error.json_path}: {error.message}"


def unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    assert len(dict(pairs)) == len(pairs), f"a key comes twice in {pairs}"
    return dict(pairs)


def strict(text: str | bytes) -> Any:
    def refuse(token: str) -> None:
        raise AssertionError(f"{token} is not JSON")

    return json.loads(text, object_pairs_hook=unique_keys, parse_constant=refuse)


RULES = catalogue.parse()
EXAMPLES = examples()
DOCUMENTS = [each for each in EXAMPLES if each.language == "json"]
JOURNALS = [each for each in EXAMPLES if each.language == "jsonl"]


def at(example: Example) -> str:
    return example.place


@pytest.mark.parametrize("path", SCHEMA_FILES, ids=lambda path: path.name)
def test_a_schema_is_valid_and_named_after_its_file(path: Path) -> None:
    schema = strict(path.read_text("utf-8"))
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == BASE + path.name
    Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("path", SCHEMA_FILES, ids=lambda path: path.name)
def test_every_reference_of_a_schema_resolves_within_the_folder(path: Path) -> None:
    def references(node: object) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return own + [each for value in node.values() for each in references(value)]
        if isinstance(node, list):
            return [each for value in node for each in references(value)]
        return []

    resolver = registry().resolver(BASE + path.name)
    for reference in references(strict(path.read_text("utf-8"))):
        resolver.lookup(reference)


def test_there_are_examples_of_every_document() -> None:
    assert {each.schema for each in DOCUMENTS} == {"manifest", "config", "table-metadata"}
    assert {each.schema for each in JOURNALS} == {"journal", "media"}


def test_a_block_of_code_is_an_example_or_plain_text() -> None:
    assert {each.language for each in EXAMPLES} == {"json", "jsonl", "text"}
    assert not [each.place for each in EXAMPLES if each.language == "text" and each.schema]


@pytest.mark.parametrize("example", DOCUMENTS, ids=at)
def test_a_json_example_is_valid_under_the_schema_it_names(example: Example) -> None:
    check(example.schema, strict(example.text))


@pytest.mark.parametrize("example", JOURNALS, ids=at)
def test_the_lines_of_a_journal_example_are_valid_and_their_checksums_right(
    example: Example,
) -> None:
    header, *records = example.text.encode().splitlines()
    check(f"{example.schema}-header", strict(header))
    for record in records:
        check(f"{example.schema}-record", strict(record))
    first = strict(header)["first_seq"]
    assert [strict(each)["seq"] for each in records] == list(range(first, first + len(records)))
    for line in (header, *records):
        suffix = CRC_SUFFIX.fullmatch(line[-18:])
        assert suffix is not None
        assert suffix[1] == b"%08x" % crc32(line[:-18])


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.name)
def test_words_of_requirement_appear_in_rules_alone(path: Path) -> None:
    for paragraph in paragraphs(path):
        boilerplate = path.name == "README.md" and "BCP 14" in paragraph
        if not paragraph.startswith("**BB-") and not boilerplate:
            assert not KEYWORD.findall(paragraph), paragraph


def test_the_table_of_chapters_lists_every_chapter() -> None:
    assert {path.stem for path in CHAPTERS} == {*AREAS, "README"}
    assert len(set(AREAS.values())) == len(AREAS)


def test_every_chapter_numbers_the_rules_of_its_area_from_1_without_gaps() -> None:
    for chapter, area in AREAS.items():
        own = [rule["id"] for rule in RULES if rule["chapter"] == chapter]
        assert own
        assert own == [f"BB-{area}-{number:03}" for number in range(1, len(own) + 1)]


def test_every_rule_that_is_spoken_of_exists() -> None:
    known = {rule["id"] for rule in RULES}
    for path in CHAPTERS:
        assert set(re.findall(r"BB-[A-Z]{3}-[0-9]{3}", prose(path))) <= known


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.name)
def test_every_relative_link_resolves(path: Path) -> None:
    for match in LINK.finditer(prose(path)):
        target, _, anchor = match["target"].partition("#")
        if target.startswith("https://"):
            continue
        found = (path.parent / target) if target else path
        assert found.exists(), match[0]
        if anchor:
            headings = re.findall(r"^#+ (.*)$", prose(found), re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings]
            assert anchor in slugs, match[0]


BASIC = {"seq": 0, "time": 1.5, "crc": "00000000"}
FINAL_TRACE = {"type": "ValueError", "message": "bad"}


@pytest.mark.parametrize(
    "members",
    [
        {"step": -1, "metrics": {}},
        {"step": 0, "metrics": {"a/b": 1, "c": 1.5, "d": True, "e": "-Infinity"}},
        {"step": 0, "metrics": {"été//x": 0}, "ranks": {"only/here": {"std": "NaN"}}},
        {"step": 0, "metrics": {"a": 1}, "unknown": [None]},
        {"teleport": {"to": 5}},
        {"rewind": {"step": -(2**63)}},
        {"describe": {"metric": "lr"}},
        {"end": {"status": "interrupted"}},
        {"end": {"status": "failed", "exception": FINAL_TRACE}},
    ],
    ids=json.dumps,
)
def test_these_records_are_valid(members: dict[str, object]) -> None:
    check("journal-record", BASIC | members)


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"metrics": {"a": 1}},
        {"step": 0, "metrics": {"a": None}},
        {"step": 0, "metrics": {"a": "nan"}},
        {"step": 0, "metrics": {"a": [1]}},
        {"step": 0, "metrics": {"": 1}},
        {"step": 0, "metrics": {"/a": 1}},
        {"step": 0, "metrics": {"a/": 1}},
        {"step": 0, "metrics": {"a\n": 1}},
        {"step": 0, "metrics": {"a\x85": 1}},
        {"step": 2**63, "metrics": {}},
        {"step": 0.5, "metrics": {}},
        {"step": 0, "metrics": {}, "ranks": {"a": {}}},
        {"step": 0, "metrics": {}, "rewind": {"step": 0}},
        {"gap": {"records": 0, "reason": "full"}},
        {"gap": {"records": 1, "reason": "full"}, "end": {"status": "failed"}},
        {"end": {"status": "running"}},
        {"end": {"status": "completed", "exception": FINAL_TRACE}},
        {"seq": -1, "rewind": {"step": 0}},
        {"crc": "ABCDEF00", "rewind": {"step": 0}},
    ],
    ids=json.dumps,
)
def test_these_records_are_not_valid(members: dict[str, object]) -> None:
    assert not validator("journal-record").is_valid(BASIC | members)


@pytest.mark.parametrize(
    "media",
    [
        {"name": "a", "kind": "hologram", "value": None},
        {"name": "a", "kind": "artifact", "file": "artifacts/model.bin", "bytes": 0},
    ],
    ids=json.dumps,
)
def test_these_media_are_valid(media: dict[str, object]) -> None:
    check("media-record", BASIC | {"step": 0, "media": media})


@pytest.mark.parametrize(
    "media",
    [
        {"name": "a", "kind": "text"},
        {"name": "a", "kind": "text", "value": 5},
        {"name": "a", "kind": "histogram", "value": {"edges": [0, 1]}},
        {"name": "a", "kind": "image", "file": "media/a.png"},
        {"name": "a", "kind": "image", "file": "media/a.png", "bytes": 1, "value": ""},
        {"name": "a", "kind": "image", "file": "../a.png", "bytes": 1},
        {"name": "a", "kind": "image", "file": "media/../run.json", "bytes": 1},
        {"name": "a", "kind": "image", "file": "/media/a.png", "bytes": 1},
        {"name": "a", "kind": "image", "file": "run.json", "bytes": 1},
    ],
    ids=json.dumps,
)
def test_these_media_are_not_valid(media: dict[str, object]) -> None:
    assert not validator("media-record").is_valid(BASIC | {"step": 0, "media": media})


@pytest.mark.parametrize(
    ("tree", "valid"),
    [
        ({"a": {"b": [None, True, 1, 1.5, "x", {}]}}, True),
        ({"$dict": [[1, "a"], [{"$tuple": []}, 2]]}, True),
        ({"a": {"$later": {"$anything": 1, "goes": 2}}}, True),
        ([], False),
        ({"a": {"$float": 1.5}}, False),
        ({"a": {"$float": "NaN", "b": 1}}, False),
        ({"a": {"$int": "12"}}, False),
        ({"a": {"$bytes": "A"}}, False),
        ({"a": {"$dict": [[1]]}}, False),
        ({"a": {"$repr": "Adam()"}}, False),
        ({"a": [{"b": {"$tuple": [{"$path": 1}]}}]}, False),
    ],
    ids=str,
)
def test_a_configuration_is_a_typed_tree(tree: object, valid: bool) -> None:
    form = {"name": "blackbox-config", "version": "1.7", "features": []}
    assert validator("config").is_valid({"format": form, "config": tree}) is valid


def sealed_manifest() -> dict[str, Any]:
    documents = [strict(each.text) for each in DOCUMENTS if each.schema == "manifest"]
    return next(each for each in documents if "sealed" in each)


@pytest.mark.parametrize(
    ("change", "valid"),
    [
        ({"unknown": 1, "extensions": {"org.example": {}}}, True),
        ({"format": {"name": "blackbox-run", "version": "1.12", "features": ["x"]}}, True),
        ({"status": "failed", "exception": FINAL_TRACE}, True),
        ({"format": {"name": "blackbox-run", "version": "2.0", "features": []}}, False),
        ({"format": {"name": "other-run", "version": "1.0", "features": []}}, False),
        ({"status": "running"}, False),
        ({"exception": FINAL_TRACE}, False),
        ({"end": "2026-11-21 14:32:01Z"}, False),
        ({"id": "6F1E0D5C2B7A4F8E9D3C1B0A5F6E7D8C"}, False),
        ({"files": {"../secret": {"bytes": 1}}}, False),
        ({"sealed": {"time": "2026-11-21T14:32:02.000000+00:00", "packed": True}}, False),
    ],
    ids=str,
)
def test_a_changed_manifest_is_judged_right(change: dict[str, object], valid: bool) -> None:
    assert validator("manifest").is_valid(sealed_manifest() | change) is valid


@pytest.mark.parametrize("member", ["sealed", "groups", "journals", "files", "end"])
def test_a_sealed_manifest_is_whole(member: str) -> None:
    document = sealed_manifest()
    del document[member]
    assert not validator("manifest").is_valid(document)
