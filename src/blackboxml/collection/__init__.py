"""Many runs: what lies below a folder."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from blackboxml import manifest as manifests
from blackboxml.base import naming
from blackboxml.base.files import is_hidden
from blackboxml.collection.listing import folders_in, names_in
from blackboxml.errors import BlackboxError
from blackboxml.model import MANIFEST
from blackboxml.reader import open_run

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    import polars as pl

    from blackboxml.reader import RunReader


logger = logging.getLogger("blackboxml")


def find_runs(root: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield the directories below a folder that look like runs, in byte order, links not followed.

    A run is not searched for further runs. Whether it is readable is for `open_run` to say.

    Raises:
        OSError: If a folder cannot be listed, for another reason than permission.
    """
    for name in folders_in(root):
        path = Path(root, name)
        if looks_like_run(path):
            yield path
        else:
            yield from find_runs(path)


def open_runs(
    root: str | os.PathLike[str],
) -> Iterator[tuple[Path, RunReader | BlackboxError | OSError]]:
    """Yield every run below a folder, or why it cannot be read."""
    for path in find_runs(root):
        try:
            yield path, open_run(path)
        except (BlackboxError, OSError) as error:
            yield path, error


def newest_run(root: str | os.PathLike[str], name: str) -> Path | None:
    """Return the run of a name that began last, or None if there is none.

    One that the file system refuses to show is passed over with a warning.

    Args:
        root: Folder of runs.
        name: The name as it was given, not the name of the directory.
    """
    found: list[tuple[float, Path]] = []
    for path, reader in open_runs(root):
        if isinstance(reader, BlackboxError | OSError):
            if is_hidden(reader):
                logger.warning("%s is passed over, as it cannot be read: %s", path, reader)
        elif reader.name == name:
            with suppress(ValueError):  # a damaged manifest must not hide the other runs
                found.append((manifests.seconds(reader.manifest["start"]), path))
    return max(found)[1] if found else None


def looks_like_run(path: str | os.PathLike[str]) -> bool:
    """Tell whether a directory has a manifest or a journal.

    Raises:
        OSError: If it cannot be listed, for another reason than permission.
    """
    names = names_in(path)
    return MANIFEST in names or any(naming.parse_journal_name(name) for name in names)


def scan_runs(root: str | os.PathLike[str], *, refresh: bool = True) -> pl.LazyFrame:
    """Return the runs below a folder as a polars LazyFrame, a row each, in the order of the paths.

    Its columns are `id`, `name`, `path`, `status`, `start` and `end` in UTC, `duration_seconds`,
    `tags`, and `problem`, which says why a run cannot be read. Behind them comes one column for
    each hyper-parameter, such as `config.model.depth`, and one for the last value of each metric,
    such as `last.train/loss`; null where a run has none. A column that has numbers, and texts or
    lists too, or lists alone, has their JSON.

    Args:
        root: Folder of runs; one that is missing has none.
        refresh: Look at the files first. Otherwise the answer is what the last look found, of this
            or another process, if there was one; of more than 10,000 runs, the last one that found
            many changed.

    >>> import tempfile
    >>> from blackboxml import Run
    >>> from blackboxml.collection import scan_runs
    >>> root = tempfile.mkdtemp()
    >>> with Run("demo", log_dir=root, config={"lr": 0.1}) as run:
    ...     run.log({"loss": 0.5})
    >>> scan_runs(root).select("name", "status", "config.lr", "last.loss").collect().rows()
    [('demo', 'completed', 0.1, 0.5)]
    """
    from blackboxml.collection.catalogue import Catalogue
    from blackboxml.collection.runs import RunTable

    return RunTable(Catalogue(root).ledger(refresh=refresh), os.fspath(root)).scan()


def scan_metrics(
    root: str | os.PathLike[str],
    group: str | None = None,
    columns: Sequence[str] | None = None,
    *,
    runs: Collection[str] | None = None,
    refresh: bool = True,
) -> pl.LazyFrame:
    """Return a group of metrics of all runs below a folder as a polars LazyFrame.

    Its columns are `run`, the id of the run, `path`, `step`, `time`, `rank`, `attempt`, and one a
    metric, named as in the table of a run; a metric called `run` or `path` has a `_` behind its
    name. The rows are the effective ones, run by run in the order of the paths. A type holds the
    values of all runs, as it does within one: int64 and float64 make float64.

    A query reads one run after another, and of each the columns that it needs; a condition on `run`
    or `path` keeps others from being opened. Runs that cannot be read are left out, with a warning
    that names them.

    Args:
        root: Folder of runs; one that is missing has none.
        group: The group, `""` for metrics without a prefix; None where there is only one.
        columns: The metrics, by the names of their columns; None for all.
        runs: Ids of the runs that are wanted, None for all.
        refresh: As in `scan_runs`: whether to look at the files for runs and metrics first. What is
            read of a run is always as it is then.

    Raises:
        KeyError: If there are runs, and none has the group or one of the columns. Without a run
            the columns that were asked for are float64.

    >>> import tempfile
    >>> from blackboxml import Run
    >>> from blackboxml.collection import scan_metrics
    >>> root = tempfile.mkdtemp()
    >>> with Run("demo", log_dir=root) as run:
    ...     run.log({"train/loss": 0.5})
    >>> scan_metrics(root, "train", ["loss"]).select("step", "loss").collect().rows()
    [(0, 0.5)]
    """
    from blackboxml.collection.catalogue import Catalogue
    from blackboxml.collection.points import PointTable

    ledger = Catalogue(root).ledger(refresh=refresh)
    wanted = None if runs is None else frozenset(runs)
    return PointTable(ledger, os.fspath(root), group, columns, wanted).scan()
