"""`Run`: what a training script writes, and what it never has to fear."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from blackboxml import Run, open_run, validate
from blackboxml.errors import (
    ConfigError,
    MetricError,
    RunIsLiveError,
    RunStateError,
)
from blackboxml.frontends import run as run_module
from blackboxml.seal.pack import pack

if TYPE_CHECKING:
    from collections.abc import Callable


def manifest(run: Run) -> dict[str, Any]:
    return json.loads((run.path / "run.json").read_text())


def python(code: str, *arguments: object, **options: Any) -> str:
    """Run a script in a process of its own and return what it prints."""
    ended = subprocess.run(
        [sys.executable, "-c", code, *map(os.fspath, arguments)],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr
    return ended.stdout


# -- life


def test_a_run_records_what_it_is_given_and_seals_it(tmp_path: Path) -> None:
    with Run("resnet", ["a", "b"], tmp_path, config={"lr": 0.1}) as run:
        assert isinstance(run, Run)
        assert run.status == "running"
        for step in range(3):
            run.log({"train/loss": 1 / (step + 1), "epoch": step})
    assert run.status == "completed"
    reader = open_run(run.path)
    assert (reader.name, reader.tags, reader.id) == ("resnet", ["a", "b"], run.id)
    assert [record.step for record in reader.records()] == [0, 1, 2]
    assert reader.sealed
    assert reader.config == {"lr": 0.1}
    assert {path.name for path in run.path.iterdir()} == {
        *("run.json", "config.json", "metrics.jsonl", "SHA256SUMS"),
        *("train.parquet", "train.h5", "metrics.parquet", "metrics.h5"),
    }
    assert validate(run.path).ok


def test_start_and_finish_do_the_same_without_a_block(tmp_path: Path) -> None:
    run = Run("r", log_dir=tmp_path, environment=()).start()
    run.log({"a": 1})
    with pytest.raises(RunStateError, match="was started already"):
        run.start()
    run.finish()
    run.finish("failed")
    assert open_run(run.path).status == "completed"


def test_the_default_folder_is_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Run("r", environment=(), seal=False) as run:
        run.log({"a": 1})
    assert run.path.parent == tmp_path / "blackboxml_logs"


def test_what_needs_a_started_run_says_so(tmp_path: Path) -> None:
    run = Run("r", log_dir=tmp_path)
    for call in (
        lambda: run.log({"a": 1}),
        lambda: run.log_config(lr=1),
        lambda: run.rewind(1),
        lambda: run.describe("a", unit="m"),
        run.sync,
        run.finish,
        lambda: run.path,
        lambda: run.id,
        lambda: run.attempt,
    ):
        with pytest.raises(RunStateError, match="was not started; use `with Run"):
            call()
    assert (run.status, run.tags) == ("created", [])
    assert "created" in repr(run)
    assert os.listdir(tmp_path) == []


def test_a_run_that_has_ended_takes_nothing_more(tmp_path: Path) -> None:
    with Run("r", log_dir=tmp_path, environment=()) as run:
        run.log({"a": 1})
    before = sorted((path.name, path.stat().st_size) for path in run.path.iterdir())
    for call in (
        lambda: run.log({"a": 1}),
        lambda: run.log({"a": float("nan")}),
        lambda: run.log_config(lr=1),
        lambda: run.rewind(1),
        lambda: run.describe("a", unit="m"),
    ):
        with pytest.raises(RunStateError, match="has ended"):
            call()
    run.sync()
    run.finish("failed")
    assert before == sorted((path.name, path.stat().st_size) for path in run.path.iterdir())
    assert repr(run) == f"<Run 'r' completed at {str(run.path)!r}>"


def test_a_run_that_is_used_again_begins_anew(tmp_path: Path) -> None:
    run = Run("r", iter(["tag"]), tmp_path, config={"lr": 1}, environment=())
    paths = []
    for number in range(2):
        with run:
            run.log({"a": number})
        paths.append(run.path)
    assert len(set(paths)) == 2
    for number, path in enumerate(paths):
        reader = open_run(path)
        assert [record.metrics for record in reader.records()] == [{"a": number}]
        assert (reader.tags, reader.config) == (["tag"], {"lr": 1})


@pytest.mark.parametrize(
    "arguments",
    [
        {"name": ""},
        {"name": 5},
        {"name": "a\nb"},
        {"tags": "tag"},
        {"tags": [1]},
        {"sync": "x"},
        {"environment": ["user"]},
        {"parent": "x"},
        {"config": 5},
        {"config": {"a": "x" * 17 * 2**20}},
    ],
)
def test_a_wrong_argument_raises_and_leaves_no_run_open(
    tmp_path: Path, arguments: dict[str, Any]
) -> None:
    run = Run(**({"name": "r", "log_dir": tmp_path} | arguments))
    with pytest.raises(ValueError, match=r"."):
        run.start()
    assert run not in run_module._started
    for path in tmp_path.iterdir():
        assert open_run(path).status == "failed"


def test_tags_are_shown_before_and_after(tmp_path: Path) -> None:
    run = Run("r", (tag for tag in "ab"), tmp_path, environment=(), seal=False)
    assert run.tags == ["a", "b"]
    with run:
        assert run.tags == ["a", "b"]
    assert open_run(run.path).tags == ["a", "b"]
    with Run("r", None, tmp_path, environment=(), seal=False) as run:
        assert run.tags == []


# -- exceptions


class WithoutTextError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def fail(run: Run, error: Exception, before: Callable[[], None] = lambda: None) -> None:
    run.log({"a": 1})
    before()
    raise error


class OddError(Exception):
    __module__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ValueError("bad batch"), "ValueError", "bad batch"),
        (WithoutTextError(), "test_run.WithoutTextError", "its message could not be made"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"), "UnicodeDecodeError", "'utf-8' codec"),
        (OSError(28, "No space left"), "OSError", "[Errno 28]"),
        (ExceptionGroup("many", [ValueError("a")]), "ExceptionGroup", "many"),
        (MemoryError(), "MemoryError", ""),
        (ValueError("\ud800\x00"), "ValueError", "?\x00"),
        (OddError("odd"), "OddError", "odd"),
        (RecursionError("deep"), "RecursionError", "deep"),
    ],
)
def test_an_exception_of_the_training_is_recorded_and_goes_on_to_the_caller(
    tmp_path: Path, error: Exception, kind: str, message: str
) -> None:
    with pytest.raises(type(error)) as caught, Run("r", log_dir=tmp_path, environment=()) as run:
        fail(run, error)
    assert caught.value is error
    assert error.__context__ is None
    reader = open_run(run.path)
    assert reader.status == "failed"
    assert len(list(reader.records())) == 1
    found = reader.manifest["exception"]
    assert found["type"].endswith(kind.removeprefix("test_run."))
    assert found["message"].startswith(message)
    assert "Traceback" in found["traceback"]
    assert validate(run.path).ok


def test_an_error_of_ending_does_not_hide_that_of_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def end(*_: object) -> None:
        raise ZeroDivisionError

    run = Run("r", log_dir=tmp_path, environment=())
    with pytest.raises(ValueError, match="bad batch"), run:
        fail(run, ValueError("bad batch"), lambda: monkeypatch.setattr(run._writer, "finish", end))
    assert "could not be ended in order" in caplog.text
    monkeypatch.undo()
    run.finish("failed")


def test_a_seal_that_fails_costs_a_warning_and_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from blackboxml import seal

    def fail(_: Path) -> None:
        raise MemoryError("too large")

    monkeypatch.setattr(seal, "seal", fail)
    with Run("r", log_dir=tmp_path, environment=()) as run:
        run.log({"a": 1})
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "recorded whole, but was not sealed: too large; `blackbox seal" in caplog.text
    assert open_run(run.path).status == "completed"
    with (
        pytest.raises(MemoryError),
        Run("r", log_dir=tmp_path, environment=(), strict=True) as run,
    ):
        run.log({"a": 1})
    assert open_run(run.path).status == "completed"


@pytest.mark.parametrize("error", [KeyboardInterrupt, GeneratorExit])
def test_an_interrupt_is_no_failure(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), Run("r", log_dir=tmp_path, environment=()) as run:
        raise error
    assert open_run(run.path).status == "interrupted"
    assert "exception" not in manifest(run)


def test_a_refused_value_that_is_caught_harms_nothing(tmp_path: Path) -> None:
    with Run("r", log_dir=tmp_path, environment=()) as run:
        run.log({"a": 1})
        with pytest.raises(MetricError, match="'b'"):
            run.log({"a": 2, "b": "text"})
        run.log({"a": 3})
    reader = open_run(run.path)
    assert [(record.seq, record.metrics["a"]) for record in reader.records()] == [(0, 1), (1, 3)]
    assert reader.status == "completed"


def test_nothing_of_a_framework_is_needed_to_log_what_it_gives(tmp_path: Path) -> None:
    with Run("knn", log_dir=tmp_path, environment=()) as run:
        run.log({"n_estimators": 50, "mean_accuracy": np.float64(0.96)})
    (record,) = open_run(run.path).records()
    assert record.metrics == {"n_estimators": 50, "mean_accuracy": 0.96}
    assert type(record.metrics["n_estimators"]) is int


def test_a_finish_with_a_status_that_there_is_not_leaves_the_run_open(tmp_path: Path) -> None:
    run = Run("r", log_dir=tmp_path, environment=()).start()
    with pytest.raises(ValueError, match="wanted completed"):
        run.finish("done")
    assert run in run_module._started
    run.log({"a": 1})
    run.finish("interrupted")
    assert open_run(run.path).status == "interrupted"


def test_times_have_an_offset_and_a_duration(tmp_path: Path) -> None:
    before = datetime.now(UTC)
    with Run("r", log_dir=tmp_path, environment=()) as run:
        run.log({"a": 1})
    after = datetime.now(UTC)
    found = manifest(run)
    start, end = (datetime.fromisoformat(found[key]) for key in ("start", "end"))
    assert before <= start <= end <= after
    assert found["start"].endswith("+00:00")
    assert found["duration_seconds"] == pytest.approx((end - start).total_seconds(), abs=1e-5)


# -- configuration


@dataclasses.dataclass
class Options:
    lr: float = 0.1
    layers: tuple[int, ...] = (1, 2)


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"lr": 0.1, "name": "é", "none": None, "deep": {"a": [1, 2.5, True]}}, None),
        (Options(), {"lr": 0.1, "layers": (1, 2)}),
        (argparse.Namespace(lr=0.1, big=2**100), {"lr": 0.1, "big": 2**100}),
        ({"inf": float("inf"), "path": Path("a/b"), 5: "x", "$a": 1}, None),
        ({}, None),
    ],
)
def test_hyper_parameters_come_back_as_they_were(
    tmp_path: Path, config: Any, found: dict[str, Any] | None
) -> None:
    with Run("r", log_dir=tmp_path, config=config, environment=()) as run:
        pass
    assert open_run(run.path).config == (config if found is None else found)
    assert validate(run.path).ok


@pytest.mark.rule("BB-CFG-012")
def test_a_hyper_parameter_that_changes_keeps_its_old_value_aside(tmp_path: Path) -> None:
    with Run("r", log_dir=tmp_path, config={"lr": 0.1, "seed": 1}, environment=()) as run:
        run.log_config({"batch": 8}, seed=1)
        run.log_config(lr=0.2)
        run.log_config(Options())
        run.log_config()
    document = json.loads((run.path / "config.json").read_text())
    assert [each["values"] for each in document["replaced"]] == [{"lr": 0.1}, {"lr": 0.2}]
    assert document["replaced"][0]["attempt"] == 0
    assert open_run(run.path).config == {"lr": 0.1, "seed": 1, "batch": 8, "layers": (1, 2)}
    with Run("r", log_dir=tmp_path, resume=run.path, config={"lr": 0.3}, environment=()) as run:
        pass
    document = json.loads((run.path / "config.json").read_text())
    assert document["replaced"][2]["attempt"] == 1
    assert document["replaced"][2]["values"] == {"lr": 0.1}
    assert open_run(run.path).config["lr"] == 0.3
    assert validate(run.path).ok


def test_hyper_parameters_that_cannot_be_stored_are_refused_and_change_nothing(
    tmp_path: Path,
) -> None:
    deep: dict[str, Any] = {}
    for _ in range(100):
        deep = {"a": deep}
    with Run("r", log_dir=tmp_path, config={"lr": 0.1}, environment=()) as run:
        for wrong in (deep, {"a": "x" * 17 * 2**20}, "text", 5):
            with pytest.raises(ConfigError):
                run.log_config(wrong)
        run.log_config(ok=1)
    assert open_run(run.path).config == {"lr": 0.1, "ok": 1}


def test_a_damaged_configuration_is_begun_anew_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Run("r", log_dir=tmp_path, config={"lr": 0.1}, environment=(), seal=False) as run:
        (run.path / "config.json").write_bytes(b"\0" * 50)
        run.log_config(lr=0.2)
    assert open_run(run.path).config == {"lr": 0.2}
    assert "damaged" in caplog.text


def test_hyper_parameters_that_change_later_change_nothing(tmp_path: Path) -> None:
    config: dict[str, Any] = {"layers": [1, 2]}
    run = Run("r", log_dir=tmp_path, config=config, environment=(), seal=False)
    with run:
        config["layers"].append(3)
        config.clear()
        run.log_config(extra=1)
    assert open_run(run.path).config == {"layers": [1, 2], "extra": 1}


# -- resume


def test_resuming_takes_the_newest_run_of_the_name_or_begins_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(name: str, **options: Any) -> Run:
        with Run(name, log_dir=tmp_path, environment=(), seal=False, **options) as run:
            run.log({"a": 1})
        return run

    assert make("r", resume=True).attempt == 0
    make("other")
    newest = make("r")
    make("r!")  # the same directory name, but for its end
    again = make("r", resume=True)
    assert (again.path, again.attempt) == (newest.path, 1)
    by_path = make("r", resume=str(newest.path))
    assert (by_path.path, by_path.attempt) == (newest.path, 2)
    assert [record.step for record in open_run(newest.path).records()] == [0, 1, 2]
    assert make("r", resume=False).attempt == 0


def test_a_live_run_is_not_resumed(tmp_path: Path) -> None:
    with (
        Run("r", log_dir=tmp_path, environment=(), seal=False) as run,
        pytest.raises(RunIsLiveError, match="end that one first"),
    ):
        Run("r", log_dir=tmp_path, resume=True).start()
    assert open_run(run.path).status == "completed"


def test_a_packed_run_is_unpacked_and_goes_on(tmp_path: Path) -> None:
    with Run("r", log_dir=tmp_path, environment=()) as run:
        for step in range(5):
            run.log({"train/a": step / 3})
        run.describe("train/a", unit="m")
        run.rewind(3)
        run.log({"train/a": 9.0})
    before = [(record.step, record.metrics) for record in open_run(run.path).records("all")]
    pack(run.path)
    assert not (run.path / "metrics.jsonl").exists()
    with Run("r", log_dir=tmp_path, resume=True, environment=()) as again:
        assert (again.path, again.attempt) == (run.path, 1)
        again.log({"train/a": 10.0})
    reader = open_run(run.path)
    after = [(record.step, record.metrics) for record in reader.records("all")]
    assert after == [*before, (4, {"train/a": 10.0})]
    assert [record.step for record in reader.records()] == [0, 1, 2, 3, 4]
    assert validate(run.path).ok


def test_a_run_that_is_moved_while_it_is_written_is_sealed_where_it_is(tmp_path: Path) -> None:
    run = Run("r", log_dir=tmp_path / "a", environment=()).start()
    run.log({"train/a": 1.0})
    (tmp_path / "b").mkdir()
    moved = run.path.rename(tmp_path / "b" / "moved")
    run.log({"train/a": 2.0})
    run.log_config(lr=1)
    run.finish()
    reader = open_run(moved)
    assert [record.metrics["train/a"] for record in reader.records()] == [1.0, 2.0]
    assert reader.config == {"lr": 1}
    assert validate(moved).ok
    if os.path.exists("/proc/self/fd"):
        assert reader.sealed
    again = moved.rename(tmp_path / "elsewhere")
    assert open_run(again).arrow("train").num_rows == 2
    assert validate(again).ok


# -- environment

SECRETS = """\
import sys
from blackboxml import Run
with Run("r", log_dir=sys.argv[1]) as run:
    run.log({"a": 1})
