"""A run directory is opened without following a link, and its documents are replaced whole."""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import TYPE_CHECKING

import h5py
import pyarrow.parquet as pq
import pytest

from blackboxml.base import files
from blackboxml.base.files import Directory, check_relative, is_refusal, write_all
from blackboxml.errors import LimitError, NotARunError, UnsafePathError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Directory]:
    with Directory(tmp_path) as opened:
        yield opened


@pytest.mark.parametrize("name", ["run.json", "media/a.png", "a/b/c", "_", "0", "a" * 128, "A-_.9"])
def test_a_path_inside_a_run_is_accepted(name: str) -> None:
    check_relative(name)


@pytest.mark.parametrize(
    "name",
    [
        *("", "/", "/etc/passwd", "..", "../a", "a/..", "a/../b", "./a", "a/./b", "a//b", "a/"),
        *("-rf", "a/-b", ".hidden", "a\\b", "C:a", "a b", "a\n", "a\x00b", "é", "a" * 129, "~"),
    ],
)
@pytest.mark.rule("BB-SEC-001")
def test_any_other_path_is_refused(directory: Directory, name: str) -> None:
    with pytest.raises(UnsafePathError, match="path inside a run"):
        check_relative(name)
    with pytest.raises(UnsafePathError):
        directory.read(name, 10)


@pytest.mark.parametrize("name", ["missing", "file"])
def test_what_is_no_directory_is_no_run(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotARunError, match="is not a directory") as caught:
        Directory(tmp_path / name)
    assert isinstance(caught.value, FileNotFoundError)
    assert caught.value.filename == str(tmp_path / name)


def test_a_link_or_a_special_file_is_not_opened(directory: Directory, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_text("x")
    (tmp_path / "link").symlink_to(outside / "secret")
    (tmp_path / "folder").symlink_to(outside)
    (tmp_path / "inner").symlink_to(tmp_path / "real")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "fifo")  # opening it would wait for a writer
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(tmp_path)  # the path of a socket is short
        listener.bind("socket")
        os.chdir(here)
        for name in (
            *("link", "folder", "folder/secret", "inner/file", "loop", "fifo", "socket"),
            *("real", "real/file/deeper"),
        ):
            with pytest.raises(UnsafePathError, match=r"link|regular|special"):
                directory.read(name, 100)
            assert directory.size(name) is None
    assert directory.read("real/file", 100) == b"x"


