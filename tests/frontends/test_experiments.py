"""Experiments, by the rows of what users of simplegrad's Tracker rely on."""

from __future__ import annotations

import base64
import logging
import math
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pytest

from blackboxml import Run, open_run, validate
from blackboxml.conversion import convert
from blackboxml.errors import MetricError, RunStateError
from blackboxml.frontends.experiments import ExperimentDBManager, RecordInfo, RunInfo, Tracker
from blackboxml.frontends.experiments.graph import build_graph
from blackboxml.frontends.experiments.number import FOLDER, claim
from blackboxml.frontends.experiments.visual import plot, scatter

if TYPE_CHECKING:
    from collections.abc import Iterator

mpl.use("agg")


@pytest.fixture
def tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tracker]:
    """A tracker with an experiment."""
    monkeypatch.chdir(tmp_path)  # where git has nothing to say
    made = Tracker(tmp_path / "experiments")
    made.set_experiment("mnist")
    yield made
    if made.current_run_id is not None:
        made.end_run()


def path_of(tracker: Tracker, name: str) -> Path:
    """The directory of a run."""
    assert tracker.cur_exp_path is not None
    (found,) = tracker.cur_exp_path.glob(f"{name}_2*")
    return found


# ---- experiments


def test_sg01_the_folder_of_experiments_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Tracker().all_exp_dir == Path("experiments")
    assert (tmp_path / "experiments").is_dir()
    Tracker(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


def test_sg02_an_experiment_is_begun_or_gone_on_with(tracker: Tracker) -> None:
    first = tracker.start_run("a")
    tracker.end_run()
    for name in ("mnist.db", "mnist"):
        tracker.set_experiment(name)
        assert tracker.cur_exp_path == tracker.all_exp_dir / "mnist"
        assert [run.run_id for run in tracker.get_all_runs()] == [first]
    for name in ("a/b", "../up", "", ".db", ".hidden", "a\\b", "a\0b"):
        with pytest.raises(ValueError, match="experiment"):
            tracker.set_experiment(name)
    assert tracker.cur_exp_path == tracker.all_exp_dir / "mnist"


def test_sg03_experiments_are_listed_and_their_folder_is_switched(
    tracker: Tracker, tmp_path: Path
) -> None:
    tracker.set_experiment("cifar")
    assert [path.name for path in tracker.get_all_exp_paths()] == ["cifar", "mnist"]
    tracker.set_all_exp_dir(str(tmp_path / "other"))
    assert tracker.get_all_exp_paths() == []
    with pytest.raises(RunStateError, match="set_experiment"):
        tracker.get_all_runs()
    tracker.set_experiment("new")
    assert [path.parent.name for path in tracker.get_all_exp_paths()] == ["other"]


# ---- runs


def test_sg04_numbers_of_runs_increase_and_are_not_given_again(tracker: Tracker) -> None:
    one = tracker.start_run("first", {"lr": 0.1})
    tracker.end_run()
    two = tracker.start_run(run_name="second", hparams={"lr": 0.2, "layers": (1, 2)})
    tracker.end_run()
    assert (one, two) == (1, 2)
    run = tracker.get_run(two)
    assert run is not None
    assert (run.name, run.config) == ("second", {"lr": 0.2, "layers": (1, 2)})
    tracker.delete_run(two)
    again = Tracker(tracker.all_exp_dir)
    again.set_experiment("mnist")
    assert again.start_run() == 3
    again.end_run()


def test_sg04_the_number_of_a_run_stays_where_nobody_kept_the_claims(tracker: Tracker) -> None:
    for name in "abc":
        with tracker.run(name):
            pass
    assert tracker.cur_exp_path is not None
    for claimed in (tracker.cur_exp_path / FOLDER).iterdir():
        claimed.unlink()
    assert {run.run_id: run.name for run in tracker.get_all_runs()} == {1: "a", 2: "b", 3: "c"}
    with tracker.run("d") as number:
        assert number == 4


def test_sg04_numbers_are_claimed_once_by_all_processes(tmp_path: Path) -> None:
    code = """
        import sys
        from pathlib import Path
        from blackboxml.frontends.experiments.number import claim
        for _ in range(150):
            print(claim(Path(sys.argv[1]), lambda: 7))
    """
    children = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), tmp_path], stdout=subprocess.PIPE
        )
        for _ in range(4)
    ]
    found = [[int(line) for line in child.communicate()[0].split()] for child in children]
    assert sorted(number for each in found for number in each) == list(range(8, 608))
    assert all(each == sorted(each) for each in found)
    assert len(list((tmp_path / FOLDER).iterdir())) < 110


