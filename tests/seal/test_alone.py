"""Sealing, packing and going on with a run that somebody else is at."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from blackboxml import Run, open_run, validate
from blackboxml import seal as sealing
from blackboxml.base import files, process
from blackboxml.base.files import Directory
from blackboxml.errors import RunIsLiveError, SealError
from blackboxml.seal import seal
from blackboxml.seal.pack import pack
from blackboxml.validation import single
from blackboxml.writer import RunWriter

if TYPE_CHECKING:
    from pathlib import Path


def write(folder: Path, count: int = 20) -> Path:
    with Run("run", log_dir=folder, environment=(), seal=False) as run:
        for step in range(count):
            run.log({"a/x": step}, step)
    return run.path


def before(monkeypatch: pytest.MonkeyPatch, act: Any) -> None:
    """Let something be done between reading the journals and saying that the run is sealed."""
    genuine = sealing.write_manifest

    def write_manifest(directory: Any, manifest: Any) -> None:
        act()
        genuine(directory, manifest)

    monkeypatch.setattr(sealing, "write_manifest", write_manifest)


@pytest.mark.rule("BB-SEA-016")
@pytest.mark.parametrize("name", ["metrics.jsonl", "metrics.1.jsonl"])
def test_a_run_that_is_gone_on_with_is_not_said_to_be_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = write(tmp_path)

    def go_on() -> None:
        with (path / name).open("ab") as file:
            file.write(b"x\n")

    before(monkeypatch, go_on)
    with pytest.raises(SealError, match="was written while the run was sealed"):
        seal(path)
    assert not open_run(path).sealed
    assert "sealed" not in open_run(path).manifest


@pytest.mark.rule("BB-SEA-016")
def test_a_run_whose_journals_are_gone_is_not_said_to_be_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path)
    manifest = (path / "run.json").read_bytes()
    genuine = sealing.Sealing.keep_exact

    def go(self: Any) -> None:
        genuine(self)
        (path / "metrics.jsonl").rename(tmp_path / "kept")

    monkeypatch.setattr(sealing.Sealing, "keep_exact", go)
    with pytest.raises(SealError, match="is gone: somebody else packs the run"):
        seal(path)
    assert (path / "run.json").read_bytes() == manifest


@pytest.mark.rule("BB-SEA-017")
@pytest.mark.parametrize("act", [seal, pack, RunWriter.resume])
def test_who_finishes_a_run_off_waits_for_whoever_does_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: Any
) -> None:
    path = write(tmp_path)
    monkeypatch.setattr(files, "CLAIM_SECONDS", 0.05)
    with Directory(path) as directory:
        with directory.claimed(), pytest.raises(RunIsLiveError, match="another process"):
            act(path)
        assert not open_run(path).sealed
        held = ExitStack()
        held.enter_context(directory.claimed())
        monkeypatch.setattr(files, "CLAIM_SECONDS", 60.0)
        waiting = threading.Thread(target=lambda: act(path))
        waiting.start()
        held.close()
        waiting.join()
    assert open_run(path).status in {"completed", "running"}


def test_the_points_of_a_run_come_once_though_it_is_packed_meanwhile(tmp_path: Path) -> None:
    path = write(tmp_path)
    with Run("run", resume=path, environment=(), seal=False) as run:
        for step in range(20, 40):
            run.log({"a/x": step}, step)
    reader = open_run(path)
    records = reader.records()
    assert next(records).step == 0
    followed = open_run(path).follow(from_start=True)
    assert next(followed).step == 0
    pack(path)
    assert [record.step for record in records] == list(range(1, 40))
    assert [record.step for record in followed] == list(range(1, 40))
    assert reader.arrow("a").num_rows == 40
    assert list(open_run(path).follow()) == []


@pytest.mark.rule("BB-SEA-012")
def test_a_question_is_asked_again_where_journals_go_between_two_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path)
    reader = open_run(path)
    genuine = Directory.reading
    asked = []

    def reading(self: Directory, name: str) -> Any:
        if name == "metrics.jsonl" and not asked:
            asked.append(name)
            pack(path)
        return genuine(self, name)

    monkeypatch.setattr(Directory, "reading", reading)
    assert reader.summary()["a/x"].n == 20
    assert asked


def test_a_run_that_changes_all_the_time_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path)
    seal(path)
    (path / "a.parquet").write_bytes(b"")
    assert validate(path).verdict == "invalid"
    genuine = single._validate

    def change(*given: Any) -> Any:
        with Directory(path) as directory:
            directory.replace("run.json", (path / "run.json").read_bytes())
        return genuine(*given)

    monkeypatch.setattr(single, "_validate", change)
    report = validate(path)
    assert report.verdict == "unreadable"
    assert "meanwhile" in str(report.reason)


@pytest.mark.parametrize("last", [0, 1])
def test_two_that_go_on_with_one_run_say_the_same_of_it_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: int
) -> None:
    path = write(tmp_path)
    monkeypatch.setattr(process, "liveness", lambda *_: "unknown")  # as between two machines
    writers = [RunWriter.resume(path) for _ in range(2)]
    for writer in writers:
        writer.log({"a/x": 1})
    for writer in (writers[1 - last], writers[last]):
        writer.finish()
    manifest = open_run(path).manifest
    assert [entry["status"] for entry in manifest["attempts"]] == ["completed"] * 3
    assert validate(path).verdict == "valid"
    assert not validate(path).problems


def test_a_run_whose_journals_are_not_all_listed_yet_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path)
    lines = (path / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (path / "metrics.jsonl").write_bytes(b"".join(lines[:-1]))
    assert validate(path).verdict == "invalid"
    (path / "metrics.1.jsonl").write_bytes(lines[0])
    genuine = Directory.names
    monkeypatch.setattr(
        Directory,
        "names",
        lambda self: [name for name in genuine(self) if name != "metrics.1.jsonl"],
    )  # as NFS may
    assert validate(path).verdict == "unreadable"
