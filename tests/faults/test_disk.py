"""A disk that is full, fails or goes away never stops the training and costs no kept record."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from blackboxml import Run, open_run, validate
from blackboxml.errors import WriteError
from blackboxml.writer import recorder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def log_through_a_full_disk(disk: Any, said: list[str], count: int) -> list[Any]:
    import os

    from blackboxml import Run, open_run

    run = Run("full", log_dir=disk.path, environment=(), config={"lr": 0.1}).start()
    run.sync()
    for step in range(10):
        run.log({"train/loss": step / 3})
    disk.fill()
    for step in range(10, 10 + count):
        run.log({"train/loss": step / 3})
    run.log_config(lr=0.2)
    assert len(said) == 1, said
    assert "training goes on" in said[0]
    full = open_run(run.path)
    assert full.status == "running"
    assert [record.seq for record in full.records()] == list(range(len(list(full.records()))))
    disk.free()
    run.sync()
    for step in range(10 + count, 20 + count):
        run.log({"train/loss": step / 3})
    run.finish()
    assert len(said) == 1, said
    reader = open_run(run.path)
    records = list(reader.records())
    return [
        [record.seq for record in records],
        [record.step for record in records],
        [record.metrics["train/loss"] * 3 for record in records],
        reader.status,
        reader.sealed,
        reader.config,
        [str(problem) for problem in reader.problems],
        sorted(name for name in os.listdir(run.path) if "jsonl" in name),
    ]


@pytest.mark.parametrize("count", [1, 500])
def test_a_full_disk_costs_no_record_once_there_is_room_again(
    with_full_disk: Callable[..., Any], count: int
) -> None:
    seqs, steps, values, status, sealed, config, problems, journals = with_full_disk(
        log_through_a_full_disk, count
    )
    assert seqs == steps == list(range(20 + count))
    assert values == pytest.approx(list(range(20 + count)))
    assert (status, sealed, config) == ("completed", True, {"lr": 0.2})
    assert problems == []
    assert 1 <= len(journals) <= 3


def fill_by_logging(disk: Any, said: list[str]) -> list[Any]:
    """Let the records themselves fill the disk: the last write is a short one."""
    import subprocess

    from blackboxml import Run, open_run

    run = Run("full", log_dir=disk.path, environment=(), seal=False).start()
    step = 0
    while not said:
        run.log({"train/loss": step / 3, "x" * 500: 1.0})
        step += 1
    for _ in range(100):
        run.log({"train/loss": step / 3, "x" * 500: 1.0})
        step += 1
    path = f"{run.path}/metrics.jsonl"
    with open(path, "rb") as file:
        data = file.read()
    torn = not data.endswith(b"\n")
    subprocess.run(["mount", "-o", "remount,size=8m", disk.path], check=True)
    run.sync()
    run.log({"train/loss": step / 3})
    run.finish()
    reader = open_run(run.path)
    return [
        torn,
        step + 1,
        [record.seq for record in reader.records()],
        len(said),
        reader.status,
        [str(problem) for problem in reader.problems],
    ]


@pytest.mark.rule("BB-JNL-019")
def test_a_short_write_leaves_a_torn_tail_and_the_next_journal_takes_over(
    with_tmpfs: Callable[..., Any],
) -> None:
    torn, count, seqs, warnings, status, problems = with_tmpfs(fill_by_logging)
    assert torn
    assert seqs == list(range(count))
    assert (warnings, status, problems) == (1, "completed", [])


def overflow(disk: Any, said: list[str]) -> list[Any]:
    import json
    import os

    from blackboxml import Run, open_run
    from blackboxml.writer import recorder

    run = Run("full", log_dir=disk.path, environment=()).start()
    run.log({"train/loss": 0.5})
    disk.fill()
    for _ in range(200):  # until there is nothing left of the last page
        run.log({"train/loss": 0.5})
    recorder.BACKLOG_BYTES = run._writer._recorder._backlog_bytes + 1000
    for _ in range(200):
        run.log({"train/loss": 0.5})
    lost = run._writer.lost
    run.rewind(390)  # is kept in any case, behind the gap
    run.log({"train/loss": 0.25})
    disk.free()
    run.sync()
    run.log({"train/loss": 0.125})
    run.finish()
    lines = []
    for name in sorted(os.listdir(run.path)):
        if name.endswith(".jsonl"):
            with open(f"{run.path}/{name}") as file:
                lines += [json.loads(line) for line in file if line.endswith("\n")]
    reader = open_run(run.path)
    return [
        lost,
        run._writer.lost,
        [[line["seq"], line["gap"]] for line in lines if "gap" in line],
        [[line["seq"], line["rewind"]] for line in lines if "rewind" in line],
        [[record.seq, record.step] for record in reader.records("all")],
        [record.step for record in reader.records()],
        reader.sealed,
        said,
        [str(problem) for problem in reader.problems],
    ]


@pytest.mark.rule("BB-JNL-021")
def test_what_does_not_fit_into_memory_is_counted_by_a_gap_where_it_is_missing(
    with_full_disk: Callable[..., Any],
) -> None:
    lost, lost_at_last, gaps, rewinds, all_points, effective, sealed, texts, problems = (
        with_full_disk(overflow)
    )
    assert lost > 150
    kept = 401 - lost
    assert gaps[0][0] == kept
    assert gaps[0][1]["records"] == lost
    assert gaps[0][1]["reason"]
    assert rewinds == [[kept + 1, {"step": 390}]]
    counted = sum(gap[1]["records"] for gap in gaps)
    assert counted == lost_at_last
    assert all_points[:kept] == [[seq, seq] for seq in range(kept)]
    assert [step for _, step in all_points[kept:]][-1] in {390, 391}
    assert effective == [*range(kept), *(step for _, step in all_points[kept:])]
    assert sealed
    assert len(texts) == 1
    assert problems == []


def start_on_a_full_disk(disk: Any, said: list[str]) -> list[Any]:
    from blackboxml import Run, open_run

    disk.fill()
    with Run("late", log_dir=f"{disk.path}/a/b", environment=(), config={"lr": 1}) as run:
        for step in range(5):
            run.log({"train/loss": step / 3})
        run.describe("train/loss", unit="nat")
        warnings = len(said)
        disk.free()
    reader = open_run(run.path)
    return [
        warnings,
        said,
        [record.step for record in reader.records()],
        reader.config,
        reader.status,
        reader.sealed,
        [str(problem) for problem in reader.problems],
    ]


def test_a_run_that_begins_on_a_full_disk_is_whole_if_there_is_room_in_the_end(
    with_full_disk: Callable[..., Any],
) -> None:
    warnings, texts, steps, config, status, sealed, problems = with_full_disk(start_on_a_full_disk)
    assert warnings == len(texts) == 1
    assert steps == list(range(5))
    assert (config, status, sealed, problems) == ({"lr": 1}, "completed", True, [])


def end_on_a_full_disk(disk: Any, said: list[str]) -> list[Any]:
    from blackboxml import Run

    with Run("full", log_dir=disk.path, environment=()) as run:
        run.log({"train/loss": 0.5})
        disk.fill()
        for _ in range(200):
            run.log({"train/loss": 0.5})
    return [said, run.status]


def test_finishing_on_a_full_disk_says_what_is_lost_and_does_not_raise(
    with_full_disk: Callable[..., Any],
) -> None:
    texts, status = with_full_disk(end_on_a_full_disk)
    assert len(texts) == 2
    assert "training goes on" in texts[0]
    assert "are lost" in texts[1]
    assert status == "completed"


def be_strict_on_a_full_disk(disk: Any, said: list[str]) -> list[Any]:
    from blackboxml import Run, open_run
    from blackboxml.errors import WriteError

    run = Run("strict", log_dir=disk.path, environment=(), strict=True, seal=False).start()
    run.log({"train/loss": 0.5})
    disk.fill()
    count, refused = 1, 0
    while refused < 10:
        try:
            run.log({"train/loss": 0.5})
        except WriteError:
            refused += 1
        else:
            assert refused == 0, "a record was taken in silence on a full disk"
        count += 1
    for call in (run.sync, lambda: run.log_config(lr=1), lambda: run.rewind(10**6)):
        try:
            call()
        except WriteError:
            refused += 1
    disk.free()
    run.sync()
    run.log({"train/loss": 0.25})
    run.finish()
    reader = open_run(run.path)
    return [count + 1, refused, len(list(reader.records())), reader.status, said]


def test_strict_raises_at_each_call_that_the_disk_refuses(
    with_full_disk: Callable[..., Any],
) -> None:
    count, refused, records, status, _ = with_full_disk(be_strict_on_a_full_disk)
    assert refused == 13
    assert records == count  # they were kept, and written as soon as that worked
    assert status == "completed"


def end_strictly_on_a_full_disk(disk: Any) -> list[Any]:
    from blackboxml import Run
    from blackboxml.errors import WriteError

    raised = []
    try:
        with Run("strict", log_dir=disk.path, environment=(), strict=True) as run:
            run.log({"train/loss": 0.5})
            disk.fill()
            try:
                for _ in range(1000):
                    run.log({"train/loss": 0.5})
            except WriteError:
                raised.append("log")
    except WriteError:
        raised.append("finish")
    run.finish()
    try:
        run.log({"train/loss": 0.5})
    except RuntimeError:
        raised.append("ended")
    return raised


def test_a_strict_run_ends_although_ending_raises(with_full_disk: Callable[..., Any]) -> None:
    assert with_full_disk(end_strictly_on_a_full_disk) == ["log", "finish", "ended"]


def begin_strictly_on_a_full_disk(disk: Any) -> str:
    from blackboxml import Run
    from blackboxml.errors import WriteError

    disk.fill()
    try:
        Run("strict", log_dir=disk.path, environment=(), strict=True).start()
    except WriteError:
        return "refused"
    return "begun"


def test_a_strict_run_does_not_begin_on_a_full_disk(with_full_disk: Callable[..., Any]) -> None:
    assert with_full_disk(begin_strictly_on_a_full_disk) == "refused"


def log_through_a_read_only_time(disk: Any, said: list[str]) -> list[Any]:
    from blackboxml import Run, open_run

    run = Run("ro", log_dir=disk.path, environment=()).start()
    run.log({"train/loss": 0.5})
    run._writer._recorder._leave_journal()  # as a failure would, so that a new one is needed
    disk.read_only(True)
    for _ in range(20):
        run.log({"train/loss": 0.5})
    run.log_config(lr=1)
    during = len(said)
    disk.read_only(False)
    run.sync()
    run.log({"train/loss": 0.5})
    run.finish()
    reader = open_run(run.path)
    return [
        during,
        said,
        [record.seq for record in reader.records()],
        reader.config,
        reader.sealed,
    ]


def test_a_disk_that_is_read_only_for_a_while_costs_nothing(
    with_read_only_disk: Callable[..., Any],
) -> None:
    during, texts, seqs, config, sealed = with_read_only_disk(log_through_a_read_only_time)
    assert during == len(texts) == 1
    assert seqs == list(range(22))
    assert (config, sealed) == ({"lr": 1}, True)


def start_in_a_read_only_folder(disk: Any, said: list[str]) -> list[Any]:
    import os

    from blackboxml import Run, open_run

    disk.read_only(True)
    run = Run("ro", log_dir=f"{disk.path}/logs", environment=()).start()
    for _ in range(20):
        run.log({"train/loss": 0.5})
    assert not os.path.exists(run.path)
    disk.read_only(False)
    run.finish()
    return [said, len(list(open_run(run.path).records())), open_run(run.path).sealed]


def test_a_folder_that_cannot_be_written_at_first_gets_the_run_later(
    with_read_only_disk: Callable[..., Any],
) -> None:
    texts, records, sealed = with_read_only_disk(start_in_a_read_only_folder)
    assert len(texts) == 1
    assert (records, sealed) == (20, True)


def test_a_log_dir_below_a_file_gives_one_warning_and_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    run = Run("x", log_dir=tmp_path / "file" / "logs", config={"lr": 1}).start()
    for step in range(100):
        run.log({"loss": step})
    run.log_config(lr=2)
    run.describe("loss", unit="nat")
    run.sync()
    assert len(caplog.records) == 1
    (tmp_path / "file").unlink()
    run.sync()
    run.finish()
    reader = open_run(run.path)
    assert [record.metrics["loss"] for record in reader.records()] == list(range(100))
    assert reader.config == {"lr": 2}
    assert reader.sealed
    assert len(caplog.records) == 1


def test_a_run_that_never_reaches_a_disk_ends_quietly(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    with Run("x", log_dir=tmp_path / "file" / "logs") as run:
        run.log({"loss": 1})
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "2 records" in caplog.text  # the point and the end
    with pytest.raises(WriteError):
        Run("x", log_dir=tmp_path / "file" / "logs", strict=True).start()


def test_a_run_directory_that_is_deleted_gives_one_warning_and_comes_back_with_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run("gone", log_dir=tmp_path, environment=(), sync="none").start()
    run.log({"loss": 0.5})
    shutil.rmtree(run.path)
    for _ in range(5):
        run.log({"loss": 0.5})
    run.sync()
    run.log({"loss": 0.5})
    run.log_config(lr=1)
    assert len(caplog.records) == 1
    run.path.mkdir()
    run.sync()
    run.finish()
    reader = open_run(run.path)
    assert [record.seq for record in reader.records()] == list(range(7))
    assert reader.config == {"lr": 1}
    assert reader.status == "completed"
    assert len(caplog.records) == 1


def test_a_log_dir_that_is_deleted_for_good_does_not_stop_the_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Run("gone", log_dir=tmp_path / "logs", environment=()) as run:
        run.log({"loss": 0.5})
        shutil.rmtree(tmp_path / "logs")
        run.log({"loss": 0.5})
        run.sync()
        for _ in range(100):
            run.log({"loss": 0.5})
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "are lost" in caplog.records[1].getMessage()
    assert not (tmp_path / "logs").exists()


def test_a_journal_that_is_deleted_is_followed_by_another_with_what_was_not_synced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run("gone", log_dir=tmp_path, environment=(), sync="none").start()
    for step in range(5):
        run.log({"loss": step})
    (run.path / "metrics.jsonl").unlink()
    run.log({"loss": 5})
    run.sync()
    run.log({"loss": 6})
    run.finish()
    assert [record.metrics["loss"] for record in open_run(run.path).records()] == list(range(7))
    assert len(caplog.records) == 1
    assert "deleted" in caplog.text


class FailingSync:
    """Stands in for `fdatasync`: no disk that fails to sync can be had in a test.

    A kernel gives such an error once, and then forgets it; so does this.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fail = 0
        self.calls = 0
        monkeypatch.setattr(recorder, "_datasync", self)

    def __call__(self, descriptor: int) -> None:
        self.calls += 1
        if self.fail:
            self.fail -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        os.fsync(descriptor)


