"""Conversion beside the readers and writers of the trackers themselves, whole and sealed."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import time
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from benchmarks.harness import METRICS, Pair, Row, interleave, limit_row, peak_memory_mib

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.harness import Bench

IMPORT_BAR = 0.1
SERVER_BAR = 1.0
EXPORT_BAR = 0.2
MEMORY_BAR_MIB = 400.0
START = 1_763_734_921.0
CHUNK = 100_000
_IMPORT = "a whole import, sealed"

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")


def rows(bench: Bench) -> list[Row]:
    """Time beside the trackers' own, at the plain size; peak memory at ten times as many points."""
    points, scratch = bench.points, bench.scratch
    events, store = str(scratch / f"events_{points}"), str(scratch / f"mlflow_{points}")
    bench.in_child("convert:write_events", folder=events, points=points)
    bench.in_child("convert:write_store", folder=store, points=points)
    run = str(bench.sealed(points))
    found = []
    for what, floor, bar, target, slices, given in (
        (
            "TensorBoard",
            "`EventAccumulator`, size guidance 0",
            IMPORT_BAR,
            "accumulator",
            3,
            events,
        ),
        ("TensorBoard", "`tensorboard-data-server`, until loaded", None, "server", 5, events),
        (
            "TensorBoard",
            "`tensorboard-data-server`, until a client has the values",
            SERVER_BAR,
            "client",
            5,
            events,
        ),
        ("MLflow", "`MlflowClient.get_metric_history`", IMPORT_BAR, "history", 3, store),
    ):
        measured = bench.in_child(
            f"convert:beside_{target}", path=given, points=points, slices=bench.slices(slices)
        )
        row = Pair(**measured).row(f"{what}: {_IMPORT}, {points:,} points", floor, bar or 1, 1, "s")
        found.append(row if bar else Row(row.what, row.floor, row.measured, row.spread, "-", None))
    measured = bench.in_child("convert:beside_writer", path=run, slices=bench.slices(1))
    what = f"TensorBoard: export of {points:,} points"
    floor = "`SummaryWriter.add_scalar`"
    found.append(Pair(**measured).row(what, floor, EXPORT_BAR, 1, "s"))
    return found + memory(bench)


def memory(bench: Bench) -> list[Row]:
    """Peak memory of ten times as many points, both ways."""
    points = 10 * bench.points
    events, store = bench.scratch / f"events_{points}", bench.scratch / f"plain_{points}"
    bench.in_child("convert:write_events", folder=str(events), points=points)
    bench.in_child("convert:write_plain_store", folder=str(store), points=points)
    found = []
    for what, path, form in (
        ("import from TensorBoard", events, "blackbox"),
        ("import from MLflow", store, "blackbox"),
        ("export to TensorBoard", bench.sealed(points), "tensorboard"),
    ):
        peaks = [
            bench.in_child("convert:peak", path=str(path), form=form, points=points)
            for _ in range(bench.slices(1))
        ]
        shown = f"peak memory: {what}, {points:,} points"
        found.append(limit_row(shown, peaks, MEMORY_BAR_MIB, "MiB"))
    return found


# -- sources


