"""Trackio: the real package, with its local database read back."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from blackboxml.backends.trackio import TrackioBackend

SCRIPT = """
import json, sys
from PIL import Image
from trackio.sqlite_storage import SQLiteStorage
from blackboxml.tracker import setup_tracker

Image.new("RGB", (2, 2)).save("sample.png")
with open("report.md", "w") as file:
    file.write("# Report")
tracker = setup_tracker(
    "project", "trackio", {"lr": 0.1}, "out", 0,
    name="run", unknown=1, auto_log_cpu=False, auto_log_gpu=False,
)
tracker.log_config({"seed": 1})
for step in range(5):
    tracker.log({"loss": 1 / (step + 1), "note": "x"}, step * 10)
tracker.log({"part": 1}, 50, commit=False)
tracker.log({"whole": 2})
tracker.log_config({"late": 1})
tracker.log_table("predictions", ["x", "y"], [[1, "a"]])
tracker.log_image("sample", "sample.png", caption="one")
tracker.log_artifacts({"none": "missing", "re port": "report.md"})
tracker.log({"left": 3}, 60, commit=False)
tracker.finish()
print(json.dumps({
    "rows": SQLiteStorage.get_logs("project", "run"),
    "config": SQLiteStorage.get_run_config("project", "run"),
    "artifacts": [each["name"] for each in SQLiteStorage.list_artifacts("project")],
}, default=str))
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """What Trackio's database holds after a run."""
    folder = tmp_path_factory.mktemp("trackio")
    (folder / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "script.py"],
        cwd=folder,
        env=os.environ | {"TRACKIO_DIR": str(folder / "kept"), "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_points_have_their_steps_and_commits(recorded):
    rows = recorded[0]["rows"]
    losses = {row["step"]: row["loss"] for row in rows if "loss" in row}
    assert losses == {step * 10: 1 / (step + 1) for step in range(5)}
    assert all(row["note"] == "x" for row in rows if "loss" in row)
    (both,) = [row for row in rows if "part" in row]
    assert (both["step"], both["part"], both["whole"]) == (50, 1, 2)
    (left,) = [row for row in rows if "left" in row]
    assert left["step"] == 60


def test_tables_and_images_stand_at_the_last_step(recorded):
    rows = recorded[0]["rows"]
    (table,) = [row for row in rows if "predictions" in row]
    (image,) = [row for row in rows if "sample" in row]
    assert (table["step"], image["step"]) == (50, 50)
    assert table["predictions"]["_value"] == [{"x": 1, "y": "a"}]
    assert image["sample"]["caption"] == "one"


def test_a_configuration_counts_until_the_first_point(recorded):
    found, said = recorded
    config = {key: value for key, value in found["config"].items() if key[0] != "_"}
    assert config == {"lr": 0.1, "seed": 1}
    assert "trackio.log_config() failed: RuntimeError: Trackio takes a configuration" in said


def test_artifacts_are_kept_under_their_labels(recorded):
    assert recorded[0]["artifacts"] == ["re_port"]


def test_another_rank_does_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "kept"))
    backend = TrackioBackend("p", {"lr": 1}, rank=1)
    backend.log({"a": 1})
    backend.log_config({"a": 1})
    backend.log_table("t", ["a"], [[1]])
    backend.log_image("i", "none.png")
    backend.log_artifacts({"a": "none"})
    backend.finish()
    assert backend.run is None
    assert not list(tmp_path.iterdir())
