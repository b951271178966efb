"""Settings as Blocks reads them: from the environment, else from a YAML file, else the defaults.

The file is `~/.blocksrc`, or what `BLOCKS_CONFIG` names. Of the settings in it those about the log
are used here; Blocks' others are accepted, and one that Blocks does not know is an error.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final, NamedTuple

from blackboxml.base.extras import require
from blackboxml.errors import ConfigError

FILE: Final = "~/.blocksrc"
VARIABLE: Final = "BLOCKS_CONFIG"

_OTHERS: Final = frozenset(["default_seed", "recursion_limit", "profile", "temp_dir"])


class Settings(NamedTuple):
    """What Blocks' configuration says of the log.

    Attributes:
        log_backend: `python` or `sqlite`.
        sqlite_database: Where `SQLiteLog` keeps its logs.
        max_blob_size: Bytes of a value above which there is a warning.
    """

    log_backend: str = "python"
    sqlite_database: str = "~/blocks_log.sqlite"
    max_blob_size: int = 4096


_VARIABLES: Final = {"sqlite_database": "BLOCKS_SQLITEDB"}


def read_settings() -> Settings:
    """Return the settings as they are now.

    Raises:
        ConfigError: If the file is no YAML mapping, has a key that Blocks does not know, or a value
            of another kind.
        MissingDependencyError: If there is a file and PyYAML is not installed.
    """
    path = Path(os.environ.get(VARIABLE) or FILE).expanduser()
    said = _read(path)
    if unknown := said.keys() - {*Settings._fields, *_OTHERS}:
        raise ConfigError(f"{path} has the unknown key {min(map(str, unknown))!r}; remove it")
    for name, variable in _VARIABLES.items():
        if variable in os.environ:
            said[name] = os.environ[variable]
    given = {name: said[name] for name in Settings._fields if name in said}
    for name, value in given.items():
        kind = type(Settings._field_defaults[name])
        try:
            given[name] = kind(value)
        except (TypeError, ValueError):
            message = f"{name} in {path} is {value!r:.80}, wanted {kind.__name__}"
            raise ConfigError(message) from None
    found = Settings(**given)
    if found.log_backend not in {"python", "sqlite"}:
        message = f"log_backend in {path} is {found.log_backend!r:.80}, wanted python or sqlite"
        raise ConfigError(message)
    return found


def _read(path: Path) -> dict[str, Any]:
    """Return what a YAML file says; nothing if there is none."""
    if not path.is_file():
        return {}
    yaml = require("yaml", "training_log")
    try:
        found = yaml.safe_load(path.read_bytes())
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is no YAML: {error}") from None
    if found is not None and not isinstance(found, dict):
        raise ConfigError(f"{path} holds a {type(found).__name__}, wanted keys and values")
    return found or {}
