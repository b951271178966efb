"""RunWriter makes a directory of its own, says what the run is, and goes on with one that ended."""

from __future__ import annotations

import errno
import gc
import json
import os
import re
import shutil
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from blackboxml import open_run, validate, writer
from blackboxml.base.files import Directory
from blackboxml.errors import (
    MetricError,
    NotARunError,
    RunIsLiveError,
    RunStateError,
    WriteError,
)
from blackboxml.journal import decode
from blackboxml.seal import seal
from blackboxml.seal.pack import pack
from blackboxml.writer import RunWriter, upkeep

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def manifest(path: Path) -> dict[str, Any]:
    return json.loads((path / "run.json").read_text())


def head(path: Path, name: str = "metrics.jsonl") -> dict[str, Any]:
    return decode((path / name).read_bytes().splitlines()[0])


# -- the directory


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("resnet", "resnet"),
        ("../escape", "___escape"),
        ("/etc/passwd", "_etc_passwd"),
        ("..", "__"),
        ("-rf", "_rf"),
        ("🙂 é", "___"),
        ("a" * 300, "a" * 100),
        ("CON", "CON"),
    ],
)
@pytest.mark.rule("BB-LAY-001")
def test_a_run_stays_inside_its_log_dir_and_keeps_its_name(
    tmp_path: Path, name: str, prefix: str
) -> None:
    new = RunWriter.create(tmp_path / "logs", name)
    new.finish()
    assert new.path.parent == tmp_path / "logs"
    assert re.fullmatch(re.escape(prefix) + r"_\d{8}_\d{6}", new.path.name)
    assert manifest(new.path)["name"] == name
    assert head(new.path)["run"]["name"] == name
    assert os.listdir(tmp_path) == ["logs"]


@pytest.mark.rule("BB-LAY-001", "BB-LAY-002")
def test_a_name_that_is_taken_is_followed_by_a_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer.time, "time", lambda: 1_795_270_921.5)
    made = [RunWriter.create(tmp_path, "r") for _ in range(3)]
    (tmp_path / "r_20261121_142201_4").write_text("in the way")
    made.append(RunWriter.create(tmp_path, "r"))
    for each in made:
        each.finish()
    assert [each.path.name for each in made] == [
        "r_20261121_142201",
        "r_20261121_142201_2",
        "r_20261121_142201_3",
        "r_20261121_142201_5",
    ]
    assert len({each.run_id for each in made}) == 4


def test_missing_folders_are_made_and_a_relative_one_is_kept_in_mind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    new = RunWriter.create("a/b/c", "r")
    monkeypatch.chdir("/")
    new.log({"a": 1})
    new.finish()
    assert new.path.parent == tmp_path / "a" / "b" / "c"
    assert open_run(new.path).status == "completed"


@pytest.mark.parametrize(
    "arguments",
    [
        {"name": ""},
        {"name": None},
        {"name": 5},
        {"name": "a\ud800"},
        {"name": "a\nb"},
        {"name": "a\x00b"},
        {"name": "é" * 513},
        {"tags": "tag"},
        {"tags": [5]},
        {"tags": [""]},
        {"tags": ["\ud800"]},
        {"tags": ["x" * 2_000_000]},
        {"environment": {"a": object()}},
        {"environment": {"a": "x" * 2**24}},
        {"run_id": "abc"},
        {"lineage": {"parent": "../x"}},
        {"sync": "sometimes"},
    ],
)
def test_what_cannot_be_stored_is_refused_before_anything_is_made(
    tmp_path: Path, arguments: dict[str, Any]
) -> None:
    given = {"name": "r"} | arguments
    with pytest.raises(ValueError, match=r"wanted|written as JSON|not valid Unicode"):
        RunWriter.create(tmp_path / "logs", **given)
    assert not (tmp_path / "logs").exists()


def test_a_name_and_tags_of_any_text_come_back(tmp_path: Path) -> None:
    tags = ["a", "b c", "🙂", "x" * 1000, '"', "line\nbreak"]
    new = RunWriter.create(tmp_path, "é" * 512, tags=iter(tags))
    new.finish()
    (new.path / "metrics.jsonl").rename(tmp_path / "kept")
    assert open_run(new.path).tags == tags
    (tmp_path / "kept").rename(new.path / "metrics.jsonl")
    assert validate(new.path).ok