def journals(path: Path) -> dict[str, list[int]]:
    """Return the `seq` in each journal."""
    from blackboxml.journal import decode

    return {
        file.name: [decode(line)["seq"] for line in file.read_bytes().splitlines()[1:]]
        for file in sorted(path.glob("metrics*.jsonl"))
    }


@pytest.mark.rule("BB-JNL-019")
def test_after_a_failed_sync_the_next_journal_begins_with_all_that_is_in_doubt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk = FailingSync(monkeypatch)
    run = Run("eio", log_dir=tmp_path, environment=(), sync="none").start()
    for _ in range(3):
        run.log({"loss": 0.5})
    run.sync()
    for _ in range(4):
        run.log({"loss": 0.25})
    disk.fail = 1
    run.sync()
    run.log({"loss": 0.125})
    assert journals(run.path) == {
        "metrics.jsonl": [0, 1, 2, 3, 4, 5, 6],
        "metrics.1.jsonl": [3, 4, 5, 6, 7],
    }
    run.finish()
    reader = open_run(run.path)
    assert [record.seq for record in reader.records()] == list(range(8))
    assert [record.step for record in reader.records()] == list(range(8))
    assert reader.arrow().num_rows == 8
    assert validate(run.path).ok
    assert len(caplog.records) == 1


