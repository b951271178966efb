"""Keras 3 on any backend: each `model.fit` is a run, each epoch a step of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from blackboxml.base.extras import base_class, require
from blackboxml.frontends.driven import Driven, watch

if TYPE_CHECKING:
    from collections.abc import Mapping


class BlackBoxCallback(Driven, base_class("keras.callbacks", "Callback")):  # type: ignore[misc]
    """Records what Keras logs at the end of each epoch, with the number of the epoch, from 0.

    The model's name, number of parameters, optimizer and learning rate are hyper-parameters below
    `model`. An exception in `fit` ends the run as failed. With `resume=True` and a checkpoint
    (`BackupAndRestore`, `initial_epoch`), epochs that are trained again supersede the old ones.

    model.fit(x, y, epochs=10, callbacks=[BlackBoxCallback("lstm", tags=["nlp"])])
    """

    package: ClassVar[tuple[str, str]] = ("keras", "keras")

    def __init__(self, *args: Any, **options: Any) -> None:
        """Prepare; see `Driven` for the arguments: name, tags, log_dir, run, options of `Run`."""
        super().__init__(*args, **options)
        watch(require("keras", "keras").Model, "fit")

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Start the run and describe the model."""
        self.begin({"model": describe(self.model)})

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Take back what a resumed run holds of this epoch and later ones."""
        self.go_on(epoch)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Record an epoch."""
        self.record({**(logs or {}), "epoch": epoch}, epoch)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """End the run."""
        self.end()


def describe(model: Any) -> dict[str, Any]:
    """Return what is known of a Keras model; None for what is not, as before it is built."""
    optimizer = getattr(model, "optimizer", None)
    return {
        "name": model.name,
        "params": model.count_params() if model.built else None,
        "optimizer": None if optimizer is None else type(optimizer).__name__,
        "learning_rate": _learning_rate(optimizer),
    }


def _learning_rate(optimizer: Any) -> float | None:
    """Return the learning rate that holds now, that of a schedule too."""
    try:
        return float(optimizer.learning_rate)
    except (AttributeError, RuntimeError, TypeError, ValueError):  # some optimizers have none
        return None
