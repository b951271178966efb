"""A catalogue says of every run what opening it would say, whatever became of its cache."""

from __future__ import annotations

import errno
import math
import os
import shutil
import subprocess
import sys
import textwrap
import threading
import time
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from blackboxml import Run, RunWriter, open_run
from blackboxml.collection import find_runs, scan_metrics
from blackboxml.collection.cache import FILE
from blackboxml.collection.catalogue import Catalogue
from blackboxml.errors import BlackboxError
from blackboxml.seal import seal
from tests.histories import end, header, point, write

if TYPE_CHECKING:
    from pathlib import Path

    from blackboxml.collection.entry import Entry


def check(entries: list[Entry], root: Path) -> None:
    """Compare what a catalogue says with what the runs say when they are opened."""
    assert [entry.path for entry in entries] == list(find_runs(root))
    for entry in entries:
        try:
            run = open_run(entry.path)
        except BlackboxError:
            assert (entry.status, entry.metrics) == ("unreadable", {})
            assert entry.problem
            continue
        assert (entry.id, entry.name, entry.status) == (run.id, run.name, run.status)
        assert entry.start == run.start.timestamp()
        assert entry.end == (None if run.end is None else run.end.timestamp())
        assert (entry.tags, entry.config) == (run.tags, run.config)
        assert entry.lineage == run.manifest.get("lineage", {})
        assert entry.extensions == run.manifest.get("extensions", {})
        wanted = run.summary()
        assert [name for name in entry.metrics if entry.metrics[name].n] == list(wanted)
        for name, said in wanted.items():
            found = entry.metrics[name]
            assert repr((found.last, found.n)) == repr((said.last, said.n))
            if entry.facts.whole:
                assert (found.min, found.max) == (said.min, said.max)


def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which the name of each run is added that is read."""
    from blackboxml.collection import catalogue

    genuine, names = catalogue.glance, list[str]()

    def watched(path: str, *rest: object) -> object:
        names.append(os.path.basename(path))
        return genuine(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(catalogue, "glance", watched)
    return names


def test_it_says_what_opening_each_run_says_and_reads_none_twice(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = reads(monkeypatch)
    check(Catalogue(root).runs(), root)
    assert len(read) == len(list(find_runs(root)))
    read.clear()
    catalogue = Catalogue(root)
    check(catalogue.runs(), root)
    catalogue.refresh(extremes=True)
    assert all(entry.facts.whole for entry in catalogue.runs() if entry.problem is None)
    check(catalogue.runs(), root)
    check(Catalogue(root).runs(), root)
    assert read == []
    assert catalogue.find("3" * 32).path == root / "resumed"  # type: ignore[union-attr]
    assert catalogue.find("9" * 32) is None


def test_it_sees_what_changes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue = Catalogue(root)
    catalogue.runs()
    shutil.rmtree(root / "rewound")
    (root / "crashed").rename(root / "moved")
    with (root / "deep" / "er" / "empty" / "metrics.jsonl").open("ab") as journal:
        journal.write(point(0, {"a": 1}) + end(1))
    with Run("new", log_dir=root) as run:
        run.log({"x": 1})
    read = reads(monkeypatch)
    check(catalogue.runs(), root)
    assert sorted(read) == ["empty", "moved", run.path.name]
    check(Catalogue(root).runs(), root)


def test_a_run_that_changed_a_moment_ago_is_read_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two changes within one tick of the file system's clock leave the same time behind."""
    catalogue = Catalogue(root)
    catalogue.runs()
    manifest = root / "nothing" / "run.json"
    stamp = (time.time_ns(), time.time_ns())
    os.utime(manifest, ns=stamp)
    catalogue.runs()
    manifest.write_bytes(manifest.read_bytes().replace(b'"by hand"', b'"changed"'))
    os.utime(manifest, ns=stamp)
    (entry,) = (entry for entry in catalogue.runs() if entry.path.name == "nothing")
    assert entry.name == "changed"