def test_sg04_a_number_that_was_given_and_forgotten_is_not_given_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(300):
        claim(tmp_path, lambda: 0)
    genuine, listed = os.listdir, iter([["5"]])  # one process listed the files long ago
    monkeypatch.setattr(os, "listdir", lambda path: next(listed, None) or genuine(path))
    assert claim(tmp_path, lambda: 0) == 301


def test_sg04_runs_that_something_else_recorded_have_numbers_too(tracker: Tracker) -> None:
    with tracker.run("own"):
        tracker.record("loss", 1.0, 0)
    assert tracker.cur_exp_path is not None
    with Run("other", log_dir=tracker.cur_exp_path) as run:
        run.log({"loss": 2.0}, step=3)
    numbers = {info.name: info.run_id for info in tracker.get_all_runs()}
    assert numbers["own"] == 1
    assert 2**31 <= numbers["other"] < 2**32
    assert tracker.get_records(numbers["other"], "loss")[0].value == 2.0
    again = ExperimentDBManager(tracker.cur_exp_path)
    assert {info.name: info.run_id for info in again.get_all_runs()} == numbers


def test_sg05_a_run_without_a_name_has_the_same_one_everywhere(tracker: Tracker) -> None:
    number = tracker.start_run()
    name = tracker.current_run_name
    run = tracker.get_run(number)
    assert run is not None
    assert name == run.name == "run_1"
    assert open_run(path_of(tracker, "run_1")).name == name


def test_sg06_a_run_needs_an_experiment(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"set_experiment\(name\)"):
        Tracker(tmp_path).start_run()


@pytest.mark.parametrize("error", [ValueError("bad batch"), KeyboardInterrupt(), SystemExit(3)])
def test_sg07_a_block_that_raises_is_a_failed_run(tracker: Tracker, error: BaseException) -> None:
    def train() -> None:
        with tracker.run("fails"):
            tracker.record("loss", 1.0, 0)
            raise error

    with pytest.raises(type(error)):
        train()
    found = open_run(path_of(tracker, "fails"))
    assert found.status == "failed"
    assert found.manifest["exception"]["type"] == type(error).__name__
    assert tracker.current_run_id is None


def test_sg07_a_block_that_ends_its_run_itself_is_respected(tracker: Tracker) -> None:
    with tracker.run("whole") as number:
        tracker.record("loss", 1.0, 0)
    assert tracker.get_run(number).status == "completed"  # type: ignore[union-attr]
    with tracker.run("own") as number:
        tracker.end_run("failed")
    assert tracker.get_run(number).status == "failed"  # type: ignore[union-attr]
    with tracker.run("outer"):
        tracker.end_run()
        inner = tracker.start_run("inner")
    assert tracker.current_run_id == inner


# ---- recording


def test_sg08_values_are_kept_with_step_and_time(tracker: Tracker) -> None:
    with pytest.raises(RuntimeError, match=r"No active run. Call start_run\(\) first."):
        tracker.record("loss", 1.0, 0)
    number = tracker.start_run()
    before = time.time()
    tracker.record("loss", 0.5, 3)
    tracker.record("loss", np.float32(0.25), np.int64(4))
    tracker.record(metric_name="big", value=2**53 + 1, step=0)
    tracker.record("diverged", math.nan, 0)
    tracker.record("diverged", -math.inf, 1)
    found = tracker.get_records(number, "loss")
    assert [(each.step, each.value) for each in found] == [(3, 0.5), (4, 0.25)]
    assert all(isinstance(each, RecordInfo) for each in found)
    assert before <= found[0].log_time <= found[1].log_time <= time.time()
    assert tracker.get_records(number, "big")[0].value == 2**53 + 1
    assert repr([each.value for each in tracker.get_records(number, "diverged")]) == "[nan, -inf]"


