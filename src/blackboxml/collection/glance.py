"""One run at a glance: of a sealed one what its manifest says, else what its files prove."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from blackboxml import manifest as manifests
from blackboxml.base.files import Directory
from blackboxml.base.scalar import NON_FINITE
from blackboxml.collection.entry import LIVE, Facts, Series
from blackboxml.collection.tally import series, tally
from blackboxml.errors import BlackboxError, Findings
from blackboxml.journal import check_format
from blackboxml.manifest import usable
from blackboxml.manifest.status import ENDED, determine
from blackboxml.model import CONFIG, CONFIG_FORMAT, LIMITS, MANIFEST, RUN_FORMAT, Mark
from blackboxml.reader import RunReader

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from blackboxml.errors import Problem
    from blackboxml.manifest import Manifest
    from blackboxml.manifest.status import Watch
    from blackboxml.model import JournalFile

Glance = tuple[Facts, dict[str, Series]]


def glance(
    path: Path, journals: Mapping[str, int], before: Glance | None, watch: Callable[[], Watch]
) -> Glance:
    """Return what there is to say of a run; one that breaks the format says why.

    Args:
        path: The run directory.
        journals: The sizes of its metrics journals by name, in bytes.
        before: What was said when it was read last, of the same journal.
        watch: Returns what this process saw of the run, should it be on another machine.

    Raises:
        OSError: If the file system refuses to show it.
    """
    try:
        with Directory(path) as directory:
            return _sealed(directory, journals) or _any(directory, before, watch)
    except BlackboxError as error:
        return Facts(problem=str(error)), {}


def _sealed(directory: Directory, journals: Mapping[str, int]) -> Glance | None:
    """Return what the manifest of a sealed run says, None if it is not known to hold.

    It holds while its journals are those that were sealed, by their sizes. A manifest of which
    anything here is missing or damaged is for those who look closer.
    """
    try:
        manifest = orjson.loads(directory.read(MANIFEST, LIMITS.manifest_bytes))
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
        return _facts(directory, manifest, manifest["status"]), _listed(manifest)
    except (BlackboxError, OSError, LookupError, TypeError, ValueError, AttributeError):
        return None


def _listed(manifest: Manifest) -> dict[str, Series]:
    """Return the metrics that the manifest of a sealed run lists."""
    return {
        name: Series(said["type"], _number(said.get("last")), None, None, None, said["count"])
        for group in manifest["groups"].values()
        for name, said in group["metrics"].items()
        if "count" in said
    }


def _number(value: Any) -> Any:
    """Return a number as a manifest spells it."""
    return NON_FINITE.get(value) if isinstance(value, str) else value


def _any(directory: Directory, before: Glance | None, watch: Callable[[], Watch]) -> Glance:
    """Return what the files of a run prove."""
    problems: list[Problem] = Findings()
    manifest, journals = manifests.open_proven(directory, LIMITS, problems)
    verdict = determine(directory, manifest, journals, watch())
    facts = _facts(directory, manifest, verdict.status)
    return _measure(directory, journals, facts, before)


def _measure(
    directory: Directory, journals: list[JournalFile], facts: Facts, before: Glance | None
) -> Glance:
    """Add what was logged."""
    mark, metrics = None, dict[str, Series]()
    if before is not None and before[0].id == facts.id and before[0].mark is not None:
        mark, metrics = Mark(*orjson.loads(before[0].mark)), before[1]
    counted = tally(directory, journals, mark, metrics)
    facts.whole = True
    if counted is None:
        try:
            return facts, series(RunReader(directory.path).summary())
        except BlackboxError as error:  # too large, or a table of a packed run is damaged
            facts.problem = str(error)
            return facts, {}
    facts.mark = orjson.dumps([*counted[0]]).decode() if facts.status in LIVE else None
    return facts, counted[1]


def _facts(directory: Directory, manifest: Manifest, status: str) -> Facts:
    """Return what a manifest and a configuration say."""
    start, end = manifest.get("start"), manifest.get("end")
    return Facts(
        id=manifest["id"],
        name=manifest.get("name", ""),
        status=status,
        start=None if start is None else manifests.seconds(start),
        end=None if end is None else manifests.seconds(end),
        tags=_dump(manifest["tags"]),
        config=_config(directory),
        lineage=_object(manifest, "lineage"),
        extensions=_object(manifest, "extensions"),
    )


def _object(manifest: Mapping[str, Any], key: str) -> str:
    """Return a member of a manifest if it is an object."""
    found = manifest.get(key)
    return _dump(found) if isinstance(found, dict) else "{}"


def _dump(document: Any) -> str:
    """Return JSON, or an empty object for what has numbers beyond 64 bits."""
    try:
        return orjson.dumps(document).decode()
    except TypeError:
        return "{}"


def _config(directory: Directory) -> str:
    """Return the tree of the configuration; empty where there is none or it is damaged."""
    try:
        document = orjson.loads(directory.read(CONFIG, LIMITS.config_bytes))
        check_format(document, CONFIG_FORMAT)
        return _object(document, "config")
    except (BlackboxError, OSError, ValueError, TypeError):
        return "{}"
