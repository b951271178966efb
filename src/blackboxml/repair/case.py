"""One damaged run: what is known of it, and what has to be done."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from blackboxml import manifest as manifests
from blackboxml.base import naming, process
from blackboxml.base.files import check_relative, raise_refusal
from blackboxml.errors import (
    BlackboxError,
    Findings,
    ManifestError,
    NotARunError,
    Problem,
    RunIsLiveError,
)
from blackboxml.journal.ending import last_end
from blackboxml.journal.scan import deeper
from blackboxml.manifest import usable
from blackboxml.manifest.status import determine, refuse_live
from blackboxml.model import MANIFEST, SCRATCH, SUMS
from blackboxml.repair.history import History, Known
from blackboxml.repair.tables import FIRST, TableSource
from blackboxml.seal.sums import find_digest
from blackboxml.validation import Report, validate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from blackboxml.base.files import Directory
    from blackboxml.manifest import Manifest
    from blackboxml.model import JournalFile, Limits
    from blackboxml.repair.history import Target
    from blackboxml.repair.plan import Action

_SUMS_LINE: Final = re.compile(r"([0-9a-f]{64})  (.+)")
_MOST_SUMS: Final = 2**30


@dataclass(slots=True)
class Case:
    """A run that is looked at.

    Attributes:
        directory: The run.
        limits: What a reader accepts.
        report: What a validator finds.
        raw: What `run.json` says as far as it can be used, empty where it is gone.
        manifest: The same, with what the journals prove.
        journals: The metrics journals as a reader merges them.
        known: What is known beside the journals.
        metrics: The metrics journals as they will be.
        media: The media journals as they will be.
        actions: What has to be done.
        removed: Files that the mended run does not have, by path.
        links: Entries that are no files, by path: what a link points to, empty for others.
        sums: The digests of `SHA256SUMS`, by path.
        deep: Members of `run.json` that are nested deeper than a document may be.
    """

    directory: Directory
    limits: Limits
    report: Report
    raw: Manifest = field(default_factory=dict)
    manifest: Manifest = field(default_factory=dict)
    journals: list[JournalFile] = field(default_factory=list)
    known: Known = field(default_factory=lambda: Known("", "", [], 0.0))
    metrics: History | None = None
    media: History | None = None
    actions: list[Action] = field(default_factory=list)
    removed: set[str] = field(default_factory=set)
    links: dict[str, str] = field(default_factory=dict)
    sums: dict[str, str] = field(default_factory=dict)
    deep: set[str] = field(default_factory=set)

    @property
    def path(self) -> Path:
        """Where the run is."""
        return self.directory.path

    @property
    def sealed(self) -> bool:
        """Whether the run was sealed, as far as that can be told."""
        return any(key in self.raw for key in manifests.SEALED) or bool(
            self.sums and "status" not in self.raw
        )

    @property
    def errors(self) -> list[Problem]:
        """What makes the run invalid."""
        return [problem for problem in self.report.problems if problem.severity == "error"]

    @property
    def targets(self) -> list[Target]:
        """All journals as they will be."""
        return [
            target
            for history in (self.metrics, self.media)
            if history is not None
            for target in history.targets
        ]

    def is_as_sealed(self, name: str) -> bool:
        """Tell whether a file is what the manifest says, whatever the checksums say."""
        files = self.manifest.get("files")
        if files is not None and name not in {*files, MANIFEST}:
            return True
        stated = (files or {}).get(name, {}).get("sha256")
        return stated is not None and _sha256(self.directory, name) == stated

    def is_as_large_as_sealed(self, name: str) -> bool:
        """Tell whether the manifest says the size of a file right, if it says one."""
        entry = self.manifest.get("files", {}).get(name)
        return entry is None or entry["bytes"] == self.directory.size(name)

    def why(self, *files: str, rules: str = "") -> tuple[str, ...]:
        """Return the rules that are broken by these files, or those of some areas by any."""
        return tuple(
            sorted(
                {
                    problem.rule
                    for problem in self.errors
                    if problem.file in files or (rules and re.match(rules, problem.rule))
                }
            )
        )


def open_case(directory: Directory, limits: Limits, *, force: bool) -> Case:
    """Look at a run that nobody writes.

    Args:
        directory: The run.
        limits: What a reader accepts.
        force: A person vouches that the run has ended.

    Raises:
        NotARunError: If there is no run.
        ManifestError: If nothing is left that tells which run it is.
        RunIsLiveError: If the run is written, or may be.
        UnsupportedVersionError: If it needs a newer program.
    """
    case = Case(directory, limits, _validate(directory, limits))
    case.sums = _read_sums(directory)
    case.raw = _read_raw(case)
    try:
        case.manifest, case.journals = manifests.open_history(directory, limits, Findings())
    except (NotARunError, ManifestError):
        case.manifest = _from_tables(case)
    _refuse_written(case, force=force)
    case.known = _known(case)
    return case


def _validate(directory: Directory, limits: Limits) -> Report:
    """Return what a validator finds, also where only the tables of a packed run are left.

    Raises:
        NotARunError: If there is not even a table.
    """
    try:
        return validate(directory.path, limits=limits)
    except NotARunError as error:
        if not _tables(directory):
            raise
        problem = Problem("BB-MAN-014", "error", str(error.strerror or error), MANIFEST)
        return Report(directory.path, verdict="invalid", problems=[problem])


def _read_raw(case: Case) -> Manifest:
    """Return the members of `run.json` that can be used."""
    try:
        raw = manifests.read(case.directory, case.limits)
    except (NotARunError, ManifestError):
        return {}
    case.deep = {key for key, value in raw.items() if deeper(value, case.limits.depth - 1)}
    for key in {*usable.unusable(raw, case.limits), *case.deep}.difference(manifests.SEALED):
        raw.pop(key, None)
    return raw


def _read_sums(directory: Directory) -> dict[str, str]:
    """Return what `SHA256SUMS` says, bad lines left out."""
    try:
        text = directory.read(SUMS, _MOST_SUMS).decode(errors="replace")
    except (OSError, BlackboxError) as error:
        raise_refusal(error)
        return {}
    found = (_SUMS_LINE.fullmatch(line) for line in text.split("\n"))
    return {match[2]: match[1] for match in found if match is not None}


def _from_tables(case: Case) -> Manifest:
    """Return what is left of a manifest where there is no journal: by the tables.

    Raises:
        ManifestError: If there is no table of a run either.
    """
    from blackboxml.journal.table import METADATA
    from blackboxml.seal.sealed import close_table, open_table

    for name in _tables(case.directory):
        try:
            file = open_table(case.directory, name, case.limits)
            try:
                metadata = file.schema_arrow.metadata or {}
                run = json.loads(metadata[METADATA])["run"]
                source = TableSource(
                    case.directory, name, None, None, run["id"], sound=False, limits=case.limits
                )
                first = next(source.rows(), (FIRST, {}))[1]
            finally:
                close_table(file)
        except (OSError, BlackboxError, ValueError, KeyError, TypeError) as error:
            raise_refusal(error)
            continue
        if "id" in case.raw and run["id"] != case.raw["id"]:
            continue
        fresh = manifests.new(run["id"], run["name"], [], first.get("time", 0.0), "")
        fresh["writer"] = {"name": "unknown", "version": "unknown"}
        kept = {key: value for key, value in case.raw.items() if key not in manifests.SEALED}
        if first or "start" in kept:
            return fresh | kept
    if not case.raw and MANIFEST not in case.directory.names():
        raise NotARunError(errno.ENOENT, "there is no run", str(case.path))
    message = (
        f"{case.path}: {MANIFEST} is damaged or missing, and there is neither a journal nor a "
        "table that tells which run it is"
    )
    raise ManifestError(message)


def _tables(directory: Directory) -> list[str]:
    """Return the tables that lie in the directory."""
    return [name for name in directory.names() if name.endswith(".parquet") and _is_path(name)]


def _is_path(name: str) -> bool:
    try:
        check_relative(name)
    except BlackboxError:
        return False
    return True


def _refuse_written(case: Case, *, force: bool) -> None:
    """Refuse a run that is written, or one of which nobody knows.

    Raises:
        RunIsLiveError: Saying what to do.
    """
    if not case.journals and not case.raw:
        return  # tables are all that is left, and a run is sealed when it has ended
    newest = _newest(case.journals)
    verdict = determine(case.directory, case.manifest, case.journals, limits=case.limits)
    if verdict.proven or not _process_is_gone(case, newest):
        refuse_live(case.directory, verdict, force=force)
    for rank in [] if "sealed" in case.raw else sorted(newest)[1:]:
        header = newest[rank][-1].header
        if header is None or process.liveness(header.process) != "alive":
            continue
        if last_end(case.directory, newest[rank], case.limits) is None:
            pid = header.process.get("pid")
            message = f"{case.path} is being written by process {pid}; repair it afterwards"
            raise RunIsLiveError(message)


def _newest(journals: Sequence[JournalFile]) -> dict[int, list[JournalFile]]:
    """Return the journals of the newest attempt of each rank, in the order of their ordinals."""
    found: dict[int, list[JournalFile]] = {}
    for journal in sorted(journals, key=lambda each: (each.attempt, each.ordinal)):
        session = found.setdefault(journal.rank, [])
        if session and session[0].attempt != journal.attempt:
            session.clear()
        session.append(journal)
    return found


def _process_is_gone(case: Case, newest: Mapping[int, Sequence[JournalFile]]) -> bool:
    """Tell whether the manifest proves a crash where the header of the journal is damaged."""
    session = newest.get(min(newest, default=0))
    if session is not None and session[-1].header is not None:
        return False
    attempts = case.raw.get("attempts", [])
    found = attempts[-1].get("process") if attempts else None
    return isinstance(found, dict) and process.liveness(found) == "dead"


def _known(case: Case) -> Known:
    """Return what is known of a run beside its journals."""
    manifest, raw = case.manifest, case.raw
    known = Known(manifest["id"], manifest["name"], manifest["tags"], 0.0)
    known.start = manifests.seconds(manifest["start"])
    known.attempts = {each["attempt"]: each for each in raw.get("attempts", [])}
    listed = manifest.get("journals", raw.get("journals"))
    known.entries = {
        each["file"]: each
        for each in (listed if isinstance(listed, list) else [])
        if usable.is_journal(each, case.limits)
    }
    known.events = {
        (entry["attempt"], entry["rank"], event["seq"]): event
        for entry in known.entries.values()
        for event in entry.get("events", ())
    }
    known.tables = list(_sources(case))
    known.packed = _is_packed(case, known)
    whole = isinstance(listed, list) and len(known.entries) == len(listed)
    known.eventless = not whole or any("events" not in each for each in known.entries.values())
    known.trusted = frozenset(
        journal for journal in known.entries if not known.packed and _is_sound(case, journal)
    )
    known.doubtful = _is_doubtful(case, known)
    return known


def _is_packed(case: Case, known: Known) -> bool:
    """Tell whether the run consists of tables."""
    said = case.raw.get("sealed")
    if isinstance(said, dict) and isinstance(said.get("packed"), bool):
        return bool(said["packed"])
    return not case.journals and bool(known.tables) and not known.entries


def _is_doubtful(case: Case, known: Known) -> bool:
    """Tell whether a journal may lack what a table has."""
    if known.packed:
        return True
    if known.entries:
        return not known.eventless and not known.trusted.issuperset(known.entries)
    return bool(known.tables) and any(
        naming.parse_journal_name(name) is not None and not _is_sound(case, name)
        for name in case.sums
    )


def _sources(case: Case) -> Iterator[TableSource]:
    """Yield the tables of the run."""
    groups = case.manifest.get("groups")
    if not groups:
        for name in _tables(case.directory) if case.sealed or not case.journals else ():
            sound = _is_sound(case, name)
            if sound or not case.journals:
                yield _source(case, name, None, None, sound=sound)
        return
    packed = case.manifest["sealed"]["packed"]
    for group, entry in groups.items():
        sound = _is_sound(case, entry["table"])
        if sound or packed:
            yield _source(case, entry["table"], group, entry["metrics"], sound=sound)
        else:
            yield _source(case, f"{SCRATCH}none", group, entry["metrics"], sound=False)


def _source(
    case: Case, name: str, group: str | None, metrics: Mapping[str, Any] | None, *, sound: bool
) -> TableSource:
    run_id = case.manifest["id"]
    return TableSource(
        case.directory, name, group, metrics, run_id, sound=sound, limits=case.limits
    )


def _sha256(directory: Directory, name: str) -> str | None:
    """Return the digest of a file, None where there is none."""
    found = find_digest(directory, name)
    return None if found is None else found[1]


def _is_sound(case: Case, name: str) -> bool:
    """Tell whether a file is byte for byte what was sealed."""
    files = case.manifest.get("files", {})
    stated = files.get(name, {}).get("sha256") or case.sums.get(name)
    return stated is not None and _sha256(case.directory, name) == stated


def entries_below(directory: Directory, folder: str = "") -> Iterator[tuple[str, int]]:
    """Yield path and mode of every entry of a run but scratch, following no link."""
    place = directory.path / folder if folder else directory.path
    with os.scandir(place) as found:
        ordered = sorted(found, key=lambda entry: entry.name)
    for entry in ordered:
        if entry.name.startswith(SCRATCH):
            continue
        name = f"{folder}/{entry.name}" if folder else entry.name
        mode = entry.stat(follow_symlinks=False).st_mode
        yield name, mode
        if stat.S_ISDIR(mode):
            yield from entries_below(directory, name)


def scratch_below(directory: Directory) -> Iterator[str]:
    """Yield the scratch of a run: in its directory, and in the folders of it."""
    yield from directory.scratch()
    for name, mode in entries_below(directory):
        if stat.S_ISDIR(mode):
            inside = os.scandir(directory.path / name)
            yield from sorted(f"{name}/{each.name}" for each in inside if is_scratch(each.name))


def is_scratch(name: str) -> bool:
    """Tell whether the name of an entry is that of scratch."""
    return name.startswith(SCRATCH)
