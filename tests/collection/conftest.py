from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from blackboxml import Run
from blackboxml.collection import find_runs
from blackboxml.seal import seal
from blackboxml.seal.pack import pack
from tests.histories import end, event, header, point, write


@pytest.fixture(autouse=True)
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where caches go that have no place beside the runs."""
    monkeypatch.chdir(tmp_path)  # where git has nothing to say
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Runs of every kind: sealed, packed, crashed, rewound, of several attempts, damaged."""
    folder = tmp_path / "runs"
    for name in ("sealed", "packed", "loose"):
        with Run(name, ["a", name], folder, config={"lr": 0.1, "path": Path("x/y")}) as run:
            for step in range(5):
                run.log({"train/loss": 1.0 / (step + 1), "train/seen": step, "ok": step > 1})
            run.log({"train/loss": math.nan, "train/high": math.inf})
            run.log({"train/seen": -7}, step=1)
        if name == "packed":
            pack(run.path)
    (run.path / "run.json").unlink()
    points = b"".join(point(seq, {"a": seq, "b": seq / 2}) for seq in range(4))
    write(folder / "crashed", {"metrics.jsonl": header(run_id="1" * 32) + points})
    write(
        folder / "rewound",
        {"metrics.jsonl": header(run_id="2" * 32) + points + event(4, rewind={"step": 2})},
    )
    write(
        folder / "resumed",
        {
            "metrics.jsonl": header(run_id="3" * 32) + points + end(4, "failed"),
            "metrics.1.jsonl": header(attempt=1, run_id="3" * 32) + point(0, {"a": 9}, 9),
        },
    )
    seal(write(folder / "nothing", {"metrics.jsonl": header(run_id="4" * 32) + end(0)}))
    write(folder / "deep" / "er" / "empty", {"metrics.jsonl": header(run_id="5" * 32)})
    write(folder / "damaged", {"run.json": b"{"})
    write(folder / "foreign", {"run.json": b'{"name": "of another tool"}'})
    settle(folder)
    return folder


def settle(folder: Path) -> None:
    """Let all files of the runs below a folder be old, as those of most runs are."""
    for path in find_runs(folder):
        for file in (*path.iterdir(), path):
            os.utime(file, (1, 1))
