"""Packing and unpacking lose nothing."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from blackboxml import RunWriter, open_run, validate
from blackboxml.base.schema import validator
from blackboxml.errors import BlackboxError, RunIsLiveError, SealError, TableError
from blackboxml.seal import seal
from blackboxml.seal.pack import pack
from tests import histories
from tests.histories import end, event, header, point, write
from tests.reader.test_reader import answers, record_answer, rich
from tests.seal.test_seal import check_sums, content, manifest_of

if TYPE_CHECKING:
    from pathlib import Path


def test_a_packed_run_is_tables_and_documents_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "run", rich() | {"config.json": b"{}", "media.jsonl": b"kept"})
    report = pack(path)
    assert report.changed
    manifest = manifest_of(path)
    validator("manifest").validate(manifest)
    tables = {group["table"] for group in manifest["groups"].values()}
    assert set(content(path)) == tables | {"run.json", "SHA256SUMS", "config.json", "media.jsonl"}
    assert set(manifest["files"]) == tables | {"config.json", "media.jsonl"}
    assert all(
        "variable" not in said
        for g in manifest["groups"].values()
        for said in g["metrics"].values()
    )
    check_sums(path)


def test_packing_and_unpacking_again_change_no_byte(tmp_path: Path) -> None:
    path = write(tmp_path / "run", rich())
    pack(path)
    packed = content(path)
    assert not pack(path).changed
    assert content(path) == packed
    assert seal(path).changed
    unpacked = content(path)
    assert not seal(path).changed
    assert content(path) == unpacked
    tables = [name for name in packed if name.endswith(".parquet")]
    assert {name: packed[name] for name in tables} == {name: unpacked[name] for name in tables}


@pytest.mark.rule("BB-SEA-013")
def test_unpacked_journals_are_valid_and_hold_the_same_records(tmp_path: Path) -> None:
    before = histories.expect(rich())
    path = write(tmp_path / "run", rich())
    pack(path)
    seal(path)
    after = histories.expect(content(path))
    assert after.lost == []
    assert not any(after.damaged.values())
    assert [place for place, _ in after.records] == [place for place, _ in before.records]
    for (_, left), (_, right) in zip(before.records, after.records, strict=True):
        assert _values(left) == _values(right)


def _values(document: dict[str, Any]) -> Any:
    found = {
        key: value for key, value in document.items() if key not in {"crc", "ranks", "metrics"}
    }
    metrics = document.get("metrics", {})
    ranks = document.get("ranks", {})
    return (
        found,
        {name: histories.number(value) for name, value in metrics.items()},
        {
            name: {key: histories.number(value) for key, value in said.items()}
            for name, said in ranks.items()
        },
    )


@pytest.mark.rule("BB-VER-009")
def test_records_of_a_later_version_survive_packing_as_they_are(tmp_path: Path) -> None:
    lines = [
        point(0, {"a": 2**53 + 1, "b/c": 0.5}, org={"x": [1, None]}),
        event(1, later={"deep": [[{}]]}),
        point(2, {"a": 0.5}),
        end(3, "failed", exception={"type": "E", "message": "m", "more": 1}),
    ]
    path = write(tmp_path / "run", {"metrics.jsonl": header() + b"".join(lines)})
    pack(path)
    seal(path)
    found = [document for _, document in histories.expect(content(path)).records]
    wanted = [histories.decode(line[:-1]) for line in lines]
    for left, right in zip(found, wanted, strict=True):
        assert right is not None
        assert {**left, "crc": 0} == {**right, "crc": 0}


def test_records_go_back_to_the_journals_they_came_from(tmp_path: Path) -> None:
    files = {
        "metrics.jsonl": header() + b"".join(point(seq, {"a": seq}) for seq in range(4)),
        "metrics.1.jsonl": header(first_seq=2) + point(2, {"a": 2}),
        "metrics.2.jsonl": header(first_seq=4) + point(4, {"a": 4}) + end(5),
        "metrics.3.jsonl": header(attempt=1),
    }
    path = write(tmp_path / "run", files)
    pack(path)
    seal(path)
    held = {
        name: [json.loads(line)["seq"] for line in data.splitlines()[1:]]
        for name, data in content(path).items()
        if name.endswith(".jsonl")
    }
    assert held == {
        "metrics.jsonl": [0, 1],
        "metrics.1.jsonl": [2, 3],
        "metrics.2.jsonl": [4, 5],
        "metrics.3.jsonl": [],
    }
    headers = [
        histories.decode(data.splitlines()[0])
        for name, data in content(path).items()
        if name in files
    ]
    assert all(each is not None for each in headers)


@pytest.mark.parametrize(
    "data",
    [
        header() + point(0, {"a": 1}) + b"damage\n",
        header() + point(0, {"a": 1}) + point(2, {"a": 1}),
        header(first_seq=1) + point(1, {"a": 1}),
        b"X" + header() + point(0, {"a": 1}) + end(1),
    ],
    ids=["damaged line", "lost record", "lost beginning", "damaged header"],
)
@pytest.mark.rule("BB-SEA-010")
def test_a_damaged_run_is_not_packed(tmp_path: Path, data: bytes) -> None:
    path = write(tmp_path / "run", {"metrics.jsonl": data, "metrics.r1.jsonl": header(1)})
    with pytest.raises(SealError, match="damage"):
        pack(path)
    assert (path / "metrics.jsonl").read_bytes() == data
    assert open_run(path).sealed


@pytest.mark.rule("BB-SEA-013")
def test_a_statistic_of_a_later_version_survives_packing(tmp_path: Path) -> None:
    known = {"a/x": {"mean": 0.5, "count": 2}}
    both = {"a/x": {"mean": 0.5, "median": [1, {"b": 2}]}, "a/y": {"mode": "c"}}
    lines = point(0, {"a/x": 1}, ranks=known) + point(1, {"a/x": 2}, ranks=both) + end(2)
    path = write(tmp_path / "run", {"metrics.jsonl": header() + lines})
    pack(path)
    assert validate(path).verdict == "valid"
    assert [each.ranks for each in open_run(path).records()] == [
        known,
        {"a/x": {"mean": 0.5}, "a/y": {}},
    ]
    seal(path)
    data = (path / "metrics.jsonl").read_bytes()
    found = [json.loads(each) for each in data.splitlines()[1:]]
    assert found[0]["ranks"] == known
    assert found[1]["ranks"] == both


def test_a_torn_tail_does_not_hinder_packing(tmp_path: Path) -> None:
    data = header() + point(0, {"a": 1}) + point(1)[:-5]
    path = write(tmp_path / "run", {"metrics.jsonl": data})
    pack(path)
    assert [record_answer(each)[1] for each in open_run(path).records()] == [{"a": 1}]


@pytest.mark.rule("BB-SEA-001")
def test_a_live_run_is_not_packed(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, "live")
    writer.log({"a": 1})
    with pytest.raises(RunIsLiveError):
        pack(writer.path)
    writer.finish()
    pack(writer.path)
    assert open_run(writer.path).packed


def test_a_table_that_differs_from_the_journals_keeps_them(tmp_path: Path) -> None:
    path = write(tmp_path / "run", {"metrics.jsonl": header() + point(0, {"a": 1})})
    other = write(tmp_path / "other", {"metrics.jsonl": header() + point(0, {"a": 2})})
    seal(path)
    seal(other)
    data = (other / "metrics.parquet").read_bytes()
    (path / "metrics.parquet").write_bytes(data)
    manifest = (path / "run.json").read_bytes()
    sums = (path / "SHA256SUMS").read_bytes()
    old, new = (manifest_of(each)["files"]["metrics.parquet"] for each in (path, other))
    for key in ("bytes", "sha256"):
        manifest = manifest.replace(str(old[key]).encode(), str(new[key]).encode())
        sums = sums.replace(str(old[key]).encode(), str(new[key]).encode())
    (path / "run.json").write_bytes(manifest)
    try:
        pack(path)
    except SealError:
        assert (path / "metrics.jsonl").exists()
    assert open_run(path).arrow()["a"].to_pylist() in ([1], [2])
    assert [each.metrics for each in open_run(path).records()] == [{"a": 1}]


def test_a_packed_run_with_a_damaged_table_says_so_and_is_left_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "run", rich())
    pack(path)
    table = path / "train.parquet"
    table.write_bytes(table.read_bytes()[:-9])
    before = content(path)
    for act in (seal, pack):
        if act is seal:
            with pytest.raises(TableError, match=r"train\.parquet"):
                act(path)
        assert content(path) == before
    with pytest.raises(TableError, match=r"train\.parquet"):
        list(open_run(path).records())
    with pytest.raises(TableError, match=r"train\.parquet"):
        open_run(path).arrow("train")
    assert open_run(path).arrow("val").num_rows
    table.unlink()
    with pytest.raises(BlackboxError, match="missing"):
        open_run(path).arrow("train")


@pytest.mark.rule("BB-SEA-012")
def test_a_packed_run_is_read_although_old_journals_lie_about(tmp_path: Path) -> None:
    path = write(tmp_path / "run", rich())
    before = answers(path)
    pack(path)
    (path / "metrics.jsonl").write_bytes(header() + point(0, {"other": 1}))
    reader = open_run(path)
    assert reader.packed
    assert [record_answer(each) for each in reader.records()] == before["records effective"]
    assert reader.groups == before["groups"]
    pack(path)
    assert not (path / "metrics.jsonl").exists()


def test_a_resumed_writer_cannot_open_a_packed_run_unawares(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, "x")
    writer.log({"a": 1})
    writer.finish()
    pack(writer.path)
    with pytest.raises(BlackboxError, match="packed"):
        RunWriter.resume(writer.path)
    seal(writer.path)
    resumed = RunWriter.resume(writer.path)
    resumed.log({"a": 2})
    resumed.finish()
    assert [each.metrics["a"] for each in open_run(writer.path).records()] == [1, 2]


@pytest.mark.rule("BB-LAY-011")
def test_packing_drops_no_file_but_its_own(tmp_path: Path) -> None:
    path = write(tmp_path / "run", rich() | {"other.h5": b"kept", "metrics.txt": b"kept"})
    pack(path)
    assert (path / "other.h5").read_bytes() == b"kept"


@pytest.mark.parametrize(
    "file",
    ["../precious", "/etc/hostname", "precious", "config.json", "run.json", "a/metrics.jsonl", "."],
)
def test_a_hostile_list_of_journals_removes_nothing(tmp_path: Path, file: str) -> None:
    path = write(tmp_path / "run", {"metrics.jsonl": header() + point(0, {"a": 1})})
    (tmp_path / "precious").write_bytes(b"kept")
    (path / "precious").write_bytes(b"kept")
    (path / "config.json").write_bytes(b"{}")
    pack(path)
    manifest = manifest_of(path)
    manifest["journals"][0]["file"] = file
    (path / "run.json").write_text(json.dumps(manifest), "utf-8")
    before = content(tmp_path)
    for act in (pack, seal):
        with contextlib.suppress(BlackboxError):
            act(path)
        kept = content(tmp_path)
        for name in ("precious", "run/precious", "run/config.json", "run/metrics.parquet"):
            assert kept[name] == before[name]


def test_an_event_takes_the_place_of_the_row_that_has_its_seq(tmp_path: Path) -> None:
    lines = (
        header() + point(0, {"a": 1.5}) + event(1, describe={"metric": "a", "unit": "s"}) + end(2)
    )
    path = write(tmp_path / "run", {"metrics.jsonl": lines})
    pack(path)
    manifest = manifest_of(path)
    manifest["journals"][0]["events"][0]["seq"] = 0
    (path / "run.json").write_text(json.dumps(manifest))
    assert list(open_run(path).records("all")) == []
