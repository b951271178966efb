"""Fan-out: order, isolation, names, and what was logged as it was."""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from blackboxml import backends
from blackboxml.errors import MissingDependencyError
from blackboxml.tracker import (
    NullTracker,
    Tracker,
    TrackerBackend,
    register_backend,
    requested,
    setup_tracker,
)

METHODS = ("log", "log_config", "log_table", "log_image", "log_artifacts", "watch", "finish")


class Listed(TrackerBackend):
    """Writes down what it is told."""

    def __init__(self, name: str = "listed", book: list[Any] | None = None, **given: Any) -> None:
        self.name = name
        self.book: list[Any] = [] if book is None else book
        self.given = given

    def log(self, metrics, step=None, *, commit=True):
        self.book.append((self.name, "log", metrics, step, commit))

    def log_config(self, config):
        self.book.append((self.name, "log_config", config))

    def finish(self):
        self.book.append((self.name, "finish"))

    def log_table(self, key, columns, data):
        self.book.append((self.name, "log_table", key, columns, data))

    def log_image(self, key, image_path, caption=None):
        self.book.append((self.name, "log_image", key, image_path, caption))

    def log_artifacts(self, artifacts):
        self.book.append((self.name, "log_artifacts", artifacts))

    def watch(self, model, **kwargs):
        self.book.append((self.name, "watch", model, kwargs))


class Raising(Listed):
    """Raises at every call."""

    error: BaseException = RuntimeError("no\nmore")

    def __getattribute__(self, name: str) -> Any:
        if name in METHODS:
            raise type(self).error
        return super().__getattribute__(name)


def call_all(tracker: Tracker) -> None:
    tracker.log({"loss": 0.5}, step=3)
    tracker.log_config({"lr": 0.1})
    tracker.log_table("t", ["a"], [[1]])
    tracker.log_image("i", "i.png", "c")
    tracker.log_artifacts({"a": "x"})
    tracker.watch("model", log="all")
    tracker.finish()


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(backends, "_registered", {})
    for name in ("EZPZ_TRACKER_BACKENDS", "EZPZ_TRACKERS", *backends.PROJECTS):
        monkeypatch.delenv(name, raising=False)


def test_tr01_every_backend_is_called_in_order():
    book: list[Any] = []
    tracker = Tracker([Listed("a", book), Listed("b", book)])
    call_all(tracker)
    calls = [
        ("log", {"loss": 0.5}, 3, True),
        ("log_config", {"lr": 0.1}),
        ("log_table", "t", ["a"], [[1]]),
        ("log_image", "i", "i.png", "c"),
        ("log_artifacts", {"a": "x"}),
        ("watch", "model", {"log": "all"}),
        ("finish",),
    ]
    assert book == [(name, *call) for call in calls for name in ("a", "b")]


def test_tr01_commit_and_a_missing_step_are_passed_on():
    backend = Listed()
    Tracker([backend]).log({"a": 1}, commit=False)
    assert backend.book == [("listed", "log", {"a": 1}, None, False)]


def test_tr02_what_a_backend_raises_stops_neither_the_others_nor_the_caller(caplog):
    last = Listed("last")
    tracker = Tracker([Raising("bad"), last])
    call_all(tracker)
    assert [call[1] for call in last.book] == list(METHODS)
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"Tracker backend bad.{name}() failed: RuntimeError: no" for name in METHODS]


def test_tr02_a_hundred_failures_are_said_once_and_counted(caplog):
    tracker = Tracker([Raising("bad")])
    for _ in range(100):
        tracker.log({"a": 1})
    assert len(caplog.records) == 1
    tracker.finish()
    said = [record.getMessage() for record in caplog.records]
    assert said[1:] == [
        "Tracker backend bad.finish() failed: RuntimeError: no",
        "Tracker backend bad.log() failed 100 times",
    ]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
