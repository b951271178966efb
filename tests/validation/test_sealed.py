"""Sealed and packed runs: each fault by the rules that it breaks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blackboxml import Run, validate
from blackboxml.model import Limits
from blackboxml.seal import seal
from blackboxml.seal.pack import pack
from tests.validation.runs import (
    change,
    edit_bytes,
    edit_table,
    flipped,
    lines,
    manifest,
    record,
    rules,
    vouch,
    with_value,
    write_lines,
    write_manifest,
    write_sums,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


# -- checksums


@pytest.mark.parametrize(
    ("found", "edit"),
    [
        ({"BB-INT-001"}, lambda text: text.replace("  config", " *config")),
        ({"BB-INT-001"}, lambda text: text + "\n"),
        ({"BB-INT-001"}, lambda text: text.rstrip("\n")),
        ({"BB-INT-001", "BB-INT-003"}, lambda text: text[:64].upper() + text[64:]),
        ({"BB-INT-002"}, lambda text: "".join(reversed(text.splitlines(keepends=True)))),
        ({"BB-INT-002"}, lambda text: text + text.splitlines(keepends=True)[-1]),
        ({"BB-INT-003"}, lambda text: "".join(text.splitlines(keepends=True)[1:])),
        ({"BB-INT-009"}, lambda text: "0" * 64 + text[64:]),
        ({"BB-LAY-006"}, lambda text: "0" * 64 + "  ../a\n" + text),
        ({"BB-LAY-006"}, lambda text: "0" * 64 + "  /etc/passwd\n" + text),
        ({"BB-INT-009", "BB-MAN-006"}, lambda text: text + "0" * 64 + "  z\n"),
        ({"BB-INT-001", "BB-INT-003"}, lambda text: "x" * 10**6),
    ],
)
def test_a_fault_of_the_sums_is_reported(
    sealed: Path, found: set[str], edit: Callable[[str], str]
) -> None:
    sums = sealed / "SHA256SUMS"
    sums.write_text(edit(sums.read_text()))
    report = validate(sealed)
    assert rules(report) - {"BB-INT-003"} == found - {"BB-INT-003"}
    assert not report.ok


def test_sums_that_are_missing_are_an_error(sealed: Path) -> None:
    (sealed / "SHA256SUMS").unlink()
    report = validate(sealed)
    assert rules(report) == {"BB-INT-003"}
    assert report.problems[0].cure == f"blackbox repair {sealed} -o {sealed}.repaired"
    seal(sealed)
    assert not validate(sealed).problems


def test_a_file_that_came_after_sealing_is_a_warning(sealed: Path) -> None:
    (sealed / "console.log").write_text("x")
    report = validate(sealed)
    assert report.ok
    assert rules(report) == {"BB-INT-010"}


@pytest.mark.parametrize("name", ["config.json", "train.parquet", "train.h5", "run.json"])
def test_a_file_that_changed_after_sealing_is_reported(sealed: Path, name: str) -> None:
    edit_bytes(sealed, name, lambda data: flipped(data, -3))
    report = validate(sealed)
    found = {problem.rule for problem in report.problems if problem.file == name}
    assert found & {"BB-INT-009", "BB-MAN-001"}
    assert not report.ok


@pytest.mark.parametrize("name", ["config.json", "train.parquet", "metrics.h5"])
def test_a_file_that_is_missing_is_reported_once(sealed: Path, name: str) -> None:
    (sealed / name).unlink()
    problems = validate(sealed).problems
    assert [(problem.rule, problem.file) for problem in problems] == [("BB-INT-009", name)]


def test_a_file_may_be_listed_without_a_digest(sealed: Path) -> None:
    change(sealed, lambda document: document["files"]["train.h5"].pop("sha256"))
    assert not validate(sealed).problems
    change(sealed, lambda document: document["files"]["train.h5"].update(bytes=1))
    assert rules(validate(sealed)) == {"BB-INT-009"}


# -- journals after sealing


def test_a_journal_that_lost_its_end_is_noticed(sealed: Path) -> None:
    write_lines(sealed, lines(sealed)[:-1])
    assert rules(validate(sealed)) == {"BB-INT-009", "BB-MAN-006", "BB-LIV-001"}


def test_a_journal_that_came_after_sealing_is_noticed(sealed: Path) -> None:
    header = {**lines(sealed)[0], "attempt": 1}
    write_lines(sealed, [header], "metrics.1.jsonl")
    assert rules(validate(sealed)) == {"BB-INT-010", "BB-SEA-006", "BB-MAN-006"}


def test_a_damaged_line_of_a_sealed_journal_is_reported(sealed: Path) -> None:
    edit_bytes(sealed, "metrics.jsonl", lambda data: data.replace(b'"seq":3', b'"seq":7'))
    found = {"BB-INT-009", "BB-JNL-004", "BB-JNL-009", "BB-MAN-006"}
    assert rules(validate(sealed)) == found


def test_damage_that_was_sealed_is_reported_alone(ended: Path) -> None:
    edit_bytes(ended, "metrics.jsonl", lambda data: data.replace(b'"seq":3', b'"seq":7'))
    seal(ended)
    assert rules(validate(ended)) == {"BB-JNL-004", "BB-JNL-009"}


# -- the manifest against the journals


def put(*path: Any) -> Callable[[dict[str, Any]], None]:
    *keys, last, value = path

    def edit(document: dict[str, Any]) -> None:
        for key in keys:
            document = document[key]
        document[last] = value

    return edit


LOSS = ("groups", "train", "metrics", "train/loss")


@pytest.mark.parametrize(
    ("found", "edit"),
    [
        ({"BB-MAN-006"}, put("groups", "train", "rows", 7)),
        ({"BB-MAN-006"}, put("groups", "train", "superseded", 0)),
        ({"BB-MAN-006"}, put(*LOSS, "count", 5)),
        ({"BB-MAN-006"}, put(*LOSS, "last", 0.5)),
        ({"BB-MAN-006"}, put(*LOSS, "unit", "bit")),
        ({"BB-MAN-006"}, put(*LOSS, "statistics", ["mean"])),
        ({"BB-GRP-004"}, put(*LOSS, "type", "int64")),
        ({"BB-GRP-005"}, put(*LOSS, "column", "loss_")),
        ({"BB-GRP-007"}, put(*LOSS, "variable", "loss_")),
        ({"BB-MAN-006"}, lambda each: each["groups"]["train"]["metrics"].pop("train/seen")),
        ({"BB-TAB-001"}, lambda each: each["groups"].pop("train")),
        ({"BB-TAB-001"}, lambda each: each["groups"].update(x=each["groups"]["train"])),
        ({"BB-DAT-001"}, lambda each: each["groups"]["train"].pop("dataset")),
        ({"BB-MAN-006"}, lambda each: each["files"].pop("train.parquet")),
        ({"BB-LAY-006"}, lambda each: each["groups"]["train"].update(table="../x")),
        ({"BB-LAY-006"}, lambda each: each["files"].update({"a b": {"bytes": 1}})),
        ({"BB-MAN-012"}, lambda each: each.pop("journals")),
        ({"BB-MAN-008"}, put("sealed", "time", "now")),
        ({"BB-MAN-006"}, put("journals", 0, "records", 3)),
        ({"BB-MAN-006"}, put("journals", 0, "attempt", 1)),
        ({"BB-MAN-006"}, put("journals", 0, "rank", 1)),
        ({"BB-MAN-006"}, put("journals", 0, "time", 5.0)),
        ({"BB-MAN-006"}, put("journals", 0, "process", {"host": "h", "pid": 1})),
        ({"BB-MAN-006"}, lambda each: each["journals"][0]["events"].pop()),
        (set(), lambda each: each["journals"][0].pop("events")),
        ({"BB-MAN-006"}, put("journals", 0, "events", 0, "describe", "unit", "bit")),
        ({"BB-SEA-006"}, put("journals", [])),
        ({"BB-MAN-006"}, put("attempts", [])),
    ],
)
def test_a_sealed_manifest_that_is_not_true_is_reported(
    sealed: Path, found: set[str], edit: Callable[[dict[str, Any]], object]
) -> None:
    change(sealed, edit)
    report = validate(sealed)
    noise = {"BB-INT-010", "BB-MAN-006"} if found != {"BB-MAN-006"} else {"BB-INT-010"}
    assert rules(report) - noise == found
    assert report.ok == (found <= {"BB-DAT-001"})


def test_files_are_named_after_their_group(sealed: Path) -> None:
    (sealed / "train.parquet").rename(sealed / "other.parquet")

    def rename(document: dict[str, Any]) -> None:
        document["groups"]["train"]["table"] = "other.parquet"
        document["files"]["other.parquet"] = document["files"].pop("train.parquet")

    change(sealed, rename)
    assert rules(validate(sealed)) == {"BB-GRP-008"}


# -- tables


def renamed(table: pa.Table, column: str, name: str) -> pa.Table:
    names = [name if each == column else each for each in table.column_names]
    return table.rename_columns(names).replace_schema_metadata(table.schema.metadata)


def cast(table: pa.Table, column: str, kind: pa.DataType) -> pa.Table:
    at = table.column_names.index(column)
    field = table.schema.field(at).with_type(kind)
    return table.set_column(at, field, table.column(column).cast(kind, safe=False))


def nullable(table: pa.Table) -> pa.Table:
    fields = [field.with_nullable(nullable=True) for field in table.schema]
    return table.cast(pa.schema(fields, table.schema.metadata))


def labelled(table: pa.Table, **labels: bytes | None) -> pa.Table:
    metadata = {**table.schema.metadata, **{key.encode(): value for key, value in labels.items()}}
    return table.replace_schema_metadata({key: each for key, each in metadata.items() if each})


@pytest.mark.parametrize(
    ("found", "edit"),
    [
        (set(), lambda table: table),
        ({"BB-SEA-004"}, lambda table: with_value(table, "loss", 2, 9.5)),
        ({"BB-SEA-004"}, lambda table: with_value(table, "step", 2, 9)),
        ({"BB-SEA-004"}, lambda table: with_value(table, "time", 2, 9.5)),
        ({"BB-TAB-008"}, lambda table: with_value(table, "loss", 2, None)),
        ({"BB-TAB-008"}, lambda table: with_value(table, "best", 0, False)),
        ({"BB-TAB-004"}, lambda table: with_value(table, "seq", 2, 9)),
        ({"BB-TAB-004"}, lambda table: with_value(table, "rank", 2, 1)),
        ({"BB-TAB-005"}, lambda table: with_value(nullable(table), "seq", 2, None)),
        ({"BB-TAB-003"}, lambda table: table.slice(1)),
        ({"BB-TAB-003"}, lambda table: table.slice(0, 0)),
        ({"BB-TAB-005"}, lambda table: renamed(table, "step", "steps")),
        ({"BB-TAB-005"}, lambda table: cast(table, "step", pa.int32())),
        ({"BB-TAB-005"}, lambda table: table.select(["loss", "step"])),
        ({"BB-GRP-005"}, lambda table: renamed(table, "loss", "losses")),
        ({"BB-TAB-006"}, lambda table: table.drop_columns(["seen"])),
        ({"BB-TAB-007"}, lambda table: cast(table, "loss", pa.float32())),
        (
            {"BB-TAB-009"},
            lambda table: table.cast(
                pa.schema([each.remove_metadata() for each in table.schema], table.schema.metadata)
            ),
        ),
        ({"BB-TAB-010"}, lambda table: labelled(table, blackbox=None)),
        ({"BB-TAB-010"}, lambda table: labelled(table, blackbox=b"{}")),
        ({"BB-TAB-010"}, lambda table: labelled(table, blackbox=b"[")),
        (
            {"BB-TAB-010"},
            lambda table: labelled(
                table, blackbox=table.schema.metadata[b"blackbox"].replace(b'"train"', b'"other"')
            ),
        ),
        (
            {"BB-VER-001"},
            lambda table: labelled(
                table, blackbox=table.schema.metadata[b"blackbox"].replace(b'"1.0"', b'"2.0"')
            ),
        ),
    ],
)
def test_a_table_that_is_not_what_the_journals_say_is_reported(
    sealed: Path, found: set[str], edit: Callable[[pa.Table], pa.Table]
) -> None:
    edit_table(sealed, edit)
    report = validate(sealed)
    assert rules(report) == found, report.problems
    assert {problem.file for problem in report.problems} <= {"train.parquet"}


def test_a_nested_column_is_reported(sealed: Path) -> None:
    edit_table(sealed, lambda table: table.append_column("x", pa.array([[1]] * table.num_rows)))
    assert rules(validate(sealed)) == {"BB-TAB-015", "BB-TAB-006"}


def test_a_table_should_be_compressed_with_zstandard(sealed: Path) -> None:
    edit_table(sealed, lambda table: table, compression="snappy")
    report = validate(sealed)
    assert report.ok
    assert rules(report) == {"BB-TAB-014"}


def test_a_table_may_have_row_groups_of_any_length(sealed: Path) -> None:
    edit_table(sealed, lambda table: table, row_group_size=3)
    assert not validate(sealed).problems


def test_a_page_whose_checksum_is_wrong_is_reported(sealed: Path) -> None:
    column = pq.read_metadata(sealed / "train.parquet").row_group(0).column(5)
    end = column.data_page_offset + column.total_compressed_size
    edit_bytes(sealed, "train.parquet", lambda data: flipped(data, end - 3))
    vouch(sealed)
    assert rules(validate(sealed)) == {"BB-TAB-017"}
    assert rules(validate(sealed, level="integrity")) == {"BB-TAB-017"}


def test_a_page_without_a_checksum_is_reported(sealed: Path) -> None:
    edit_table(sealed, lambda table: table, write_page_checksum=False)
    assert rules(validate(sealed)) == {"BB-TAB-011"}
    assert rules(validate(sealed, level="structure")) == set()


def test_a_column_of_a_statistic_that_is_called_otherwise_is_reported(ranks: Path) -> None:
    edit_table(ranks, lambda table: renamed(table, "loss/min", "loss/least"))
    assert rules(validate(ranks)) == {"BB-GRP-006"}


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" + b"\xff" * 100 + b"PAR1"])
def test_a_table_that_is_no_parquet_is_reported(sealed: Path, data: bytes) -> None:
    (sealed / "train.parquet").write_bytes(data)
    vouch(sealed)
    assert rules(validate(sealed)) == {"BB-TAB-016"}


def test_a_table_beyond_the_limit_is_not_read(sealed: Path) -> None:
    report = validate(sealed, Limits(table_bytes=100))
    assert rules(report) == {"BB-LIM-005"}


# -- datasets


def edit_dataset(path: Path, edit: Callable[[h5py.File], object]) -> None:
    with h5py.File(path / "train.h5", "r+") as file:
        edit(file)
    vouch(path)


def set_value(name: str, row: int, value: object) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        file[name][row] = value

    return edit


def attribute(name: str | None, key: str, value: object) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        attributes = (file if name is None else file[name]).attrs
        if value is None:
            del attributes[key]
        elif isinstance(value, bytes):
            attributes.create(key, value, dtype=h5py.string_dtype("utf-8", len(value)))
        else:
            attributes[key] = value

    return edit


def ascii_text(name: str | None, key: str) -> Callable[[h5py.File], None]:
    """Mark a text as ASCII."""

    def edit(file: h5py.File) -> None:
        attributes = (file if name is None else file[name]).attrs
        text = bytes(attributes[key])
        attributes.create(key, text, dtype=h5py.string_dtype("ascii", len(text)))

    return edit


def rewritten(name: str, **options: Any) -> Callable[[h5py.File], None]:
    """Make a variable again, with other options."""

    def edit(file: h5py.File) -> None:
        values, labels = file[name][:], dict(file[name].attrs)
        del file[name]
        settings = {"chunks": (4,), "compression": "gzip", "shuffle": True, "fletcher32": True}
        made = file.create_dataset(name, **{"data": values, **settings, **options})
        for key, value in labels.items():
            if key != "DIMENSION_LIST":
                text = bytes(value) if isinstance(value, bytes) else None
                kind = None if text is None else h5py.string_dtype("utf-8", len(text))
                made.attrs.create(key, value if text is None else text, dtype=kind)

    return edit


def second_scale(file: h5py.File) -> None:
    rewritten("loss")(file)
    file["loss"].make_scale("another dimension")


@pytest.mark.parametrize(
    ("found", "edit"),
    [
        (set(), lambda file: None),
        ({"BB-SEA-004"}, set_value("loss", 1, 9.5)),
        ({"BB-SEA-004"}, set_value("step", 1, 9)),
        ({"BB-SEA-004"}, set_value("best", 0, 1)),
        ({"BB-DAT-003"}, attribute(None, "run_id", b"0" * 32)),
        ({"BB-DAT-003"}, attribute(None, "group", None)),
        ({"BB-DAT-005"}, lambda file: file.pop("time")),
        ({"BB-DAT-006"}, lambda file: file.pop("loss")),
        ({"BB-DAT-006", "BB-DAT-004"}, lambda file: file.copy("loss", "other")),
        ({"BB-DAT-002"}, lambda file: file["loss"].resize((3,))),
        ({"BB-DAT-004", "BB-DAT-006"}, rewritten("loss")),
        ({"BB-DAT-004", "BB-DAT-006", "BB-DAT-007"}, rewritten("loss", dtype="f4")),
        ({"BB-DAT-007"}, rewritten("loss", dtype="f2")),
        ({"BB-DAT-007"}, attribute("best", "dtype", b"bool")),
        ({"BB-DAT-004", "BB-DAT-005"}, rewritten("rank", dtype="i8")),
        ({"BB-DAT-011"}, rewritten("loss", shuffle=False)),
        ({"BB-DAT-008"}, attribute("loss", "metric", b"train/other")),
        ({"BB-DAT-008"}, attribute("loss", "coordinates", None)),
        ({"BB-DAT-010"}, attribute("best", "_FillValue", None)),
        ({"BB-DAT-010"}, attribute("best", "_FillValue", np.int8(1))),
        ({"BB-DAT-010"}, attribute("best", "_FillValue", 1.5)),
        ({"BB-DAT-010"}, attribute("loss", "_FillValue", np.float64(-5))),
        ({"BB-DAT-012"}, attribute("loss", "note", "of variable length")),
        ({"BB-DAT-012"}, lambda file: file.create_group("inner")),
        ({"BB-DAT-012"}, lambda file: file.update({"x": h5py.SoftLink("/loss")})),
        ({"BB-DAT-012"}, lambda file: file.update({"x": h5py.ExternalLink("/etc/a", "/")})),
        ({"BB-DAT-011"}, lambda file: file.create_dataset("x", data=[1.0])),
        ({"BB-DAT-004"}, lambda file: file.pop("draw")),
        ({"BB-DAT-004", "BB-DAT-006"}, second_scale),
        ({"BB-DAT-004"}, lambda file: file["loss"].dims[0].detach_scale(file["draw"])),
        ({"BB-DAT-004"}, attribute("draw", "NAME", b"draw")),
        ({"BB-DAT-009"}, attribute("loss", "units", b"bit")),
        ({"BB-DAT-009"}, attribute("loss", "long_name", None)),
        ({"BB-DAT-014"}, ascii_text("loss", "units")),
        ({"BB-DAT-014"}, ascii_text(None, "group")),
        (
            {"BB-DAT-011"},
            lambda file: file.create_dataset("x", (1,), "f8", chunks=(1,), scaleoffset=2),
        ),
    ],
)
def test_a_dataset_that_is_not_what_the_journals_say_is_reported(
    sealed: Path, found: set[str], edit: Callable[[h5py.File], object]
) -> None:
    edit_dataset(sealed, edit)
    report = validate(sealed)
    assert rules(report) == found, report.problems
    assert {problem.file for problem in report.problems} <= {"train.h5"}


@pytest.mark.rule("BB-SEC-008")
def test_a_chunk_that_would_fill_the_memory_is_not_decoded(sealed: Path) -> None:
    def bomb(file: h5py.File) -> None:
        options = {"compression": "gzip", "shuffle": True, "fletcher32": True, "dtype": "f8"}
        file.create_dataset("x", (1,), chunks=(2**28 + 1,), maxshape=(None,), **options)

    edit_dataset(sealed, bomb)
    assert rules(validate(sealed)) == {"BB-LIM-005"}


@pytest.mark.parametrize("data", [b"", b"\x89HDF\r\n\x1a\n" + b"\xff" * 100])
def test_a_dataset_that_is_no_hdf5_is_reported(sealed: Path, data: bytes) -> None:
    (sealed / "train.h5").write_bytes(data)
    vouch(sealed)
    report = validate(sealed)
    assert rules(report) == {"BB-DAT-016"}
    assert "/dev/fd" not in report.problems[0].message


def test_a_chunk_whose_checksum_is_wrong_is_reported(sealed: Path) -> None:
    with h5py.File(sealed / "train.h5") as file:
        offset = file["loss"].id.get_chunk_info(0).byte_offset
    edit_bytes(sealed, "train.h5", lambda data: flipped(data, offset + 5))
    vouch(sealed)
    assert rules(validate(sealed)) == {"BB-DAT-017"}
    assert rules(validate(sealed, level="integrity")) == {"BB-DAT-017"}
    assert rules(validate(sealed, level="structure")) == set()


@pytest.mark.parametrize(
    ("found", "options"),
    [
        ({"BB-DAT-013"}, {"libver": "earliest"}),
        ({"BB-DAT-013", "BB-DAT-006"}, {"track_order": False}),  # the order of the columns is lost
    ],
    ids=["bounds", "order"],
)
def test_a_dataset_should_be_written_by_the_latest_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: set[str], options: dict[str, Any]
) -> None:
    genuine = h5py.File

    def opened(place: Any, mode: str, **given: Any) -> h5py.File:
        return genuine(place, mode, **given | (options if mode == "w" else {}))

    with monkeypatch.context() as patch:
        patch.setattr(h5py, "File", opened)
        path = record(tmp_path)
    report = validate(path)
    assert rules(report) == found
    assert report.ok == (found == {"BB-DAT-013"})


# -- packed


@pytest.mark.parametrize(
    ("found", "edit"),
    [
        (set(), lambda table: table),
        ({"BB-SEA-009"}, lambda table: with_value(table, "step", 1, 2)),
        ({"BB-SEA-009"}, lambda table: with_value(table, "time", 2, 9.5)),
        ({"BB-TAB-004"}, lambda table: with_value(table, "seq", 2, 1)),
        ({"BB-TAB-005"}, lambda table: with_value(nullable(table), "seq", 2, None)),
        ({"BB-GRP-005"}, lambda table: renamed(table, "loss", "losses")),
        ({"BB-TAB-007"}, lambda table: cast(table, "loss", pa.float32())),
        ({"BB-MAN-006"}, lambda table: with_value(table, "loss", 2, None)),
        ({"BB-MAN-006", "BB-MRG-001"}, lambda table: table.slice(0, 7)),
    ],
)
def test_a_table_of_a_packed_run_that_does_not_fit_is_reported(
    packed: Path, found: set[str], edit: Callable[[pa.Table], pa.Table]
) -> None:
    edit_table(packed, edit)
    report = validate(packed)
    assert rules(report) - {"BB-MRG-001"} == found - {"BB-MRG-001"}, report.problems


@pytest.mark.parametrize(
    ("found", "edit"),
    [
        ({"BB-MAN-006"}, put("groups", "train", "rows", 7)),
        ({"BB-MAN-006"}, put("groups", "train", "superseded", 7)),
        ({"BB-MAN-006"}, put(*LOSS, "count", 7)),
        ({"BB-MAN-006"}, put("journals", 0, "records", 7)),
        ({"BB-MAN-006", "BB-MRG-001"}, lambda each: each["journals"][0]["events"].pop(0)),
        ({"BB-GRP-005"}, put(*LOSS, "column", "losses")),
        ({"BB-TAB-007"}, put(*LOSS, "type", "int64")),
        ({"BB-SEA-015"}, put(*LOSS, "variable", "loss")),
        ({"BB-SEA-015"}, put("groups", "train", "dataset", "train.h5")),
        ({"BB-SEA-015"}, lambda each: each["journals"][0].pop("events")),
        ({"BB-SEA-015"}, lambda each: each["journals"][0].pop("process")),
        ({"BB-SEA-015", "BB-INT-003", "BB-INT-009"}, put("files", "metrics.jsonl", {"bytes": 7})),
        ({"BB-SEA-015", "BB-INT-003", "BB-INT-009"}, put("files", "train.h5", {"bytes": 7})),
    ],
)
def test_a_manifest_of_a_packed_run_that_is_not_true_is_reported(
    packed: Path, found: set[str], edit: Callable[[dict[str, Any]], object]
) -> None:
    change(packed, edit)
    report = validate(packed)
    assert rules(report) - {"BB-MAN-006"} == found - {"BB-MAN-006"}
    assert not report.ok


def test_a_table_of_a_packed_run_that_is_gone_is_reported(packed: Path) -> None:
    (packed / "train.parquet").unlink()
    assert rules(validate(packed)) == {"BB-INT-009"}


def test_a_packed_run_whose_manifest_is_lost_is_an_error(packed: Path) -> None:
    (packed / "run.json").write_bytes(b"")
    assert {"BB-MAN-001", "BB-INT-009"} == rules(validate(packed))


def test_journals_that_a_pack_left_behind_are_ignored(sealed: Path, packed: Path) -> None:
    data = (sealed / "metrics.jsonl").read_bytes()
    (packed / "metrics.jsonl").write_bytes(data[: len(data) // 2])
    report = validate(packed)
    assert report.ok
    assert rules(report) == {"BB-INT-010"}


def test_integers_that_float64_rounds_are_events(tmp_path: Path) -> None:
    with Run("exact", log_dir=tmp_path) as run:
        run.log({"a": 2**60 + 1})
        run.log({"a": 0.5})
        run.log({})
    assert not validate(run.path).problems
    assert len(manifest(run.path)["journals"][0]["events"]) == 3
    pack(run.path)
    assert not validate(run.path).problems


def test_checksums_can_be_written_anew(sealed: Path) -> None:
    write_manifest(sealed, manifest(sealed))
    write_sums(sealed)
    vouch(sealed)
    assert not validate(sealed).problems