def test_a_file_larger_than_its_limit_is_not_read(directory: Directory, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert directory.read("a", 5) == b"12345"
    with pytest.raises(LimitError, match="larger than 4 bytes"):
        directory.read("a", 4)
    with pytest.raises(FileNotFoundError):
        directory.read("b", 4)


def test_nothing_stays_open(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_text("x")
    os.mkfifo(tmp_path / "fifo")

    def descriptors() -> int:
        return len(os.listdir("/dev/fd"))

    before = descriptors()
    for _ in range(3):
        with Directory(tmp_path) as directory:
            directory.read("a/b", 10)
            for name in ("fifo", "a", "a/c", "a/b/c"):
                with pytest.raises((UnsafePathError, FileNotFoundError)):
                    directory.read(name, 10)
            directory.replace("c", b"1")
    assert descriptors() == before


def test_a_file_is_created_once(directory: Directory, tmp_path: Path) -> None:
    descriptor = directory.create("a", append=True)
    write_all(descriptor, b"1")
    os.lseek(descriptor, 0, os.SEEK_SET)
    write_all(descriptor, b"2")
    os.close(descriptor)
    assert (tmp_path / "a").read_bytes() == b"12"
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("a", "link"):
        with pytest.raises(FileExistsError):
            directory.create(name)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.rule("BB-SEC-013")
def test_the_mode_of_a_file_is_that_of_the_umask(directory: Directory, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        os.close(directory.create("a"))
        directory.replace("b", b"")
    finally:
        os.umask(before)
    for name in "ab":
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o640


def test_all_is_written_where_the_system_takes_it_in_pieces(
    directory: Directory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    descriptor = directory.create("a")
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:3]))
    write_all(descriptor, b"1234567890")
    os.close(descriptor)
    assert (tmp_path / "a").read_bytes() == b"1234567890"


def test_a_document_is_replaced_and_no_scratch_remains(
    directory: Directory, tmp_path: Path
) -> None:
    for content in (b"old", b"new", b""):
        directory.replace("run.json", content)
        assert (tmp_path / "run.json").read_bytes() == content
    assert directory.names() == ["run.json"]
    assert directory.scratch() == []


@pytest.mark.parametrize("call", ["write", "fsync", "rename", "open"])
def test_a_document_that_cannot_be_replaced_stays_as_it_was(
    directory: Directory, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    directory.replace("run.json", b"old")

    def fail(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(OSError, match="No space left") as caught:
            directory.replace("run.json", b"new")
    assert caught.value.errno == errno.ENOSPC
    assert directory.read("run.json", 10) == b"old"
    assert directory.scratch() == []


@pytest.mark.rule("BB-LAY-015")
def test_a_document_is_durable_before_it_takes_its_name(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    for name in ("write", "fsync", "rename"):
        real = getattr(os, name)

        def note(*given: object, _real=real, _name=name, **options: object) -> object:
            if _name == "fsync":
                folder = stat.S_ISDIR(os.fstat(given[0]).st_mode)
                done.append("sync directory" if folder else "sync file")
            else:
                done.append(_name)
            return _real(*given, **options)

        monkeypatch.setattr(os, name, note)
    directory.replace("run.json", b"{}")
    assert done == ["write", "sync file", "rename", "sync directory"]


@pytest.mark.parametrize("number", sorted(files.SYNC_UNSUPPORTED))
def test_a_file_system_that_cannot_sync_is_taken_as_it_is(
    directory: Directory, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    directory.replace("run.json", b"new")
    directory.sync()
    assert directory.read("run.json", 10) == b"new"


def test_a_failing_sync_is_not_hidden(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        directory.sync()


def test_scratch_is_told_from_the_rest(directory: Directory, tmp_path: Path) -> None:
    for name in (".tmp-a", "b", "a", ".hidden"):
        (tmp_path / name).write_text("")
    (tmp_path / ".tmp-folder").mkdir()
    assert directory.names() == [".hidden", "a", "b"]
    assert directory.scratch() == [".tmp-a", ".tmp-folder"]


def test_removing_scratch_takes_its_content_and_follows_no_link(
    directory: Directory, tmp_path: Path
) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-kept"
    outside.mkdir()
    (outside / "file").write_text("kept")
    folder = tmp_path / ".tmp-seal" / "deep"
    folder.mkdir(parents=True)
    (folder / "a").write_text("")
    (folder / "link").symlink_to(outside)
    (tmp_path / ".tmp-link").symlink_to(outside)
    for name in directory.scratch():
        directory.remove(name)
    directory.remove("missing")
    assert list(tmp_path.iterdir()) == []
    assert (outside / "file").read_text() == "kept"


def test_a_directory_that_moves_stays_open(directory: Directory, tmp_path: Path) -> None:
    moved = tmp_path.rename(tmp_path.with_name(f"{tmp_path.name}-moved"))
    (moved / ".tmp-folder" / "a").mkdir(parents=True)
    directory.replace("run.json", b"1")
    directory.remove(".tmp-folder")
    assert sorted(path.name for path in moved.iterdir()) == ["run.json"]
    assert not tmp_path.exists()
    moved.rename(tmp_path)


def test_closing_twice_closes_once(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    directory.close()
    other = os.open(tmp_path, os.O_RDONLY)  # takes the number that became free
    directory.close()
    os.fstat(other)
    os.close(other)


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (OSError(errno.EIO, "x"), True),
        (PermissionError(errno.EACCES, "x"), True),
        (FileNotFoundError(errno.ENOENT, "x"), False),
        (OSError(errno.EMFILE, "x"), True),
        (OSError(errno.ELOOP, "a link"), False),
        (OSError(errno.ENAMETOOLONG, "x" * 300), False),
        (OSError("file signature not found"), False),
        (ValueError(5, "x"), False),
    ],
)
def test_absence_and_damage_are_no_refusals(error: Exception, wanted: bool) -> None:
    assert is_refusal(error) is wanted


def test_numbers_of_errors_come_through_the_libraries(tmp_path: Path) -> None:
    """What is not there is told by a number, and what is damaged is not."""
    (tmp_path / "x").write_bytes(bytes(range(256)))
    for read in (lambda path: h5py.File(path, "r"), pq.ParquetFile):
        for name, number in (("gone", errno.ENOENT), ("x", None)):
            with pytest.raises((OSError, ValueError)) as caught:
                read(tmp_path / name)
            assert getattr(caught.value, "errno", None) == number
