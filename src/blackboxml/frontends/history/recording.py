"""The run behind a history: numbers as metrics, all else as media, and no exception to training."""

from __future__ import annotations

import logging
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

from blackboxml.base.naming import check_metric_name
from blackboxml.base.scalar import to_number
from blackboxml.errors import BlackboxError, MetricError, RunStateError
from blackboxml.foreign.values import NPY, to_npy, to_tree
from blackboxml.frontends.history.values import array
from blackboxml.frontends.run import Run
from blackboxml.model import LIMITS
from blackboxml.writer import RunWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from blackboxml.frontends.history.statistics import Statistics

logger = logging.getLogger("blackboxml")

_ARRAYS: Final = (list, tuple)


class Recording:
    """Writes a run: rank 0 all of it, another rank nothing or its own journal.

    Attributes:
        name: Name of the run.
        path: The run directory; None where it is not known.
        run_id: 32 hexadecimal digits; None where it is not known.
        attempt: Which start of the run this is, from 0.
        left_out: What could not be recorded, and why, by metric.
        described: `unit` and `description` by metric.
        log: Records numbers by name, at a step, with statistics across ranks or None, and a time;
            raises what `Run.log` does.
    """

    def __init__(self, folder: Path, name: str, said: set[str]) -> None:
        """Prepare.

        Args:
            folder: Folder of runs.
            name: Name of the run.
            said: Causes of which a warning was logged already.
        """
        self.path: Path | None = None
        self.run_id: str | None = None
        self.attempt = 0
        self.left_out: dict[str, str] = {}
        self.described: dict[str, dict[str, str]] = {}
        self.name = name
        self._folder = folder
        self._said = said
        self._run: Run | None = None
        self._writer: RunWriter | None = None
        self.log: Callable[..., object] = _ignore
        self._media: Callable[..., None] | None = None

    def begin(self, config: Any, tags: Iterable[str] | None) -> None:
        """Begin a run.

        Raises:
            ValueError: If the name or a tag cannot be stored.
            ConfigError: If the configuration cannot be stored.
        """
        run = Run(self.name, tags, self._folder, config=config)
        self._take(run)

    def join(self, rank: int) -> None:
        """Record what this rank logs into a journal of its own."""
        if self.path is None:
            return
        try:
            writer = self._writer = RunWriter.join(self.path, rank, self.attempt)
            self.log, self._media = writer.log, writer.log_media
        except (BlackboxError, OSError) as error:
            self._warn("join", f"rank {rank} keeps no journal: {error}")

    def _take(self, run: Run) -> None:
        """Start a run."""
        self._run = run.start()
        self.log, self._media = run.log, run.log_media
        self.path, self.run_id, self.attempt = run.path, run.id, run.attempt

    def mend(
        self,
        error: BlackboxError,
        numbers: Mapping[str, Any],
        step: int,
        statistics: Statistics | None,
        time: float,
    ) -> None:
        """Do what can be done about a point that `log` refused; training goes on.

        Args:
            error: Why it did.
            numbers: Numbers by name.
            step: An int64.
            statistics: Across ranks, by name.
            time: Unix seconds.
        """
        if isinstance(error, RunStateError) and self._go_on():
            try:
                self.log(numbers, step, statistics, time)
            except BlackboxError as another:
                error = another
            else:
                return
        if isinstance(error, MetricError):
            self._log_each(numbers, step, statistics, time)
        else:
            self._warn("log", f"{error}; training goes on")

    def _log_each(
        self,
        numbers: Mapping[str, Any],
        step: int,
        statistics: Statistics | None,
        time: float,
    ) -> None:
        """Record what can be recorded of a point that cannot as a whole."""
        good: dict[str, Any] = {}
        for key, value in numbers.items():
            try:
                check_metric_name(key)
                good[key] = to_number(value)
            except (MetricError, ValueError) as error:
                self._leave_out(key, str(error))
        known = dict(statistics or {})
        for key in [key for key in known if key not in good]:
            try:
                check_metric_name(key)
            except MetricError as error:
                del known[key]
                self._leave_out(key, str(error))
        names = list(dict.fromkeys([*good, *known]))
        for first in range(0, len(names), LIMITS.metrics_per_record):
            some = names[first : first + LIMITS.metrics_per_record]
            own = {key: good[key] for key in some if key in good}
            ranks = {key: known[key] for key in some if key in known}
            try:
                self.log(own, step, ranks or None, time)
            except BlackboxError as error:
                self._leave_out(some[0], str(error))

    def log_media(self, others: Mapping[str, Any], step: int, time: float) -> None:
        """Record what is no number: arrays and lists of numbers, texts, bytes, and other trees.

        Args:
            others: Values by name; None is no value.
            step: An int64.
            time: Unix seconds.
        """
        record = self._media
        if record is None:
            return
        for key, value in others.items():
            if value is None:
                self.left_out.setdefault(key, "None is no value")
                continue
            try:
                record(key, step=step, time=time, **_medium(value))
            except (BlackboxError, ValueError) as error:
                self._leave_out(key, str(error))

    @property
    def status(self) -> str:
        """`completed`, `failed`, `interrupted`, `running`, or `not recorded here`."""
        return "not recorded here" if self._run is None else self._run.status

    def describe(self, metric: str, unit: str | None, description: str | None) -> None:
        """Record what a metric means.

        Raises:
            MetricError: If the name cannot be stored, or a text is no text.
        """
        if self._run is not None:
            self._run.describe(metric, unit=unit, description=description)
        said = {"unit": unit, "description": description}
        own = self.described.setdefault(metric, {})
        own |= {key: text for key, text in said.items() if text is not None}

    def finish(self, error: BaseException | None = None) -> None:
        """End the run and seal it; ending it once more does nothing.

        Args:
            error: What ended the training.
        """
        try:
            if self._run is not None:
                self._run.__exit__(None if error is None else type(error), error, None)
            if self._writer is not None:
                self._writer.finish("completed" if error is None else "failed")
        except (BlackboxError, OSError) as problem:
            self._warn("finish", f"{self.path} could not be ended in order: {problem}")

    def _go_on(self) -> bool:
        """Go on with a run that was ended, as its next attempt; tell whether that is possible."""
        if self._run is None or self._run.status == "running":
            return False
        self._take(Run(self.name, log_dir=self._folder, resume=self.path))
        return True

    def _leave_out(self, key: str, reason: str) -> None:
        """Note what could not be recorded, and say so once for each metric."""
        self.left_out.setdefault(key, reason)
        self._warn(f"metric {key}", f"{reason}; it is left out, and training goes on")

    def _warn(self, cause: str, message: str) -> None:
        """Log a warning, once for each cause."""
        if cause not in self._said:
            self._said.add(cause)
            logger.warning("%s", message)


def _ignore(*_: Any) -> None:
    """Record nothing: another rank does."""


def _medium(value: Any) -> dict[str, Any]:
    """Return a value that is no number as `RunWriter.log_media` takes it."""
    if isinstance(value, str):
        return {"kind": "text", "value": value}
    if isinstance(value, PurePath):
        return {"kind": "text", "value": value.as_posix()}
    if isinstance(value, bytes):
        return {"kind": "artifact", "data": value, "media_type": "application/octet-stream"}
    numbers = array(value) if isinstance(value, _ARRAYS) or hasattr(value, "dtype") else None
    if numbers is not None and numbers.size:
        return {"kind": "array", "data": to_npy(numbers), "media_type": NPY}
    return {"kind": "event", "value": {"value": to_tree(value)}}