@pytest.mark.parametrize("value", ["hello", None, [1.0], b"\0\0\x80\x3e", 2**70, 1j])
def test_sg08_what_is_no_number_is_refused_by_name(tracker: Tracker, value: Any) -> None:
    number = tracker.start_run()
    with pytest.raises(MetricError, match="poison"):
        tracker.record("poison", value, 0)
    with pytest.raises(MetricError, match="step"):
        tracker.record("loss", 1.0, 1.5)  # type: ignore[arg-type]
    tracker.record("loss", 1.0, 1)
    assert list(tracker.summary(number)) == ["loss"]


def test_sg09_several_values_are_logged_at_once(tracker: Tracker) -> None:
    number = tracker.start_run()
    tracker.log({"train_loss": 1.0, "val/acc": 0.5}, step=7)
    tracker.log({"train_loss": 0.5})
    assert [each.step for each in tracker.get_records(number, "train_loss")] == [7, 8]
    assert tracker.get_metrics(number) == ["train_loss", "val/acc"]


def test_sg10_histograms(tracker: Tracker) -> None:
    number = tracker.start_run()
    values = np.array([0.0, 1.0, 2.0, 3.0, np.nan, np.inf])
    tracker.histogram("w", values, 5)
    tracker.histogram("w", [[1, 1], [2, 2]], 4, bins=2)
    tracker.histogram("empty", np.zeros(0), 0)
    assert tracker.db_manager is not None
    found = tracker.db_manager.get_histograms(number)
    small, large = found["w"]
    assert (small["step"], small["bucket_counts"]) == (4, [2, 2])
    assert (len(large["bucket_edges"]), sum(large["bucket_counts"])) == (31, 4)
    assert large["nonfinite"] == 2
    assert large["log_time"] > 0
    assert sum(found["empty"][0]["bucket_counts"]) == 0


class Lazy:
    """A tensor as simplegrad's lazy mode makes it."""

    def realize(self) -> np.ndarray[Any, Any]:
        return np.array([1.0, 2.0])


def test_sg10_a_lazy_tensor_is_realized(tracker: Tracker) -> None:
    number = tracker.start_run()
    tracker.histogram("w", Lazy(), 0, bins=1)
    assert tracker.db_manager is not None
    assert tracker.db_manager.get_histograms(number)["w"][0]["bucket_counts"] == [2]


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 1), (4, 6, 3), (4, 6, 4)])
def test_sg11_images_come_back_pixel_for_pixel(tracker: Tracker, shape: tuple[int, ...]) -> None:
    number = tracker.start_run()
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    tracker.image("sample", pixels, 2)
    tracker.image("sample", pixels / 255, 1)
    assert tracker.db_manager is not None
    floats, whole = tracker.db_manager.get_images(number)["sample"]
    for found in (floats, whole):
        assert (found["width"], found["height"]) == (6, 4)
        assert found["channels"] == (shape[2] if len(shape) == 3 else 1)
        assert base64.b64decode(found["data_b64"]) == pixels.tobytes()


@pytest.mark.parametrize(
    "image",
    [
        np.zeros(4),
        np.zeros((2, 2, 2, 2)),
        np.full((2, 2), 300),
        np.full((2, 2), -1),
        np.full((2, 2), 1.5),
        np.full((2, 2), np.nan),
    ],
)
def test_sg11_what_is_no_image_is_refused(tracker: Tracker, image: Any) -> None:
    tracker.start_run()
    with pytest.raises(ValueError, match="sample"):
        tracker.image("sample", image, 0)


def test_sg12_texts(tracker: Tracker) -> None:
    number = tracker.start_run()
    long = "äöü 🎉\n" * 10_000
    tracker.text("notes", long, 3)
    tracker.text("notes", 42, 1)
    tracker.text("samples", "one", 1)
    assert tracker.db_manager is not None
    found = tracker.db_manager.get_texts(number)
    assert [(each["step"], each["content"]) for each in found["notes"]] == [(1, "42"), (3, long)]
    assert [each["content"] for each in found["samples"]] == ["one"]


# ---- graphs


