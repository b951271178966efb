"""Files in runs: which runs `blackbox validate` takes them for."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from blackboxml.cli import main
from tests.validation import runs

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.record(tmp_path_factory.mktemp("recorded"))


@pytest.fixture
def tree(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs, and the files of another tool that are called the same."""
    for name in ("a", "b"):
        shutil.copytree(recorded, tmp_path / "runs" / name)
    other = tmp_path / "other"
    other.mkdir()
    (other / "run.json").write_text('{"format": "of another tool"}')
    (other / "metrics.jsonl").write_text("{}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def validated(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str]]:
    status = main(["validate", "--level", "structure", "--json", *arguments])
    document: Any = json.loads(capsys.readouterr().out)
    reports = document["reports"] if isinstance(document, dict) else document
    return status, [report["path"].rpartition("/")[2] for report in reports]


def test_files_mean_the_runs_that_hold_them_each_once(tree: Path, capsys) -> None:
    files = ["runs/a/run.json", "runs/a/train.parquet", "runs/b/metrics.jsonl", "runs/a"]
    assert validated(capsys, *files) == (0, ["a", "b"])


def test_a_file_may_be_named_from_within_its_run(tree: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tree / "runs" / "a")
    status, (path,) = validated(capsys, "metrics.jsonl")
    assert (status, path) in {(0, "."), (0, "a")}


def test_files_outside_of_runs_are_passed_over_on_request(tree: Path, capsys) -> None:
    files = ["other/run.json", "other/metrics.jsonl", "runs/b/SHA256SUMS", "README.md"]
    assert validated(capsys, "--containing", *files) == (0, ["b"])
    assert validated(capsys, "--containing", "other/run.json") == (0, [])
    assert main(["validate", "other/run.json"]) == 3


def test_a_file_that_is_gone_still_tells_its_run(tree: Path, capsys) -> None:
    (tree / "runs" / "a" / "train.parquet").unlink()
    file = "runs/a/train.parquet"
    assert main(["validate", file]) == 2
    capsys.readouterr()
    assert validated(capsys, "--containing", file, "--level", "full") == (1, ["a"])


def test_a_damaged_run_is_a_run(tree: Path, capsys) -> None:
    (tree / "runs" / "a" / "run.json").write_bytes(b"\0" * 64)
    assert validated(capsys, "--containing", "runs/a/config.json") == (1, ["a"])


def test_a_run_within_a_run_is_validated_with_the_one_around_it(tree: Path, capsys) -> None:
    inner = tree / "runs" / "a" / "artifacts" / "inner"
    shutil.copytree(tree / "runs" / "b", inner)
    found = validated(capsys, "--containing", str(inner / "run.json"))
    assert found == (0, ["inner", "a"])
