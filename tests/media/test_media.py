"""Media: files before records, superseded as metrics are, and never in the way of training."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING

import numpy as np
import pytest

from blackboxml import RunWriter, open_run, validate
from blackboxml.errors import FormatError, MetricError, RunStateError, WriteError
from blackboxml.seal import seal
from blackboxml.seal.pack import pack
from tests.validation.runs import flipped

if TYPE_CHECKING:
    from pathlib import Path

NESTED: list[object] = []
for _ in range(61):
    NESTED = [NESTED]
PNG = b"\x89PNG\r\n\x1a\n" + bytes(60)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A run with one medium of each way to give it."""
    writer = RunWriter.create(tmp_path, "media")
    (tmp_path / "weights.bin").write_bytes(b"w" * 3_000_000)
    writer.log({"loss": 1.0}, step=4)
    writer.log_media("notes", "text", value="learning rate halved")
    writer.log_media("train/sample", "image", 5, data=PNG, media_type="image/png", time=12.5)
    writer.log_media("train/sample", "image", 5, data=PNG + b"2", media_type="image/png")
    writer.log_media("weights", "artifact", 5, path=tmp_path / "weights.bin", folder="artifacts")
    writer.log_media("long", "text", 6, value="ä" * 40_000)
    writer.finish()
    return writer.path


def test_media_are_read_back_as_they_were_recorded(path: Path) -> None:
    run = open_run(path)
    found = list(run.media())
    assert [(each.seq, each.step, each.name, each.kind, each.file) for each in found] == [
        (0, 4, "notes", "text", None),
        (1, 5, "train/sample", "image", "media/train_sample-5.png"),
        (2, 5, "train/sample", "image", "media/train_sample-5-2.png"),
        (3, 5, "weights", "artifact", "artifacts/weights-5.bin"),
        (4, 6, "long", "text", "media/long-6.txt"),
    ]
    assert found[0].value == "learning rate halved"
    assert (found[1].time, found[1].media_type, found[1].bytes) == (12.5, "image/png", len(PNG))
    assert found[1].sha256 == hashlib.sha256(PNG).hexdigest()
    assert run.load(found[2]) == PNG + b"2"
    assert run.load(found[3]) == b"w" * 3_000_000
    assert run.load(found[4]).decode() == "ä" * 40_000
    assert run.problems == []
    with pytest.raises(ValueError, match="has no file"):
        run.load(found[0])


def test_numbers_that_are_not_finite_are_spelled_as_in_a_journal(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, "spelled")
    value = {"edges": [float("-inf"), 0, np.float32(0.5)], "counts": (1, float("nan"))}
    writer.log_media("weights", "histogram", value=value)
    writer.log_media("large", "event", value=[float("inf")] * 10_000)
    writer.finish()
    run = open_run(writer.path)
    small, large = run.media()
    assert small.value == {"edges": ["-Infinity", 0, 0.5], "counts": [1, "NaN"]}
    assert json.loads(run.load(large)) == ["Infinity"] * 10_000
    assert large.media_type == "application/json"
    assert validate(writer.path).problems == []


def test_a_run_with_media_is_valid_sealed_and_packed(path: Path) -> None:
    assert validate(path).problems == []
    seal(path)
    assert validate(path).problems == []
    assert "media/train_sample-5.png" in (path / "SHA256SUMS").read_text()
    pack(path)
    assert validate(path).problems == []
    assert len(list(open_run(path).media())) == 5


@pytest.mark.rule("BB-MED-004")
def test_a_rewind_supersedes_media_too(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, "back")
    for step in range(4):
        writer.log({"loss": step}, step=step)
        writer.log_media("note", "text", step, value=str(step))
    writer.rewind(2)
    writer.log_media("note", "text", 2, value="again")
    writer.finish()
    run = open_run(writer.path)
    assert [each.value for each in run.media()] == ["0", "1", "again"]
    assert [each.value for each in run.media("all")] == ["0", "1", "2", "3", "again"]

    resumed = RunWriter.resume(writer.path)
    resumed.rewind(1)
    resumed.finish()
    run = open_run(writer.path)
    assert [each.value for each in run.media()] == ["0"]
    assert validate(writer.path).problems == []


