"""A sealed run: what the manifest says of journals and groups, against what the journals hold.

Tables and datasets are opened only if they are the files that were sealed, by their digest: the
libraries that read them were not made for files that somebody damaged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blackboxml.base import naming
from blackboxml.model import MANIFEST
from blackboxml.seal import described, journal_entries
from blackboxml.validation.document import equal, pointer
from blackboxml.validation.subject import LISTING, TABLE, checks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blackboxml.seal.sealed import GroupFiles
    from blackboxml.validation.subject import Subject

_RULES = {"column": "BB-GRP-005", "variable": "BB-GRP-007", "type": "BB-GRP-004"}
"""The rule for a member of a metric's entry; BB-MAN-006 for the others."""

_MEMBERS = (*_RULES, "count", "last", "unit", "description", "statistics")
_COUNTED = ("rank", "attempt", "first_seq", "records", "time", "process")


@checks("structure", "BB-SEA-006")
def check_listed(subject: Subject) -> None:
    """Check that the manifest lists every journal, in order."""
    sealed = subject.sealed
    if sealed is None:
        _skip_unknown(subject, "BB-SEA-006")
        return
    subject.look("BB-SEA-006")
    listed = [entry["file"] for entry in sealed["journals"]]
    for name in sorted({journal.name for journal in subject.journals} - set(listed)):
        message = "it is not listed in the manifest: it was written after sealing"
        subject.report("BB-SEA-006", message, name, cure=subject.cure)
        subject.changed.add(name)
    places = [naming.parse_journal_name(name) or (0, 0) for name in listed]
    if places != sorted(set(places)):
        message = "not in the order of rank and ordinal, each once"
        subject.report("BB-SEA-006", message, MANIFEST, pointer="/journals", cure=subject.cure)


_ENTRY = ("BB-MAN-006", "BB-TAB-001", "BB-GRP-004", "BB-GRP-005", "BB-GRP-008")
_DATASET = (
    *("BB-DAT-002", "BB-DAT-003", "BB-DAT-004", "BB-DAT-005", "BB-DAT-006", "BB-DAT-007"),
    *("BB-DAT-008", "BB-DAT-009", "BB-DAT-011", "BB-DAT-012", "BB-DAT-013", "BB-DAT-014"),
    "BB-DAT-016",
)
_SERIES = ("BB-DAT-019", "BB-DAT-020", "BB-DAT-021")
_PAGES = ("BB-TAB-011", "BB-TAB-017")
_CHUNKS = ("BB-DAT-010", "BB-DAT-017")
_VALUES = ("BB-SEA-004", "BB-TAB-004", "BB-TAB-008")


@checks("data", *_VALUES, "BB-DAT-010", "BB-DAT-022")
@checks("integrity", *_PAGES, "BB-DAT-017")
@checks(
    "structure",
    *(*_ENTRY, "BB-GRP-006", "BB-GRP-007", *TABLE, "BB-DAT-001", *_DATASET, "BB-LIM-005"),
    *_SERIES,
)
@checks("schema", "BB-VER-001", "BB-VER-003", "BB-VER-006", "BB-VER-007")
def check_groups(subject: Subject) -> None:
    """Compare tables, datasets and their entries in the manifest with the journals."""
    sealed, spill = subject.sealed, subject.spill
    known = (*_ENTRY, *TABLE, *_PAGES, "BB-DAT-001", *_DATASET, *_VALUES, *_CHUNKS)
    if sealed is None:
        _skip_unknown(subject, *known, "BB-GRP-006", "BB-GRP-007")
        return
    if spill is None:
        return  # packed, or not asked for
    if why := _unlike(subject):
        subject.skip(why, *known, "BB-GRP-006", "BB-GRP-007")
        return
    from blackboxml.seal.sealed import GroupFiles
    from blackboxml.validation.dataset import check_dataset
    from blackboxml.validation.table import check_table

    rewinds = [rewind for scan in subject.scans for rewind in scan.rewinds]
    said = described(subject.scans)
    run = {key: sealed[key] for key in ("id", "name")}
    _check_names(subject, sealed["groups"])
    for place, (name, group) in enumerate(subject.groups.items()):
        subject.progress(0.5 + 0.5 * place / len(subject.groups))
        entry = sealed["groups"].get(name)
        if entry is None:
            continue
        stem = entry["table"].removesuffix(".parquet")
        files = GroupFiles(group, run, rewinds, said, "", stem)
        files.survey(spill)
        _check_entry(subject, name, entry, files)
        if subject.is_sound(entry["table"], *TABLE, *_PAGES, *_VALUES):
            check_table(subject, entry["table"], group, files.schema, spill)
        dataset = entry.get("dataset")
        if dataset is not None and subject.is_sound(dataset, *_DATASET, *_CHUNKS, "BB-SEA-004"):
            check_dataset(subject, dataset, group, files, spill)


