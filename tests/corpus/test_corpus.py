"""The corpus against this library, and the corpus against itself."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import jsonschema
import pytest

from blackboxml.conformance import run_corpus
from blackboxml.conformance.case import Case, load
from blackboxml.conformance.compare import compare_read, compare_validate
from blackboxml.conformance.library import Library, judge, read
from tests.corpus import binary, build
from tests.corpus.bases import BASES, FIXTURES
from tests.corpus.missing import breaks, missing

if TYPE_CHECKING:
    from pathlib import Path

CASES = load(FIXTURES)
SCHEMA = jsonschema.Draft202012Validator(json.loads((FIXTURES / "case.schema.json").read_bytes()))


def files(folder: Path) -> dict[str, bytes]:
    """Return the content of every file by path."""
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and not file.is_symlink()
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_is_judged_and_read_as_the_specification_says(case: Case, tmp_path: Path) -> None:
    run = tmp_path / "run"
    case.build(run)
    before = files(run)
    assert not compare_validate(case.expect, judge(run))
    if "read" in case.expect:
        assert not compare_read(case.expect, read(run))
    assert files(run) == before


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_is_its_base_and_one_mutation(case: Case, tmp_path: Path) -> None:
    """Bytes are compared where they depend on no library, or on the same version of it.

    What another version of pyarrow or HDF5 writes, or HDF5 with the time of day in it, is compared
    by what a validator says of it: the expectation is that of the case, and it is exact.
    """
    run = tmp_path / "run"
    build.mutate(case, run)
    wanted = case.document.get("versions", {})
    assert wanted.keys() == build.versions(case.document["mutation"]).keys()
    timed = build.holds_time(case.document["mutation"])
    if wanted == build.versions(case.document["mutation"]) and not timed:
        overlay, kept = build.overlay(case, run)
        assert overlay == case.overlay
        assert kept == files(case.files)
    else:
        assert not compare_validate(case.expect, judge(run))


@pytest.mark.parametrize("base", sorted(base.name for base in BASES.iterdir()))
def test_a_base_is_a_case_without_mutation(base: str) -> None:
    own = [
        case
        for case in CASES
        if case.document["base"] == base and case.document["mutation"] == {"op": "none"}
    ]
    verdicts = {case.expect["verdict"] for case in own}
    assert verdicts == ({"incomplete"} if base in {"live", "crashed"} else {"valid"})
    assert all("groups" in case.expect["read"] for case in own[:1])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_is_valid_by_its_schema(case: Case) -> None:
    assert not list(SCHEMA.iter_errors(case.document))


def test_every_rule_that_files_can_prove_has_a_case_on_both_sides() -> None:
    assert missing() == []


def test_folders_say_what_cases_are() -> None:
    for case in CASES:
        folder, verdict = case.name.partition("/")[0], case.expect["verdict"]
        severities = {finding["severity"] for finding in case.expect["findings"]}
        if folder == "invalid":
            assert verdict == "invalid", case.name
        if folder == "valid":
            assert verdict in {"valid", "incomplete"}, case.name
            assert not breaks(case, case.rule) or case.rule == "BB-REP-005", case.name
        if folder == "warn":
            assert (verdict, severities) == ("valid", {"warning"}), case.name
        if verdict in {"valid", "incomplete"}:
            assert "error" not in severities, case.name


def test_no_two_cases_are_the_same_run() -> None:
    found: dict[str, str] = {}
    for case in CASES:
        kept = {
            name: hashlib.sha256(data).hexdigest()
            for name, data in sorted(files(case.files).items())
        }
        made = json.dumps([case.document["base"], case.overlay, kept], sort_keys=True)
        assert found.setdefault(made, case.name) == case.name


def test_the_corpus_stays_small() -> None:
    assert sum(len(data) for data in files(FIXTURES).values()) < 6 * 2**20


def test_the_versions_that_bytes_depend_on_are_known() -> None:
    assert binary.VERSIONS["parquet"].keys() == {"pyarrow"}
    assert binary.VERSIONS["hdf5"].keys() == {"h5py", "hdf5"}


def test_the_library_passes_by_the_runner() -> None:
    result = run_corpus(FIXTURES, Library(), "torn/*")
    assert result.ok
    assert result.counts["passed"] == len(result.checks) > 0
