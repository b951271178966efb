"""The callback for Optuna, on real studies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import optuna
import pytest

from blackboxml import Run, open_run, validate
from blackboxml.collection import find_runs
from blackboxml.frontends.optuna import BlackBoxCallback

if TYPE_CHECKING:
    from pathlib import Path

optuna.logging.set_verbosity(optuna.logging.ERROR)


def study(**options: Any) -> optuna.Study:
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), **options)


def objective(trial: optuna.Trial) -> float:
    x = trial.suggest_float("x", -1, 1)
    kind = trial.suggest_categorical("kind", ["a", "b"])
    for step in range(3):
        trial.report(x**2 + step, step)
    if trial.number == 2:
        raise optuna.TrialPruned
    trial.set_user_attr("device", "cpu")
    return x**2 + (kind == "b")


def events(run: Run) -> list[dict[str, Any]]:
    return [each.value for each in open_run(run.path).media() if each.kind == "event"]


def test_each_trial_is_a_step_and_an_event(tmp_path: Path) -> None:
    callback = BlackBoxCallback("search", ["x"], tmp_path, config={"budget": 4})
    searched = study(study_name="mine")
    searched.optimize(objective, n_trials=4, callbacks=[callback])
    reader = open_run(callback.run.path)
    assert (reader.tags, reader.status) == (["x"], "completed")
    records = list(reader.records())
    assert [record.step for record in records] == [0, 1, 2, 3]
    for trial, record, event in zip(searched.trials, records, events(callback.run), strict=True):
        assert record.metrics["params/x"] == trial.params["x"]
        assert record.metrics.get("trial/value") == trial.value
        assert record.metrics["trial/duration_seconds"] >= 0
        assert event["params"] == trial.params
        assert event["state"] == trial.state.name.lower()
        assert event["intermediate_values"] == {
            str(k): v for k, v in trial.intermediate_values.items()
        }
    assert events(callback.run)[3]["user_attrs"] == {"device": "cpu"}
    assert reader.config == {
        "budget": 4,
        "study": {
            "name": "mine",
            "directions": ["minimize"],
            "sampler": "RandomSampler",
            "pruner": "MedianPruner",
        },
    }
    assert validate(callback.run.path).ok


def test_several_objectives_are_several_values(tmp_path: Path) -> None:
    callback = BlackBoxCallback("r", log_dir=tmp_path)
    study(directions=["minimize", "maximize"]).optimize(
        lambda trial: (trial.suggest_int("n", 1, 9), 2.5), n_trials=2, callbacks=[callback]
    )
    (first, _) = open_run(callback.run.path).records()
    assert first.metrics["trial/value_0"] == first.metrics["params/n"]
    assert first.metrics["trial/value_1"] == 2.5


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("bad"), "failed"), (KeyboardInterrupt(), "interrupted")]
)
@pytest.mark.parametrize("at", [0, 2])
def test_a_crash_keeps_the_trials_so_far_and_the_one_that_raised(
    tmp_path: Path, error: BaseException, status: str, at: int
) -> None:
    def raising(trial: optuna.Trial) -> float:
        if trial.number == at:
            raise error
        return 1.0

    callback = BlackBoxCallback("r", log_dir=tmp_path)
    with pytest.raises(type(error)):
        study().optimize(raising, n_trials=5, callbacks=[callback])
    assert open_run(callback.run.path).status == status
    expected = ["complete"] * at + ["fail"]
    assert [event["state"] for event in events(callback.run)] == expected


def test_a_stopped_study_is_a_completed_run_and_each_call_its_own(tmp_path: Path) -> None:
    callback = BlackBoxCallback("r", log_dir=tmp_path)
    searched = study()
    for _ in range(2):
        searched.optimize(
            objective,
            n_trials=9,
            callbacks=[callback, lambda study, trial: study.stop() if trial.number % 2 else None],
        )
    found = [open_run(path) for path in find_runs(tmp_path)]
    assert [reader.status for reader in found] == ["completed"] * 2
    assert sorted([record.step for record in reader.records()] for reader in found) == [
        [0, 1],
        [2, 3],
    ]


def test_trials_on_threads_are_all_recorded(tmp_path: Path) -> None:
    callback = BlackBoxCallback("r", log_dir=tmp_path)
    study().optimize(lambda _: 1.0, n_trials=20, n_jobs=4, callbacks=[callback])
    reader = open_run(callback.run.path)
    assert reader.status == "completed"
    assert sorted(record.step for record in reader.records()) == list(range(20))


def test_a_trial_may_be_a_run_that_descends_from_that_of_the_study(tmp_path: Path) -> None:
    callback = BlackBoxCallback("search", log_dir=tmp_path)

    def training(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", -1, 1)
        with callback.trial_run(trial, tags=["trial"]) as run:
            run.log({"loss": x})
        return x

    study().optimize(training, n_trials=2, callbacks=[callback])
    readers = {reader.name: reader for reader in map(open_run, find_runs(tmp_path))}
    assert sorted(readers) == ["search", "search-0", "search-1"]
    child = readers["search-1"]
    assert child.manifest["lineage"]["parent"] == readers["search"].id
    assert child.config == {"x": next(iter(child.records())).metrics["loss"]}


def test_a_study_that_goes_on_may_go_on_with_its_run(tmp_path: Path) -> None:
    searched = study()
    searched.optimize(objective, n_trials=2, callbacks=[BlackBoxCallback("r", log_dir=tmp_path)])
    callback = BlackBoxCallback("r", log_dir=tmp_path, resume=True)
    searched.optimize(objective, n_trials=2, callbacks=[callback])
    reader = open_run(callback.run.path)
    assert [record.step for record in reader.records()] == [0, 1, 2, 3]


def test_a_given_run_stays_open(tmp_path: Path) -> None:
    with Run("mine", log_dir=tmp_path) as run:
        study().optimize(objective, n_trials=2, callbacks=[BlackBoxCallback(run=run)])
        assert run.status == "running"
    assert len(events(run)) == 2