# -- the manifest


@pytest.mark.rule("BB-MAN-005")
def test_a_manifest_is_there_from_the_start_and_says_the_truth(tmp_path: Path) -> None:
    new = RunWriter.create(tmp_path, "r", tags=["t"], environment={"gpu": None})
    early = manifest(new.path)
    assert list(early) == [
        *("format", "id", "name", "tags", "status", "start", "environment", "writer"),
        *("generation", "attempts"),
    ]
    assert (early["status"], early["generation"]) == ("running", 0)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", early["start"])
    assert early["attempts"][0]["process"] == head(new.path)["process"]
    text = (new.path / "run.json").read_text()
    assert text.endswith("}\n")
    assert '\n  "name": "r"' in text
    new.finish()
    late = manifest(new.path)
    assert (late["status"], late["generation"]) == ("completed", 1)
    assert late["duration_seconds"] >= 0
    assert late["attempts"][0]["end"] == late["end"]
    assert validate(new.path).ok


def test_an_exception_is_kept_with_the_end(tmp_path: Path) -> None:
    new = RunWriter.create(tmp_path, "r")
    long = "\x00\ud800é" * 100_000
    new.finish("failed", {"type": "ValueError", "message": long, "traceback": long})
    found = manifest(new.path)["exception"]
    assert found["type"] == "ValueError"
    assert len(found["message"]) == 20_000
    assert open_run(new.path).status == "failed"
    assert validate(new.path).ok


def test_a_status_that_there_is_not_is_refused_and_the_run_goes_on(tmp_path: Path) -> None:
    new = RunWriter.create(tmp_path, "r")
    with pytest.raises(ValueError, match="wanted completed, failed or interrupted"):
        new.finish("done")
    new.log({"a": 1})
    new.finish()
    new.finish("failed")
    assert open_run(new.path).status == "completed"


def test_the_end_is_in_the_journal_before_the_manifest_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = RunWriter.create(tmp_path, "r")
    seen = []
    write = new.write_manifest
    monkeypatch.setattr(new, "write_manifest", lambda: (seen.append(ends()), write()))

    def ends() -> bool:
        return b'"end"' in (new.path / "metrics.jsonl").read_bytes()

    new.finish()
    assert seen == [True]


def test_nothing_of_a_finished_writer_stays(tmp_path: Path) -> None:
    before = threading.active_count(), len(os.listdir("/dev/fd"))
    for _ in range(5):
        new = RunWriter.create(tmp_path, "r")
        new.log({"a": 1})
        new.finish()
    assert (threading.active_count(), len(os.listdir("/dev/fd"))) == before


def test_a_writer_that_is_forgotten_is_let_go(tmp_path: Path) -> None:
    new = RunWriter.create(tmp_path, "r")
    thread, wake = new._upkeep._thread, new._upkeep._wake
    seen = weakref.ref(new)
    del new
    gc.collect()
    assert seen() is None
    thread.join(60)  # it looks once a second
    assert not thread.is_alive()
    assert not wake.is_set()


def test_a_strict_run_whose_manifest_cannot_be_written_does_not_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(Directory, "replace", fail)
    threads = threading.active_count()
    with pytest.raises(WriteError, match=r"run\.json"):
        RunWriter.create(tmp_path, "r", strict=True)
    assert threading.active_count() == threads
    (path,) = tmp_path.iterdir()
    assert open_run(path).status == "interrupted"


def test_a_document_that_cannot_be_written_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with monkeypatch.context() as patch:
        patch.setattr(Directory, "replace", fail)
        new = RunWriter.create(tmp_path, "r")
        new.add_config({"lr": 0.1})
        new.log({"a": 1})
        new.add_config({"seed": 1})
        assert os.listdir(new.path) == ["metrics.jsonl"]
    new.tick(0.0)
    assert manifest(new.path)["status"] == "running"
    assert open_run(new.path).config == {"lr": 0.1, "seed": 1}
    new.finish()
    assert len(caplog.records) == 1


