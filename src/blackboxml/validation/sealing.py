"""A sealed run: what the manifest says of journals and groups, against what the journals hold.

Tables and datasets are opened only if they are the files that were sealed, by their digest: the
libraries that read them were not made for files that somebody damaged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blackboxml import naming
from blackboxml.model import MANIFEST
from blackboxml.seal import described, journal_entries
from blackboxml.validation.document import equal, pointer
from blackboxml.validation.subject import checks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blackboxml.sealed import GroupFiles
    from blackboxml.validation.subject import Subject

_RULES = {"column": "BB-GRP-005", "variable": "BB-GRP-007", "type": "BB-GRP-004"}
"""The rule for a member of a metric's entry; BB-MAN-006 for the others."""

_MEMBERS = (*_RULES, "count", "last", "unit", "description", "statistics")
_COUNTED = ("rank", "attempt", "first_seq", "records", "time", "process")


@checks("BB-SEA-006")
def check_listed(subject: Subject) -> bool:
    """Check that the manifest lists every journal, in order."""
    sealed = subject.sealed
    if sealed is None:
        return False
    listed = [entry["file"] for entry in sealed["journals"]]
    for name in sorted({journal.name for journal in subject.journals} - set(listed)):
        message = "it is not listed in the manifest: it was written after sealing"
        subject.report("BB-SEA-006", message, name, cure=subject.cure)
        subject.changed.add(name)
    places = [naming.parse_journal_name(name) or (0, 0) for name in listed]
    if places != sorted(set(places)):
        message = "not in the order of rank and ordinal, each once"
        subject.report("BB-SEA-006", message, MANIFEST, pointer="/journals", cure=subject.cure)
    return True


@checks(
    *("BB-SEA-004", "BB-MAN-006", "BB-GRP-004", "BB-GRP-005", "BB-GRP-006", "BB-GRP-007"),
    *("BB-GRP-008", "BB-TAB-001", "BB-TAB-003", "BB-TAB-004", "BB-TAB-005", "BB-TAB-006"),
    *("BB-TAB-007", "BB-TAB-008", "BB-TAB-009", "BB-TAB-010", "BB-TAB-013", "BB-TAB-014"),
    *("BB-TAB-015", "BB-DAT-001", "BB-DAT-002", "BB-DAT-003", "BB-DAT-005", "BB-DAT-006"),
    *("BB-DAT-007", "BB-DAT-008", "BB-DAT-010", "BB-DAT-011", "BB-DAT-012", "BB-LIM-005"),
)
def check_groups(subject: Subject) -> bool:
    """Compare tables, datasets and their entries in the manifest with the journals."""
    sealed, spill = subject.sealed, subject.spill
    if sealed is None or spill is None:
        return False
    if any(journal.name in subject.changed for journal in subject.journals):
        return False  # said already; every difference from now on would say it again
    from blackboxml.sealed import GroupFiles
    from blackboxml.validation.dataset import check_dataset
    from blackboxml.validation.table import check_table

    rewinds = [rewind for scan in subject.scans for rewind in scan.rewinds]
    said = described(subject.scans)
    run = {key: sealed[key] for key in ("id", "name")}
    _check_names(subject, sealed["groups"])
    for name, group in subject.groups.items():
        entry = sealed["groups"].get(name)
        if entry is None:
            continue
        stem = entry["table"].removesuffix(".parquet")
        files = GroupFiles(group, run, rewinds, said, "", stem)
        files.survey(spill)
        _check_entry(subject, name, entry, files)
        # A file that is missing was reported with the files, or with the manifest.
        sound = subject.files.keys() - subject.changed
        if entry["table"] in sound:
            check_table(subject, entry["table"], group, files.schema, spill)
        dataset = entry.get("dataset")
        if dataset is not None and dataset in sound:
            check_dataset(subject, dataset, group, files, spill)
    return True


@checks("BB-MAN-006")
def check_entries(subject: Subject) -> bool:
    """Compare what the manifest says of each journal with the journal."""
    sealed = subject.sealed
    if sealed is None or subject.packed:
        return False
    listed = {entry["file"]: at for at, entry in enumerate(sealed["journals"])}
    found = {entry["file"]: entry for entry in _entries(subject)}
    for name, entry in found.items():
        if name not in listed:
            continue
        at = listed[name]
        stated = sealed["journals"][at]
        for key in (*_COUNTED, "events"):
            if key == "events" and key not in stated:
                continue
            if not equal(stated.get(key), entry.get(key)):
                place = pointer(["journals", at, key])
                message = f"{_show(stated, key)}, but {name} gives {_show(entry, key)}"
                subject.report("BB-MAN-006", message, MANIFEST, pointer=place, cure=subject.cure)
    for name in sorted(listed.keys() - found.keys() - subject.changed):
        place = pointer(["journals", listed[name]])
        subject.report("BB-MAN-006", f"{name} is no journal of the run", MANIFEST, pointer=place)
    return True