class Tensor:
    """A tensor of simplegrad's shape; it is on no package index (simplegrad/core/autograd.py)."""

    def __init__(self, label: str | None = None, prev: Any = (), oper: str | None = None) -> None:
        self.label, self.prev, self.oper = label, set(prev), oper
        self.shape, self.comp_grad, self.is_leaf = (2, 3), True, oper is None

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return hash(id(self))


def network() -> Tensor:
    """A small computation, whose parents are sets in the order of addresses."""
    x, w, b = Tensor("x"), Tensor("w"), Tensor("b")
    product = Tensor(None, [x, w], "@")
    total = Tensor(None, [product, b], "+")
    return Tensor("loss", [total, x], "*")


def test_sg13_a_graph_has_simplegrads_nodes_and_edges(tracker: Tracker) -> None:
    number = tracker.start_run()
    tracker.save_comp_graph(network())
    (saved,) = tracker.get_comp_graphs(number)
    nodes, edges = saved["graph"]["nodes"], saved["graph"]["edges"]
    assert nodes[0] == {
        "id": "t0",
        "type": "tensor",
        "label": "loss",
        "shape": [2, 3],
        "comp_grad": True,
        "is_leaf": False,
    }
    assert nodes[1] == {"id": "t0_*", "type": "operation", "label": "*"}
    assert sorted(node["label"] for node in nodes if node["type"] == "tensor") == [
        *("", "", "b", "loss", "w", "x")
    ]
    assert len(nodes) == 9
    assert len(edges) == 9
    names = {node["id"] for node in nodes}
    assert all({edge["source"], edge["target"]} <= names for edge in edges)
    assert {"source": "t0_*", "target": "t0"} in edges
    assert tracker.get_comp_graph(saved["id"]) == saved["graph"]
    assert tracker.get_comp_graph(12345) is None


def test_sg13_a_run_has_several_graphs_whose_ids_are_stable(tracker: Tracker) -> None:
    assert len({repr(build_graph(network())) for _ in range(20)}) == 1
    number = tracker.start_run()
    for _ in range(2):
        tracker.save_comp_graph(network())
    tracker.end_run()
    tracker.save_comp_graph(Tensor("later"), run_id=number)
    one, two, later = tracker.get_comp_graphs(number)
    assert one["graph"] == two["graph"] != later["graph"]
    assert len({one["id"], two["id"], later["id"]}) == 3
    assert [each["id"] for each in tracker.get_comp_graphs(number)][:2] == [one["id"], two["id"]]
    with pytest.raises(MetricError, match="grad_fn"):
        tracker.save_comp_graph(3.0, run_id=number)
    tracker.db_manager.update_run_status(number, "completed")  # type: ignore[union-attr]


def test_sg13_a_graph_may_be_deep(tracker: Tracker) -> None:
    number = tracker.start_run()
    tensor = Tensor("x")
    for _ in range(100_000):
        tensor = Tensor(None, [tensor], "+")
    tracker.save_comp_graph(tensor)
    (saved,) = tracker.get_comp_graphs(number)
    assert len(saved["graph"]["nodes"]) == 200_001
    while tensor.prev:  # a chain that Python takes apart itself is too deep for it
        (tensor.prev, tensor) = set[Any](), next(iter(tensor.prev))


def test_sg13_torchs_autograd_graph() -> None:
    import torch

    x = torch.ones(2, 3)
    w = torch.ones(3, 4, requires_grad=True)
    parts = (x @ w).relu().chunk(2, 1)
    graph = build_graph((parts[0] * parts[1] + parts[0]).sum())
    labels = [node["label"] for node in graph["nodes"] if node["type"] == "operation"]
    assert sorted(labels) == ["Add", "Mm", "Mul", "Relu", "Split", "Split", "Sum"]
    (leaf,) = (node for node in graph["nodes"] if node.get("is_leaf"))
    assert (leaf["shape"], leaf["comp_grad"]) == ([3, 4], True)
    shapes = {edge["target"] for edge in graph["edges"]}
    assert leaf["id"] not in shapes
    assert build_graph(x)["nodes"][0]["comp_grad"] is False
    assert [node["shape"] for node in build_graph(w)["nodes"]] == [[3, 4]]

    deep = torch.ones(1, requires_grad=True)
    for _ in range(100_000):
        deep = deep + 1
    assert len(build_graph(deep)["nodes"]) == 200_001