print(run.path)
"""


@pytest.mark.rule("BB-SEC-012")
def test_no_secret_of_the_environment_or_the_command_line_is_written(tmp_path: Path) -> None:
    secrets = {"AWS_SECRET_ACCESS_KEY": "s3cr3t-one", "WANDB_API_KEY": "s3cr3t-two"}
    python(SECRETS, tmp_path, "--token=s3cr3t-three", env=os.environ | secrets)
    text = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"s3cr3t" not in text


def test_the_command_line_is_recorded_if_asked_for(tmp_path: Path) -> None:
    code = SECRETS.replace("sys.argv[1])", "sys.argv[1], command_line=True)")
    path = python(code, tmp_path, "--lr=0.1").strip()
    assert "--lr=0.1" in open_run(path).manifest["environment"]["argv"]


def test_the_environment_says_what_a_reader_of_the_run_wants_to_know(tmp_path: Path) -> None:
    with Run("r", log_dir=tmp_path, seal=False) as run:
        pass
    found = manifest(run)["environment"]
    assert {"git_commit", "git_dirty", "python", "torch", "tensorflow", "hostname"} <= set(found)
    assert found["python"] == sys.version.split()[0]
    with Run("r", log_dir=tmp_path, environment=["python"], seal=False) as run:
        pass
    assert list(manifest(run)["environment"]) == ["python"]
    with Run("r", log_dir=tmp_path, environment=(), seal=False) as run:
        pass
    assert manifest(run)["environment"] == {}


@pytest.mark.parametrize("inside", [True, False])
def test_git_is_asked_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: bool
) -> None:
    code = tmp_path / "code"
    code.mkdir()
    if inside:
        for command in (
            ["init", "-q"],
            ["-c", "user.name=n", "-c", "user.email=e", "commit", "-q", "--allow-empty", "-m", "m"],
        ):
            subprocess.run(["git", *command], cwd=code, check=True)
        (code / "new").write_text("untracked")
    else:
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.chdir(code)
    with Run("r", log_dir=tmp_path / "logs", seal=False) as run:
        pass
    found = manifest(run)["environment"]
    if inside:
        assert len(found["git_commit"]) >= 7
        assert found["git_dirty"] is True
    else:
        assert (found["git_commit"], found["git_dirty"]) == (None, None)


def test_a_run_without_git_or_a_working_directory_is_recorded(tmp_path: Path) -> None:
    code = """\
