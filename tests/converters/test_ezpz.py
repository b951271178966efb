"""ezpz: what History, its reports and the CSV tracker leave behind, in every form."""

from __future__ import annotations

import csv
import json
import math
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blackboxml import open_run
from blackboxml.conversion import convert
from blackboxml.converters import ezpz
from blackboxml.errors import FormatError
from blackboxml.foreign.interchange import Ledger, Medium, Point
from blackboxml.foreign.values import from_npy

DATA = Path(__file__).parent / "data" / "ezpz"
EXPECTED = json.loads((DATA / "expected.json").read_text())
FINAL = DATA / "v0.18.2"


def read(path: Path) -> tuple[Any, list[Any], Ledger]:
    [run] = ezpz.read(path)
    ledger = Ledger()
    return run, list(run.items(ledger)), ledger


def points(items: list[Any]) -> list[Point]:
    return [item for item in items if isinstance(item, Point)]


def logged(items: list[Any]) -> list[Any]:
    """What was logged, without the files that come with it."""
    return [item for item in items if not isinstance(item, Medium) or item.path is None]


def keys_of(items: list[Any]) -> set[str]:
    names = {item.name for item in items if isinstance(item, Medium)}
    for point in points(items):
        names |= point.metrics.keys()
        names |= {f"{base}/{each}" for base, of in (point.ranks or {}).items() for each in of}
    return names


def plain(value: Any) -> Any:
    """A value of JSON as NumPy has it."""
    return np.asarray(value).tolist() if isinstance(value, list) else value


@pytest.mark.parametrize("place", [each for each in EXPECTED if each.endswith(".jsonl")])
def test_each_history_holds_what_is_expected(place: str) -> None:
    expected, path = EXPECTED[place], DATA / place
    assert ezpz.recognise(path)
    assert ezpz.recognise(path.parent)
    for source in (path, path.parent):
        _, items, ledger = read(source)
        items = logged(items)
        assert keys_of(items) == set(expected["keys"])
        assert not ledger.total("unreadable", "scalar")
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        ranks: Counter[str] = Counter(str(line["rank"]) for line in lines)
        assert ranks == expected["lines_by_rank"]
        updates = Counter((str(item.rank), item.time) for item in items)
        assert len(updates) == len(lines)
        assert (
            sum(item.ranks is not None for item in points(items))
            == (expected["lines_with_aggregated"])
        )
        found = {}
        for item in items:
            values = found.setdefault((item.rank, item.time), {})
            if isinstance(item, Point):
                values |= item.metrics
                for base, statistics in (item.ranks or {}).items():
                    values |= {f"{base}/{each}": value for each, value in statistics.items()}
            elif item.kind == "array":
                values[item.name] = from_npy(item.data or b"").tolist()
            else:
                values[item.name] = item.value if item.kind == "text" else item.value["value"]
        wanted = {
            (line["rank"], line["timestamp"]): {
                key: plain(value) for key, value in line["metrics"].items()
            }
            for line in lines
        }
        assert repr(sorted((key, sorted(of.items())) for key, of in found.items())) == repr(
            sorted((key, sorted(of.items())) for key, of in wanted.items())
        )


@pytest.mark.parametrize("place", [each for each in EXPECTED if each.endswith(".csv")])
def test_each_table_holds_what_is_expected(place: str) -> None:
    expected, path = EXPECTED[place], DATA / place
    assert ezpz.recognise(path)
    _, items, _ = read(path)
    assert len(items) == expected["rows"]
    assert keys_of(items) | {"step"} == set(expected["header"])
    with path.open(newline="") as file:
        for row, point in zip(csv.DictReader(file), items, strict=True):
            values = dict(point.metrics, step=point.step)
            for base, statistics in (point.ranks or {}).items():
                values |= {f"{base}/{each}": value for each, value in statistics.items()}
            assert {key: str(value) for key, value in values.items()} == {
                key: cell for key, cell in row.items() if cell
            }


