"""What has to be done to a run, and what is kept and lost by it."""

from __future__ import annotations

import os
import re
import stat
import tempfile
from typing import TYPE_CHECKING, Any, Final

from blackboxml import manifest as manifests
from blackboxml.base import naming, schema
from blackboxml.model import CONFIG, MANIFEST, SUMS
from blackboxml.repair import ranges
from blackboxml.repair.case import entries_below, scratch_below
from blackboxml.repair.headers import mend_headers, processes_of
from blackboxml.repair.history import History
from blackboxml.repair.lines import good_lines
from blackboxml.repair.plan import Action
from blackboxml.seal.sums import find_digest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blackboxml.errors import Problem
    from blackboxml.repair.case import Case
    from blackboxml.repair.history import Target

_UNPROVED: Final = ("tags", "environment", "lineage", "extensions")
"""Members of the manifest that no journal holds, or not surely."""

_TAIL: Final = ("BB-JNL-024",)
"""Why a tail is cut that breaks no rule."""

_MODES: Final = ("none", "sums", "list", "seal")
"""What is done to a sealed run in the end; each does what those before it do."""


def diagnose(case: Case, spill: int, media_spill: int) -> str:
    """Find out what has to be done; return what is done to a sealed run in the end.

    Args:
        case: The run; its actions are filled.
        spill: Descriptor of an empty file.
        media_spill: Descriptor of another.
    """
    modes = ["none"]
    if not case.known.packed or _has_to_be_unpacked(case):
        case.metrics = History(case.directory, case.known, case.limits, "metrics", spill)
        case.metrics.study()
        processes = processes_of(case.metrics)
        mend_headers(case.metrics, processes, case.limits)
        case.actions += _about_history(case, case.metrics)
        if any(target.changed for target in case.metrics.targets) or case.metrics.foreign:
            modes.append("seal")
    else:
        processes = {
            (entry["attempt"], entry["rank"]): entry["process"]
            for entry in case.known.entries.values()
            if "process" in entry
        }
    case.media = History(case.directory, case.known, case.limits, "media", media_spill)
    case.media.study()
    for target in case.media.targets:
        target.damaged = _damaged_files(case, target)
    mend_headers(case.media, processes, case.limits)
    case.actions += _about_history(case, case.media)
    case.actions += [*_about_config(case), *_about_entries(case)]
    if case.actions:
        modes.append("list")
    modes += _about_seal(case)
    mode = max(modes, key=_MODES.index) if case.sealed else "none"
    case.actions += _about_manifest(case, mode)
    case.actions += [
        Action("remove-scratch", name, ("BB-LAY-014",), "remove what a killed program left")
        for name in scratch_below(case.directory)
    ]
    return mode


def spill_file() -> Any:
    """Return an unnamed file for what does not fit into memory."""
    return tempfile.TemporaryFile(prefix="blackbox-repair-")


def _has_to_be_unpacked(case: Case) -> bool:
    """Tell whether a packed run is damaged in more than its checksums and its other files."""
    tables = {table.name for table in case.known.tables}
    return any(
        problem.file in tables or problem.file in {MANIFEST, ""} or _is_journal(problem.file)
        for problem in case.errors
        if not (problem.file == MANIFEST and problem.rule == "BB-INT-009")
    )


def _is_journal(name: str) -> bool:
    return naming.parse_journal_name(name) is not None


# -- journals


def _about_history(case: Case, history: History) -> Iterator[Action]:
    """Yield what is done to metrics journals, or to media journals."""
    for name in sorted(history.foreign):
        case.removed.add(name)
        text = "a journal of another run: put it aside"
        yield Action("set-aside", name, case.why(name), text)
    for name, size in sorted(history.torn.items()):
        if size and not (case.known.packed and name in case.known.entries):
            text = f"cut {size:,} bytes that hold no committed line"
            yield Action("cut-tail", name, case.why(name) or _TAIL, text, lost={"bytes": size})
    for target in history.targets:
        yield from _about_journal(case, target)
    yield from _about_restored(history)


def _about_journal(case: Case, target: Target) -> Iterator[Action]:
    """Yield what is done to one journal."""
    found, why = target.found, case.why(target.name)
    lossy = bool(target.lost) or target.lost_from is not None
    if found is None and (target.entry is not None or target.need):
        yield Action("restore-journal", target.name, why, "make it again from tables and events")
    elif found is None:
        text = "it is gone; begin it anew, with a header that says so"
        yield Action("restore-journal", target.name, why, text, lossy=True)
    elif found.tail:
        text = f"cut {found.tail:,} bytes that are no committed line"
        yield Action("cut-tail", target.name, why or _TAIL, text, lost={"bytes": found.tail})
    if found is not None and found.dropped_lines:
        lines = found.dropped_lines
        size = found.dropped_bytes - sum(map(len, found.strays.values()))
        text = f"drop {_count(lines, 'line')} that {'is' if lines == 1 else 'are'} no good record"
        if found.strays:
            text += f", and put {_count(len(found.strays), 'record')} into its place"
        yield Action(
            *("drop-lines", target.name, why, text),
            kept={"lines": found.lines},
            lost={"lines": lines - len(found.strays), "bytes": size},
            lossy=bool(found.differing),
            places=tuple(found.places),
        )
    if target.document is not None and found is not None and _is_new_header(target):
        yield Action("mend-header", target.name, why, *_header_text(target))
    if lossy or target.partial or target.damaged:
        text, lost = _loss_text(target)
        yield Action("state-losses", target.name, why, text, lost=lost, lossy=True)


