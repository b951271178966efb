"""`Run`: a training run as a context manager, or as `start()` and `finish()`."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blackboxml import manifest as manifests
from blackboxml.base import environment as environments
from blackboxml.base.files import Directory
from blackboxml.collection import newest_run
from blackboxml.companion import Companions
from blackboxml.config import encode_config
from blackboxml.errors import BlackboxError, RunStateError
from blackboxml.writer import RunWriter
from blackboxml.writer.media_log import MediaLog

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from types import FrameType, TracebackType
    from typing import Self

    from blackboxml.writer.recorder import Sync

logger = logging.getLogger("blackboxml")

_GIT_SECONDS = 5.0
_TRACEBACK_CHARACTERS = 20_000

_started: set[Run] = set()
"""Runs that the end of the process would leave open; held, so that none is forgotten."""


class Run(MediaLog):
    """Records one training run into a directory of its own.

    Everything that `log` was given is in the kernel when it returns, so that killing the process
    loses nothing. Leaving the run seals it: Parquet, HDF5 and checksums beside the journal. A full
    disk or a directory that vanished gives a warning and never stops the training; a wrong argument
    raises.

    >>> import tempfile
    >>> with Run("resnet", tags=["demo"], log_dir=tempfile.mkdtemp(), config={"lr": 0.1}) as run:
    ...     for epoch in range(3):
    ...         run.log({"train/loss": 1.0 / (epoch + 1), "epoch": epoch})
    >>> run.status
    'completed'
    """

    def __init__(
        self,
        name: str,
        tags: Iterable[str] | None = None,
        log_dir: str | os.PathLike[str] = "blackboxml_logs",
        *,
        config: Any = None,
        strict: bool = False,
        resume: bool | str | os.PathLike[str] | None = None,
        sync: Sync = "interval",
        environment: Collection[str] | None = None,
        command_line: bool = False,
        seal: bool = True,
        parent: str | None = None,
        run_id: str | None = None,
        extensions: Mapping[str, Any] | None = None,
        system_metrics: float = False,
        console: bool = False,
        code: bool = False,
    ) -> None:
        """Prepare a run; nothing is written before it starts.

        Args:
            name: Any text that is not empty; it is kept as given, and begins the directory's name.
            tags: Any texts, to find the run by.
            log_dir: Folder of runs; made if it is missing.
            config: Hyper-parameters: a mapping, a dataclass or an `argparse.Namespace`.
            strict: Raise `WriteError` where the default is to warn and go on.
            resume: Go on with a run as its next attempt: the path of a run, or True for the newest
                run of this name in `log_dir`, where there is one.
            sync: When records survive a power cut: `interval` within about a second, `record`
                before each `log` returns, `none` when the operating system likes.
            environment: Fields to record about machine and software; None for the usual ones, empty
                for none. See `blackboxml.base.environment.FIELDS`.
            command_line: Record the whole command line, which may hold secrets.
            seal: Write tables, datasets and checksums when the run ends.
            parent: Id of the run that this one was derived from.
            run_id: Id of a new run, 32 lower-case hexadecimal digits; made up by default.
            extensions: What a new run says besides, by domain name in reverse.
            system_metrics: Sample processor, memory, disk, network and GPUs into the group
                `system`: True for each 15 seconds, or the seconds; `blackboxml.companion.system`.
            console: Keep what is printed, in `console.log`. See `blackboxml.companion.console`.
            code: Keep the loaded sources and the difference to the last commit, without secrets, as
                artifacts. See `blackboxml.companion.snapshot`.

        Raises:
            ValueError: If `system_metrics` is no time.
            MissingDependencyError: If `system_metrics` are wanted and psutil is not installed.
        """
        self.name = name
        self._tags = tags if tags is None or isinstance(tags, str) else list(tags)
        self._log_dir = log_dir
        self._config = config
        self._strict = strict
        self._resume = resume
        self._sync: Sync = sync
        self._environment = environment
        self._command_line = command_line
        self._seal = seal
        self._parent = parent
        self._run_id = run_id
        self._extensions = extensions
        self._companions = Companions(system_metrics=system_metrics, console=console, code=code)
        self._writer: RunWriter | None = None
        self._git: threading.Thread | None = None
        self._pid = os.getpid()

    # -- life

    def start(self) -> Self:
        """Begin to record, and return the run.

        A run that ended and is started again begins a new directory.

        Raises:
            RunStateError: If it was started already, or `resume` names a run that is being written.
            NotARunError: If `resume` names a path without a run.
            ValueError: If the name or a tag cannot be stored.
            ConfigError: If the configuration cannot be stored.
            WriteError: If the file system refuses and `strict` is set.
        """
        if self._writer is not None and self._writer.active:
            message = f"run {self.name!r} was started already; finish() it first"
            raise RunStateError(message)
        tree = None if self._config is None else encode_config(self._config)
        if isinstance(self._tags, str):
            message = f"tags is the text {self._tags!r:.80}, wanted a list of texts"
            raise ValueError(message)  # noqa: TRY004 - one kind of error for all arguments
        writer = self._open_writer()
        self._writer, self._pid = writer, os.getpid()
        _started.add(self)
        # An attribute of the instance saves the frame of a method on the hot path.
        self.log = writer.log  # type: ignore[method-assign]
        try:
            if tree:
                writer.add_config(tree)
            self._capture_git()
            self._companions.start(writer, tree)
            _handle_termination()
        except BaseException as error:
            self._end_after(error)
            raise
        return self

    def finish(
        self,
        status: str = "completed",
        error: BaseException | Mapping[str, str] | None = None,
        *,
        seal: bool | None = None,
    ) -> None:
        """End the run and seal it; calling it again does nothing.

        Args:
            status: `completed`, `failed` or `interrupted`.
            error: What made it fail: an exception, or its `type`, `message` and `traceback`.
            seal: Seal it or not, whatever it was told when it was made.

        Raises:
            RunStateError: If the run was not started.
            ValueError: If the status is none of the three.
            SealError: If what was sealed does not read back the same and `strict` is set.
            WriteError: If the file system refuses and `strict` is set.
        """
        writer = self._require()
        if os.getpid() != self._pid or writer.finished:
            return
        self._companions.stop()
        if self._git is not None:
            self._git.join(_GIT_SECONDS)
        try:
            described = _describe(error) if isinstance(error, BaseException) else error
            writer.finish(status, described)
        finally:
            if writer.finished:
                _started.discard(self)
                _restore_handler()
        if (self._seal if seal is None else seal) and writer.complete:
            self._seal_now(writer.path)

    def __enter__(self) -> Self:
        """Start the run."""
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the run; an exception of the training is recorded and goes on to the caller."""
        if error is None or (isinstance(error, SystemExit) and not error.code):
            self.finish()
        else:
            self._end_after(error)

    def _end_after(self, error: BaseException) -> None:
        """End the run because of an exception that is on its way; a second one would hide it."""
        try:
            if isinstance(error, KeyboardInterrupt | GeneratorExit | Terminated):
                self.finish("interrupted")
            else:
                self.finish("failed", error)
        except Exception:
            logger.exception("run %r could not be ended in order", self.name)

    # -- recording

    def log(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Record one step; it is in the kernel when this returns.

        Args:
            metrics: Numbers by name; the text before the first `/` is the metric's group. Python,
                numpy, torch, TensorFlow and JAX scalars and arrays of shape () are taken.
            step: An int64; by default one more than the last.

        Raises:
            MetricError: If a name, a value or the step cannot be stored; nothing was recorded.
            RunStateError: If the run was not started, or has ended.
            WriteError: If the file system refuses and `strict` is set.
        """
        self._require().log(metrics, step)

    def log_config(self, config: Any = None, /, **parameters: Any) -> None:
        """Add hyper-parameters; one that is given again is replaced, and its old value kept aside.

        Args:
            config: A mapping, a dataclass or an `argparse.Namespace`.
            **parameters: More, by name.

        Raises:
            ConfigError: If one cannot be stored; nothing was changed.
            RunStateError: If the run was not started, or has ended.
        """
        writer = self._require()
        if os.getpid() != self._pid:
            writer.disregard()
            return
        if not writer.active:
            message = f"run {self.name!r} has ended; its configuration is closed"
            raise RunStateError(message)
        tree = {} if config is None else encode_config(config)
        tree |= encode_config(parameters) if parameters else {}
        writer.add_config(tree)

    def rewind(self, step: int) -> None:
        """Say that training went back to a checkpoint: points at `step` or later do not count.

        Nothing is deleted. The next automatic step is `step`.

        Raises:
            MetricError: If `step` is no int64.
            RunStateError: If the run was not started, or has ended.
        """
        self._require().rewind(step)

    def describe(
        self, metric: str, *, unit: str | None = None, description: str | None = None
    ) -> None:
        """Give a metric a unit and a description, for tables and datasets.

        Raises:
            MetricError: If the name cannot be stored, or a text is no text.
            RunStateError: If the run was not started, or has ended.
        """
        self._require().describe(metric, unit=unit, description=description)

    def sync(self) -> None:
        """Make every record survive a power cut that was logged before this call.

        Raises:
            RunStateError: If the run was not started.
            WriteError: If the file system refuses and `strict` is set.
        """
        self._require().sync()

    # -- what it is

    @property
    def path(self) -> Path:
        """The run directory."""
        return self._require().path

    @property
    def id(self) -> str:
        """32 hexadecimal digits, the same in every attempt."""
        return self._require().run_id

    @property
    def attempt(self) -> int:
        """Which start of the run this is, from 0."""
        return self._require().attempt

    @property
    def status(self) -> str:
        """`created`, `running`, `completed`, `failed` or `interrupted`."""
        return "created" if self._writer is None else str(self._writer.manifest["status"])

    @property
    def tags(self) -> list[str]:
        """The tags, as a list."""
        return list(self._tags or []) if self._writer is None else self._writer.manifest["tags"]

    def __repr__(self) -> str:
        """Return name, status and place."""
        place = "" if self._writer is None else f" at {str(self._writer.path)!r}"
        return f"<Run {self.name!r} {self.status}{place}>"

    # -- how

    def _require(self) -> RunWriter:
        """Return the writer of a run that was started."""
        if self._writer is None:
            message = (
                f"run {self.name!r} was not started; use `with Run(…) as run:`, or run.start()"
            )
            raise RunStateError(message)
        return self._writer

    def _open_writer(self) -> RunWriter:
        """Begin a new run, or go on with one."""
        path = None
        if self._resume is True:
            path = newest_run(self._log_dir, self.name)
        elif self._resume:
            path = Path(os.fspath(self._resume))
        if path is not None:
            _unpack(path)
            return RunWriter.resume(path, strict=self._strict, sync=self._sync)
        return RunWriter.create(
            self._log_dir,
            self.name,
            tags=self._tags,
            environment=environments.capture(self._environment, command_line=self._command_line),
            lineage={"parent": self._parent} if self._parent else None,
            run_id=self._run_id,
            extensions=self._extensions,
            strict=self._strict,
            sync=self._sync,
        )

    def _capture_git(self) -> None:
        """Ask git on a thread: in a large repository it takes seconds."""
        wanted = environments.GIT_FIELDS if self._environment is None else self._environment
        fields = [name for name in environments.GIT_FIELDS if name in wanted]
        if not fields:
            return
        writer = self._require()
        environment = writer.manifest["environment"]
        for name in fields:
            environment.setdefault(name, None)
        try:
            where = Path.cwd()
        except OSError:  # it was deleted
            return

        def ask() -> None:
            found = environments.capture_git(where, _GIT_SECONDS)
            environment.update({name: found[name] for name in fields})
            if writer.active:
                with contextlib.suppress(BlackboxError):
                    writer.write_manifest()

        self._git = threading.Thread(target=ask, name="blackboxml-git", daemon=True)
        self._git.start()

    def _seal_now(self, path: Path) -> None:
        """Seal the run; the journal is whole whatever comes of it."""
        try:
            from blackboxml.seal import seal  # heavy, and not needed before the run has ended

            seal(path)
        except Exception as error:
            if self._strict:
                raise
            logger.warning(
                "%s is recorded whole, but was not sealed: %s; `blackbox seal %s` tries again",
                path,
                error,
                path,
            )


class Terminated(SystemExit):
    """SIGTERM came: the process ends with the status that a shell expects, 143."""


_terminable = os.getpid()
"""The process in which SIGTERM ends runs; a forked one dies as it would without us."""


def _handle_termination() -> None:
    """Let SIGTERM unwind the training, so that the run ends as interrupted.

    Only where nothing else handles it: a scheduler's or a framework's own handler stays.
    """
    global _terminable  # noqa: PLW0603 - a signal has one handler in a process
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) in (signal.SIG_DFL, _terminate):  # a handler need not hash
        _terminable = os.getpid()
        signal.signal(signal.SIGTERM, _terminate)


def _terminate(number: int, _: FrameType | None) -> None:
    """Raise `Terminated` where the training is."""
    if os.getpid() == _terminable:
        raise Terminated(128 + number)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _restore_handler() -> None:
    """Give SIGTERM back with the last run, if nobody else took it in the meantime."""
    if any(run._pid == os.getpid() for run in _started):  # noqa: SLF001 - of this module
        return
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) is _terminate:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _describe(error: BaseException) -> dict[str, str]:
    """Return an exception as the manifest holds it."""
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - an exception whose text raises still has a type
        message = "its message could not be made"
    kind = type(error)
    try:
        text = "".join(traceback.format_exception(error))
    except Exception:  # noqa: BLE001 - as above
        text = "its traceback could not be made"
    described = {
        "type": kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}",
        "message": message[:_TRACEBACK_CHARACTERS],
        "traceback": text[-_TRACEBACK_CHARACTERS:],
    }
    return {key: text.encode(errors="replace").decode() for key, text in described.items()}


def _unpack(path: Path) -> None:
    """Make the journals of a packed run again, as a run that goes on needs them."""
    with Directory(path) as directory:
        manifest, _ = manifests.open_history(directory)
    if manifest.get("sealed", {}).get("packed"):
        from blackboxml.seal import seal  # heavy, and rarely needed

        seal(path)


def _finish_all() -> None:
    """End the runs that a process leaves open: it cannot be known that they were complete.

    They failed if an exception ended the process; a session at a prompt goes on after one. They are
    not sealed: an interpreter that shuts down cannot load the libraries for that any more.
    """
    error = None if hasattr(sys, "ps1") else getattr(sys, "last_value", None)
    for run in list(_started):
        try:
            if isinstance(error, Exception):
                run.finish("failed", error, seal=False)
            else:
                run.finish("interrupted", seal=False)
        except Exception:
            logger.exception("run %r could not be ended in order", run.name)


atexit.register(_finish_all)
