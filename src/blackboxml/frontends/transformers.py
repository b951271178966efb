"""Hugging Face Transformers: each `Trainer.train` is a run, on the trainer's own steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from blackboxml.base.extras import base_class, require
from blackboxml.frontends.driven import Driven, watch

if TYPE_CHECKING:
    from collections.abc import Mapping

_GROUPS = ("eval", "test", "predict")


class BlackBoxCallback(Driven, base_class("transformers", "TrainerCallback")):  # type: ignore[misc]
    """Records what the trainer logs, as `train/loss` and `eval/loss`, at its global step.

    The training arguments are hyper-parameters below `args` and the configuration of the model
    below `model`. An exception in `train` ends the run as failed. With `resume=True` and
    `train(resume_from_checkpoint=True)`, steps behind the checkpoint supersede the old ones.

    Trainer(model, args, train_dataset=data, callbacks=[BlackBoxCallback("bert")]).train()
    """

    package: ClassVar[tuple[str, str]] = ("transformers", "transformers")

    def __init__(self, *args: Any, **options: Any) -> None:
        """Prepare; see `Driven` for the arguments: name, tags, log_dir, run, options of `Run`."""
        super().__init__(*args, **options)
        watch(require("transformers", "transformers").Trainer, "train")

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the run, and take back what a resumed one holds of steps behind the checkpoint."""
        config = {"args": args.to_dict()}
        model: Any = kwargs.get("model")
        if hasattr(model, "config"):
            config["model"] = model.config.to_dict()
        self.begin(config)
        self.go_on(state.global_step + 1 if state.global_step else 0)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Mapping[str, Any], **kwargs: Any
    ) -> None:
        """Record what the trainer logs: a loss and so on, an evaluation, totals at the end."""
        self.record({rename(name): value for name, value in logs.items()}, state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End the run."""
        self.end()


def rename(name: str) -> str:
    """Return the name of a metric with its group: `eval_loss` is `eval/loss`, `loss` the train's.

    `train_loss` and the other totals at the end keep their prefix, as they are no steps' values.
    """
    group, _, rest = name.partition("_")
    if name == "epoch":
        return name
    return f"{group}/{rest}" if group in _GROUPS and rest else f"train/{name}"
