"""`run.log`: the time that the caller waits until the record is in the kernel."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from benchmarks.harness import METRICS, Pair, Row, interleave

if TYPE_CHECKING:
    from benchmarks.harness import Bench

CALLS = 1_000
SLICES = 120
BARS = {"Python floats": 2.0, "numpy float32 scalars": 5.0}


def rows(bench: Bench) -> list[Row]:
    """Both kinds of scalars in a young run and in one of ten times the steps."""
    slices, calls = bench.slices(SLICES), 10 if bench.quick else CALLS
    found = []
    for kind, bar in BARS.items():
        for grown in (False, True):
            before = 9 * slices * calls if grown else 0
            measured = bench.in_child(
                "log:measure", kind=kind, slices=slices, calls=calls, before=before
            )
            what = f"`run.log` of 10 {kind}"
            if grown:
                what += f", after {before:,} steps"
            floor = "`orjson.dumps` + `os.write`"
            found.append(Pair(**measured).row(what, floor, bar, calls * 1e-6, "µs"))
    return found


def measure(kind: str, slices: int, calls: int, before: int) -> dict[str, Any]:
    """Interleave slices of calls; floor and candidate write the same numbers."""
    import numpy as np
    import orjson

    from blackboxml import Run

    random = Random(0)
    plain = [{name: random.gauss(0, 1) for name in METRICS} for _ in range(calls)]
    given: list[dict[str, Any]] = list(plain)
    if kind.startswith("numpy"):
        given = [{name: np.float32(value) for name, value in row.items()} for row in plain]
        plain = [{name: float(value) for name, value in row.items()} for row in given]

    with Run("bench", log_dir=".", seal=False) as run:
        path = Path(run.path) / ".tmp-floor"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)

        def floor() -> None:
            for i, metrics in enumerate(plain):
                record = {
                    "seq": i,
                    "step": i,
                    "time": 1763734921.123456,
                    "metrics": metrics,
                    "crc": "5f3a9c01",
                }
                os.write(descriptor, orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))

        def candidate() -> None:
            for metrics in given:
                run.log(metrics)

        for _ in range(before // calls):
            candidate()
        pair = interleave(floor, candidate, slices)
        os.close(descriptor)
        path.unlink()
    return asdict(pair)
