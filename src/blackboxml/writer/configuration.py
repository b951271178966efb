"""`config.json` of a run that is being written: values are added, and none is lost.

Each time the document is read first, for another process may have added to it. While it is there
and cannot be read it is not replaced: new values wait.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

from blackboxml import manifest as manifests
from blackboxml.config import decode_config
from blackboxml.errors import BlackboxError, ConfigError, UnsafePathError, WriteError
from blackboxml.journal import check_format, parse
from blackboxml.model import CONFIG, CONFIG_FORMAT, LIMITS, VERSION

if TYPE_CHECKING:
    from blackboxml.writer.documents import Documents

logger = logging.getLogger("blackboxml")


class Configuration:
    """The configuration of one run."""

    def __init__(self, documents: Documents, *, strict: bool) -> None:
        """Read nothing yet."""
        self._documents = documents
        self._strict = strict
        self._waiting: list[tuple[int, dict[str, Any]]] = []
        self._warned = False
        self._lock = threading.RLock()

    def add(self, attempt: int, tree: dict[str, Any]) -> None:
        """Write the configuration with new values, and those they replace.

        Args:
            attempt: The start of the run that gives them.
            tree: As `config` in the document.

        Raises:
            ConfigError: If it becomes too large; nothing was changed.
            WriteError: If the file system refuses and `strict` is set.
        """
        with self._lock:
            self._merge([*self._waiting, (attempt, tree)])

    def settle(self) -> None:
        """Write what waits, if it can be written now.

        Raises:
            WriteError: If the file system refuses and `strict` is set.
        """
        with self._lock:
            if self._waiting:
                try:
                    self._merge(self._waiting)
                except ConfigError as error:
                    self._give_up(str(error))

    def close(self) -> None:
        """Do so for the last time.

        Raises:
            WriteError: If the file system refuses and `strict` is set.
        """
        with self._lock:
            self.settle()
            if self._waiting:
                self._give_up("it could not be read to the end")

    def _give_up(self, why: str) -> None:
        """Say which values are lost."""
        names = ", ".join(sorted({name for _, tree in self._waiting for name in tree}))
        logger.warning("%s lacks %.1000s: %s", self._documents.path / CONFIG, names, why)
        self._waiting = []

    def _merge(self, given: list[tuple[int, dict[str, Any]]]) -> None:
        """Write the configuration with the values of some calls, in order."""
        try:
            document = self._read()
        except OSError as error:
            path = self._documents.path
            message = f"{path / CONFIG} cannot be read: {error.strerror or error}"
            if self._strict:
                raise WriteError(error.errno or errno.EIO, message, str(path)) from None
            if not self._warned:
                logger.warning("%s; new values wait until it can be", message)
            self._warned, self._waiting = True, given
            return
        for attempt, tree in given:
            _put(document, tree, attempt)
        data = manifests.dump(document)
        if len(data) > LIMITS.config_bytes:
            message = (
                f"the configuration has {len(data):,} bytes, {LIMITS.config_bytes:,} may be; "
                "keep large values in a file of their own"
            )
            raise ConfigError(message)
        self._waiting = []
        self._documents.replace(CONFIG, data)

    def _read(self) -> dict[str, Any]:
        """Return the document as it is, or an empty one; a damaged one gets another name.

        Raises:
            OSError: If the file system refuses to show it, or to rename it.
        """
        empty = {
            "format": {"name": CONFIG_FORMAT, "version": VERSION, "features": []},
            "config": {},
        }
        try:
            data = self._documents.read(CONFIG, LIMITS.config_bytes)
            if data is None:
                return empty
            document = parse(data)
            check_format(document, CONFIG_FORMAT)
            decode_config(document["config"])
        except UnsafePathError as error:
            logger.warning("%s; it is replaced", error)
            return empty
        except (BlackboxError, KeyError, TypeError, ValueError) as error:
            name = self._documents.set_aside(CONFIG)
            path = self._documents.path / CONFIG
            logger.warning("%s is damaged; it is now %s, and begun anew: %s", path, name, error)
            return empty
        return document


def _put(document: dict[str, Any], tree: dict[str, Any], attempt: int) -> None:
    """Put values into a document, and those they replace beside them."""
    old = document["config"]
    changed = {key: old[key] for key in tree if key in old and old[key] != tree[key]}
    if changed:
        document.setdefault("replaced", []).append(
            {"attempt": attempt, "time": manifests.timestamp(time.time()), "values": changed}
        )
    document["config"] = old | tree
