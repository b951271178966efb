"""MLflow: folders `mlruns/`, databases `mlflow.db`, and tracking servers.

Folders and databases are read without MLflow; a server (`http://…`) is read with its client, and
all writing is the client's. A target is a folder (for `mlflow.db` in it, and the artifacts beside),
an SQLite file, or a tracking URI: `sqlite:///…`, `http://…`, `https://…`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit, urlunsplit

from blackboxml.converters.mlflow import database, export, folder, server
from blackboxml.converters.mlflow.run import EXTRA
from blackboxml.errors import ConversionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from blackboxml.foreign.interchange import ForeignRun, Ledger
    from blackboxml.reader import RunReader

SCHEMES: Final = ("http", "https", "sqlite")
"""Of URIs that can be a source or a target."""

__all__ = ["EXTRA", "SCHEMES", "members", "read", "recognise", "write"]


def recognise(path: Path) -> bool:
    """Tell whether a file is a database, or a folder a file store or the home of a database."""
    if path.is_dir():
        return database.recognise(path / database.FILE) or folder.recognise(path)
    return database.recognise(path)


def members(path: Path) -> set[str]:
    """Return all of a file store; of the home of a database that and the artifacts beside it."""
    if not database.recognise(path / database.FILE):
        return {"*"}
    aside = {f"{database.FILE}{suffix}" for suffix in ("-wal", "-shm", "-journal")}
    return {database.FILE, *aside, *database.FOLDERS}


def read(path: Path | str) -> Iterator[ForeignRun]:
    """Yield the runs of a store.

    Raises:
        ConversionError: If a server does not answer, or the URI is of another kind.
        FormatError: If a database is damaged.
        OSError: If a file cannot be read.
    """
    if isinstance(path, str) and "://" in path:
        if urlsplit(path).scheme != "sqlite":
            yield from server.read(path, _shown(path))
            return
        path = _file(path)
    path = Path(path)
    if path.is_dir() and database.recognise(path / database.FILE):
        yield from database.read(path / database.FILE)
        if folder.recognise(path / "mlruns"):
            yield from folder.read(path / "mlruns")
    elif path.is_dir():
        yield from folder.read(path)
    else:
        yield from database.read(path)


def write(
    run: RunReader, target: Path | str, ledger: Ledger, options: Mapping[str, Any]
) -> Path | str:
    """Put a run into a store beside the others; one that is there already is replaced.

    Args:
        run: The run.
        target: A folder, an SQLite file or a tracking URI.
        ledger: Told what has no home.
        options: `experiment`: the name of the experiment, `blackbox` if none is given.

    Raises:
        ConversionError: If the store refuses.
        MissingDependencyError: If MLflow is not installed.
        OSError: If the folder of the target cannot be made.
    """
    if isinstance(target, str) and "://" in target:
        if urlsplit(target).scheme != "sqlite":
            export.write(run, target, ledger, options, None)
            return target
        target = _file(target)
    path = Path(target).absolute()
    if path.is_dir() or not path.suffix:
        path /= database.FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    uri = f"sqlite:///{path.as_posix()}"
    export.write(run, uri, ledger, options, path.parent / "mlartifacts")
    return path


def _file(uri: str) -> Path:
    """Return the file that an SQLite URI names."""
    split = urlsplit(uri)
    if split.netloc or not split.path.strip("/"):
        raise ConversionError(f"{uri} names no file; wanted sqlite:///PATH")
    return Path(unquote(split.path[1:]))


def _shown(uri: str) -> str:
    """Return a URI without credentials."""
    split = urlsplit(uri)
    place = split.netloc.rpartition("@")[2]
    return urlunsplit((split.scheme, place, split.path, "", ""))