def _unlike(subject: Subject) -> str | None:
    """Return why the journals are not those that were sealed, None if they are."""
    for journal in subject.journals:
        if journal.name in subject.changed:
            return f"{journal.name} is not what it was when the run was sealed"
    return _hidden(subject)


def _hidden(subject: Subject) -> str | None:
    """Return why a journal is not read, None if all are."""
    for name, why in subject.hidden.items():
        if name == LISTING or naming.parse_journal_name(name) is not None:
            return why
    return None


def _skip_unknown(subject: Subject, *rules: str) -> None:
    """Skip rules of a sealed run if nobody can tell whether this is one."""
    if subject.manifest is None and MANIFEST in subject.files:
        subject.skip(f"{MANIFEST} is not valid", *rules)


@checks("structure", "BB-MAN-006")
def check_entries(subject: Subject) -> None:
    """Compare what the manifest says of each journal with the journal."""
    sealed = subject.sealed
    if sealed is None or subject.packed:
        return
    if why := _hidden(subject):
        subject.skip(why, "BB-MAN-006")
        return
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
    subject.look("BB-MAN-006", "BB-TAB-001")
    for name in listed.keys() - subject.groups.keys():
        message = f"no record names a metric of the group {name!r:.80}"
        place = pointer(["groups", name])
        subject.report("BB-TAB-001", message, MANIFEST, pointer=place, cure=subject.cure)
    for name in subject.groups.keys() - listed.keys():
        message = f"the group {name!r:.80} has no table"
        subject.report("BB-TAB-001", message, MANIFEST, pointer="/groups", cure=subject.cure)
    check_stems(subject, listed, naming.file_stems(subject.groups))


def check_stems(subject: Subject, listed: Mapping[str, Any], stems: Mapping[str, str]) -> None:
    """Check how the files of each group are called.

    Args:
        subject: The run.
        listed: The groups of the manifest.
        stems: The stem of each group.
    """
    if listed:
        subject.look("BB-GRP-008")
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
    subject.look("BB-GRP-004", "BB-GRP-005", "BB-DAT-001")
    if "dataset" in entry:
        subject.look("BB-GRP-007")
    if any("statistics" in each for each in wanted["metrics"].values()):
        subject.look("BB-GRP-006")

    for key in ("rows", "superseded"):
        if entry[key] != wanted[key]:
            _differs(subject, "BB-MAN-006", (name, key), entry[key], wanted[key])
    if ("dataset" in entry) != ("dataset" in wanted):
        message = "a dataset without a row that counts" if "dataset" in entry else "no dataset"
        where = pointer(["groups", name])
        subject.report("BB-DAT-001", message, MANIFEST, severity="warning", pointer=where)
    stated, said = list(entry["metrics"]), list(wanted["metrics"])
    if stated != said:
        _differs(subject, "BB-MAN-006", (name, "metrics"), stated, said)
    _check_metrics(subject, name, entry, wanted)


def _check_metrics(
    subject: Subject, group: str, entry: Mapping[str, Any], wanted: Mapping[str, Any]
) -> None:
    """Compare what the manifest says of each metric of a group with what its rows say."""
    known = set(_MEMBERS) if "dataset" in entry else set(_MEMBERS) - {"variable"}
    for metric in wanted["metrics"].keys() & entry["metrics"].keys():
        stated, said = entry["metrics"][metric], wanted["metrics"][metric]
        for key in sorted(known):
            if not equal(stated.get(key), said.get(key)):
                rule = _RULES.get(key, "BB-MAN-006")
                place = (group, "metrics", metric, key)
                _differs(subject, rule, place, stated.get(key), said.get(key))


def _differs(
    subject: Subject, rule: str, place: tuple[str, ...], found: object, wanted: object
) -> None:
    """Report a member of a group's entry that is not what the journals say."""
    message = f"{found!r:.80}, but the journals give {wanted!r:.80}"
    where = pointer(["groups", *place])
    subject.report(rule, message, MANIFEST, pointer=where, cure=subject.cure)


@checks("data", "BB-SEA-009", "BB-TAB-004")
@checks("integrity", *_PAGES)
@checks(
    "structure",
    *("BB-MAN-006", "BB-MRG-001", "BB-TAB-001", *TABLE, "BB-LIM-005"),
    *("BB-GRP-005", "BB-GRP-006", "BB-GRP-008"),
)
@checks("schema", "BB-VER-001", "BB-VER-003", "BB-VER-006", "BB-VER-007")
def check_packed(subject: Subject) -> None:
    """Check the tables and events of a packed run."""
    sealed = subject.sealed
    if sealed is None or not subject.packed or not subject.deeper:
        _skip_unknown(subject, "BB-SEA-009")
        return
    from blackboxml.validation.packing import check_tables

    check_stems(subject, sealed["groups"], naming.file_stems(sealed["groups"]))
    check_tables(subject, sealed)