@pytest.mark.parametrize("place", [each for each in EXPECTED if each.endswith(".h5")])
def test_each_dataset_holds_what_is_expected(place: str) -> None:
    expected, path = EXPECTED[place], DATA / place
    assert ezpz.recognise(path)
    _, items, ledger = read(path)
    label = path.name.removesuffix("_dataset.h5")
    prefix = "" if label == "dataset" else f"{label}/"
    columns: dict[str, list[Any]] = {}
    for point in points(items):
        for name, value in point.metrics.items():
            columns.setdefault(name, []).append(value)
    assert {name: len(each) for name, each in columns.items()} == {
        prefix + key: shape[0] for key, (shape, _) in expected.items()
    }
    with h5py.File(path) as file:
        for key in file:
            assert columns[prefix + key] == file[key][:].tolist()
    assert [point.step for point in points(items)] == list(range(len(points(items))))
    assert not ledger.total("unreadable", "scalar")


def test_the_whole_tree_is_imported_with_its_ranks(tmp_path: Path) -> None:
    report = convert(FINAL, tmp_path / "out", verify=True)
    assert report.ok, [run.differences for run in report.runs if not run.ok]
    assert {run.source_format for run in report.runs} == {"ezpz"}
    places = {str(Path(run.source).relative_to(FINAL)): open_run(run.target) for run in report.runs}
    assert {place.partition("/")[0] for place in places} == {each.name for each in FINAL.iterdir()}
    run = places["dist_normal/final"]
    table = run.arrow("train")
    assert Counter(table["rank"].to_pylist()) == {0: 20, 1: 20, 2: 20, 3: 20}
    assert table["loss/mean"].drop_null().to_pylist()[0] == 1.1500000059604645
    assert run.name == "20261121-040919"
    assert run.start.isoformat() == "2026-11-21T04:09:19+00:00"
    assert run.manifest["environment"]["hostname"] == "localhost"
    names = Counter(each.name for each in run.media())
    files = (FINAL / "dist_normal" / "final").rglob("*.*")
    wanted = {str(each.relative_to(FINAL / "dist_normal" / "final")) for each in files}
    assert names.keys() == {each for each in wanted if not each.endswith(".jsonl")}
    again = convert(FINAL, tmp_path / "out")
    assert {run.outcome for run in again.runs} == {"unchanged"}


def test_steps_come_from_the_tracker_where_it_agrees(tmp_path: Path) -> None:
    folder = tmp_path / "final"
    shutil.copytree(FINAL / "grouped_csv" / "final", folder)
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for at, row in enumerate(rows):
        row["step"] = str(100 + 7 * at)

    def write() -> None:
        with (folder / "metrics.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)

    write()
    _, items, ledger = read(folder)
    assert [point.step for point in points(items)] == [100 + 7 * at for at in range(24)]
    assert ledger.total("made", "step") == len(items) - 24
    rows[3]["train/loss"] = "17.0"  # not the same run
    write()
    _, items, _ = read(folder)
    assert [point.step for point in points(items)] == list(range(24))


def test_the_configuration_of_the_tracker_is_that_of_the_run() -> None:
    run, items, _ = read(FINAL / "killed" / "init")
    assert run.config == {"lr": 1}
    assert len(points(items)) == 50
    assert ezpz.members(FINAL / "killed" / "init") >= {"metrics.csv", "config.json"}


def test_several_histories_in_one_folder_are_runs_of_their_own(tmp_path: Path) -> None:
    for name in ("plain", "killed"):
        for path in (FINAL / name).rglob("*.jsonl"):
            shutil.copy(path, tmp_path)
    runs = {run.key: run.name for run in ezpz.read(tmp_path)}
    assert runs == {
        "20261121-040408.jsonl": "20261121-040408",
        "20261121-040502.jsonl": "20261121-040502",
    }
    assert len(convert(tmp_path, tmp_path / "out").runs) == 2


def test_lines_that_are_torn_or_interleaved_give_what_is_whole(tmp_path: Path) -> None:
    def line(at: int) -> str:
        return json.dumps({"timestamp": 1.0 + at, "rank": 0, "metrics": {"loss": float(at)}})

    path = tmp_path / "20261121-000000.jsonl"
    path.write_bytes(
        f"{line(0)}\n{line(1)}{line(2)}\n{line(3)[:20]}{line(4)}\n\n[1]\n{line(5)}\n\xff\n".encode(
            "latin-1"
        )
        + line(6)[:-3].encode()
    )
    _, items, ledger = read(path)
    assert [point.metrics["loss"] for point in points(items)] == [0.0, 1.0, 2.0, 4.0, 5.0]
    assert ledger.total("unreadable", "scalar") == 4
    first = next(remark for remark in ledger.counts if remark.effect == "unreadable")
    assert f"byte {path.read_bytes().index(line(3)[:20].encode() + b'{')}" in first.where


def test_statistics_are_told_from_metrics_of_such_a_name(tmp_path: Path) -> None:
    record = {
        "timestamp": 1.0,
        "rank": 0,
        "metrics": {"a": 1.0, "a/mean": 2.0, "a/std": math.nan, "b/mean": 3.0, "a/max": 5.0},
        "aggregated": {"a/mean": 2.0, "a/std": math.nan, "a/max": 6.0},
    }
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(record))
    _, [point], _ = read(path)
    assert point.metrics == {"a": 1.0, "b/mean": 3.0, "a/max": 5.0}
    assert repr(point.ranks) == "{'a': {'mean': 2.0, 'std': nan}}"