def write_events(folder: str, points: int) -> None:
    """Write an event file as `SummaryWriter.add_scalar` does: one scalar an event."""
    import numpy as np

    from blackboxml.converters.tensorboard.scalars import Series, encode
    from blackboxml.foreign.tensorboard import messages
    from blackboxml.foreign.tensorboard.records import frame

    Path(folder).mkdir()
    random = np.random.default_rng(0)
    with Path(folder, f"events.out.tfevents.{START:.0f}.host.1.0").open("wb") as file:
        file.write(frame(messages.event(START, 0, messages.FILE_VERSION, "brain.Event:2")))
        for first in range(0, points, CHUNK):
            at = np.arange(first, min(first + CHUNK, points))
            which = at % len(METRICS)
            series = []
            for place, name in enumerate(METRICS):
                size = int((which == place).sum())
                values = random.standard_normal(size, np.float32).astype(np.float64)
                series.append(Series(name, which == place, values))
            file.write(encode(at // len(METRICS), (START + at * 1e-3).astype(np.float64), series))


def write_store(folder: str, points: int) -> None:
    """Make an SQLite store with MLflow itself, and fill it past its client."""
    from mlflow import MlflowClient

    place = Path(folder).resolve()
    place.mkdir()
    client = MlflowClient(f"sqlite:///{place}/mlflow.db")
    run = client.create_run(client.create_experiment("bench")).info
    _fill(place, points, run.run_id, run.start_time)
    client.set_terminated(run.run_id)


def write_plain_store(folder: str, points: int) -> None:
    """Make the tables by hand: without MLflow's index, which takes more than the rows."""
    place = Path(folder)
    place.mkdir()
    with sqlite3.connect(place / "mlflow.db") as database:
        database.executescript(
            "CREATE TABLE experiments (experiment_id INTEGER, name TEXT);"
            "CREATE TABLE runs (run_uuid TEXT, name TEXT, experiment_id INTEGER, status TEXT);"
            "CREATE TABLE metrics (key TEXT, value FLOAT, timestamp BIGINT, run_uuid TEXT,"
            " step BIGINT, is_nan BOOLEAN);"
            "INSERT INTO experiments VALUES (1, 'bench');"
            "INSERT INTO runs VALUES ('a', 'bench', 1, 'FINISHED');"
        )
    database.close()
    _fill(place, points, "a", int(START * 1000))


def _fill(place: Path, points: int, run: str, start: int) -> None:
    """Add points to a store, all metrics at each step."""
    random = Random(0)
    given = (
        (name, random.gauss(0, 1), start + step, run, step, 0)
        for step in range(points // len(METRICS))
        for name in METRICS
    )
    with sqlite3.connect(place / "mlflow.db") as database:
        database.executemany(
            "INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            given,
        )
    database.close()


# -- measuring


def _beside(path: str, points: int, slices: int, floor: Callable[[], int]) -> dict[str, Any]:
    """Interleave whole imports with a floor, which returns how many points it has."""
    target = Path("runs")

    def checked() -> None:
        _expect(floor(), points)

    def candidate() -> None:
        _convert(Path(path), target, points)

    def prepare() -> None:
        shutil.rmtree(target, ignore_errors=True)

    return asdict(interleave(checked, candidate, slices, prepare))


def _convert(path: Path, target: Path, points: int, form: str = "blackbox") -> None:
    """Convert, and see that every point went out."""
    from blackboxml.conversion import convert

    report = convert(path, target, target_format=form)
    _expect(sum(run.went_out["scalar"] for run in report.runs if run.ok), points)


def _expect(found: int, points: int) -> None:
    """Refuse to compare with what does less.

    Raises:
        RuntimeError: If there are not as many points as there should be.
    """
    if found != points:
        message = f"there are {found:,} points, wanted {points:,}"
        raise RuntimeError(message)


def beside_accumulator(path: str, points: int, slices: int) -> dict[str, Any]:
    """Read with TensorBoard's reader in Python, all of it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def floor() -> int:
        found = EventAccumulator(path, size_guidance={"scalars": 0})
        found.Reload()
        return sum(len(found.Scalars(tag)) for tag in found.Tags()["scalars"])

    return _beside(path, points, slices, floor)


def beside_server(path: str, points: int, slices: int) -> dict[str, Any]:
    """Start TensorBoard's server in Rust, and wait until it has loaded the file."""
    return _beside(path, points, slices, lambda: _serve(path, points, fetch=False))


def beside_client(path: str, points: int, slices: int) -> dict[str, Any]:
    """Start that server, wait, and fetch the values through TensorBoard's client."""
    return _beside(path, points, slices, lambda: _serve(path, points, fetch=True))


def _serve(path: str, points: int, *, fetch: bool) -> int:
    """Return how many points the server has loaded, or given."""
    import grpc
    from tensorboard.context import RequestContext
    from tensorboard.data.grpc_provider import GrpcDataProvider
    from tensorboard.data.proto.data_provider_pb2_grpc import TensorBoardDataProviderStub
    from tensorboard_data_server import server_binary

    port = Path("port")
    port.unlink(missing_ok=True)
    command = [server_binary(), f"--logdir={path}", "--reload=once", "--port=0", "--checksum"]
    command += [f"--port-file={port}", "--die-after-stdin", "--samples-per-plugin=scalars=all"]
    last = (points - 1) // len(METRICS)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        while not (port.exists() and port.read_text().endswith("\n")):
            time.sleep(0.001)
        address = f"localhost:{int(port.read_text())}"
        options = [("grpc.max_receive_message_length", -1)]
        with grpc.insecure_channel(address, options) as channel:
            provider = GrpcDataProvider(address, TensorBoardDataProviderStub(channel))
            given = {"experiment_id": "e", "plugin_name": "scalars"}
            steps: list[int] = []
            while len(steps) < len(METRICS) or min(steps) < last:
                listed = provider.list_scalars(RequestContext(), **given)
                steps = [each.max_step for run in listed.values() for each in run.values()]
                time.sleep(0.002)
            if fetch:
                every = provider.read_scalars(RequestContext(), downsample=points, **given)
                points = sum(len(each) for run in every.values() for each in run.values())
        process.kill()
    return points


def beside_history(path: str, points: int, slices: int) -> dict[str, Any]:
    """Read all metrics of the run with MLflow's client."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{path}/mlflow.db")
    experiments = [each.experiment_id for each in client.search_experiments()]
    (run,) = client.search_runs(experiments)

    def floor() -> int:
        return sum(len(client.get_metric_history(run.info.run_id, name)) for name in METRICS)

    return _beside(path, points, slices, floor)


def beside_writer(path: str, slices: int) -> dict[str, Any]:
    """Write the values of a run with torch's `SummaryWriter`, read beforehand."""
    from torch.utils.tensorboard import SummaryWriter

    from blackboxml import open_run

    columns = open_run(path).arrow("train").to_pydict()
    steps = columns["step"]
    values = {name: columns[name.partition("/")[2]] for name in METRICS}
    points = sum(map(len, values.values()))
    target = Path("logs")

    def floor() -> None:
        writer = SummaryWriter(str(target))
        for place, step in enumerate(steps):
            for name, column in values.items():
                writer.add_scalar(name, column[place], step)
        writer.close()

    def prepare() -> None:
        shutil.rmtree(target, ignore_errors=True)

    def candidate() -> None:
        _convert(Path(path), target, points, "tensorboard")

    return asdict(interleave(floor, candidate, slices, prepare))


def peak(path: str, form: str, points: int) -> float:
    """Convert; the peak resident memory of the whole process, imports included, in MiB."""
    _convert(Path(path), Path("target"), points, form)
    return peak_memory_mib()
