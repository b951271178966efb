"""The callback for LightGBM, on real trainings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightgbm
import numpy as np
import pytest

from blackboxml import Run, open_run, validate
from blackboxml.collection import find_runs
from blackboxml.frontends.lightgbm import BlackBoxCallback

if TYPE_CHECKING:
    from pathlib import Path

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(80, 3))
Y = (X[:, 0] > 0).astype(int)
PARAMS = {"objective": "binary", "metric": "auc", "verbose": -1, "num_threads": 1, "eta": 0.3}


def train(callbacks: list[Any], rounds: int = 4, **options: Any) -> Any:
    data = lightgbm.Dataset(X, Y)
    return lightgbm.train(
        PARAMS | options.pop("params", {}),
        data,
        rounds,
        valid_sets=[data.create_valid(X[:40], Y[:40])],
        valid_names=["valid"],
        callbacks=callbacks,
        **options,
    )


def steps(run: Run, view: Any = "effective") -> list[int]:
    return [record.step for record in open_run(run.path).records(view)]


@pytest.mark.parametrize("block", [True, False])
def test_each_round_is_a_step(tmp_path: Path, block: bool) -> None:
    callback = BlackBoxCallback("leaves", ["x"], tmp_path, config={"seed": 1})
    result: dict[str, Any] = {}
    callbacks = [callback, lightgbm.record_evaluation(result)]
    if block:
        with callback:
            train(callbacks)
            assert callback.run.status == "running"
    else:
        train(callbacks)
    reader = open_run(callback.run.path)
    assert (reader.tags, reader.status) == (["x"], "completed")
    assert steps(callback.run) == [0, 1, 2, 3]
    found = [record.metrics["valid/auc"] for record in reader.records()]
    assert found == result["valid"]["auc"]
    assert reader.config["params"]["eta"] == 0.3
    assert reader.config["seed"] == 1
    assert validate(callback.run.path).ok
    assert len(list(find_runs(tmp_path))) == 1


def test_folds_are_a_mean_and_a_deviation(tmp_path: Path) -> None:
    with BlackBoxCallback("cv", log_dir=tmp_path) as callback:
        result = lightgbm.cv(PARAMS, lightgbm.Dataset(X, Y), 3, nfold=3, callbacks=[callback])
    found = [record.metrics for record in open_run(callback.run.path).records()]
    assert [metrics["valid/auc"] for metrics in found] == result["valid auc-mean"]
    assert [metrics["valid/auc_std"] for metrics in found] == result["valid auc-stdv"]


def test_an_early_stop_in_a_block_is_a_completed_run(tmp_path: Path) -> None:
    with BlackBoxCallback("r", log_dir=tmp_path) as callback:
        train([lightgbm.early_stopping(2, verbose=False), callback], 90)
    assert open_run(callback.run.path).status == "completed"
    assert 2 < len(steps(callback.run)) < 90


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("bad"), "failed"), (KeyboardInterrupt(), "interrupted")]
)
@pytest.mark.parametrize("at", [0, 2])
def test_a_crash_in_a_block_keeps_the_rounds_so_far(
    tmp_path: Path, error: BaseException, status: str, at: int
) -> None:
    count = iter(range(9))

    def objective(prediction: Any, data: Any) -> Any:
        if next(count) == at:
            raise error
        return prediction - data.get_label(), np.ones_like(prediction)

    with pytest.raises(type(error)), BlackBoxCallback("r", log_dir=tmp_path) as callback:
        train([callback], params={"objective": objective})
    reader = open_run(callback.run.path)
    assert (reader.status, steps(callback.run)) == (status, list(range(at)))
    assert ("exception" in reader.manifest) is (status == "failed")


def test_trainings_in_one_block_and_after_a_stop_are_runs_of_their_own(tmp_path: Path) -> None:
    with BlackBoxCallback("r", log_dir=tmp_path) as callback:
        train([callback], 2)
        train([callback], 3)
    for rounds in (90, 2):
        train([lightgbm.early_stopping(2, verbose=False), callback], rounds)
    found = [open_run(path) for path in find_runs(tmp_path)]
    assert sorted(reader.status for reader in found) == ["completed"] * 3 + ["interrupted"]
    assert {2, 3} <= {len(list(reader.records())) for reader in found}


def test_a_training_that_goes_on_supersedes_the_rounds_it_repeats(tmp_path: Path) -> None:
    train([BlackBoxCallback("r", log_dir=tmp_path)], 4)
    before = train([], 2, keep_training_booster=True)
    callback = BlackBoxCallback("r", log_dir=tmp_path, resume=True)
    train([callback], 3, init_model=before)
    assert steps(callback.run) == [0, 1, 2, 3, 4]
    assert steps(callback.run, "all") == [0, 1, 2, 3, 2, 3, 4]


def test_a_given_run_stays_open_and_estimators_take_the_callback(tmp_path: Path) -> None:
    with Run("mine", log_dir=tmp_path) as run:
        estimator = lightgbm.LGBMClassifier(n_estimators=2, n_jobs=1, verbose=-1)
        estimator.fit(X, Y, eval_X=X, eval_y=Y, callbacks=[BlackBoxCallback(run=run)])
        assert run.status == "running"
    assert steps(run) == [0, 1]
