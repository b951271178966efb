"""Recording media: the file first, whole under its final name, and then the record that names it.

So a kill loses no medium that was recorded. Files are synced as records are, in the background and
before the journal that names them: many at once, because a disk that syncs one syncs others too.

A medium whose file cannot be written is left out, with a warning and a `gap` in the journal: it
may be too large to wait in memory as a record does.
"""

from __future__ import annotations

import errno
import hashlib
import io
import logging
import os
import re
import secrets
import threading
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from blackboxml.base import naming
from blackboxml.base.files import sync_file, write_all
from blackboxml.errors import MetricError, UnsafePathError, WriteError
from blackboxml.journal.metric import read_step, read_time
from blackboxml.journal.scan import deeper
from blackboxml.media.medium import DEEPEST, check_dims, check_entry, check_reference, take_value
from blackboxml.model import SCRATCH
from blackboxml.writer.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from blackboxml.base.files import Directory
    from blackboxml.media.medium import Content
    from blackboxml.writer.recorder import Sync

logger = logging.getLogger("blackboxml")

_SUFFIXES: Final = {
    "application/json": ".json",
    "application/vnd.apache.parquet": ".parquet",
    "application/x-npy": ".npy",
    "application/zip": ".zip",
    "image/gif": ".gif",
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "image/svg+xml": ".svg",
    "image/webp": ".webp",
    "text/csv": ".csv",
    "text/plain": ".txt",
    "text/x-diff": ".patch",
}
_BLOCK: Final = 2**20
_STEM_CHARACTERS: Final = 64

_SYNCS_AT_ONCE: Final = 16
_ONE_OF: Final = ("value", "data", "path", "reference")


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
        self._sync_mode = sync
        self._warned: set[str] = set()
        self._refusal: OSError | None = None
        self._syncing = threading.RLock()
        self._unsynced: list[str] = []
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

    def record(self, name: str, kind: str, step: int, content: Content) -> None:
        """Record a medium; see `RunWriter.log_media`."""
        naming.check_metric_name(name)
        members: dict[str, Any] = {"step": read_step(step)}
        if (time := content.get("time")) is not None:
            members["time"] = read_time(time)
        medium, data = _describe(name, kind, content)
        path = content.get("path")
        if data is not None or path is not None:
            stem, suffix = _stem(name, step, self._rank), _suffix(path, medium.get("media_type"))
            try:
                with (
                    _open_source(name, path, data) as source,
                    self._open_directory().subfolder(content.get("folder", "media")) as below,
                ):
                    link = path if content.get("link") else None
                    medium |= self._place(below, stem, suffix, source, link)
            except OSError as error:
                self._leave_out(name, step, error)
                return
        self._tell()
        self.recorder.event({**members, "media": medium})
        if "file" in medium and self._sync_mode != "record":
            self._unsynced.append(medium["file"])

    def rewind(self, step: int) -> None:
        """Say that training went back to a step."""
        self.recorder.event({"rewind": {"step": step}})

    def sync(self) -> None:
        """Make every medium durable that was recorded before this call.

        Raises:
            WriteError: If the file system refuses and `strict` is set.
        """
        self._sync_files()
        self._tell()
        self.recorder.sync()

    def tick(self) -> None:
        """Do what is due each second.

        Raises:
            WriteError: If the file system refuses and `strict` is set.
        """
        if self._sync_mode == "interval":
            self._sync_files()
        self.recorder.tick()

    def close(self) -> None:
        """Sync and close.

        Raises:
            WriteError: If the file system refuses and `strict` is set.
        """
        try:
            self._sync_files()
            self._tell()
        finally:
            self.recorder.close()

    # -- files

    def _place(
        self,
        below: Directory,
        stem: str,
        suffix: str,
        source: BinaryIO,
        link: str | os.PathLike[str] | None,
    ) -> dict[str, Any]:
        """Bring a file into being in a folder of the run; return what the record says of it.

        Args:
            below: The folder.
            stem: Name of the file without its suffix.
            suffix: The rest of the name.
            source: Its content.
            link: A file that is not to be copied where the file system can link it.

        Raises:
            OSError: If the file system refuses.
        """
        scratch = f"{SCRATCH}{secrets.token_hex(8)}"
        digest, size = hashlib.sha256(), 0
        try:
            linked = link is not None and below.link(link, scratch)
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            with ExitStack() as stack:
                if linked:
                    descriptor = os.open(scratch, flags, dir_fd=below.fd)
                    source = stack.enter_context(os.fdopen(descriptor, "rb"))
                else:
                    descriptor = below.create(scratch)
                    stack.callback(os.close, descriptor)
                while part := source.read(_BLOCK):
                    if not linked:
                        write_all(descriptor, part)
                    digest.update(part)
                    size += len(part)
                if self._sync_mode == "record":
                    sync_file(descriptor)
            name = below.settle(scratch, stem, suffix)
        except BaseException:
            with suppress(OSError):
                below.remove(scratch)
            raise
        if self._sync_mode == "record":
            below.sync()
        return {"file": f"{below.path.name}/{name}", "bytes": size, "sha256": digest.hexdigest()}

    def _sync_files(self) -> None:
        """Make the files durable that were recorded before this call, and their names."""
        if not self._unsynced or not self.recorder.active:
            return
        with self._syncing:
            count = len(self._unsynced)
            names, self._unsynced[:count] = self._unsynced[:count], []
            try:
                run = self._open_directory()
                _sync_all(run, names)
                for folder in {name.partition("/")[0] for name in names}:
                    with run.subfolder(folder) as below:
                        below.sync()
            except OSError as error:
                self._refusal = error
                if not self._strict:
                    self._warn("sync", f"media of {self._label} may not survive a crash: {error}")

    def _tell(self) -> None:
        """Tell the caller that files could not be synced, where `strict` is set.

        Raises:
            WriteError: If it is, and they could not.
        """
        error, self._refusal = self._refusal, None
        if self._strict and error is not None:
            message = f"cannot sync the media of {self._label}: {error.strerror or error}"
            raise WriteError(error.errno or errno.EIO, message)

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
        self._warn("write", f"{message}; it is left out, and training goes on")

    def _warn(self, cause: str, message: str) -> None:
        """Warn once for each cause."""
        if cause not in self._warned:
            self._warned.add(cause)
            logger.warning("%s", message)