# ---- ends


def test_sg14_a_run_ends_once_with_a_status_there_is(tracker: Tracker) -> None:
    number = tracker.start_run()
    for status in ("done", "interrupted", ""):
        with pytest.raises(ValueError, match="completed, failed, running"):
            tracker.end_run(status)
    tracker.record("loss", 1.0, 0)
    assert tracker.end_run("failed") == number
    assert tracker.get_run(number).status == "failed"  # type: ignore[union-attr]
    with pytest.raises(RuntimeError, match="No active run"):
        tracker.end_run()
    going = tracker.start_run("going")
    assert tracker.end_run("running") == going
    assert tracker.get_run(going).status == "running"  # type: ignore[union-attr]
    manager = tracker.db_manager
    assert manager is not None
    manager.record(going, "loss", 4, 1.0)
    manager.update_run_status(going, "completed")
    assert tracker.get_run(going).status == "completed"  # type: ignore[union-attr]


def test_sg14_a_run_that_is_left_is_interrupted(
    tracker: Tracker, caplog: pytest.LogCaptureFixture
) -> None:
    first = tracker.start_run("first")
    second = tracker.start_run("second")
    assert tracker.get_run(first).status == "interrupted"  # type: ignore[union-attr]
    tracker.set_experiment("other")
    tracker.set_experiment("mnist")
    assert tracker.get_run(second).status == "interrupted"  # type: ignore[union-attr]
    assert "run 1 was not ended" in caplog.text


def test_sg15_runs_are_described_newest_first(tracker: Tracker) -> None:
    tracker.start_run("fails", {"x": 1})
    tracker.log({"a": 1.0, "b": 2.0}, 0)
    tracker.record("a", 1.0, 1)
    tracker.end_run("failed")
    number = tracker.start_run("runs")
    tracker.record("m", 1.0, 0)
    runs = tracker.get_all_runs()
    assert [run.run_id for run in runs] == [number, 1]
    assert isinstance(runs[1], RunInfo)
    assert (runs[1].num_records, runs[1].metrics) == ([2, 1], ["a", "b"])
    assert (runs[0].status, runs[0].num_records, runs[0].metrics) == ("running", [1], ["m"])
    assert (runs[1].status, runs[1].config, runs[0].config) == ("failed", {"x": 1}, {})
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", runs[0].created_at)
    assert runs[0].created_at <= f"{time.strftime('%Y-%m-%d %H:%M:%S')}"
    assert tracker.get_run(99) is None
    assert tracker.get_metrics(99) == []


