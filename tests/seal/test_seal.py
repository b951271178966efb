"""Sealing: what it makes, what it refuses, and that doing it again changes nothing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings

from blackboxml import RunWriter, open_run, validate
from blackboxml.base.schema import validator
from blackboxml.errors import LimitError, NotARunError, RunIsLiveError, SealError
from blackboxml.model import Limits
from blackboxml.seal import seal
from blackboxml.seal.pack import pack
from tests import histories
from tests.histories import TIME, end, event, header, point, write
from tests.reader.test_reader import rich, written

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.histories import Files


def content(path: Path) -> dict[str, bytes]:
    return {
        str(each.relative_to(path)): each.read_bytes()
        for each in sorted(path.rglob("*"))
        if each.is_file()
    }


def manifest_of(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((path / "run.json").read_bytes())
    return document


def check_sums(path: Path) -> None:
    """Check a run as a person would, and that every file is listed."""
    subprocess.run(["sha256sum", "--quiet", "--strict", "-c", "SHA256SUMS"], cwd=path, check=True)
    lines = (path / "SHA256SUMS").read_text("ascii").splitlines()
    names = [line[66:] for line in lines]
    assert names == sorted(names)
    assert set(names) == content(path).keys() - {"SHA256SUMS"}
    assert all(line[64:66] == "  " for line in lines)


def stamp(seconds: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")


@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(histories.histories())
def test_a_sealed_manifest_is_valid_and_says_what_the_journals_say(files: Files) -> None:
    with written(files) as path:
        seal(path)
        manifest = manifest_of(path)
        validator("manifest").validate(manifest)
        check_sums(path)
        expected = histories.expect(files)
        assert list(manifest["groups"]) == list(expected.groups())
        for group, metrics in expected.groups().items():
            said = manifest["groups"][group]
            assert list(said["metrics"]) == metrics
            columns = expected.columns(group)
            rows = expected.rows(group)
            for at, column in enumerate(columns, start=5):
                if column.statistic is None:
                    values = [row[at] for row in rows if row[at] is not None]
                    metric = said["metrics"][column.metric]
                    assert metric["count"] == len(values)
                    assert metric["type"] == column.kind.replace("double", "float64")
                    assert ("last" in metric) == bool(values)
        _check_journals(manifest, files, expected)


def _check_journals(manifest: dict[str, Any], files: Files, expected: histories.Expected) -> None:
    entries = manifest["journals"]
    assert {entry["file"] for entry in entries} == set(files)
    places = [(entry["rank"], _ordinal(entry["file"])) for entry in entries]
    assert places == sorted(places)
    assert sum(entry["records"] for entry in entries) == len(expected.records)
    listed = {
        (entry["attempt"], entry["rank"], each["seq"])
        for entry in entries
        for each in entry["events"]
    }
    wanted = {
        place
        for place, document in expected.records
        if "metrics" not in document
        or not (document["metrics"] or document.get("ranks"))
        or document.keys() - {"seq", "step", "time", "metrics", "ranks", "crc"}
    }
    assert listed >= wanted
    for place in listed - wanted:
        document = dict(expected.records)[place]
        statistics = [each.values() for each in document.get("ranks", {}).values()]
        values = [*document["metrics"].values(), *(v for each in statistics for v in each)]
        assert any(type(value) is int and int(float(value)) != value for value in values)


def _ordinal(name: str) -> int:
    parts = name.removesuffix(".jsonl").split(".")
    return int(parts[-1]) if parts[-1].isdigit() else 0


def test_sealing_again_changes_no_byte(tmp_path: Path) -> None:
    path = write(tmp_path / "run", rich() | {"config.json": b"{}", "notes.txt": b"kept"})
    assert seal(path).changed
    before = content(path)
    report = seal(path)
    assert not report.changed
    assert report.rows == {
        name: group["rows"] for name, group in manifest_of(path)["groups"].items()
    }
    assert content(path) == before


@pytest.mark.rule("BB-LAY-011")
def test_sealing_leaves_the_journals_and_foreign_files_as_they_are(tmp_path: Path) -> None:
    files = rich() | {"notes.txt": b"kept", "config.json": b"{}"}
    path = write(tmp_path / "run", files)
    (path / "artifacts" / "deep").mkdir(parents=True)
    (path / "artifacts" / "deep" / "model.bin").write_bytes(b"\0" * 100)
    (path / "odd name").write_bytes(b"no path of a run")
    seal(path)
    after = content(path)
    assert {name: after[name] for name in files} == files
    assert after["odd name"] == b"no path of a run"
    digests = manifest_of(path)["files"]
    assert set(digests) == set(after) - {"run.json", "SHA256SUMS", "odd name"}
    for name, said in digests.items():
        assert said == {
            "bytes": len(after[name]),
            "sha256": hashlib.sha256(after[name]).hexdigest(),
        }


def test_scratch_is_removed_and_never_listed(tmp_path: Path) -> None:
    path = write(tmp_path / "run", rich() | {".tmp-run.json-1": b"half"})
    (path / ".tmp-seal-1" / "deep").mkdir(parents=True)
    (path / ".tmp-seal-1" / "train.parquet").write_bytes(b"half")
    (path / ".tmp-link").symlink_to("/etc")
    seal(path)
    assert not list(path.glob(".tmp-*"))
    assert Path("/etc/passwd").exists()
    (path / ".tmp-late").write_bytes(b"")
    assert not seal(path).changed
    assert not list(path.glob(".tmp-*"))
    check_sums(path)


@pytest.mark.rule("BB-LAY-014", "BB-SEA-001")
def test_a_live_run_is_refused(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, "live")
    writer.log({"a": 1})
    (writer.path / ".tmp-of-the-writer").write_bytes(b"")
    before = content(writer.path)
    with pytest.raises(RunIsLiveError, match="being written"):
        seal(writer.path)
    assert content(writer.path) == before
    with pytest.raises(RunIsLiveError, match="being written"):
        seal(writer.path, force=True)
    writer.finish()
    assert seal(writer.path).changed


@pytest.mark.rule("BB-LIM-006")
def test_what_no_reader_looks_at_is_not_listed(tmp_path: Path) -> None:
    path = write(tmp_path / "run", {"metrics.jsonl": header() + point(0) + end(1)})
    folder = path.joinpath(*["d"] * 64)
    (folder / "d").mkdir(parents=True)
    (folder / "seen").write_bytes(b"1")
    (folder / "d" / "unseen").write_bytes(b"1")
    seal(path)
    listed = manifest_of(path)["files"]
    assert [name for name in listed if "seen" in name] == ["d/" * 64 + "seen"]
    assert [each.rule for each in validate(path).problems] == ["BB-LIM-005"]


@pytest.mark.rule("BB-SEA-001", "BB-SEA-002", "BB-LIV-007")
@pytest.mark.parametrize("work", [seal, pack])
def test_a_run_of_another_machine_is_sealed_if_a_person_vouches(
    tmp_path: Path, work: Callable[..., object]
) -> None:
    elsewhere = {"host": "elsewhere", "pid": 1, "started": 1}
    path = write(tmp_path / "run", {"metrics.jsonl": header(process=elsewhere) + point(0)})
    os.utime(path / "metrics.jsonl", (0, 0))  # no proof: the clocks of two machines differ
    before = content(path)
    with pytest.raises(RunIsLiveError, match=r"may still be written: .* --force"):
        work(path)
    assert content(path) == before
    work(path, force=True)
    assert open_run(path).status == "interrupted"


@pytest.mark.parametrize(
    ("files", "status", "ended"),
    [
        ({"metrics.jsonl": header() + point(0) + point(1)}, "interrupted", TIME + 1),
        ({"metrics.jsonl": header()}, "interrupted", TIME - 1),
        ({"metrics.jsonl": header() + point(0) + end(1)}, "completed", TIME + 1),
        (
            {
                "metrics.jsonl": header()
                + point(0)
                + end(1, "failed", exception={"type": "E", "message": "m"})
            },
            "failed",
            TIME + 1,
        ),
        (
            {"metrics.jsonl": header() + end(0), "metrics.1.jsonl": header(attempt=1) + point(0)},
            "interrupted",
            TIME,
        ),
        (
            {
                "metrics.jsonl": header() + point(0) + point(1) + point(2),
                "metrics.1.jsonl": header(first_seq=1, time=TIME + 50) + point(1),
            },
            "interrupted",
            TIME + 2,
        ),
        (
            {"metrics.jsonl": header() + point(0, time=TIME + 900) + point(1, time=TIME - 900)},
            "interrupted",
            TIME - 900,
        ),
        (
            {"metrics.r2.jsonl": header(2) + end(0), "metrics.r5.jsonl": header(5) + point(7)},
            "completed",
            TIME,
        ),
        (
            {"metrics.jsonl": header() + end(0), "metrics.r1.jsonl": header(1, 3) + point(0)},
            "completed",
            TIME,
        ),
    ],
)
def test_sealing_settles_how_the_run_ended(
    tmp_path: Path, files: Files, status: str, ended: float
) -> None:
    path = write(tmp_path / "run", files)
    seal(path)
    manifest = manifest_of(path)
    validator("manifest").validate(manifest)
    assert manifest["status"] == status == open_run(path).status
    assert manifest["end"] == stamp(ended)
    assert manifest["attempts"][-1]["status"] == status
    assert manifest["attempts"][-1]["end"] == stamp(ended)
    assert ("exception" in manifest) == (status == "failed")


def test_a_manifest_that_a_killed_writer_left_behind_is_settled(tmp_path: Path) -> None:
    files = {
        "metrics.jsonl": header() + point(0, {"a": 1}),
        "metrics.1.jsonl": header(attempt=1) + point(0, {"a": 2}) + end(1),
        "metrics.2.jsonl": header(attempt=2, time=TIME + 5),
    }
    path = write(tmp_path / "run", files)
    attempt = {
        "attempt": 0,
        "start": stamp(TIME - 1),
        "status": "running",
        "process": histories.dead_process(),
    }
    manifest = {
        "format": {"name": "blackbox-run", "version": "1.0", "features": []},
        "id": histories.RUN_ID,
        "name": histories.RUN_NAME,
        "tags": ["t"],
        "status": "running",
        "start": stamp(TIME - 1),
        "environment": {"x": 1},
        "writer": {"name": "other", "version": "1"},
        "generation": 4,
        "attempts": [attempt],
        "org.example": {"kept": True},
        "extensions": {"org.example": {"kept": True}},
    }
    (path / "run.json").write_text(json.dumps(manifest), "utf-8")
    seal(path)
    found = manifest_of(path)
    validator("manifest").validate(found)
    assert [(each["status"], each["end"]) for each in found["attempts"]] == [
        ("interrupted", stamp(TIME)),
        ("completed", stamp(TIME + 1)),
        ("interrupted", stamp(TIME + 5)),
    ]
    assert (found["status"], found["end"]) == ("interrupted", stamp(TIME + 5))
    assert found["generation"] == 5
    for key in ("tags", "environment", "org.example", "extensions"):
        assert found[key] == manifest[key]


def test_a_manifest_without_a_journal_is_sealed_as_interrupted(tmp_path: Path) -> None:
    path = write(tmp_path / "run", {"metrics.jsonl": header() + point(0)})
    seal(path)
    manifest = manifest_of(path)
    for key in ("sealed", "groups", "journals", "files", "end", "duration_seconds"):
        del manifest[key]
    manifest["status"] = manifest["attempts"][0]["status"] = "running"
    del manifest["attempts"][0]["end"]
    alone = write(tmp_path / "alone", {"run.json": json.dumps(manifest).encode()})
    seal(alone)
    validator("manifest").validate(manifest_of(alone))
    assert manifest_of(alone)["status"] == "interrupted"


def test_the_word_of_the_journal_outranks_the_manifest(tmp_path: Path) -> None:
    path = write(tmp_path / "run", {"metrics.jsonl": header() + point(0) + end(1, "interrupted")})
    seal(path)
    manifest = manifest_of(path)
    for key in ("sealed", "groups", "journals", "files"):
        del manifest[key]
    manifest["status"] = manifest["attempts"][0]["status"] = "completed"
    (path / "run.json").write_text(json.dumps(manifest), "utf-8")
    seal(path)
    assert manifest_of(path)["status"] == "interrupted"


@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "gone", "header"])
def test_tables_are_kept_when_a_sealed_journal_is_damaged(tmp_path: Path, harm: str) -> None:
    path = write(tmp_path / "run", rich())
    seal(path)
    journal = path / "metrics.2.jsonl"
    data = journal.read_bytes()
    changed = {
        "flip": data.replace(b"train/loss", b"train/LOSS", 1),
        "cut": data[:-40],
        "empty": b"",
        "header": b"X" + data[1:],
        "gone": None,
    }[harm]
    if changed is None:
        journal.unlink()
    else:
        journal.write_bytes(changed)
    before = content(path)
    with pytest.raises(SealError, match=r"metrics\.2\.jsonl"):
        seal(path)
    assert content(path) == before


@pytest.mark.parametrize("name", ["train.parquet", "train.h5", "SHA256SUMS", "metrics.h5"])
@pytest.mark.parametrize("harm", ["flip", "gone", "empty"])
def test_what_can_be_made_anew_is_made_anew(tmp_path: Path, name: str, harm: str) -> None:
    path = write(tmp_path / "run", rich())
    seal(path)
    whole = content(path)
    data = bytearray(whole[name])
    data[len(data) // 2] ^= 1
    if harm == "gone":
        (path / name).unlink()
    else:
        (path / name).write_bytes(b"" if harm == "empty" else bytes(data))
    assert seal(path).changed
    check_sums(path)
    assert content(path).keys() == whole.keys()
    assert content(path)["train.parquet"] == whole["train.parquet"]
    assert not seal(path).changed


def test_a_file_that_came_or_changed_after_sealing_is_listed_by_the_next_seal(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "run", rich())
    seal(path)
    (path / "notes.txt").write_bytes(b"one")
    seal(path)
    (path / "train.h5").unlink()
    seal(path)
    check_sums(path)


def test_damaged_lines_are_reported_and_the_rest_is_sealed(tmp_path: Path) -> None:
    data = header() + point(0, {"a": 1}) + b"damage\n" + point(2, {"a": 3})
    report = seal(write(tmp_path / "run", {"metrics.jsonl": data}))
    assert report.rows == {"": 2}
    assert [problem.rule for problem in report.problems if problem.file != "run.json"] == [
        "BB-JNL-003",
        "BB-JNL-009",
    ]
    assert not seal(tmp_path / "run").changed


def test_sealing_a_resumed_run_replaces_its_tables(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, "again")
    writer.log({"a/x": 1})
    writer.finish()
    seal(writer.path)
    resumed = RunWriter.resume(writer.path)
    assert "sealed" not in manifest_of(writer.path)
    assert not (writer.path / "SHA256SUMS").exists()
    resumed.log({"a/x": 2, "b/y": 3})
    resumed.finish()
    seal(writer.path)
    check_sums(writer.path)
    assert open_run(writer.path).arrow("a")["x"].to_pylist() == [1, 2]


def test_a_group_without_effective_rows_keeps_its_table(tmp_path: Path) -> None:
    data = header() + point(0, {"a": 1}) + event(1, rewind={"step": -5})
    path = write(tmp_path / "run", {"metrics.jsonl": data})
    seal(path)
    said = manifest_of(path)["groups"][""]
    assert (said["rows"], said["superseded"]) == (1, 1)
    assert said["metrics"]["a"]["count"] == 0
    assert "last" not in said["metrics"]["a"]
    assert "dataset" not in said


def test_events_that_a_manifest_has_no_room_for_stay_in_the_journals(tmp_path: Path) -> None:
    lines = [
        event(seq, rewind={"step": seq}) if seq % 2 else point(seq, {"a": seq})
        for seq in range(400)
    ]
    path = write(tmp_path / "run", {"metrics.jsonl": header() + b"".join(lines) + end(400)})
    limits = Limits(manifest_bytes=6000)
    wanted = [record.step for record in open_run(path, limits).records()]
    seal(path, limits=limits)
    assert (path / "run.json").stat().st_size <= 6000
    validator("manifest").validate(manifest_of(path))
    reader = open_run(path, limits)
    assert reader.manifest["journals"][0]["records"] == 401
    assert "events" not in reader.manifest["journals"][0]
    assert [record.step for record in reader.records()] == wanted
    assert reader.arrow()["step"].to_pylist() == wanted
    assert not seal(path, limits=limits).changed
    from blackboxml.seal.pack import pack

    with pytest.raises(SealError, match="events"):
        pack(path, limits=limits)
    pack(path)
    assert [record.step for record in open_run(path).records()] == wanted


def test_a_run_with_too_many_metrics_for_a_manifest_stays_as_it_was(tmp_path: Path) -> None:
    metrics = {f"m{number}": number for number in range(200)}
    path = write(tmp_path / "run", {"metrics.jsonl": header() + point(0, metrics)})
    with pytest.raises(SealError, match="manifest"):
        seal(path, limits=Limits(manifest_bytes=6000))
    assert not (path / "run.json").exists()
    assert open_run(path).arrow().num_rows == 1


def test_progress_grows_to_one(tmp_path: Path) -> None:
    path = write(tmp_path / "run", rich())
    shares: list[float] = []
    seal(path, progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert all(0 <= share <= 1 for share in shares)


def test_what_is_no_run_is_not_sealed(tmp_path: Path) -> None:
    with pytest.raises(NotARunError):
        seal(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_run_moves_while_it_is_sealed(tmp_path: Path) -> None:
    path = write(tmp_path / "run", rich())
    moved = tmp_path / "moved"
    done = []

    def move(_: float) -> None:
        if not done:
            path.rename(moved)
            done.append(True)

    try:
        seal(path, progress=move)
    except (OSError, SealError):
        assert not (moved / "SHA256SUMS").exists()
    seal(moved)
    check_sums(moved)


def test_links_and_special_files_are_neither_followed_nor_listed(tmp_path: Path) -> None:
    path = write(tmp_path / "run", rich())
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_bytes(b"secret")
    (path / "link").symlink_to(secret / "key")
    (path / "folder").symlink_to(secret)
    os.mkfifo(path / "fifo")
    seal(path)
    assert not {"link", "folder", "folder/key", "fifo"} & set(manifest_of(path)["files"])
    assert (path / "link").is_symlink()


def test_a_table_that_does_not_read_back_the_same_is_not_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow.parquet as pq

    path = write(tmp_path / "run", rich())
    genuine = pq.ParquetFile.read_row_group

    def other(file: Any, place: int, **options: Any) -> Any:
        table = genuine(file, place, **options)
        column = table.column("seq").combine_chunks()
        return table.set_column(
            4, table.schema.field(4), column.take(list(range(len(column)))[::-1])
        )

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", other)
    with pytest.raises(SealError, match="does not read back"):
        seal(path)
    monkeypatch.undo()
    assert sorted(content(path)) == sorted(rich())
    seal(path)
    check_sums(path)


def test_a_dataset_that_does_not_read_back_the_same_is_not_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from blackboxml.seal.dataset_reader import Dataset

    path = write(tmp_path / "run", rich())
    genuine = Dataset.read
    monkeypatch.setattr(Dataset, "read", lambda *args: genuine(*args)[::-1].copy())
    with pytest.raises(SealError, match=r"\.h5 does not read back"):
        seal(path)
    assert sorted(content(path)) == sorted(rich())


def test_a_limit_of_table_size_does_not_stop_a_seal(tmp_path: Path) -> None:
    path = write(tmp_path / "run", rich())
    seal(path, limits=Limits(table_bytes=10))
    with pytest.raises(LimitError):
        open_run(path, Limits(table_bytes=10)).arrow("train")
    shutil.rmtree(path)


def test_an_attempt_that_the_manifest_does_not_know_ends_the_run(tmp_path: Path) -> None:
    first = RunWriter.create(tmp_path, "resumed")
    first.log({"loss": 1.0})
    first.finish("interrupted")
    later = header(attempt=1, run_id=first.run_id, time=TIME + 9e6)
    (first.path / "metrics.1.jsonl").write_bytes(later)  # and then it was killed
    seal(first.path)
    assert validate(first.path).verdict == "valid"
    document = json.loads((first.path / "run.json").read_bytes())
    assert [attempt["status"] for attempt in document["attempts"]] == ["interrupted"] * 2
    assert document["end"] == document["attempts"][-1]["end"]