def _entries(subject: Subject) -> list[dict[str, Any]]:
    """Return what the manifest has to say of the journals."""
    from blackboxml.seal import Sealing

    sealed = subject.sealed or {}
    sealing = Sealing(subject.directory, sealed, subject.journals, subject.limits, None)
    sealing.scans, sealing.groups = subject.scans, subject.groups
    if subject.groups:
        sealing.keep_exact()
    return journal_entries(sealing.scans)


def _show(entry: Mapping[str, Any], key: str) -> str:
    """Return a member of an entry in a few words."""
    value = entry.get(key)
    return f"{len(value)} events" if isinstance(value, list) else f"{value!r:.80}"


def _check_names(subject: Subject, listed: Mapping[str, Any]) -> None:
    """Check which groups there are, and how their files are called."""
    for name in listed.keys() - subject.groups.keys():
        message = f"no record names a metric of the group {name!r:.80}"
        place = pointer(["groups", name])
        subject.report("BB-TAB-001", message, MANIFEST, pointer=place, cure=subject.cure)
    for name in subject.groups.keys() - listed.keys():
        message = f"the group {name!r:.80} has no table"
        subject.report("BB-TAB-001", message, MANIFEST, pointer="/groups", cure=subject.cure)
    stems = naming.file_stems(subject.groups)
    for name, entry in listed.items():
        for kind, suffix in (("table", ".parquet"), ("dataset", ".h5")):
            stem = stems.get(name)
            if stem is not None and kind in entry and entry[kind] != stem + suffix:
                message = f"{entry[kind]}, wanted {stem}{suffix}"
                place = pointer(["groups", name, kind])
                subject.report("BB-GRP-008", message, MANIFEST, pointer=place, cure=subject.cure)


def _check_entry(subject: Subject, name: str, entry: Mapping[str, Any], files: GroupFiles) -> None:
    """Compare what the manifest says of a group with what its rows say."""
    wanted = files.entry()

    def differs(rule: str, place: list[str], found: object, want: object) -> None:
        message = f"{found!r:.80}, but the journals give {want!r:.80}"
        where = pointer(["groups", name, *place])
        subject.report(rule, message, MANIFEST, pointer=where, cure=subject.cure)

    for key in ("rows", "superseded"):
        if entry[key] != wanted[key]:
            differs("BB-MAN-006", [key], entry[key], wanted[key])
    if ("dataset" in entry) != ("dataset" in wanted):
        message = "a dataset without a row that counts" if "dataset" in entry else "no dataset"
        where = pointer(["groups", name])
        subject.report("BB-DAT-001", message, MANIFEST, severity="warning", pointer=where)
    if list(entry["metrics"]) != list(wanted["metrics"]):
        differs("BB-MAN-006", ["metrics"], list(entry["metrics"]), list(wanted["metrics"]))
    known = set(_MEMBERS) if "dataset" in entry else set(_MEMBERS) - {"variable"}
    for metric in wanted["metrics"].keys() & entry["metrics"].keys():
        stated, said = entry["metrics"][metric], wanted["metrics"][metric]
        for key in sorted(known):
            if not equal(stated.get(key), said.get(key)):
                rule = _RULES.get(key, "BB-MAN-006")
                differs(rule, ["metrics", metric, key], stated.get(key), said.get(key))


@checks(
    *("BB-SEA-009", "BB-MAN-006", "BB-MRG-001", "BB-TAB-001", "BB-TAB-003", "BB-TAB-004"),
    *("BB-TAB-005", "BB-TAB-006", "BB-TAB-007", "BB-TAB-009", "BB-TAB-010", "BB-TAB-013"),
    *("BB-TAB-014", "BB-TAB-015"),
)
def check_packed(subject: Subject) -> bool:
    """Check the tables and events of a packed run."""
    sealed = subject.sealed
    if sealed is None or not subject.packed:
        return False
    from blackboxml.validation.packing import check_tables

    check_tables(subject, sealed)
    return True
