"""TensorBoard: an event file below `tensorboard/`, written without TensorBoard.

Strategy: a call is one write to the end of the file, in the kernel when it returns, so that
TensorBoard shows it at once and a killed process loses nothing. Numbers that float32 cannot hold
stand beside it exactly, where this package reads them.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from blackboxml import backends
from blackboxml.backends import Refused, TrackerBackend
from blackboxml.base.files import Directory, write_all
from blackboxml.foreign.interchange import flatten
from blackboxml.foreign.tensorboard import hparams, messages, summary
from blackboxml.foreign.tensorboard.records import frame
from blackboxml.model import INT64_MAX, INT64_MIN

if TYPE_CHECKING:
    from collections.abc import Sequence

FOLDER: Final = "tensorboard"

_SCALARS: Final = messages.metadata("scalars")
_EXACT: Final = 2**53


class TensorBoardBackend(TrackerBackend):
    """Writes an event file, on rank 0 alone.

    Args:
        outdir: The folder in which `tensorboard/` is made; None stands for the current one.
        config: Hyper-parameters.
        rank: Rank of this process; on others than 0 nothing happens.
        **_options: What other backends are told.

    Attributes:
        path: The event file; None on other ranks than 0.

    Raises:
        OSError: If the file system refuses.
    """

    name = "tensorboard"

    def __init__(
        self,
        outdir: str | os.PathLike[str] | None = None,
        config: dict[str, Any] | None = None,
        rank: int = 0,
        **_options: Any,
    ) -> None:
        self.path: Path | None = None
        self._file = -1
        self._size = 0
        self._next_step = 0
        self._known: set[str] = set()
        self._config: dict[str, Any] = {}
        self._start = time.time()
        self._refused = Refused(self.name, "numbers and texts")
        if rank != 0:
            return
        folder = Path(outdir if outdir is not None else ".").absolute() / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        with Directory(folder) as directory:
            self.path = folder / self._create(directory)
        begin = messages.event(self._start, 0, messages.FILE_VERSION, "brain.Event:2")
        self._write(begin + messages.member(messages.SOURCE, messages.member(1, "blackboxml")))
        if config:
            self.log_config(config)

    def log(self, metrics: dict[str, Any], step: int | None = None, *, commit: bool = True) -> None:
        """Write numbers as scalars, texts as texts; other values are left out and counted.

        Raises:
            OSError: If the file system refuses; the point is lost to TensorBoard.
        """
        if step is None:
            step = self._next_step
            self._next_step += commit
        values = b"".join(self._values(metrics))
        if values:
            self._event(int(step), values)
            self._known.update(metrics)

    def log_config(self, config: dict[str, Any]) -> None:
        """Write all hyper-parameters so far, for the plugin HParams.

        Raises:
            OSError: If the file system refuses.
        """
        self._config |= flatten(config)
        shown = {name: _parameter(value) for name, value in self._config.items()}
        self._event(0, hparams.write_start(shown, self._start))

    def log_table(self, key: str, columns: Sequence[str], data: Sequence[Sequence[Any]]) -> None:
        """Write a table as a text in Markdown, at the step of the next point.

        Raises:
            OSError: If the file system refuses.
        """
        table = {"columns": list(columns), "rows": [list(row) for row in data]}
        self._event(self._next_step, summary.of_text(key, summary.markdown(table)))

    def log_image(self, key: str, image_path: str, caption: str | None = None) -> None:
        """Write an image, and its caption as a text `<key>/caption`, at the step of the next point.

        Raises:
            OSError: If the file cannot be read, or the file system refuses.
            ValueError: If it is no PNG, JPEG, GIF, BMP or WebP.
        """
        data = Path(image_path).read_bytes()
        if summary.size(data) is None:
            raise ValueError(f"{image_path} is no PNG, JPEG, GIF, BMP or WebP")
        said = summary.of_images(key, [data])
        if caption:
            said += summary.of_text(f"{key}/caption", caption)
        self._event(self._next_step, said)

    def finish(self) -> None:
        """Write how the run ended, and close the file.

        Raises:
            OSError: If the file system refuses.
        """
        if self._file < 0:
            return
        self._refused.summarise()
        status = "failed" if backends.crashed() else "completed"
        try:
            self._event(0, hparams.write_end(status, time.time()))
            os.fsync(self._file)
        finally:
            os.close(self._file)
            self._file = -1

    def _create(self, directory: Directory) -> str:
        """Create the file under a name that no other has, and return it."""
        host = re.sub(r"[^A-Za-z0-9-]", "_", os.uname().nodename)[:64]
        stem = f"events.out.tfevents.{int(self._start):010}.{host}.{os.getpid()}"
        for number in count():
            name = f"{stem}.{number}.blackboxml"
            try:
                self._file = directory.create(name, append=True)
            except FileExistsError:
                continue
            break
        return name

    def _values(self, metrics: dict[str, Any]) -> list[bytes]:
        """Return what TensorBoard takes of some values."""
        found = []
        for key, value in metrics.items():
            about = b"" if key in self._known else _SCALARS
            if isinstance(value, int) and not INT64_MIN <= value <= INT64_MAX:
                found.append(summary.scalar(key, _to_float(value), about))
            elif isinstance(value, int | float):
                found.append(summary.scalar(key, value, about))
            elif isinstance(value, str):
                found.append(summary.of_text(key, value))
            else:
                self._refused.add(key, value)
        return found

    def _event(self, step: int, values: bytes) -> None:
        self._write(messages.event(time.time(), step, messages.SUMMARY, values))

    def _write(self, event: bytes) -> None:
        """Append an event; what was written of it is taken back if not all can be."""
        if self._file < 0:
            return
        data = frame(event)
        try:
            write_all(self._file, data)
        except BaseException:  # also an interrupt: half an event would hide those behind it
            os.ftruncate(self._file, self._size)
            raise
        self._size += len(data)


def _parameter(value: Any) -> float | str:
    """Return a hyper-parameter as TensorBoard knows them: a text, a bool or a float64."""
    if isinstance(value, str | bool | float):
        return value
    if isinstance(value, int) and abs(value) <= _EXACT:
        return float(value)
    return json.dumps(value, default=str)


def _to_float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
