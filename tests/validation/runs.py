"""Real runs, and ways to spoil them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from blackboxml import Run, RunWriter
from blackboxml.journal import encode
from blackboxml.seal import seal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from blackboxml.validation import Report


def record(folder: Path, *, sealed: bool = True, steps: int = 6) -> Path:
    """Record a run of two groups with a gap, a description, a rewind and a NaN; return its path."""
    config = {"lr": 0.1, "layers": [64, 64], "betas": (0.9, 0.999), "big": 2**70, "names": {1: "a"}}
    with Run("spoiled", log_dir=folder, config=config, tags=["x"], seal=sealed) as run:
        run.describe("train/loss", unit="nat", description="cross entropy")
        for step in range(steps):
            run.log({"train/loss": 1 / (step + 1), "train/seen": step, "epoch": step})
        run.rewind(steps - 2)
        run.log({"train/loss": float("nan"), "train/best": True})
        run.log({"train/loss": 0.25})
    return run.path


def record_ranks(folder: Path, *, sealed: bool = True) -> Path:
    """Record a run of two ranks with statistics across them; return its path."""
    first = RunWriter.create(folder, "ranks")
    second = RunWriter.join(first.path, 1, 0)
    for step in range(4):
        statistics = {"train/loss": {"mean": 0.5, "min": step / 8, "count": 2}}
        first.log({"train/loss": step / 4}, ranks=statistics)
        second.log({"train/loss": step / 2, "train/idle": step % 2 == 0})
    second.finish()
    first.finish()
    if sealed:
        seal(first.path)
    return first.path


def copy(source: Path, folder: Path) -> Path:
    """Return a copy of a run that may be spoiled."""
    return shutil.copytree(source, folder / source.parent.name / source.name)


# -- documents


def manifest(path: Path) -> dict[str, Any]:
    """Return the manifest."""
    return json.loads((path / "run.json").read_bytes())


def write_manifest(path: Path, document: dict[str, Any]) -> None:
    """Replace the manifest, and its digest where there is one."""
    (path / "run.json").write_text(json.dumps(document, indent=2) + "\n")
    sums = path / "SHA256SUMS"
    if sums.exists():
        write_sums(path)


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest."""
    document = manifest(path)
    edit(document)
    write_manifest(path, document)


def write_sums(path: Path) -> None:
    """Write the checksums of what is there, as an attacker would."""
    names = sorted(
        str(file.relative_to(path))
        for file in path.rglob("*")
        if file.is_file() and file.name != "SHA256SUMS"
    )
    (path / "SHA256SUMS").write_text("".join(f"{sha256(path / name)}  {name}\n" for name in names))


def vouch(path: Path) -> None:
    """Make size and digest of every listed file those of what is there."""
    document = manifest(path)
    for name, entry in document["files"].items():
        if (path / name).exists():
            entry["bytes"] = os.path.getsize(path / name)
            entry["sha256"] = sha256(path / name)
    write_manifest(path, document)


def sha256(file: Path) -> str:
    """Return the digest of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


# -- journals


def lines(path: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    """Return the documents of a journal, without `crc`."""
    documents = [json.loads(line) for line in (path / name).read_bytes().splitlines()]
    for document in documents:
        del document["crc"]
    return documents


def write_lines(path: Path, documents: list[Any], name: str = "metrics.jsonl") -> None:
    """Write a journal: documents get their checksum, bytes stand as they are."""
    data = [each if isinstance(each, bytes) else encode(each) for each in documents]
    (path / name).write_bytes(b"".join(data))


def edit_line(path: Path, at: int, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change one line of the journal of rank 0, and its checksum."""
    documents = lines(path)
    edit(documents[at])
    write_lines(path, documents)


def edit_bytes(path: Path, name: str, edit: Callable[[bytes], bytes]) -> None:
    """Change the bytes of a file."""
    data = (path / name).read_bytes()
    changed = edit(data)
    assert changed != data
    (path / name).write_bytes(changed)


# -- tables


def edit_table(path: Path, edit: Callable[[pa.Table], pa.Table], **options: Any) -> None:
    """Write the table of the group `train` anew, and vouch for it."""
    name = path / "train.parquet"
    table = edit(pq.read_table(name))
    options = {"compression": "zstd", "write_page_checksum": True} | options
    pq.write_table(table, name, **options)
    vouch(path)


def with_value(table: pa.Table, column: str, row: int, value: object) -> pa.Table:
    """Return a table with one value changed."""
    at = table.column_names.index(column)
    values = table.column(column).to_pylist()
    values[row] = value
    array = pa.array(values, table.schema.field(at).type)
    return table.set_column(at, table.schema.field(at), array)


def rules(report: Report) -> set[str]:
    """Return the rules that a report says are broken."""
    return {problem.rule for problem in report.problems}


def flipped(data: bytes, at: int, bit: int = 0) -> bytes:
    """Return bytes with one bit changed."""
    array = np.frombuffer(data, np.uint8).copy()
    array[at] ^= 1 << bit
    return array.tobytes()
