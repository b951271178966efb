"""Builds the overlays of the corpus from the bases: `python -m tests.corpus.build [GLOB]`.

An overlay is what differs between a base and its copy after the mutation. A large file that is
mostly repetition is described in parts instead of kept.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from blackboxml.conformance.case import Case, load
from tests.corpus import binary, mutations
from tests.corpus.bases import FIXTURES

LARGE: Final = 2**16
_RUN: Final = re.compile(rb"(.)\1{255,}", re.DOTALL)
_WIDTH: Final = 110


def mutate(case: Case, place: Path) -> None:
    """Make the run of a case from its base and its mutation."""
    shutil.copytree(case.base, place)
    mutations.apply(place, case.document["mutation"])


def overlay(case: Case, run: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return the overlay that makes a run from the base of a case, and the files that it keeps."""
    before, after = _files(case.base), _files(run)
    kept: dict[str, bytes] = {}
    generated = []
    for name, data in after.items():
        if before.get(name) == data:
            continue
        parts = _parts(name, before.get(name, b""), data) if len(data) > LARGE else None
        if parts is None:
            kept[name] = data
            continue
        sha256 = hashlib.sha256(data).hexdigest()
        generated.append({"path": name, "parts": parts, "bytes": len(data), "sha256": sha256})
    created = _created(case.document["mutation"])
    gone = before.keys() - after.keys()
    replaced = {name for name in created if (case.base / name).exists()}
    within = tuple(f"{name}/" for name in replaced)
    removed = sorted({name for name in gone if not name.startswith(within)} | replaced)
    made = {
        "remove": removed,
        "write": sorted(kept),
        "generate": generated,
        "create": list(created.values()),
    }
    return {member: value for member, value in made.items() if value}, kept


def _created(op: dict[str, Any]) -> dict[str, Any]:
    """Return what a mutation makes that is no file."""
    steps = op["steps"] if op["op"] == "steps" else [op]
    members = ("path", "type", "target")
    return {
        step["path"]: {key: step[key] for key in members if key in step}
        for step in steps
        if step["op"] == "create"
    }


def _files(run: Path) -> dict[str, bytes]:
    """Return the content of every file by path."""
    return {
        file.relative_to(run).as_posix(): file.read_bytes()
        for file in sorted(run.rglob("*"))
        if file.is_file()
    }


def _parts(name: str, before: bytes, data: bytes) -> list[dict[str, Any]] | None:
    """Return a file as parts of its base and repetitions; None if that is not shorter."""
    start = _common(before, data)
    end = _common(before[start:][::-1], data[start:][::-1])
    middle = data[start : len(data) - end]
    parts = [{"from": name, "start": 0, "end": start}] if start else []
    at = 0
    for run in _RUN.finditer(middle):
        parts += _piece(middle[at : run.start()], 1) + _piece(run[1], len(run[0]))
        at = run.end()
    parts += _piece(middle[at:], 1)
    if end:
        parts.append({"from": name, "start": len(before) - end, "end": len(before)})
    return parts if len(json.dumps(parts)) < LARGE else None


def _common(left: bytes, right: bytes) -> int:
    """Return how many bytes two strings share at their beginning."""
    pairs = zip(left, right, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))


def _piece(unit: bytes, repeat: int) -> list[dict[str, Any]]:
    """Return a part: text where it is some."""
    if not unit:
        return []
    try:
        part: dict[str, Any] = {"text": unit.decode("ascii")}
    except UnicodeDecodeError:
        part = {"hex": unit.hex()}
    return [part | {"repeat": repeat} if repeat > 1 else part]


def versions(op: dict[str, Any]) -> dict[str, str]:
    """Return the versions that the bytes of a mutation depend on."""
    steps = op["steps"] if op["op"] == "steps" else [op]
    found: dict[str, str] = {}
    for step in steps:
        found |= binary.VERSIONS.get(step["op"], {})
    return found


def holds_time(op: dict[str, Any]) -> bool:
    """Tell whether the result of a mutation holds the time at which it was made, as HDF5 notes."""
    return any(edit["edit"] in binary.TIMED for edit in op.get("edits", ()) if "edit" in edit)


def build(case: Case) -> None:
    """Write the overlay of a case, and the files that it keeps."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        mutate(case, run)
        made, kept = overlay(case, run)
    shutil.rmtree(case.files, ignore_errors=True)
    for name, data in kept.items():
        place = case.files / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    document = {**case.document, "overlay": made}
    found = versions(document["mutation"])
    document.pop("versions", None)
    if found:
        document["versions"] = found
    order = ("title", "rule", "also", "base", "mutation", "versions", "overlay", "needs", "expect")
    ordered = {key: document[key] for key in order if key in document}
    (case.files.parent / "case.json").write_text(dump(ordered) + "\n", "utf-8")


def dump(value: Any, indent: str = "") -> str:
    """Return JSON for people: what fits on a line stands on one."""
    flat = json.dumps(value, ensure_ascii=False)
    if len(indent) + len(flat) <= _WIDTH or not isinstance(value, (dict, list)) or not value:
        return flat
    inner = indent + "  "
    if isinstance(value, list):
        if all(not isinstance(each, (dict, list)) for each in value):
            return flat
        items = [inner + dump(each, inner) for each in value]
        return "[\n" + ",\n".join(items) + f"\n{indent}]"
    members = [
        f"{inner}{json.dumps(key, ensure_ascii=False)}: {dump(each, inner)}"
        for key, each in value.items()
    ]
    return "{\n" + ",\n".join(members) + f"\n{indent}}}"


def main(pattern: str = "*") -> None:
    """Build the cases whose name fits a pattern."""
    for case in load(FIXTURES):
        if fnmatch.fnmatchcase(case.name, pattern):
            build(case)


if __name__ == "__main__":
    main(*sys.argv[1:])
