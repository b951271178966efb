"""Weights & Biases, through its own package: online, offline, or disabled."""

from __future__ import annotations

import os
from inspect import signature
from typing import TYPE_CHECKING, Any, ClassVar, Final

from blackboxml import backends
from blackboxml.backends import TrackerBackend
from blackboxml.base import environment, variable
from blackboxml.base.extras import require
from blackboxml.base.naming import sanitise
from blackboxml.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

EXTRA: Final = "wandb"
MODES: Final = ("online", "offline", "disabled", "shared")


class WandbBackend(TrackerBackend):
    """Logs to one run of Weights & Biases, on rank 0 alone.

    Args:
        project_name: The project, if it is not None.
        config: Hyper-parameters, at the top level of the run's own.
        outdir: Where `wandb/` is made; None stands for its default.
        rank: Rank of this process; on others than 0 nothing happens.
        mode: One of `MODES`; None stands for the variable `WANDB_MODE`, then `online`. The switch
            `WANDB_DISABLED` goes before both.
        **options: Those that `wandb.init` knows are passed on to it.

    Attributes:
        run: The `wandb.Run`; None on other ranks than 0.

    Raises:
        MissingDependencyError: If wandb is not installed.
        ValueError: If there is no such mode.
    """

    name = "wandb"
    slow: ClassVar[bool] = True

    def __init__(
        self,
        project_name: str | None = None,
        config: dict[str, Any] | None = None,
        outdir: str | os.PathLike[str] | None = None,
        rank: int = 0,
        mode: str | None = None,
        **options: Any,
    ) -> None:
        self.run: Any = None
        mode = find_mode(mode)
        if rank != 0:
            return
        self._wandb = require("wandb", EXTRA)
        known = signature(self._wandb.init).parameters
        if outdir is not None and "dir" not in options:
            os.makedirs(outdir, exist_ok=True)
            options["dir"] = os.path.abspath(outdir)
        self.run = self._wandb.init(
            project=backends.project(project_name),
            mode=mode,
            config=_describe() | dict(config or {}),
            **{key: value for key, value in options.items() if key in known},
        )

    def log(self, metrics: dict[str, Any], step: int | None = None, *, commit: bool = True) -> None:
        """Log values; without a step wandb counts by itself."""
        if self.run is None:
            return
        if step is None:
            self.run.log(metrics, commit=commit)
        else:
            self.run.log(metrics, commit=commit, step=step)

    def log_config(self, config: dict[str, Any]) -> None:
        """Add hyper-parameters at the top level; the last value of a name counts."""
        if self.run is not None:
            self.run.config.update(config, allow_val_change=True)

    def log_table(self, key: str, columns: Sequence[str], data: Sequence[Sequence[Any]]) -> None:
        """Log a `wandb.Table`, in the row that the next call of `log` ends.

        A row of its own would take the step that the next point has, which wandb would then refuse.
        """
        if self.run is not None:
            table = self._wandb.Table(columns=list(columns), data=[list(row) for row in data])
            self.run.log({key: table}, commit=False)

    def log_image(self, key: str, image_path: str, caption: str | None = None) -> None:
        """Log a `wandb.Image`, in the row that the next call of `log` ends."""
        if self.run is not None:
            image = self._wandb.Image(image_path, caption=caption)
            self.run.log({key: image}, commit=False)

    def log_artifacts(self, artifacts: Mapping[str, str]) -> None:
        """Log each file or folder as an artifact of its own, named by its label."""
        if self.run is not None:
            backends.send_each(artifacts, self._send)

    def watch(self, model: Any, **kwargs: Any) -> None:
        """Follow the gradients of a model; the options are those of `wandb.watch`."""
        if self.run is not None:
            self.run.watch(model, **kwargs)

    def finish(self) -> None:
        """End the run."""
        if self.run is not None:
            self.run.finish()

    def _send(self, label: str, path: str) -> None:
        artifact = self._wandb.Artifact(sanitise(label) or "artifact", type="result")
        if os.path.isdir(path):
            artifact.add_dir(path)
        else:
            artifact.add_file(path)
        self.run.log_artifact(artifact)


def find_mode(mode: str | None) -> str:
    """Return the mode that arguments and environment ask for.

    Raises:
        ValueError: If there is none of the name.
    """
    if variable.flag("WANDB_DISABLED"):
        return "disabled"
    found = mode or os.environ.get("WANDB_MODE") or "online"
    if found not in MODES:
        raise ValueError(f"wandb has no mode {found!r:.40}; there are {', '.join(MODES)}")
    return found


def _describe() -> dict[str, Any]:
    """Return what the configuration says of the process, under the names that ezpz gave it."""
    captured = environment.capture(["hostname", "torch"])
    return {
        "hostname": captured["hostname"],
        "torch_version": captured["torch"],
        "ezpz_version": f"blackboxml {__version__}",
        "working_directory": os.getcwd(),
    }
