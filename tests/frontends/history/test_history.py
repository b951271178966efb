"""Recording on one rank: what an update leaves where."""

from __future__ import annotations

import json
import logging
import math
import signal
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from blackboxml import convert, open_run, validate
from blackboxml.collection import find_runs
from blackboxml.errors import ConfigError, MetricError
from blackboxml.frontends.history import History
from blackboxml.tracker import NullTracker, Tracker, TrackerBackend


class Told(TrackerBackend):
    """Keeps what it is told."""

    name = "told"

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.logs: list[tuple[dict[str, Any], int | None, bool]] = []
        self.configs: list[dict[str, Any]] = []
        self.finished = 0

    def log(self, metrics: dict[str, Any], step: int | None = None, *, commit: bool = True) -> None:
        self.logs.append((metrics, step, commit))

    def log_config(self, config: dict[str, Any]) -> None:
        self.configs.append(config)

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("EZPZ_TRACKER_BACKENDS", "EZPZ_TRACKERS", "RANK"):
        monkeypatch.delenv(name, raising=False)
    made: list[History] = []

    def build(**options: Any) -> History:
        made.append(History(**({"report_dir": tmp_path / "runs"} | options)))
        return made[-1]

    yield build
    for each in made:
        each.close()


def records(history: History) -> list[Any]:
    assert history.path is not None
    return list(open_run(history.path).records())


def test_hi01_every_parameter_is_taken(make: Any, tmp_path: Path) -> None:
    tracker = Tracker([])
    history = make(
        keys=["loss"],
        report_enabled=False,
        jsonl_path=tmp_path / "log.jsonl",
        jsonl_overwrite=True,
        distributed_history=False,
        project_name="vit",
        backends=None,
        config={"lr": 0.1},
        outdir=tmp_path / "out",
        tracker=tracker,
    )
    assert history.keys == ["loss"]
    assert history.tracker is tracker
    assert history.path.parent == tmp_path / "runs"
    assert history.path.name.startswith("vit_")
    with pytest.raises(ValueError, match="every is 0"):
        make(every=0)
    with pytest.raises(ConfigError):
        make(config=3)


def test_hi02_the_configuration_is_kept_without_a_backend(make: Any) -> None:
    history = make(config={"lr": 0.1, "betas": (0.9, 0.99)})
    assert isinstance(history.tracker, NullTracker)
    history.update({"loss": 0.5})
    assert open_run(history.path).config == {"lr": 0.1, "betas": (0.9, 0.99)}


def test_hi03_a_project_alone_starts_no_backend(make: Any) -> None:
    assert isinstance(make(project_name="vit").tracker, NullTracker)


