"""Many runs below a folder."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import pytest

from blackboxml.collection import find_runs, newest_run, open_runs
from blackboxml.errors import BlackboxError
from blackboxml.seal import seal
from tests import histories
from tests.histories import TIME, header, point, write

if TYPE_CHECKING:
    from pathlib import Path


def named(name: str, time: float = TIME) -> bytes:
    return header(run={"id": histories.RUN_ID, "name": name}, time=time) + point(0, {"a": 1})


def test_runs_are_found_by_what_is_in_them_and_in_the_order_of_their_paths(tmp_path: Path) -> None:
    for place in ("b", "a", "deep/er/c", "deep/d", "a_1"):
        write(tmp_path / place, {"metrics.jsonl": header()})
    write(tmp_path / "no run", {"notes.txt": b""})
    write(tmp_path / ".tmp-x", {"metrics.jsonl": header()})
    write(tmp_path / "a" / "inside", {"metrics.jsonl": header()})
    write(tmp_path / "r", {"metrics.r3.1.jsonl": header(3)})
    found = [str(path.relative_to(tmp_path)) for path in find_runs(tmp_path)]
    assert found == ["a", "a_1", "b", "deep/d", "deep/er/c", "r"]


def test_links_are_not_followed(tmp_path: Path) -> None:
    write(tmp_path / "real" / "run", {"metrics.jsonl": header()})
    (tmp_path / "real" / "loop").symlink_to(tmp_path)
    assert [path.name for path in find_runs(tmp_path)] == ["run"]


def test_a_folder_that_is_not_there_holds_no_run(tmp_path: Path) -> None:
    assert list(find_runs(tmp_path / "nothing")) == []
    (tmp_path / "file").write_bytes(b"")
    assert list(find_runs(tmp_path / "file")) == []
    assert newest_run(tmp_path / "nothing", "x") is None


def test_a_run_that_cannot_be_read_does_not_hide_the_others(tmp_path: Path) -> None:
    write(tmp_path / "good", {"metrics.jsonl": named("x")})
    write(tmp_path / "damaged", {"run.json": b"{"})
    write(tmp_path / "foreign", {"run.json": b'{"format": "other"}'})
    write(tmp_path / "empty", {"metrics.jsonl": b""})
    write(tmp_path / "later", {"metrics.jsonl": header(format=LATER)})
    os.mkfifo(write(tmp_path / "fifo", {}) / "metrics.jsonl")
    found = {path.name: reader for path, reader in open_runs(tmp_path)}
    assert found["good"].name == "x"  # type: ignore[union-attr]
    for name in ("damaged", "foreign", "empty", "later", "fifo"):
        assert isinstance(found[name], BlackboxError), name


LATER = {"name": "blackbox-journal", "version": "2.0", "features": []}


def test_the_newest_run_of_a_name_is_the_one_that_began_last(tmp_path: Path) -> None:
    for place, name, time in [
        ("a", "x", 20.0),
        ("b", "x", 30.0),
        ("c", "y", 40.0),
        ("d", "x", 10.0),
    ]:
        write(tmp_path / place, {"metrics.jsonl": named(name, time)})
    seal(tmp_path / "b")
    text = (tmp_path / "b" / "run.json").read_text("utf-8")
    (tmp_path / "b" / "run.json").write_text(text.replace("+00:00", ""), "utf-8")
    write(tmp_path / "e", {"run.json": b"{"})
    assert newest_run(tmp_path, "x") == tmp_path / "b"
    assert newest_run(tmp_path, "y") == tmp_path / "c"
    assert newest_run(tmp_path, "z") is None


@pytest.mark.rule("BB-LAY-003")
def test_a_name_is_that_of_the_run_and_not_of_its_directory(tmp_path: Path) -> None:
    write(tmp_path / "x_20261121_142201", {"metrics.jsonl": named("y")})
    assert newest_run(tmp_path, "x") is None


def test_what_the_system_refuses_is_not_taken_for_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for place in ("a", "b"):
        write(tmp_path / place, {"metrics.jsonl": named("x")})

    def refuse(number: int, name: str) -> None:
        genuine = getattr(os, name)

        def guarded(path: Any, *arguments: Any, **options: Any) -> Any:
            if str(path).endswith("/b"):
                raise OSError(number, os.strerror(number), str(path))
            return genuine(path, *arguments, **options)

        monkeypatch.setattr(os, name, guarded)

    refuse(errno.EMFILE, "open")
    assert newest_run(tmp_path, "x") == tmp_path / "a"
    (said,) = (record.getMessage() for record in caplog.records)
    assert said.startswith(f"{tmp_path / 'b'} is passed over, as it cannot be read: ")
    monkeypatch.undo()
    refuse(errno.EIO, "listdir")
    with pytest.raises(OSError, match="Input/output"):
        list(find_runs(tmp_path))
    monkeypatch.undo()
    refuse(errno.EACCES, "listdir")
    refuse(errno.EACCES, "scandir")
    assert list(find_runs(tmp_path)) == [tmp_path / "a"]