def test_a_time_that_is_none_loses_no_value(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    times = ("NaN", "Infinity", "1e300", "null", '"soon"')
    path.write_text(
        "\n".join(f'{{"timestamp": {time}, "rank": 0, "metrics": {{"a": 1}}}}' for time in times)
    )
    report = convert(path, tmp_path / "out")
    assert report.ok
    assert open_run(report.runs[0].target).arrow("").num_rows == 5


def test_values_of_every_kind_are_of_their_kind(tmp_path: Path) -> None:
    metrics = {
        "i": 2**60,
        "flag": True,
        "big": 2**70,
        "none": None,
        "text": "x",
        "vector": [1, 2],
        "matrix": [[1.0, math.nan], [3.0, 4.0]],
        "ragged": [[1], [2, 3]],
        "empty": [],
        "dict": {"x": [1]},
        "/odd/": 1.0,
    }
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"timestamp": 1.0, "rank": 2, "metrics": metrics, "step": 5}))
    _, items, ledger = read(path)
    assert {item.rank for item in items} == {2}
    assert {item.step for item in items} == {5}
    assert points(items)[0].metrics == {"i": 2**60, "flag": True, "odd": 1.0}
    media = {item.name: item for item in items if isinstance(item, Medium)}
    assert {name: each.kind for name, each in media.items()} == {
        "big": "event",
        "none": "event",
        "text": "text",
        "vector": "array",
        "matrix": "array",
        "ragged": "event",
        "empty": "event",
        "dict": "event",
    }
    assert media["big"].value == {"value": {"$int": str(2**70)}}
    assert from_npy(media["vector"].data or b"").dtype == np.int64
    assert ledger.total("changed", "field") == 1
    assert not ledger.total("made", "step")


def test_vectors_of_a_dataset_are_arrays(tmp_path: Path) -> None:
    path = tmp_path / "train_dataset.h5"
    vector = np.arange(12, dtype="f4").reshape(3, 4)  # chain, draw
    matrix = np.arange(24, dtype="f4").reshape(2, 3, 4)  # chain, leapfrog, draw
    with h5py.File(path, "w") as file:
        file.create_dataset("v", data=vector, maxshape=(None, 4))
        file.create_dataset("m", data=matrix)
        file.create_dataset("loss", data=np.array([1.1, np.nan], "f4"))
    _, items, _ = read(path)
    media = {(item.name, item.step): item for item in items if isinstance(item, Medium)}
    assert len(media) == 8
    for draw in range(4):
        assert np.array_equal(from_npy(media["train/v", draw].data or b""), vector[:, draw])
        assert np.array_equal(from_npy(media["train/m", draw].data or b""), matrix[:, :, draw])
    assert repr([point.metrics for point in points(items)]) == (
        "[{'train/loss': 1.100000023841858}, {'train/loss': nan}]"
    )


