from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import TABLES

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("table", TABLES)
def test_every_benchmark_still_runs(table: str, tmp_path: Path) -> None:
    output = tmp_path / "RESULTS.md"
    subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--only", table, "--output", output],
        check=True,
        cwd=ROOT,
    )
    written = output.read_text("utf-8")
    lines = written.splitlines()
    assert [line for line in lines if line.startswith("## ")] == [f"## {table}"]
    assert sum(line.startswith("| ") for line in lines) > 2  # more than the head of a table
    assert str(ROOT) not in written
