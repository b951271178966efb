"""Weights & Biases: the real package, offline, and what it wrote read back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from blackboxml.backends import wandb as module
from blackboxml.backends.wandb import WandbBackend, find_mode
from blackboxml.tracker import NullTracker, setup_tracker

VARIABLES = (
    *("WANDB_DISABLED", "WANDB_MODE", "WB_PROJECT", "WANDB_PROJECT", "WB_PROJECT_NAME"),
    *("WANDB_DIR", "RANK"),
)


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_tr22_modes(monkeypatch):
    assert find_mode(None) == "online"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert find_mode(None) == "offline"
    assert find_mode("shared") == "shared"
    with pytest.raises(ValueError, match="wandb has no mode 'dryrun'; there are online, offline"):
        find_mode("dryrun")
    monkeypatch.setenv("WANDB_MODE", "nonsense")
    with pytest.raises(ValueError, match="nonsense"):
        find_mode(None)


@pytest.mark.parametrize(("text", "off"), [("1", True), ("true", True), ("0", False), ("", False)])
def test_tr22_x13_wandb_disabled_is_a_switch(monkeypatch, text, off):
    monkeypatch.setenv("WANDB_DISABLED", text)
    assert find_mode("offline") == ("disabled" if off else "offline")


def test_tr22_another_rank_does_nothing(tmp_path):
    backend = WandbBackend("p", {"lr": 1}, tmp_path, 1, "offline")
    backend.log({"a": 1})
    backend.log_config({"a": 1})
    backend.log_table("t", ["a"], [[1]])
    backend.log_image("i", "none.png")
    backend.log_artifacts({"a": "none"})
    backend.watch(None)
    backend.finish()
    assert backend.run is None
    assert not list(tmp_path.iterdir())


def test_tr22_a_wrong_mode_is_left_out(caplog):
    assert isinstance(setup_tracker("p", "wandb", rank=0, mode="dryrun"), NullTracker)
    assert "wandb is left out: ValueError: wandb has no mode 'dryrun'" in caplog.text


SCRIPT = """
import json, os, sys
import torch
from PIL import Image
from blackboxml.tracker import setup_tracker

Image.new("RGB", (2, 2)).save("sample.png")
with open("report.md", "w") as file:
    file.write("# Report")
os.makedirs("plots")
with open("plots/a.txt", "w") as file:
    file.write("a")
config = {"lr": 0.1, "model": {"depth": 3}}
tracker = setup_tracker(
    "my.project", "wandb", config, "out", 0, mode="offline", unknown=1, tags=["a"]
)
run = tracker.wandb_run
model = torch.nn.Linear(2, 1)
tracker.watch(model, log="all", log_freq=1)
for step in range(5):
    loss = model(torch.ones(2)).sum()
    loss.backward()
    tracker.log({"loss": 1 / (step + 1)}, step=step)
    tracker.log_image("sample", "sample.png", caption="one")
tracker.log_config({"seed": 1, "lr": 0.2})
tracker.log({"part": 1}, step=5, commit=False)
tracker.log({"whole": 2}, step=5)
tracker.log_table("predictions", ["x", "y"], [[1, "a"], [2, "b"]])
tracker.log_artifacts({"none": "missing", "re port": "report.md", "plots": "plots"})
tracker.finish()
import wandb
wandb.teardown()
print(json.dumps([run.project, run.dir, list(run.tags), dict(run.config)]))
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """What a real run offline left, and said."""
    folder = tmp_path_factory.mktemp("wandb")
    (folder / "script.py").write_text(SCRIPT)
    environment = {name: text for name, text in os.environ.items() if name not in VARIABLES}
    environment |= {"HOME": str(folder), "WANDB_CONSOLE": "off", "WANDB_DISABLED": "false"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "script.py"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_tr22_a_run_offline_has_project_configuration_and_facts(recorded):
    folder, (project, place, tags, config), said = recorded
    assert (project, tags) == ("my.project", ["a"])
    assert Path(place).is_relative_to(folder / "out/wandb")
    assert config.pop("hostname") == os.uname().nodename
    assert config.pop("working_directory") == str(folder)
    assert config.pop("ezpz_version").startswith("blackboxml ")
    assert config.pop("torch_version").startswith("2.")
    assert config == {"lr": 0.2, "model": {"depth": 3}, "seed": 1}
    assert said.count("Tracker backend") == 1, said
    assert "wandb.log_artifacts() failed" in said


def records(data):
    """Yield what a log of LevelDB holds: blocks of 32 KiB, checksum, length and type of each part.

    See https://github.com/google/leveldb/blob/main/doc/log_format.md; wandb puts 7 bytes before it.
    """
    block, at, whole = 2**15, 7, b""
    while at + 7 <= len(data):
        if block - at % block < 7:
            at += block - at % block
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in {1, 4}:  # whole, or the last part
            yield whole
            whole = b""


def test_tr22_every_point_is_in_the_file_and_none_was_refused(recorded):
    from wandb.proto import wandb_internal_pb2

    folder, _, said = recorded
    (path,) = (folder / "out/wandb").glob("offline-run-*/*.wandb")
    history, artifacts = [], set()
    for data in records(path.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(data)
        items = record.history.item
        row = {each.key or "/".join(each.nested_key): json.loads(each.value_json) for each in items}
        if row:
            history.append(row)
        artifacts |= {record.artifact.name, record.request.log_artifact.artifact.name}
    losses = {row["_step"]: row["loss"] for row in history if "loss" in row}
    assert losses == {step: 1 / (step + 1) for step in range(5)}
    (last,) = [row for row in history if "part" in row]
    assert (last["_step"], last["whole"]) == (5, 2)
    pictures = [row["sample/_type"] for row in history if "sample/_type" in row]
    assert pictures == ["image-file"] * 5
    (table,) = [row for row in history if "predictions/nrows" in row]
    assert (table["predictions/nrows"], table["predictions/ncols"]) == (2, 2)
    assert any(key.startswith("gradients/") for row in history for key in row)
    assert artifacts >= {"re_port", "plots"}
    assert "monotonically" not in said


def test_tr22_no_process_is_left(recorded):
    folder, _, _ = recorded
    for process in Path("/proc").glob("[0-9]*"):
        try:
            where = (process / "environ").read_bytes()
        except OSError:
            continue
        assert f"HOME={folder}\0".encode() not in where, (process / "cmdline").read_bytes()


def test_the_modes_are_those_of_wandb():
    assert module.MODES == ("online", "offline", "disabled", "shared")
