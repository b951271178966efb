"""What a format has no place for of a medium is declared, and what it has is read back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from blackboxml import Run, open_run
from blackboxml.cli import main

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.txt").write_text("x")
    with Run("media", log_dir=tmp_path / "runs", environment=(), seal=False) as run:
        run.log({"train/loss": 0.5})
        run.log_array("train/draws", np.zeros((2, 3)), dims=["chain", "parameter"])
        run.log_histogram("train/w", [1.0, float("nan")], bins=2)
        run.log_artifact("copy", tmp_path / "folder")
        run.log_artifact("data", tmp_path / "folder", how="reference")
    return run.path


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("tensorboard", ["1 field: the dimensions of an array", "1 artifact: there is no place"]),
        ("simplegrad", ["changed: 1 histogram: simplegrad keeps edges and counts"]),
        ("csv", ["lost: 2 artifact"]),
        ("mlflow", []),
    ],
)
@pytest.mark.filterwarnings("ignore")  # of MLflow and its database
def test_losses_are_declared(
    path: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], target: str, said: list[str]
) -> None:
    place = tmp_path / ("target.db" if target == "simplegrad" else "target")
    assert main(["convert", str(path), str(place), "--to", target, "--verify"]) == 0
    out = capfd.readouterr().out
    assert "verified: the target reads back the same" in out
    assert all(each in out for each in said)


@pytest.mark.filterwarnings("ignore")
def test_mlflow_keeps_references_dimensions_and_folders(path: Path, tmp_path: Path) -> None:
    assert main(["convert", str(path), str(tmp_path / "out"), "--to", "mlflow"]) == 0
    assert main(["convert", str(tmp_path / "out" / "mlflow.db"), str(tmp_path / "back")]) == 0
    (back,) = (tmp_path / "back").iterdir()
    before, after = (list(open_run(each).media()) for each in (path, back))
    assert [(each.name, each.dims, each.entry, each.reference) for each in after] == [
        (each.name, each.dims, each.entry, each.reference) for each in before
    ]
    assert any(each.reference for each in after)


@pytest.mark.parametrize("target", ["blocks", "blackboxml_legacy"])
def test_an_event_becomes_a_value_and_that_is_declared(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], target: str
) -> None:
    with Run("alerted", log_dir=tmp_path / "runs", environment=()) as run:
        run.log({"loss": 0.5})
        run.alert("diverged", "the loss is 1e9")
    arguments = ["convert", str(run.path), str(tmp_path / "target"), "--to", target, "--verify"]
    assert main(arguments) == 0
    out = capfd.readouterr().out
    assert "verified: the target reads back the same" in out
    assert "what happened becomes a value" in out
