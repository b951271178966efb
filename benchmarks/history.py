"""`History.update`: alone beside `run.log`, and on four ranks beside four all-reduces."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict
from random import Random
from typing import TYPE_CHECKING, Any

from benchmarks.harness import METRICS, Pair, Row, interleave

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.harness import Bench
    from blackboxml.frontends.history import History

CALLS = 500
SLICES = 80
RANKS = 4
COUNTS = (1, 10, 50)
RANK_CALLS = 20
RANK_SLICES = 8
ALONE_BAR, TOGETHER_BAR, BATCHED_BAR = 2.0, 0.5, 0.1


def rows(bench: Bench) -> list[Row]:
    """One process with and without the line for the console, then four ranks."""
    slices, calls = bench.slices(SLICES), 10 if bench.quick else CALLS
    found = []
    for line in (False, True):
        measured = bench.in_child("history:measure", line=line, slices=slices, calls=calls)
        what = "`History.update` of 10 floats" + (", with its line" if line else "")
        floor = "2 × `run.log`, and the line" if line else "`run.log`"
        bar = 1.0 if line else ALONE_BAR
        found.append(Pair(**measured).row(what, floor, bar, calls * 1e-6, "µs"))
    calls = 5 if bench.quick else RANK_CALLS
    measured = bench.in_child(
        "history:measure_ranks", slices=bench.slices(RANK_SLICES), calls=calls
    )
    for what, pair in measured.items():
        bar = BATCHED_BAR if "every" in what else TOGETHER_BAR
        found.append(Pair(**pair).row(what, "four `all_reduce`", bar, calls * 1e-6, "µs"))
    return found


def measure(*, line: bool, slices: int, calls: int) -> dict[str, Any]:
    """Interleave slices of calls in one process; both record the same numbers."""
    from blackboxml import Run
    from blackboxml.frontends.history import History
    from blackboxml.frontends.history.console import summary_line

    random = Random(0)
    given = [{name: random.gauss(0, 1) for name in METRICS} for _ in range(calls)]
    history = History(report_dir=".")
    with Run("bench", log_dir=".", seal=False) as run:

        def floor() -> None:
            for metrics in given:
                run.log(metrics)

        def floor_with_line() -> None:
            for metrics in given:
                run.log(metrics)
                run.log(metrics)
                summary_line(metrics)

        def candidate() -> None:
            for metrics in given:
                history.update(metrics, summarize=line)

        return asdict(interleave(floor_with_line if line else floor, candidate, slices))


def measure_ranks(slices: int, calls: int) -> dict[str, Any]:
    """Run the ranks as processes; rank 0 says what it measured."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(RANKS)}
    task = json.dumps({"slices": slices, "calls": calls})
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.history", task],
            stdout=subprocess.PIPE,
            env={**os.environ, **variables, "RANK": str(rank), "OMP_NUM_THREADS": "1"},
        )
        for rank in range(RANKS)
    ]
    outputs = [process.communicate()[0] for process in processes]
    found: dict[str, Any] = json.loads(outputs[0])
    return found


def measure_rank(slices: int, calls: int) -> dict[str, Any]:
    """Interleave slices on one rank; all ranks take the same turns, and meet before each."""
    import torch.distributed as dist

    from blackboxml.frontends.history import History

    dist.init_process_group("gloo")
    found = {}
    for count in COUNTS:
        for every in (1, calls):
            names = [f"train/metric_{i}" for i in range(count)]
            random = Random(dist.get_rank())
            given = [{name: random.gauss(0, 1) for name in names} for _ in range(calls)]
            history = History(report_dir=".", every=every)
            floor, candidate = _turns(given, history)
            what = f"`update` of {count} on {RANKS} ranks" + (
                f", every={every}" if every > 1 else ""
            )
            found[what] = asdict(interleave(floor, candidate, slices, before_each=dist.barrier))
            history.close()
    dist.destroy_process_group()
    return found


def _turns(
    given: list[dict[str, float]], history: History
) -> tuple[Callable[[], None], Callable[[], None]]:
    """One slice of each."""
    import torch
    import torch.distributed as dist

    operations = (dist.ReduceOp.SUM, dist.ReduceOp.SUM, dist.ReduceOp.MAX, dist.ReduceOp.MIN)

    def floor() -> None:
        for metrics in given:
            own = torch.tensor(list(metrics.values()), dtype=torch.float64)
            parts = [own.clone(), own.square(), own.clone(), own.clone()]
            for part, operation in zip(parts, operations, strict=True):
                dist.all_reduce(part, operation)
            mean = parts[0] / RANKS
            std = (parts[1] / RANKS - mean.square()).clamp(min=0).sqrt()
            columns = [each.tolist() for each in (mean, std, parts[2], parts[3])]
            list(zip(metrics, *columns, strict=True))

    def candidate() -> None:
        for metrics in given:
            history.update(metrics, summarize=False)

    return floor, candidate


def _main() -> None:
    measured = measure_rank(**json.loads(sys.argv[1]))
    if os.environ["RANK"] == "0":
        print(json.dumps(measured))


if __name__ == "__main__":
    _main()
