"""Names, links, `run.json` and `config.json`: each fault by the rule that it breaks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from blackboxml import validate
from blackboxml.errors import NotARunError
from blackboxml.model import Limits
from tests.validation import runs
from tests.validation.runs import change, edit_bytes, rules

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from blackboxml.errors import Problem


def only(path: Path, limits: Limits | None = None) -> Problem:
    """Return the one problem of a run."""
    report = validate(path, limits or Limits())
    assert len(report.problems) == 1, report.problems
    return report.problems[0]


# -- layout


def test_a_link_is_reported_and_not_followed(ended: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("x")
    (ended / "link.txt").symlink_to(secret)
    (ended / "folder").symlink_to(tmp_path)
    report = validate(ended)
    assert rules(report) == {"BB-LAY-009"}
    assert {problem.file for problem in report.problems} == {"link.txt", "folder"}


@pytest.mark.parametrize("name", ["run.json", "config.json", "metrics.1.jsonl", "SHA256SUMS"])
def test_a_file_of_the_format_that_is_a_link_is_not_read(sealed: Path, name: str) -> None:
    outside = sealed.parent / "outside"
    if (sealed / name).exists():
        shutil.move(sealed / name, outside)
    else:
        shutil.copy(sealed / "metrics.jsonl", outside)
    (sealed / name).symlink_to(outside)
    found = [problem for problem in validate(sealed).problems if problem.rule == "BB-LAY-009"]
    assert [problem.file for problem in found] == [name]


def test_a_pipe_does_not_hold_the_validator(ended: Path) -> None:
    os.mkfifo(ended / "metrics.1.jsonl")
    assert only(ended).rule == "BB-LAY-009"


def test_a_name_that_no_run_has_is_no_part_of_it(ended: Path) -> None:
    (ended / "a b.txt").write_text("x")
    problem = only(ended)
    assert (problem.rule, problem.severity, problem.file) == ("BB-LAY-006", "warning", "a b.txt")


def test_a_name_that_is_no_unicode_can_be_reported(ended: Path) -> None:
    descriptor = os.open(bytes(ended) + b"/\xff", os.O_CREAT | os.O_WRONLY)
    os.close(descriptor)
    assert json.loads(validate(ended).to_json())["problems"][0]["file"] == "\\udcff"


def test_a_device_of_windows_is_noted(ended: Path) -> None:
    (ended / "artifacts").mkdir()
    (ended / "artifacts" / "aux.txt").write_text("x")
    problem = only(ended)
    assert (problem.rule, problem.severity) == ("BB-LAY-007", "warning")


def test_names_that_differ_by_case_alone_are_noted(ended: Path) -> None:
    (ended / "console.log").write_text("x")
    (ended / "Console.log").write_text("x")
    problem = only(ended)
    assert (problem.rule, problem.severity) == ("BB-LAY-008", "warning")


@pytest.mark.parametrize("name", ["metrics.01.jsonl", "metrics.r0.jsonl", "old.jsonl"])
def test_a_journal_that_no_reader_finds_is_reported(ended: Path, name: str) -> None:
    shutil.copy(ended / "metrics.jsonl", ended / name)
    problem = only(ended)
    assert (problem.rule, problem.file) == ("BB-LAY-005", name)


@pytest.mark.rule("BB-LAY-010")
def test_other_json_lines_are_nobodys_business(ended: Path) -> None:
    (ended / "other.jsonl").write_text('{"a": 1}\n')
    assert not validate(ended).problems


def test_scratch_is_ignored_in_a_run_and_noted_in_a_sealed_one(ended: Path, sealed: Path) -> None:
    for path in (ended, sealed):
        (path / ".tmp-seal-0").mkdir()
        (path / ".tmp-seal-0" / "a b").symlink_to("/")
    assert not validate(ended).problems
    problem = only(sealed)
    assert (problem.rule, problem.severity) == ("BB-LAY-013", "warning")


def test_files_beyond_the_limit_are_not_looked_at(ended: Path) -> None:
    assert only(ended, Limits(files=2)).rule == "BB-LIM-005"


def test_a_deep_tree_is_not_descended(ended: Path) -> None:
    descriptor = os.open(ended, os.O_RDONLY)
    for _ in range(2000):  # longer than any path may be
        os.mkdir("d", dir_fd=descriptor)
        inner = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(descriptor)
    try:
        assert only(ended).rule == "BB-LIM-005"
    finally:
        subprocess.run(["rm", "-r", str(ended / "d")], check=True)  # Python cannot


# -- manifest

FORMAT = {"name": "blackbox-run", "version": "1.0", "features": []}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data.replace(b"spoiled", b"\0" * 7),
        lambda data: b"\xef\xbb\xbf" + data,
        lambda data: data[:-3],
        lambda data: data + b"{}",
        lambda data: data.replace(b"spoiled", b"\xff\xfe"),
        lambda data: data.replace(b"spoiled", b"\\ud800"),
        lambda data: data.replace(b'"tags"', b'"name": "again",\n  "tags"'),
        lambda data: data.replace(b'"x"', b"NaN"),
        lambda data: data.replace(b'"environment": {', b'"environment": {"a": 1e999,'),
        lambda data: data.replace(
            b'"environment": {', b'"environment": {"a": ' + b"9" * 5000 + b","
        ),
        lambda data: b"[" + data + b"]",
        lambda data: b"null",
    ],
)
def test_a_manifest_that_is_no_strict_json_is_damaged(
    ended: Path, spoil: Callable[[bytes], bytes]
) -> None:
    edit_bytes(ended, "run.json", spoil)
    problem = only(ended)
    assert (problem.rule, problem.severity, problem.file) == ("BB-MAN-001", "error", "run.json")
    assert str(ended) in (problem.cure or str(ended))


@pytest.mark.parametrize("depth", [100, 10**6])
def test_a_manifest_that_is_nested_deep_is_beyond_a_limit(ended: Path, depth: int) -> None:
    edit_bytes(ended, "run.json", lambda data: data.replace(b'"x"', b"[" * depth + b"]" * depth))
    problem = only(ended)
    assert (problem.rule, problem.severity, problem.file) == ("BB-LIM-001", "error", "run.json")


def drop(*keys: str) -> Callable[[dict[str, Any]], None]:
    def edit(document: dict[str, Any]) -> None:
        for key in keys:
            del document[key]

    return edit


def put(*path: Any) -> Callable[[dict[str, Any]], None]:
    *keys, last, value = path

    def edit(document: dict[str, Any]) -> None:
        for key in keys:
            document = document[key]
        document[last] = value

    return edit


@pytest.mark.parametrize(
    ("rule", "pointer", "edit"),
    [
        ("BB-MAN-001", "", drop("id")),
        ("BB-MAN-001", "/tags/0", put("tags", [1])),
        ("BB-MAN-001", "/id", put("id", "X" * 32)),
        ("BB-MAN-001", "/attempts/0/process/pid", put("attempts", 0, "process", "pid", -1)),
        ("BB-MAN-001", None, put("format", {**FORMAT, "name": "other"})),
        ("BB-MAN-008", "/start", put("start", "2026-11-21 14:22:01Z")),
        ("BB-MAN-008", "/start", put("start", "2026-02-31T14:22:01.000000+00:00")),
        ("BB-MAN-008", "/attempts/0/end", put("attempts", 0, "end", "yesterday")),
        ("BB-MAN-009", "", drop("end")),
        ("BB-MAN-009", "", drop("duration_seconds")),
        ("BB-MAN-010", "/exception", put("exception", {"type": "E", "message": "m"})),
        ("BB-MAN-012", "", put("files", {})),
        ("BB-VER-001", "/format", put("format", {**FORMAT, "version": "2.0"})),
        ("BB-VER-006", "/format", put("format", {**FORMAT, "features": ["zstd"]})),
        ("BB-MAN-018", "/status", put("status", "interrupted")),
        ("BB-MAN-018", "/start", put("start", "2026-11-21T14:22:01.000000+00:00")),
        ("BB-MAN-018", "/end", put("end", "2046-11-21T14:22:01.000000+00:00")),
        ("BB-MAN-019", "/duration_seconds", put("duration_seconds", 7.5)),
        (
            "BB-MAN-020",
            "/attempts/1/attempt",
            lambda each: each["attempts"].append(each["attempts"][0]),
        ),
        ("BB-MAN-013", "/attempts/0/status", put("attempts", 0, "status", "interrupted")),
        ("BB-MAN-013", "/id", put("id", "0" * 32)),
        ("BB-MAN-013", "/attempts/0/process", put("attempts", 0, "process", "host", "other")),
    ],
)
def test_a_fault_of_the_manifest_is_reported_at_its_place(
    ended: Path, rule: str, pointer: str | None, edit: Callable[[dict[str, Any]], None]
) -> None:
    change(ended, edit)
    report = validate(ended)
    found = {(problem.rule, problem.pointer) for problem in report.problems}
    assert (rule, pointer) in found
    # One edit makes the run and its last attempt differ too.
    assert {name for name, _ in found} <= {rule, "BB-MAN-018", "BB-MAN-019"}
    assert not report.ok


def test_a_refused_manifest_refuses_the_run(sealed: Path) -> None:
    change(sealed, put("format", {**FORMAT, "version": "2.3"}))
    (sealed / "config.json").write_text("damaged")
    problem = only(sealed)
    assert problem.rule == "BB-VER-001"
    assert "2.3" in problem.message


@pytest.mark.parametrize(
    ("rule", "edit"),
    [
        ("BB-VER-003", put("format", {**FORMAT, "version": "1.7"})),
        ("BB-MAN-002", lambda document: document.update(name=document.pop("name"))),
    ],
)
def test_what_only_should_be_is_a_warning(
    ended: Path, rule: str, edit: Callable[[dict[str, Any]], None]
) -> None:
    change(ended, edit)
    problem = only(ended)
    assert (problem.rule, problem.severity) == (rule, "warning")
    assert validate(ended).ok


@pytest.mark.parametrize("spoil", [bytes.strip, lambda data: data.replace(b"\n  ", b"\n    ")])
def test_a_manifest_is_laid_out_for_people(ended: Path, spoil: Callable[[bytes], bytes]) -> None:
    edit_bytes(ended, "run.json", spoil)
    assert only(ended).rule == "BB-MAN-002"


@pytest.mark.rule("BB-VER-010")
def test_unknown_members_are_no_fault(ended: Path) -> None:
    change(ended, put("extensions", {"org.example": {"a": [1]}}))
    change(ended, put("environment", "anything", {"$odd": 10**30}))
    change(ended, put("attempts", 0, "later", 1))
    assert not validate(ended).problems


def test_a_missing_manifest_is_a_warning(ended: Path) -> None:
    (ended / "run.json").unlink()
    problem = only(ended)
    assert (problem.rule, problem.severity) == ("BB-MAN-014", "warning")


def test_a_manifest_beyond_the_limit_is_damaged(ended: Path) -> None:
    assert only(ended, Limits(manifest_bytes=100)).rule == "BB-LIM-001"


def test_the_manifest_may_be_behind_a_writer_that_was_killed(ended: Path) -> None:
    def revert(document: dict[str, Any]) -> None:
        for holder in (document, document["attempts"][0]):
            del holder["end"]
            holder["status"] = "running"
        del document["duration_seconds"]

    change(ended, revert)
    problem = only(ended)
    assert (problem.rule, problem.severity) == ("BB-MAN-013", "warning")


def test_an_attempt_without_a_journal_is_reported(ended: Path) -> None:
    change(ended, lambda each: each["attempts"].append({**each["attempts"][0], "attempt": 1}))
    problem = only(ended)
    assert (problem.rule, problem.pointer) == ("BB-MAN-013", "/attempts/1")


def test_a_failure_should_be_explained(tmp_path: Path) -> None:
    from blackboxml import Run

    run = Run("failed", log_dir=tmp_path).start()
    run.finish("failed")
    problem = only(run.path)
    assert (problem.rule, problem.severity) == ("BB-MAN-011", "warning")


# -- not a run


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"run.json": b'{"format": {"name": "other"}}'},
        {"run.json": b"[]"},
        {"metrics.jsonl": b'{"loss": 1}\n'},
        {"metrics.jsonl": b""},
        {"data.csv": b"a"},
    ],
)
def test_a_directory_without_a_run_is_refused(tmp_path: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(NotARunError):
        validate(tmp_path)


def test_a_path_without_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotARunError):
        validate(tmp_path / "none")


def test_the_path_may_be_that_of_the_manifest(ended: Path) -> None:
    report = validate(ended / "run.json")
    assert report.ok
    assert report.path == ended


# -- configuration


@pytest.mark.parametrize(
    ("rule", "pointer", "text"),
    [
        ("BB-CFG-001", None, "{"),
        ("BB-CFG-001", None, "[]"),
        ("BB-CFG-001", None, '{"format": {"name": "blackbox-run"}, "config": {}}'),
        ("BB-CFG-001", "/config/a/$float", '"a": {"$float": 1.5}'),
        ("BB-CFG-001", "/config/a/$bytes", '"a": {"$bytes": "A"}'),
        ("BB-CFG-001", None, '"a": 1, "a": 2'),
        ("BB-CFG-004", "/config/a/0", '"a": [9223372036854775808]'),
        ("BB-CFG-006", "/config/a", '"a": 1e999'),
        ("BB-CFG-007", "/config/a", '"a": {"$float": "NaN", "b": 1}'),
        ("BB-CFG-009", "/config/a~1b/$int", '"a/b": {"$int": "1000000000000000000"}'),
        ("BB-CFG-011", "/config/a/$later", '"a": {"$later": {"$int": "1000000000000000000"}}'),
    ],
)
def test_a_fault_of_the_configuration_is_reported_at_its_place(
    ended: Path, rule: str, pointer: str | None, text: str
) -> None:
    if not text.startswith(("{", "[")):
        form = '{"name": "blackbox-config", "version": "1.0", "features": []}'
        text = f'{{"format": {form}, "config": {{{text}}}}}'
    (ended / "config.json").write_text(text)
    problem = only(ended)
    assert (problem.rule, problem.pointer) == (rule, pointer)
    assert problem.severity == ("warning" if rule == "BB-CFG-011" else "error")


@pytest.mark.parametrize(("attempts", "place"), [([0, 0, 2], None), ([0, 2, 1], 2)])
def test_what_was_replaced_stands_in_the_order_of_attempts(
    ended: Path, attempts: list[int], place: int | None
) -> None:
    time = "2026-11-22T08:00:00.000000+00:00"
    document = json.loads((ended / "config.json").read_bytes())
    document["replaced"] = [{"attempt": each, "time": time, "values": {}} for each in attempts]
    (ended / "config.json").write_text(json.dumps(document))
    found = [(problem.rule, problem.pointer) for problem in validate(ended).problems]
    wanted = [] if place is None else [("BB-CFG-015", f"/replaced/{place}/attempt")]
    assert found == wanted


def test_a_configuration_of_a_later_format_is_not_judged(ended: Path) -> None:
    edit_bytes(ended, "config.json", lambda data: data.replace(b"1.0", b"3.0"))
    assert only(ended).rule == "BB-VER-001"


def test_a_configuration_beyond_the_limit_is_damaged(ended: Path) -> None:
    assert only(ended, Limits(config_bytes=100)).rule == "BB-LIM-001"


def test_a_run_without_a_configuration_is_valid(ended: Path) -> None:
    (ended / "config.json").unlink()
    report = validate(ended)
    assert not report.problems
    assert "BB-CFG-001" not in report.checked


def test_the_runs_of_these_tests_have_no_problems(recorded: dict[str, Path]) -> None:
    assert {name: validate(path).problems for name, path in recorded.items()} == {
        name: [] for name in recorded
    }


def test_a_copy_keeps_its_checksums(sealed: Path) -> None:
    before = (sealed / "SHA256SUMS").read_bytes()
    runs.write_sums(sealed)
    assert (sealed / "SHA256SUMS").read_bytes() == before
