"""The recorder for scikit-learn, on real searches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, cross_validate
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from blackboxml import Run, open_run, validate
from blackboxml.collection import find_runs
from blackboxml.frontends.sklearn import BlackBoxRecorder

if TYPE_CHECKING:
    from pathlib import Path

X, Y = load_iris(return_X_y=True)


def test_each_candidate_of_a_search_is_a_step_and_a_row(tmp_path: Path) -> None:
    recorder = BlackBoxRecorder("svm", ["x"], tmp_path, config={"data": "iris"})
    grid = {"svc__C": [0.1, 1, np.int64(10)], "svc__kernel": ["linear", "rbf"]}
    search = GridSearchCV(make_pipeline(StandardScaler(), SVC()), grid, cv=3)
    assert recorder.fit(search, X, Y) is search
    reader = open_run(recorder.run.path)
    assert (reader.tags, reader.status) == (["x"], "completed")
    results = search.cv_results_
    records = list(reader.records())
    assert [record.step for record in records] == list(range(6))
    for number, record in enumerate(records):
        for name in ("mean_test_score", "std_test_score", "rank_test_score", "split2_test_score"):
            assert record.metrics[f"cv/{name}"] == results[name][number]
        assert record.metrics["params/svc__C"] == results["params"][number]["svc__C"]
    (table,) = reader.media()
    assert table.value["columns"][:2] == ["svc__C", "svc__kernel"]
    assert [row[:2] for row in table.value["rows"]] == [
        [params["svc__C"], params["svc__kernel"]] for params in results["params"]
    ]
    config = reader.config
    assert config["data"] == "iris"
    assert config["best_params"] == search.best_params_
    assert config["estimator"]["name"] == "GridSearchCV"
    assert config["estimator"]["params"]["cv"] == 3
    assert config["estimator"]["params"]["estimator__svc"] == "SVC"
    assert config["estimator"]["params"]["estimator__svc__C"] == 1.0
    assert validate(recorder.run.path).ok


def test_a_search_by_halving_tells_of_its_iterations(tmp_path: Path) -> None:
    recorder = BlackBoxRecorder("halving", log_dir=tmp_path)
    search = HalvingGridSearchCV(SVC(), {"C": [0.01, 0.1, 1, 10]}, cv=2, random_state=0)
    recorder.fit(search, X, Y)
    found = [record.metrics["cv/iter"] for record in open_run(recorder.run.path).records()]
    assert found == list(search.cv_results_["iter"])
    assert len(set(found)) > 1


def test_each_fold_is_a_step(tmp_path: Path) -> None:
    recorder = BlackBoxRecorder("folds", log_dir=tmp_path)
    options: dict[str, Any] = {"cv": 3, "scoring": ["accuracy", "f1_macro"]}
    scores = recorder.cross_validate(SVC(C=2.5), X, Y, return_estimator=True, **options)
    expected = cross_validate(SVC(C=2.5), X, Y, **options)
    found = [record.metrics for record in open_run(recorder.run.path).records()]
    for name in ("test_accuracy", "test_f1_macro"):
        assert [metrics[f"cv/{name}"] for metrics in found] == list(scores[name])
        assert list(scores[name]) == list(expected[name])
    assert len(scores["estimator"]) == 3
    assert open_run(recorder.run.path).config["estimator"]["params"]["C"] == 2.5


def test_the_curve_of_a_training_is_recorded(tmp_path: Path) -> None:
    recorder = BlackBoxRecorder("mlp", log_dir=tmp_path)
    network = MLPRegressor(
        hidden_layer_sizes=[4], max_iter=500, tol=0.1, early_stopping=True, random_state=0
    )
    recorder.fit(network, X[:, :3], X[:, 3])
    found = [record.metrics for record in open_run(recorder.run.path).records()]
    assert [metrics["train/loss_curve"] for metrics in found] == network.loss_curve_
    assert [metrics["train/validation_scores"] for metrics in found] == network.validation_scores_
    assert len(found) < 500  # an early stop


class BadSVC(SVC):
    """Fails in one of the fits."""

    def fit(self, X: Any, y: Any) -> Any:  # noqa: N803
        if self.C == 2:
            raise ValueError("bad fold")
        return super().fit(X, y)


CALLS = {
    "search": lambda recorder: recorder.fit(
        GridSearchCV(BadSVC(), {"C": [1, 2]}, error_score="raise"), X, Y
    ),
    "folds": lambda recorder: recorder.cross_validate(BadSVC(C=2), X, Y, error_score="raise"),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_crash_is_recorded(tmp_path: Path, call: Any) -> None:
    recorder = BlackBoxRecorder("r", log_dir=tmp_path)
    with pytest.raises(ValueError, match="bad fold"):
        call(recorder)
    reader = open_run(recorder.run.path)
    assert reader.status == "failed"
    assert reader.manifest["exception"]["message"] == "bad fold"


def test_an_interrupt_is_no_failure(tmp_path: Path) -> None:
    class Interrupted(SVC):
        def fit(self, X: Any, y: Any) -> Any:  # noqa: N803
            raise KeyboardInterrupt

    recorder = BlackBoxRecorder("r", log_dir=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        recorder.fit(Interrupted(), X, Y)
    assert open_run(recorder.run.path).status == "interrupted"


def test_each_call_is_a_run_of_its_own_and_a_given_run_stays_open(tmp_path: Path) -> None:
    recorder = BlackBoxRecorder("r", log_dir=tmp_path)
    for _ in range(2):
        recorder.cross_validate(LogisticRegression(max_iter=1000), X, Y, cv=2)
    assert len(list(find_runs(tmp_path))) == 2
    with Run("mine", log_dir=tmp_path) as run:
        BlackBoxRecorder(run=run).cross_validate(SVC(), X, Y, cv=2)
        assert run.status == "running"
    assert [record.step for record in open_run(run.path).records()] == [0, 1]
