"""One large run: the same work at sizes that differ by ten, so that growth shows."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import METRICS, Row, peak_memory_mib, write_run

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.harness import Bench

TIME_BAR, MEMORY_BAR = 12.0, 1.25
"""Growth of time and of peak memory where the points grow by ten: linear, and flat."""

STEPS = 20
METRIC = METRICS[0].partition("/")[2]
MANY = {"metrics": (1_000, 10_000), "groups": (100, 1_000), "ranks": (1_000, 10_000)}
WORK = ("summary of the journal", "seal", "summary of the tables", "validate")

Cost = dict[str, float]
"""Seconds, and the peak resident memory of the whole process in MiB."""


def rows(bench: Bench) -> list[Row]:
    """A run of many points; then many metrics, many groups, many ranks."""
    found = many_points(bench)
    for kind, sizes in MANY.items():
        costs = []
        for size in (10, 20) if bench.quick else sizes:
            folder = bench.scratch / f"{kind}_{size}"
            path = bench.in_child(f"scale:write_{kind}", folder=str(folder), count=size)
            costs.append((size, [_cost(bench, step, path) for step in WORK]))
            shutil.rmtree(folder)
        (small, before), (large, after) = costs
        for step, one, other in zip(WORK, before, after, strict=True):
            what = f"{step}: {large:,} {kind}, {STEPS} steps"
            found.append(_row(what, f"{small:,}", one, other, None))
    return found


def many_points(bench: Bench) -> list[Row]:
    """Ten and a hundred times the plain size."""
    costs: list[dict[str, Cost]] = []
    for points in (10 * bench.points, 100 * bench.points):
        holder = bench.scratch / f"scale_{points}"
        cost = {
            "log": bench.in_child("scale:log", folder=str(holder), steps=points // len(METRICS))
        }
        (path,) = holder.iterdir()
        cost |= {step: _cost(bench, step, str(path)) for step in WORK}
        cost["open one metric"] = _cost(bench, "open one metric", str(path))
        costs.append(cost)
        shutil.rmtree(holder)
    small, large = 10 * bench.points, 100 * bench.points
    found = []
    for step in costs[0]:
        bar = None if step == "open one metric" else MEMORY_BAR  # its values are in memory
        found.append(
            _row(f"{step}: {large:,} points", f"{small:,}", costs[0][step], costs[1][step], bar)
        )
    share = costs[1]["open one metric"]["share"]
    bar = 1.5 / len(METRICS)
    read, least = f"{share:.1%} of the table", f"one of {len(METRICS)} metrics"
    what = f"bytes that opening one metric reads, {large:,} points"
    found.append(Row(what, least, read, "-", f"{bar:.0%}", share <= bar))
    return found


def _row(what: str, small: str, one: Cost, other: Cost, memory_bar: float | None) -> Row:
    """Return how a cost grows."""
    longer, larger = other["s"] / one["s"], other["MiB"] / one["MiB"]
    cleared = longer <= TIME_BAR and (memory_bar is None or larger <= memory_bar)
    bar = f"{TIME_BAR:g}x" if memory_bar is None else f"{TIME_BAR:g}x, {memory_bar:g}x"
    return Row(
        what,
        f"{small}: {one['s']:.3g} s, {one['MiB']:.0f} MiB",
        f"{longer:.1f}x the time ({other['s']:.3g} s), {larger:.2f}x the memory"
        f" ({other['MiB']:.0f} MiB)",
        "-",
        bar,
        cleared,
    )


def _cost(bench: Bench, step: str, path: str) -> Cost:
    """Do some work in a process of its own."""
    cost: Cost = bench.in_child("scale:work", step=step, path=path)
    return cost


def log(folder: str, steps: int) -> Cost:
    """Record ten metrics at each step."""
    return _timed(lambda: write_run(folder, steps))


def work(step: str, path: str) -> Cost:
    """Do one piece of work on a run, with what has to be imported for it."""
    import pyarrow.parquet as pq

    from blackboxml import open_run, validate
    from blackboxml.seal import seal

    read = _bytes_read()
    if step == "seal":
        return _timed(lambda: seal(Path(path)))
    if step == "validate":
        return _timed(lambda: _require_valid(validate(path)))
    if step == "open one metric":
        cost = _timed(lambda: open_run(path).arrow("train", columns=[METRIC]))
        metadata = pq.read_metadata(Path(path, "train.parquet"))
        groups = [metadata.row_group(at) for at in range(metadata.num_row_groups)]
        sizes = [
            each.column(at).total_compressed_size
            for each in groups
            for at in range(each.num_columns)
        ]
        return cost | {"share": (_bytes_read() - read) / sum(sizes)}
    return _timed(lambda: open_run(path).summary())


def _bytes_read() -> int:
    """Return how many bytes this process has asked files for so far."""
    said = dict(line.split(": ") for line in Path("/proc/self/io").read_text("ascii").splitlines())
    return int(said["rchar"])


def _require_valid(report: Any) -> None:
    if report.verdict != "valid":
        raise ValueError(report.to_json())


def _timed(run: Callable[[], object]) -> Cost:
    started = time.perf_counter()
    run()
    return {"s": time.perf_counter() - started, "MiB": peak_memory_mib()}


# -- runs of many parts


def write_metrics(folder: str, count: int) -> str:
    """Record so many metrics of one group."""
    return _write(folder, [f"train/metric_{at}" for at in range(count)])


def write_groups(folder: str, count: int) -> str:
    """Record one metric in so many groups."""
    return _write(folder, [f"group_{at}/loss" for at in range(count)])


def write_ranks(folder: str, count: int) -> str:
    """Record two metrics on so many ranks; the others have the points of the first."""
    import orjson

    from blackboxml import journal

    path = Path(_write(folder, ["train/loss", "train/accuracy"]))
    header, points = (path / "metrics.jsonl").read_bytes().split(b"\n", 1)
    document = orjson.loads(header)
    del document["crc"]
    for rank in range(1, count):
        said = journal.encode({**document, "rank": rank})
        (path / f"metrics.r{rank}.jsonl").write_bytes(said + points)
    return str(path)


def _write(folder: str, names: list[str]) -> str:
    """Record some steps; not sealed."""
    from blackboxml import Run

    with Run("bench", log_dir=folder, seal=False) as run:
        for step in range(STEPS):
            run.log({name: 0.37 * (step + at) for at, name in enumerate(names)}, step=step)
    return str(run.path)
