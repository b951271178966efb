"""A run that the loop of a framework drives: what callbacks and loggers stand on.

Frameworks tell their callbacks what was measured, but hardly ever that a training failed, and some
not that it ended. So `watch` wraps the method that trains, whose end is the end of the runs that
began within; where training is a plain function, a `with` block around the callback does the same.

Whatever recording meets once the training has begun is warned of, and stays in here.
"""

from __future__ import annotations

import functools
import logging
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ClassVar

from blackboxml.base.extras import require
from blackboxml.base.naming import check_metric_name
from blackboxml.base.scalar import to_number
from blackboxml.base.secret import hide
from blackboxml.base.variable import rank
from blackboxml.errors import MetricError, RunStateError
from blackboxml.frontends.run import Run

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType
    from typing import Self

logger = logging.getLogger("blackboxml")

_begun: ContextVar[list[Driven] | None] = ContextVar("blackboxml_begun", default=None)
"""The trainings that began within the watched method that runs now."""

_watched: set[tuple[object, str]] = set()


class Driven:
    """Records each training of a framework as a run of its own, or all of them into a given one.

    A run that was given while it records stays open: its owner ends it. Of processes that train
    together, rank 0 records.

    Attributes:
        package: What has to be installed, and the extra that brings it.
        every_rank: Whether the processes of a job are independent, and each records.
        active: Whether a training has begun and not ended, here or on another rank.
        supersedes: Whether the first step takes back what the run holds from it on.
        in_block: Whether a `with` block will end the run.
        arguments: What it was made with.
        run: The run of this training, or of the last one.
    """

    package: ClassVar[tuple[str, str]]
    every_rank: ClassVar[bool] = False
    run: Run

    def __init__(
        self,
        name: str | None = None,
        tags: Iterable[str] | None = None,
        log_dir: str | os.PathLike[str] = "blackboxml_logs",
        *,
        run: Run | None = None,
        **options: Any,
    ) -> None:
        """Prepare; nothing is written before a training begins.

        Args:
            name: Name of the runs.
            tags: Any texts.
            log_dir: Folder of runs; made if it is missing.
            run: A run to record into, in place of one of its own.
            **options: Further options of `Run`, such as `config`.

        Raises:
            ImportError: If the framework is not installed.
            ValueError: If there is not one of `name` and `run`.
        """
        require(*self.package)
        if (run is None) is (name is None) or (run is not None and (tags or options)):
            message = "give `name`, and options, for runs of its own, or `run` alone"
            raise ValueError(message)
        super().__init__()
        tags = tags if tags is None or isinstance(tags, str) else list(tags)
        self.arguments = {"name": name, "tags": tags, "log_dir": log_dir, "run": run, **options}
        self.run = Run(name or "", tags, log_dir, **options) if run is None else run
        self.active = self.in_block = False
        self.supersedes = self._own = self._records = False
        self._warned: set[str] = set()

    # -- life

    def begin(self, config: Mapping[str, Any] | None = None) -> None:
        """Start a run, unless the given one records already.

        Args:
            config: Hyper-parameters that the framework tells of; secrets in it are hidden.
        """
        # Where a framework does not say that a training ended, the next one does.
        self.end("completed" if self.in_block else "interrupted")
        self.active = True
        self._records = self.every_rank or rank() == 0
        if not self._records:
            return
        if self.run.status != "running":
            self.run.start()
            self._own = True
        self.supersedes = self.run.attempt > 0
        if config is not None:
            self.configure(config)
        begun = _begun.get()
        if begun is not None:
            begun.append(self)

    def enter(self, owner: Any) -> None:
        """Take note that a watched method was called, with this callback in `callbacks`.

        Args:
            owner: Whose method it is: a model, a study.
        """

    def go_on(self, step: int) -> None:
        """Say with which step the training begins; only the first call after `begin` counts."""
        if self._records and self.supersedes:
            self.supersedes = False
            self.run.rewind(step)

    def end(self, status: str = "completed", error: BaseException | None = None) -> None:
        """End the run of this training, if it is an own one and still open."""
        self.active = self._records = False
        if self._own:
            self._own = False
            self.run.finish(status, error)

    def fail(self, error: BaseException) -> None:
        """End the run because of an exception that is on its way; a second one would hide it."""
        try:
            if isinstance(error, Exception):
                self.end("failed", error)
            else:
                self.end("interrupted")
        except Exception:
            logger.exception("run %r could not be ended in order", self.run.name)

    def __enter__(self) -> Self:
        """Return the callback itself; the run starts with the training."""
        self.in_block = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the run; an exception of the training is recorded and goes on to the caller."""
        self.in_block = False
        if error is None:
            self.end()
        else:
            self.fail(error)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return a callback that records its own trainings: estimators are cloned with theirs."""
        return type(self)(**self.arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the arguments alone: a run does not go to another process."""
        return functools.partial(type(self), **self.arguments), ()

    # -- recording

    def record(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Record one step; what is no number is left out, with one warning for each name."""
        if not self._records or not metrics:
            return
        try:
            if step is not None:
                self.go_on(step)
            self.run.log(metrics, step)
        except MetricError as error:
            kept = self._numbers(metrics)
            if len(kept) < len(metrics):
                self.record(kept, step)
            else:
                self._warn("record", f"a step is left out: {error}")
        except RunStateError as error:
            self._records = False
            self._warn("state", f"the training is not recorded any further: {error}")

    def attempt(self, what: str, call: Callable[[Run], None]) -> None:
        """Record something other than a step; what cannot be stored is left out, with a warning.

        Args:
            what: What a warning says is left out.
            call: Records it into the run.
        """
        if self._records:
            try:
                call(self.run)
            except (ValueError, RunStateError) as error:
                self._warn(what, f"{what} is left out: {error}")

    def configure(self, config: Mapping[str, Any]) -> None:
        """Add hyper-parameters that the framework collected; secrets in it are hidden."""
        self.attempt("a configuration", lambda run: run.log_config(hide(config)))

    def _numbers(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """Return what can be stored."""
        kept = {}
        for name, value in metrics.items():
            try:
                check_metric_name(name)
                kept[name] = to_number(value)
            except ValueError as error:
                self._warn(f"metric {name}", f"{name!r:.80} is left out: {error}")
        return kept

    def _warn(self, cause: str, message: str) -> None:
        """Warn once for each cause."""
        if cause not in self._warned:
            self._warned.add(cause)
            logger.warning("run %r: %s", self.run.name, message)


def watch(owner: type, method: str) -> None:
    """Let the end of a method end the runs that began within it, as failed if it raises.

    The method is wrapped once, and does what it did.
    """
    if (owner, method) in _watched:
        return
    _watched.add((owner, method))
    original = getattr(owner, method)

    @functools.wraps(original)
    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        begun: list[Driven] = []
        token = _begun.set(begun)
        try:
            callbacks = kwargs.get("callbacks")
            for each in callbacks if isinstance(callbacks, list | tuple) else ():
                if isinstance(each, Driven):
                    each.enter(self)
            result = original(self, *args, **kwargs)
        except BaseException as error:
            for each in begun:
                each.fail(error)
            raise
        finally:
            _begun.reset(token)
        for each in begun:
            each.end()
        return result

    setattr(owner, method, watched)