# -- rewind and describe


def test_a_rewind_supersedes_and_sets_the_next_step(tmp_path: Path) -> None:
    new = RunWriter.create(tmp_path, "r")
    for _ in range(5):
        new.log({"a": 1.0})
    new.rewind(2)
    new.log({"a": 2.0})
    new.finish()
    reader = open_run(new.path)
    assert [record.step for record in reader.records()] == [0, 1, 2]
    assert [record.step for record in reader.records("all")] == [0, 1, 2, 3, 4, 2]


@pytest.mark.parametrize("step", [1.5, None, "1", True, 2**63])
def test_a_rewind_to_no_step_is_refused(tmp_path: Path, step: Any) -> None:
    new = RunWriter.create(tmp_path, "r")
    with pytest.raises(MetricError, match="step"):
        new.rewind(step)
    new.log({"a": 1.0})
    new.finish()
    assert len((new.path / "metrics.jsonl").read_bytes().splitlines()) == 3


def test_a_description_is_checked(tmp_path: Path) -> None:
    new = RunWriter.create(tmp_path, "r")
    new.log({"a": 1.0})
    new.describe("a", unit="m/s²")
    new.describe("a", description="speed")
    for wrong in ({"unit": 5}, {"description": b"x"}):
        with pytest.raises(MetricError, match="'a'"):
            new.describe("a", **wrong)
    for name in ("", "a\n", 5):
        with pytest.raises(MetricError):
            new.describe(name, unit="m")
    with pytest.raises(MetricError):
        new.describe("a", unit="\ud800")
    new.finish()
    seal(new.path)
    column = manifest(new.path)["groups"][""]["metrics"]["a"]
    assert (column["unit"], column["description"]) == ("m/s²", "speed")


# -- the heartbeat


@pytest.mark.rule("BB-LIV-002")
def test_an_idle_writer_shows_a_sign_of_life(tmp_path: Path) -> None:
    new = RunWriter.create(tmp_path, "r", sync="none")
    new._upkeep._wake.set()
    new._upkeep._thread.join()  # its work is done here, without waiting
    journal = new.path / "metrics.jsonl"
    os.utime(journal, (1, 1))
    assert not new.tick(14.9)
    assert journal.stat().st_mtime == 1
    assert new.tick(15.0)
    assert journal.stat().st_mtime > 1
    new.finish()


@pytest.mark.rule("BB-LIV-003")
def test_the_thread_ticks_by_its_own_clock_and_survives_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(upkeep, "SYNC_SECONDS", 0.001)
    new = RunWriter.create(tmp_path, "r")
    ticked = threading.Semaphore(0)

    def tick(idle: float) -> bool:
        ticked.release()
        assert idle >= 0
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(new, "tick", tick)
    for _ in range(20):
        assert ticked.acquire(timeout=60)
    new.log({"a": 1})
    new.finish()
    assert len(caplog.records) == 1  # and not twenty
    assert caplog.records[0].exc_info is not None
    assert len(list(open_run(new.path).records())) == 1


