"""Media while processes are killed, disks are full or fail to sync, and threads log at once."""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from blackboxml import Run, RunWriter, open_run, validate
from blackboxml.errors import NotARunError, WriteError
from blackboxml.repair import repair
from blackboxml.writer import media_recorder, recorder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def content(step: int) -> bytes:
    return bytes([step % 256]) * (3000 + step)


def kill_many(folder: str, kills: int, sync: str) -> list[list[Any]]:
    """Kill writers of media at random instants; return the path, or None, and what they said."""
    import os
    import random
    import signal
    import time

    from blackboxml import RunWriter

    random.seed(20_261_121)
    found = []
    for number in range(kills):
        log_dir = f"{folder}/{number}"
        source, sink = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                writer = RunWriter.create(log_dir, "killed", sync=sync)
                os.write(sink, b"!")
                for step in range(2_000):
                    data = bytes([step % 256]) * (3000 + step)
                    writer.log_media("a", "artifact", step, data=data)
                    os.write(sink, b".")
            finally:
                os._exit(1)
        os.close(sink)
        wanted = random.choice([0, 1, 2, random.randrange(40)])
        said = b""
        while len(said) < wanted:
            said += os.read(source, wanted - len(said))
        until = time.perf_counter() + random.random() * 2e-3
        while time.perf_counter() < until:
            pass
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        while more := os.read(source, 65_536):
            said += more
        os.close(source)
        names = os.listdir(log_dir) if os.path.isdir(log_dir) else []
        found.append([f"{log_dir}/{names[0]}" if names else None, said.count(b".")])
    return found


@pytest.mark.parametrize(("kills", "sync"), [(100, "interval"), (20, "record")])
@pytest.mark.rule("BB-MED-007")
def test_a_kill_loses_no_medium_and_leaves_no_record_of_a_file_that_is_not_whole(
    in_process: Callable[..., Any], tmp_path: Path, kills: int, sync: str
) -> None:
    some = 0
    for number, (place, acknowledged) in enumerate(in_process(kill_many, tmp_path, kills, sync)):
        try:
            run = open_run(place or tmp_path)
        except NotARunError:  # killed before the header of the first journal
            assert acknowledged == 0
            continue
        found = list(run.media())
        assert [each.step for each in found] == list(range(len(found)))
        assert len(found) >= acknowledged
        for each in found:
            assert run.load(each) == content(each.step)
        some += bool(found)
        if number % 20 == 0:
            with Run("killed", resume=place) as resumed:
                resumed.log_media("a", "artifact", 0, data=b"again")
            assert len(list(open_run(place).media())) == len(found) + 1
            assert validate(place).ok
    assert some > kills / 4


def log_through_a_full_disk(disk: Any, said: list[str]) -> list[Any]:
    """Log media before, while and after the disk is full."""
    from blackboxml import Run, open_run

    run = Run("full", log_dir=disk.path, environment=(), seal=False).start()
    run.log({"loss": 0.5})
    for step in range(3):
        run.log_media("a", "artifact", step, data=bytes(5000))
    disk.fill()
    for step in range(3, 6):
        run.log_media("a", "artifact", step, data=bytes(5000))
        run.log_media("note", "text", step, value="small")
        run.log({"loss": 0.25})
    disk.free()
    import time

    deadline = time.monotonic() + 60
    while run._writer._media.recorder.degraded and time.monotonic() < deadline:
        time.sleep(0.05)
    run.log_media("a", "artifact", 6, data=bytes(5000))
    run.finish()
    reader = open_run(run.path)
    found = list(reader.media())
    for each in found:
        if each.file:
            reader.load(each)
    return [
        sorted({each.step for each in found if each.file}),
        [each.step for each in found if each.kind == "text"],
        len(list(reader.records())),
        reader.status,
        sum("medium" in each for each in said),
        sorted(name for name in os.listdir(run.path / "media") if name.startswith(".")),
    ]