def _sync_all(run: Directory, names: list[str]) -> None:
    """Sync files, many at once: a disk that syncs one syncs others along with it.

    Raises:
        OSError: The first refusal; the others are synced all the same.
    """

    def sync(name: str) -> OSError | None:
        try:
            with run.reading(name) as descriptor:
                sync_file(descriptor)
        except UnsafePathError as error:
            return OSError(errno.ELOOP, str(error))
        except OSError as error:
            return error
        return None

    refusals: list[OSError | None] = []
    if len(names) > 1:
        from concurrent.futures import ThreadPoolExecutor

        # A process that shuts down begins no thread; what was synced already costs nothing again.
        with suppress(RuntimeError), ThreadPoolExecutor(_SYNCS_AT_ONCE) as pool:
            refusals = list(pool.map(sync, names))
    for refusal in refusals or map(sync, names):
        if refusal is not None:
            raise refusal


def _describe(name: str, kind: str, content: Content) -> tuple[dict[str, Any], bytes | None]:
    """Return what a record says of a medium, but for its file; and the content of that.

    Raises:
        MetricError: If the medium cannot be stored.
    """
    medium: dict[str, Any] = {"name": name, "kind": kind}
    if sum(content.get(key) is not None for key in _ONE_OF) != 1:
        message = f"the medium {name!r:.80} takes one of {', '.join(_ONE_OF)}"
        raise MetricError(message)
    data = content.get("data")
    if (media_type := content.get("media_type")) is not None:
        medium["media_type"] = media_type
    if (dims := content.get("dims")) is not None:
        medium["dims"] = check_dims(name, kind, dims)
    if (entry := content.get("entry")) is not None:
        medium["entry"] = check_entry(name, entry)
    if (reference := content.get("reference")) is not None:
        medium["reference"] = check_reference(name, kind, reference)
    if content.get("value") is not None:
        data = take_value(medium, content["value"])
        if data is None and deeper(medium["value"], DEEPEST):
            message = f"the value of medium {name!r:.80} nests deeper than {DEEPEST} levels"
            raise MetricError(message)
    return medium, data


@contextmanager
def _open_source(
    name: str, path: str | os.PathLike[str] | None, data: bytes | None
) -> Iterator[BinaryIO]:
    """Open what is to be in the file of a medium.

    Raises:
        MetricError: If the caller's file cannot be opened.
    """
    if path is None:
        yield io.BytesIO(data or b"")
        return
    try:
        file = Path(path).open("rb")  # noqa: SIM115 - an error of what is done with it is another
    except OSError as error:
        message = f"the file of medium {name!r:.80} cannot be read: {error}"
        raise MetricError(message) from error
    with file:
        yield file


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