def test_records_are_synced_in_the_background(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from blackboxml.writer import recorder

    synced = threading.Event()
    monkeypatch.setattr(upkeep, "SYNC_SECONDS", 0.001)
    monkeypatch.setattr(recorder, "_datasync", lambda _: synced.set())
    new = RunWriter.create(tmp_path, "r")
    new.log({"a": 1})
    assert synced.wait(60)
    new.finish()


# -- resume


def crash(new: RunWriter) -> None:
    """Leave a run as a killed process does; that of this test lives on, so say another wrote it."""
    from blackboxml.journal import encode

    new._upkeep._wake.set()
    new._upkeep._thread.join()
    journal = max(new.path.glob("metrics*.jsonl"), key=lambda file: (len(file.name), file))
    first, _, rest = journal.read_bytes().partition(b"\n")
    document = decode(first)
    document.pop("crc")
    document["process"] |= {"pid": 2**22 - 3, "started": 1}
    new._recorder.disown()
    journal.write_bytes(encode(document) + rest)


def test_a_resumed_run_is_its_next_attempt_and_goes_on_with_its_steps(tmp_path: Path) -> None:
    new = RunWriter.create(tmp_path, "r", tags=["t"], environment={"gpu": "x"})
    for _ in range(3):
        new.log({"a": 1.0})
    new.finish()
    again = RunWriter.resume(new.path)
    assert (again.attempt, again.run_id, again.path) == (1, new.run_id, new.path)
    running = manifest(new.path)
    assert running["status"] == "running"
    assert "end" not in running
    assert "duration_seconds" not in running
    again.log({"a": 2.0})
    again.finish("failed", {"type": "E", "message": "m"})
    found = manifest(new.path)
    assert [each["status"] for each in found["attempts"]] == ["completed", "failed"]
    assert (found["tags"], found["environment"]) == (["t"], {"gpu": "x"})
    records = list(open_run(new.path).records())
    assert [(record.attempt, record.seq, record.step) for record in records] == [
        (0, 0, 0),
        (0, 1, 1),
        (0, 2, 2),
        (1, 0, 3),
    ]
    assert validate(new.path).ok


def test_an_attempt_whose_journal_comes_late_keeps_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = RunWriter.create(tmp_path, "r")
    first.log({"a": 1.0})
    first.finish()
    genuine = Directory.create

    def refuse(*_: Any, **__: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Directory, "create", refuse)
    again = RunWriter.resume(first.path)
    again.log({"a": 2.0})
    monkeypatch.setattr(Directory, "create", genuine)
    again.log({"a": 3.0})
    again.finish()
    records = [(each.attempt, each.metrics["a"]) for each in open_run(first.path).records()]
    assert records == [(0, 1.0), (1, 2.0), (1, 3.0)]
    assert [each["attempt"] for each in manifest(first.path)["attempts"]] == [0, 1]
    assert validate(first.path).ok


@pytest.mark.parametrize("refused", ["create", "sync"])
def test_an_attempt_whose_number_another_process_took_gets_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    first = RunWriter.create(tmp_path, "r")
    first.finish()

    def refuse(*_: Any, **__: Any) -> int:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    with monkeypatch.context() as patch:
        patch.setattr(Directory, refused, refuse)
        late = RunWriter.resume(first.path)
    RunWriter.resume(first.path).finish()
    late.log({"a": 1.0})
    late._recorder._reopen()
    late.finish()
    assert late.attempt == 2
    assert [each["attempt"] for each in manifest(first.path)["attempts"]][-1] == 2
    assert [each.attempt for each in open_run(first.path).records()] == [2]


def test_a_live_run_is_not_resumed(tmp_path: Path) -> None:
    new = RunWriter.create(tmp_path, "r")
    before = sorted(os.listdir(new.path))
    with pytest.raises(RunIsLiveError, match=str(os.getpid())):
        RunWriter.resume(new.path)
    assert sorted(os.listdir(new.path)) == before
    new.log({"a": 1})
    new.finish()
    RunWriter.resume(new.path).finish()


def test_a_crashed_attempt_is_told_in_the_manifest_of_the_next(tmp_path: Path) -> None:
    new = RunWriter.create(tmp_path, "r")
    new.log({"a": 1.0})
    crash(new)
    assert open_run(new.path).status == "crashed"
    again = RunWriter.resume(new.path)
    again.log({"a": 2.0})
    first, second = manifest(new.path)["attempts"]
    assert (first["status"], second["status"]) == ("interrupted", "running")
    last = decode((new.path / "metrics.jsonl").read_bytes().splitlines()[-1])
    assert first["end"] == writer.manifests.timestamp(last["time"])
    again.finish()
    seal(new.path)
    assert validate(new.path).ok


def test_a_manifest_that_is_gone_or_damaged_does_not_keep_a_run_from_going_on(
    tmp_path: Path,
) -> None:
    new = RunWriter.create(tmp_path, "r")
    new.log({"a": 1.0})
    crash(new)
    original = manifest(new.path)
    strange: list[dict[str, Any]] = [
        {"attempts": [5, {}, {"attempt": "x"}, None]},
        {"start": "yesterday"},
        {"generation": "many"},
        {"attempts": []},
    ]
    contents = [b"", b"\0" * 100, b"{", None]
    contents += [json.dumps(original | change).encode() for change in strange]
    for number, content in enumerate(contents):
        copy = tmp_path / f"copy{number}"
        shutil.copytree(new.path, copy)
        if content is None:
            (copy / "run.json").unlink()
        else:
            (copy / "run.json").write_bytes(content)
        again = RunWriter.resume(copy)
        again.log({"a": 2.0})
        again.finish()
        found = manifest(copy)
        assert found["id"] == original["id"]
        assert [each["attempt"] for each in found["attempts"]] == [0, 1]
        assert [each["status"] for each in found["attempts"]] == ["interrupted", "completed"]
        assert validate(copy).ok, validate(copy).problems


@pytest.mark.parametrize(
    ("given", "following"),
    [
        ([], 0),
        ([5], 6),
        ([10, 20, 3], 4),
        ([0, 1, 2, "rewind 1"], 1),
        ([0, 1, "rewind 0"], 0),
        ([0, 10, 20, "rewind 15"], 11),
        ([3, "rewind 100"], 4),
        ([0, 1, 2, 3, "rewind 2", 2, "rewind 1"], 1),
        ([0, 1, "resume", 2, 3, "resume", "rewind 3"], 3),
        ([0, 1, "resume", "rewind 1", "resume"], 1),
        ([-5, -4], -3),
    ],
)
@pytest.mark.rule("BB-MRG-013")
def test_the_automatic_step_of_a_resumed_run_follows_the_last_point_that_counts(
    tmp_path: Path, given: list[Any], following: int
) -> None:
    new = RunWriter.create(tmp_path, "r")
    for each in given:
        if each == "resume":
            new.finish()
            new = RunWriter.resume(new.path)
        elif isinstance(each, str):
            new.rewind(int(each.split()[1]))
        else:
            new.log({"a": 1.0}, each)
    new.describe("a", unit="1")
    new.finish()
    again = RunWriter.resume(new.path)
    again.log({"b": 1.0})
    again.finish()
    last = list(open_run(new.path).records("all"))[-1]
    assert last.metrics == {"b": 1.0}
    assert last.step == following


def test_a_rewind_far_back_is_found_in_a_long_journal(tmp_path: Path) -> None:
    new = RunWriter.create(tmp_path, "r", sync="none")
    for _ in range(2000):
        new.log({"a" * 1000: 1.0, "b" * 1000: 2.0})
    new.rewind(3)
    new.finish()
    assert (new.path / "metrics.jsonl").stat().st_size > 4_000_000
    again = RunWriter.resume(new.path)
    again.log({"a": 1.0})
    again.finish()
    assert [record.step for record in open_run(new.path).records()] == [0, 1, 2, 3]


def test_a_sealed_run_is_no_longer_sealed_once_it_goes_on(tmp_path: Path) -> None:
    new = RunWriter.create(tmp_path, "r")
    new.log({"train/a": 1.0})
    new.finish()
    seal(new.path)
    assert (new.path / "SHA256SUMS").exists()
    again = RunWriter.resume(new.path)
    assert not {"sealed", "groups", "journals", "files"} & set(manifest(new.path))
    assert not (new.path / "SHA256SUMS").exists()
    again.log({"train/a": 2.0})
    again.finish()
    seal(new.path)
    assert open_run(new.path).arrow("train")["a"].to_pylist() == [1.0, 2.0]
    assert validate(new.path).ok


def test_a_packed_run_is_not_resumed_as_it_is(tmp_path: Path) -> None:
    new = RunWriter.create(tmp_path, "r")
    new.log({"a": 1.0})
    new.finish()
    seal(new.path)
    pack(new.path)
    with pytest.raises(RunStateError, match="blackbox seal"):
        RunWriter.resume(new.path)


def test_what_is_no_run_is_not_resumed(tmp_path: Path) -> None:
    with pytest.raises(NotARunError):
        RunWriter.resume(tmp_path / "missing")
    with pytest.raises(NotARunError):
        RunWriter.resume(tmp_path)
    (tmp_path / "run.json").write_text('{"format": {"name": "other"}}')
    with pytest.raises(NotARunError):
        RunWriter.resume(tmp_path)
    assert os.listdir(tmp_path) == ["run.json"]


@pytest.mark.rule("BB-MAN-003")
def test_another_rank_has_a_journal_of_its_own_and_leaves_the_manifest_alone(
    tmp_path: Path,
) -> None:
    first = RunWriter.create(tmp_path, "r")
    before = (first.path / "run.json").read_bytes()
    other = RunWriter.join(first.path, 3, first.attempt)
    other.log({"a": 2.0})
    other.finish()
    assert (first.path / "run.json").read_bytes() == before
    first.log({"a": 1.0})
    first.finish()
    records = list(open_run(first.path).records())
    assert [(record.rank, record.step) for record in records] == [(0, 0), (3, 0)]
    assert (first.path / "metrics.r3.jsonl").exists()
    for rank in (0, -1):
        with pytest.raises(ValueError, match="rank"):
            RunWriter.join(first.path, rank, 0)


# -- moving


def test_a_run_that_is_moved_while_it_is_written_stays_whole(tmp_path: Path) -> None:
    new = RunWriter.create(tmp_path / "old", "r")
    new.log({"a": 1.0})
    (tmp_path / "new").mkdir()
    moved = new.path.rename(tmp_path / "new" / "moved")
    new.log({"a": 2.0})
    new._recorder._leave_journal()  # so that a new file is made in the directory
    new.log({"a": 3.0})
    new.write_config(b"{}")
    new.finish()
    assert os.listdir(tmp_path / "old") == []
    assert [record.metrics["a"] for record in open_run(moved).records()] == [1.0, 2.0, 3.0]
    assert manifest(moved)["status"] == "completed"
    if os.path.exists("/proc/self/fd"):
        assert new.path == moved


def test_a_clock_that_goes_back_makes_no_negative_duration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = RunWriter.create(tmp_path, "r")
    real = time.time
    monkeypatch.setattr(writer.time, "time", lambda: real() - 5000)
    new.log({"a": 1.0})
    new.finish()
    assert manifest(new.path)["duration_seconds"] == 0
    assert len(list(open_run(new.path).records())) == 1


@pytest.fixture
def ended(tmp_path: Path) -> Path:
    """Return a run of one record that was interrupted."""
    new = RunWriter.create(tmp_path, "r")
    new.log({"a": 1})
    new.finish("interrupted")
    return new.path


@pytest.fixture
def no_journals(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Let no journal be opened until it is undone; documents can be written."""
    genuine = Directory.create

    def create(self: Directory, name: str, **options: Any) -> int:
        if name.startswith("metrics"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return genuine(self, name, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Directory, "create", create)
        yield patched


def test_a_run_that_has_no_journal_is_not_called_completed(
    tmp_path: Path, no_journals: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    new = RunWriter.create(tmp_path, "r")
    new.log({"a": 1})
    new.finish()
    no_journals.undo()
    assert "2 records of" in caplog.records[-1].getMessage()
    assert os.listdir(new.path) == []


@pytest.mark.rule("BB-LIV-010")
@pytest.mark.parametrize("late", [False, True])
def test_an_attempt_is_listed_once_it_has_a_journal(
    ended: Path, no_journals: pytest.MonkeyPatch, late: bool
) -> None:
    before = manifest(ended)
    new = RunWriter.resume(ended)
    new.log({"a": 3})
    assert manifest(ended) == before
    if late:
        no_journals.undo()
        new._recorder._retry_at = 0.0
        new.tick(0.0)
        assert [each["attempt"] for each in manifest(ended)["attempts"]] == [0, 1]
    new.finish()
    no_journals.undo()
    assert validate(ended).verdict == "valid"
    assert [each["attempt"] for each in manifest(ended)["attempts"]] == [0, 1][: 1 + late]
    found = [record.metrics["a"] for record in open_run(ended).records()]
    assert found == [1, 3][: 1 + late]
