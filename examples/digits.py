"""Train a small network on scikit-learn's handwritten digits and record it, in both ways."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from blackboxml import Run, track

if TYPE_CHECKING:
    from collections.abc import Iterator

EPOCHS = 30
CONFIG = {"hidden_layer_sizes": (32,), "learning_rate_init": 0.003, "batch_size": 64}

images, labels = load_digits(return_X_y=True)
train_x, eval_x, train_y, eval_y = train_test_split(images / 16, labels, random_state=0)


def train_one_epoch(model: MLPClassifier) -> dict[str, float]:
    model.partial_fit(train_x, train_y, classes=np.unique(labels))
    return {
        "train/loss": log_loss(train_y, model.predict_proba(train_x)),
        "train/accuracy": model.score(train_x, train_y),
    }


def evaluate(model: MLPClassifier) -> dict[str, float]:
    return {"eval/accuracy": model.score(eval_x, eval_y)}


def with_run() -> None:
    """A `with` block records what is logged within it."""
    with Run("digits", tags=["example"], config=CONFIG | {"epochs": EPOCHS}) as run:
        run.describe("train/loss", unit="nat", description="cross-entropy")
        model = MLPClassifier(**CONFIG, random_state=0)
        for epoch in range(EPOCHS):
            run.log(train_one_epoch(model), step=epoch)
            if epoch % 3 == 0:  # a group is as long as it needs to be
                run.log(evaluate(model), step=epoch)
    print("recorded", run.path)


@track("digits_tracked", tags=["example"])
def with_track(**options: Any) -> Iterator[dict[str, float]]:
    """A generator records each dict that it yields."""
    model = MLPClassifier(**options, random_state=1)
    for _ in range(EPOCHS):
        yield train_one_epoch(model) | evaluate(model)


if __name__ == "__main__":
    with_run()
    steps = with_track(**CONFIG)
    print("recorded", len(steps), "steps more; the last:", steps[-1])
