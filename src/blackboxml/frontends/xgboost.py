"""XGBoost: each training is a run, each boosting round a step of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar

from blackboxml.base.extras import base_class
from blackboxml.frontends.driven import Driven

if TYPE_CHECKING:
    from collections.abc import Mapping


class BlackBoxCallback(Driven, base_class("xgboost.callback", "TrainingCallback")):  # type: ignore[misc]
    """Records the evaluations of each round, as `valid/logloss`; those of `cv` with a deviation.

    XGBoost does not tell of a crash. A `with` block does, and so does an exception that ends the
    program; without, the run is `interrupted`. The parameters that the booster settled on are
    hyper-parameters below `booster`.

    with BlackBoxCallback("trees", config=params) as callback:
        xgboost.train(params, data, evals=[(valid, "valid")], callbacks=[callback])
    """

    package: ClassVar[tuple[str, str]] = ("xgboost", "xgboost")

    def before_training(self, model: Any) -> Any:
        """Start the run; a model that is trained further has rounds, from which steps go on."""
        folds = hasattr(model, "cvfolds")
        self._rounds = 0 if folds else model.num_boosted_rounds()
        self.begin({"booster": parameters(model.cvfolds[0].bst if folds else model)})
        self.go_on(self._rounds)
        return model

    def after_iteration(self, model: Any, epoch: int, evals_log: Mapping[str, Any]) -> bool:
        """Record a round; training goes on."""
        metrics: dict[str, Any] = {}
        for data, history in evals_log.items():
            for metric, values in history.items():
                value = values[-1]
                if isinstance(value, tuple):
                    value, metrics[f"{data}/{metric}_std"] = value
                metrics[f"{data}/{metric}"] = value
        self.record(metrics, self._rounds + epoch)
        return False

    def after_training(self, model: Any) -> Any:
        """End the run: all rounds are done, or enough of them."""
        self.end()
        return model


def parameters(booster: Any) -> dict[str, Any]:
    """Return what a booster is set to, numbers as numbers; a tree's parameters by their names."""
    learner = json.loads(booster.save_config())["learner"]
    found = {"objective": learner["objective"]["name"], **learner["learner_train_param"]}
    gradient = learner["gradient_booster"]
    for part in ("gblinear_train_param", "gbtree_train_param", "tree_train_param"):
        found |= gradient.get(part, {})
    return {name: _typed(text) for name, text in found.items()}


def _typed(text: str) -> Any:
    """Return the number that a text is; another text as it stands."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