def test_a_hostile_dataset_reads_no_other_file(tmp_path: Path) -> None:
    secret, path = tmp_path / "secret.bin", tmp_path / "x_dataset.h5"
    secret.write_bytes(np.arange(8, dtype="f4").tobytes())
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["data"] = np.arange(8, dtype="f4")
    with h5py.File(path, "w") as file:
        file["link"] = h5py.ExternalLink("other.h5", "/data")
        file["soft"] = h5py.SoftLink("/loss")
        file.create_dataset("outside", (8,), "f4", external=[(str(secret), 0, 32)])
        layout = h5py.VirtualLayout((8,), "f4")
        layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "data", (8,))
        file.create_virtual_dataset("virtual", layout)
        file.create_group("group")
        file["text"] = "hello"
        file.create_dataset("bomb", (2**40,), "f4", chunks=(2**28,))
        file["loss"] = np.array([0.5], "f4")
    _, [point], ledger = read(path)
    assert point.metrics == {"x/loss": 0.5}
    assert ledger.total("unreadable", "scalar") == 7


def test_links_are_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(FINAL / "plain" / "final", folder)
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "plots").mkdir(exist_ok=True)
    (folder / "plots" / "link.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "more.csv").symlink_to(tmp_path / "secret.txt")
    _, items, ledger = read(folder)
    assert not [item for item in items if isinstance(item, Medium) and "link" in item.name]
    assert not [item for item in items if isinstance(item, Medium) and "more" in item.name]
    assert ledger.total("lost", "artifact") == 1
    report = convert(folder, tmp_path / "out")
    assert report.ok


def test_files_of_others_are_left_to_others(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("loss,step\n1,0\n")
    assert not ezpz.recognise(tmp_path)
    assert not ezpz.recognise(tmp_path / "metrics.csv")
    (tmp_path / "config.json").write_text('{"lr": 1}')
    assert ezpz.recognise(tmp_path)
    (tmp_path / "hparams.yaml").write_text("lr: 1")  # Lightning's
    assert not ezpz.recognise(tmp_path)
    (tmp_path / "x.jsonl").write_text('{"loss": 1}\n')
    (tmp_path / "x_dataset.h5").write_bytes(b"something else")
    for name in ("x.jsonl", "x_dataset.h5"):
        assert not ezpz.recognise(tmp_path / name)
    with pytest.raises(FormatError, match="nothing of ezpz"):
        list(ezpz.read(tmp_path))


def test_a_damaged_table_gives_its_good_rows(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "metrics.csv").write_bytes(
        b"loss,note,step\n0.5,a,0\n1.5,b\n\xff,c,2\n2.5,[1,9,9\nnan,[1.0; 2.0],x\n"
    )
    _, items, ledger = read(tmp_path)
    rows = [(point.step, repr(point.metrics)) for point in points(items)]
    assert rows == [
        (0, "{'loss': 0.5}"),
        (1, "{'loss': 1.5}"),
        (9, "{'loss': 2.5}"),
        (4, "{'loss': nan}"),
    ]
    assert ledger.total("unreadable", "scalar") == 2
    assert ledger.total("made", "step") == 2


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_damage_makes_it_fail(data: Any) -> None:
    place = data.draw(st.sampled_from(sorted(EXPECTED)))
    content = bytearray((DATA / place).read_bytes())
    for _ in range(data.draw(st.integers(1, 20))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / Path(place).name
        path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
        ezpz.recognise(path)
        for item in read(path)[1]:
            assert isinstance(item, (Point, Medium))


METRICS = st.dictionaries(
    st.sampled_from(["loss", "train/loss", "é", "lr"]),
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(),
    min_size=1,
)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), METRICS), min_size=1, max_size=8))
def test_any_history_is_imported_value_by_value(updates: list[tuple[int, dict[str, Any]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "20261121-000000.jsonl"
        with path.open("w") as file:
            for at, (rank, metrics) in enumerate(updates):
                record = {"timestamp": 1795270922.5 + at, "rank": rank, "metrics": metrics}
                file.write(json.dumps(record) + "\n")
        [report] = convert(path, Path(folder) / "out", verify=True).runs
        assert report.ok, report.differences
        records = list(open_run(report.target).records())
        found = [(each.rank, each.time, each.metrics) for each in records]
        wanted = [(rank, 1795270922.5 + at, each) for at, (rank, each) in enumerate(updates)]
        assert repr(sorted(found, key=repr)) == repr(sorted(wanted, key=repr))
