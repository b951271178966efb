"""`ExperimentDBManager`: the runs of one experiment, by their numbers."""

from __future__ import annotations

import logging
import shutil
import threading
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final

from blackboxml.collection.catalogue import Catalogue
from blackboxml.errors import RunStateError
from blackboxml.foreign import values as foreign
from blackboxml.foreign.pixels import Pixels, to_array
from blackboxml.frontends.experiments import number as numbers
from blackboxml.frontends.experiments.media import read_media
from blackboxml.frontends.run import Run
from blackboxml.model import SCRATCH
from blackboxml.reader import open_run

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Iterator, Mapping

    from blackboxml.collection.entry import Entry
    from blackboxml.model import Number
    from blackboxml.reader import RunReader

logger = logging.getLogger("blackboxml")

STATUSES: Final = ("completed", "failed", "running")
"""What `update_run_status` and `end_run` take."""

SUFFIX: Final = ".db"
GRAPH: Final = "graph"
"""The name of the media that are computation graphs."""

_GRAPH_BITS: Final = 20
_IMAGE_CHANNELS: Final = (1, 3, 4)


@dataclass(frozen=True, slots=True)
class RunInfo:
    """One run of an experiment.

    Attributes:
        run_id: Its number in the experiment.
        name: As it was given.
        created_at: When it began, in local time: `YYYY-MM-DD HH:MM:SS`.
        status: `running`, `completed`, `failed`; `interrupted`, or `crashed` if it was killed.
        config: The hyper-parameters.
        num_records: How many values each of the metrics has.
        metrics: Their names.
    """

    run_id: int
    name: str
    created_at: str
    status: str
    config: dict[str, Any]
    num_records: list[int] | None = None
    metrics: list[str] | None = None


@dataclass(frozen=True, slots=True)
class RecordInfo:
    """One value of a metric.

    Attributes:
        step: The step.
        value: The value.
        log_time: When it was logged, in Unix seconds.
    """

    step: int
    value: Number
    log_time: float


