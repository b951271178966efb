"""Recording media: the file first, whole under its final name, and then the record that names it.

A medium whose file cannot be written is left out, with a warning and a `gap` in the journal: it
may be too large to wait in memory as a record does.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from blackboxml import naming
from blackboxml.errors import MetricError, WriteError
from blackboxml.medium import value_fault
from blackboxml.metric import read_step, read_time
from blackboxml.model import SCRATCH
from blackboxml.recorder import Recorder
from blackboxml.scalar import spell, to_number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from blackboxml.files import Directory
    from blackboxml.recorder import Sync

logger = logging.getLogger("blackboxml")

LARGEST_VALUE: Final = 64 * 2**10
"""A value of more bytes than this goes into a file (BB-MED-009)."""

_SUFFIXES: Final = {
    "application/json": ".json",
    "application/vnd.apache.parquet": ".parquet",
    "application/x-npy": ".npy",
    "image/gif": ".gif",
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "image/svg+xml": ".svg",
    "image/webp": ".webp",
    "text/csv": ".csv",
    "text/plain": ".txt",
}
_JSON_FILES: Final = frozenset(["figure", "artifact"])
"""Kinds that are in files alone, of which one may be JSON."""

_BLOCK: Final = 2**20
_STEM_CHARACTERS: Final = 64


class MediaRecorder:
    """Records the media of one rank and attempt. The first medium opens the journal."""

    def __init__(
        self,
        label: str,
        rank: int,
        open_directory: Callable[[], Directory],
        header: Callable[[Directory, int, int], dict[str, Any]],
        *,
        strict: bool,
        sync: Sync,
    ) -> None:
        """Prepare; the arguments are those of `Recorder`."""
        self._label = label
        self._rank = rank
        self._open_directory = open_directory
        self._strict = strict
        self._warned = False
        self.recorder = Recorder(
            f"the media of {label}",
            rank,
            open_directory,
            header,
            stem="media",
            strict=strict,
            sync=sync,
        )
        self.recorder.begin()

    def record(
        self,
        name: str,
        kind: str,
        step: int,
        *,
        value: Any = None,
        data: bytes | None = None,
        path: str | os.PathLike[str] | None = None,
        media_type: str | None = None,
        folder: str = "media",
        time: float | None = None,
    ) -> None:
        """Record a medium; see `RunWriter.log_media`."""
        naming.check_metric_name(name)
        if sum(each is not None for each in (value, data, path)) != 1:
            message = f"the medium {name!r:.80} takes one of value, data and path"
            raise MetricError(message)
        members: dict[str, Any] = {"step": read_step(step)}
        if time is not None:
            members["time"] = read_time(time)
        medium: dict[str, Any] = {"name": name, "kind": kind}
        if media_type is not None:
            medium["media_type"] = media_type
        if value is not None:
            value = _plain(value, name)
            text = orjson.dumps(value)
            fault = value_fault(kind, value)
            if fault is not None and kind not in _JSON_FILES:
                message = f"the value of medium {name!r:.80} is no {kind}: {fault}"
                raise MetricError(message)
            if fault is None and len(text) <= LARGEST_VALUE:
                medium["value"] = value
            elif kind == "text" and isinstance(value, str):
                data, medium["media_type"] = value.encode(), media_type or "text/plain"
            else:
                data, medium["media_type"] = text, media_type or "application/json"
        if "value" not in medium:
            stem = _stem(name, step, self._rank)
            suffix = _suffix(path, medium.get("media_type"))
            try:
                medium |= self._place(_parts(data, path), folder, stem, suffix)
            except OSError as error:
                self._leave_out(name, step, error)
                return
        self.recorder.event({**members, "media": medium})

    def _place(self, parts: Iterator[bytes], folder: str, stem: str, suffix: str) -> dict[str, Any]:
        """Bring a file into being below a folder of the run; return what the record says of it.

        Raises:
            OSError: If the file system refuses.
        """
        run = self._open_directory()
        below = run.subfolder(folder)
        try:
            scratch = f"{SCRATCH}{secrets.token_hex(8)}"
            digest, size = hashlib.sha256(), 0
            try:
                with os.fdopen(below.create(scratch), "wb") as file:
                    for part in parts:
                        file.write(part)
                        digest.update(part)
                        size += len(part)
                    file.flush()
                    os.fsync(file.fileno())
                name = below.settle(scratch, stem, suffix)
            except BaseException:
                below.remove(scratch)
                raise
            below.sync()
        finally:
            below.close()
        return {"file": f"{folder}/{name}", "bytes": size, "sha256": digest.hexdigest()}

    def _leave_out(self, name: str, step: int, error: OSError) -> None:
        """Say once that a medium could not be kept, and mark the gap.

        Raises:
            WriteError: If `strict` is set.
        """
        reason = error.strerror or str(error)
        message = f"cannot write the medium {name!r:.80} at step {step} of {self._label}: {reason}"
        self.recorder.lost += 1
        self.recorder.event({"gap": {"records": 1, "reason": reason}})
        if self._strict:
            raise WriteError(error.errno or errno.EIO, message)
        if not self._warned:
            self._warned = True
            logger.warning("%s; it is left out, and training goes on", message)


def _plain(value: Any, name: str) -> Any:
    """Return a value as JSON, numbers that are not finite spelled as in a journal.

    Raises:
        MetricError: If it holds something that JSON cannot.
    """
    match value:
        case str():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                message = f"the value of medium {name!r:.80} is no valid text: {error}"
                raise MetricError(message) from None
            return str(value)
        case None | bool():
            return value
        case dict() if all(isinstance(key, str) for key in value):
            return {str(key): _plain(each, name) for key, each in value.items()}
        case list() | tuple():
            return [_plain(each, name) for each in value]
    try:
        return spell(to_number(value))
    except ValueError as error:
        message = f"the value of medium {name!r:.80} cannot be stored as JSON: {error}"
        raise MetricError(message) from None


def _parts(data: bytes | None, path: str | os.PathLike[str] | None) -> Iterator[bytes]:
    """Yield what is to be in the file."""
    if path is None:
        yield data or b""
        return
    with Path(path).open("rb") as file:
        while part := file.read(_BLOCK):
            yield part


def _stem(name: str, step: int, rank: int) -> str:
    """Return the name of a file without its suffix: of a medium, a step and a rank."""
    clean = re.sub(r"[^A-Za-z0-9_]", "_", name)[:_STEM_CHARACTERS]
    return f"{clean}-{step}" + (f"-r{rank}" if rank else "")


def _suffix(path: str | os.PathLike[str] | None, media_type: str | None) -> str:
    """Return the suffix of a file, the one that people expect where it is known."""
    own = Path(path).suffix if path is not None else ""
    if re.fullmatch(r"\.[A-Za-z0-9]{1,16}", own):
        return own.lower()
    return _SUFFIXES.get(media_type or "", ".bin")
