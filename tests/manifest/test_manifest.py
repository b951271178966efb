"""`run.json`: what is read of it, what is rebuilt, and how it is written."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from blackboxml import manifest as manifests
from blackboxml.base.files import Directory
from blackboxml.base.schema import validator
from blackboxml.errors import ManifestError, NotARunError, Problem, UnsupportedVersionError
from blackboxml.manifest import usable
from blackboxml.reader import open_run
from tests import histories
from tests.histories import TIME, end, event, header, point, write
from tests.reader.test_reader import rich

if TYPE_CHECKING:
    from pathlib import Path

    from tests.histories import Files


def opened(path: Path, files: Files) -> tuple[dict[str, Any], list[Problem]]:
    problems: list[Problem] = []
    with Directory(write(path / "run", files)) as directory:
        return manifests.open_history(directory, problems=problems)[0], problems


def valid() -> dict[str, Any]:
    """Return the manifest of a run that crashed."""
    manifest = manifests.new(histories.RUN_ID, "x", ["t"], TIME - 1, "1")
    attempt = {
        "attempt": 0,
        "start": manifests.timestamp(TIME - 1),
        "status": "running",
        "process": histories.dead_process(),
    }
    return manifest | {"attempts": [attempt], "generation": 3}


def encoded(manifest: dict[str, Any]) -> bytes:
    return json.dumps(manifest).encode()


def test_a_valid_manifest_is_taken_as_it_stands(tmp_path: Path) -> None:
    validator("manifest").validate(valid())
    files = {"run.json": encoded(valid()), "metrics.jsonl": header() + point(0)}
    assert opened(tmp_path, files) == (valid(), [])


@pytest.mark.parametrize(
    ("member", "value"),
    [
        *(("id", value) for value in (None, 3, "", "x" * 32, "A" * 32, "0" * 31)),
        *(("name", value) for value in (None, 3, "", ["x"])),
        *(("tags", value) for value in (None, "x", {}, [1], [["x"]])),
        *(("status", value) for value in (None, "crashed", "", 3, [], {})),
        *(("start", value) for value in (None, "", "yesterday", 3, [], "9999-99-99T00:00:00")),
        *(("environment", value) for value in (None, [], "x")),
        *(("attempts", value) for value in (None, {}, "x", [3], [{}], [{"attempt": 0}])),
        ("attempts", [{"attempt": "0", "start": "2026-11-21T00:00:00+00:00", "status": "running"}]),
        ("attempts", [{"attempt": 0, "start": "x", "status": "running"}]),
        ("attempts", [{"attempt": 0, "start": "2026-11-21T00:00:00+00:00", "status": "odd"}]),
    ],
)
def test_a_member_that_is_not_what_it_should_be_is_rebuilt_from_the_journals(
    tmp_path: Path, member: str, value: Any
) -> None:
    files = {
        "run.json": encoded(valid() | {member: value, "environment": {"k": 1}} | {member: value}),
        "metrics.jsonl": header() + point(0) + end(1),
    }
    found, problems = opened(tmp_path, files)
    assert [problem.rule for problem in problems] == ["BB-MAN-001"]
    assert member in problems[0].message
    assert found["id"] == histories.RUN_ID
    assert found["environment"] == ({} if member == "environment" else {"k": 1})
    assert found["generation"] == 3
    assert all(check(found[key]) for key, check in usable.REQUIRED.items())
    with pytest.raises(ManifestError, match=member):
        opened(tmp_path / "alone", {"run.json": files["run.json"]})


@pytest.mark.parametrize("member", ["end", "exception", "writer", "generation", "lineage"])
def test_an_optional_member_that_is_wrong_is_left_out(tmp_path: Path, member: str) -> None:
    found, problems = opened(tmp_path, {"run.json": encoded(valid() | {member: [3]})})
    assert member not in found or member == "exception"
    assert [problem.rule for problem in problems] == ["BB-MAN-001"]


@pytest.mark.rule("BB-VER-008", "BB-VER-009")
def test_unknown_members_are_kept(tmp_path: Path) -> None:
    more = {"org.example": [1, None], "extensions": {"org.example": {"x": 1}}}
    found, problems = opened(tmp_path, {"run.json": encoded(valid() | more)})
    assert found == valid() | more
    assert problems == []


def test_a_manifest_is_written_in_the_order_of_the_specification() -> None:
    shuffled = dict(sorted((valid() | {"z": 1, "lineage": {}}).items()))
    data = manifests.encode(shuffled)
    assert list(json.loads(data)) == [
        *("format", "id", "name", "tags", "status", "start", "environment", "writer"),
        *("generation", "attempts", "lineage", "z"),
    ]
    assert data.startswith(b'{\n  "format": {\n')
    assert data.endswith(b"}\n")


def test_a_member_with_an_integer_of_any_length_is_written_as_it_was_read(tmp_path: Path) -> None:
    files = {"run.json": encoded(valid() | {"x": 10**30})}
    found, _ = opened(tmp_path, files)
    assert json.loads(manifests.encode(found)) == valid() | {"x": 10**30}


def test_a_rebuilt_manifest_follows_the_steps_of_the_specification(tmp_path: Path) -> None:
    files = {
        "metrics.jsonl": header() + point(0) + point(1),
        "metrics.1.jsonl": header(first_seq=2, time=TIME + 7) + point(2)[:-1],
        "metrics.2.jsonl": header(attempt=1, time=TIME + 8),
        "metrics.3.jsonl": header(attempt=2, time=TIME + 9)
        + event(0, gap={"records": 1, "reason": ""})
        + end(1, "failed", exception={"type": "E", "message": "m"}),
        "metrics.r1.jsonl": header(1) + end(0),
    }
    found, problems = opened(tmp_path, files)
    validator("manifest").validate(found | {"generation": 0})
    stamp = manifests.timestamp
    assert [(a["attempt"], a["status"], a["start"], a["end"]) for a in found["attempts"]] == [
        (0, "interrupted", stamp(TIME - 1), stamp(TIME + 1)),
        (1, "interrupted", stamp(TIME + 8), stamp(TIME + 8)),
        (2, "failed", stamp(TIME + 9), stamp(TIME + 1)),
    ]
    assert (found["status"], found["end"]) == ("failed", stamp(TIME + 1))
    assert found["exception"] == {"type": "E", "message": "m"}
    assert (found["tags"], found["environment"]) == ([], {})
    assert [problem.rule for problem in problems] == ["BB-MAN-014"]


def test_the_least_rank_stands_in_for_rank_zero(tmp_path: Path) -> None:
    files = {"metrics.r5.jsonl": header(5), "metrics.r3.jsonl": header(3, 2) + end(0)}
    found, _ = opened(tmp_path, files)
    assert [(a["attempt"], a["status"]) for a in found["attempts"]] == [(2, "completed")]


def test_a_directory_with_journals_of_no_good_header_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(NotARunError):
        opened(tmp_path, {"metrics.jsonl": b"X" + header() + point(0)})


def test_a_damaged_header_beside_a_manifest_is_no_hindrance(tmp_path: Path) -> None:
    files = {"run.json": encoded(valid()), "metrics.jsonl": b"X" + header() + point(0)}
    found, problems = opened(tmp_path, files)
    assert found == valid()
    assert [problem.rule for problem in problems] == ["BB-JNL-004"]


@pytest.mark.parametrize("features", [3, {"x": 1}, "ab", [[]], [3], None])
def test_features_of_another_type_are_not_taken_for_none(tmp_path: Path, features: Any) -> None:
    manifest = valid()
    manifest["format"]["features"] = features
    files = {"run.json": encoded(manifest), "metrics.jsonl": header()}
    try:
        found, problems = opened(tmp_path, files)
    except UnsupportedVersionError:
        return
    assert found["id"] == histories.RUN_ID
    assert [problem.rule for problem in problems] == ["BB-MAN-001"]


@pytest.mark.parametrize("seconds", [0.0, TIME, -1.5, 253402300799.5, 1e300, -1e300])
def test_a_time_stamp_stays_within_the_calendar(seconds: float) -> None:
    text = manifests.timestamp(seconds)
    assert len(text) == len("2026-11-21T14:22:01.120000+00:00")
    if abs(seconds) < 1e11:
        assert manifests.seconds(text) == pytest.approx(seconds, abs=1e-6)


def test_a_time_without_an_offset_is_universal_time() -> None:
    assert manifests.seconds("1970-01-01T00:00:10") == 10.0
    assert manifests.seconds("1970-01-01T01:00:10+01:00") == 10.0


def test_a_sealed_manifest_has_nothing_unusable(tmp_path: Path) -> None:
    from blackboxml.seal import seal

    path = write(tmp_path / "run", rich())
    seal(path)
    assert usable.unusable(json.loads((path / "run.json").read_bytes())) == []


def test_a_rebuilt_manifest_goes_by_the_rank_in_the_name_of_a_journal(tmp_path: Path) -> None:
    files = {"metrics.r1.jsonl": header(rank=0) + point(0) + end(1)}
    manifest, problems = opened(tmp_path, files)
    assert (manifest["id"], manifest["status"]) == (histories.RUN_ID, "completed")
    assert {problem.rule for problem in problems} >= {"BB-JNL-006", "BB-MAN-014"}


def proven(path: Path, files: Files) -> tuple[dict[str, Any], list[str]]:
    """Return what a reader takes for the manifest, and the rules that it reports."""
    problems: list[Problem] = []
    with Directory(write(path / "run", files)) as directory:
        manifest = manifests.open_proven(directory, problems=problems)[0]
    return manifest, [problem.rule for problem in problems]


BAD = b'{"format":"damaged","crc":"00000000"}\n'
FAILED = {"status": "failed", "exception": {"type": "E", "message": "m"}}


@pytest.mark.parametrize("stated", [None, valid() | {"status": "running"}])
def test_an_attempt_whose_header_is_damaged_ends_the_run_all_the_same(
    tmp_path: Path, stated: dict[str, Any] | None
) -> None:
    files = {
        "metrics.jsonl": header() + point(0) + end(1),
        "metrics.1.jsonl": BAD + point(0, {"b": 1}) + event(5, end=FAILED),
    }
    if stated is not None:
        files["run.json"] = encoded(stated)
    found, _ = proven(tmp_path, files)
    assert (found["status"], found["exception"]) == ("failed", FAILED["exception"])
    assert found["end"] == manifests.timestamp(TIME + 5)
    assert found["duration_seconds"] == 6
    entry = {"attempt": 1, **FAILED, "end": found["end"]}
    assert found["attempts"][-1] == entry
    assert (found["attempts"][0]["status"], len(found["attempts"])) == ("completed", 2)


def test_a_run_that_was_resumed_has_not_ended_as_its_first_attempt_did(tmp_path: Path) -> None:
    files = {
        "run.json": encoded(ended()),
        "metrics.jsonl": header() + point(0) + end(1),
        "metrics.1.jsonl": BAD + point(0, {"b": 1}),
    }
    found, rules = proven(tmp_path, files)
    assert found["status"] == "running"
    assert not {"end", "exception", "duration_seconds"} & set(found)
    assert rules == ["BB-JNL-004", "BB-MAN-013"]


def ended() -> dict[str, Any]:
    """Return the manifest of a run that completed with record 1."""
    ending = {"status": "completed", "end": manifests.timestamp(TIME + 1)}
    attempts = [valid()["attempts"][0] | ending]
    return valid() | ending | {"duration_seconds": 2.0, "attempts": attempts}


@pytest.mark.parametrize("member", ["start", "end", "both", "entry"])
def test_journals_know_better_when_attempts_began_and_ended(tmp_path: Path, member: str) -> None:
    journal = header() + point(0) + end(1)
    right = ended()
    found, rules = proven(
        tmp_path / "right", {"run.json": encoded(right), "metrics.jsonl": journal}
    )
    assert (found, rules) == (right, [])
    other = manifests.timestamp(TIME + 900)
    wrong = ended()
    for key in {"both": ("start", "end"), "entry": ()}.get(member, (member,)):
        wrong[key] = other
    if member in {"both", "entry"}:
        wrong["attempts"][0] |= {"start": other, "end": other}
    found, rules = proven(tmp_path, {"run.json": encoded(wrong), "metrics.jsonl": journal})
    assert (found, rules) == (right, ["BB-MAN-013"])


def test_a_damaged_header_disagrees_with_nothing(tmp_path: Path) -> None:
    stated = ended() | {"start": manifests.timestamp(TIME - 7), "duration_seconds": 8.0}
    stated["attempts"][0]["start"] = stated["start"]
    files = {
        "run.json": encoded(stated),
        "metrics.jsonl": BAD + point(0) + end(1),
        "metrics.r1.jsonl": header(1) + point(0),
    }
    found, rules = proven(tmp_path, files)
    assert (found, rules) == (stated, ["BB-JNL-004"])


def test_a_manifest_without_an_id_counts_as_absent(tmp_path: Path) -> None:
    stated = valid() | {"name": "another", "environment": {"k": 1}, "tags": ["x"]}
    del stated["id"]
    journal = header() + point(0) + end(1)
    found, problems = opened(tmp_path, {"run.json": encoded(stated), "metrics.jsonl": journal})
    assert (found["id"], found["name"]) == (histories.RUN_ID, histories.RUN_NAME)
    assert (found["environment"], found["tags"]) == ({}, [])
    assert [problem.rule for problem in problems] == ["BB-MAN-001"]
    with pytest.raises(ManifestError, match='no "id"'):
        opened(tmp_path / "alone", {"run.json": encoded(stated)})


@pytest.mark.rule("BB-LAY-004", "BB-MAN-015")
@pytest.mark.parametrize("member", sorted(usable.REQUIRED.keys() - {"id"}))
def test_a_run_is_read_without_a_member_that_no_journal_knows(tmp_path: Path, member: str) -> None:
    stated = ended() | {"environment": {"k": 1}} | {member: 7}
    files = {"run.json": encoded(stated), "metrics.jsonl": BAD + point(0, {"a": 2.0}) + end(1)}
    path = write(tmp_path / "run", files)
    reader = open_run(path)
    assert reader.id == histories.RUN_ID
    assert reader.name == ("" if member == "name" else "x")
    assert reader.tags == ([] if member == "tags" else ["t"])
    assert reader.status == "completed"
    assert reader.start == manifests.moment(ended()["start"])
    assert ("start" in reader.manifest) == (member != "start")
    assert reader.end == manifests.moment(ended()["end"])
    assert (reader.duration_seconds is None) == (member == "start")
    assert reader.manifest["environment"] == ({} if member == "environment" else {"k": 1})
    assert [record.metrics for record in reader.records()] == [{"a": 2.0}]
    assert reader.arrow()["a"].to_pylist() == [2.0]
    assert "BB-MAN-001" in [problem.rule for problem in reader.problems]
    with pytest.raises(ManifestError, match=member):  # nobody can write that down
        manifests.open_history(Directory(path))


def test_a_run_of_which_nothing_tells_when_it_began_is_read(tmp_path: Path) -> None:
    stated = valid() | {"start": "x", "attempts": []}
    files = {"run.json": encoded(stated), "metrics.jsonl": BAD + point(0)}
    assert open_run(write(tmp_path / "run", files)).start.timestamp() == 0


def damaged_last() -> Files:
    """Return a run that was resumed, whose second header is damaged."""
    return {
        "metrics.jsonl": header() + point(0) + end(1),
        "metrics.1.jsonl": BAD + point(0, {"b": 1}) + event(1, end=FAILED),
    }


def test_a_sealed_manifest_is_valid_though_the_last_header_is_damaged(tmp_path: Path) -> None:
    from blackboxml.seal import seal

    for name, stated in (("without", {}), ("with", {"run.json": encoded(valid())})):
        path = write(tmp_path / name, damaged_last() | stated)
        seal(path)
        manifest = json.loads((path / "run.json").read_bytes())
        validator("manifest").validate(manifest)
        assert (manifest["status"], manifest["exception"]) == ("failed", FAILED["exception"])
        assert [entry["status"] for entry in manifest["attempts"]] == ["completed", "failed"]


def test_a_resumed_manifest_is_valid_though_the_last_header_is_damaged(tmp_path: Path) -> None:
    from blackboxml.writer import RunWriter

    path = write(tmp_path / "run", damaged_last() | {"run.json": encoded(valid())})
    writer = RunWriter.resume(path)
    manifest = json.loads((path / "run.json").read_bytes())
    validator("manifest").validate(manifest)
    assert [entry["status"] for entry in manifest["attempts"]] == ["completed", "failed", "running"]
    writer.finish()
    assert open_run(path).status == "completed"