def test_tr02_an_interrupt_is_let_through(error, monkeypatch):
    monkeypatch.setattr(Raising, "error", error)
    tracker = Tracker([Raising("bad")])
    with pytest.raises(type(error)):
        tracker.log({"a": 1})
    monkeypatch.setattr(Raising, "error", RuntimeError("over"))
    tracker.finish()


def test_tr02_an_error_that_cannot_be_told_is_told_by_its_kind(caplog, monkeypatch):
    class Silent(Exception):  # noqa: N818 - as foreign as can be
        def __str__(self) -> str:
            raise RuntimeError

    monkeypatch.setattr(Raising, "error", Silent())
    with Tracker([Raising("bad")]) as tracker:
        tracker.log({})
    assert caplog.records[0].getMessage() == "Tracker backend bad.log() failed: Silent"


def test_tr03_backends_are_found_by_name():
    first, second, third = Listed("a"), Listed("b"), Listed("a")
    tracker = Tracker([first, second, third])
    assert tracker.get_backend("a") is third
    assert tracker.get_backend("c") is None
    assert tracker.wandb_run is None
    assert tracker.mlflow_run is None
    second.name = "wandb"
    with_run = Listed("wandb")
    with_run.run = "the run"
    assert Tracker([with_run]).wandb_run == "the run"


@pytest.mark.parametrize("missing", ["log", "log_config", "finish"])
def test_tr04_a_backend_needs_three_methods(missing):
    three = {name: lambda self, *a, **k: None for name in ("log", "log_config", "finish")}
    del three[missing]
    with pytest.raises(TypeError, match=missing):
        type("Partial", (TrackerBackend,), three)()


def test_tr04_the_other_methods_do_nothing():
    class Least(TrackerBackend):
        def log(self, metrics, step=None, *, commit=True):
            pass

        def log_config(self, config):
            pass

        def finish(self):
            pass

    backend = Least()
    assert backend.name == "base"
    assert backend.log_table("k", [], []) is None
    assert backend.log_image("k", "p") is None
    assert backend.log_artifacts({}) is None
    assert backend.watch(None) is None


def test_tr05_a_registered_backend_is_usable_by_name(registry, tmp_path):
    register_backend("mine", Listed)
    tracker = setup_tracker("p", "mine", {"lr": 1}, tmp_path, 2, extra="e")
    backend = tracker.get_backend("listed")
    assert backend.given == {
        "project_name": "p",
        "config": {"lr": 1},
        "outdir": tmp_path,
        "rank": 2,
        "extra": "e",
    }
    tracker.log({"a": 1}, 1)
    assert backend.book == [("listed", "log", {"a": 1}, 1, True)]
    tracker.finish()


def test_tr05_a_later_registration_counts(registry):
    register_backend("csv", Listed)
    assert isinstance(setup_tracker(backends="csv", rank=0).get_backend("listed"), Listed)
    with pytest.raises(ValueError, match="without commas"):
        register_backend("a,b", Listed)
    with pytest.raises(TypeError, match="wanted a class"):
        register_backend("a", "Listed")


def test_tr06_a_null_tracker_is_silent(caplog):
    tracker = NullTracker()
    call_all(tracker)
    tracker.log({})
    assert (tracker.get_backend("csv"), tracker.wandb_run, tracker.mlflow_run) == (None,) * 3
    assert not caplog.records


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("a,b", ["a", "b"]),
        (" a , b ,, ", ["a", "b"]),
        (["a", " b "], ["a", "b"]),
        ("none", []),
        ("None", []),
        ("off", []),
        ("", []),
        ([], []),
    ],
)
def test_tr07_backends_are_named_by_text_or_list(given, wanted, registry, caplog):
    assert requested(given) == wanted
    for name in "ab":
        register_backend(name, lambda name=name, **_: Listed(name))
    tracker = setup_tracker(backends=given)
    assert isinstance(tracker, NullTracker) is not wanted or bool(wanted)
    assert [name for name in "ab" if tracker.get_backend(name)] == wanted
    assert not caplog.records
    tracker.finish()


