"""A run into MLflow, through its own client, once for each run.

Numbers, parameters and tags go where MLflow keeps them; media become artifacts below `blackbox/`,
with an index; and what MLflow has no place for is kept there in a document, from which an import
takes it again. A run that is exported again replaces itself if it has changed.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import mimetypes
import os
import re
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from blackboxml.base.extras import require
from blackboxml.base.files import raise_refusal
from blackboxml.base.naming import distinct
from blackboxml.converters.mlflow import server
from blackboxml.converters.mlflow.run import DOCUMENT, EXTRA, INDEX, OWN, RUN_ID
from blackboxml.errors import BlackboxError, ConversionError
from blackboxml.foreign import values as foreign
from blackboxml.foreign.interchange import count_as, flatten
from blackboxml.foreign.mlflow import (
    LONGEST_NAME,
    LONGEST_PARAM,
    MOST_METRICS,
    MOST_PARAMS,
    mend,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pyarrow as pa

    from blackboxml.foreign.interchange import Kind, Ledger
    from blackboxml.model import MediaRecord
    from blackboxml.reader import RunReader

DIGEST: Final = "blackbox.digest"
"""The tag that is set last: a digest of what was exported."""
REPLACED: Final = "blackbox.replaced"
EXPERIMENT: Final = "blackbox"
_LONGEST_TAG: Final = 5000
_STATUS: Final = {"completed": "FINISHED", "failed": "FAILED", "running": "RUNNING"}
_EXACT: Final = 2**53
_HALF: Final = 0.000501


def write(
    run: RunReader, uri: str, ledger: Ledger, options: Mapping[str, Any], artifacts: Path | None
) -> None:
    """Put a run into a store.

    Args:
        run: The run.
        uri: Of the store.
        ledger: Told what has no home, and what is altered.
        options: `experiment`: the name of the experiment.
        artifacts: Folder for the artifacts of an experiment that is made; None if the store knows.

    Raises:
        ConversionError: If the store refuses.
        MissingDependencyError: If MLflow is not installed.
    """
    client = server.client_of(uri)
    mlflow = require("mlflow", EXTRA)
    try:
        with redirect_stdout(io.StringIO()):  # it greets with addresses
            _Export(run, client, ledger, mlflow).write(options, artifacts)
    except mlflow.exceptions.MlflowException as error:
        raise ConversionError(f"MLflow refuses: {error}") from None


class _Names:
    """Names as MLflow takes them; two never become one."""

    def __init__(self, kind: Kind, ledger: Ledger) -> None:
        self._kind = kind
        self._ledger = ledger
        self._taken: set[str] = set()

    def __call__(self, name: str) -> str:
        """Return a name for a thing that comes for the first time."""
        mended = mend(name)
        mended = distinct(mended, self._taken.__contains__, mended[: LONGEST_NAME - 12])
        if mended != name:
            what = "MLflow does not take the name, which is mended"
            self._ledger.changed(self._kind, what, where=name[:80])
        self._taken.add(mended)
        return mended


class _Export:
    """One run on its way."""

    def __init__(self, run: RunReader, client: Any, ledger: Ledger, mlflow: Any) -> None:
        self._run = run
        self._client = client
        self._ledger = ledger
        self._entities = mlflow.entities
        self._id = ""
        self._dry = False
        self._last = round(run.start.timestamp() * 1000)
        self._names: dict[str, dict[str, Any]] = {}
        self._shown: dict[tuple[str, int, str | None], str] = {}
        self._name = _Names("field", ledger)
        self._document: dict[str, Any] = foreign.document(run)

    def write(self, options: Mapping[str, Any], artifacts: Path | None) -> None:
        """Write all of it."""
        run, client = self._run, self._client
        digest = _digest(run)
        origin = foreign.origin(run, EXTRA)
        about = origin.get("experiment")
        name = options.get("experiment") or (about or {}).get("name") or EXPERIMENT
        everywhere = [each.experiment_id for each in server.experiments(client)]
        ours = f"tags.`{RUN_ID}` = '{run.id}'"
        for earlier in list(server.runs(client, everywhere, ours)):
            if earlier.data.tags.get(DIGEST) == digest and not self._dry:
                self._dry = True
                continue
            client.set_tag(earlier.info.run_id, REPLACED, run.id)
            client.delete_tag(earlier.info.run_id, RUN_ID)
            client.delete_run(earlier.info.run_id)
        if not self._dry:
            self._begin(self._experiment(str(name), artifacts), origin)
        # What has no home is counted also for a run that is there already.
        self._params()
        for group in run.groups:
            self._group(group)
        with tempfile.TemporaryDirectory(prefix="blackbox-mlflow-") as scratch:
            self._artifacts(Path(scratch))
            if not self._dry:
                client.log_artifacts(self._id, scratch)
        if count := len(run.manifest["attempts"]) - 1:
            self._ledger.lost("field", "MLflow knows no attempts of a run", count)
        if not self._dry:
            self._end()
            client.set_tag(self._id, DIGEST, digest)

    def _experiment(self, name: str, artifacts: Path | None) -> str:
        """Return the id of the experiment, which is made if it is missing."""
        found = self._client.get_experiment_by_name(name)
        if found is None:
            place = None if artifacts is None else (artifacts.absolute() / mend(name)).as_uri()
            return str(self._client.create_experiment(name, artifact_location=place))
        if found.lifecycle_stage != "active":
            raise ConversionError(f"the experiment {name!r} is deleted; restore it or name another")
        return str(found.experiment_id)

    def _begin(self, experiment: str, origin: Mapping[str, Any]) -> None:
        """Make the run."""
        run = self._run
        tags = origin.get("tags")
        tags = {
            key: str(value)
            for key, value in (tags if isinstance(tags, dict) else {}).items()
            if not key.startswith("blackbox.") and key != "mlflow.runName" and mend(key) == key
        }
        tags |= {RUN_ID: run.id}
        said = json.dumps(run.tags, ensure_ascii=False)
        if run.tags and len(said) <= _LONGEST_TAG:
            tags["blackbox.tags"] = said
        made = self._client.create_run(
            experiment,
            start_time=round(run.start.timestamp() * 1000),
            tags=tags,
            run_name=run.name[:LONGEST_NAME],
        )
        self._id = made.info.run_id

    def _status(self) -> str:
        """Return how MLflow calls the status."""
        return _STATUS.get(self._run.status, "KILLED")

    def _end(self) -> None:
        """Say how the run ended, and when."""
        run = self._run
        if self._status() == "RUNNING":
            return
        end = self._last
        if run.end is None:
            self._ledger.made("time", "the run has no end; MLflow is told the last time known")
        else:
            end = round(run.end.timestamp() * 1000)
        self._client.set_terminated(self._id, self._status(), end)

    def _params(self) -> None:
        """Write the configuration as parameters."""
        name = _Names("config", self._ledger)
        params = []
        for key, value in flatten(self._run.config).items():
            text = value if isinstance(value, str) else str(value)
            text = foreign.to_text(text)
            if len(text) > LONGEST_PARAM:
                what = "a value that is too long for a parameter is in blackbox/config.json"
                self._ledger.changed("config", what, where=key)
                self._document["long"] = True
                continue
            params.append(self._entities.Param(name(key), text))
        for first in range(0, len(params) if not self._dry else 0, MOST_PARAMS):
            self._client.log_batch(self._id, params=params[first : first + MOST_PARAMS])

    # ---- numbers

    def _show(self, metric: str, rank: int, statistic: str | None, kind: str) -> str:
        """Return the name of a metric in MLflow; what it stands for is kept."""
        key = metric, rank, statistic
        found = self._shown.get(key)
        if found is None:
            wanted = metric if statistic is None else f"{metric}/{statistic}"
            wanted = f"rank_{rank}/{wanted}" if rank else wanted
            found = self._shown[key] = self._name(wanted)
            said: dict[str, Any] = {"metric": metric, "type": kind}
            if rank:
                said["rank"] = rank
            if statistic is not None:
                said["statistic"] = statistic
            self._names[found] = said
        return found

    def _group(self, group: str) -> None:
        """Write the numbers of a group, in the order in which they were logged."""
        from blackboxml.journal.table import INDEX, read_keys

        table = self._run.arrow(group)
        keys = read_keys(table.schema)
        columns = list(zip(table.column_names[len(INDEX) :], keys, strict=True))
        for column, (metric, statistic) in columns:
            if statistic is None:
                _count(metric, table, column, self._ledger)
        batch: list[Any] = []
        for first in range(0, table.num_rows, MOST_METRICS):
            for each in self._rows(table.slice(first, MOST_METRICS), columns):
                batch.append(each)
                if len(batch) == MOST_METRICS:
                    self._send(batch)
        self._send(batch)

    def _rows(self, part: pa.Table, columns: list[Any]) -> Iterator[Any]:
        """Yield the entries of some rows."""
        steps, times, ranks = (part[name].to_pylist() for name in ("step", "time", "rank"))
        values = [
            (part[column].to_pylist(), *key, _kind(part[column].type)) for column, key in columns
        ]
        metric_of = self._entities.Metric
        for at, (step, time, rank) in enumerate(zip(steps, times, ranks, strict=True)):
            moment = round(time * 1000)
            self._last = max(self._last, moment)
            for column, metric, statistic, kind in values:
                if column[at] is not None:
                    shown = self._show(metric, rank, statistic, kind)
                    yield metric_of(shown, float(column[at]), moment, step)

    def _send(self, batch: list[Any]) -> None:
        """Send what is there, and forget it."""
        if batch and not self._dry:
            self._client.log_batch(self._id, metrics=batch)
        batch.clear()

    # ---- artifacts

    def _artifacts(self, scratch: Path) -> None:
        """Put media, their index and the document into a folder."""
        run = self._run
        folder = scratch / OWN
        folder.mkdir()
        with (folder / INDEX).open("w", encoding="utf-8") as index:
            for number, record in enumerate(run.media()):
                try:
                    said = self._medium(record, number, folder)
                except (BlackboxError, OSError, ValueError) as error:
                    raise_refusal(error)
                    what = "its file is missing or damaged"
                    self._ledger.lost(count_as(record.kind), what, where=f"{error}")
                else:
                    index.write(json.dumps(said, ensure_ascii=False) + "\n")
        if self._document.pop("long", False):
            text = json.dumps(self._document["config"], indent=2, ensure_ascii=False)
            (folder / "config.json").write_text(text, "utf-8")
        self._document |= {
            "names": self._names,
            "mlflow_status": self._status(),
            "mlflow_name": run.name[:LONGEST_NAME],
        }
        text = json.dumps(self._document, ensure_ascii=False, indent=1)
        (folder / DOCUMENT).write_text(text, "utf-8")

    def _medium(self, record: MediaRecord, number: int, folder: Path) -> dict[str, Any]:
        """Put a medium into a folder; return what the index says of it."""
        said: dict[str, Any] = {
            "name": record.name,
            "kind": record.kind,
            "step": record.step,
            "time": record.time,
            "media_type": record.media_type,
            "rank": record.rank,
        }
        if record.dims:
            said["dims"] = record.dims
        if record.entry is not None:
            said["entry"] = record.entry
        if record.reference is not None:
            said["reference"] = record.reference
            return said
        if record.file is None:
            said["value"] = record.value
            return said
        suffix = (
            Path(record.file).suffix or mimetypes.guess_extension(record.media_type or "") or ""
        )
        stem = re.sub(r"[^\w.\-]", "_", record.name)[-80:].strip(".") or "unnamed"
        suffix = suffix if re.fullmatch(r"\.[A-Za-z0-9]{1,12}", suffix) else ""
        place = Path(mend(record.kind).replace("/", "_")[:40])
        place /= f"{stem}-{record.step}-{number}{suffix}"
        path = folder / place
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(self._run.load(record))
        said["path"] = f"{OWN}/{place.as_posix()}"
        return said


def _kind(kind: Any) -> str:
    """Return the type of a column for the document."""
    return {"double": "float", "bool": "bool"}.get(str(kind), "int")


def _count(metric: str, table: pa.Table, column: str, ledger: Ledger) -> None:
    """Enter what MLflow does to the values and times of a metric."""
    import numpy as np
    import pyarrow.compute as pc

    table = table.select(["step", "time", "rank", column])
    table = table.filter(pc.is_valid(table.column(3)))
    if not table.num_rows:
        return
    steps, times, ranks, given = (each.to_numpy() for each in table.columns)
    moments = np.round(times * 1000)
    values = given.astype(np.float64)
    by = np.abs(moments / 1000 - times)
    if count := int((by != 0).sum()):
        what = "MLflow's times are whole milliseconds"
        ledger.changed("time", what, count, where=metric, by=max(float(by.max()), _HALF))
    if given.dtype.kind in "iu" and (count := int((np.abs(values) > _EXACT).sum())):
        ledger.changed("scalar", "MLflow's values are floats", count, where=metric, by=1024.0)
    if count := int((np.abs(values) == sys.float_info.max).sum()):
        what = "the greatest float stands for infinity in MLflow"
        ledger.changed("scalar", what, count, where=metric, by=math.inf)
    bits = np.where(np.isnan(values), np.inf, values)
    flags = np.isnan(values)
    order = np.lexsort((flags, bits, moments, steps, ranks))
    rows = np.stack([each[order] for each in (ranks, steps, moments, bits, flags)], axis=1)
    if count := int((rows[1:] == rows[:-1]).all(axis=1).sum()):
        what = "MLflow keeps equal values of one step and millisecond once"
        ledger.lost("scalar", what, count, where=metric)
    mine = np.argsort(steps, kind="stable")
    theirs = np.lexsort((flags, bits, moments, steps))
    if count := int(((bits[mine] != bits[theirs]) | (flags[mine] != flags[theirs])).sum()):
        what = "MLflow orders the values of one step by time, and those of a millisecond by value"
        ledger.changed("scalar", what, count, where=metric, by=math.inf)


def _digest(run: RunReader) -> str:
    """Return a digest of a run: of its manifest, and of names and sizes of its files."""
    found = hashlib.sha256(json.dumps(run.manifest, sort_keys=True, default=str).encode())
    path = Path(run.path)
    if path.is_file():
        found.update(str(path.stat().st_size).encode())
    for folder, inner, names in os.walk(path):
        inner.sort()
        for name in sorted(names):
            place = os.path.join(folder, name)
            said = f"{os.path.relpath(place, path)}\0{os.lstat(place).st_size}\0"
            found.update(said.encode(errors="surrogatepass"))
    return found.hexdigest()