def test_a_full_disk_costs_the_files_that_did_not_fit_and_says_so_once(
    with_full_disk: Callable[..., Any],
) -> None:
    files, notes, records, status, warnings, scratch = with_full_disk(log_through_a_full_disk)
    assert files == [0, 1, 2, 6]
    assert notes == [3, 4, 5]
    assert (records, status, warnings, scratch) == (4, "completed", 1, [])


class Order:
    """Notes in which order files are synced."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.fail = False
        genuine = media_recorder.sync_file

        def sync(descriptor: int) -> None:
            if self.fail:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            self.calls.append("file")
            genuine(descriptor)

        def datasync(descriptor: int) -> None:
            name = os.readlink(f"/proc/self/fd/{descriptor}")
            if "media" in os.path.basename(name):
                self.calls.append("journal")

        monkeypatch.setattr(media_recorder, "sync_file", sync)
        monkeypatch.setattr(recorder, "_datasync", datasync)


@pytest.mark.rule("BB-MED-007")
@pytest.mark.parametrize("sync", ["interval", "record", "none"])
def test_files_are_synced_before_the_journal_that_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sync: Any
) -> None:
    order = Order(monkeypatch)
    writer = RunWriter.create(tmp_path, "order", sync=sync)
    for step in range(3):
        writer.log_media("a", "artifact", step, data=b"x")
    if sync == "record":
        assert order.calls == ["file", "journal"] * 3
    writer.sync()
    if sync == "none":
        assert order.calls == ["file"] * 3 + ["journal"]
    assert order.calls.count("file") == 3
    assert order.calls[-1] == "journal"
    writer.finish()
    assert order.calls.count("file") == 3


def test_a_file_that_cannot_be_synced_gives_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    order = Order(monkeypatch)
    writer = RunWriter.create(tmp_path, "eio", sync="none")
    order.fail = True
    for step in range(3):
        writer.log_media("a", "artifact", step, data=b"x")
        writer.sync()
    order.fail = False
    writer.finish()
    assert ["may not survive" in each for each in caplog.messages] == [True]
    assert len(list(open_run(writer.path).media())) == 3

    strict = RunWriter.create(tmp_path, "strict", sync="none", strict=True)
    order.fail = True
    strict.log_media("a", "artifact", 0, data=b"x")
    with pytest.raises(WriteError, match="cannot sync the media"):
        strict.sync()
    order.fail = False
    strict.finish()


def test_what_a_power_cut_takes_is_reported_and_mended(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, "cut")
    for step in range(3):
        writer.log_media("a", "artifact", step, data=content(step))
    writer.finish()
    last = max((writer.path / "media").iterdir())
    last.write_bytes(b"")
    assert {each.rule for each in validate(writer.path).problems} == {"BB-MED-011"}
    run = open_run(writer.path)
    kept = [each for each in run.media() if each.file != f"media/{last.name}"]
    assert [run.load(each) for each in kept] == [content(0), content(1)]
    repair(writer.path, in_place=True)
    assert validate(writer.path).ok


def test_eight_threads_that_log_media_at_once_lose_nothing(tmp_path: Path) -> None:
    gate = threading.Barrier(8)
    with Run("threads", log_dir=tmp_path, environment=()) as run:

        def work(number: int) -> None:
            gate.wait()
            for step in range(40):
                run.log_media("a", "artifact", step, data=b"%d %d" % (number, step))
                run.log_media(f"t{number}", "text", step, value=str(step))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    reader = open_run(run.path)
    found = list(reader.media())
    assert [each.seq for each in found] == list(range(640))
    data = {reader.load(each) for each in found if each.file}
    assert data == {b"%d %d" % (number, step) for number in range(8) for step in range(40)}
    for number in range(8):
        texts = [each.value for each in found if each.name == f"t{number}"]
        assert texts == [str(step) for step in range(40)]
    assert validate(run.path).ok
