"""Runs of an MLflow server, read through MLflow's own client.

The history of each metric is put into files of the layout of a file store as it arrives, one metric
in memory at a time, and the runs are read from there. A server that is asked twice says the same as
long as a run's fields, its latest values and the list of its artifacts are the same; that is what
the fingerprint is of.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from blackboxml.base.extras import require
from blackboxml.converters.mlflow.folder import series
from blackboxml.converters.mlflow.run import (
    DOCUMENT,
    EXTRA,
    OWN,
    RUN_ID,
    Told,
    build,
    media,
    number,
    recall,
)
from blackboxml.errors import ConversionError
from blackboxml.foreign.values import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blackboxml.foreign.interchange import ForeignRun, Item, Ledger

_PAGE: Final = 500


def client_of(uri: str) -> Any:
    """Return a client of a tracking server or a store.

    Raises:
        MissingDependencyError: If MLflow, or what it needs for the store, is not installed.
        ConversionError: If the store refuses.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # a conversion tells nobody
    mlflow = require("mlflow", EXTRA)
    if uri.startswith("sqlite"):
        for package in ("sqlalchemy", "alembic"):
            require(package, EXTRA)
    try:
        return mlflow.MlflowClient(tracking_uri=uri)
    except mlflow.exceptions.MlflowException as error:
        raise ConversionError(f"MLflow refuses the address: {error}") from None


def pages(ask: Any) -> Iterator[Any]:
    """Yield what a question that is answered in pages yields."""
    token = None
    while True:
        page = ask(token)
        yield from page
        token = page.token
        if not token:
            return


def experiments(client: Any) -> list[Any]:
    """Return all experiments, those in the trash as well."""
    return list(
        pages(lambda token: client.search_experiments(view_type=3, page_token=token))  # 3: all
    )


def runs(client: Any, ids: list[str], condition: str = "") -> Iterator[Any]:
    """Yield runs that are not in the trash, the earliest first."""
    if ids:
        order = ["attributes.start_time ASC"]
        yield from pages(
            lambda token: client.search_runs(
                ids, condition, max_results=_PAGE, order_by=order, page_token=token
            )
        )


def read(uri: str, shown: str) -> Iterator[ForeignRun]:
    """Yield the runs of a server that are not in its trash.

    Args:
        uri: Of the server.
        shown: The same without credentials.

    Raises:
        ConversionError: If it does not answer.
    """
    client = client_of(uri)
    try:
        about = {each.experiment_id: _fields(each) for each in experiments(client)}
        found = list(runs(client, list(about)))
    except Exception as error:  # noqa: BLE001 - whatever a server answers
        raise ConversionError(f"{shown} does not answer: {error}") from None
    for run in found:
        yield _Fetched(client, run, about.get(run.info.experiment_id, {}), shown).run()


def _fields(thing: Any) -> dict[str, Any]:
    """Return the fields of one of MLflow's things."""
    return {
        name: value
        for name, value in dict(thing).items()
        if isinstance(value, (str, int, float, dict)) and value != ""
    }


class _Fetched:
    """One run of a server, and the folder into which it is fetched."""

    def __init__(self, client: Any, run: Any, experiment: dict[str, Any], shown: str) -> None:
        self._client = client
        self._run = run
        self._experiment = experiment
        self._shown = shown
        self._id = run.info.run_id

    def run(self) -> ForeignRun:
        """Return it; what was measured is fetched when it is asked for."""
        data = self._run.data
        inputs = self._run.inputs.to_dictionary() if self._run.inputs else {}
        inputs = {name: value for name, value in inputs.items() if value}
        folder = Path(tempfile.mkdtemp(prefix="blackboxml-"))
        told = Told(
            source=self._shown,
            info=_fields(self._run.info),
            experiment=self._experiment,
            params=dict(data.params),
            tags=dict(data.tags),
            inputs=[inputs] if inputs else [],
            root=folder,
            artifacts=None,
            bad=[],
            series=lambda ledger: self._items(folder, ledger),
        )
        weakref.finalize(told.series, shutil.rmtree, folder, ignore_errors=True)
        listed = list(self._listed("", told.bad))
        found = Digest(told.info, told.params, told.tags, told.inputs, self._experiment)
        entries = data._metric_objs  # noqa: SLF001 - the only way to their times
        latest = sorted((each.key, each.timestamp, each.step, each.value) for each in entries)
        found.update((repr(each),) for each in latest)
        found.update((each.path, each.file_size) for each in listed)
        result = build(told, found.hexdigest(), [])
        if RUN_ID in told.tags and any(each.path == f"{OWN}/{DOCUMENT}" for each in listed):
            self._fetch(folder / "own", f"{OWN}/{DOCUMENT}", told.bad)
            recall(result, told, folder / "own")
        return result

    def _listed(self, path: str, bad: list[str]) -> Iterator[Any]:
        """Yield the files among the artifacts; folders that cannot be listed go into `bad`."""
        try:
            found = self._client.list_artifacts(self._id, path or None)
        except Exception as error:  # noqa: BLE001 - whatever a server answers
            bad.append(f"{self._id}: artifacts {path!r}: {error}")
            return
        for each in found:
            if each.is_dir:
                if each.path != path:
                    yield from self._listed(each.path, bad)
            else:
                yield each

    def _fetch(self, folder: Path, name: str, bad: list[str]) -> bool:
        """Fetch one artifact; tell whether it is there."""
        place = PurePosixPath(name)
        if place.is_absolute() or ".." in place.parts:
            bad.append(f"{self._id}: {name!r} leads out of the artifacts")
            return False
        kept = folder / place
        kept.parent.mkdir(parents=True, exist_ok=True)
        try:
            # Some versions put the file at its path, some at its last name.
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                os.replace(self._client.download_artifacts(self._id, name, scratch), kept)
        except Exception as error:  # noqa: BLE001 - whatever a server answers
            bad.append(f"{self._id}: {name}: {error}")
            return False
        return True

    def _items(self, folder: Path, ledger: Ledger) -> Iterator[Item]:
        """Fetch what was measured and the artifacts, and yield them."""
        metrics = folder / "metrics"
        shutil.rmtree(metrics, ignore_errors=True)
        metrics.mkdir(parents=True)
        names = {}
        for at, name in enumerate(sorted(self._run.data.metrics)):
            names[f"{at:09}"] = name
            try:
                history = self._client.get_metric_history(self._id, name)
            except Exception as error:  # noqa: BLE001 - whatever a server answers
                ledger.unreadable("scalar", f"the server refuses: {error}", where=name)
                continue
            with (metrics / f"{at:09}").open("w", encoding="ascii") as file:
                for each in history:
                    value = number(each.value, each.value != each.value)
                    file.write(f"{each.timestamp} {value!r} {each.step}\n")
        for points in series(metrics, ledger):
            points.layouts = [tuple(names[at] for at in layout) for layout in points.layouts]
            yield points
        # A medium is fetched into one folder, since the index names the files of all.
        place, bad = folder / "artifacts", list[str]()
        for each in self._listed("", bad):
            self._fetch(place, each.path, bad)
        for where in bad:
            ledger.unreadable("artifact", "the server does not give it", where=where)
        yield from media(place, ledger)
