"""MLflow: a tracking server or a local store, through the real client.

Names of parameters and metrics, and the order in which the name of the experiment is looked for,
are those of ezpz, so that its dashboards go on working. The run belongs to this client alone: the
active run of `mlflow.log_metric` is not touched, but `mlflow.start_run(run_id=…)` joins it.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from blackboxml import backends
from blackboxml.backends import Logged, Refused, TrackerBackend
from blackboxml.backends.mlflow import facts
from blackboxml.base.extras import require
from blackboxml.foreign.interchange import flatten
from blackboxml.foreign.mlflow import LONGEST_PARAM, MOST_METRICS, MOST_PARAMS, mend

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

logger = logging.getLogger("blackboxml")

EXTRA: Final = "mlflow"
USER_FILE: Final = ".amsc.env"
STATISTICS: Final = ("mean", "max", "min", "std")

_DOTENV: Final = ("MLFLOW_", "AMSC_", "AM_SC_")
_QUIET: Final = ("MLFLOW_DISABLE_TELEMETRY", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT")
_FORBIDDEN: Final = 403


class MLflowBackend(TrackerBackend):
    """Logs to MLflow, on rank 0 alone.

    Args:
        project_name: Name of the experiment, if `MLFLOW_EXPERIMENT_NAME` gives none; dots become
            hyphens.
        config: Hyper-parameters.
        rank: Rank of this process; on others than 0 nothing happens.
        run_name: Name of the run; MLflow makes one up if it is None.
        **_options: What other backends are told.

    Attributes:
        run: The run, as MLflow describes it; None on other ranks than 0.

    Raises:
        MissingDependencyError: If MLflow is not installed.
        MlflowException: If the server or the store refuses.
    """

    name = "mlflow"
    slow: ClassVar[bool] = True
    batch: ClassVar[int] = 100

    def __init__(
        self,
        project_name: str | None = None,
        config: dict[str, Any] | None = None,
        rank: int = 0,
        run_name: str | None = None,
        **_options: Any,
    ) -> None:
        self.run: Any = None
        if rank != 0:
            return
        _load_dotenv()
        for switch in _QUIET:
            os.environ.setdefault(switch, "true")
        self._mlflow = require("mlflow", EXTRA)
        self._client = self._mlflow.MlflowClient()
        self._next_step = 0
        self._params: dict[str, str] = {}
        self._refused = Refused(self.name, "numbers")
        try:
            experiment = self._experiment(experiment_name(project_name))
            tags = {"mlflow.source.name": sys.argv[0]}
            self.run = self._client.create_run(experiment, tags=tags, run_name=run_name)
        except self._mlflow.exceptions.MlflowException as error:
            if error.get_http_status_code() == _FORBIDDEN:
                raise PermissionError(
                    f"{self._mlflow.get_tracking_uri()} refuses (403); set MLFLOW_TRACKING_TOKEN "
                    f"or AMSC_API_KEY, or write it into ~/{USER_FILE} or .env"
                ) from error
            raise
        self._id = self.run.info.run_id
        logger.info("MLflow run %s", self.run_url or self._id)
        known = facts.describe().items()
        self._log_params({f"ezpz.{key}": value for key, value in known if value is not None})
        if config:
            self.log_config(config)

    @property
    def run_url(self) -> str | None:
        """Where a browser shows the run; None if it is in a local store."""
        uri = self._mlflow.get_tracking_uri() if self.run is not None else ""
        if not uri.startswith("http"):
            return None
        info = self.run.info
        return f"{uri.rstrip('/')}/#/experiments/{info.experiment_id}/runs/{info.run_id}"

    def log(self, metrics: dict[str, Any], step: int | None = None, *, commit: bool = True) -> None:
        """Log values; those that are no numbers are left out and counted."""
        self.log_many([Logged(metrics, step, commit, time.time())])

    def log_many(self, points: Sequence[Logged]) -> None:
        """Log points with as few requests as there can be."""
        if self.run is None:
            return
        values = [value for point in points for value in self._values(point)]
        for first in range(0, len(values), MOST_METRICS):
            self._client.log_batch(self._id, metrics=values[first : first + MOST_METRICS])

    def log_config(self, config: dict[str, Any]) -> None:
        """Log parameters `config.*`; one too long for MLflow is whole below `params/`.

        Raises:
            ValueError: If a parameter has another value already: MLflow keeps the first.
        """
        if self.run is not None:
            self._log_params({f"config.{key}": value for key, value in flatten(config).items()})

    def log_table(self, key: str, columns: Sequence[str], data: Sequence[Sequence[Any]]) -> None:
        """Log a table as the artifact `tables/<key>.csv`."""
        if self.run is None:
            return
        import csv
        import io

        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([columns, *data])
        self._client.log_text(self._id, text.getvalue(), f"tables/{mend(key)}.csv")

    def log_image(self, key: str, image_path: str, caption: str | None = None) -> None:
        """Log an image as the artifact `images/<key>`, its caption as a tag of that name."""
        if self.run is None:
            return
        place = Path("images", f"{mend(key)}{Path(image_path).suffix}")
        with tempfile.TemporaryDirectory() as folder:
            named = shutil.copy(image_path, Path(folder, place.name))
            self._client.log_artifact(self._id, str(named), str(place.parent))
        if caption:
            self._client.set_tag(self._id, str(place), caption)

    def log_artifacts(self, artifacts: Mapping[str, str]) -> None:
        """Log files, and folders with all that is in them, below their labels."""
        if self.run is not None:
            backends.send_each(artifacts, self._send)

    def finish(self) -> None:
        """End the run: failed, if the script ends with an exception."""
        if self.run is None:
            return
        self._refused.summarise()
        self._client.set_terminated(self._id, "FAILED" if backends.crashed() else "FINISHED")

    def _send(self, label: str, path: str) -> None:
        send = self._client.log_artifacts if os.path.isdir(path) else self._client.log_artifact
        send(self._id, path, mend(label))

    def _experiment(self, name: str) -> str:
        """Return the id of the experiment of a name, which is made if there is none."""
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name))
            except self._mlflow.exceptions.MlflowException:
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise  # it was not another process that made it just now
        return str(found.experiment_id)

    def _values(self, point: Logged) -> Iterator[Any]:
        """Yield what MLflow takes of a point."""
        try:
            step = self._next_step if point.step is None else int(point.step)
        except (TypeError, ValueError):
            self._refused.add("step", point.step)
            return
        if point.step is None and point.commit:
            self._next_step += 1
        metric = self._mlflow.entities.Metric
        for key, value in point.metrics.items():
            try:
                number = float(value) if isinstance(value, int | float) else None
            except OverflowError:  # an integer beyond float64
                number = None
            if number is None:
                self._refused.add(key, value)
            else:
                shown = mend(_local(key, point.metrics))
                yield metric(shown, number, int(point.time * 1e3), step)

    def _log_params(self, params: Mapping[str, Any]) -> None:
        entity = self._mlflow.entities.Param
        texts = {mend(key): str(value) for key, value in params.items()}
        fresh = {key: text for key, text in texts.items() if key not in self._params}
        sent = [entity(key, self._shorten(key, text)) for key, text in fresh.items()]
        for some in _parts(sent, MOST_PARAMS):
            self._client.log_batch(self._id, params=some)
        self._params.update(fresh)
        changed = [key for key, text in texts.items() if self._params[key] != text]
        if changed:
            kept = self._params[changed[0]]
            raise ValueError(f"{changed[0]} stays {kept!r:.80}: MLflow changes no parameter")

    def _shorten(self, key: str, text: str) -> str:
        """Return what MLflow takes of a parameter; a longer one is kept whole as an artifact."""
        if len(text) <= LONGEST_PARAM:
            return text
        place = f"params/{key}.txt"
        self._client.log_text(self._id, text, place)
        pointer = f" … (whole in {place})"
        return text[: LONGEST_PARAM - len(pointer)] + pointer


def experiment_name(project_name: str | None) -> str:
    """Return the name of the experiment: the variable goes before the argument, as in ezpz."""
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or backends.project(project_name)
    return name.replace(".", "-")


def _local(key: str, metrics: Mapping[str, Any]) -> str:
    """Return the name of a metric: `loss` is `loss/local` beside its statistics across ranks."""
    return f"{key}/local" if any(f"{key}/{each}" in metrics for each in STATISTICS) else key


def _parts(values: list[Any], size: int) -> Iterable[list[Any]]:
    return (values[first : first + size] for first in range(0, len(values), size))


def _load_dotenv() -> None:
    """Take MLflow's variables from `~/.amsc.env`, where not set, then from `.env`, which counts."""
    try:
        import dotenv
    except ImportError:  # a convenience: the variables may be set as ever
        return
    user = dotenv.dotenv_values(Path.home() / USER_FILE)
    path = dotenv.find_dotenv(usecwd=True)
    project = dotenv.dotenv_values(path) if path else {}
    for values, counts in ((user, False), (project, True)):
        for name, value in values.items():
            if name.startswith(_DOTENV) and value and (counts or name not in os.environ):
                os.environ[name] = value