@pytest.mark.rule("BB-JNL-020")
def test_copies_are_equal_to_the_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FailingSync(monkeypatch)
    with Run("eio", log_dir=tmp_path, environment=(), sync="none") as run:
        for step in range(20):
            run.log({"loss": step / 7})
        disk.fail = 1
        run.sync()
    first, second = (
        (run.path / name).read_bytes().splitlines()[1:]
        for name in ("metrics.jsonl", "metrics.1.jsonl")
    )
    assert second[: len(first)] == first


def test_a_disk_that_goes_on_failing_to_sync_is_not_filled_with_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk = FailingSync(monkeypatch)
    run = Run("eio", log_dir=tmp_path, environment=(), sync="record").start()
    disk.fail = 10**9
    for _ in range(1000):
        run.log({"loss": 0.5})
    assert len(journals(run.path)) <= 3
    disk.fail = 0
    run.finish()
    assert [record.seq for record in open_run(run.path).records()] == list(range(1000))
    assert len(caplog.records) == 1


def test_a_file_system_that_cannot_sync_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(
        descriptor: int,
    ) -> None:  # as some network file systems do, of directories above all
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(recorder, "_datasync", refuse)
    monkeypatch.setattr(os, "fsync", refuse)
    with Run("smb", log_dir=tmp_path, environment=(), seal=False) as run:
        run.log({"loss": 0.5})
        run.sync()
    assert list(journals(run.path)) == ["metrics.jsonl"]
    assert open_run(run.path).status == "completed"
    assert caplog.records == []


