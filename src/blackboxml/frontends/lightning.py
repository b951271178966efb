"""Lightning, as `lightning` or `pytorch_lightning`: a logger is a run, on the trainer's steps."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from typing import TYPE_CHECKING, Any, ClassVar

from blackboxml.base.extras import base_class
from blackboxml.base.naming import sanitise
from blackboxml.frontends.driven import Driven
from blackboxml.frontends.run import Run

if TYPE_CHECKING:
    from collections.abc import Mapping

# Whoever has both uses the one that is imported; a logger of one serves trainers of the other.
_NAMES = ("lightning.pytorch", "pytorch_lightning")
_PACKAGE = next((each for each in _NAMES if each in sys.modules), None) or next(
    (each for each in _NAMES if base_class(f"{each}.loggers", "Logger") is not object), _NAMES[0]
)


class BlackBoxLogger(Driven, base_class(f"{_PACKAGE}.loggers", "Logger")):  # type: ignore[misc]
    """Records what modules and callbacks log, and the hyper-parameters that they save.

    All stages of a logger make one run: `test` after `fit` goes on with it as its next attempt. A
    crash is failed, with its exception; checkpoints go below `artifacts/` of the run. With
    `resume=True` and `fit(ckpt_path=…)`, steps from the first one on supersede the old ones. Only
    rank 0 records.

    Trainer(logger=BlackBoxLogger("resnet", tags=["vision"])).fit(module)
    """

    package: ClassVar[tuple[str, str]] = (_PACKAGE, "lightning")

    @property
    def experiment(self) -> Run:
        """The run; it is started when a trainer, or anybody else, first asks for it."""
        self._start()
        return self.run

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Record one step, with the number that Lightning gives it."""
        self._start()
        self.record(metrics, step)

    def log_hyperparams(
        self, params: Mapping[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """Add hyper-parameters, as `save_hyperparameters()` collects them."""
        self._start()
        self.configure(vars(params) if isinstance(params, Namespace) else params)

    def finalize(self, status: str) -> None:
        """End the run, or this stage of it; a trainer that fails calls this within its `except`."""
        error = sys.exception()
        if status == "success":
            self.end()
        elif error is None:
            self.end("failed")
        else:
            self.fail(error)

    @property
    def name(self) -> str:
        """The name of the run, as a folder may be called."""
        return sanitise(self.run.name)

    @property
    def version(self) -> str:
        """The first digits of the run's id; nothing where this rank records none."""
        return self.run.id[:8] if self._has_path() else ""

    @property
    def save_dir(self) -> str | None:
        """Where the trainer puts checkpoints: a folder of the run."""
        return os.fspath(self.run.path / "artifacts") if self._has_path() else None

    @property
    def log_dir(self) -> str | None:
        """The run directory."""
        return os.fspath(self.run.path) if self._has_path() else None

    def _has_path(self) -> bool:
        """Tell whether there is a run directory; it is made if a training is about to begin."""
        if self.run.status == "created":
            self._start()
        return self.run.status != "created"

    def _start(self) -> None:
        """Start the run, or go on with it after a stage that ended."""
        if self.active:
            return
        before = self.run.status
        if before in {"completed", "failed", "interrupted"} and self.arguments["run"] is None:
            options = {**self.arguments, "resume": self.run.path}
            del options["run"]
            self.run = Run(**options)
        self.begin()
        if before == "completed":
            self.supersedes = False
