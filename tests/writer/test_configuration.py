"""Values are added to `config.json`; none of those that are there is lost, whatever happens."""

from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from blackboxml import RunWriter, open_run, validate
from blackboxml.base.files import Directory
from blackboxml.errors import ConfigError, WriteError
from blackboxml.seal import seal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def resumed(tmp_path: Path) -> Iterator[RunWriter]:
    """Return the writer of a run that is gone on with, and has a configuration."""
    first = RunWriter.create(tmp_path, "r")
    first.add_config({"lr": 0.1, "layers": 3})
    first.finish("interrupted")
    writer = RunWriter.resume(first.path)
    yield writer
    writer.finish()


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return names of files that the system does not let anybody read."""
    names: set[str] = set()
    genuine = os.open

    def guarded(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if path in names and not flags & os.O_CREAT:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), path)
        return genuine(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", guarded)
    return names


@pytest.mark.rule("BB-CFG-016")
def test_what_cannot_be_read_is_not_replaced(
    resumed: RunWriter, refused: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    before = (resumed.path / "config.json").read_bytes()
    refused.add("config.json")
    resumed.add_config({"lr": 0.2})
    resumed.add_config({"seed": 1})
    resumed.tick(0.0)
    (said,) = (record.getMessage() for record in caplog.records)
    assert said.endswith("cannot be read: Too many open files; new values wait until it can be")
    refused.clear()
    assert (resumed.path / "config.json").read_bytes() == before
    resumed.tick(0.0)
    assert open_run(resumed.path).config == {"lr": 0.2, "layers": 3, "seed": 1}
    document = json.loads((resumed.path / "config.json").read_bytes())
    assert [(each["attempt"], each["values"]) for each in document["replaced"]] == [
        (1, {"lr": 0.1})
    ]


@pytest.mark.rule("BB-CFG-016")
def test_values_that_wait_for_ever_are_named(
    resumed: RunWriter, refused: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    refused.add("config.json")
    resumed.add_config({"lr": 0.2, "seed": 1})
    resumed.finish()
    said = caplog.records[-1].getMessage()
    assert said.endswith("config.json lacks lr, seed: it could not be read to the end")
    refused.clear()
    assert open_run(resumed.path).config == {"lr": 0.1, "layers": 3}


def test_values_that_wait_and_make_it_too_large_are_named(
    resumed: RunWriter, refused: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    refused.add("config.json")
    resumed.add_config({"text": "x" * 17 * 2**20})
    refused.clear()
    resumed.finish()
    assert "lacks text: the configuration has" in caplog.records[-1].getMessage()
    assert open_run(resumed.path).status == "completed"
    assert open_run(resumed.path).config == {"lr": 0.1, "layers": 3}


def test_a_strict_writer_raises(tmp_path: Path, refused: set[str]) -> None:
    writer = RunWriter.create(tmp_path, "r", strict=True)
    writer.add_config({"lr": 0.1})
    refused.add("config.json")
    with pytest.raises(WriteError, match="cannot be read: Too many open files"):
        writer.add_config({"lr": 0.2})
    refused.clear()
    writer.finish()
    assert open_run(writer.path).config == {"lr": 0.1}


@pytest.mark.rule("BB-CFG-017")
@pytest.mark.parametrize(
    "damage", [b'{"config": {"lr": 0.1,}}', b"\0" * 50, b'{"config": 1}', b" " * 17 * 2**20]
)
def test_a_damaged_document_gets_another_name(
    resumed: RunWriter, caplog: pytest.LogCaptureFixture, damage: bytes
) -> None:
    for number in (1, 2):
        (resumed.path / "config.json").write_bytes(damage)
        resumed.add_config({"lr": 0.2})
        assert (resumed.path / f"config.json.damaged-{number}").read_bytes() == damage
        assert f"it is now config.json.damaged-{number}" in caplog.records[-1].getMessage()
    resumed.finish()
    assert open_run(resumed.path).config == {"lr": 0.2}
    seal(resumed.path)
    assert validate(resumed.path).verdict == "valid"


def test_a_damaged_document_that_cannot_be_renamed_stays(
    resumed: RunWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    (resumed.path / "config.json").write_bytes(b"{")

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patched:
        patched.setattr(Directory, "rename", refuse)
        resumed.add_config({"lr": 0.2})
        assert (resumed.path / "config.json").read_bytes() == b"{"
    resumed.tick(0.0)
    assert open_run(resumed.path).config == {"lr": 0.2}
    assert (resumed.path / "config.json.damaged-1").read_bytes() == b"{"


def test_a_link_is_replaced_and_what_it_points_to_stays(
    resumed: RunWriter, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "mine.json").write_bytes(b"{}")
    (resumed.path / "config.json").unlink()
    (resumed.path / "config.json").symlink_to(tmp_path / "mine.json")
    resumed.add_config({"lr": 0.2})
    assert (tmp_path / "mine.json").read_bytes() == b"{}"
    assert "it is replaced" in caplog.records[-1].getMessage()
    assert open_run(resumed.path).config == {"lr": 0.2}


def test_what_makes_it_too_large_changes_nothing(resumed: RunWriter) -> None:
    with pytest.raises(ConfigError, match="may be"):
        resumed.add_config({"text": "x" * 17 * 2**20})
    resumed.add_config({"seed": 1})
    assert open_run(resumed.path).config == {"lr": 0.1, "layers": 3, "seed": 1}