def test_a_strict_run_raises_for_a_failed_sync_in_the_background(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FailingSync(monkeypatch)
    run = Run("eio", log_dir=tmp_path, environment=(), strict=True, seal=False).start()
    run._writer._upkeep._wake.set()  # the thread; its work is done here
    run._writer._upkeep._thread.join()
    run.log({"loss": 0.5})
    disk.fail = 1
    with pytest.raises(WriteError):
        run._writer.tick(0.0)
    with pytest.raises(WriteError, match="Input/output error"):
        run.log({"loss": 0.25})
    run.log({"loss": 0.125})
    run.finish()
    assert [record.metrics["loss"] for record in open_run(run.path).records()] == [0.5, 0.25, 0.125]


def test_a_process_without_a_free_descriptor_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> int:  # taking all descriptors would take pytest's as well
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with Run("emfile", log_dir=tmp_path, environment=()) as run:
        run.log({"loss": 0.5})
        monkeypatch.setattr(os, "dup", refuse)
        run.sync()
        assert run._writer._recorder._unsynced == []
    assert caplog.records == []
    assert len(list(open_run(run.path).records())) == 1


def log_without_descriptors(said: list[str], folder: str) -> list[Any]:
    import os
    import resource

    from blackboxml import Run, open_run

    run = Run("emfile", log_dir=folder, environment=(), seal=False).start()
    run.log({"loss": 0.5})
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    taken = []
    while True:
        try:
            taken.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            break
    for _ in range(50):
        run.log({"loss": 0.5})
    run.sync()
    run._writer.tick(100.0)
    run.log_config(lr=1)
    for descriptor in taken:
        os.close(descriptor)
    run.finish()
    reader = open_run(run.path)
    return [len(list(reader.records())), reader.status, reader.config, said]


def test_a_process_that_has_used_up_its_descriptors_goes_on(
    in_process: Callable[..., Any], tmp_path: Path
) -> None:
    records, status, config, texts = in_process(log_without_descriptors, tmp_path)
    assert (records, status, config) == (51, "completed", {"lr": 1})
    assert len(texts) <= 1
