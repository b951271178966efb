"""scikit-learn: each search or cross-validation is a run, each candidate or fold a step of it."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

from blackboxml.base.extras import require
from blackboxml.frontends.driven import Driven


class BlackBoxRecorder(Driven):
    """Fits searches and validates estimators, and records what comes of it.

    Estimators of scikit-learn call nobody back, so the recorder makes the call: a crash ends the
    run as failed. Estimator and parameters are hyper-parameters below `estimator`.

    recorder = BlackBoxRecorder("svm")
    search = recorder.fit(GridSearchCV(SVC(), {"C": [1, 10]}), X, y)
    scores = recorder.cross_validate(SVC(C=10), X, y, cv=5)
    """

    package: ClassVar[tuple[str, str]] = ("sklearn", "sklearn")
    every_rank: ClassVar[bool] = True

    def fit(self, estimator: Any, X: Any, y: Any = None, **fit_params: Any) -> Any:  # noqa: N803
        """Fit an estimator and return it.

        Each candidate of a search is a step, with its scores and times in the group `cv` and its
        numeric parameters in `params`; the table `cv/candidates` holds all of them. Of another
        estimator, the curves of its training become steps, where it keeps some.
        """
        self.begin({"estimator": describe(estimator)})
        with self:
            fitted = estimator.fit(X, y, **fit_params)
            if hasattr(estimator, "cv_results_"):
                self._record_candidates(estimator.cv_results_)
                self.configure({"best_params": getattr(estimator, "best_params_", {})})
            for step, metrics in enumerate(_curves(estimator)):
                self.record(metrics, step)
        return fitted

    def cross_validate(self, estimator: Any, X: Any, y: Any = None, **options: Any) -> Any:  # noqa: N803
        """Return what `sklearn.model_selection.cross_validate` does; each fold is a step."""
        self.begin({"estimator": describe(estimator)})
        with self:
            validate = require("sklearn.model_selection", "sklearn").cross_validate
            scores = validate(estimator, X, y, **options)
            numeric = {name: each for name, each in scores.items() if _is_numeric(each)}
            for fold in range(len(scores["fit_time"])):
                self.record({f"cv/{name}": each[fold] for name, each in numeric.items()}, fold)
        return scores

    def _record_candidates(self, results: dict[str, Any]) -> None:
        """Record the candidates of a search."""
        columns = [name for name in results if not name.startswith("param")]
        for number, params in enumerate(results["params"]):
            metrics = {f"cv/{name}": results[name][number] for name in columns}
            metrics |= {
                f"params/{name}": value for name, value in params.items() if isinstance(value, Real)
            }
            self.record(metrics, number)
        names = list(dict.fromkeys(name for params in results["params"] for name in params))
        rows = [
            [*(_cell(params.get(name)) for name in names)]
            + [_cell(results[name][number]) for name in columns]
            for number, params in enumerate(results["params"])
        ]
        self.attempt(
            "the table of candidates",
            lambda run: run.log_table("cv/candidates", rows, [*names, *columns], 0),
        )


def describe(estimator: Any) -> dict[str, Any]:
    """Return the name of an estimator, and its parameters and those of estimators within it."""
    params = {
        name: type(value).__name__ if hasattr(value, "get_params") else value
        for name, value in estimator.get_params(deep=True).items()
    }
    return {"name": type(estimator).__name__, "params": params}


def _curves(estimator: Any) -> list[dict[str, float]]:
    """Return the curves that an estimator keeps of its training, step by step."""
    found = {
        f"train/{name.rstrip('_')}": list(values)
        for name in ("loss_curve_", "train_score_", "validation_scores_", "validation_score_")
        if (values := getattr(estimator, name, None)) is not None and _is_numeric(values)
    }
    length = max(map(len, found.values()), default=0)
    return [
        {name: values[step] for name, values in found.items() if step < len(values)}
        for step in range(length)
    ]


def _is_numeric(values: Any) -> bool:
    """Tell whether values are a row of numbers."""
    array = require("numpy", "sklearn").asarray(values)
    return array.ndim == 1 and array.dtype.kind in "biuf"


def _cell(value: Any) -> Any:
    """Return a value as a table of plain cells holds it."""
    item = getattr(value, "item", None)
    value = item() if item is not None and getattr(value, "ndim", None) == 0 else value
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)