def test_tr07_none_beside_others_is_an_unknown_name(registry, caplog):
    register_backend("a", Listed)
    assert setup_tracker(backends="none,a").get_backend("listed") is not None
    assert "Tracker backend none is left out" in caplog.text


def test_tr08_the_environment_names_backends(registry, monkeypatch):
    for name in ("a", "b", "wandb"):
        register_backend(name, lambda name=name, **_: Listed(name))
    assert requested() is None
    assert setup_tracker().get_backend("wandb") is not None
    monkeypatch.setenv("EZPZ_TRACKERS", "a")
    assert setup_tracker().get_backend("a") is not None
    monkeypatch.setenv("EZPZ_TRACKER_BACKENDS", "b")
    tracker = setup_tracker()
    assert (tracker.get_backend("a"), tracker.get_backend("b") is None) == (None, False)
    assert setup_tracker(backends="a").get_backend("a") is not None
    for off in ("", "0", "false", "none"):
        monkeypatch.setenv("EZPZ_TRACKER_BACKENDS", off)
        assert isinstance(setup_tracker(), NullTracker)


def test_tr09_what_cannot_be_made_is_left_out_with_a_warning(registry, caplog, tmp_path):
    def refuse(**_: Any) -> None:
        raise ValueError("no key")

    def lack(**_: Any) -> None:
        raise MissingDependencyError("wandb is not installed; install it with: pip install x")

    register_backend("refusing", refuse)
    register_backend("lacking", lack)
    assert isinstance(setup_tracker(backends="refusing,lacking,unknown"), NullTracker)
    assert [record.getMessage() for record in caplog.records] == [
        "Tracker backend refusing is left out: ValueError: no key",
        (
            "Tracker backend lacking is left out: MissingDependencyError: wandb is not installed; "
            "install it with: pip install x"
        ),
        (
            "Tracker backend unknown is left out: LookupError: there is no such backend; there are "
            "csv, lacking, mlflow, refusing, tensorboard, trackio, wandb"
        ),
    ]
    tracker = setup_tracker(backends="refusing,csv", outdir=tmp_path, rank=0)
    assert tracker.get_backend("csv") is not None
    tracker.finish()


@pytest.mark.parametrize("name", ["mlflow", "trackio", "wandb"])
def test_tr09_a_package_that_is_missing_is_named_with_its_cure(name, tmp_path):
    script = (
        "import sys\n"
        f"sys.modules[{name!r}] = None  # as if it were not installed\n"
        "from blackboxml.tracker import setup_tracker\n"
        f"tracker = setup_tracker('p', '{name},csv', outdir={str(tmp_path)!r}, rank=0)\n"
        "tracker.log({'a': 1})\n"
        "tracker.finish()\n"
    )
    said = output(script)
    cure = f"{name} is not installed; install it with: pip install 'blackboxml[{name}]'"
    assert said == f"Tracker backend {name} is left out: MissingDependencyError: {cure}\n"
    assert (tmp_path / "metrics.csv").exists()


def test_tr10_the_rank_is_that_of_the_launcher(registry, monkeypatch):
    register_backend("mine", Listed)
    monkeypatch.setenv("RANK", "3")
    assert setup_tracker(backends="mine").get_backend("listed").given["rank"] == 3
    assert setup_tracker(backends="mine", rank=0).get_backend("listed").given["rank"] == 0


def test_x07_what_is_logged_is_what_it_was_at_the_call():
    backend = Listed()
    tracker = Tracker([backend])
    array, inner = np.zeros(3), [1, {"a": 2}]
    metrics: dict[str, Any] = {"x": np.float32(0.5), "a": array, "l": inner, "n": np.array(7)}
    tracker.log(metrics)
    tracker.log_config(metrics)
    array[0], inner[1]["a"], metrics["x"] = 9, 9, 9
    logged, config = backend.book[0][2], backend.book[1][2]
    for kept in (logged, config):
        assert kept["a"].tolist() == [0, 0, 0]
        assert kept["l"] == [1, {"a": 2}]
        assert (kept["x"], type(kept["x"])) == (0.5, float)
        assert (kept["n"], type(kept["n"])) == (7, int)


