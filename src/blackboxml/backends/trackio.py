"""Trackio, through its own package: a local database, a server, or a Space of Hugging Face."""

from __future__ import annotations

from inspect import signature
from typing import TYPE_CHECKING, Any, ClassVar, Final

from blackboxml import backends
from blackboxml.backends import TrackerBackend
from blackboxml.base.extras import require
from blackboxml.base.naming import sanitise

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

EXTRA: Final = "trackio"


class TrackioBackend(TrackerBackend):
    """Logs to one run of Trackio, on rank 0 alone.

    Args:
        project_name: The project, if it is not None.
        config: Hyper-parameters.
        rank: Rank of this process; on others than 0 nothing happens.
        **options: Those that `trackio.init` knows, such as `space_id`, are passed on to it.

    Attributes:
        run: The `trackio.Run`; None on other ranks than 0.

    Raises:
        MissingDependencyError: If Trackio is not installed.
    """

    name = "trackio"
    slow: ClassVar[bool] = True

    def __init__(
        self,
        project_name: str | None = None,
        config: dict[str, Any] | None = None,
        rank: int = 0,
        **options: Any,
    ) -> None:
        self.run: Any = None
        self._held: dict[str, Any] = {}  # what a later call commits
        self._held_step: int | None = None
        self._shown_step: int | None = None
        self._logged = False
        if rank != 0:
            return
        self._trackio = require("trackio", EXTRA)
        known = signature(self._trackio.init).parameters
        self.run = self._trackio.init(
            project=backends.project(project_name),
            config=dict(config or {}),
            **{"embed": False} | {key: value for key, value in options.items() if key in known},
        )

    def log(self, metrics: dict[str, Any], step: int | None = None, *, commit: bool = True) -> None:
        """Log values; without a step Trackio counts by itself."""
        self._held.update(metrics)
        self._held_step = self._held_step if step is None else int(step)
        if commit:
            self._send()

    def log_config(self, config: dict[str, Any]) -> None:
        """Add hyper-parameters, which Trackio stores with the first point.

        Raises:
            RuntimeError: If there was one already.
        """
        if self.run is None:
            return
        if self._logged:
            raise RuntimeError("Trackio takes a configuration before the first point only")
        self.run.config.update(config)

    def log_table(self, key: str, columns: Sequence[str], data: Sequence[Sequence[Any]]) -> None:
        """Log a `trackio.Table`, at the step of the last point."""
        if self.run is not None:
            table = self._trackio.Table(columns=list(columns), data=[list(row) for row in data])
            self._log({key: table}, self._shown_step)

    def log_image(self, key: str, image_path: str, caption: str | None = None) -> None:
        """Log a `trackio.Image`, at the step of the last point."""
        if self.run is not None:
            image = self._trackio.Image(image_path, caption=caption)
            self._log({key: image}, self._shown_step)

    def log_artifacts(self, artifacts: Mapping[str, str]) -> None:
        """Log each file or folder as an artifact of its own, named by its label."""
        if self.run is not None:
            backends.send_each(artifacts, self._send_artifact)

    def finish(self) -> None:
        """Send what is held, and end the run."""
        if self.run is not None:
            if self._held:
                self._send()
            self.run.finish()

    def _send_artifact(self, label: str, path: str) -> None:
        self.run.log_artifact(path, name=sanitise(label) or "artifact", type="result")

    def _send(self) -> None:
        metrics, step = self._held, self._held_step
        self._held, self._held_step = {}, None
        if self.run is not None:
            self._log(metrics, step)
            self._shown_step = step

    def _log(self, metrics: dict[str, Any], step: int | None) -> None:
        self._logged = True
        self.run.log(metrics, step=step)