import os, sys
from blackboxml import Run
os.environ["PATH"] = ""
gone = sys.argv[1] + "/gone"
os.mkdir(gone)
os.chdir(gone)
os.rmdir(gone)
with Run("r", log_dir=sys.argv[1] + "/logs", seal=False) as run:
    run.log({"a": 1})
print(run.path)
"""
    reader = open_run(python(code, tmp_path).strip())
    assert reader.status == "completed"
    assert reader.manifest["environment"]["git_commit"] is None


HEAVY = {"torch", "tensorflow", "jax", "numpy", "pandas", "polars", "pyarrow", "h5py", "xarray"}


def test_entering_a_run_and_logging_imports_no_framework(tmp_path: Path) -> None:
    code = """\
import sys
from blackboxml import Run
run = Run("r", log_dir=sys.argv[1], config={"lr": 0.1}).start()
run.log({"a": 1.0, "b": float("nan")})
run.finish
print(" ".join(sorted(name for name in sys.modules if "." not in name)))
run._seal = False
run.finish()
"""
    assert not HEAVY & set(python(code, tmp_path).split())


def test_a_loaded_framework_is_used_and_not_imported_again(tmp_path: Path) -> None:
    code = """\
import sys, torch
from blackboxml import Run, open_run
before = set(sys.modules)
with Run("r", log_dir=sys.argv[1], seal=False) as run:
    run.log({"a": torch.tensor(0.5, requires_grad=True)})
