"""Optuna: each `optimize` is a run, each trial a step of it, and perhaps a run too."""

from __future__ import annotations

from datetime import datetime
from numbers import Real
from typing import Any, ClassVar

from blackboxml.base.extras import require
from blackboxml.frontends.driven import Driven, watch
from blackboxml.frontends.run import Run


class BlackBoxCallback(Driven):
    """Records each trial: values and numeric parameters as metrics, all of it as an event `trial`.

    The step is the number of the trial, whatever its state. An exception that leaves `optimize`
    ends the run as failed. Study, sampler and pruner are hyper-parameters below `study`.

    study.optimize(objective, n_trials=20, callbacks=[BlackBoxCallback("search")])
    """

    package: ClassVar[tuple[str, str]] = ("optuna", "optuna")
    every_rank: ClassVar[bool] = True

    def __init__(self, *args: Any, **options: Any) -> None:
        """Prepare; see `Driven` for the arguments: name, tags, log_dir, run, options of `Run`."""
        super().__init__(*args, **options)
        self._study: Any = None
        watch(require("optuna", "optuna").Study, "optimize")

    def enter(self, owner: Any) -> None:
        """Start the run."""
        self._study = owner
        # Naive local time is what a study keeps.
        self._began, self._seen = datetime.now(), set[int]()  # noqa: DTZ005
        self.begin({"study": describe(owner)})

    def __call__(self, study: Any, trial: Any) -> None:
        """Record a trial that ended."""
        if not self.active:
            self.enter(study)
        self._record(trial)

    def end(self, status: str = "completed", error: BaseException | None = None) -> None:
        """End the run; a trial that raised comes first, as Optuna does not tell of that one."""
        if self.active and status != "completed":
            for trial in self._study.get_trials(deepcopy=False):
                done = trial.datetime_complete
                if done is not None and done >= self._began and trial.number not in self._seen:
                    self._record(trial)
        super().end(status, error)

    def trial_run(self, trial: Any, **options: Any) -> Run:
        """Return a run that an objective can record one trial into; its parent is the study's run.

        Args:
            trial: The trial; the parameters that it has by now are the run's configuration.
            **options: Options of `Run`.
        """
        if not self.active:
            self.enter(trial.study)
        found = {"log_dir": self.run.path.parent, "parent": self.run.id, "config": trial.params}
        return Run(f"{self.run.name}-{trial.number}", **{**found, **options})

    def _record(self, trial: Any) -> None:
        """Record a trial."""
        self._seen.add(trial.number)
        several = len(self._study.directions) > 1
        metrics = {
            f"trial/value{f'_{index}' if several else ''}": value
            for index, value in enumerate(trial.values or [])
        }
        if trial.duration is not None:
            metrics["trial/duration_seconds"] = trial.duration.total_seconds()
        metrics |= {
            f"params/{name}": value
            for name, value in trial.params.items()
            if isinstance(value, Real)
        }
        event = {
            "number": trial.number,
            "state": trial.state.name.lower(),
            "values": trial.values,
            "params": {name: _plain(value) for name, value in trial.params.items()},
            "intermediate_values": {str(k): v for k, v in trial.intermediate_values.items()},
            "user_attrs": {name: _plain(value) for name, value in trial.user_attrs.items()},
        }
        self.record(metrics, trial.number)
        self.attempt(
            f"the event of trial {trial.number}",
            lambda run: run.log_media("trial", "event", trial.number, value=event),
        )


def describe(study: Any) -> dict[str, Any]:
    """Return what a study is."""
    return {
        "name": study.study_name,
        "directions": [direction.name.lower() for direction in study.directions],
        "sampler": type(study.sampler).__name__,
        "pruner": type(study.pruner).__name__,
    }


def _plain(value: Any) -> Any:
    """Return a value as JSON has it, another one as text."""
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)
