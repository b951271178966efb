"""`Tracker`: numbered runs in experiments, one at a time."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from blackboxml.errors import MetricError, RunStateError
from blackboxml.frontends.experiments.graph import build_graph
from blackboxml.frontends.experiments.manager import GRAPH, STATUSES, SUFFIX, ExperimentDBManager

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping

    from blackboxml.frontends.experiments.manager import RecordInfo, RunInfo
    from blackboxml.frontends.run import Run

logger = logging.getLogger("blackboxml")


class Tracker:
    """Records numbered runs into experiments, and answers questions about them.

    >>> import tempfile
    >>> from blackboxml.frontends.experiments import Tracker
    >>> tracker = Tracker(tempfile.mkdtemp())
    >>> tracker.set_experiment("mnist")
    >>> with tracker.run(config={"lr": 0.01}) as run_id:
    ...     for step in range(3):
    ...         tracker.record("loss", 1 / (step + 1), step)
    >>> run_id, tracker.get_run(run_id).status, tracker.summary(run_id)["loss"]["last"]
    (1, 'completed', 0.3333333333333333)

    Attributes:
        all_exp_dir: Folder of the experiments.
        cur_exp_path: Folder of the experiment that is set, or None.
        db_manager: The runs of that experiment, or None.
        current_run_id: Number of the run that is being recorded, or None.
        current_run_name: Its name.
    """

    def __init__(self, all_exp_dir: str | os.PathLike[str] = "./experiments") -> None:
        """Make the folder of the experiments if it is missing."""
        self.current_run_id: int | None = None
        self.current_run_name: str | None = None
        self.cur_exp_path: Path | None = None
        self.db_manager: ExperimentDBManager | None = None
        self._run: Run | None = None
        self._log: Callable[[dict[str, Any], int | None], None] = _refuse
        self.set_all_exp_dir(all_exp_dir)

    # -- experiments

    def set_all_exp_dir(self, directory: str | os.PathLike[str]) -> None:
        """Go to another folder of experiments; set an experiment there next."""
        self._leave()
        self.all_exp_dir = Path(directory)
        self.all_exp_dir.mkdir(parents=True, exist_ok=True)
        self.cur_exp_path = self.db_manager = None

    def get_all_exp_paths(self) -> list[Path]:
        """Return the folders of the experiments, by name."""
        if not self.all_exp_dir.is_dir():
            return []
        found = [path for path in self.all_exp_dir.iterdir() if path.is_dir()]
        return sorted(path for path in found if not path.name.startswith("."))

    def set_experiment(self, exp_name: str) -> None:
        """Go to an experiment; a new one is made.

        Args:
            exp_name: Its name; `mnist.db` means `mnist`.

        Raises:
            ValueError: If it is no name of one folder.
        """
        name = str(exp_name).removesuffix(SUFFIX)
        if not name or name.startswith(".") or any(sign in name for sign in "/\\\0"):
            message = (
                f"the experiment {exp_name!r:.80} cannot be a folder of {self.all_exp_dir}: its "
                "name begins with a dot, is empty, or has a slash in it; choose another"
            )
            raise ValueError(message)
        self._leave()
        manager = ExperimentDBManager(self.all_exp_dir / name)
        new = not manager.check_connection()
        manager.init_exp_db()
        self.cur_exp_path, self.db_manager = manager.db_path, manager
        logger.info("%s the experiment %s", "began" if new else "went to", manager.db_path)

    # -- runs

    def start_run(
        self,
        name: str | None = None,
        config: dict[str, Any] | None = None,
        *,
        run_name: str | None = None,
        hparams: dict[str, Any] | None = None,
    ) -> int:
        """Begin a run and return its number in the experiment.

        Args:
            name: Any text; `run_<number>` by default.
            config: Hyper-parameters.
            run_name: The name, by another name.
            hparams: The hyper-parameters, by another name.

        Raises:
            RunStateError: If no experiment is set.
            ValueError: If the name or the configuration cannot be stored.
        """
        manager = self._manager()
        self._leave()
        number = manager.create_run(run_name if name is None else name, config or hparams)
        self._run = manager.run(number)
        self._log = self._run.log
        self.current_run_id, self.current_run_name = number, self._run.name
        return number

    def end_run(self, status: str = "completed") -> int:
        """End the current run and return its number.

        Args:
            status: `completed` or `failed`; with `running` it goes on without being the current
                one, until it is given more through `db_manager`, or the process ends.

        Raises:
            RunStateError: If there is no current run.
            ValueError: If the status is none of these; the run goes on.
        """
        return self._end(status, None)

    @contextmanager
    def run(
        self,
        name: str | None = None,
        config: dict[str, Any] | None = None,
        *,
        run_name: str | None = None,
        hparams: dict[str, Any] | None = None,
    ) -> Iterator[int]:
        """Begin a run, and end it with the block: as failed if that raises anything.

        Arguments and errors are those of `start_run`. A run that was ended in the block stays as it
        was ended.
        """
        number = self.start_run(name, config, run_name=run_name, hparams=hparams)
        run = self._run
        try:
            yield number
        except BaseException as error:
            if self._run is run:
                try:
                    self._end("failed", error)
                except Exception:
                    logger.exception("run %d could not be ended in order", number)
            raise
        if self._run is run:
            self.end_run()

    # -- recording

    def record(self, metric_name: str, value: Any, step: int) -> None:
        """Log one value; it is in the kernel when this returns.

        Raises:
            RunStateError: If there is no current run.
            MetricError: If the name, the value or the step cannot be stored; it names the metric.
        """
        self._log({metric_name: value}, step)

    def log(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log several values at one step, by default one more than the last."""
        self._log(metrics, step)  # type: ignore[arg-type]

    def histogram(self, name: str, tensor: Any, step: int, bins: int = 30) -> None:
        """Log how many elements of a tensor or an array fall into bins of equal width.

        NaN and the infinities are in no bin, and are counted apart.
        """
        realize = getattr(tensor, "realize", None)  # simplegrad's lazy tensors
        self._require().log_histogram(name, realize() if callable(realize) else tensor, bins, step)

    def image(self, name: str, image_data: Any, step: int) -> None:
        """Log an image of shape (height, width) or (height, width, channels).

        Args:
            name: Its name.
            image_data: 1, 3 or 4 channels: integers 0 … 255, or floats 0 … 1, which are multiplied
                by 255 and rounded. Another value, or NaN, is an error.
            step: The step.
        """
        self._require().log_image(name, image_data, step)

    def text(self, name: str, content: Any, step: int) -> None:
        """Log a text of any length; what is no text is made one by `str`."""
        self._require().log_text(name, str(content), step)

    def save_comp_graph(self, tensor: Any, run_id: int | None = None) -> None:
        """Log the operations that a tensor is the result of; see `graph.build_graph`.

        Args:
            tensor: One of PyTorch, or of simplegrad's shape.
            run_id: Number of a run of this experiment; the current one by default.

        Raises:
            MetricError: If it is no such tensor.
            RunStateError: If there is neither a current run nor one of this number.
        """
        run = self._require() if run_id is None else self._manager().run(run_id)
        try:
            graph = build_graph(tensor)
        except ValueError as error:
            raise MetricError(f"a computation graph: {error}") from None
        run.log_media(GRAPH, "graph", value=graph)

    # -- asking

    def summary(self, run_id: int | None = None) -> dict[str, dict[str, Any]]:
        """Return statistics of each metric of a run; see `ExperimentDBManager.get_metric_summary`.

        Args:
            run_id: Number of the run; the current one by default.
        """
        if run_id is None:
            self._require()
            run_id = self.current_run_id or 0
        return self._manager().get_metric_summary(run_id)

    def get_all_runs(self) -> list[RunInfo]:
        """Return all runs, newest first."""
        return self._manager().get_all_runs()

    def get_run(self, run_id: int) -> RunInfo | None:
        """Return a run, None if there is none of this number."""
        return self._manager().get_run(run_id)

    def delete_run(self, run_id: int) -> None:
        """Delete a run with all its data; one that is not there is no error.

        Raises:
            RunStateError: If another process is writing it.
        """
        manager = self._manager()
        if run_id == self.current_run_id:
            self._leave()
        manager.delete_run(run_id)

    def get_metrics(self, run_id: int) -> list[str]:
        """Return the names of the metrics of a run."""
        return self._manager().get_metrics(run_id)

    def get_records(self, run_id: int, metric_name: str) -> list[RecordInfo]:
        """Return the values of a metric by step; of equal steps in the order of their logging."""
        return self._manager().get_records(run_id, metric_name)

    def get_results(self, run_id: int) -> dict[str, list[RecordInfo]]:
        """Return the values of all metrics of a run."""
        return self._manager().get_results(run_id)

    def get_comp_graph(self, graph_id: int) -> dict[str, Any] | None:
        """Return a computation graph by the id that `get_comp_graphs` gave it."""
        return self._manager().get_comp_graph(graph_id)

    def get_comp_graphs(self, run_id: int) -> list[dict[str, Any]]:
        """Return the computation graphs of a run: id, graph and time."""
        return self._manager().get_comp_graphs(run_id)

    # -- how

    def _manager(self) -> ExperimentDBManager:
        """Return the runs of the experiment that is set."""
        if self.db_manager is None:
            raise RunStateError("No experiment is set. Call set_experiment(name) first.")
        return self.db_manager

    def _require(self) -> Run:
        """Return the current run."""
        if self._run is None:
            _refuse()
        return self._run

    def _end(self, status: str, error: BaseException | None) -> int:
        """End the current run."""
        self._require()
        number, manager = self.current_run_id or 0, self._manager()
        if status not in STATUSES:
            raise ValueError(f"status is {status!r:.80}, wanted one of {', '.join(STATUSES)}")
        self._run = self.current_run_id = self.current_run_name = None
        self._log = _refuse
        manager.update_run_status(number, status, error)
        return number

    def _leave(self) -> None:
        """End a current run of which nobody said how it ended."""
        if self._run is None:
            return
        number, manager = self.current_run_id or 0, self._manager()
        logger.warning("run %d was not ended; it ends as interrupted", number)
        self._run = self.current_run_id = self.current_run_name = None
        self._log = _refuse
        manager.interrupt(number)


def _refuse(*_: object) -> NoReturn:
    """Say that there is no run.

    Raises:
        RunStateError: Always.
    """
    raise RunStateError("No active run. Call start_run() first.")
