"""Recording media: the file first, whole under its final name, and then the record that names it.

A caller that need not wait leaves its file under a scratch name, with the files before it. They are
synced together, which costs about as much as syncing one, and then named and recorded in order.

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
import threading
from contextlib import suppress
from pathlib import Path
from time import time as now
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from blackboxml import naming
from blackboxml.errors import MetricError, WriteError
from blackboxml.files import write_all
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

MOST_WAITING: Final = 256
"""Files that wait to be synced together; a caller that brings one more waits for them."""

MOST_WAITING_BYTES: Final = 64 * 2**20
_SYNCS_AT_ONCE: Final = 16


class _Draft(NamedTuple):
    """A medium whose file lies in its folder under a scratch name."""

    folder: str
    scratch: str
    stem: str
    suffix: str
    members: dict[str, Any]
    medium: dict[str, Any]


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
        self._patient = strict or sync == "record"
        self._warned = False
        self._lock = threading.RLock()
        self._settling = threading.RLock()
        self._drafts: list[_Draft] = []
        self._draft_bytes = 0
        self._named: set[str] = set()
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
        wait: bool = True,
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
            data = _take_value(medium, value)
        if "value" in medium:
            if name in self._named:  # media of one name stay in their order
                self.settle()
            self.recorder.event({**members, "media": medium})
            return
        members.setdefault("time", now())
        stem, suffix = _stem(name, step, self._rank), _suffix(path, medium.get("media_type"))
        try:
            scratch, said = self._write(_parts(data, path), folder)
        except OSError as error:
            self._leave_out(name, step, error)
            return
        draft = _Draft(folder, scratch, stem, suffix, members, medium | said)
        with self._lock:
            self._drafts.append(draft)
            self._draft_bytes += said["bytes"]
            self._named.add(name)
            full = len(self._drafts) >= MOST_WAITING or self._draft_bytes >= MOST_WAITING_BYTES
        if wait or full or self._patient:
            self.settle()

    def rewind(self, step: int) -> None:
        """Say that training went back to a step."""
        self.settle()
        self.recorder.event({"rewind": {"step": step}})

    def sync(self) -> None:
        """Make every medium durable that was recorded before this call.

        Raises:
            WriteError: If the file system refuses and `strict` is set.
        """
        self.settle()
        self.recorder.sync()

    def tick(self) -> None:
        """Do what is due each second.

        Raises:
            WriteError: If the file system refuses and `strict` is set.
        """
        self.settle()
        self.recorder.tick()

    def close(self) -> None:
        """Record what waits, sync and close.

        Raises:
            WriteError: If the file system refuses and `strict` is set.
        """
        try:
            self.settle()
        finally:
            self.recorder.close()

    # -- files

    def _write(self, parts: Iterator[bytes], folder: str) -> tuple[str, dict[str, Any]]:
        """Write a file under a scratch name; return that, and what the record says of the content.

        Raises:
            OSError: If the file system refuses.
        """
        scratch = f"{SCRATCH}{secrets.token_hex(8)}"
        digest, size = hashlib.sha256(), 0
        with self._open_directory().subfolder(folder) as below:
            try:
                with os.fdopen(below.create(scratch), "wb", buffering=0) as file:
                    for part in parts:
                        write_all(file.fileno(), part)
                        digest.update(part)
                        size += len(part)
            except BaseException:
                below.remove(scratch)
                raise
        return scratch, {"bytes": size, "sha256": digest.hexdigest()}

    def settle(self) -> None:
        """Sync the files that wait, give them their names, and record them in order.

        Raises:
            WriteError: If the file system refuses and `strict` is set.
        """
        with self._settling:
            with self._lock:
                drafts, self._drafts, self._draft_bytes = self._drafts, [], 0
            if not drafts or not self.recorder.active:
                return
            try:
                for draft, found in zip(drafts, self._place(drafts), strict=True):
                    if isinstance(found, OSError):
                        self._leave_out(draft.medium["name"], draft.members["step"], found)
                    else:
                        medium = draft.medium | {"file": f"{draft.folder}/{found}"}
                        self.recorder.event({**draft.members, "media": medium})
            finally:
                with self._lock:
                    self._named = {draft.medium["name"] for draft in self._drafts}

    def _place(self, drafts: list[_Draft]) -> list[str | OSError]:
        """Make files durable under their final names; return each name, or what came between."""
        found: list[str | OSError] = []
        folders: dict[str, Directory] = {}
        try:
            for folder in {draft.folder for draft in drafts}:
                folders[folder] = self._open_directory().subfolder(folder)
            for draft, refusal in zip(drafts, _sync_all(drafts, folders), strict=True):
                below = folders[draft.folder]
                try:
                    if refusal is not None:
                        raise refusal
                    found.append(below.settle(draft.scratch, draft.stem, draft.suffix))
                except OSError as error:
                    with suppress(OSError):
                        below.remove(draft.scratch)
                    found.append(error)
            for below in folders.values():
                below.sync()
        except OSError as error:
            return [error] * len(drafts)
        finally:
            for below in folders.values():
                below.close()
        return found

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


def _sync_all(drafts: list[_Draft], folders: dict[str, Directory]) -> list[OSError | None]:
    """Sync files, many at once: a disk that syncs one syncs others along with it."""

    def sync(draft: _Draft) -> OSError | None:
        try:
            below = folders[draft.folder].fd
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(draft.scratch, flags, dir_fd=below)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            return error
        return None

    if len(drafts) > 1:
        from concurrent.futures import ThreadPoolExecutor

        # A process that shuts down begins no thread; what was synced already costs nothing again.
        with suppress(RuntimeError), ThreadPoolExecutor(_SYNCS_AT_ONCE) as pool:
            return list(pool.map(sync, drafts))
    return [sync(draft) for draft in drafts]


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


def _take_value(medium: dict[str, Any], value: Any) -> bytes | None:
    """Put a value into a medium if it may stand there; return it as the content of a file if not.

    Raises:
        MetricError: If it is nothing for its kind.
    """
    name, kind = medium["name"], medium["kind"]
    plain = _plain(value, name)
    text = orjson.dumps(plain)
    fault = value_fault(kind, plain)
    if fault is not None and kind not in _JSON_FILES:
        message = f"the value of medium {name!r:.80} is no {kind}: {fault}"
        raise MetricError(message)
    if fault is None and len(text) <= LARGEST_VALUE:
        medium["value"] = plain
        return None
    if kind == "text" and isinstance(plain, str):
        medium.setdefault("media_type", "text/plain")
        return plain.encode()
    medium.setdefault("media_type", "application/json")
    return text


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