def test_sg15_a_killed_run_is_seen_with_what_it_left(tracker: Tracker) -> None:
    code = """
        import sys, time
        from blackboxml.frontends.experiments import Tracker
        tracker = Tracker(sys.argv[1])
        tracker.set_experiment("mnist")
        tracker.start_run("killed", {"x": 1})
        for step in range(10):
            tracker.record("loss", 1 / (step + 1), step)
        tracker.text("notes", "about to go", 9)
        print("ready", flush=True)
        time.sleep(60)
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), tracker.all_exp_dir], stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    (run,) = tracker.get_all_runs()
    assert (run.status, run.num_records) == ("running", [10])
    with pytest.raises(RunStateError, match="another process"):
        tracker.delete_run(run.run_id)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    (run,) = tracker.get_all_runs()
    assert (run.status, run.num_records, run.config) == ("crashed", [10], {"x": 1})
    assert len(tracker.get_records(run.run_id, "loss")) == 10
    assert tracker.db_manager is not None
    assert tracker.db_manager.get_texts(run.run_id)["notes"][0]["content"] == "about to go"


def test_sg16_names_and_records_by_step(tracker: Tracker) -> None:
    number = tracker.start_run()
    for step in (3, 1, 2):
        tracker.log({"a": step * 10, "g/b": -step}, step)
    found = tracker.get_results(number)
    assert list(found) == tracker.get_metrics(number) == ["a", "g/b"]
    assert [(each.step, each.value) for each in found["a"]] == [(1, 10), (2, 20), (3, 30)]
    assert tracker.get_records(number, "g/b") == found["g/b"]
    assert tracker.get_records(number, "none") == []


def test_sg17_statistics(tracker: Tracker) -> None:
    number = tracker.start_run()
    for step, value in ((0, 2.5), (10, 3.5), (1, 1.5), (10, 0.5), (2, math.nan)):
        tracker.record("loss", value, step)
    said = tracker.summary()["loss"]
    assert said == {
        "min": 0.5,
        "max": 3.5,
        "mean": 2.0,
        "std": pytest.approx(1.118033988749895),
        "last": 0.5,
        "n": 5,
        "first_step": 0,
        "last_step": 10,
        "nonfinite": 1,
    }
    tracker.end_run()
    assert tracker.summary(number)["loss"] == said
    with pytest.raises(RuntimeError, match="No active run"):
        tracker.summary()
    assert tracker.summary(99) == {}


def test_sg18_a_deleted_run_is_gone_and_the_others_stay(tracker: Tracker) -> None:
    for name in "ab":
        with tracker.run(name):
            tracker.record("loss", 1.0, 0)
    gone = path_of(tracker, "a")
    tracker.delete_run(1)
    assert not gone.exists()
    assert tracker.get_run(1) is None
    assert tracker.get_results(1) == {}
    assert [run.run_id for run in tracker.get_all_runs()] == [2]
    tracker.delete_run(1)
    number = tracker.start_run("current")
    tracker.delete_run(number)
    assert tracker.current_run_id is None
    assert [run.run_id for run in tracker.get_all_runs()] == [2]
    assert tracker.cur_exp_path is not None
    assert not [name for name in os.listdir(tracker.cur_exp_path) if name.startswith(".tmp-")]


def test_sg19_what_comes_twice_is_kept_twice(tracker: Tracker) -> None:
    numbers = []
    for _ in range(2):
        with tracker.run("same") as number:
            numbers.append(number)
            for step, value in ((5, 1.0), (5, 2.0), (2, 3.0), (5, 4.0)):
                tracker.record("loss", value, step)
    assert [run.name for run in tracker.get_all_runs()] == ["same", "same"]
    for number in numbers:
        found = [(each.step, each.value) for each in tracker.get_records(number, "loss")]
        assert found == [(2, 3.0), (5, 1.0), (5, 2.0), (5, 4.0)]


def test_sg20_the_manager_has_simplegrads_methods(tmp_path: Path) -> None:
    manager = ExperimentDBManager(tmp_path / "deep" / "exp.db")
    assert not manager.check_connection()
    manager.init_exp_db()
    assert manager.check_connection()
    assert (tmp_path / "deep" / "exp").is_dir()
    number = manager.create_run(name="by hand", config={"lr": 1})
    manager.record(number, "loss", 3, 0.5)
    manager.save_histogram(number, "h", 1, [0.0, 1.0, 2.0], [3, 4])
    manager.save_image(number, "i", 1, 2, 1, 3, bytes(range(6)))
    manager.save_image(number, "i", 2, 1, 1, 2, b"ab")
    manager.save_text(number, "t", 1, "text")
    manager.save_comp_graph(number, {"nodes": [{"id": "a"}], "edges": []})
    assert [run.run_id for run in manager.get_all_runs()] == [number]
    assert manager.get_run(number).name == "by hand"  # type: ignore[union-attr]
    assert manager.get_metrics(number) == ["loss"]
    assert manager.get_records(number, "loss")[0].step == 3
    assert manager.get_metric_summary(number)["loss"]["n"] == 1
    assert manager.get_histograms(number)["h"][0]["bucket_edges"] == [0.0, 1.0, 2.0]
    images = manager.get_images(number)["i"]
    assert [base64.b64decode(each["data_b64"]) for each in images] == [bytes(range(6)), b"ab"]
    assert [each["channels"] for each in images] == [3, 2]
    assert manager.get_texts(number)["t"][0]["content"] == "text"
    graph = manager.get_comp_graphs(number)[0]
    assert manager.get_comp_graph(graph["id"]) == {"nodes": [{"id": "a"}], "edges": []}
    with pytest.raises(ValueError, match="0 bytes"):
        manager.save_image(number, "i", 1, 2, 1, 3, b"")
    with pytest.raises(ValueError, match="wanted one of"):
        manager.update_run_status(number, "done")
    manager.update_run_status(number, "completed")
    assert manager.get_run(number).status == "completed"  # type: ignore[union-attr]
    manager.record(number, "loss", 4, 0.25)
    assert manager.get_run(number).status == "running"  # type: ignore[union-attr]
    manager.update_run_status(number, "failed")
    assert manager.get_run(number).status == "failed"  # type: ignore[union-attr]
    assert len(manager.get_records(number, "loss")) == 2
    with pytest.raises(RunStateError, match="no run 77"):
        manager.record(77, "loss", 0, 0.5)
    manager.delete_run(number)
    assert manager.get_all_runs() == []


# ---- with the rest of the house


def test_sg20_runs_are_whole_and_go_to_simplegrads_database_and_back(
    tracker: Tracker, tmp_path: Path
) -> None:
    with tracker.run("first", {"lr": 0.1}):
        tracker.log({"loss": 0.5, "acc": 1}, 0)
        tracker.image("i", np.zeros((2, 2, 3), np.uint8), 0)
        tracker.histogram("h", [1.0, 2.0], 0)
        tracker.text("t", "text", 0)
        tracker.save_comp_graph(network())
    path = path_of(tracker, "first")
    assert validate(path).ok
    database = tmp_path / "out.db"
    assert convert(path, database).ok
    assert tracker.cur_exp_path is not None
    back = tmp_path / "experiments" / "back"
    assert convert(database, back).ok
    tracker.set_experiment("back")
    (run,) = tracker.get_all_runs()
    assert (run.run_id, run.name, run.config, run.metrics) == (
        *(1, "first", {"lr": 0.1}),
        ["loss", "acc"],
    )
    assert len(tracker.get_comp_graphs(1)) == 1
    assert tracker.db_manager is not None
    assert tracker.db_manager.get_images(1)["i"][0]["channels"] == 3


def test_sg23_processes_record_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    code = """
        import sys
        from blackboxml.frontends.experiments import Tracker
        tracker = Tracker(sys.argv[1])
        tracker.set_experiment("shared")
        with tracker.run(f"writer {sys.argv[2]}") as number:
            for step in range(300):
                tracker.record("loss", step + number / 1000, step)
    """
    children = [
        subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), tmp_path, str(name)])
        for name in range(8)
    ]
    assert [child.wait() for child in children] == [0] * 8
    tracker = Tracker(tmp_path)
    tracker.set_experiment("shared")
    runs = tracker.get_all_runs()
    assert sorted(run.run_id for run in runs) == list(range(1, 9))
    for run in runs:
        found = tracker.get_records(run.run_id, "loss")
        assert [each.value for each in found] == [step + run.run_id / 1000 for step in range(300)]
        assert run.status == "completed"


def test_a_folder_that_cannot_be_written_does_not_stop_the_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = Tracker(tmp_path / "experiments")
    tracker.set_experiment("lost")
    (tmp_path / "experiments" / "lost").rmdir()
    (tmp_path / "experiments" / "lost").write_text("no folder")
    number = tracker.start_run("unwritten")
    tracker.record("loss", 1.0, 0)
    tracker.text("notes", "kept nowhere", 0)
    assert number >= 2**31
    assert tracker.end_run() == number
    assert "training goes on" in caplog.text


@pytest.mark.parametrize("draw", [plot, scatter])
@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_sg34_any_number_of_metrics_is_drawn(tmp_path: Path, draw: Any, count: int) -> None:
    results = {
        f"m{place}": [RecordInfo(step, step * 0.5, 0.0) for step in range(100)]
        for place in range(count)
    }
    figure = draw(results, path=tmp_path / "out.png", cell_w=2, cell_h=1)
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    drawn = [axes.get_title() for axes in figure.axes if axes.axison]
    assert drawn == list(results)
    figure = draw(results, ["m0", "none"], num_cols=1, color="red")
    assert [axes.get_title() for axes in figure.axes] == ["m0", "none"]


def test_nothing_is_printed(tracker: Tracker, capfd: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("blackboxml").setLevel(logging.INFO)
    tracker.set_experiment("quiet")
    with tracker.run():
        tracker.save_comp_graph(Tensor("x"))
    assert capfd.readouterr().out == ""
