"""The recorded operations that make a case from a base; each is one JSON object of a `case.json`.

Every operation changes a copy of the base in place. `vouch` makes recorded sizes and digests right
again, where the case is not about them: `sums` those of `SHA256SUMS`, `files` those of the manifest
too. Operations on Parquet and HDF5 stand in `binary`.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

from blackboxml import manifest as manifests
from blackboxml.journal import encode
from tests.corpus import binary

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Op = dict[str, Any]

_SUFFIX: Final = re.compile(rb',"crc":"[0-9a-f]{8}"\}\n')
_SUFFIX_BYTES: Final = 19


def apply(run: Path, op: Op) -> None:
    """Change a copy of a base by one operation."""
    _OPERATIONS[op["op"]](run, op)
    if "vouch" in op:
        _vouch(run, op["vouch"])


# -- bytes


def _content(op: Op) -> bytes:
    """Return the bytes that an operation brings: `text` or `hex`, `repeat` times."""
    unit = bytes.fromhex(op["hex"]) if "hex" in op else op["text"].encode()
    return unit * op.get("repeat", 1)


def _write(run: Path, op: Op) -> None:
    place = run / op["file"]
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(_content(op))


def _append(run: Path, op: Op) -> None:
    place = run / op["file"]
    place.write_bytes(place.read_bytes() + _content(op))


def _truncate(run: Path, op: Op) -> None:
    """Keep the first `size` bytes, or all but the last ones if it is negative."""
    place = run / op["file"]
    place.write_bytes(place.read_bytes()[: op["size"]])


def _splice(run: Path, op: Op) -> None:
    """Put bytes in place of `delete` bytes at an offset, which counts from the end if negative."""
    place = run / op["file"]
    data = place.read_bytes()
    at = op["at"] % len(data)
    place.write_bytes(data[:at] + _content(op) + data[at + op.get("delete", 0) :])


def _flip(run: Path, op: Op) -> None:
    """Flip one bit of the byte at an offset."""
    place = run / op["file"]
    data = bytearray(place.read_bytes())
    data[op["at"]] ^= 1 << op.get("bit", 0)
    place.write_bytes(data)


def _replace(run: Path, op: Op) -> None:
    """Put one text in place of another, which stands there once, or `count` times."""
    place = run / op["file"]
    data = place.read_bytes()
    old = op["old"].encode()
    new = bytes.fromhex(op["new_hex"]) if "new_hex" in op else op["new"].encode()
    assert data.count(old) == op.get("count", 1), (op, data.count(old))
    place.write_bytes(data.replace(old, new * op.get("repeat", 1)))


# -- entries


def _remove(run: Path, op: Op) -> None:
    for name in op["paths"]:
        place = run / name
        shutil.rmtree(place) if place.is_dir() else place.unlink()


def _move(run: Path, op: Op) -> None:
    (run / op["to"]).parent.mkdir(parents=True, exist_ok=True)
    (run / op["from"]).rename(run / op["to"])


def _copy(run: Path, op: Op) -> None:
    (run / op["to"]).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(run / op["from"], run / op["to"])


def _create(run: Path, op: Op) -> None:
    """Only the overlay makes links and pipes: a copy of a file can be made anywhere."""


# -- documents


def _json(run: Path, op: Op) -> None:
    """Edit a JSON document; it is spelled as a writer spells it."""
    place = run / op["file"]
    document = json.loads(place.read_bytes())
    for edit in op["edits"]:
        document = _edit(document, edit)
    encode_document = manifests.encode if op["file"] == "run.json" else manifests.dump
    place.write_bytes(encode_document(document))


def _edit(document: Any, edit: Op) -> Any:
    """Set, remove or rename what a JSON pointer points to."""
    if edit["pointer"] == "":
        return edit["value"]
    *parents, last = (
        part.replace("~1", "/").replace("~0", "~") for part in edit["pointer"].split("/")[1:]
    )
    holder = document
    for part in parents:
        holder = holder[int(part)] if isinstance(holder, list) else holder[part]
    if isinstance(holder, list):
        _edit_list(holder, last, edit)
    elif "rename" in edit:
        members = [(edit["rename"] if key == last else key, each) for key, each in holder.items()]
        holder.clear()
        holder.update(members)
    elif "value" in edit:
        holder[last] = edit["value"]
    else:
        del holder[last]
    return document


def _edit_list(items: list[Any], at: str, edit: Op) -> None:
    """Set, append, insert or remove an item."""
    if at == "-":
        items.append(edit["value"])
    elif "insert" in edit:
        items.insert(int(at), edit["insert"])
    elif "value" in edit:
        items[int(at)] = edit["value"]
    else:
        del items[int(at)]


# -- journals


def _lines(run: Path, op: Op) -> None:
    """Edit the lines of a journal, counted from 1; their checksums are made right."""
    place = run / op["file"]
    data = place.read_bytes()
    *lines, tail = data.split(b"\n")
    found = [line + b"\n" for line in lines]
    for edit in op["edits"]:
        _LINE_EDITS[edit["edit"]](found, edit)
    place.write_bytes(b"".join(found) + tail)


def _set_members(lines: list[bytes], edit: Op) -> None:
    """Edit the document of a line by JSON pointers."""
    at = edit["line"] - 1
    document = json.loads(lines[at])
    del document["crc"]
    for each in edit["edits"]:
        document = _edit(document, each)
    lines[at] = encode(document)


def _replace_text(lines: list[bytes], edit: Op) -> None:
    """Put one text in place of another in the head of a line."""
    at = edit["line"] - 1
    assert _SUFFIX.fullmatch(lines[at][-_SUFFIX_BYTES:])
    head = lines[at][:-_SUFFIX_BYTES]
    old = edit["old"].encode()
    new = bytes.fromhex(edit["new_hex"]) if "new_hex" in edit else edit["new"].encode()
    assert head.count(old) == 1, edit
    lines[at] = _line(head.replace(old, new * edit.get("repeat", 1)))


def _pad(lines: list[bytes], edit: Op) -> None:
    """Bring a line to a length, its LF counted, by a member `pad` of its own."""
    at = edit["line"] - 1
    head = lines[at][:-_SUFFIX_BYTES] + b',"pad":"'
    lack = edit["length"] - len(head) - 1 - _SUFFIX_BYTES
    lines[at] = _line(head + b"x" * lack + b'"')
    assert len(lines[at]) == edit["length"]


def _insert(lines: list[bytes], edit: Op) -> None:
    """Put a line before another: a document, or a text for a head."""
    made = encode(edit["document"]) if "document" in edit else _line(edit["head"].encode())
    lines.insert(edit["line"] - 1, made)


def _insert_many(lines: list[bytes], edit: Op) -> None:
    """Put a record with `count` metrics before a line."""
    metrics = {f"{edit['prefix']}{number}": number for number in range(edit["count"])}
    lines.insert(edit["line"] - 1, encode(edit["document"] | {"metrics": metrics}))


def _delete(lines: list[bytes], edit: Op) -> None:
    del lines[edit["line"] - 1]


def _swap(lines: list[bytes], edit: Op) -> None:
    left, right = edit["line"] - 1, edit["with"] - 1
    lines[left], lines[right] = lines[right], lines[left]


def _duplicate(lines: list[bytes], edit: Op) -> None:
    lines.insert(edit["line"], lines[edit["line"] - 1])


def _line(head: bytes) -> bytes:
    """Return a head as a line."""
    return head + b',"crc":"%08x"}\n' % crc32(head)


_LINE_EDITS: Final[dict[str, Callable[[list[bytes], Op], None]]] = {
    "set": _set_members,
    "replace": _replace_text,
    "pad": _pad,
    "insert": _insert,
    "insert-many": _insert_many,
    "delete": _delete,
    "swap": _swap,
    "duplicate": _duplicate,
}


# -- several


def _steps(run: Path, op: Op) -> None:
    """One change that needs several steps, as of a file and of what the manifest says of it."""
    for step in op["steps"]:
        apply(run, step)


def _nothing(run: Path, op: Op) -> None:
    """Leave the base as it is."""


# -- vouching


def _vouch(run: Path, what: str) -> None:
    """Make sizes and digests right, as a sealer would that sees the run as it is now."""
    if what == "files":
        document = json.loads((run / "run.json").read_bytes())
        for name, entry in document["files"].items():
            if (run / name).is_file():
                data = (run / name).read_bytes()
                entry["bytes"] = len(data)
                if "sha256" in entry:
                    entry["sha256"] = hashlib.sha256(data).hexdigest()
        (run / "run.json").write_bytes(manifests.encode(document))
    names = sorted(
        str(file.relative_to(run))
        for file in run.rglob("*")
        if file.is_file() and file.name != "SHA256SUMS"
    )
    lines = [f"{hashlib.sha256((run / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (run / "SHA256SUMS").write_text("".join(lines))


_OPERATIONS: Final[dict[str, Callable[[Path, Op], None]]] = {
    "none": _nothing,
    "steps": _steps,
    "write": _write,
    "append": _append,
    "truncate": _truncate,
    "splice": _splice,
    "flip": _flip,
    "replace": _replace,
    "remove": _remove,
    "move": _move,
    "copy": _copy,
    "create": _create,
    "json": _json,
    "lines": _lines,
    "parquet": binary.parquet,
    "hdf5": binary.hdf5,
    "repack": binary.repack,
}
