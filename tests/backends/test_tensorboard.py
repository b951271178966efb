"""Event files, read back by the real TensorBoard and by this package."""

from __future__ import annotations

import math
import struct
import zlib

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata as hparams_metadata

from blackboxml import open_run
from blackboxml.backends.tensorboard import TensorBoardBackend
from blackboxml.conversion import convert
from blackboxml.tracker import setup_tracker


def read(folder) -> EventAccumulator:
    """What TensorBoard shows of a log directory; 0 stands for all of it."""
    accumulator = EventAccumulator(str(folder), size_guidance=dict.fromkeys(SIZES, 0))
    accumulator.Reload()
    return accumulator


SIZES = ("scalars", "tensors", "images", "audio", "histograms", "compressedHistograms")
NUMBERS = [0.5, 0.1, 1, True, 2**53 + 1, -(2**63), 1e300, -1e300, math.nan, math.inf, -math.inf, 0]


def png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", 2, 3, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"\0\1\2" * 3)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_tensorboard_shows_each_number_at_its_step(tmp_path):
    tracker = setup_tracker(backends="tensorboard", outdir=tmp_path, rank=0)
    for step, value in enumerate(NUMBERS):
        tracker.log({"train/x": value, "y": step}, step * 10)
    tracker.finish()
    shown = read(tmp_path / "tensorboard").Scalars("train/x")
    assert [event.step for event in shown] == [step * 10 for step in range(len(NUMBERS))]
    for event, value in zip(shown, NUMBERS, strict=True):
        try:
            (wanted,) = struct.unpack("<f", struct.pack("<f", value))
        except OverflowError:
            wanted = math.copysign(math.inf, value)
        assert event.value == wanted or (math.isnan(event.value) and math.isnan(wanted))


def test_this_package_reads_the_numbers_as_they_were(tmp_path):
    tracker = setup_tracker(None, "tensorboard", {"lr": 0.1, "deep": {"n": 3}}, tmp_path, 0)
    for step, value in enumerate(NUMBERS):
        tracker.log({f"train/x{step}": value}, step)
    tracker.finish()
    report = convert(tmp_path / "tensorboard", tmp_path / "runs", verify=True)
    assert report.ok, report.to_json()
    run = open_run(report.runs[0].target)
    for step, value in enumerate(NUMBERS):
        (record,) = [each for each in run.records() if f"train/x{step}" in each.metrics]
        found = record.metrics[f"train/x{step}"]
        assert (record.step, type(found)) == (step, type(value))
        assert found == value or (math.isnan(found) and math.isnan(value))
    assert run.config == {"lr": 0.1, "deep.n": 3.0}
    assert run.status == "completed"


def test_points_without_a_step_are_counted(tmp_path):
    backend = TensorBoardBackend(tmp_path)
    backend.log({"a": 1})
    backend.log({"b": 2}, commit=False)
    backend.log({"a": 3})
    backend.finish()
    shown = read(tmp_path / "tensorboard")
    assert [(event.step, event.value) for event in shown.Scalars("a")] == [(0, 1.0), (1, 3.0)]
    assert [event.step for event in shown.Scalars("b")] == [1]


def test_texts_tables_images_and_hyper_parameters_are_shown(tmp_path, caplog):
    (tmp_path / "i.png").write_bytes(png())
    (tmp_path / "i.txt").write_bytes(b"no image")
    tracker = setup_tracker(None, "tensorboard", {"lr": 0.1, "on": True}, tmp_path, 0)
    tracker.log({"note": "hello", "loss": 0.5, "rows": [1], "big": 2**80})
    tracker.log_table("predictions", ["x", "y"], [[1, "a|b"], [None, "c"]])
    tracker.log_image("sample", tmp_path / "i.png", caption="Epoch 1")
    tracker.log_image("sample", tmp_path / "i.txt")
    tracker.log_config({"seed": 2**60})
    tracker.finish()
    shown = read(tmp_path / "tensorboard")

    def text(tag):
        return shown.Tensors(tag)[0].tensor_proto.string_val[0].decode()

    assert text("note") == "hello"
    assert text("predictions") == "|x|y|\n|---|---|\n|1|a\\|b|\n|null|c|"
    assert text("sample/caption") == "Epoch 1"
    width, height, image = shown.Tensors("sample")[0].tensor_proto.string_val
    assert (width, height, image) == (b"2", b"3", png())
    assert shown.Scalars("big")[0].value == 2.0**80
    content = shown.SummaryMetadata(hparams_metadata.SESSION_START_INFO_TAG).plugin_data.content
    assert set(hparams_metadata.parse_session_start_info_plugin_data(content).hparams) >= {
        "lr",
        "on",
    }
    assert [record.getMessage() for record in caplog.records] == [
        "Tracker backend tensorboard leaves out 'rows': it takes numbers and texts, not a list",
        (
            "Tracker backend tensorboard.log_image() failed: ValueError: "
            f"{tmp_path}/i.txt is no PNG, JPEG, GIF, BMP or WebP"
        ),
    ]


def test_a_point_is_in_the_file_when_log_returns(tmp_path):
    backend = TensorBoardBackend(tmp_path)
    for step in range(20):
        backend.log({"a": step}, step)
        assert len(read(tmp_path / "tensorboard").Scalars("a")) == step + 1
    backend.finish()


def test_each_process_has_a_file_of_its_own(tmp_path):
    first, second = TensorBoardBackend(tmp_path), TensorBoardBackend(tmp_path)
    assert first.path != second.path
    first.log({"a": 1}, 0)
    second.log({"b": 1}, 0)
    first.finish()
    second.finish()
    first.log({"a": 2}, 1)  # too late, and harmless
    assert read(tmp_path / "tensorboard").Tags()["scalars"] == ["a", "b"]


def test_another_rank_touches_no_file(tmp_path):
    backend = TensorBoardBackend(tmp_path / "out", {"lr": 1}, rank=1)
    backend.log({"a": 1, "t": "x"})
    backend.log_table("t", ["a"], [[1]])
    backend.finish()
    assert backend.path is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [2**80, -(2**2000)], ids=["2^80", "-2^2000"])
def test_integers_of_any_size_are_floats(tmp_path, value):
    backend = TensorBoardBackend(tmp_path)
    backend.log({"a": value})
    backend.finish()
    wanted = 2.0**80 if value > 0 else -math.inf
    assert read(tmp_path / "tensorboard").Scalars("a")[0].value == wanted
