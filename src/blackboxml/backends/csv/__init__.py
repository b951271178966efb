"""CSV files: `metrics.csv`, a row for each step, `config.json`, and `<key>.csv` for a table."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from blackboxml.backends import TrackerBackend
from blackboxml.backends.csv.rows import METRICS, Encoder, Rows, put_aside
from blackboxml.base.files import Directory
from blackboxml.base.naming import sanitise
from blackboxml.base.scalar import spell

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

CONFIG: Final = "config.json"


class CSVBackend(TrackerBackend):
    """Writes files below a folder, on rank 0 alone.

    Args:
        outdir: The folder, made if it is missing; None stands for the current one.
        rank: Rank of this process.
        config: Hyper-parameters.
        **_options: What other backends are told, such as `project_name`.

    Raises:
        OSError: If the folder or what is in it cannot be used.
    """

    name = "csv"

    def __init__(
        self,
        outdir: str | os.PathLike[str] | None = None,
        rank: int = 0,
        config: dict[str, Any] | None = None,
        **_options: Any,
    ) -> None:
        self._directory: Directory | None = None
        if rank == 0:
            folder = Path(outdir if outdir is not None else ".").absolute()
            folder.mkdir(parents=True, exist_ok=True)
            self._directory = Directory(folder)
            self._rows = Rows(self._directory)
        if config:
            self.log_config(config)

    def log(self, metrics: dict[str, Any], step: int | None = None, *, commit: bool = True) -> None:
        """Add a row; `step` is its last cell unless it has one. Without `commit` it is held.

        Raises:
            OSError: If the file system refuses; the row is tried again with a later one.
        """
        if self._directory is None:
            return
        if step is not None and "step" not in metrics:
            metrics = {**metrics, "step": step}
        self._rows.add(metrics)
        if commit:
            self._rows.commit()

    def log_config(self, config: dict[str, Any]) -> None:
        """Merge into `config.json`; one that is damaged is put aside.

        In the directory of a run of this package that file is the run's own and stays as it is.

        Raises:
            OSError: If the file system refuses.
        """
        if self._directory is None or _is_run(self._directory.path):
            return
        merged = {**_read_config(self._directory), **config}
        text = json.dumps(_plain(merged), indent=2, default=str, ensure_ascii=False)
        self._directory.replace(CONFIG, f"{text}\n".encode(errors="backslashreplace"))

    def log_table(self, key: str, columns: Sequence[str], data: Sequence[Sequence[Any]]) -> None:
        """Write a table to `<key>.csv`, in folders where the key has `/`.

        That of the key `metrics` is `metrics_table.csv`, for the rows have the other name.

        Raises:
            OSError: If the file system refuses.
        """
        if self._directory is None:
            return
        *folders, last = [sanitise(part) for part in key.split("/") if part] or ["table"]
        name = f"{last}.csv"
        if not folders and name.lower() == METRICS:
            name = f"{last}_table.csv"
        place = self._directory.path.joinpath(*folders)
        place.mkdir(parents=True, exist_ok=True)
        encode = Encoder()
        with Directory(place) as directory:
            directory.replace(name, b"".join(encode(row) for row in (columns, *data)))

    def finish(self) -> None:
        """Write the rows that are held, and make the file durable.

        Raises:
            OSError: If the file system refuses.
        """
        if self._directory is None:
            return
        try:
            self._rows.finish()
        finally:
            self._directory.close()
            self._directory = None


def _is_run(folder: Path) -> bool:
    """Tell whether a folder is a run of this package, whose configuration is its own."""
    try:
        with (folder / "run.json").open("rb") as file:
            return b'"blackbox-run"' in file.read(4096)
    except OSError:
        return False


def _read_config(directory: Directory) -> dict[str, Any]:
    try:
        found = json.loads((directory.path / CONFIG).read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        put_aside(directory, CONFIG)
        return {}
    return found


def _plain(tree: Any) -> Any:
    """Return a tree of which every JSON parser reads the result."""
    if isinstance(tree, Mapping):
        return {str(key): _plain(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple | set | frozenset):
        return [_plain(value) for value in tree]
    if isinstance(tree, float) and not math.isfinite(tree):
        return spell(tree)
    return tree
