"""The media methods of `Run`: what is logged comes back, and what cannot be is refused by name."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from matplotlib.figure import Figure
from PIL import Image

from blackboxml import Run, open_run, validate
from blackboxml.errors import MetricError, MissingDependencyError, RunStateError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from blackboxml.model import MediaRecord
    from blackboxml.reader import RunReader


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with Run("media", log_dir=tmp_path, environment=(), seal=False) as run:
        run.log({"train/loss": 0.5}, step=7)
        yield run


def read(run: Run) -> tuple[RunReader, list[MediaRecord]]:
    reader = open_run(run.path)
    found = list(reader.media())
    assert reader.problems == []
    assert not [each for each in validate(run.path).problems if each.severity == "error"]
    return reader, found


def test_each_kind_is_read_back(run: Run) -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    figure = Figure(figsize=(1, 1))
    figure.add_subplot().plot([1, 2])
    run.log_text("notes", "begun")
    run.log_image("train/sample", pixels)
    run.log_histogram("train/weights", [0.0, 1.0, float("nan")], bins=2)
    run.log_array("train/draws", np.zeros((2, 3)), dims=["chain", "parameter"])
    run.log_table("errors", [["cat", 0.5]], ["text", "p"], step=3)
    run.log_figure("curve", figure, formats=["png", "svg"])
    run.log_graph("model", [{"id": "a"}, {"id": "b"}], [("a", "b")], step=8)
    run.alert("loss is NaN", "at the end of epoch 3", level="warning")
    reader, found = read(run)
    kinds = ["text", "image", "histogram", "array", "table", "figure", "figure", "graph", "event"]
    assert [each.kind for each in found] == kinds
    assert [each.step for each in found] == [7, 7, 7, 7, 3, 7, 7, 8, 7]
    text, image, histogram, array, table, png, svg, graph, event = found
    assert text.value == "begun"
    assert np.array_equal(Image.open(io.BytesIO(reader.load(image))), pixels)
    assert histogram.value == {"edges": [0.0, 0.5, 1.0], "counts": [1, 1], "nonfinite": 1}
    assert np.load(io.BytesIO(reader.load(array))).shape == (2, 3)
    assert array.dims == ("chain", "parameter")
    assert table.value == {"columns": ["text", "p"], "rows": [["cat", 0.5]]}
    assert (png.media_type, svg.media_type) == ("image/png", "image/svg+xml")
    assert graph.value == {"nodes": [{"id": "a"}, {"id": "b"}], "edges": [["a", "b"]]}
    said = {"level": "warning", "title": "loss is NaN", "text": "at the end of epoch 3"}
    assert (event.name, event.value) == ("alert", said)


def test_what_is_logged_owes_nothing_to_the_callers_objects(run: Run) -> None:
    nodes, rows, values = [{"id": 0}], [[1]], np.zeros(2)
    run.log_graph("a", nodes, [])
    run.log_table("b", rows, ["x"])
    run.log_array("c", values)
    nodes[0]["id"], rows[0][0], values[:] = 9, 9, 9
    reader, (graph, table, array) = read(run)
    assert graph.value["nodes"] == [{"id": 0}]
    assert table.value["rows"] == [[1]]
    assert np.load(io.BytesIO(reader.load(array))).tolist() == [0, 0]


def test_graphs_of_a_hundred_thousand_operations(run: Run) -> None:
    count = 100_000
    nodes = [{"id": str(n), "type": "operation", "label": "add"} for n in range(count)]
    edges = [{"source": str(n), "target": str(n + 1)} for n in range(count - 1)]
    for name in ("first", "second"):
        run.log_graph(name, nodes, edges)
    reader, found = read(run)
    assert [each.name for each in found] == ["first", "second"]
    for each in found:
        assert json.loads(reader.load(each)) == {"nodes": nodes, "edges": edges}


def test_a_large_frame_is_a_parquet_file(run: Run) -> None:
    frame = pl.DataFrame({"a": range(10_000)})
    run.log_table("frame", frame)
    reader, (found,) = read(run)
    assert pl.from_arrow(pq.read_table(io.BytesIO(reader.load(found)))).equals(frame)
    assert found.file == "media/frame-7.parquet"


@pytest.mark.parametrize("how", ["copy", "link", "reference"])
def test_a_folder_is_one_artifact(run: Run, tmp_path: Path, how: Any) -> None:
    source = tmp_path / "a model"
    (source / "sub dir").mkdir(parents=True)
    (source / "weights.bin").write_bytes(b"w" * 5000)
    (source / "sub dir" / "é.txt").write_text("e")
    (source / "link.txt").symlink_to(source / "sub dir" / "é.txt")
    run.log_artifact("model", source, how=how)
    reader, found = read(run)
    assert [each.entry for each in found] == ["link.txt", "weights.bin", "sub dir/é.txt"]
    contents = [b"e", b"w" * 5000, b"e"]
    assert [each.media_type for each in found][::2] == ["text/plain"] * 2
    digests = [hashlib.sha256(each).hexdigest() for each in contents]
    if how == "reference":
        said = [each.reference or {} for each in found]
        assert [each["sha256"] for each in said] == digests
        assert [each["bytes"] for each in said] == [1, 5000, 1]
        assert said[1]["uri"] == (source / "weights.bin").as_uri()
        with pytest.raises(ValueError, match="it is at 'file://"):
            reader.load(found[0])
    else:
        assert [each.sha256 for each in found] == digests
        assert [reader.load(each) for each in found] == contents
        assert all((each.file or "").startswith("artifacts/model-7") for each in found)
        same = os.path.samefile(source / "weights.bin", run.path / (found[1].file or ""))
        assert same == (how == "link")


def test_a_uri_is_recorded_as_it_is(run: Run) -> None:
    run.log_artifact("data", "s3://bucket/train.tar", how="reference")
    _, (found,) = read(run)
    assert found.reference == {"uri": "s3://bucket/train.tar"}


def test_a_reference_need_not_be_read(run: Run, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"12345")
    run.log_artifact("data", tmp_path / "large", how="reference", digest=False)
    _, (found,) = read(run)
    assert found.reference == {"uri": (tmp_path / "large").as_uri(), "bytes": 5}


@pytest.mark.parametrize(
    ("method", "arguments", "error"),
    [
        ("log_text", ["a", 7], "'a' is no text"),
        ("log_text", ["a/", "b"], "begins or ends"),
        ("log_text", ["a", "b", 1.5], "step"),
        ("log_image", ["a", np.full((2, 2), 2.0)], "image 'a': pixels reach from 2.0"),
        ("log_image", ["a", "/nowhere.png"], "image 'a': .*No such file"),
        ("log_histogram", ["a", ["b"]], "histogram 'a'"),
        ("log_histogram", ["a", [1], 0], "histogram 'a': bins"),
        ("log_array", ["a", [None]], "array 'a'"),
        ("log_table", ["a", [[1]]], "table 'a'"),
        ("log_table", ["a", [[1, 2]], ["b"]], "'a' is no table: row 0"),
        ("log_table", ["a", [[object()]], ["b"]], "'a' cannot be stored as JSON"),
        ("log_figure", ["a", 7], "figure 'a'"),
        ("log_graph", ["a", 7, []], "graph 'a'"),
        ("log_artifact", ["a", "/nowhere"], "artifact 'a': there is no file"),
        ("log_artifact", ["a", "s3://b/c"], "artifact 'a': a URI is not fetched"),
        ("alert", [7], "event 'alert': the title is 7"),
        ("alert", ["a", "b", "loud"], "event 'alert': level is 'loud'"),
    ],
)
def test_what_cannot_be_stored_is_refused_by_name(
    run: Run, method: str, arguments: list[Any], error: str
) -> None:
    with pytest.raises(MetricError, match=error):
        getattr(run, method)(*arguments)
    assert read(run)[1] == []


def test_dims_name_every_dimension(run: Run) -> None:
    with pytest.raises(MetricError, match=r"array 'a': dims are \['b'\] for an array of shape"):
        run.log_array("a", np.zeros((2, 2)), dims=["b"])
    with pytest.raises(MetricError, match="how is 'move'"):
        run.log_artifact("a", "b", how="move")  # type: ignore[arg-type]


def test_a_folder_without_files_or_with_others_is_refused(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(MetricError, match="is empty"):
        run.log_artifact("a", folder)
    os.mkfifo(folder / "pipe")
    with pytest.raises(MetricError, match="neither a file nor a folder"):
        run.log_artifact("a", folder)
    (folder / "pipe").unlink()
    (folder / "loop").symlink_to(folder)
    with pytest.raises(MetricError, match="a link to a folder"):
        run.log_artifact("a", folder)
    assert read(run)[1] == []


def test_without_pillow_the_error_says_what_to_install(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(MissingDependencyError, match=r"blackboxml\[image\]"):
        run.log_image("a", np.zeros((2, 2)))


def test_media_belong_to_a_run_that_is_open(tmp_path: Path) -> None:
    run = Run("late", log_dir=tmp_path, environment=())
    with pytest.raises(RunStateError, match="was not started"):
        run.log_text("a", "b")
    with run:
        run.log_text("a", "b")
    with pytest.raises(RunStateError, match="has ended"):
        run.log_text("a", "b")
    assert [(each.step, each.value) for each in open_run(run.path).media()] == [(0, "b")]


def test_a_resumed_and_rewound_run_goes_on_with_its_media(tmp_path: Path) -> None:
    with Run("again", log_dir=tmp_path, environment=()) as run:
        for step in range(4):
            run.log({"train/loss": 1.0})
            run.log_text("note", f"first {step}")
    with Run("again", resume=run.path, environment=()) as resumed:
        resumed.rewind(2)
        resumed.log({"train/loss": 0.5})
        resumed.log_text("note", "second")
        resumed.log_image("sample", np.zeros((2, 2)))
    found = list(open_run(run.path).media())
    values = [each.value for each in found if each.kind == "text"]
    assert values == ["first 0", "first 1", "second"]
    assert [(each.step, each.attempt) for each in found[-2:]] == [(2, 1), (2, 1)]
    assert validate(run.path).ok


def test_logging_text_loads_no_library_of_arrays_or_images(tmp_path: Path) -> None:
    code = """
        import sys
        from blackboxml import Run
        run = Run("light", log_dir=sys.argv[1], seal=False).start()
        run.log_text("a", "b")
        run.log_graph("a", [], [])
        run.alert("a")
        loaded = {"numpy", "PIL", "pyarrow", "matplotlib", "torch"} & set(sys.modules)
        run.finish()
        assert not loaded, loaded
    """
    lines = "\n".join(line[8:] for line in code.splitlines())
    subprocess.run([sys.executable, "-c", lines, tmp_path], check=True)