def test_x07_a_tensor_keeps_no_graph_alive():
    torch = pytest.importorskip("torch")
    backend = Listed()
    loss = torch.tensor([1.0, 2.0], requires_grad=True)
    product = loss * 3
    Tracker([backend]).log({"sum": product.sum(), "all": product})
    logged = backend.book[0][2]
    assert logged["sum"] == 9.0
    assert not logged["all"].requires_grad
    with torch.no_grad():
        product.zero_()
    assert logged["all"].tolist() == [3.0, 6.0]


def test_a_backend_cannot_alter_what_the_others_get():
    class Greedy(Listed):
        def log(self, metrics, step=None, *, commit=True):
            metrics.clear()

    last = Listed()
    Tracker([Greedy("greedy"), last]).log({"a": 1})
    assert last.book[0][2] == {"a": 1}


def test_names_are_texts_and_steps_are_plain_numbers():
    backend = Listed()
    Tracker([backend]).log({3: 0.5}, step=np.int64(7))
    ((_, _, metrics, step, _),) = backend.book
    assert (metrics, step, type(step)) == ({"3": 0.5}, 7, int)


def test_a_configuration_may_be_a_namespace():
    backend = Listed()
    Tracker([backend]).log_config(argparse.Namespace(lr=0.1))
    assert backend.book == [("listed", "log_config", {"lr": 0.1})]


def test_wrong_arguments_are_refused():
    with pytest.raises(TypeError, match="metrics is a list"):
        NullTracker().log([1])
    with pytest.raises(TypeError, match="config is a int"):
        NullTracker().log_config(3)


def test_finishing_twice_finishes_once_and_later_calls_are_said_once(caplog):
    backend = Listed()
    with Tracker([backend]) as tracker:
        tracker.finish()
    tracker.log({"a": 1})
    tracker.log({"a": 1})
    assert backend.book == [("listed", "finish")]
    assert [record.getMessage() for record in caplog.records] == [
        "Tracker.log() was called after finish(); it is not passed on"
    ]


SCRIPT = """
import os, sys
from blackboxml.tracker import Tracker, TrackerBackend

class Told(TrackerBackend):
    name = "told"
    slow = SLOW
    def log(self, metrics, step=None, commit=True):
        print("log", flush=True)
    def log_config(self, config):
        pass
    def finish(self):
        print("finish", flush=True)

tracker = Tracker([Told()])
tracker.log({"a": 1})
"""


def output(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("slow", [False, True])
def test_a_script_that_ends_without_finish_is_finished(slow):
    assert output(SCRIPT.replace("SLOW", str(slow))) == "log\nfinish\n"


@pytest.mark.parametrize("slow", [False, True])
def test_a_forked_process_passes_nothing_on(slow):
    forking = """
child = os.fork()
if child == 0:
    tracker.log({"a": 2})
    tracker.finish()
    sys.exit()
os.waitpid(child, 0)
"""
    said = output(SCRIPT.replace("SLOW", str(slow)) + forking)
    assert sorted(said.splitlines()) == [
        "Tracker.log() was called by a forked process; it is not passed on",
        "finish",
        "log",
    ]


def test_importing_the_tracker_loads_no_package_of_a_backend():
    loaded = output(
        "import sys, json, blackboxml.tracker\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    heavy = {"mlflow", "wandb", "trackio", "tensorboard", "torch", "numpy", "pyarrow"}
    assert not heavy & set(json.loads(loaded))


def test_every_backend_of_the_table_is_there():
    for name in backends.BACKENDS:
        assert backends.backend(name).name == name
        assert issubclass(backends.backend(name), TrackerBackend)


def test_messages_go_to_the_logger_of_the_package(caplog):
    with Tracker([Raising("bad")]) as tracker:
        tracker.log({})
    assert {record.name for record in caplog.records} == {"blackboxml"}
    assert caplog.records[0].levelno == logging.WARNING
