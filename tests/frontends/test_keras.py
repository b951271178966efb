"""The callback for Keras, on real trainings with torch behind them."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from blackboxml import Run, load_run, open_run, validate
from blackboxml.collection import find_runs

os.environ.setdefault("KERAS_BACKEND", "torch")
import keras

from blackboxml.callback import BlackBoxCallback

if TYPE_CHECKING:
    from pathlib import Path

    from blackboxml import RunReader

X = np.linspace(-1, 1, 64, dtype="float32")[:, None]
Y = 2 * X + 1


def model(**options: Any) -> keras.Model:
    network = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)], name="line")
    network.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse", metrics=["mae"], **options)
    return network


def fit(callbacks: list[Any], epochs: int = 3, network: Any = None, **options: Any) -> Any:
    return (network or model()).fit(
        X, Y, epochs=epochs, verbose=0, callbacks=callbacks, validation_split=0.25, **options
    )


def steps(reader: RunReader) -> list[int]:
    return [record.step for record in reader.records()]


def test_each_epoch_is_a_step_with_all_that_keras_logs(tmp_path: Path) -> None:
    callback = BlackBoxCallback(name="lstm", tags=["keras"], log_dir=tmp_path, config={"seed": 1})
    history = fit([callback]).history
    reader = open_run(callback.run.path)
    assert (reader.name, reader.tags, reader.status) == ("lstm", ["keras"], "completed")
    records = list(reader.records())
    assert [list(record.metrics)[-1] for record in records] == ["epoch"] * 3
    for epoch, record in enumerate(records):
        assert (record.step, record.metrics["epoch"]) == (epoch, epoch)
        assert type(record.metrics["epoch"]) is int
        logged = {name: float(values[epoch]) for name, values in history.items()}
        assert record.metrics == pytest.approx(logged | {"epoch": epoch})
        assert {"loss", "mae", "val_loss", "val_mae"} < set(record.metrics)
    assert reader.config["seed"] == 1
    assert {"python", "hostname", "torch", "git_commit"} <= set(reader.manifest["environment"])
    assert validate(callback.run.path).ok


@pytest.mark.parametrize(
    ("optimizer", "rate"),
    [
        (keras.optimizers.SGD(0.5), 0.5),
        (keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)), 0.1),
    ],
)
def test_the_model_is_described(tmp_path: Path, optimizer: Any, rate: float) -> None:
    network = model()
    network.compile(optimizer=optimizer, loss="mse")
    callback = BlackBoxCallback("r", log_dir=tmp_path)
    fit([callback], 1, network)
    described = load_run(callback.run.path)["model"]
    assert described.pop("learning_rate") == pytest.approx(rate)
    assert described == {"name": "line", "params": 2, "optimizer": type(optimizer).__name__}
    assert open_run(callback.run.path).config["model"]["params"] == 2


def test_a_learning_rate_that_cannot_be_had_is_none(tmp_path: Path) -> None:
    class Odd(keras.optimizers.SGD):
        @property
        def learning_rate(self) -> Any:
            raise RuntimeError("none")

        @learning_rate.setter
        def learning_rate(self, value: Any) -> None:
            pass

    from blackboxml.frontends.keras import describe

    network = model()
    network.optimizer = Odd(0.1)
    assert describe(network)["learning_rate"] is None
    assert describe(keras.Sequential(name="bare")) == {
        "name": "bare",
        "params": None,
        "optimizer": None,
        "learning_rate": None,
    }


class Stop(keras.callbacks.Callback):
    """Does something at the end of the second epoch."""

    def __init__(self, what: Any) -> None:
        super().__init__()
        self.what = what

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch == 1:
            self.what(self)


def throw(error: BaseException) -> Any:
    def throw(_: Any) -> None:
        raise error

    return throw


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("bad batch"), "failed"), (KeyboardInterrupt(), "interrupted")]
)
def test_a_crash_keeps_the_epochs_so_far(tmp_path: Path, error: BaseException, status: str) -> None:
    callback = BlackBoxCallback("r", log_dir=tmp_path)
    with pytest.raises(type(error)):
        fit([callback, Stop(throw(error))], 5)
    reader = open_run(callback.run.path)
    assert (reader.status, steps(reader)) == (status, [0, 1])
    if status == "failed":
        assert reader.manifest["exception"]["type"] == "ValueError"
        assert reader.manifest["exception"]["message"] == "bad batch"
        assert "throw" in reader.manifest["exception"]["traceback"]
    assert validate(callback.run.path).ok


def test_an_early_stop_is_a_completed_run(tmp_path: Path) -> None:
    def stop(callback: Any) -> None:
        callback.model.stop_training = True

    callback = BlackBoxCallback("r", log_dir=tmp_path)
    fit([callback, Stop(stop)], 5)
    reader = open_run(callback.run.path)
    assert (reader.status, steps(reader)) == ("completed", [0, 1])


def test_each_fit_is_a_run_of_its_own(tmp_path: Path) -> None:
    callback = BlackBoxCallback("r", log_dir=tmp_path)
    network = model()
    for epochs in (1, 2):
        fit([callback], epochs, network)
    found = [open_run(path) for path in find_runs(tmp_path)]
    assert sorted(map(steps, found)) == [[0], [0, 1]]
    assert {reader.status for reader in found} == {"completed"}


def test_a_given_run_stays_open(tmp_path: Path) -> None:
    with Run("mine", log_dir=tmp_path) as run:
        fit([BlackBoxCallback(run=run)], 2)
        assert run.status == "running"
        run.log({"test/mae": 0.5}, step=1)
        with pytest.raises(ValueError, match="bad"):
            fit([BlackBoxCallback(run=run), Stop(throw(ValueError("bad")))], 2)
        assert run.status == "running"
    reader = open_run(run.path)
    assert steps(reader) == [0, 1, 1, 0, 1]
    assert reader.config["model"]["optimizer"] == "SGD"


def test_epochs_that_are_trained_again_supersede_the_old_ones(tmp_path: Path) -> None:
    fit([BlackBoxCallback("r", log_dir=tmp_path)], 4)
    callback = BlackBoxCallback("r", log_dir=tmp_path, resume=True)
    fit([callback], 5, initial_epoch=2)
    reader = open_run(callback.run.path)
    assert steps(reader) == [0, 1, 2, 3, 4]
    assert [record.step for record in reader.records("all")] == [0, 1, 2, 3, 2, 3, 4]
    assert len(list(find_runs(tmp_path))) == 1


def test_what_is_no_number_is_left_out_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Adds(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs |= {"per_class": np.ones(3), "name": "text", "top": np.float32(0.5)}

    callback = BlackBoxCallback("r", log_dir=tmp_path)
    fit([Adds(), callback], 3)
    (first, *_) = open_run(callback.run.path).records()
    assert first.metrics["top"] == 0.5
    assert not {"per_class", "name"} & set(first.metrics)
    assert len(caplog.records) == 2
    assert "'per_class' is left out" in caplog.text


def test_a_run_that_is_finished_by_hand_does_not_stop_the_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run("r", log_dir=tmp_path).start()
    fit([BlackBoxCallback(run=run), Stop(lambda _: run.finish())], 4)
    assert steps(open_run(run.path)) == [0, 1]
    assert caplog.text.count("is not recorded any further") == 1


@pytest.mark.parametrize("arguments", [{}, {"name": "a", "run": "run"}, {"run": "run", "tags": 1}])
def test_a_name_or_a_run_is_wanted(tmp_path: Path, arguments: dict[str, Any]) -> None:
    given = {k: Run("r", log_dir=tmp_path) if v == "run" else v for k, v in arguments.items()}
    with pytest.raises(ValueError, match="or `run` alone"):
        BlackBoxCallback(**given)


def test_a_copy_has_runs_of_its_own(tmp_path: Path) -> None:
    callback = BlackBoxCallback("r", log_dir=tmp_path)
    fit([callback], 1)
    for other in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
        fit([other], 1)
        assert other.run.path != callback.run.path
    assert len(list(find_runs(tmp_path))) == 3


WITHOUT = """\
import sys
sys.modules["keras"] = None
from blackboxml.callback import BlackBoxCallback
try:
    BlackBoxCallback("r")
except ImportError as error:
    print(error)
"""


def test_without_keras_it_is_imported_and_says_what_to_install() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False
    )
    assert done.stdout == (
        "keras is not installed; install it with: pip install 'blackboxml[keras]'\n"
    ), done.stderr


TRAINS = """\
import os, signal, sys
import keras, numpy as np
from blackboxml.callback import BlackBoxCallback

class Die(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 3:
            print(os.path.basename(callback.run.path), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

network = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)])
network.compile(optimizer="sgd", loss="mse")
callback = BlackBoxCallback("killed", log_dir=sys.argv[1])
x = np.ones((8, 1))
network.fit(x, x, epochs=4, verbose=0, callbacks=[callback, Die()])
"""


def test_a_killed_training_keeps_every_epoch_and_reads_as_crashed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TRAINS, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    reader = open_run(tmp_path / done.stdout.strip())
    assert reader.status == "crashed"
    assert [record.metrics["epoch"] for record in reader.records()] == [0, 1, 2]
    assert reader.config["model"]["optimizer"] == "SGD"


def test_other_ranks_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    fit([BlackBoxCallback("r", log_dir=tmp_path)], 1)
    assert os.listdir(tmp_path) == []
