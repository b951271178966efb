"""What goes along with a run and is no part of the training: metrics, console, code.

Each is off until it is asked for, works on threads of its own, and ends with the run.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blackboxml.base.extras import require
from blackboxml.base.secret import Mask, secrets_in

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blackboxml.companion.console import Console
    from blackboxml.companion.system import SystemMetrics
    from blackboxml.writer import RunWriter

logger = logging.getLogger("blackboxml")

_CODE_SECONDS = 10.0
_SOURCES = "code/sources"
_DIFFERENCE = "code/difference"


class Companions:
    """The companions that a run was asked for."""

    def __init__(self, *, system_metrics: Any, console: bool, code: bool) -> None:
        """Prepare; nothing begins before `start`.

        Args:
            system_metrics: Seconds between two samples; True for the usual time, False for none.
            console: Keep what is printed.
            code: Keep the sources, and what differs from the last commit.

        Raises:
            ValueError: If the seconds are no positive number.
            MissingDependencyError: If metrics are wanted and psutil is not installed.
        """
        if system_metrics is not False:
            number = isinstance(system_metrics, int | float)
            if not number or not 0 < system_metrics < threading.TIMEOUT_MAX:
                message = f"system_metrics is {system_metrics!r:.80}, wanted seconds, True or False"
                raise ValueError(message)
            require("psutil", "system")
        self._seconds = system_metrics
        self._wants_console = console
        self._wants_code = code
        self._system: SystemMetrics | None = None
        self._console: Console | None = None
        self._code: threading.Thread | None = None

    def start(self, writer: RunWriter, config: Mapping[str, Any] | None) -> None:
        """Begin beside a run that begins.

        Args:
            writer: Records the run.
            config: Its hyper-parameters, of which secrets are to be hidden.
        """
        self._system = self._console = self._code = None
        if self._wants_console or self._wants_code:
            mask = Mask(secrets_in(config or {}))
        if self._wants_console:
            from blackboxml.companion.console import LOG, Console

            self._console = Console(lambda data: writer.append_log(LOG, data), mask)
        if self._wants_code:
            with contextlib.suppress(OSError):  # the working directory was deleted
                work = partial(_keep_code, writer, mask, Path.cwd())
                self._code = threading.Thread(target=work, name="blackboxml-code", daemon=True)
                self._code.start()
        if self._seconds is not False:
            from blackboxml.companion.system import SECONDS, SystemMetrics

            self._system = SystemMetrics(
                writer.log_aside,
                lambda name, unit, text: writer.describe(name, unit=unit, description=text),
                writer.path,
                SECONDS if self._seconds is True else self._seconds,
            )

    def stop(self) -> None:
        """End before the run does."""
        if self._system is not None:
            self._system.stop()
        if self._code is not None:
            self._code.join(_CODE_SECONDS)
        if self._console is not None:
            self._console.stop()


def _keep_code(writer: RunWriter, mask: Mask, where: Path) -> None:
    """Record the code of a run as artifacts, in a thread."""
    from blackboxml.companion import snapshot

    try:
        patch = snapshot.difference(mask, where, _CODE_SECONDS)
        if patch:
            writer.log_media(
                _DIFFERENCE, "artifact", 0, data=patch, media_type="text/x-diff", folder="artifacts"
            )
        archive = snapshot.sources(mask, where, _CODE_SECONDS)
        if archive:
            writer.log_media(
                *(_SOURCES, "artifact", 0),
                data=archive,
                media_type="application/zip",
                folder="artifacts",
            )
    except Exception as error:  # noqa: BLE001 - the code is not worth a training
        logger.warning("the code of the run is not recorded whole: %s", error)
