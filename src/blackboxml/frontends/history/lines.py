"""One JSON object a line for each update, beside the run: what scripts that follow a log read.

It repeats what the journal of the run has, without its checksums and its recovery; a line that
cannot be written is left out, with one warning.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from typing import TYPE_CHECKING, Any, Final

import orjson

from blackboxml.frontends.history.values import plain as to_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

logger = logging.getLogger("blackboxml")

_OPTIONS: Final = orjson.OPT_APPEND_NEWLINE
_dumps, _write = orjson.dumps, os.write


class Lines:
    """Appends to a file of one rank; the first line makes it.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path, rank: int, *, overwrite: bool = False) -> None:
        """Prepare; `rank` above 0 is put into the name, `metrics.r3.jsonl`.

        Args:
            path: Of rank 0.
            rank: Rank of this process.
            overwrite: Empty a file that is there already, where the default is to append.
        """
        self.path = path.with_name(f"{path.stem}.r{rank}{path.suffix}") if rank else path
        self._rank = rank
        self._overwrite = overwrite
        self._descriptor = -1
        self._given_up = False

    def write(
        self,
        time: float,
        step: int,
        metrics: Mapping[str, Any],
        statistics: Mapping[str, float],
        *,
        plain: bool,
    ) -> None:
        """Append an update.

        Args:
            time: Unix seconds.
            step: Its step.
            metrics: What was logged.
            statistics: Across ranks, as `loss/mean`.
            plain: All values are numbers, and finite.
        """
        if self._given_up:
            return
        document = {"timestamp": time, "rank": self._rank, "step": step, "metrics": metrics}
        if statistics:
            total = sum(statistics.values(), 0.0)
            finite = total - total == 0.0
            spelled = statistics if finite else to_json(dict(statistics))
            document["metrics"] = {**metrics, **spelled}
            document["aggregated"] = spelled
        try:
            try:
                line = _dumps(document if plain else to_json(document), None, _OPTIONS)
            except TypeError:  # a number of a kind of its own
                line = orjson.dumps(to_json(document), None, _OPTIONS)
            if self._descriptor < 0:
                self._open()
            written = _write(self._descriptor, line)
            if written != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except (OSError, TypeError) as error:
            self._given_up = True
            logger.warning("%s gets no more lines: %s; the run has them all", self.path, error)

    def _open(self) -> None:
        """Open the file.

        Raises:
            OSError: If the file system refuses.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | (os.O_TRUNC if self._overwrite else 0)
        self._overwrite = False
        self._descriptor = os.open(self.path, flags | getattr(os, "O_CLOEXEC", 0), 0o666)

    def close(self) -> None:
        """Close the file; another line opens it again."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1
