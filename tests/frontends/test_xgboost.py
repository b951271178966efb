"""The callback for XGBoost, on real trainings on the CPU."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import xgboost
from sklearn.base import clone

from blackboxml import Run, open_run, validate
from blackboxml.collection import find_runs
from blackboxml.frontends.xgboost import BlackBoxCallback

if TYPE_CHECKING:
    from pathlib import Path

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(60, 3))
Y = (X[:, 0] > 0).astype(int)
PARAMS = {"objective": "binary:logistic", "max_depth": 2, "eta": 0.5, "nthread": 1}


def data() -> xgboost.DMatrix:
    return xgboost.DMatrix(X, Y)


def train(
    callbacks: list[Any], rounds: int = 4, eval_metric: str = "logloss", **options: Any
) -> Any:
    train = data()
    return xgboost.train(
        PARAMS | {"eval_metric": eval_metric},
        train,
        num_boost_round=rounds,
        evals=[(train, "train"), (data(), "valid")],
        callbacks=callbacks,
        verbose_eval=False,
        **options,
    )


def steps(run: Run, view: Any = "effective") -> list[int]:
    return [record.step for record in open_run(run.path).records(view)]


def test_each_round_is_a_step(tmp_path: Path) -> None:
    callback = BlackBoxCallback("trees", ["x"], tmp_path, config={"eta": 0.5})
    result: dict[str, Any] = {}
    train([callback], evals_result=result)
    reader = open_run(callback.run.path)
    assert (reader.tags, reader.status) == (["x"], "completed")
    assert steps(callback.run) == [0, 1, 2, 3]
    for group in ("train", "valid"):
        found = [record.metrics[f"{group}/logloss"] for record in reader.records()]
        assert found == result[group]["logloss"]
    booster = reader.config["booster"]
    assert booster["objective"] == "binary:logistic"
    assert booster["max_depth"] == 2
    assert type(booster["max_depth"]) is int
    assert booster["eta"] == 0.5
    assert validate(callback.run.path).ok


def test_folds_are_a_mean_and_a_deviation(tmp_path: Path) -> None:
    callback = BlackBoxCallback("cv", log_dir=tmp_path)
    table = xgboost.cv(PARAMS, data(), 3, nfold=3, callbacks=[callback])
    found = [record.metrics for record in open_run(callback.run.path).records()]
    for name, column in (
        ("test/logloss", "test-logloss-mean"),
        ("test/logloss_std", "test-logloss-std"),
    ):
        assert [metrics[name] for metrics in found] == pytest.approx(list(table[column]))


def test_an_early_stop_is_a_completed_run(tmp_path: Path) -> None:
    callback = BlackBoxCallback("r", log_dir=tmp_path)
    stop = xgboost.callback.EarlyStopping(rounds=1)
    train([callback, stop], 50, eval_metric="error")
    assert open_run(callback.run.path).status == "completed"
    assert 1 < len(steps(callback.run)) < 50


class Throws(xgboost.callback.TrainingCallback):
    """Raises in the third round."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def before_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        if epoch == 2:
            raise self.error
        return False


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("bad"), "failed"), (KeyboardInterrupt(), "interrupted")]
)
def test_a_crash_in_a_block_keeps_the_rounds_so_far(
    tmp_path: Path, error: BaseException, status: str
) -> None:
    with pytest.raises(type(error)), BlackBoxCallback("r", log_dir=tmp_path) as callback:
        train([callback, Throws(error)])
    reader = open_run(callback.run.path)
    assert (reader.status, steps(callback.run)) == (status, [0, 1])
    assert ("exception" in reader.manifest) is (status == "failed")


UNCAUGHT = """\
import sys
import numpy as np, xgboost
from blackboxml.frontends.xgboost import BlackBoxCallback

def objective(prediction, data):
    if len(callback.run.path.name) and prediction.std() > 0:
        raise ValueError("bad gradient")
    return prediction - data.get_label(), np.ones_like(prediction)

data = xgboost.DMatrix(np.arange(20.0)[:, None], np.arange(20.0))
callback = BlackBoxCallback("r", log_dir=sys.argv[1])
xgboost.train({}, data, 9, evals=[(data, "train")], obj=objective, callbacks=[callback])
"""


def test_an_exception_that_ends_the_program_is_recorded_without_a_block(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNCAUGHT, str(tmp_path)], capture_output=True, check=False
    )
    assert done.returncode == 1
    assert b"bad gradient" in done.stderr
    (path,) = find_runs(tmp_path)
    reader = open_run(path)
    assert reader.status == "failed"
    assert reader.manifest["exception"]["message"] == "bad gradient"
    assert len(list(reader.records())) == 1


def test_a_training_that_goes_on_supersedes_the_rounds_it_repeats(tmp_path: Path) -> None:
    booster = train([BlackBoxCallback("r", log_dir=tmp_path)], 4)
    callback = BlackBoxCallback("r", log_dir=tmp_path, resume=True)
    train([callback], 3, xgb_model=booster[:2])
    assert steps(callback.run) == [0, 1, 2, 3, 4]
    assert steps(callback.run, "all") == [0, 1, 2, 3, 2, 3, 4]


def test_estimators_are_cloned_with_their_callback(tmp_path: Path) -> None:
    estimator = xgboost.XGBClassifier(
        n_estimators=2, n_jobs=1, callbacks=[BlackBoxCallback("r", log_dir=tmp_path)]
    )
    for each in (estimator, clone(estimator)):
        each.fit(X, Y, eval_set=[(X, Y)], verbose=False)
    found = [open_run(path) for path in find_runs(tmp_path)]
    assert [reader.status for reader in found] == ["completed"] * 2
    assert {len(list(reader.records())) for reader in found} == {2}


def test_a_given_run_stays_open(tmp_path: Path) -> None:
    with Run("mine", log_dir=tmp_path) as run:
        train([BlackBoxCallback(run=run)], 2)
        assert run.status == "running"
    assert steps(run) == [0, 1]
