"""`History`: metrics of a training on one or many ranks, recorded, shown, plotted and reported.

Strategy: an update is recorded into the run directory before anything else sees it: memory,
backends, JSON Lines and the console get it afterwards, and nothing that goes wrong with them
reaches the training. Numbers become metrics of the run, everything else media.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from blackboxml.errors import BlackboxError
from blackboxml.frontends.history import console, values
from blackboxml.frontends.history.columns import Columns
from blackboxml.frontends.history.lines import Lines
from blackboxml.frontends.history.presenting import Presenting
from blackboxml.frontends.history.recording import Recording
from blackboxml.frontends.history.team import Team, find_job
from blackboxml.journal.metric import read_step

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence
    from types import TracebackType

    from blackboxml.frontends.history.final import Scene
    from blackboxml.frontends.history.place import State
    from blackboxml.frontends.history.statistics import Statistics
    from blackboxml.tracker import Tracker

logger = logging.getLogger("blackboxml")

WAIT_SECONDS: Final = 10.0
"""Seconds that rank 0 waits for the values of another rank, and another rank for rank 0."""

_PLAIN: Final = values.PLAIN
_now = time.time


class History(Presenting):
    """Records metrics, and what they are on all ranks together.

    The run is in `<report_dir>/<name>_<time>`: an ordinary run, which `open_run` reads while it is
    written. `finalize` seals it and writes datasets, plots and a report into a folder for people.

    >>> import tempfile
    >>> history = History(report_dir=tempfile.mkdtemp(), config={"lr": 0.1})
    >>> history.update({"train/loss": 0.5, "train/iter": 3})
    'train/loss=0.500000 train/iter=3'
    >>> history.history["train/loss"]
    [0.5]
    """

    def __init__(
        self,
        keys: Iterable[str] | None = None,
        *,
        report_dir: str | os.PathLike[str] | None = None,
        report_enabled: bool = True,
        jsonl_path: str | os.PathLike[str] | None = None,
        jsonl_overwrite: bool = False,
        distributed_history: bool | None = None,
        project_name: str | None = None,
        backends: str | Sequence[str] | None = None,
        config: Any = None,
        outdir: str | os.PathLike[str] | None = None,
        tracker: Tracker | None = None,
        name: str | None = None,
        tags: Iterable[str] | None = None,
        every: int = 1,
        wait: float = WAIT_SECONDS,
        rank_journals: bool = False,
    ) -> None:
        """Begin a run, on rank 0, and take part in it on the others.

        Args:
            keys: Names that will come; kept in `keys`, and of no effect.
            report_dir: Folder of runs; `<outdir>/history`, or `./outputs/history`.
            report_enabled: Let `finalize` write a report.
            jsonl_path: A log of one JSON object for each update, `<report_dir>/<run id>.jsonl` by
                default; rank 3 writes `<stem>.r3.jsonl`.
            jsonl_overwrite: Empty that log if it is there, where the default is to append.
            distributed_history: Take statistics across ranks: by default for 2 to 384 of them,
                unless `EZPZ_NO_DISTRIBUTED_HISTORY` or `EZPZ_LOCAL_HISTORY` is set.
            project_name: What backends may call the project; it starts none.
            backends: Trackers that get every update, too: names, or a text of them with commas. By
                default those of `EZPZ_TRACKER_BACKENDS` or `EZPZ_TRACKERS`, or an active
                `wandb.run`.
            config: Hyper-parameters: a mapping, a dataclass or an `argparse.Namespace`.
            outdir: Where backends write that write files.
            tracker: A tracker that was made already.
            name: Name of the run; by default that of the project, or `history`.
            tags: Any texts, to find the run by.
            every: Exchange the values of ranks once in so many updates. The statistics of those
                between then come as records of their own, with the step that they are of.
            wait: Seconds that a rank is waited for before statistics go on without it.
            rank_journals: Record the values of every rank, each in a journal of its own.

        Raises:
            ValueError: If the name, a tag, `every` or `wait` is none.
            ConfigError: If the configuration cannot be stored.
        """
        if every < 1 or not wait > 0:
            raise ValueError(f"every is {every} and wait {wait}; wanted 1 or more, and above 0")
        self.keys = [] if keys is None else list(keys)
        self.report_enabled = report_enabled
        self._lock = threading.RLock()
        self._outdir = None if outdir is None else Path(outdir).expanduser().absolute()
        outputs = self._outdir or Path("outputs").absolute()
        root = outputs / "history" if report_dir is None else Path(report_dir).expanduser()
        job = find_job()
        self._rank = job.rank
        self._columns = Columns()
        self._next_step = 0
        self._said: set[str] = set()
        self._csv_folder: Path | None = None
        self._recording = Recording(root.absolute(), name or project_name or "history", self._said)
        if job.rank == 0:
            self._recording.begin(config, tags)
        self._team = Team.meet(
            job, self._recording, wanted=distributed_history, every=every, wait=wait
        )
        self.distributed_history = self._team is not None and self._team.together
        if job.rank and rank_journals:
            self._recording.join(job.rank)
        self._lines = self._log_lines(root, jsonl_path, overwrite=jsonl_overwrite)
        self._tracker = self._make_tracker(tracker, project_name, backends, config)
        self._fans_out = type(self._tracker).__name__ != "NullTracker"
        self._is_alone = job.rank == 0 and self._team is None and not self._fans_out
        self._tracked = True
        self._config = config
        self._job = job
        self._outputs = outputs
        self._own_files: dict[Path, State] = {}
        self._sections: list[str] = []

    # -- recording

    def update(  # noqa: PLR0917 - the signature of ezpz
        self,
        metrics: Mapping[str, Any],
        precision: int = 6,
        use_wandb: bool | None = None,  # noqa: FBT001 - as above
        commit: bool | None = True,  # noqa: FBT001, FBT002
        summarize: bool | None = True,  # noqa: FBT001, FBT002
        step: int | None = None,
    ) -> str:
        """Record an update; when this returns, its numbers are in the kernel.

        Args:
            metrics: Values by name; the text before the first `/` is the group. Numbers become
                metrics, and get statistics across ranks; those in mappings are named `key.sub`.
                Arrays and lists of numbers are kept as arrays, texts as texts, and None as no
                value.
            precision: Decimals of the summary.
            use_wandb: Of no effect; deprecated.
            commit: Passed on to the backends.
            summarize: Return a summary.
            step: An int64; by default one more than the last.

        Returns:
            One line for the console; empty if it is not wanted.

        Raises:
            MetricError: If the step is no int64.
            TypeError: If `metrics` is no mapping.
        """
        if use_wandb is not None:
            warnings.warn(
                "use_wandb has no effect; give backends='wandb' to History",
                DeprecationWarning,
                stacklevel=2,
            )
        statistics: dict[str, float] = {}
        with self._lock:
            shown = self._record(metrics, step) if self._is_alone else None
            if shown is None:
                shown, statistics = self._update(metrics, step, commit=commit is not False)
        if not summarize:
            return ""
        return console.summary_line({**shown, **statistics} if statistics else shown, precision)

    def _record(self, metrics: Mapping[str, Any], step: int | None) -> dict[str, Any] | None:
        """Record an update of plain numbers that no backend and no other rank wants.

        Returns:
            Its values; None if it is of another kind, and nothing was done.
        """
        try:
            shown = dict(metrics)
            # The sum is a finite float only if all values are plain numbers, none NaN or infinite.
            total = sum(shown.values(), 0.0)
            if type(total) is not float or total - total != 0.0 or not shown:
                return None
            number = self._next_step if step is None else step
            now = _now()
            self._recording.log(shown, number, None, now)
            self._next_step = number + 1
        except Exception:  # noqa: BLE001 - whatever it is, the careful path tells
            return None
        self._columns.append(number, now, shown)
        if self._lines is not None:
            self._lines.write(now, number, shown, {}, plain=True)
        return shown

    def _update(
        self, metrics: Mapping[str, Any], step: int | None, *, commit: bool
    ) -> tuple[dict[str, Any], dict[str, float]]:
        """Record any update; return its values, and its statistics across ranks by `loss/mean`."""
        number = read_step(self._next_step if step is None else step)
        shown, numbers, others = _take_apart(metrics)
        plain = not others and numbers is shown
        now = _now()
        found = None if self._team is None else self._exchange(number, numbers)
        if numbers or found:
            try:
                self._recording.log(numbers, number, found, now)
            except BlackboxError as error:
                self._recording.mend(error, numbers, number, found, now)
        if others:
            self._recording.log_media(others, number, now)
        self._next_step = number + 1
        self._columns.append(number, now, shown)
        statistics: dict[str, float] = {}
        if found is not None:
            statistics = _flatten(found)
            self._columns.place(self._columns.newest, number, now, statistics)
        elif self._team is not None and numbers:
            self._team.remember(now, self._columns.newest)
        if self._fans_out:
            self._dispatch({**shown, **statistics}, step, commit=commit)
        if self._lines is not None:
            self._lines.write(now, number, shown, statistics, plain=plain)
        return shown, statistics

    def _exchange(self, step: int, numbers: dict[str, Any]) -> Statistics | None:
        """Exchange an update with other ranks; return its statistics if they are known by now."""
        found = self._team.update(step, numbers) if self._team is not None else None
        self._take_late()
        return found

    def _take_late(self) -> None:
        """Record the statistics of earlier updates that are known by now."""
        team = self._team
        if team is None:
            return
        for late in team.take():
            try:
                self._recording.log({}, late.step, late.statistics, late.time)
            except BlackboxError as error:
                self._recording.mend(error, {}, late.step, late.statistics, late.time)
            statistics = _flatten(late.statistics)
            self._columns.place(late.update, late.step, late.time, statistics)
            if self._lines is not None:
                self._lines.write(late.time, late.step, {}, statistics, plain=True)

    def _dispatch(self, everything: dict[str, Any], step: int | None, *, commit: bool) -> None:
        """Pass an update on to the backends."""
        try:
            self._tracker.log(everything, step=step, commit=commit)
        except Exception as error:  # noqa: BLE001 - also of a tracker that is not ours
            self.warn("tracker", f"the tracker raised {type(error).__name__}: {error}")

    def log_metrics(
        self,
        metrics: Mapping[str, Any],
        *,
        logger: logging.Logger | None = None,
        debug_prefixes: tuple[str, ...] = console.DEBUG_PREFIXES,
        include_summary: bool = True,
        rank0_only_summary: bool = True,
        precision: int = 6,
        omit_counter_metrics: bool = True,
        counter_tokens: tuple[str, ...] = console.COUNTERS,
    ) -> None:
        """Log metrics as one line at level INFO, and those of `debug_prefixes` at DEBUG.

        Nothing is recorded. With a summary, all ranks must call this, as they do `update`.

        Args:
            metrics: Values by name.
            logger: Where to; by default the logger `blackboxml`.
            debug_prefixes: What names begin with that are for debugging.
            include_summary: Show the standard deviation across ranks.
            rank0_only_summary: On rank 0 alone; the other ranks do not have it.
            precision: Decimals of a float.
            omit_counter_metrics: Take no statistics of counters.
            counter_tokens: Last parts of names that count.
        """
        shows = include_summary and (self._rank == 0 or not rank0_only_summary or self._team)
        console.log_metrics(
            metrics,
            logger=logger or globals()["logger"],
            summarize=self.summarize_distributed_min_max_std if shows else None,
            debug_prefixes=debug_prefixes,
            precision=precision,
            omit_counter_metrics=omit_counter_metrics,
            counter_tokens=counter_tokens,
        )

    split_metrics_for_logging = staticmethod(console.split_metrics_for_logging)
    summarize_min_max_std = staticmethod(console.summarize_min_max_std)

    def summarize_distributed_min_max_std(self, metrics: Mapping[str, Any]) -> dict[str, float]:
        """Return the statistics across ranks of metrics that differ between ranks.

        Those that are equal on all ranks are left out, and on one rank all are. All ranks must
        call this, as they do `update`.
        """
        numbers = {
            key: number
            for key, value in metrics.items()
            if (number := values.scalar(value)) is not None
        }
        found: dict[str, float] = {}
        with self._lock:
            if self._team is not None and self._team.together:
                found = _flatten(self._team.ask(numbers) or {})
        if not found:
            found = self.summarize_min_max_std(numbers)
        bases = {key.rpartition("/")[0] for key in found}
        flat = {each for each in bases if found[f"{each}/min"] == found[f"{each}/max"]}
        return {key: value for key, value in found.items() if key.rpartition("/")[0] not in flat}

    # -- what was recorded

    @property
    def history(self) -> dict[str, list[Any]]:
        """Values by full name, in order; on rank 0 with statistics across ranks."""
        return self._columns.flat

    @history.setter
    def history(self, data: Mapping[str, Iterable[Any]]) -> None:
        """Take other values in memory; what was recorded stays."""
        self._columns.replace(data)

    data = history

    @property
    def groups(self) -> dict[str, dict[str, list[Any]]]:
        """The lists of `history` by group and name without it; `""` is the unnamed group."""
        return self._columns.groups

    @property
    def tracker(self) -> Tracker:
        """What passes updates on to the backends."""
        return self._tracker

    @property
    def path(self) -> Path | None:
        """The run directory; None on a rank that was not told."""
        return self._recording.path

    @property
    def run_id(self) -> str | None:
        """32 hexadecimal digits, the same on all ranks; None on one that was not told."""
        return self._recording.run_id

    @property
    def rank(self) -> int:
        """Rank of this process, from 0."""
        return self._rank

    def describe(
        self, metric: str, *, unit: str | None = None, description: str | None = None
    ) -> None:
        """Give a metric a unit and a description, for datasets and plots.

        Raises:
            MetricError: If the name cannot be stored, or a text is no text.
        """
        self._recording.describe(metric, unit, description)

    # -- life

    def __enter__(self) -> Self:
        """Return the history."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the run as completed, failed or interrupted, unless `finalize` has."""
        self.close(error)

    def close(self, error: BaseException | None = None) -> None:
        """End the run and the backends without plots and report; `finalize` may still follow.

        Args:
            error: What ended the training.
        """
        with self._lock:
            self._end(error)
            if self._tracked:
                self._tracked = False
                with contextlib.suppress(Exception):
                    self._tracker.finish()

    def _end(self, error: BaseException | None) -> None:
        """End the run; the backends go on."""
        if self._team is not None:
            self._team.finish()
            self._take_late()
        self._recording.finish(error)
        if self._lines is not None:
            self._lines.close()

    def _scene(self) -> Scene:
        """Return what there is to present; the backends are told of the end once."""
        from blackboxml.frontends.history.final import Scene

        tracked, self._tracked = self._tracked, False
        return Scene(
            rank=self._rank,
            world=self._job.world,
            recording=self._recording,
            tracker=self._tracker,
            tracked=tracked,
            lines=self._lines,
            config=self._config,
            outputs=self._outputs,
            csv_folder=self._csv_folder,
            own_files=self._own_files,
            report_enabled=self.report_enabled,
        )

    def warn(self, cause: str, message: str) -> None:
        """Log a warning, once for each cause."""
        if cause not in self._said:
            self._said.add(cause)
            logger.warning("%s", message)

    # -- how

    def _log_lines(
        self, root: Path, path: str | os.PathLike[str] | None, *, overwrite: bool
    ) -> Lines | None:
        """Return the log in JSON Lines; None on a rank that does not know where it is."""
        if path is not None:
            place = Path(path).expanduser().absolute()
        elif self.run_id is not None:
            place = root.absolute() / f"{self.run_id}.jsonl"
        else:
            return None
        return Lines(place, self._rank, overwrite=overwrite)

    def _make_tracker(
        self,
        tracker: Tracker | None,
        project_name: str | None,
        backends: str | Sequence[str] | None,
        config: Any,
    ) -> Tracker:
        """Return the tracker that was given, or one of the backends that were asked for."""
        from blackboxml.tracker import NullTracker, requested, setup_tracker

        if tracker is not None:
            if config is not None:
                tracker.log_config(config)
            return tracker
        wanted = requested(backends)
        if wanted is None and getattr(sys.modules.get("wandb"), "run", None) is not None:
            warnings.warn(
                "an active wandb.run was found and is used; give backends='wandb' to History",
                DeprecationWarning,
                stacklevel=3,
            )
            wanted = ["wandb"]
        if not wanted:
            return NullTracker()
        made = setup_tracker(
            project_name, wanted, config=config, outdir=self._outdir, rank=self._rank
        )
        if self._rank == 0 and made.get_backend("csv") is not None:
            self._csv_folder = self._outdir or Path.cwd()
        return made


def _take_apart(
    metrics: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return copies of all values, of the numbers, and of what else there is.

    The first two are one if all values are plain numbers, and finite.
    """
    shown = dict(metrics)
    with contextlib.suppress(Exception):
        total = sum(shown.values(), 0.0)
        if (
            type(total) is float
            and total - total == 0.0
            and _PLAIN.issuperset(map(type, shown.values()))
            and all(isinstance(key, str) for key in shown)
        ):
            return shown, shown, {}
    shown = {_name(key): values.snapshot(value) for key, value in shown.items()}
    numbers: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for key, value in values.leaves(shown):
        (numbers if type(value) in _PLAIN else others)[key] = value
    return shown, numbers, others


def _name(key: object) -> str:
    """Return the name of a metric as text."""
    return key if isinstance(key, str) else values.text(key)


def _flatten(statistics: Statistics) -> dict[str, float]:
    """Return statistics across ranks by `loss/mean`."""
    return {
        f"{key}/{each}": own[each] for key, own in statistics.items() for each in console.STATISTICS
    }