def test_ranks_have_their_own_media(tmp_path: Path) -> None:
    first = RunWriter.create(tmp_path, "ranks")
    second = RunWriter.join(first.path, 1, 0)
    for writer in (first, second):
        writer.log_media("sample", "image", 1, data=PNG, media_type="image/png")
        writer.finish()
    found = list(open_run(first.path).media())
    assert [(each.rank, each.file) for each in found] == [
        (0, "media/sample-1.png"),
        (1, "media/sample-1-r1.png"),
    ]
    assert validate(first.path).problems == []


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"name": "a/", "value": 1}, "begins or ends"),
        ({"name": "a"}, "one of value, data, path, reference"),
        ({"name": "a", "value": 1, "data": b""}, "one of value, data, path, reference"),
        ({"name": "a", "value": 1, "step": 0.5}, "step"),
        ({"name": "a", "value": object()}, "'a' cannot be stored as JSON"),
        ({"name": "a", "value": {"b": [{1: 2}]}}, "'a' cannot be stored as JSON"),
        ({"name": "a", "value": "\ud800"}, "no valid text"),
        ({"name": "a", "value": "1", "time": float("nan")}, "time"),
        ({"name": "a", "value": 1}, "'a' is no text"),
        ({"name": "a", "kind": "image", "value": [1]}, "in a file"),
        (
            {"name": "a", "kind": "histogram", "value": {"edges": [0], "counts": [0]}},
            "one edge more",
        ),
        ({"name": "a", "kind": "table", "value": {"columns": ["b"], "rows": [[]]}}, "row 0"),
        ({"name": "a", "kind": "event", "value": {"\ud800": None}}, "no valid text"),
        ({"name": "a", "kind": "event", "value": NESTED}, "deeper than 60 levels"),
        ({"name": "a", "kind": "event", "value": [None, NESTED]}, "deeper than 60 levels"),
        ({"name": "a", "path": "/nowhere"}, "cannot be read"),
        ({"name": "a", "data": b"", "entry": ""}, "entry"),
        ({"name": "a", "data": b"", "dims": ["b"]}, "names for an array"),
        ({"name": "a", "kind": "array", "data": b"", "dims": ["b", "b"]}, "wanted names"),
        ({"name": "a", "kind": "array", "data": b"", "dims": ["draw"]}, "cannot be called so"),
        ({"name": "a", "kind": "array", "data": b"", "dims": ["a b"]}, "cannot be called so"),
        ({"name": "a", "reference": {"uri": "file:///a"}}, "reference of the text"),
        ({"name": "a", "kind": "artifact", "reference": {"uri": "a b"}}, "absolute URI"),
        ({"name": "a", "kind": "artifact", "reference": {"url": "a:b"}}, "reference"),
        ({"name": "a", "kind": "artifact", "reference": {"uri": "a:b", "bytes": -1}}, "bytes"),
        ({"name": "a", "kind": "artifact", "reference": {"uri": "a:b", "sha256": "0"}}, "SHA"),
    ],
)
def test_what_cannot_be_stored_is_refused(
    tmp_path: Path, arguments: dict[str, object], error: str
) -> None:
    writer = RunWriter.create(tmp_path, "refused")
    with pytest.raises(MetricError, match=error):
        writer.log_media(**({"kind": "text"} | arguments))
    writer.finish()
    assert list(open_run(writer.path).media()) == []
    assert validate(writer.path).problems == []


def test_a_figure_that_is_json_is_in_a_file(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, "figure")
    writer.log_media("a", "figure", value={"data": []})
    writer.finish()
    (found,) = open_run(writer.path).media()
    assert (found.value, found.media_type) == (None, "application/json")
    assert open_run(writer.path).load(found) == b'{"data":[]}'
    assert validate(writer.path).problems == []


def test_after_the_end_nothing_is_recorded(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, "over")
    writer.finish()
    with pytest.raises(RunStateError):
        writer.log_media("a", "text", value="b")


def test_a_file_that_cannot_be_written_leaves_a_gap_and_training_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer = RunWriter.create(tmp_path, "full")
    (writer.path / "media").write_text("not a folder")
    writer.log_media("a", "image", 0, data=PNG)
    writer.log_media("a", "image", 1, data=PNG)
    (writer.path / "media").unlink()
    writer.log_media("a", "image", 2, data=PNG)
    writer.finish()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    run = open_run(writer.path)
    assert [each.step for each in run.media()] == [2]
    assert (writer.path / "media.jsonl").read_text().count('"gap"') == 2

    strict = RunWriter.create(tmp_path, "strict", strict=True)
    (strict.path / "media").write_text("not a folder")
    with pytest.raises(WriteError, match="'a' at step 0"):
        strict.log_media("a", "image", 0, data=PNG)
    strict.finish()


@pytest.mark.rule("BB-MED-008")
def test_without_hard_links_a_name_is_still_nobody_elses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    writer = RunWriter.create(tmp_path, "unlinked")
    for text in (b"1", b"2"):
        writer.log_media("a", "artifact", 0, data=text)
    writer.finish()
    run = open_run(writer.path)
    assert [run.load(each) for each in run.media()] == [b"1", b"2"]
    assert sorted(os.listdir(writer.path / "media")) == ["a-0-2.bin", "a-0.bin"]


@pytest.mark.parametrize("harm", ["flip", "cut", "remove", "link"])
def test_a_damaged_file_is_not_given(path: Path, tmp_path: Path, harm: str) -> None:
    file = path / "media" / "train_sample-5.png"
    if harm == "flip":
        file.write_bytes(flipped(PNG, 20))
    elif harm == "cut":
        file.write_bytes(PNG[:-1])
    else:
        file.unlink()
    if harm == "link":
        (tmp_path / "elsewhere.png").write_bytes(PNG)
        file.symlink_to(tmp_path / "elsewhere.png")
    run = open_run(path)
    record = list(run.media())[1]
    with pytest.raises(FormatError, match="train_sample-5"):
        run.load(record)
    assert "BB-MED-011" in {problem.rule for problem in validate(path).problems}
