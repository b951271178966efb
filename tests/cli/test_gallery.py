"""`blackbox show` with media: lists, texts, tables, histograms, and the paths of all else."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest

from blackboxml import Run
from blackboxml.cli import main

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A run with a medium of each kind."""
    with Run("media", log_dir=tmp_path, environment=(), seal=False) as run:
        for step in range(3):
            run.log({"train/loss": 0.5})
            run.log_text("notes", f"step {step}\nbell \x07 rung")
            run.log_image("train/sample", np.zeros((2, 2), np.uint8))
        run.log_histogram("train/w", [0.0, 0.0, 0.0, 1.0, float("nan")], bins=2)
        run.log_table("errors", [["cat", 0.123456789, None]] * 30, ["text", "p", "q"])
        run.log_table("large", pl.DataFrame({"n": range(10_000)}))
        run.log_array("train/draws", np.zeros((2, 3), "f4"), dims=["chain", "leapfrog"])
        run.log_graph("model", [1, 2], [[1, 2]])
        run.log_artifact("data", "s3://bucket/a%1b", how="reference")
        run.alert("slow", "step took 9 s", level="warning")
        run.log_text("long", "\n".join(map(str, range(50))))
    return run.path


def show(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["show", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_a_run_lists_its_media(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = show(capsys, path)
    for expected in (
        r"^MEDIA +KIND +N +STEPS +SIZE$",
        r"^notes +text +3 +0–2 +-$",
        r"^train/sample +image +3 +0–2 +\d+ bytes$",
        r"^train/w +histogram +1 +2–2 +-$",
        r"^large +table +1 +2–2 +[\d.]+ kB$",
        r"^alert +event +1 +2–2 +-$",
    ):
        assert re.search(expected, out, re.MULTILINE), (expected, out)
    document = json.loads(show(capsys, path, "--json"))
    assert document["media"][0] == {
        "name": "notes",
        "kind": "text",
        "count": 3,
        "first_step": 0,
        "last_step": 2,
        "bytes": 0,
    }


def test_the_last_medium_of_each_name_is_shown(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, folder = show(capsys, path, "--media"), re.escape(str(path))
    for expected in (
        r"^notes  text  step 2\nstep 2\nbell \\x07 rung$",
        rf"^train/sample  image  step 2\n{folder}/media/train_sample-2.png \(\d+ bytes\)$",
        r"^ *0 +0.5 +3 █{40}\n *0.5 +1 +1 █{13}\n +NaN/Inf +1$",
        r"^text  p +q\ncat   0.12346  -$",
        r"^… 10 more rows$",
        r"^n\n0\n1\n",
        r"^… 9,980 more rows$",
        r"^float32 of shape \(2, 3\) \(chain, leapfrog\)$",
        r"^2 nodes, 1 edges$",
        r"^s3://bucket/a%1b$",
        r'^\{"level": "warning", "title": "slow", "text": "step took 9 s"\}$',
        r"^19\n… 30 more lines$",
    ):
        assert re.search(expected, out, re.MULTILINE), (expected, out)
    assert "step 0" not in out


@pytest.mark.parametrize("name", ["train/sample", "sample"])
def test_media_of_one_name_are_shown_at_every_step(
    path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    out = show(capsys, path, "--media", name)
    assert re.findall(r"^train/sample  image  step (\d)$", out, re.MULTILINE) == ["0", "1", "2"]
    assert "notes" not in out
    assert show(capsys, path, "--media", "long").splitlines()[-1] == "49"


def test_media_are_given_to_programs(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(show(capsys, path, "--media", "draws", "--json"))
    (found,) = document["media"]
    assert (found["name"], found["kind"], found["step"]) == ("train/draws", "array", 2)
    assert found["dims"] == ["chain", "leapfrog"]
    assert found["file"] == "media/train_draws-2.npy"
    assert "value" not in found
    document = json.loads(show(capsys, path, "--media", "--json"))
    assert [each["value"] for each in document["media"] if each["name"] == "notes"] == [
        "step 2\nbell \x07 rung"
    ]


def test_a_name_that_is_not_there_is_an_error(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", str(path), "--media", "nothing"]) != 0
    assert "has no medium 'nothing'; it has notes, train/sample" in capsys.readouterr().err


def test_a_run_without_media_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Run("bare", log_dir=tmp_path, environment=()) as run:
        run.log({"loss": 1.0})
    assert show(capsys, run.path, "--media") == "no media were logged.\n"
    assert "MEDIA" not in show(capsys, run.path)
    assert json.loads(show(capsys, run.path, "--json"))["media"] == []


@pytest.mark.parametrize(
    ("file", "data"),
    [("large-2.parquet", b"PAR1"), ("train_draws-2.npy", None), ("train_sample-2.png", b"x")],
)
def test_a_damaged_file_is_told_and_the_others_are_shown(
    path: Path, capsys: pytest.CaptureFixture[str], file: str, data: Any
) -> None:
    place = path / "media" / file
    place.write_bytes(data) if data is not None else place.unlink()
    out = show(capsys, path, "--media")
    assert ("cannot be shown" in out) == (not file.endswith(".png"))
    assert "2 nodes, 1 edges" in out


def test_many_bins_are_drawn_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Run("bins", log_dir=tmp_path, environment=(), seal=False) as run:
        run.log_histogram("w", np.arange(1000.0), bins=1000)
        run.log_histogram("empty", [], bins=3)
    out = show(capsys, run.path, "--media", "w")
    bars = [line for line in out.splitlines() if "█" in line]
    assert len(bars) == 40
    assert sum(int(line.split()[2]) for line in bars) == 1000
    assert "█" not in show(capsys, run.path, "--media", "empty")