def _is_new_header(target: Target) -> bool:
    """Tell whether more changes in a header than what it states as lost."""
    old = {} if target.header is None else dict(target.header.document)
    new = dict(target.document or {})
    old.pop("repaired", None)
    new.pop("repaired", None)
    return old != new


def _header_text(target: Target) -> tuple[str, dict[str, int], dict[str, int], bool]:
    """Return text, kept, lost and lossy of a mended header."""
    text = "write its header anew"
    if not target.assumed:
        return text, {}, {}, False
    text += f"; nobody knows {', '.join(target.assumed)} any more"
    return text, {}, {"members": len(target.assumed)}, True


def _loss_text(target: Target) -> tuple[str, dict[str, int]]:
    """Return what is lost of a journal, in words and in numbers."""
    parts, lost = [], {}
    if target.lost:
        lost["records"] = ranges.count(target.lost)
        parts.append(f"seq {_show(target.lost)} ({_count(lost['records'], 'record')})")
    if target.lost_from is not None:
        parts.append(f"whatever came from seq {target.lost_from} on")
    if target.partial:
        parts.append(f"values of seq {_show(target.partial)}")
    if target.damaged:
        lost["files"] = len(target.damaged)
        names = ", ".join(target.damaged[:5])
        parts.append(names + (" …" if len(target.damaged) > 5 else ""))  # noqa: PLR2004
    return f"state as lost: {'; '.join(parts)}", lost


def _show(found: list[ranges.Range]) -> str:
    """Return ranges in a few words."""
    most = 5
    texts = [f"{low}" if low == high else f"{low} to {high}" for low, high in found[:most]]
    return ", ".join(texts) + (f" and {len(found) - most:,} more" if len(found) > most else "")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _about_restored(history: History) -> Iterator[Action]:
    """Yield what comes back from elsewhere."""
    for (attempt, rank), kept in sorted(history.restored.items()):
        text = f"attempt {attempt}, rank {rank}: take back from tables and events what they hold"
        yield Action("restore-records", "", ("BB-SEA-008",), text, kept=dict(kept))
    for target in history.targets:
        copies = ranges.count(target.need) - sum(history.restored.get(target.session, {}).values())
        if target.need and target.session not in history.restored and copies:
            text = f"take back {_count(copies, 'record')} from where there is a copy"
            yield Action("restore-records", target.name, ("BB-MRG-007",), text)


def _damaged_files(case: Case, target: Target) -> list[str]:
    """Return the files of media records that are missing or damaged, and not stated so yet."""
    if target.found is None:
        return []
    stated = target.stated.get("damaged", [])
    found: set[str] = set()
    seen: set[str] = set()
    for line in good_lines(case.directory, target.found.journal, case.limits, "media"):
        media = line.document.get("media", {})
        name = media.get("file")
        if name is None or name in seen:
            continue
        seen.add(name)
        size, sha = find_digest(case.directory, name) or (None, None)
        if size != media["bytes"] or media.get("sha256", sha) != sha:
            found.add(name)
    return sorted(found.difference(stated if isinstance(stated, list) else []))


# -- other files


def _about_config(case: Case) -> Iterator[Action]:
    """Yield what is done to the configuration."""
    why = {each.rule for each in case.errors if each.file == CONFIG}
    if case.is_as_sealed(CONFIG):
        why.discard("BB-INT-009")
    if why and CONFIG in case.directory.names():
        case.removed.add(CONFIG)
        text = "put it aside: a damaged configuration cannot be mended"
        yield Action("set-aside", CONFIG, tuple(sorted(why)), text, {}, {"files": 1}, lossy=True)


def _about_entries(case: Case) -> Iterator[Action]:
    """Yield what is done to links and special files."""
    for name, mode in entries_below(case.directory):
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            continue
        case.removed.add(name)
        target = os.readlink(case.path / name) if stat.S_ISLNK(mode) else ""
        case.links[name] = target
        text = "remove a symbolic link" if target else "remove a special file"
        yield Action("remove-entry", name, ("BB-LAY-009",), text, {}, {"files": 1}, lossy=True)


