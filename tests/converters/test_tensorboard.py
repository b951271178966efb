"""TensorBoard's event files: written by the writers people use, and read by TensorBoard itself."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import random
import shutil
import struct
import subprocess
import wave
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.context import RequestContext
from tensorboard.data.grpc_provider import GrpcDataProvider
from tensorboard.data.proto.data_provider_pb2_grpc import TensorBoardDataProviderStub
from tensorboard.data.server_ingester import get_server_binary
from tensorboard.plugins.audio import metadata as audio_metadata
from tensorboard.plugins.histogram import metadata as histogram_metadata
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.plugins.scalar import metadata as scalar_metadata
from tensorboard.plugins.text import metadata as text_metadata
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util.tensor_util import make_tensor_proto
from tensorboardX import SummaryWriter as OtherWriter
from torch.utils.tensorboard import SummaryWriter

from blackboxml import open_run
from blackboxml.config import encode_config
from blackboxml.conversion import convert
from blackboxml.converters import tensorboard
from blackboxml.converters.tensorboard import scalars
from blackboxml.foreign.interchange import Description, Ledger, Medium, Point, Restart, one_by_one
from blackboxml.foreign.tensorboard import records
from blackboxml.writer import RunWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489"
    "0000000d49444154789c626001000000ffff03000006000557bfabd40000000049454e44ae426082"
)
TIME = 1795270921.12
NAME = "events.out.tfevents.1795270921.host"


# -- tools


def write_events(path: Path, *events: event_pb2.Event) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        writer = RecordWriter(file)
        for event in events:
            writer.write(event.SerializeToString())
    return path


def version(time: float = TIME) -> event_pb2.Event:
    return event_pb2.Event(wall_time=time, file_version="brain.Event:2")


def simple(tag: str, value: float, step: int = 0, time: float = TIME) -> event_pb2.Event:
    value = summary_pb2.Summary.Value(tag=tag, simple_value=value)
    return event_pb2.Event(wall_time=time, step=step, summary=summary_pb2.Summary(value=[value]))


def summary(step: int = 0, time: float = TIME, **value: Any) -> event_pb2.Event:
    said = summary_pb2.Summary.Value(**value)
    return event_pb2.Event(wall_time=time, step=step, summary=summary_pb2.Summary(value=[said]))


def of_plugin(plugin: str) -> summary_pb2.SummaryMetadata:
    data = summary_pb2.SummaryMetadata.PluginData(plugin_name=plugin)
    return summary_pb2.SummaryMetadata(plugin_data=data)


def tensor(
    tag: str, plugin: Any, value: Any, step: int = 0, time: float = TIME, **said: str
) -> Any:
    """An event as TensorFlow 2 writes it: a tensor, with its metadata each time."""
    metadata = plugin.create_summary_metadata(
        said.get("display_name", ""), said.get("description", "")
    )
    return summary(step, time, tag=tag, tensor=make_tensor_proto(value), metadata=metadata)


def read_all(path: Path) -> tuple[list[Any], Ledger]:
    (run,) = tensorboard.read(path)
    ledger = Ledger()
    return list(one_by_one(run.items(ledger))), ledger


def items_of(tmp_path: Path, *events: event_pb2.Event) -> list[Any]:
    items, ledger = read_all(write_events(tmp_path / NAME, version(), *events))
    assert not any(remark.effect == "unreadable" for remark in ledger.counts)
    return items


def flat(items: list[Any]) -> list[tuple[str, int, float | None, str]]:
    return [
        (name, item.step, item.time, repr(value))
        for item in items
        if isinstance(item, Point)
        for name, value in item.metrics.items()
    ]


def only(items: list[Any]) -> Any:
    (item,) = items
    return item


def accumulate(path: Path) -> EventAccumulator:
    every = dict.fromkeys(("scalars", "tensors", "images", "histograms", "audio"), 0)
    found = EventAccumulator(str(path), size_guidance=every)
    found.Reload()
    return found


def provide(folder: Path) -> MultiplexerDataProvider:
    guidance = dict.fromkeys(("scalars", "tensors", "images", "histograms", "audio"), 0)
    multiplexer = EventMultiplexer(tensor_size_guidance=guidance)
    multiplexer.AddRunsFromDirectory(str(folder))
    multiplexer.Reload()
    return MultiplexerDataProvider(multiplexer, str(folder))


def make_run(folder: Path, **more: Any) -> RunWriter:
    return RunWriter.create(folder, "demo", sync="none", start=TIME, **more)


def export(run: Path, target: Path) -> tuple[Path, Ledger]:
    ledger = Ledger()
    return tensorboard.write(open_run(run), target, ledger, {}), ledger


# -- checksums and framing


@pytest.mark.parametrize("length", [*range(20), 255, 256, 257, 4095, 2**20, 2**20 + 77])
def test_checksums_are_those_of_tensorboard(length):
    data = random.Random(length).randbytes(length)
    assert records.checksum(data) == masked_crc32c(data)


def test_checksums_of_records_of_many_lengths_are_those_of_each():
    data = random.Random(0).randbytes(60_000)
    lengths = np.array([0, 1, 3, 4, 255, 256, 257, 511, 512, 513, 5000, 16_384])
    starts = np.array([60_000 - 16_384 - k if k % 2 else k for k in range(len(lengths))])
    found = records.checksums_at(np.frombuffer(data, np.uint8), starts, lengths).tolist()
    places = zip(starts.tolist(), lengths.tolist(), strict=True)
    assert found == [masked_crc32c(data[at : at + length]) for at, length in places]


@pytest.mark.parametrize("length", [1, 3, 4, 47, 256])
def test_checksums_of_many_records_are_those_of_each(length):
    data = np.random.default_rng(length).integers(0, 256, (length, 9), dtype=np.uint8)
    each = [masked_crc32c(data[:, k].tobytes()) for k in range(9)]
    assert records.checksums(data).tolist() == each


def test_crc32c_of_the_standard():
    # https://www.rfc-editor.org/rfc/rfc3720#appendix-B.4
    assert records.checksum(bytes(32)) == records.mask(0x8A9136AA)
    assert records.checksum(b"\xff" * 32) == records.mask(0x62A8AB43)
    assert records.checksum(bytes(range(32))) == records.mask(0x46DD794E)


def test_records_larger_than_a_chunk_are_read(tmp_path):
    texts = ["x" * size for size in (10, 3 * records.CHUNK, 20, records.CHUNK)]
    events = [tensor("t", text_metadata, text, step) for step, text in enumerate(texts)]
    items = [item for item in items_of(tmp_path, *events) if isinstance(item, Medium)]
    assert [item.value for item in items] == texts


# -- scalars


def test_scalars_of_torch_are_those_that_tensorboard_reads(tmp_path):
    with SummaryWriter(str(tmp_path / "run")) as writer:
        for step in range(500):
            writer.add_scalar("train/loss", 1 / (step + 1), step)
            if step % 7 == 0:
                writer.add_scalar("eval/accuracy", step * 1e30, step * 1000, walltime=1e9 + step)
        writer.add_scalar("odd", math.nan, 3)
        writer.add_scalar("odd", math.inf, -5)
        writer.add_scalar("odd", -math.inf, 2**62)
    items, ledger = read_all(tmp_path / "run")
    expected = accumulate(tmp_path / "run")
    found = flat(items)
    for tag in expected.Tags()["scalars"]:
        theirs = [(tag, e.step, e.wall_time, repr(e.value)) for e in expected.Scalars(tag)]
        assert [each for each in found if each[0] == tag] == theirs
    assert len(found) == sum(len(expected.Scalars(tag)) for tag in expected.Tags()["scalars"])
    assert not ledger.counts


def test_scalars_of_tensorboardx(tmp_path):
    with OtherWriter(str(tmp_path / "run")) as writer:
        for step in range(100):
            writer.add_scalar("train/loss", 0.5 * step, step, walltime=TIME + step)
        writer.add_text("note", "hello", 3)
        writer.add_histogram("weights", np.arange(10.0), 4)
    items, _ = read_all(tmp_path / "run")
    assert flat(items) == [
        ("train/loss", step, TIME + step, repr(0.5 * step)) for step in range(100)
    ]
    kinds = [(item.kind, item.name, item.step) for item in items if isinstance(item, Medium)]
    assert kinds == [("text", "note/text_summary", 3), ("histogram", "weights", 4)]


def test_many_events_are_read_as_few_are(tmp_path, monkeypatch):
    rng = random.Random(0)
    tags = [f"group/{'x' * rng.randrange(9)}{k}" for k in range(30)]
    events = []
    for number in range(6000):
        step = rng.choice([0, 5, 127, 128, number, -number, number << 40, 2**63 - 1, -(2**63)])
        tag, value = rng.choice(tags), rng.uniform(-1, 1)
        form = rng.randrange(6)
        if form < 3:
            events.append(simple(tag, value, step, TIME + number))
        elif form == 3:
            events.append(tensor(tag, scalar_metadata, np.float32(value), step, TIME + number))
        elif form == 4:
            both = simple(tag, value, step, TIME + number)
            both.summary.value.add(tag="another", simple_value=value)
            events.append(both)
        else:
            double = make_tensor_proto(np.float64(value))
            events.append(summary(step, TIME + number, tag=f"{tag}d", tensor=double))
    path = write_events(tmp_path / NAME, version(), *events)
    fast, _ = read_all(path)
    monkeypatch.setattr(scalars, "LEAST", 10**9)
    slow, _ = read_all(path)
    monkeypatch.setattr(scalars, "read_plain", lambda data: None)
    slowest, _ = read_all(path)

    def essentials(items: list[Any]) -> Any:
        points = [item for item in items if isinstance(item, Point)]
        said = {repr(item) for item in items if isinstance(item, Description)}
        return [(p.step, p.time, list(p.metrics.items())) for p in points], said

    assert essentials(fast) == essentials(slow) == essentials(slowest)
    assert len(essentials(fast)[0]) == len(events)


VALUES = [
    *((dtype, value) for dtype in ("f4", "f8", "f2") for value in (0.5, math.nan, -math.inf)),
    *((dtype, 7) for dtype in ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")),
    *(("i8", value) for value in (2**63 - 1, -(2**63))),
    ("bool", True),
    ("bool", False),
]


@pytest.mark.parametrize(("dtype", "value"), VALUES)
@pytest.mark.parametrize("packed", [True, False])
def test_scalar_tensors_of_every_type(tmp_path, dtype, value, packed):
    array = np.array(value, dtype)
    proto = make_tensor_proto(array)
    if packed:
        proto = tensor_pb2.TensorProto(dtype=proto.dtype, tensor_content=array.tobytes())
    event = summary(3, tag="a", tensor=proto, metadata=of_plugin("scalars"))
    point = only(items_of(tmp_path, event))
    found = point.metrics["a"]
    assert type(found) is type(value)
    assert found == value or math.isnan(found)


def test_bfloat16_is_exact(tmp_path):
    tensors = [
        tensor_pb2.TensorProto(dtype=14, half_val=[0x3FC0]),
        tensor_pb2.TensorProto(dtype=14, tensor_content=b"\xc0\xbf"),
    ]
    items = items_of(tmp_path, *(summary(tag="a", tensor=tensor) for tensor in tensors))
    assert [item.metrics["a"] for item in items] == [1.5, -1.5]


def test_an_integer_above_int64_is_a_float_and_counted(tmp_path):
    event = summary(tag="a", tensor=make_tensor_proto(np.uint64(2**64 - 1)))
    items, ledger = read_all(write_events(tmp_path / NAME, version(), event))
    assert only(items).metrics == {"a": 2.0**64}
    assert ledger.total("changed", "scalar") == 1
    assert list(ledger.greatest.values()) == [1.0]


def test_values_of_one_event_are_one_point(tmp_path):
    event = simple("a", 1.0, 2)
    event.summary.value.add(tag="b", simple_value=2.0)
    event.summary.value.add(tag="a", simple_value=3.0)
    points = items_of(tmp_path, event)
    assert [point.metrics for point in points] == [{"a": 1.0, "b": 2.0}, {"a": 3.0}]


def test_a_time_that_is_none(tmp_path):
    missing = simple("a", 1.0)
    missing.ClearField("wall_time")
    path = write_events(
        tmp_path / NAME, version(), missing, *(simple("a", 1.0, 1, math.nan) for _ in range(40))
    )
    items, ledger = read_all(path)
    assert [item.time for item in items] == [None] * 41
    assert ledger.total("changed", "time") == 40


def test_descriptions_are_kept(tmp_path):
    said = {"display_name": "The loss", "description": "cross *entropy*"}
    event = tensor("loss", scalar_metadata, np.float32(0.5), **said)
    (description, point) = items_of(tmp_path, event)
    assert description == Description("loss", description="The loss: cross *entropy*")
    assert point.metrics == {"loss": 0.5}


def test_names_are_mended_and_stay_different(tmp_path):
    tags = ["/a", "a", "a/", "b\n", "b_", "", "x" * 2000, "x" * 2001, "ü/ö"]
    items, ledger = read_all(
        write_events(tmp_path / NAME, version(), *(simple(tag, k) for k, tag in enumerate(tags)))
    )
    names = [name for point in items for name in point.metrics]
    assert len(set(names)) == len(tags)
    assert names[-1] == "ü/ö"
    assert names[0] == "a"
    for tag, name in zip(tags, names, strict=True):
        assert len(name.encode()) <= 1024
        assert name.strip("/") == name
        assert name
        assert name == tag or ledger.total("changed", "field")


# -- media


def test_texts(tmp_path):
    table = summary(
        2,
        tag="t",
        tensor=make_tensor_proto([[b"a", b"b"], [b"c", b"d"]]),
        metadata=of_plugin("text"),
    )
    items = items_of(
        tmp_path,
        tensor("one", text_metadata, "grüße", 1),
        table,
        summary(tag="list", tensor=make_tensor_proto([b"x", b"y"]), metadata=of_plugin("text")),
        summary(tag="bytes", tensor=make_tensor_proto([b"\xff\x00"]), metadata=of_plugin("text")),
    )
    media = [item for item in items if isinstance(item, Medium)]
    assert [(item.kind, item.value, item.data) for item in media] == [
        ("text", "grüße", None),
        ("table", {"columns": ["0", "1"], "rows": [["a", "b"], ["c", "d"]]}, None),
        ("table", {"columns": ["0"], "rows": [["x"], ["y"]]}, None),
        ("artifact", None, b"\xff\x00"),
    ]
    assert (media[0].step, media[0].time) == (1, TIME)


def test_images_of_both_kinds(tmp_path):
    old = summary_pb2.Summary.Image(height=1, width=1, colorspace=4, encoded_image_string=PNG)
    new = make_tensor_proto([b"1", b"1", PNG, PNG + b"x"])
    media = items_of(
        tmp_path,
        summary(1, tag="old", image=old),
        summary(2, tag="new", tensor=new, metadata=of_plugin("images")),
        summary(3, tag="new", tensor=make_tensor_proto([b"1", b"1", b"GIF89a"])),
    )
    assert [(m.kind, m.name, m.step, m.data, m.media_type) for m in media] == [
        ("image", "old", 1, PNG, "image/png"),
        ("image", "new", 2, PNG, "image/png"),
        ("image", "new", 2, PNG + b"x", "image/png"),
        ("image", "new", 3, b"GIF89a", "image/gif"),
    ]


def test_histograms_of_torch_hold_every_value(tmp_path):
    values = np.random.default_rng(0).normal(size=1000)
    with SummaryWriter(str(tmp_path / "run")) as writer:
        writer.add_histogram("weights", values, 5)
    (medium,) = read_all(tmp_path / "run")[0]
    edges, counts = medium.value["edges"], medium.value["counts"]
    assert sum(counts) == 1000
    assert counts == np.histogram(values, edges)[0].tolist()
    assert medium.value["min"] == values.min()
    assert medium.value["max"] == values.max()
    assert medium.value["sum"] == pytest.approx(values.sum())
    assert medium.value["num"] == 1000


def test_old_histograms_end_where_their_values_do(tmp_path):
    big = 1.7976931348623157e308
    histo = summary_pb2.HistogramProto(
        min=-3.0, max=8.0, num=6, sum=9.0, sum_squares=99.0,
        bucket_limit=[-2.0, 0.0, 5.0, big], bucket=[1.0, 2.0, 0.0, 3.0],
    )  # fmt: skip
    empty = summary_pb2.HistogramProto(
        min=0.5, max=1.0, num=2, bucket_limit=[-big, 0.0, 1.0, big], bucket=[0.0, 0.0, 2.0, 0.0]
    )
    media = items_of(tmp_path, summary(tag="h", histo=histo), summary(tag="e", histo=empty))
    assert media[0].value == {
        "edges": [-3.0, -2.0, 0.0, 5.0, 8.0],
        "counts": [1.0, 2.0, 0.0, 3.0],
        "min": -3.0,
        "max": 8.0,
        "num": 6.0,
        "sum": 9.0,
        "sum_squares": 99.0,
    }
    assert (media[1].value["edges"], media[1].value["counts"]) == ([0.0, 1.0], [2.0])


def test_new_histograms(tmp_path):
    rows = np.array([[0.0, 1.0, 3.0], [1.0, 4.0, 5.0]])
    apart = np.array([[0.0, 1.0, 3.0], [2.0, 4.0, 5.0]])
    events = [tensor("h", histogram_metadata, each) for each in (rows, apart, np.zeros((0, 3)))]
    items, ledger = read_all(write_events(tmp_path / NAME, version(), *events))
    assert [item.kind for item in items] == ["histogram", "table", "table"]
    assert items[0].value == {"edges": [0.0, 1.0, 4.0], "counts": [3.0, 5.0]}
    assert items[1].value["rows"] == apart.tolist()
    assert ledger.total("changed", "histogram") == 2


def test_what_has_no_kind_is_kept(tmp_path):
    array = make_tensor_proto(np.arange(6, dtype=np.int16).reshape(2, 3))
    items = items_of(
        tmp_path,
        event_pb2.Event(wall_time=TIME, step=1, graph_def=b"\x0a\x00"),
        event_pb2.Event(wall_time=TIME, meta_graph_def=b"\x12\x00"),
        event_pb2.Event(
            wall_time=TIME,
            tagged_run_metadata=event_pb2.TaggedRunMetadata(tag="s", run_metadata=b"m"),
        ),
        event_pb2.Event(wall_time=TIME, log_message=event_pb2.LogMessage(level=30, message="hm")),
        event_pb2.Event(
            wall_time=TIME,
            session_log=event_pb2.SessionLog(status=3, checkpoint_path="/c", msg="m"),
        ),
        summary(tag="array", tensor=array, metadata=of_plugin("mesh")),
        summary(
            tag="sound",
            tensor=make_tensor_proto([[b"RIFF1", b"**label**"], [b"RIFF2", b""]]),
            metadata=audio_metadata.create_summary_metadata("", "", 11),
        ),
    )
    found = [(i.name, i.kind, i.value) for i in items if isinstance(i, Medium) and i.value]
    clips = [i.data for i in items if isinstance(i, Medium) and i.kind == "audio"]
    assert found == [
        ("log_message", "event", {"level": "WARN", "message": "hm"}),
        ("session_log", "event", {"status": "CHECKPOINT", "checkpoint_path": "/c", "msg": "m"}),
        ("array", "event", {"plugin": "mesh"}),
        ("sound/label", "text", "**label**"),
    ]
    assert clips == [b"RIFF1", b"RIFF2"]
    files = {i.name: i for i in items if isinstance(i, Medium) and i.data}
    assert files["graph_def"].data == b"\x0a\x00"
    assert files["meta_graph_def"].data == b"\x12\x00"
    assert files["run_metadata/s"].data == b"m"
    assert files["array"].kind == "array"


# -- hyper-parameters


def test_add_hparams_of_torch_makes_a_run_below(tmp_path):
    with SummaryWriter(str(tmp_path / "logs" / "a")) as writer:
        writer.add_scalar("loss", 1.0, 0)
        writer.add_hparams({"lr": 0.1, "opt": "adam"}, {"hp/best": 0.5}, run_name="hp")
    runs = {run.key: run for run in tensorboard.read(tmp_path / "logs")}
    assert list(runs) == ["a", "a/hp"]
    assert runs["a"].config == {}
    assert runs["a/hp"].config == {"lr": 0.1, "opt": "adam"}
    assert runs["a/hp"].status == "completed"
    assert runs["a/hp"].name == "a/hp"
    assert flat(list(one_by_one(runs["a/hp"].items(Ledger()))))[0][0] == "hp/best"


def test_hparams_of_tensorboard(tmp_path):
    start = plugin_data_pb2.SessionStartInfo(
        model_uri="u", monitor_url="m", group_name="g", start_time_secs=TIME - 1
    )
    start.hparams["lr"].number_value = 0.25
    start.hparams["name"].string_value = "x"
    start.hparams["flag"].bool_value = True
    start.hparams["list"].list_value.extend([1.0, "a"])
    start.hparams["tree"].struct_value["deep"] = None
    end = plugin_data_pb2.SessionEndInfo(status=api_pb2.STATUS_FAILURE, end_time_secs=TIME + 9)
    rate = api_pb2.HParamInfo(name="lr", description="rate", type=api_pb2.DATA_TYPE_FLOAT64)
    rate.domain_interval.max_value = 1.0
    loss = api_pb2.MetricInfo(display_name="Loss", description="the less the better")
    loss.name.tag = "loss"
    experiment = api_pb2.Experiment(hparam_infos=[rate], metric_infos=[loss])
    said = [
        plugin_data_pb2.HParamsPluginData(experiment=experiment),
        plugin_data_pb2.HParamsPluginData(session_start_info=start),
        plugin_data_pb2.HParamsPluginData(session_end_info=end),
    ]
    tags = (
        hparams_metadata.EXPERIMENT_TAG,
        hparams_metadata.SESSION_START_INFO_TAG,
        hparams_metadata.SESSION_END_INFO_TAG,
    )
    events = [
        summary(tag=tag, metadata=hparams_metadata.create_summary_metadata(each))
        for tag, each in zip(tags, said, strict=True)
    ]
    (run,) = tensorboard.read(write_events(tmp_path / NAME, version(), *events))
    assert run.config == {
        "lr": 0.25,
        "name": "x",
        "flag": True,
        "list": [1.0, "a"],
        "tree": {"deep": None},
    }
    assert (run.status, run.start, run.end) == ("failed", TIME, TIME + 9)
    said = run.extra["hparams"]
    assert said["group_name"] == "g"
    assert said["start_time_secs"] == TIME - 1
    assert said["experiment"]["hparams"] == [
        {"name": "lr", "description": "rate", "type": "float64", "interval": [0.0, 1.0]}
    ]
    assert list(one_by_one(run.items(Ledger()))) == [
        Description("loss", description="Loss: the less the better")
    ]


# -- files and folders


def test_each_folder_is_a_run_named_by_its_place(tmp_path):
    for place in ("", "train", "fold/validation"):
        write_events(tmp_path / "logs" / place / NAME, version(), simple("a", 1.0))
    (tmp_path / "logs" / "train" / f"{NAME}.profile-empty").write_bytes(b"")
    runs = list(tensorboard.read(tmp_path / "logs"))
    assert [run.key for run in runs] == ["", "fold/validation", "train"]
    assert [run.name for run in runs] == ["logs", "fold/validation", "train"]
    assert tensorboard.recognise(tmp_path / "logs")
    assert tensorboard.members(tmp_path / "logs") == {"*"}


def test_a_folder_with_files_of_others_stands_for_itself_alone(tmp_path):
    write_events(tmp_path / NAME, version(), simple("a", 1.0))
    write_events(tmp_path / "below" / NAME, version(), simple("a", 1.0))
    (tmp_path / "metrics.csv").write_text("step\n")
    assert tensorboard.recognise(tmp_path)
    assert tensorboard.members(tmp_path) == {NAME}
    assert [run.key for run in tensorboard.read(tmp_path)] == [""]
    report = convert(tmp_path, tmp_path.parent / "out", source_format="tensorboard")
    assert len(report.runs) == 2


def test_profiles_are_declared_lost(tmp_path):
    write_events(tmp_path / "run" / NAME, version(), simple("a", 1.0))
    profile = tmp_path / "run" / "plugins" / "profile" / "host.xplane.pb"
    profile.parent.mkdir(parents=True)
    profile.write_bytes(b"x")
    (tmp_path / "run" / "projector_config.pbtxt").write_text("")
    assert tensorboard.members(tmp_path) == {"*"}
    report = convert(tmp_path, tmp_path.parent / "out")
    assert report.ok, report.to_json()
    assert report.runs[0].total("lost", "artifact") == 2


def test_recognition_is_by_content(tmp_path):
    good = write_events(tmp_path / "nameless", version(), simple("a", 1.0))
    other = tmp_path / "records"
    with other.open("wb") as file:
        RecordWriter(file).write(b"\x0a\x07example of something else")
    assert tensorboard.recognise(good)
    assert not tensorboard.recognise(other)
    for content in (b"", b"{}", bytes(100), b"x" * 100):
        other.write_bytes(content)
        assert not tensorboard.recognise(other)
    assert not tensorboard.recognise(tmp_path)


def test_links_are_not_followed(tmp_path):
    write_events(tmp_path / "secret" / NAME, version(), simple("a", 1.0))
    logs = tmp_path / "logs"
    write_events(logs / "run" / NAME, version(), simple("b", 1.0))
    (logs / "away").symlink_to(tmp_path / "secret")
    (logs / "run" / f"{NAME}.2").symlink_to(tmp_path / "secret" / NAME)
    (run,) = tensorboard.read(logs)
    assert [each[0] for each in flat(list(one_by_one(run.items(Ledger()))))] == ["b"]


def test_a_fingerprint_follows_the_content(tmp_path):
    path = write_events(tmp_path / NAME, version(), simple("a", 1.0))
    before = only(tensorboard.read(path)).fingerprint
    assert only(tensorboard.read(path)).fingerprint == before
    write_events(path, version(), simple("a", 2.0))
    assert only(tensorboard.read(path)).fingerprint != before


# -- restarts


def test_files_are_read_in_the_order_in_which_they_were_begun(tmp_path):
    for begun, suffix in ((1000, "9"), (999, "10"), (1000, "10")):
        name = f"events.out.tfevents.{begun}.host.{suffix}"
        write_events(tmp_path / "r" / name, version(begun), simple(f"{begun}.{suffix}", 1.0))
    found = [each[0] for each in flat(read_all(tmp_path / "r")[0])]
    assert found == ["999.10", "1000.10", "1000.9"]


def test_a_session_that_starts_again_is_a_restart_as_in_tensorboard(tmp_path):
    with SummaryWriter(str(tmp_path / "run")) as writer:
        for step in range(100):
            writer.add_scalar("loss", step, step)
    with SummaryWriter(str(tmp_path / "run"), purge_step=60, filename_suffix=".2") as writer:
        for step in range(60, 80):
            writer.add_scalar("loss", -step, step)
    items, _ = read_all(tmp_path / "run")
    restarts = [at for at, item in enumerate(items) if isinstance(item, Restart)]
    assert len(restarts) == 1
    assert items[restarts[0]] == Restart(60)
    assert len([i for i in items[: restarts[0]] if isinstance(i, Point)]) == 100
    convert(tmp_path / "run", tmp_path / "out")
    (path,) = (tmp_path / "out").iterdir()
    mine = open_run(path).arrow()
    theirs = accumulate(tmp_path / "run").Scalars("loss")
    assert mine.column("step").to_pylist() == [event.step for event in theirs]
    assert mine.column("loss").to_pylist() == [event.value for event in theirs]


def test_sessions_within_a_file_restart_it(tmp_path):
    start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    begin = event_pb2.Event(wall_time=TIME, step=0, session_log=start)
    again = event_pb2.Event(wall_time=TIME, step=5, session_log=start)
    steps = [simple("a", 0.0, step) for step in range(10)]
    items = items_of(tmp_path, begin, *steps, again, *steps[5:], again)
    kinds = [item if isinstance(item, Restart) else type(item).__name__ for item in items]
    assert kinds == [
        "Medium", *["Point"] * 10, Restart(5), "Medium", *["Point"] * 5, Restart(5), "Medium",
    ]  # fmt: skip


@pytest.mark.parametrize("count", [10, 400])
def test_a_file_that_goes_back_is_a_restart(tmp_path, count):
    run = tmp_path / "r"
    first = [simple("loss", 1.0, step, 1000 + step) for step in range(count)]
    epochs = [simple("epoch/acc", 1.0, step, 1500) for step in range(4)]
    second = [simple("loss", 2.0, step, 2000 + step) for step in range(count // 2, count)]
    write_events(run / "events.out.tfevents.1000.h", version(1000), *first, *epochs)
    later = [simple("epoch/acc", 1.0, 2, 2001), *second]
    write_events(run / "events.out.tfevents.2000.h", version(2000), *later)
    restarts = [item for item in read_all(run)[0] if isinstance(item, Restart)]
    assert restarts == [Restart(count // 2)]


def test_what_is_no_restart(tmp_path):
    run = tmp_path / "r"
    first = [simple("hp_metric", -1.0, 0, 1000), simple("loss", 1.0, 50, 1010)]
    write_events(run / "events.out.tfevents.1000.h", version(1000), *first)
    second = [simple("hp_metric", 0.9, 0, 2000), simple("loss", 1.0, 51, 2001)]
    write_events(run / "events.out.tfevents.2000.h", version(2000), *second)
    beside = [simple("loss", 1.0, 3, 1005), simple("other", 1.0, 0, 1005)]
    write_events(run / "events.out.tfevents.2001.h", version(1005), *beside)
    assert not [item for item in read_all(run)[0] if isinstance(item, Restart)]


def test_steps_that_go_back_in_a_file_stay(tmp_path):
    steps = [5, 3, 3, 9, -1]
    items = items_of(tmp_path, *(simple("a", k, step) for k, step in enumerate(steps)))
    assert [item.step for item in items] == steps


# -- damage


def sample(path: Path) -> tuple[bytes, list[int], list[Any]]:
    """Return a small file, where its records begin, and its points."""
    events = [version()]
    events += [simple("a", 0.1 * step, step, TIME + step) for step in range(36)]
    events.insert(20, tensor("note", text_metadata, "hello", 9))
    events.insert(30, tensor("eval/acc", scalar_metadata, np.float32(0.75), 10))
    write_events(path, *events)
    sizes = [len(event.SerializeToString()) + 16 for event in events]
    return path.read_bytes(), [0, *itertools.accumulate(sizes)], read_all(path)[0]


def essence(items: list[Any]) -> list[str]:
    return [repr(item) for item in items if not isinstance(item, Description)]


def test_a_file_cut_at_any_byte_gives_what_is_whole(tmp_path):
    data, bounds, items = sample(tmp_path / NAME)
    everything = essence(items)
    path = tmp_path / "cut" / NAME
    path.parent.mkdir()
    for size in range(len(data)):
        path.write_bytes(data[:size])
        found, ledger = read_all(path)
        records_there = sum(bound <= size for bound in bounds) - 1
        assert essence(found) == everything[: max(records_there - 1, 0)]
        assert ledger.total("unreadable", "event") == (size not in bounds or size == 0)


def test_a_flipped_bit_anywhere_takes_one_record(tmp_path):
    data, bounds, items = sample(tmp_path / NAME)
    everything = essence(items)
    path = tmp_path / "flipped" / NAME
    path.parent.mkdir()
    rng = random.Random(0)
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        found, ledger = read_all(path)
        record = sum(bound <= at for bound in bounds) - 1
        without = everything[: max(record - 1, 0)] + everything[record:]
        assert essence(found) == (without if record else everything)
        where = next(iter(ledger.counts)).where
        assert ledger.total("unreadable", "event") == 1
        assert f"bytes {bounds[record]:,} to {bounds[record + 1]:,}" in where


def test_damage_in_the_midst_of_many_records(tmp_path):
    events = [simple("loss", step, step, TIME + step) for step in range(50_000)]
    path = write_events(tmp_path / NAME, version(), *events)
    data = bytearray(path.read_bytes())
    size = len(data)
    del data[size // 3 : size // 3 + 5]
    data[size // 2 : size // 2 + 200] = b"\xff" * 200
    path.write_bytes(data)
    items, ledger = read_all(path)
    steps = [item.step for item in items]
    assert len(steps) >= 50_000 - 8
    assert steps == sorted(steps)
    assert all(item.metrics["loss"] == item.step for item in items)
    assert ledger.total("unreadable", "event") >= 2


@given(st.binary(max_size=400), st.integers(0, 3))
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_bytes_are_framed_nothing_is_raised(tmp_path, data, depth):
    """Wrap bytes as event, summary, value or tensor, so that they come past the checksums."""
    for number in ((8,), (1, 8), (5, 1, 8))[:depth][-1:]:
        for each in reversed(number):
            key = bytes([each << 3 | 2])
            size = len(data)
            data = (
                key + (bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])) + data
            )
    path = tmp_path / NAME
    path.write_bytes(records.frame(data) * 40)
    for run in tensorboard.read(path):
        for item in one_by_one(run.items(Ledger())):
            assert item is not None


def test_hostile_lengths_and_shapes(tmp_path):
    path = tmp_path / NAME
    head = (2**62).to_bytes(8, "little")
    path.write_bytes(head + records.checksum(head).to_bytes(4, "little") + b"xyz")
    items, ledger = read_all(path)
    assert not items
    assert ledger.total("unreadable", "event") == 1
    bomb = tensor_pb2.TensorProto(dtype=1, float_val=[1.0])
    for size in (2**31, 2**31, -1, 0):
        bomb.tensor_shape.dim.add(size=size)
    huge = tensor_pb2.TensorProto(dtype=1, float_val=[1.0])
    huge.tensor_shape.dim.add(size=2**40)
    resource = tensor_pb2.TensorProto(dtype=20)
    path = write_events(
        path,
        version(),
        *(summary(tag="t", tensor=proto) for proto in (bomb, huge, resource)),
        simple("a", 1.0),
    )
    items, ledger = read_all(path)
    assert [item.metrics for item in items] == [{"a": 1.0}]
    assert ledger.total("unreadable", "event") == 3


# -- export


def test_exported_scalars_are_read_by_tensorboard(tmp_path):
    writer = make_run(tmp_path / "in")
    writer.describe("train/loss", unit="nat", description="cross entropy")
    rng = random.Random(1)
    for step in range(1000):
        values = {"train/loss": rng.random(), "train/seen": step * 10**12, "lr": 0.5}
        if step % 3 == 0:
            values["eval/ok"] = step % 2 == 0
        writer.log(values, step, time=TIME + step / 7)
    for step, value in enumerate((math.nan, math.inf, -math.inf, 1e300)):
        writer.log({"odd": value}, -step, time=TIME + 500)
    writer.finish()
    folder, ledger = export(writer.path, tmp_path / "tb")
    found = accumulate(folder)
    run = open_run(writer.path)
    for name in run.metrics:
        group = name.partition("/")[0] if "/" in name else ""
        table = run.arrow(group)
        field = next(
            f for f in table.schema if (f.metadata or {}).get(b"blackbox.metric") == name.encode()
        )
        rows = [row for row in table.to_pylist() if row[field.name] is not None]
        events = found.Scalars(name)
        assert [event.step for event in events] == [row["step"] for row in rows]
        assert [event.wall_time for event in events] == [row["time"] for row in rows]
        with np.errstate(over="ignore"):
            expected = np.array([row[field.name] for row in rows]).astype(np.float32)
        np.testing.assert_array_equal(np.array([event.value for event in events]), expected)
    assert found.SummaryMetadata("train/loss").summary_description == "cross entropy"
    assert ledger.total("changed", "scalar") > 1000
    assert max(ledger.greatest.values()) == math.inf
    assert not any(remark.effect == "lost" for remark in ledger.counts)


def full_run(folder: Path) -> Path:
    config = {"lr": 0.1, "model": {"layers": [1, 2], "name": "m"}, "none": None, "big": 2**60}
    writer = make_run(folder, tags=["a", "b"])
    document = {
        "format": {"name": "blackbox-config", "version": "1.0", "features": []},
        "config": encode_config(config),
    }
    writer.write_config(json.dumps(document).encode())
    for step in range(50):
        writer.log({"train/loss": 1 / (step + 1), "lr": 0.1}, step, time=TIME + step)
    log = writer.log_media
    log("note", "text", 1, value="grüße\n*you*", time=TIME + 1.5)
    log("long", "text", 1, value="x" * 100_000, time=TIME + 1.5)
    log("sample", "image", 2, data=PNG, media_type="image/png", time=TIME + 2)
    log("sample", "image", 2, data=PNG + b"2", media_type="image/png", time=TIME + 2)
    log("plot", "figure", 2, data=PNG, media_type="image/png", time=TIME + 2)
    log("drawing", "figure", 2, data=b"<svg/>", media_type="image/svg+xml", time=TIME + 2)
    log("h", "histogram", 3, value={"edges": [0.0, 0.5, 2.0], "counts": [1.0, 2.5]}, time=TIME)
    log("i", "histogram", 3, value={"edges": [0, 1], "counts": [7], "min": math.nan}, time=TIME)
    log("table", "table", 4, value={"columns": ["a|b", "c"], "rows": [[1, "x"], [None, 2.5]]})
    log("event", "event", 5, value={"what": [1, {"deep": True}]}, time=TIME)
    log("graph", "graph", 5, value={"nodes": [{"id": "a"}], "edges": []}, time=TIME)
    log("weights", "artifact", 6, data=b"\x00\x01", folder="artifacts", time=TIME)
    log("clip", "audio", 7, data=clip(folder / "clip.wav"), media_type="audio/wav", time=TIME)
    for name, array in (("array", np.arange(6).reshape(2, 3)), ("single", np.array(1.5))):
        np.save(folder / name, array)
        path = folder / f"{name}.npy"
        log(name, "array", 8, path=path, media_type="application/x-npy", time=TIME)
    writer.finish("failed", {"type": "ValueError", "message": "bad"}, TIME + 100)
    return writer.path


def clip(path: Path) -> bytes:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(struct.pack("<4h", 0, 1, 2, 3))
    return path.read_bytes()


def test_a_run_comes_back_as_it_was(tmp_path):
    path = full_run(tmp_path / "in")
    report = convert(path, tmp_path / "tb", target_format="tensorboard", verify=True)
    (run,) = report.runs
    assert report.ok, report.to_json()
    assert run.total("lost") == 2
    assert (run.total("lost", "figure"), run.total("lost", "artifact")) == (1, 1)
    back = convert(run.target, tmp_path / "back", verify=True)
    assert back.ok, back.to_json()
    again, first = open_run(back.runs[0].target), open_run(path)
    for part in ("name", "tags", "config", "status", "start", "end", "metrics"):
        assert getattr(again, part) == getattr(first, part), part
    assert again.manifest["exception"] == first.manifest["exception"]
    texts = [{m.name: m.value for m in r.media() if m.value is not None} for r in (first, again)]
    assert texts[0] == texts[1]


def test_tensorboard_shows_the_media(tmp_path):
    folder, _ = export(full_run(tmp_path / "in"), tmp_path / "tb")
    provider, context = provide(tmp_path / "tb"), RequestContext()

    def tensors(plugin: str) -> dict[str, Any]:
        found = provider.read_tensors(
            context, experiment_id="e", plugin_name=plugin, downsample=100
        )
        return dict(found.get(folder.name, {}))

    texts = tensors("text")
    assert texts["note"][0].numpy.item().decode() == "grüße\n*you*"
    assert texts["note"][0].wall_time == TIME + 1.5
    assert texts["table"][0].numpy.item().decode().splitlines()[0] == "|a\\|b|c|"
    histogram = tensors("histograms")["h"][0]
    assert histogram.numpy.tolist() == [[0.0, 0.5, 1.0], [0.5, 2.0, 2.5]]
    assert histogram.step == 3
    images = provider.read_blob_sequences(
        context, experiment_id="e", plugin_name="images", downsample=10
    )[folder.name]
    assert {tag: len(data[0].values) for tag, data in images.items()} == {"sample": 4, "plot": 3}
    blob = provider.read_blob(context, blob_key=images["sample"][0].values[3].blob_key)
    assert blob == PNG + b"2"
    sounds = provider.read_blob_sequences(
        context, experiment_id="e", plugin_name="audio", downsample=10
    )[folder.name]
    assert len(sounds["clip"][0].values) == 1
    content = accumulate(folder).PluginTagToContent("hparams")
    assert set(content) == {"_hparams_/session_start_info", "_hparams_/session_end_info"}


@contextlib.contextmanager
def serve(logdir: Path, scratch: Path) -> Iterator[GrpcDataProvider]:
    """The server in Rust that `tensorboard` starts by default."""
    port = scratch / "port"
    command = [get_server_binary().path, f"--logdir={logdir}", "--reload=once", "--port=0"]
    command += [f"--port-file={port}", "--die-after-stdin", "--samples-per-plugin=scalars=all"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        while not port.exists() or not port.read_text().endswith("\n"):
            assert process.poll() is None
        address = f"localhost:{int(port.read_text())}"
        with grpc.insecure_channel(address) as channel:
            stub = TensorBoardDataProviderStub(channel)
            yield GrpcDataProvider(address, stub)
        process.kill()


def test_the_fast_server_of_tensorboard_shows_the_scalars(tmp_path):
    writer = make_run(tmp_path / "in")
    for step in range(200):
        writer.log({"train/loss": 1 / (step + 1), "seen": step * 10**12}, step, time=TIME + step)
    writer.finish()
    folder, _ = export(writer.path, tmp_path / "tb")
    with serve(tmp_path / "tb", tmp_path) as provider:
        found: dict[str, Any] = {}
        for _ in range(10_000):  # until it has read the file
            found = provider.read_scalars(
                RequestContext(), experiment_id="e", plugin_name="scalars", downsample=1000
            ).get(folder.name, {})
            if len(found) == 2:
                break
    assert {tag: len(events) for tag, events in found.items()} == {"train/loss": 200, "seen": 200}
    events = found["train/loss"]
    assert [event.step for event in events] == list(range(200))
    assert [event.wall_time for event in events] == [TIME + step for step in range(200)]
    expected = [float(np.float32(1 / (step + 1))) for step in range(200)]
    assert [event.value for event in events] == expected


def test_exporting_again_makes_the_same_file_and_no_other(tmp_path):
    path = full_run(tmp_path / "in")
    folder, _ = export(path, tmp_path / "tb")
    (file,) = folder.iterdir()
    before = file.read_bytes()
    assert export(path, tmp_path / "tb")[0] == folder
    assert list(folder.iterdir()) == [file]
    assert file.read_bytes() == before
    assert file.name.startswith("events.out.tfevents.1795270921.")
    assert file.name.endswith(".blackbox")


def test_runs_of_one_name_do_not_mix(tmp_path):
    first, second = (make_run(tmp_path / place) for place in ("a", "b"))
    for value, writer in enumerate((first, second)):
        writer.log({"a": value}, 0)
        writer.finish()
    assert first.path.name == second.path.name
    folders = [export(writer.path, tmp_path / "tb")[0] for writer in (first, second)]
    assert len(set(folders)) == 2
    assert [export(writer.path, tmp_path / "tb")[0] for writer in (first, second)] == folders
    assert len(list(tensorboard.read(tmp_path / "tb"))) == 2


def test_ranks_have_files_of_their_own_and_come_back(tmp_path):
    writer = make_run(tmp_path / "in")
    other = RunWriter.join(writer.path, 2, 0, sync="none")
    for step in range(5):
        ranks = {"loss": {"mean": 1.0, "count": 2}}
        writer.log({"loss": step}, step, ranks, time=TIME + step)
        other.log({"loss": -step}, step, time=TIME + step)
    other.finish()
    writer.finish()
    report = convert(writer.path, tmp_path / "tb", target_format="tensorboard", verify=True)
    assert report.ok, report.to_json()
    assert report.runs[0].total("lost", "field") == 10
    (run,) = tensorboard.read(tmp_path / "tb")
    points = [item for item in one_by_one(run.items(Ledger())) if isinstance(item, Point)]
    assert [(point.rank, point.metrics["loss"]) for point in points] == [
        (rank, sign * step) for rank, sign in ((0, 1), (2, -1)) for step in range(5)
    ]
    events = accumulate(Path(report.runs[0].target) / "rank_2").Scalars("loss")
    assert [event.value for event in events] == [-step for step in range(5)]


def test_what_a_rewind_superseded_is_left_out(tmp_path):
    writer = make_run(tmp_path / "in")
    for step in range(10):
        writer.log({"a": step}, step)
    writer.rewind(5)
    writer.log({"a": 50}, 5)
    writer.finish()
    folder, _ = export(writer.path, tmp_path / "tb")
    assert [event.step for event in accumulate(folder).Scalars("a")] == [0, 1, 2, 3, 4, 5]


def test_a_run_without_points(tmp_path):
    writer = make_run(tmp_path / "in")
    writer.finish()
    folder, _ = export(writer.path, tmp_path / "tb")
    (run,) = tensorboard.read(folder)
    assert list(one_by_one(run.items(Ledger()))) == []
    assert run.name == "demo"


names = st.text("xy/ü z", min_size=1, max_size=6).filter(lambda name: name.strip("/") == name)
points = st.lists(
    st.tuples(
        st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 300),
        st.floats(0, 4e9),
        st.dictionaries(names, st.floats() | st.floats(width=32), min_size=1, max_size=4)
        | st.dictionaries(names.map("i/{}".format), st.integers(-(2**63), 2**63 - 1), min_size=1)
        | st.dictionaries(names.map("b/{}".format), st.booleans(), min_size=1),
    ),
    max_size=60,
)


@given(points)
@settings(max_examples=40, deadline=None)
def test_points_come_back(tmp_path_factory, points):
    folder = tmp_path_factory.mktemp("run")
    writer = make_run(folder / "in")
    for step, time, metrics in points:
        writer.log(metrics, step, time=time)
    writer.finish()
    target, _ = export(writer.path, folder / "tb")
    items, ledger = read_all(target)
    back = [(item.step, item.time, item.metrics) for item in items]
    kinds = {"b/": bool, "i/": int}
    assert [repr(each) for each in sorted_members(back)] == [
        repr(each) for each in sorted_members(points)
    ]
    assert all(
        type(value) is kinds.get(name[:2], float)
        for _, _, metrics in back
        for name, value in metrics.items()
    )
    assert not ledger.counts
    shutil.rmtree(folder)


def sorted_members(points: list[Any]) -> list[Any]:
    return [(step, time, sorted(metrics.items())) for step, time, metrics in points]