def test_what_hides_a_run_for_a_moment_is_not_remembered(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from blackboxml.collection import catalogue

    def refuse(*_: object) -> None:
        raise PermissionError(13, "no access today")

    monkeypatch.setattr(catalogue, "glance", refuse)
    (root / "damaged" / "run.json").unlink()
    found = Catalogue(root).runs()
    assert {entry.status for entry in found} == {"unreadable"}
    assert "no access today" in str(found[0].problem)
    monkeypatch.undo()
    check(Catalogue(root).runs(), root)


def test_a_configuration_that_is_refused_is_not_an_empty_one(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of the run is shown, and the configuration is read the next time."""
    from blackboxml.collection import glance

    genuine = glance._read

    def refuse(path: str, limit: int) -> bytes:
        if path.endswith("config.json"):
            raise OSError(errno.EIO, "the disk fails", path)
        return genuine(path, limit)

    monkeypatch.setattr(glance, "_read", refuse)
    catalogue = Catalogue(root)
    found = {entry.name: entry for entry in catalogue.runs()}
    for name in ("sealed", "packed"):
        assert found[name].problem == "config.json: the disk fails"
        assert (found[name].config, found[name].status) == ({}, "completed")
        assert found[name].metrics["train/seen"].last == 4
    assert scan_metrics(root, "train", ["seen"]).collect().height > 0
    monkeypatch.undo()
    check(catalogue.runs(), root)
    check(Catalogue(root).runs(), root)


@pytest.mark.parametrize("name", ["listdir", "scandir"])
def test_a_folder_that_is_refused_does_not_vanish(
    root: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It may be a run, or have some: it is told, and looked at the next time."""
    catalogue = Catalogue(root)
    catalogue.runs()
    hidden = next(root.glob("sealed*" if name == "listdir" else "deep"))
    os.utime(hidden)
    genuine = getattr(os, name)

    def refuse(path: str) -> Any:
        if path == str(hidden):
            raise OSError(errno.EMFILE, "too many open files", path)
        return genuine(path)

    monkeypatch.setattr(os, name, refuse)
    for each in (catalogue, Catalogue(root)):
        (entry,) = (entry for entry in each.runs() if entry.path == hidden)
        assert entry.status == "unreadable"
        assert "too many open files" in str(entry.problem)
    if name == "listdir":
        assert "too many" in str(catalogue.look(entry).problem)  # type: ignore[union-attr]
    monkeypatch.undo()
    check(catalogue.runs(), root)
    check(Catalogue(root).runs(), root)


def test_a_root_that_is_refused_is_not_an_empty_one(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> None:
        raise OSError(errno.EIO, "the disk fails", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(OSError, match="the disk fails"):
        Catalogue(root).runs()


def test_a_live_run_that_does_nothing_costs_no_write(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, "live")
    writer.log({"a": math.nan})
    for file in (*writer.path.iterdir(), writer.path):
        os.utime(file, (1, 1))
    catalogue = Catalogue(tmp_path)
    catalogue.runs()
    written = (tmp_path / FILE).stat().st_mtime_ns
    for _ in range(3):
        check(catalogue.runs(), tmp_path)
    assert (tmp_path / FILE).stat().st_mtime_ns == written
    writer.finish()


def test_of_a_live_run_only_what_is_new_is_read(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, "live")
    catalogue = Catalogue(tmp_path)
    for step in range(100):
        writer.log({"a": float(step), "b/c": -step})
    check(catalogue.runs(), tmp_path)
    journal = writer.path / "metrics.jsonl"
    first = journal.read_bytes().splitlines(keepends=True)[1]
    with journal.open("r+b") as file:  # what was read already cannot be read again
        file.seek(journal.read_bytes().index(first))
        file.write(b"#" * (len(first) - 1))
    writer.log({"a": math.nan, "new": True}, step=40)
    writer.log({"a": 1000.5}, step=99)
    for each in (catalogue, Catalogue(tmp_path)):
        (entry,) = each.runs()
        assert entry.status == "running"
        assert entry.metrics["a"] == ("float64", 1000.5, 99, 0.0, 1000.5, 102)
        assert entry.metrics["b/c"] == ("int64", -99, 99, -99, 0, 100)
        assert entry.metrics["new"] == ("bool", True, 40, True, True, 1)
    with journal.open("r+b") as file:
        file.seek(journal.read_bytes().index(b"#"))
        file.write(first)
    writer.rewind(50)  # what was counted counts no more
    writer.log({"a": 7.0})
    check(catalogue.runs(), tmp_path)
    writer.finish()
    check(catalogue.runs(), tmp_path)
    seal(writer.path)
    check(catalogue.runs(), tmp_path)


def test_a_long_journal_is_counted_like_a_short_one(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, "long")
    for step in range(20_000):
        sparse = {"sparse": step > 9} if step % 9 == 0 else {}
        writer.log({"a": step * 0.5, "train/b": step % 7, **sparse})
    assert (writer.path / "metrics.jsonl").stat().st_size > 2**20
    catalogue = Catalogue(tmp_path)
    check(catalogue.runs(), tmp_path)
    for step in range(20):
        writer.log({"a": -step, "late": step})
    check(catalogue.runs(), tmp_path)
    writer.finish()


@pytest.mark.parametrize(
    "harm",
    ["garbage", "cut", "foreign", "mixed", "flipped", "empty", "gone", "older"],
)
def test_a_cache_that_is_harmed_costs_only_time(root: Path, harm: str) -> None:
    Catalogue(root).runs()
    cache = root / FILE
    data = cache.read_bytes()
    match harm:
        case "garbage":
            cache.write_bytes(b"no database" * 1000)
        case "cut":
            cache.write_bytes(data[: len(data) // 2])
        case "foreign":
            with zipfile.ZipFile(cache, "w") as archive:
                archive.writestr("places", b"some other tool's")
        case "mixed":  # of another number of runs
            with zipfile.ZipFile(cache) as archive:
                parts = {name: archive.read(name) for name in archive.namelist()}
                comment = archive.comment
            with zipfile.ZipFile(cache, "w") as archive:
                for name, part in (parts | {"places": b"one"}).items():
                    archive.writestr(name, part)
                archive.comment = comment
        case "flipped":
            place = len(data) // 2
            cache.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        case "empty":
            cache.write_bytes(b"")
        case "older":
            cache.write_bytes(data[:-1] + b"0")  # the version is the comment at the end
        case "gone":
            cache.unlink()
    check(Catalogue(root).runs(), root)
    check(Catalogue(root).runs(), root)
    check(Catalogue(root).runs(), root)
    assert zipfile.is_zipfile(cache)


def test_a_cache_is_neither_waited_for_nor_unpacked(root: Path) -> None:
    cache = root / FILE
    os.mkfifo(cache)
    check(Catalogue(root).runs(), root)
    assert cache.is_file()
    with zipfile.ZipFile(cache, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("places", bytes(10**6))
        archive.comment = b"blackbox-catalogue 1"
    check(Catalogue(root).runs(), root)
    with zipfile.ZipFile(cache) as archive:
        assert not any(member.compress_type for member in archive.infolist())


def test_a_cache_that_another_process_writes_is_left_to_it(root: Path) -> None:
    """Unless it did not end that: then it was killed."""
    new = root / f"{FILE}-new"
    new.touch()
    check(Catalogue(root).runs(), root)
    assert not (root / FILE).exists()
    os.utime(new, (1, 1))
    for _ in range(2):
        check(Catalogue(root).runs(), root)
    assert (root / FILE).exists()
    assert not new.exists()


def test_where_nothing_can_be_written_the_cache_goes_to_the_home_of_caches(
    root: Path, cache_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / FILE).mkdir()  # a test may run as root, whom no permission stops
    check(Catalogue(root).runs(), root)
    assert len(list((cache_home / "blackboxml").iterdir())) == 1
    read = reads(monkeypatch)
    check(Catalogue(root).runs(), root)
    assert read == []
    shutil.rmtree(cache_home)
    cache_home.write_text("not a folder")
    check(Catalogue(root).runs(), root)


def test_a_folder_that_moves_takes_its_cache_along(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Catalogue(root).runs()
    moved = root.rename(root.with_name("moved"))
    read = reads(monkeypatch)
    check(Catalogue(moved).runs(), moved)
    assert read == []


def test_a_folder_that_is_not_there_has_no_runs_and_is_not_made(tmp_path: Path) -> None:
    assert Catalogue(tmp_path / "none").runs() == []
    assert not (tmp_path / "none").exists()


def test_processes_and_threads_look_while_others_record(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    record = """
        import sys
        from blackboxml import Run
        for number in range(5):
            with Run(f"{sys.argv[2]}-{number}", log_dir=sys.argv[1], environment=[]) as run:
                for step in range(20):
                    run.log({"a": step})
    """
    look = """
        import sys
        from blackboxml.collection.catalogue import Catalogue
        for _ in range(15):
            Catalogue(sys.argv[1]).runs()
    """
    children = [
        subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), str(root), name])
        for code, name in ((record, "a"), (record, "b"), (look, ""), (look, ""))
    ]
    catalogue = Catalogue(root)
    failures: list[Exception] = []

    def refresh() -> None:
        try:
            for _ in range(10):
                catalogue.runs()
        except Exception as error:  # noqa: BLE001 - a thread has no other way to tell
            failures.append(error)

    threads = [threading.Thread(target=refresh) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [child.wait() for child in children] == [0, 0, 0, 0]
    assert not failures
    check(catalogue.runs(), root)
    check(Catalogue(root).runs(), root)
    assert len(catalogue.runs()) == 10
    assert {entry.metrics["a"].last for entry in catalogue.runs()} == {19}


def test_of_many_runs_few_changes_are_not_written_down_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from blackboxml.collection import catalogue as module

    monkeypatch.setattr(module, "_FEW", 10)
    monkeypatch.setattr(module, "_WRITTEN_WHILE_READ", 5)
    for number in range(16):
        write(tmp_path / f"run{number:02}", {"metrics.jsonl": header(run_id=f"{number:032x}")})
    watching = Catalogue(tmp_path)
    assert len(watching.runs()) == 16
    kept = (tmp_path / FILE).read_bytes()
    seen = []
    for number in range(16, 24):
        write(tmp_path / f"run{number}", {"metrics.jsonl": header(run_id=f"{number:032x}")})
        check(watching.runs(), tmp_path)
        seen.append((tmp_path / FILE).read_bytes() != kept)
        check(Catalogue(tmp_path).runs(), tmp_path)
        kept = (tmp_path / FILE).read_bytes()
    assert seen.count(False) > 3
    assert True in seen