class ExperimentDBManager:
    """The runs of one experiment, in a folder.

    Runs that this object began stay open until `update_run_status` ends them. A run that something
    else recorded is continued, as its next attempt, when it is given more. All methods may be
    called from any thread.
    """

    def __init__(self, db_path: str | os.PathLike[str]) -> None:
        """Take the folder of an experiment; nothing is made or read yet.

        Args:
            db_path: The folder; `mnist.db` means `mnist`.
        """
        path = Path(db_path)
        self.db_path = path.with_suffix("") if path.suffix == SUFFIX else path
        self._catalogue = Catalogue(self.db_path)
        self._numbers: dict[int, Entry] = {}
        self._open: dict[int, Run] = {}
        self._lock = threading.RLock()
        self._reader: RunReader | None = None

    # -- the experiment

    def check_connection(self) -> bool:
        """Tell whether the experiment is there."""
        return self.db_path.is_dir()

    def init_exp_db(self) -> None:
        """Make the folder, if it is missing."""
        self.db_path.mkdir(parents=True, exist_ok=True)

    # -- recording

    def create_run(self, name: str | None = None, config: dict[str, Any] | None = None) -> int:
        """Begin a run and return its number, greater than that of every run before it.

        Args:
            name: Any text; `run_<number>` by default.
            config: Hyper-parameters.

        Raises:
            ValueError: If the name or the configuration cannot be stored.
        """
        run_id = token_hex(16)
        try:
            number = numbers.claim(self.db_path, lambda: max(self._refresh(), default=0))
            said = {numbers.EXTENSION: {"run": number}}
        except OSError:  # the run is kept in memory until it can be written, and warns about it
            number, said = numbers.derive(run_id), {}
        run = Run(
            f"run_{number}" if name is None else name,
            log_dir=self.db_path,
            config=config or None,
            run_id=run_id,
            extensions=said,
        )
        self._open[number] = run.start()
        return number

    def run(self, run_id: int) -> Run:
        """Return a run to record into; one that has ended goes on with its next attempt.

        Raises:
            RunStateError: If there is no such run, or another process is writing it.
        """
        with self._lock:
            if run_id not in self._open:
                entry = self._entry(run_id)
                if entry is None:
                    raise RunStateError(f"{self.db_path} has no run {run_id}")
                self._open[run_id] = Run(entry.name, resume=entry.path).start()
            return self._open[run_id]

    def record(self, run_id: int, metric_name: str, step: int, value: Any) -> None:
        """Log one value.

        Raises:
            MetricError: If the name, the value or the step cannot be stored.
            RunStateError: If there is no such run, or another process is writing it.
        """
        self.run(run_id).log({metric_name: value}, step)

    def save_histogram(
        self,
        run_id: int,
        name: str,
        step: int,
        bucket_edges: list[float],
        bucket_counts: list[int],
    ) -> None:
        """Log a histogram that was made already: n + 1 edges and n counts."""
        value = {"edges": list(bucket_edges), "counts": list(bucket_counts)}
        self.run(run_id).log_media(name, "histogram", step, value=value)

    def save_image(  # noqa: PLR0917 - the signature of simplegrad
        self,
        run_id: int,
        name: str,
        step: int,
        width: int,
        height: int,
        channels: int,
        image_data: bytes,
    ) -> None:
        """Log an image of raw bytes, row by row; with other than 1, 3 or 4 channels as an array.

        Raises:
            ValueError: If there are not so many bytes.
        """
        pixels = to_array(Pixels(width, height, channels, image_data))
        run = self.run(run_id)
        if channels in _IMAGE_CHANNELS:
            run.log_image(name, pixels, step)
        else:
            run.log_array(name, pixels, step)

    def save_text(self, run_id: int, name: str, step: int, content: str) -> None:
        """Log a text."""
        self.run(run_id).log_text(name, str(content), step)

    def save_comp_graph(self, run_id: int, graph_data: Mapping[str, Any]) -> None:
        """Log a computation graph: `nodes` and `edges`. A run may have several."""
        self.run(run_id).log_media(GRAPH, "graph", value=dict(graph_data))

    def update_run_status(
        self, run_id: int, status: str, error: BaseException | None = None
    ) -> None:
        """End a run, or with `running` let one that has ended go on.

        Args:
            run_id: Its number.
            status: `completed`, `failed` or `running`.
            error: What made it fail.

        Raises:
            ValueError: If the status is none of these; the run is as it was.
            RunStateError: If there is no such run, or another process is writing it.
        """
        if status not in STATUSES:
            raise ValueError(f"status is {status!r:.80}, wanted one of {', '.join(STATUSES)}")
        run = self.run(run_id)
        if status != "running":
            try:
                run.finish(status, error)
            finally:
                del self._open[run_id]

    def interrupt(self, run_id: int) -> None:
        """End a run of which nobody said how it ended."""
        self._open.pop(run_id).finish("interrupted")

    def delete_run(self, run_id: int) -> None:
        """Delete a run with all its data; one that is not there is no error.

        Raises:
            RunStateError: If another process is writing it.
        """
        with self._lock:
            if run_id in self._open:
                self.interrupt(run_id)
            entry = self._entry(run_id)
            if entry is None:
                return
            if entry.status == "running":
                raise RunStateError(f"run {run_id} is being written by another process; end it")
            gone = entry.path.rename(entry.path.with_name(f"{SCRATCH}{token_hex(8)}"))
            shutil.rmtree(gone)
            self._reader = None
            self._refresh()

    # -- asking

    def get_all_runs(self) -> list[RunInfo]:
        """Return all runs that can be read, newest first."""
        found = sorted(self._refresh().items(), key=lambda each: each[0], reverse=True)
        found.sort(key=lambda each: each[1].start or 0.0, reverse=True)
        return [_info(number, entry) for number, entry in found]

    def get_run(self, run_id: int) -> RunInfo | None:
        """Return a run, None if there is none of this number."""
        entry = self._entry(run_id)
        return None if entry is None else _info(run_id, entry)

    def get_metrics(self, run_id: int) -> list[str]:
        """Return the names of the metrics of a run."""
        entry = self._entry(run_id)
        return [] if entry is None else [name for name, said in entry.metrics.items() if said.n]

    def get_records(self, run_id: int, metric_name: str) -> list[RecordInfo]:
        """Return the values of a metric by step; of equal steps in the order of their logging."""
        return self.get_results(run_id, [metric_name]).get(metric_name, [])

    def get_results(
        self, run_id: int, metrics: Collection[str] | None = None
    ) -> dict[str, list[RecordInfo]]:
        """Return the values of all metrics, or of some."""
        reader = self._read(run_id)
        return {} if reader is None else dict(_results(reader, metrics))

    def get_metric_summary(self, run_id: int) -> dict[str, dict[str, Any]]:
        """Return statistics of each metric.

        They are `min`, `max`, `mean` and `std` of the finite values, the latter of the population;
        `last`, the value at the greatest step; `n`, `first_step`, `last_step`, and `nonfinite`, how
        many values are NaN or infinite.
        """
        reader = self._read(run_id)
        found = {} if reader is None else reader.summary()
        return {name: asdict(said) for name, said in found.items()}

    def get_histograms(self, run_id: int) -> dict[str, list[dict[str, Any]]]:
        """Return the histograms of a run by name, each as step, edges, counts and time."""
        return self._media(run_id, "histogram")

    def get_images(self, run_id: int) -> dict[str, list[dict[str, Any]]]:
        """Return the images of a run by name, each as step, size, raw bytes in base 64 and time."""
        return self._media(run_id, "image")

    def get_texts(self, run_id: int) -> dict[str, list[dict[str, Any]]]:
        """Return the texts of a run by name, each as step, content and time."""
        return self._media(run_id, "text")

    def get_comp_graphs(self, run_id: int) -> list[dict[str, Any]]:
        """Return the computation graphs of a run: id, graph and time."""
        reader = self._read(run_id)
        if reader is None:
            return []
        records = [each for each in reader.media() if each.kind == GRAPH]
        return [
            {
                "id": (run_id << _GRAPH_BITS) + place,
                "graph": foreign.from_medium(reader, record),
                "created_at": record.time,
            }
            for place, record in enumerate(records, start=1)
        ]

    def get_comp_graph(self, graph_id: int) -> dict[str, Any] | None:
        """Return a computation graph by the id that `get_comp_graphs` gave it."""
        run_id = graph_id >> _GRAPH_BITS
        for found in self.get_comp_graphs(run_id):
            if found["id"] == graph_id:
                graph: dict[str, Any] = found["graph"]
                return graph
        return None

    # -- how

    def _refresh(self) -> dict[int, Entry]:
        """Look at all runs."""
        with self._lock:
            entries = [entry for entry in self._catalogue.runs() if entry.id is not None]
            self._numbers = numbers.assign(entries)
            return self._numbers

    def _entry(self, run_id: int) -> Entry | None:
        """Return a run as it is now; if its place is known, without looking at the others."""
        with self._lock:
            known = self._numbers.get(run_id)
            entry = None if known is None else self._catalogue.look(known)
            if entry is None or entry.id is None:
                return self._refresh().get(run_id)
            self._numbers[run_id] = entry
            return entry

    def _read(self, run_id: int) -> RunReader | None:
        """Return a run to read from; the last one is kept open."""
        with self._lock:
            entry = self._entry(run_id)
            if entry is None:
                return None
            if self._reader is None or self._reader.path != entry.path:
                self._reader = open_run(entry.path)
            return self._reader

    def _media(self, run_id: int, kind: str) -> dict[str, list[dict[str, Any]]]:
        """Return the media of a kind by name."""
        reader = self._read(run_id)
        return {} if reader is None else read_media(reader, kind)


def _info(number: int, entry: Entry) -> RunInfo:
    """Return a run as simplegrad describes it."""
    metrics = {name: said.n for name, said in entry.metrics.items() if said.n}
    return RunInfo(
        run_id=number,
        name=entry.name,
        created_at=f"{datetime.fromtimestamp(entry.start or 0.0):%Y-%m-%d %H:%M:%S}",  # noqa: DTZ006 - simplegrad's is local
        status=entry.status,
        config=entry.config,
        num_records=list(metrics.values()),
        metrics=list(metrics),
    )


def _results(
    reader: RunReader, wanted: Collection[str] | None
) -> Iterator[tuple[str, list[RecordInfo]]]:
    """Yield metrics and their values, by step."""
    for group in reader.groups:
        table = reader.arrow(group)
        steps, times = table.column("step").to_pylist(), table.column("time").to_pylist()
        for column, name, statistic in foreign.columns(table, group):
            if statistic is not None or (wanted is not None and name not in wanted):
                continue
            values = table.column(column).to_pylist()
            records = [
                RecordInfo(step, value, moment)
                for step, value, moment in zip(steps, values, times, strict=True)
                if value is not None
            ]
            if records:
                yield name, sorted(records, key=lambda record: record.step)
