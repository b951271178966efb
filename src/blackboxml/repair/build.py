"""The mended run, built as a directory of its own."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
from typing import TYPE_CHECKING, Any, Final

from blackboxml import manifest as manifests
from blackboxml.base import schema
from blackboxml.base.files import Directory, check_relative
from blackboxml.errors import BlackboxError, Findings, RepairError
from blackboxml.journal.ending import prove_attempts
from blackboxml.model import MANIFEST, RUN_FORMAT, SUMS, VERSION
from blackboxml.repair.case import entries_below
from blackboxml.seal import Sealing, entry_files
from blackboxml.seal.sums import list_files, write_sums
from blackboxml.validation import validate
from blackboxml.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from blackboxml.journal.ending import Attempt
    from blackboxml.manifest import Manifest
    from blackboxml.model import JournalFile, Limits
    from blackboxml.repair.case import Case
    from blackboxml.validation import Report

ASIDE: Final = "repair"
"""The folder of a run in which a repair keeps what was there before."""

_LINK_ERRORS: Final = (OSError, NotImplementedError)
_DIGITS: Final = 16
_BLOCK: Final = 2**20


class Build:
    """A mended run that is being built.

    Attributes:
        aside: Files that hold what was there before, by path in the mended run.
        report: What a validator finds in the mended run.
    """

    def __init__(self, case: Case, mode: str, place: Path, *, in_place: bool) -> None:
        """Prepare.

        Args:
            case: The damaged run, diagnosed.
            mode: What is done to a sealed run.
            place: An empty directory.
            in_place: Whether the damaged run will be replaced: its files may be linked, and all
                that change are kept aside.
        """
        self.aside: list[str] = []
        self.report: Report | None = None
        self._case = case
        self._place = place
        self._in_place = in_place
        # What is kept aside of the checksums is a new file, which the manifest has to list.
        aside = in_place and SUMS in case.directory.names()
        self._mode = "list" if mode == "sums" and aside else mode

    def run(self, progress: Callable[[float], None] | None) -> Report:
        """Build and validate.

        Raises:
            RepairError: If the mended run is not valid.
            SealError: If what was sealed does not read back the same.
        """
        changed = self._changed()
        self._copy({name for name in changed if name not in self._derived()})
        with Directory(self._place) as directory:
            self._write_journals(directory)
            for name in sorted(changed if self._in_place else self._case.removed):
                self._keep(name)
            self._write_manifest(directory, progress)
            self._sync()
        return self._validate()

    # -- files

    def _derived(self) -> set[str]:
        """Return the files that are replaced by the steps of a seal."""
        names = {MANIFEST, SUMS}
        if self._mode == "seal":
            for entry in self._case.manifest.get("groups", {}).values():
                names.update(entry_files(entry))
            names |= {
                name for name in self._case.directory.names() if name.endswith((".parquet", ".h5"))
            }
        return names

    def _changed(self) -> set[str]:
        """Return the files that are there and will be gone or differ."""
        case = self._case
        names = {target.name for target in case.targets if target.changed} | case.removed
        for history in (case.metrics, case.media):
            names |= {name for name, size in (history.torn if history else {}).items() if size}
        if any(action.kind == "mend-manifest" for action in case.actions):
            names.add(MANIFEST)
        if self._mode == "sums":
            names.add(SUMS)
        elif self._mode != "none":
            names |= self._derived()
        return {name for name in names if name in case.links or self._is_file(name)}

    def _is_file(self, name: str) -> bool:
        with contextlib.suppress(OSError):
            mode = os.lstat(self._case.path / name).st_mode
            return stat.S_ISREG(mode)
        return False

    def _copy(self, without: set[str]) -> None:
        """Take over all that stays as it is, and what is replaced later."""
        for name, mode in entries_below(self._case.directory):
            target = self._place / name
            if stat.S_ISDIR(mode):
                target.mkdir()
                shutil.copystat(self._case.path / name, target)
            elif stat.S_ISREG(mode) and name not in without:
                self._take(name, target)

    def _take(self, name: str, target: Path) -> None:
        """Link or copy a file of the damaged run."""
        source = self._case.path / name
        if self._in_place:
            with contextlib.suppress(*_LINK_ERRORS):
                os.link(source, target, follow_symlinks=False)
                return
        shutil.copy2(source, target, follow_symlinks=False)

    def _write_journals(self, directory: Directory) -> None:
        """Write the journals that change."""
        for history in (self._case.metrics, self._case.media):
            if history is None:
                continue
            for target in history.targets:
                if target.changed:
                    descriptor = directory.create(target.name)
                    try:
                        history.write(target, descriptor)
                    finally:
                        os.close(descriptor)
            for name, size in history.torn.items():
                if size:
                    os.close(directory.create(name))

    def _keep(self, name: str) -> None:
        """Keep what a file holds, or where a link points to, under a name made of its digest."""
        link = self._case.links.get(name)
        if link == "":
            return  # a special file holds nothing
        if link is not None:
            sha = hashlib.sha256(os.fsencode(link)).hexdigest()
        else:
            sha = self._digest(name)
        try:
            check_relative(name)
            kept = f"{ASIDE}/{sha[:_DIGITS]}/{name}"
        except BlackboxError:
            kept = f"{ASIDE}/{sha[:_DIGITS]}/entry"
        target = self._place / kept
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            message = f"{self._case.path / ASIDE} is in the way: rename it, it is to be a folder"
            raise RepairError(message) from None
        self.aside.append(kept)
        if target.exists():
            return
        if link is not None:
            target.write_bytes(os.fsencode(link))
        else:
            self._take(name, target)

    def _digest(self, name: str) -> str:
        """Return the digest of a file, whatever its name."""
        sha = hashlib.sha256()
        descriptor = os.open(self._case.path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            while part := file.read(_BLOCK):
                sha.update(part)
        return sha.hexdigest()

    def _sync(self) -> None:
        """Make all that was copied durable."""
        for folder, _, names in os.walk(self._place):
            for name in [*names, "."]:
                descriptor = os.open(os.path.join(folder, name), os.O_RDONLY)
                try:
                    with contextlib.suppress(OSError):
                        os.fsync(descriptor)
                finally:
                    os.close(descriptor)

    # -- manifest

    def _write_manifest(
        self, directory: Directory, progress: Callable[[float], None] | None
    ) -> None:
        """Bring the manifest, the tables and the checksums up to date."""
        case, mode = self._case, self._mode
        if mode == "none" and not any(each.kind == "mend-manifest" for each in case.actions):
            return
        limits = case.limits
        if case.raw and mode in {"sums", "list"} and "sealed" in case.manifest:
            manifest = manifests.read(directory, limits)
            if mode == "list":
                dropped = self._leftovers(manifest)
                manifest["files"] = list_files(directory, dropped)
                directory.replace(MANIFEST, manifests.next_generation(manifest))
            write_sums(directory, manifest)
            return
        manifest, journals = self._history(directory)
        complete(manifest)
        named = [each.header.document["run"]["name"] for each in journals if each.header]
        manifest.setdefault("name", next(iter(named), case.path.name))
        settle(directory, manifest, journals, limits)
        if mode == "none":
            manifests.unseal(manifest)
            directory.replace(MANIFEST, manifests.next_generation(manifest))
            return
        before = {
            name
            for entry in case.manifest.get("groups", {}).values()
            for name in entry_files(entry)
        }
        manifest["groups"] = case.manifest.get("groups", {})
        Sealing(directory, manifest, journals, limits, progress).run(Findings())
        after = {name for entry in manifest["groups"].values() for name in entry_files(entry)}
        for name in before - after:
            directory.remove(name)

    def _history(self, directory: Directory) -> tuple[Manifest, list[JournalFile]]:
        """Return the manifest as far as it can be used, and the journals."""
        case = self._case
        manifest, journals = manifests.open_history(directory, case.limits, Findings())
        if not case.raw:  # by the tables of a packed run, or by the journals
            manifest = case.manifest | {
                key: manifest[key] for key in ("attempts",) if not case.manifest.get(key)
            }
        kept = {key: value for key, value in manifest.items() if key not in case.deep}
        return kept | {key: manifest[key] for key in manifests.SEALED if key in manifest}, journals

    def _leftovers(self, manifest: Manifest) -> set[str]:
        """Return the files of a packed run that do not count any more."""
        if not manifest["sealed"]["packed"]:
            return set()
        stems = {entry["table"].removesuffix(".parquet") for entry in manifest["groups"].values()}
        listed = {entry["file"] for entry in manifest["journals"]}
        return listed | {f"{stem}.h5" for stem in stems}

    def _validate(self) -> Report:
        """Validate the mended run.

        Raises:
            RepairError: If it is not valid.
        """
        report = self.report = validate(self._place, limits=self._case.limits)
        errors = [problem for problem in report.problems if problem.severity == "error"]
        if errors or not report.ok:
            shown = "\n".join(f"  {problem}" for problem in errors[:10])
            message = f"{self._case.path} cannot be mended; what would remain:\n{shown}"
            raise RepairError(message)
        return report


def complete(manifest: Manifest) -> None:
    """Replace the members of a manifest that its schema refuses, and add those that are missing."""
    own = {key: value for key, value in manifest.items() if key not in manifests.SEALED}
    own |= {"status": "running", "attempts": own.get("attempts", [])}
    for key in ("end", "duration_seconds", "exception"):
        own.pop(key, None)
    for error in schema.validator("manifest").iter_errors(own):
        if error.absolute_path:
            manifest.pop(str(error.absolute_path[0]), None)
    spare: dict[str, Any] = {
        "format": {"name": RUN_FORMAT, "version": VERSION, "features": []},
        "tags": [],
        "environment": {},
        "writer": {"name": "blackboxml", "version": __version__},
        "generation": -1,
        "attempts": [],
    }
    for key, value in spare.items():
        manifest.setdefault(key, value)


def settle(
    directory: Directory,
    manifest: Manifest,
    journals: Sequence[JournalFile],
    limits: Limits,
) -> None:
    """Say how each attempt and the run ended: what journals prove, else what the manifest says."""
    if not journals:
        return
    entries = {entry["attempt"]: entry for entry in manifest["attempts"]}
    for attempt in prove_attempts(directory, journals, limits):
        entries[attempt.number] = _entry(entries.get(attempt.number), attempt)
    for entry in entries.values():
        if entry["status"] == "running":
            entry |= {"status": "interrupted", "end": entry["start"]}
    manifest["attempts"] = [entries[attempt] for attempt in sorted(entries)]
    last = manifest["attempts"][-1]
    manifest["start"] = manifest["attempts"][0]["start"]
    for key in ("status", "end", "exception"):
        manifest.pop(key, None)
        if key in last:
            manifest[key] = last[key]
    lasted = manifests.seconds(manifest["end"]) - manifests.seconds(manifest["start"])
    manifest["duration_seconds"] = round(max(0.0, lasted), 6)


def _entry(old: Manifest | None, attempt: Attempt) -> Manifest:
    """Return what the manifest has to say of an attempt."""
    entry = dict(old) if old is not None else {"attempt": attempt.number, "status": "running"}
    if attempt.header is not None:
        if "start" not in entry or attempt.dated:
            entry["start"] = manifests.timestamp(attempt.header.time)
        entry["process"] = attempt.header.process
    if attempt.end is not None:
        end = attempt.end["end"]
        if entry["status"] != end["status"] or entry.get("exception") != end.get("exception"):
            entry.pop("exception", None)
            entry |= {key: end[key] for key in ("status", "exception") if key in end}
            entry["end"] = manifests.timestamp(attempt.end["time"])
    elif entry["status"] in {"running", "interrupted"}:
        ended = str(entry["start"]) if attempt.last is None else manifests.timestamp(attempt.last)
        entry |= {"status": "interrupted", "end": ended}
    return entry
