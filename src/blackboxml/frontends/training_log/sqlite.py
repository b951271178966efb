"""Logs with the arguments of Blocks' SQLite backend, and the backend that its settings name."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from blackboxml.frontends.training_log.log import TrainingLog
from blackboxml.frontends.training_log.settings import read_settings

if TYPE_CHECKING:
    import uuid as uuids

_SUFFIXES: Final = frozenset([".sqlite", ".sqlite3", ".db"])


class SQLiteLog(TrainingLog):
    """A log with the arguments of Blocks' SQLite backend."""

    def __init__(
        self,
        database: str | os.PathLike[str] | None = None,
        uuid: uuids.UUID | str | None = None,
        *,
        name: str = "training_log",
        seal: bool = True,
    ) -> None:
        """Begin a log, or go on with one.

        Args:
            database: Where the logs are: the folder of that name without `.sqlite` or `.db`. By
                default what Blocks' settings say; `:memory:` is a folder that goes with the log.
            uuid: Id of a log to go on with; one that is not there is begun with this id.
            name: The name of the run, if it is begun.
            seal: Write tables, datasets and checksums when the run ends.
        """
        place = os.fspath(read_settings().sqlite_database if database is None else database)
        if place == ":memory:":
            self._folder = tempfile.TemporaryDirectory(prefix="blackboxml-")
            place = self._folder.name
        path = Path(place).expanduser()
        folder = path.with_suffix("") if path.suffix in _SUFFIXES else path
        super().__init__(folder, uuid, name=name, seal=seal)


def open_log(uuid: uuids.UUID | str | None = None) -> TrainingLog:
    """Return a log of the backend that Blocks' settings name.

    Args:
        uuid: Id of a log to go on with.
    """
    sqlite = read_settings().log_backend == "sqlite"
    return SQLiteLog(uuid=uuid) if sqlite else TrainingLog(uuid=uuid)