print(len({name.split(".")[0] for name in set(sys.modules) - before} & {"torch", "numpy", "jax"}))
print(open_run(run.path).manifest["environment"]["torch"])
"""
    count, version = python(code, tmp_path).split()
    assert count == "0"
    assert version.startswith("2.")


def test_the_library_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Run("r", log_dir=tmp_path) as run:
        run.log({"a": 1})
    open_run(run.path).summary()
    assert capfd.readouterr() == ("", "")


def test_a_parent_is_recorded(tmp_path: Path) -> None:
    with Run("r", log_dir=tmp_path, environment=(), seal=False) as first:
        pass
    with Run("r", log_dir=tmp_path, environment=(), parent=first.id, seal=False) as second:
        pass
    assert manifest(second)["lineage"] == {"parent": first.id}
    assert validate(second.path).ok


def test_a_frontend_gives_a_run_its_id_and_says_how_it_ended(tmp_path: Path) -> None:
    said = {"org.example": {"number": 3}}
    run = Run("given", log_dir=tmp_path, run_id="0" * 31 + "1", extensions=said, seal=True).start()
    run.log_media("notes", "text", 3, value="kept")
    error = {"type": "ValueError", "message": "bad batch", "traceback": "…"}
    run.finish("failed", error, seal=False)
    found = open_run(run.path)
    assert (found.id, found.manifest["extensions"]) == ("0" * 31 + "1", said)
    assert found.manifest["exception"] == error
    assert not found.sealed
    assert [each.value for each in found.media()] == ["kept"]
    with pytest.raises(ValueError, match="run_id"):
        Run("given", log_dir=tmp_path, run_id="1").start()
