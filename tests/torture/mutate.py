"""Ways to damage a run: each takes the files of a run and returns those that it changed.

All of them draw from the generator that they are given and from nothing else, so that the number of
a mutant says which one it is.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping

Files = dict[str, bytes | None]
"""Bytes by path within the run; None for a file that is gone."""

_TEXT = (".json", ".jsonl", "SHA256SUMS")
_TOKENS = (
    *(b"null", b"true", b"false", b"0", b"-1", b"0.5", b"1e999", b"9223372036854775808"),
    *(b'"NaN"', b'""', b"{}", b"[]", b'"running"', b'"completed"', b'"2.0"', b'"1.1"'),
)
_BYTES = b"\x00\x0a\x0d\x20\x22\x2c\x2d\x2e\x30\x5b\x5c\x5d\x65\x7b\x7d\x7f\x80\xff"


def mutate(rng: random.Random, files: Mapping[str, bytes]) -> tuple[list[str], Files]:
    """Return what was done, and the files that differ now; one to three things are done."""
    changed: Files = {}
    told: list[str] = []
    for _ in range(rng.choice((1, 1, 1, 1, 2, 3))):
        current = {
            name: data
            for name in files | changed
            if (data := changed.get(name, files.get(name))) is not None
        }
        if not current:
            break
        name, operation = rng.choice(OPERATIONS)
        target = _pick(rng, sorted(current))
        more = operation(rng, target, current)
        changed |= more
        told.append(f"{name} {', '.join(more) or target}")
    return told, {name: data for name, data in changed.items() if data != files.get(name)}


def vouch(files: Mapping[str, bytes], changed: Files) -> Files:
    """Return changes with sizes and digests that fit them, as whoever made them could add."""
    now = {name: data for name in files | changed if (data := _of(name, files, changed))}
    try:
        manifest: Any = json.loads(now.get("run.json", b""))
        listed = manifest["files"].items()
        for name, entry in listed:
            if name in now:
                entry["bytes"] = len(now[name])
                if "sha256" in entry:
                    entry["sha256"] = hashlib.sha256(now[name]).hexdigest()
        now["run.json"] = json.dumps(manifest, indent=2).encode() + b"\n"
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return changed
    now.pop("SHA256SUMS", None)
    sums = [f"{hashlib.sha256(now[name]).hexdigest()}  {name}\n" for name in sorted(now)]
    return changed | {"run.json": now["run.json"], "SHA256SUMS": "".join(sums).encode()}


def _of(name: str, files: Mapping[str, bytes], changed: Files) -> bytes | None:
    return changed[name] if name in changed else files[name]


def _pick(rng: random.Random, names: list[str]) -> str:
    """Return a file; those that the others are made from are more likely."""
    text = [name for name in names if name.endswith(_TEXT)]
    return rng.choice(text) if text and rng.random() < 0.4 else rng.choice(names)


def _range(rng: random.Random, data: bytes) -> tuple[int, int]:
    """Return begin and end of a part of a file, mostly a short one."""
    begin = rng.randrange(len(data) + 1)
    return begin, min(len(data), begin + rng.choice((1, 2, 4, 8, 17, 64, 512, 4096)))


# -- bytes


def _flip(rng: random.Random, name: str, files: Mapping[str, bytes]) -> Files:
    data = bytearray(files[name])
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return {name: bytes(data)}


def _set(rng: random.Random, name: str, files: Mapping[str, bytes]) -> Files:
    data = bytearray(files[name])
    if data:
        data[rng.randrange(len(data))] = rng.choice(_BYTES)
    return {name: bytes(data)}


def _digit(rng: random.Random, name: str, files: Mapping[str, bytes]) -> Files:
    data = bytearray(files[name])
    places = [at for at, byte in enumerate(data) if 0x30 <= byte <= 0x39]
    if places:
        data[rng.choice(places)] = rng.choice(b"0123456789")
    return {name: bytes(data)}


def _token(rng: random.Random, name: str, files: Mapping[str, bytes]) -> Files:
    data = files[name]
    begins = [at + 1 for at, byte in enumerate(data) if byte in b":[,"]
    if not begins:
        return {name: data}
    begin = rng.choice(begins)
    ends = [at for at in range(begin, min(len(data), begin + 200)) if data[at] in b",}]"]
    return {name: data[:begin] + rng.choice(_TOKENS) + data[ends[0] if ends else begin :]}


def _truncate(rng: random.Random, name: str, files: Mapping[str, bytes]) -> Files:
    data = files[name]
    return {name: data[: rng.randrange(len(data) + 1)]}


def _zero(rng: random.Random, name: str, files: Mapping[str, bytes]) -> Files:
    data = files[name]
    begin, end = _range(rng, data)
    return {name: data[:begin] + bytes(end - begin) + data[end:]}


def _delete(rng: random.Random, name: str, files: Mapping[str, bytes]) -> Files:
    data = files[name]
    begin, end = _range(rng, data)
    return {name: data[:begin] + data[end:]}


def _insert(rng: random.Random, name: str, files: Mapping[str, bytes]) -> Files:
    data = files[name]
    at = rng.randrange(len(data) + 1)
    return {name: data[:at] + rng.randbytes(rng.choice((1, 4, 18, 100))) + data[at:]}


def _copy(rng: random.Random, name: str, files: Mapping[str, bytes]) -> Files:
    data = files[name]
    begin, end = _range(rng, data)
    at = rng.randrange(len(data) + 1)
    return {name: data[:at] + data[begin:end] + data[at + end - begin :]}


def _swap_blocks(rng: random.Random, name: str, files: Mapping[str, bytes]) -> Files:
    data = files[name]
    size = rng.choice((1, 4, 8, 16, 64, 512))
    places = sorted(rng.randrange(max(1, len(data) - size)) for _ in range(2))
    first, second = places
    if second - first < size:
        return {name: data}
    left, right = data[first : first + size], data[second : second + size]
    return {name: data[:first] + right + data[first + size : second] + left + data[second + size :]}


# -- lines


def _lines(change: Callable[[random.Random, list[bytes]], None]) -> Operation:
    def operation(rng: random.Random, name: str, files: Mapping[str, bytes]) -> Files:
        lines = files[name].splitlines(keepends=True)
        if lines:
            change(rng, lines)
        return {name: b"".join(lines)}

    return operation


def _swap_lines(rng: random.Random, lines: list[bytes]) -> None:
    first, second = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[first], lines[second] = lines[second], lines[first]


def _drop_lines(rng: random.Random, lines: list[bytes]) -> None:
    at = rng.randrange(len(lines))
    del lines[at : at + rng.choice((1, 1, 2, 5))]


def _drop_last_lines(rng: random.Random, lines: list[bytes]) -> None:
    del lines[-rng.choice((1, 1, 2, 5)) :]


def _double_line(rng: random.Random, lines: list[bytes]) -> None:
    lines.insert(rng.randrange(len(lines) + 1), rng.choice(lines))


def _shuffle_lines(rng: random.Random, lines: list[bytes]) -> None:
    rng.shuffle(lines)


# -- files


def _drop_file(rng: random.Random, name: str, files: Mapping[str, bytes]) -> Files:
    return {name: None}


def _empty_file(rng: random.Random, name: str, files: Mapping[str, bytes]) -> Files:
    return {name: b""}


def _swap_files(rng: random.Random, name: str, files: Mapping[str, bytes]) -> Files:
    other = rng.choice(sorted(files))
    return {name: files[other], other: files[name]}


def _rename_file(rng: random.Random, name: str, files: Mapping[str, bytes]) -> Files:
    names = ("run.json", "metrics.jsonl", "metrics.1.jsonl", "metrics.r1.jsonl", "train.parquet")
    return {name: None, rng.choice(names): files[name]}


def _add_file(rng: random.Random, name: str, files: Mapping[str, bytes]) -> Files:
    names = ("metrics.9.jsonl", "metrics.r9.jsonl", "media.9.jsonl", "x.parquet", "config.json")
    return {rng.choice(names): rng.choice((b"", b"\n", b"{}\n", files[name], rng.randbytes(64)))}


OPERATIONS: tuple[tuple[str, Operation], ...] = (
    ("flip", _flip),
    ("flip", _flip),
    ("set", _set),
    ("digit", _digit),
    ("digit", _digit),
    ("token", _token),
    ("truncate", _truncate),
    ("zero", _zero),
    ("delete", _delete),
    ("insert", _insert),
    ("copy", _copy),
    ("swap-blocks", _swap_blocks),
    ("swap-lines", _lines(_swap_lines)),
    ("drop-lines", _lines(_drop_lines)),
    ("drop-last-lines", _lines(_drop_last_lines)),
    ("double-line", _lines(_double_line)),
    ("shuffle-lines", _lines(_shuffle_lines)),
    ("drop-file", _drop_file),
    ("empty-file", _empty_file),
    ("swap-files", _swap_files),
    ("rename-file", _rename_file),
    ("add-file", _add_file),
)

if TYPE_CHECKING:
    Operation = Callable[[random.Random, str, Mapping[str, bytes]], Files]