def test_hi03_the_environment_asks_for_backends(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("EZPZ_TRACKER_BACKENDS", "EZPZ_TRACKERS"):
        monkeypatch.setenv(variable, "csv")
        assert make(outdir=tmp_path).tracker.get_backend("csv") is not None
        monkeypatch.delenv(variable)


def test_hi04_an_update_is_recorded_dispatched_and_summarised(make: Any) -> None:
    told = Told()
    history = make(tracker=Tracker([told]))
    assert history.update({"loss": 0.5, "accuracy": 0.8}) == "loss=0.500000 accuracy=0.800000"
    assert history.update({"loss": 0.25}, summarize=False) == ""
    assert [each.metrics for each in records(history)] == [
        {"loss": 0.5, "accuracy": 0.8},
        {"loss": 0.25},
    ]
    assert [each[0] for each in told.logs] == [{"loss": 0.5, "accuracy": 0.8}, {"loss": 0.25}]
    assert history.history == {"loss": [0.5, 0.25], "accuracy": [0.8]}


def test_hi05_the_step_is_stored_and_passed_on(make: Any) -> None:
    told = Told()
    history = make(tracker=Tracker([told]))
    history.update({"loss": 0.3}, step=42)
    history.update({"loss": 0.2}, commit=False)
    assert [each[1:] for each in told.logs] == [(42, True), (None, False)]
    assert [each.step for each in records(history)] == [42, 43]
    lines = Path(history._lines.path).read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [42, 43]
    with pytest.raises(MetricError, match="step"):
        history.update({"loss": 0.3}, step=1.5)


def test_hi06_the_summary_has_the_decimals_that_are_asked_for(make: Any) -> None:
    assert make().update({"loss": 0.123456}, precision=2) == "loss=0.12"


def test_hi07_use_wandb_is_deprecated(make: Any) -> None:
    with pytest.warns(DeprecationWarning, match="use_wandb"):
        make().update({"loss": 0.5}, use_wandb=True)


def test_hi08_an_active_run_of_wandb_is_used(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from blackboxml import backends

    class Wandb(Told):
        name = "wandb"

    active = types.ModuleType("wandb")
    active.run = object()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", active)
    monkeypatch.setitem(backends._registered, "wandb", Wandb)
    with pytest.warns(DeprecationWarning, match=r"wandb\.run"):
        history = make()
    history.update({"loss": 0.5})
    assert [each[0] for each in history.tracker.get_backend("wandb").logs] == [{"loss": 0.5}]


def test_hi13_a_rank_that_only_the_launcher_knows_of_writes_nothing(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "3")
    history = make(backends="csv", outdir=tmp_path / "csv")
    assert history.update({"loss": 0.5}, step=1) == "loss=0.500000"
    assert history.finalize(tmp_path / "out")["loss"].to_numpy().tolist() == [0.5]
    assert list(tmp_path.iterdir()) == []


def test_hi14_a_line_of_strict_json_for_each_update(make: Any, tmp_path: Path) -> None:
    history = make(jsonl_path=tmp_path / "log.jsonl")
    history.update({"loss": 1.23})
    history.update({"loss": math.nan, "best": -math.inf, "n": None})
    written = (tmp_path / "log.jsonl").read_text().splitlines()
    lines = [json.loads(line, parse_constant=pytest.fail) for line in written]
    assert lines[0].pop("timestamp") > 1e9
    assert lines[0] == {"rank": 0, "step": 0, "metrics": {"loss": 1.23}}
    assert lines[1]["metrics"] == {"loss": "NaN", "best": "-Infinity", "n": None}


def test_hi15_the_log_is_beside_the_run_or_where_it_is_wanted(make: Any, tmp_path: Path) -> None:
    history = make()
    history.update({"loss": 1.0})
    assert (tmp_path / "runs" / f"{history.run_id}.jsonl").is_file()
    path = tmp_path / "own.jsonl"
    path.write_text("{}\n")
    make(jsonl_path=path).update({"loss": 1.0})
    assert len(path.read_text().splitlines()) == 2
    make(jsonl_path=path, jsonl_overwrite=True).update({"loss": 1.0})
    assert len(path.read_text().splitlines()) == 1


def test_hi16_whatever_is_logged_is_kept_as_what_it_is(make: Any, tmp_path: Path) -> None:
    history = make(jsonl_path=tmp_path / "log.jsonl")
    history.update(
        {
            "loss": torch.tensor(0.42, dtype=torch.float64),
            "one": torch.tensor([7]),
            "w/weights": torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
            "path": Path("/x/y"),
            "d": {"x": np.int64(1), "deep": {"y": 2.5}},
            "ragged": [[1], [2, 3]],
            "note": "hello",
            "none": None,
        }
    )
    (line,) = (tmp_path / "log.jsonl").read_text().splitlines()
    logged = json.loads(line)["metrics"]
    assert logged["w/weights"] == [[1.0, 2.0], [3.0, 4.0]]
    assert (logged["path"], logged["loss"], logged["one"]) == ("/x/y", 0.42, 7)
    history.close()
    run = open_run(history.path)
    (record,) = run.records()
    assert record.metrics == {"loss": 0.42, "one": 7, "d.x": 1, "d.deep.y": 2.5}
    kinds = {each.name: each.kind for each in run.media()}
    assert kinds == {"w/weights": "array", "path": "text", "ragged": "event", "note": "text"}
    assert validate(history.path).ok


def test_x07_what_is_changed_later_was_logged_as_it_was(make: Any) -> None:
    history = make()
    tensor, metrics = torch.zeros(1), {"loss": 0.0}
    vector = torch.zeros(3, requires_grad=True)
    for each in range(3):
        tensor.fill_(each)
        metrics["loss"] = float(each)
        history.update({"t": tensor, "v": vector * each} | metrics)
    assert history.history["t"] == [0.0, 1.0, 2.0]
    assert history.history["loss"] == [0.0, 1.0, 2.0]
    assert all(type(each) is np.ndarray for each in history.history["v"])


def test_hi21_each_metric_is_in_its_own_group(make: Any) -> None:
    history = make()
    history.update({"train/loss": 1.0, "eval/loss": 2.0, "lr": 3.0})
    history.update({"train/head/loss": 4.0})
    assert history.groups == {
        "train": {"loss": [1.0], "head/loss": [4.0]},
        "eval": {"loss": [2.0]},
        "": {"lr": [3.0]},
    }


def test_hi22_the_values_are_a_dict_that_can_be_set(make: Any) -> None:
    history = make()
    history.update({"train/loss": 0.5})
    assert history.data == history.history == {"train/loss": [0.5]}
    history.history = {"a": [1.0, 2.0], "b/c": [3]}
    assert history.groups == {"": {"a": [1.0, 2.0]}, "b": {"c": [3]}}
    history.update({"a": 3.0})
    assert history.get_grouped_datasets()[""]["a"].to_numpy().tolist() == [1.0, 2.0, 3.0]


def test_x06_what_cannot_be_stored_costs_nothing_else(
    make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    history = make()
    for each in range(3):
        history.update({"good": each, "/bad": 1.0, "huge": 2**70, 5: 2.0})
    assert [each.metrics for each in records(history)] == [{"good": n, "5": 2.0} for n in range(3)]
    said = [each.message for each in caplog.records if each.levelno == logging.WARNING]
    assert len(said) == 2
    assert "'/bad'" in said[0]
    assert "70 bits" in said[1] or "71 bits" in said[1]


@pytest.mark.parametrize("fault", ["raises", "blocks for ever"])
def test_x09_a_backend_cannot_stop_the_training(
    make: Any, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    import threading

    released = threading.Event()

    class Bad(Told):
        slow = fault != "raises"

        def log(
            self, metrics: dict[str, Any], step: int | None = None, *, commit: bool = True
        ) -> None:
            if fault == "raises":
                raise RuntimeError("no disk")
            released.wait(30)

    history = make(tracker=Tracker([Bad()], timeout=0.1))
    for each in range(20):
        history.update({"loss": float(each)})
    assert len(records(history)) == 20
    history.close()
    released.set()
    assert open_run(history.path).status == "completed"
    assert 1 <= len([each for each in caplog.records if each.levelno >= logging.WARNING]) <= 2


def test_x09_a_log_on_a_full_disk_is_given_up_and_the_run_goes_on(
    make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    history = make(jsonl_path="/dev/full")
    for each in range(5):
        history.update({"loss": float(each)})
    assert len(records(history)) == 5
    assert len([each for each in caplog.records if "/dev/full" in each.message]) == 1


def test_the_run_is_an_ordinary_one_while_it_is_written(make: Any) -> None:
    history = make(tags=["a"], name="my run")
    history.update({"train/loss": 0.5})
    run = open_run(history.path)
    assert (run.status, run.name, run.tags) == ("running", "my run", ["a"])
    assert validate(history.path).ok
    history.update({"train/loss": 0.25})
    assert run.polars("train")["loss"].to_list() == [0.5, 0.25]


def test_an_update_after_the_end_is_the_next_attempt(make: Any, tmp_path: Path) -> None:
    history = make()
    history.update({"loss": 1.0})
    history.finalize(tmp_path / "out", plot=False)
    history.update({"loss": 2.0})
    history.finalize(tmp_path / "out", plot=False)
    run = open_run(history.path)
    assert [(each.attempt, each.metrics["loss"]) for each in run.records()] == [(0, 1.0), (1, 2.0)]
    assert validate(history.path).ok


def test_a_history_that_is_left_by_an_exception_has_failed(make: Any) -> None:
    history = make()
    history.update({"loss": 1.0})
    with pytest.raises(ZeroDivisionError), history:
        _ = 1 / 0
    run = open_run(history.path)
    assert run.status == "failed"
    assert run.manifest["exception"]["type"] == "ZeroDivisionError"


def test_x02_a_killed_training_keeps_every_update(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from blackboxml.frontends.history import History\n"
        "history = History(report_dir=sys.argv[1])\n"
        "for step in range(100):\n"
        "    history.update({'train/loss': 1.0 / (step + 1)})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], check=False)
    assert done.returncode == -signal.SIGKILL
    (path,) = (each for each in tmp_path.iterdir() if each.is_dir())
    run = open_run(path)
    assert (len(list(run.records())), run.status) == (100, "crashed")
    (log,) = tmp_path.glob("*.jsonl")
    assert len(list(map(json.loads, log.read_text().splitlines()))) == 100


def test_x03_runs_of_the_same_second_are_apart(make: Any) -> None:
    found = [make() for _ in range(5)]
    assert len({each.path for each in found}) == len({each.run_id for each in found}) == 5


def test_nothing_heavy_is_loaded_before_it_is_needed() -> None:
    program = (
        "import sys\nfrom blackboxml.frontends.history import History\n"
        "print([m for m in ('torch', 'matplotlib', 'xarray', 'plotext') if m in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, stdout=subprocess.PIPE, text=True
    )
    assert done.stdout.strip() == "[]"


def test_hi38_the_log_is_read_as_the_predecessors_is(make: Any, tmp_path: Path) -> None:
    """What the predecessor itself has left is imported in tests/converters/test_ezpz.py."""
    history = make(jsonl_path=tmp_path / "logs" / "20261121-041005.jsonl")
    for step in range(3):
        history.update({"train/loss": 1.0 / (step + 1)})
    convert(tmp_path / "logs", tmp_path / "imported")
    (found,) = (open_run(path) for path in find_runs(tmp_path / "imported"))
    assert [each.metrics for each in found.records()] == [each.metrics for each in records(history)]