# -- manifest and seal


def _about_seal(case: Case) -> Iterator[str]:
    """Yield what the findings call for in a sealed run."""
    groups = case.manifest.get("groups", {}).values()
    derived = {entry[kind] for entry in groups for kind in ("table", "dataset") if kind in entry}
    if not derived:
        derived = {name for name in case.sums if name.endswith((".parquet", ".h5"))}
    journals = {target.name for target in case.targets}
    own = {*journals, *case.removed}
    if not case.sealed:
        return
    if case.metrics is not None and case.known.packed:
        case.actions.append(
            Action("unpack", "", case.why(MANIFEST, *derived), "make its journals again")
        )
        yield "seal"
    if "sealed" not in case.manifest:
        yield "seal"
    yield from (_call(case, problem, derived, own, journals) for problem in case.errors)
    case.actions += [
        _note(case, problem)
        for problem in case.errors
        if problem.rule == "BB-INT-009"
        and problem.file not in derived | own | {SUMS}
        and (case.raw or problem.file != MANIFEST)
        and not any(problem.file in target.damaged for target in case.targets)
        and not case.is_as_sealed(problem.file)
    ]


def _call(
    case: Case, problem: Problem, derived: set[str], own: set[str], journals: set[str]
) -> str:
    """Return what a finding calls for.

    Args:
        case: The run.
        problem: The finding.
        derived: Tables and datasets.
        own: Files that are mended or put aside.
        journals: Journals of any kind.
    """
    if problem.file == SUMS or (problem.file, problem.rule) == (MANIFEST, "BB-INT-009"):
        return "sums"
    if problem.rule == "BB-INT-009" and case.is_as_sealed(problem.file):
        return "sums" if case.is_as_large_as_sealed(problem.file) else "list"
    if problem.file in derived | journals | {MANIFEST, ""} or problem.rule == "BB-SEA-006":
        return "seal"
    return "list" if problem.file in own or problem.rule == "BB-INT-009" else "none"


def _note(case: Case, problem: Problem) -> Action:
    """Return what is said of a file that is not what was sealed, and cannot be mended."""
    if problem.file == MANIFEST:
        text = "it is not what was sealed: what only it holds is taken as it stands"
        return Action("note", MANIFEST, (problem.rule,), text, lossy=True)
    text = "it is not what was sealed, and there is no other copy: list it as it is"
    if not os.path.lexists(case.path / problem.file):
        text = "it is gone, and there is no other copy: list it no more"
    return Action("note", problem.file, (problem.rule,), text, lost={"files": 1}, lossy=True)


_OF_JOURNALS: Final = frozenset(["BB-MAN-006", "BB-MAN-013"])
"""Rules by which a manifest is what its journals say, as a sealer makes it."""


def _about_manifest(case: Case, mode: str) -> Iterator[Action]:
    """Yield what is done to the manifest, the tables and the checksums."""
    lost = _lost_members(case)
    stale = [
        problem
        for problem in case.report.problems
        if problem.file == MANIFEST
        and (problem.severity == "error" or problem.rule in {"BB-MAN-013", "BB-MAN-014"})
        and re.match("BB-(MAN|LAY|LIM)", problem.rule)
        and not (mode == "seal" and problem.rule in _OF_JOURNALS)
    ]
    unsettled = case.manifest["status"] == "running"
    if lost or stale or unsettled or not case.raw:
        text = "rebuild it from the journals" if not case.raw else "bring it up to date"
        if lost:
            text += f"; lost: {', '.join(lost)}"
        elif unsettled and case.raw:
            text = "write down how the run ended"
        why = tuple(sorted({problem.rule for problem in stale})) or ("BB-MAN-013",)
        number = {"members": len(lost)} if lost else {}
        yield Action("mend-manifest", MANIFEST, why, text, {}, number, lossy=bool(lost))
    if mode == "seal":
        names = [table.name for table in case.known.tables]
        why = case.why(*names, SUMS, MANIFEST, rules="BB-(TAB|DAT|SEA|INT)")
        yield Action("seal", "", why, "make tables, datasets and checksums again")
    elif mode in {"sums", "list"}:
        why = case.why(SUMS, MANIFEST)
        yield Action("sums", SUMS, why, "list the files and their checksums again")


def _lost_members(case: Case) -> list[str]:
    """Return the members of the manifest that only it held and that are gone."""
    if not case.raw:
        return [key for key in _UNPROVED if key != "tags" or not case.manifest["tags"]]
    lost = {key for key in ("tags", "environment") if key not in case.raw}
    lost |= case.deep.difference(manifests.SEALED)
    for error in schema.validator("manifest").iter_errors(case.raw):
        key = str(error.absolute_path[0]) if error.absolute_path else ""
        if key in _UNPROVED:
            lost.add(key)
    return sorted(lost)
