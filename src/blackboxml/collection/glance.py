"""One run at a glance: of a sealed one what its manifest says, else what its files prove."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any, Final

import orjson

from blackboxml import manifest as manifests
from blackboxml.base.files import Directory, raise_refusal
from blackboxml.base.scalar import NON_FINITE
from blackboxml.collection.cells import KINDS
from blackboxml.collection.entry import LIVE, Facts, Series, dump_series, explain, load_series
from blackboxml.collection.tally import series, tally
from blackboxml.errors import BlackboxError, Findings
from blackboxml.journal import check_format
from blackboxml.manifest import usable
from blackboxml.manifest.status import ENDED, determine
from blackboxml.model import (
    CONFIG,
    CONFIG_FORMAT,
    INT64_MAX,
    INT64_MIN,
    LIMITS,
    MANIFEST,
    RUN_FORMAT,
    Mark,
)
from blackboxml.reader import RunReader

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from blackboxml.errors import Problem
    from blackboxml.manifest import Manifest
    from blackboxml.manifest.status import Watch
    from blackboxml.model import JournalFile


_PART: Final = 2**15
"""Most manifests and configurations are shorter."""

_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def glance(
    path: str, journals: Mapping[str, int], before: Facts | None, watch: Callable[[], Watch]
) -> tuple[Facts, bool]:
    """Return what there is to say of a run; one that breaks the format says why.

    Beside it stands whether this holds as long as the files are what they are: neither does it for
    a run that may be going on, nor for one of which the file system refuses a part.

    Args:
        path: The run directory.
        journals: The sizes of its metrics journals by name, in bytes.
        before: What was said when it was read last, of the same journal.
        watch: Returns what this process saw of the run, should it be on another machine.

    Raises:
        OSError: If the file system refuses to show it.
    """
    if (found := _sealed(f"{path}/", journals)) is not None:
        return found, True
    try:
        with Directory(path) as directory:
            return _any(directory, before, watch)
    except BlackboxError as error:
        return Facts(problem=explain(error)), True


def _sealed(folder: str, journals: Mapping[str, int]) -> Facts | None:
    """Return what the manifest of a sealed run says, None if it is not known to hold.

    It holds while its journals are those that were sealed, by their sizes. A manifest of which
    anything here is missing or damaged is for those who look closer.
    """
    try:
        manifest = orjson.loads(_read(folder + MANIFEST, LIMITS.manifest_bytes))
        check_format(manifest, RUN_FORMAT)
        packed = manifest["sealed"]["packed"]
        listed = {entry["file"] for entry in manifest["journals"]}
        if not journals.keys() <= listed or (journals.keys() != listed and not packed):
            return None
        files = manifest["files"]
        if any(files.get(name, {}).get("bytes") != size for name, size in journals.items()):
            return None
        if manifest["status"] not in ENDED or not usable.is_texts(manifest["tags"]):
            return None
        facts = _facts(manifest, manifest["status"])
        facts.config = _config(folder)
        facts.metrics = _listed(manifest)
        facts.sealed = True
        return facts  # noqa: TRY300 - all of it may fail
    except (BlackboxError, OSError, LookupError, TypeError, ValueError, AttributeError):
        return None


def _read(path: str, limit: int) -> bytes:
    """Return a file as `Directory.read` does, in a third of the time; what is cut is no JSON.

    Of what is no regular file a little is read at most, without waiting for it.

    Raises:
        OSError: If there is none, or it is beyond the limit.
    """
    descriptor = os.open(path, _OPEN)
    try:
        data = os.read(descriptor, _PART)
        if len(data) < _PART:
            return data
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > limit:
            raise OSError(path)
        return data + os.read(descriptor, found.st_size - len(data))
    finally:
        os.close(descriptor)


def _listed(manifest: Manifest) -> bytes:
    """Return the metrics that the manifest of a sealed run lists.

    Raises:
        ValueError: If it says of one what cannot be.
    """
    return orjson.dumps(
        {
            name: (KINDS[said["type"]], _number(said["type"], said.get("last")), count)
            for group in manifest["groups"].values()
            for name, said in group["metrics"].items()
            if (count := said.get("count")) is not None
        }
    )


def _number(kind: str, value: Any) -> Any:
    """Return a last value as a manifest spells it, if it is of the type."""
    if value is not None and not _IS[kind](value):
        message = f"a last value {value!r:.80} is not {kind}"
        raise ValueError(message)
    return value


_IS: Final[dict[str, Callable[[Any], bool]]] = {
    "bool": lambda value: isinstance(value, bool),
    "int64": lambda value: type(value) is int and INT64_MIN <= value <= INT64_MAX,
    "float64": lambda value: type(value) is float or value in NON_FINITE,
}
"""How to tell the values of each type."""


def _any(
    directory: Directory, before: Facts | None, watch: Callable[[], Watch]
) -> tuple[Facts, bool]:
    """Return what the files of a run prove, and whether that holds."""
    problems: list[Problem] = Findings()
    manifest, journals = manifests.open_proven(directory, LIMITS, problems)
    verdict = determine(directory, manifest, journals, watch())
    facts = _facts(manifest, verdict.status)
    _measure(directory, journals, facts, before)
    try:
        facts.config = _config(f"{directory.path}/")
    except OSError as error:  # that is no reason to hide the rest
        facts.problem = facts.problem or f"{CONFIG}: {error.strerror}"
        return facts, False
    return facts, facts.status not in LIVE


def _measure(
    directory: Directory, journals: list[JournalFile], facts: Facts, before: Facts | None
) -> None:
    """Add what was logged."""
    mark, metrics = None, dict[str, Series]()
    if before is not None and before.id == facts.id and before.mark:
        mark, metrics = Mark(*orjson.loads(before.mark)), load_series(before.metrics)
    counted = tally(directory, journals, mark, metrics)
    facts.whole = True
    if counted is None:
        try:
            facts.metrics = dump_series(series(RunReader(directory.path).summary()))
        except BlackboxError as error:  # too large, or a table of a packed run is damaged
            facts.problem = explain(error)
        return
    mark, metrics = counted
    if facts.status in LIVE:
        facts.mark = orjson.dumps([*mark])
    facts.metrics = dump_series(metrics)


def _facts(manifest: Manifest, status: str) -> Facts:
    """Return what a manifest says."""
    start, end = manifest.get("start"), manifest.get("end")
    return Facts(
        id=manifest["id"],
        name=manifest.get("name", ""),
        status=status,
        start=None if start is None else manifests.seconds(start),
        end=None if end is None else manifests.seconds(end),
        tags=_dump(manifest["tags"]),
        lineage=_object(manifest, "lineage"),
        extensions=_object(manifest, "extensions"),
    )


def _object(manifest: Mapping[str, Any], key: str) -> bytes:
    """Return a member of a manifest if it is an object."""
    found = manifest.get(key)
    return _dump(found) if isinstance(found, dict) else b"{}"


def _dump(document: Any) -> bytes:
    """Return JSON, or an empty object for what has numbers beyond 64 bits."""
    try:
        return orjson.dumps(document)
    except TypeError:
        return b"{}"


def _config(folder: str) -> bytes:
    """Return the tree of the configuration; empty where there is none or it is damaged.

    Raises:
        OSError: If the file system refuses to show it.
    """
    try:
        document = orjson.loads(_read(folder + CONFIG, LIMITS.config_bytes))
        check_format(document, CONFIG_FORMAT)
        return _object(document, "config")
    except (BlackboxError, OSError, ValueError, TypeError) as error:
        raise_refusal(error)
        return b"{}"
