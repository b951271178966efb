"""A journal line: encode, decode, torn tails.

A line is `head,"crc":"xxxxxxxx"}` and LF, where the checksum covers the bytes of the head. The
checksum finds damage, `seq` finds loss, and the LF commits: bytes after the last LF are a torn
tail. Damage elsewhere costs the damaged lines and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from blackboxml.base.checksum import crc32
from blackboxml.base.scalar import NON_FINITE
from blackboxml.errors import JournalError, MetricError, UnsupportedVersionError
from blackboxml.model import (
    FEATURES,
    INT64_MAX,
    INT64_MIN,
    JOURNAL_FORMAT,
    STATISTICS,
    VERSION,
    Header,
    Limits,
    Number,
    Record,
)
from blackboxml.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LINE: Final = b'%b,"crc":"%08x"}\n'
"""Template of a line: the head, and the CRC-32 of the head."""

SUFFIX_BYTES: Final = 18
"""Length of `,"crc":"xxxxxxxx"}`."""

_KEY = b',"crc":"'
_BLOCK_BYTES = 4 * 2**20
_TAIL_BYTES = 2**16
_FLOAT_INT64 = float(2**63)
_INT32_MAX = 2**31 - 1
_DIGITS = re.compile(rb"[0-9a-f]{8}")
_RUN_ID = re.compile(r"[0-9a-f]{32}")
_RUN_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f]{1,1024}")
# orjson reads an integer beyond 64 bits as a float; such a line goes through the json module.
_LONG_INTEGER = re.compile(rb"[:,\[]\s*-?[0-9]{19,}\s*[,}\]]")


def count_off(low: int, high: int, what: str) -> str:
    """Return a sentence about a range of records.

    >>> count_off(1, 1, "missing"), count_off(1, 3, "in no journal")
    ('record 1 is missing', 'records 1 to 3 are in no journal')
    """
    return f"record {low} is {what}" if low == high else f"records {low} to {high} are {what}"


def encode(document: dict[str, Any]) -> bytes:
    """Return a document as a journal line with its checksum and LF.

    Raises:
        MetricError: If a string is not valid Unicode or a value is no JSON value.
    """
    try:
        head = orjson.dumps(document)[:-1]
    except TypeError as error:
        message = f"cannot be written as JSON: {error}"
        raise MetricError(message) from None
    return LINE % (head, crc32(head))


def decode(line: bytes) -> dict[str, Any]:
    """Return the document of a line, checked against its checksum.

    Args:
        line: The line without its LF.

    Raises:
        JournalError: If the line is damaged, is no JSON object, or repeats a key.
    """
    head = line[:-SUFFIX_BYTES]
    if line[-SUFFIX_BYTES:-10] != _KEY or line[-2:] != b'"}':
        message = "the line does not end in a checksum"
        raise JournalError(message, "BB-JNL-003")
    if b"%08x" % crc32(head) != line[-10:-2]:
        if not _DIGITS.fullmatch(line[-10:-2]):
            message = f"the checksum is {line[-10:-2]!r}, wanted eight digits of 0-9 and a-f"
            raise JournalError(message, "BB-JNL-003")
        message = f"the checksum is {line[-10:-2]!r}, the bytes give {crc32(head):08x}"
        raise JournalError(message, "BB-JNL-004")
    return parse(line)


def parse(line: bytes) -> dict[str, Any]:
    """Return the object in a line whose checksum was checked already.

    Raises:
        JournalError: If it is no strict JSON object or repeats a key.
    """
    try:
        document = orjson.loads(line)
        # A repeated key leaves a colon over; the json module then tells which key it is.
        if not (_is_plain_point(document, line) or _is_spelled_so(document, line)) and (
            not isinstance(document, dict)
            or line.count(b":") != _colons(document)
            or b"\\u003" in line  # an escaped colon would make up for a repeated key
            or _LONG_INTEGER.search(line)
        ):
            document = json.loads(line, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (RecursionError, ValueError) as error:
        raise _describe(line, error) from None
    if not isinstance(document, dict):
        message = f"the line holds {type(document).__name__}, wanted an object"
        raise JournalError(message, "BB-JNL-001")
    return document


def new_header(
    run: Mapping[str, Any],
    session: tuple[int, int],
    first_seq: int,
    time: float,
    process: Mapping[str, Any],
    *,
    name: str = JOURNAL_FORMAT,
) -> dict[str, Any]:
    """Return the header of a journal that begins now.

    Args:
        run: The manifest, or what is known of it: `id`, `name`, perhaps `tags`.
        session: Attempt and rank.
        first_seq: `seq` of its first record.
        time: When it is opened, in Unix seconds.
        process: Who writes it.
        name: Name of the format, as for `read_header`.
    """
    attempt, rank = session
    return {
        "format": {"name": name, "version": VERSION, "features": []},
        "run": {key: run[key] for key in ("id", "name", "tags") if key in run},
        "rank": rank,
        "attempt": attempt,
        "first_seq": first_seq,
        "time": time,
        "process": process,
        "writer": {"name": "blackboxml", "version": __version__},
    }


def read_header(
    document: dict[str, Any], known: frozenset[str] = FEATURES, name: str = JOURNAL_FORMAT
) -> Header:
    """Return the header that a document states.

    Args:
        document: The first line of a journal.
        known: Features that the reader understands.
        name: Name of the format: of a metrics journal, or of a media journal.

    Raises:
        JournalError: If it is not a journal's header.
        UnsupportedVersionError: If it needs a newer reader.
    """
    try:
        check_format(document, name, known)
        run, process = document["run"], document.get("process")
        header = Header(
            run_id=run["id"],
            run_name=run["name"],
            rank=document["rank"],
            attempt=document["attempt"],
            first_seq=document["first_seq"],
            time=float(document["time"]),
            process=dict(process) if isinstance(process, dict) else {},
            document={key: value for key, value in document.items() if key != "crc"},
        )
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        if isinstance(error, UnsupportedVersionError):
            raise
        message = f"the first line is not the header of a journal: {error!r}"
        raise JournalError(message, "BB-JNL-005") from None
    limits = (("rank", _INT32_MAX), ("attempt", _INT32_MAX), ("first_seq", INT64_MAX))
    good = {
        "time": type(document["time"]) in {int, float} and math.isfinite(header.time),
        "id": isinstance(run["id"], str) and _RUN_ID.fullmatch(run["id"]),
        "name": isinstance(run["name"], str) and _RUN_NAME.fullmatch(run["name"]),
        **{key: _is_int(document[key]) and 0 <= document[key] <= most for key, most in limits},
    }
    if wrong := [key for key, is_good in good.items() if not is_good]:
        message = f"the first line is not the header of a journal: {', '.join(wrong)} is not valid"
        raise JournalError(message, "BB-JNL-005")
    return header


def check_format(document: dict[str, Any], name: str, known: frozenset[str] = FEATURES) -> None:
    """Check that a document is of this format and readable.

    Raises:
        ValueError: If it is another document.
        UnsupportedVersionError: If its major version or a feature of it is unknown.
    """
    found = document.get("format")
    if found == {"name": name, "version": VERSION, "features": []}:
        return  # nearly always, and known at once
    if not isinstance(found, dict) or found.get("name") != name:
        message = f'"format" is {found!r}, wanted the name {name!r}'
        raise ValueError(message)
    version = found.get("version")
    if not isinstance(version, str) or version.split(".")[0] != VERSION.split(".", maxsplit=1)[0]:
        message = (
            f"this is {name} version {version}; this library reads versions 1.x: "
            "upgrade it with `pip install -U blackboxml`"
        )
        raise UnsupportedVersionError(message)
    features = found.get("features", [])
    if unknown := [str(feature) for feature in features if feature not in known]:
        message = (
            f"this {name} needs the features {', '.join(sorted(unknown))}, unknown to this "
            "library: upgrade it with `pip install -U blackboxml`"
        )
        raise UnsupportedVersionError(message)


def read_record(document: dict[str, Any], rank: int, attempt: int, limits: Limits) -> Record:
    """Return a metrics record as plain numbers.

    Raises:
        JournalError: If a member is missing or of the wrong type; names the metric.
    """
    step = document.get("step")
    if step is None or not _is_int(step):
        message = f'"step" is {step!r}, wanted an integer of 64 bits'
        raise JournalError(message)
    metrics = document["metrics"]
    if not isinstance(metrics, dict):
        message = f'"metrics" is {metrics!r:.80}, wanted an object'
        raise JournalError(message)
    if len(metrics) > limits.metrics_per_record:
        message = (
            f'"metrics" has {len(metrics):,} members, {limits.metrics_per_record:,} are accepted'
        )
        raise JournalError(message, "BB-LIM-001")
    ranks = document.get("ranks", {})
    if not isinstance(ranks, dict):
        message = '"ranks" is not an object'
        raise JournalError(message)
    statistics: dict[str, dict[str, Number]] = {}
    for name, values in ranks.items():
        if not isinstance(values, dict) or not values:
            message = f'"ranks" of {name!r:.80} is {values!r:.80}, wanted an object of statistics'
            raise JournalError(message)
        statistics[name] = {key: _number(name, values[key]) for key in STATISTICS if key in values}
    return Record(
        seq=document["seq"],
        step=step,
        time=document["time"],
        rank=rank,
        attempt=attempt,
        metrics={
            name: value if type(value) is float else _number(name, value)
            for name, value in metrics.items()
        },
        ranks=statistics,
    )


def check_sequence(document: dict[str, Any]) -> tuple[int, float]:
    """Return `seq` and `time` of a record.

    Raises:
        JournalError: If one is missing or of the wrong type.
    """
    seq: Any = document.get("seq")
    time: Any = document.get("time")
    if not _is_int(seq) or seq < 0:
        message = f'"seq" is {seq!r}, wanted an integer from 0'
        whole = isinstance(seq, float) and seq.is_integer()
        raise JournalError(message, "BB-JNL-013" if whole else "BB-JNL-007")
    if isinstance(time, bool) or not isinstance(time, int | float):
        message = f'"time" is {time!r}, wanted Unix seconds'
        raise JournalError(message)
    try:
        seconds = document["time"] = float(time)
    except OverflowError:
        message = f'"time" is {time!r:.80}, wanted Unix seconds'
        raise JournalError(message) from None
    return seq, seconds


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines of a journal.

    Attributes:
        offset: Byte offset of the first line in the file.
        data: Lines, each with its LF.
    """

    offset: int
    data: bytes


def read_blocks(
    descriptor: int, offset: int = 0, size: int = _BLOCK_BYTES, line_bytes: int = 2**20
) -> Iterator[Block]:
    """Yield the committed lines of a journal in order, a few MiB at a time.

    What follows the last LF is left out: it is a torn tail, or a line being written now. A line
    longer than `line_bytes` comes as a block of its own cut to that length, without an LF, so that
    its reader reports it and memory stays bounded.

    Args:
        descriptor: Open file.
        offset: Where to begin; the start of a line.
        size: Bytes of a block.
        line_bytes: Longest line that is accepted.
    """
    rest = b""
    skipping = False
    while part := os.pread(descriptor, size, offset + len(rest)):
        if skipping:
            end = part.find(b"\n") + 1
            offset += end or len(part)
            skipping = not end
            continue
        data = rest + part if rest else part
        end = data.rfind(b"\n") + 1
        if end:
            yield Block(offset, data[:end] if end < len(data) else data)
            offset += end
            rest = data[end:]
        else:
            rest = data
        if len(rest) > line_bytes:
            yield Block(offset, rest[:line_bytes])
            offset += len(rest)
            rest = b""
            skipping = True


def read_tail(descriptor: int, start: int, line_bytes: int = 2**20) -> Iterator[dict[str, Any]]:
    """Yield the last good records of a journal, newest first, out of its last two MiB or so.

    Args:
        descriptor: Open file.
        start: Byte offset of the first record.
        line_bytes: Longest line.
    """
    end = os.fstat(descriptor).st_size
    least = max(start, end - 2 * line_bytes)
    rest = b""
    committed = False
    while end > least:
        begin = max(least, end - _TAIL_BYTES)
        rest = os.pread(descriptor, end - begin, begin) + rest
        end = begin
        lines = rest.split(b"\n")
        if not committed and len(lines) > 1:
            lines[-1] = b""  # what follows the last LF is no record
            committed = True
        # The first piece may lack its beginning, which the next read brings.
        rest = lines.pop(0) if begin > start or not committed else b""
        for line in reversed(lines):
            with contextlib.suppress(JournalError):
                yield decode(line)


def _number(name: str, value: object) -> Number:
    """Return a value of a record as a number; its name goes into the message."""
    if isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        if INT64_MIN <= value <= INT64_MAX:
            return value
    elif isinstance(value, str) and value in NON_FINITE:
        return NON_FINITE[value]
    message = f"metric {name!r:.80} is {value!r:.80}, wanted a 64-bit number or a bool"
    raise JournalError(message, "BB-JNL-012")


def _is_int(value: object) -> bool:
    """Tell an int64 from everything else, bool included."""
    return type(value) is int and INT64_MIN <= value <= INT64_MAX


def _is_plain_point(document: object, line: bytes) -> bool:
    """Tell quickly what is true of most lines: no key twice, no integer that became a float."""
    if type(document) is not dict or type(metrics := document.get("metrics")) is not dict:
        return False
    if line.count(b":") != len(document) + len(metrics):
        return False
    return not any(
        type(value) is float and not -_FLOAT_INT64 < value < _FLOAT_INT64
        for value in metrics.values()
    )


def _is_spelled_so(document: object, line: bytes) -> bool:
    """Tell whether JSON is spelled as this library spells it: then nothing in it is lost."""
    option = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE if line[-1:] == b"\n" else 0
    try:
        return orjson.dumps(document, option=option) == line
    except TypeError:  # nested deeper than it goes
        return False


def _colons(value: object) -> int:
    """Count the colons that a value must have as JSON: one a member, and those inside strings."""
    if isinstance(value, str):
        return value.count(":")
    if isinstance(value, dict):
        keys: int = sum(key.count(":") for key in value)
        return (
            len(value)
            + keys
            + sum(
                _colons(inner) for inner in value.values() if isinstance(inner, str | dict | list)
            )
        )
    if isinstance(value, list):
        return sum(_colons(inner) for inner in value)
    return 0


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object, refusing a key that stands twice."""
    document = dict(pairs)
    if len(document) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                message = f"the key {key!r} stands twice"
                raise ValueError(message)
            seen.add(key)
    return document


def _describe(line: bytes, error: Exception) -> JournalError:
    """Return what is wrong with a line that the parsers do not take: its JSON, or a limit."""
    beyond: list[str] = []

    def number(token: str) -> float:
        value = float(token)
        if not -_FLOAT_INT64 < value < _FLOAT_INT64 and (
            math.isinf(value) or token.lstrip("-").isdecimal()
        ):
            beyond.append(token)
        return value

    try:
        json.loads(
            line.decode(),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_int=number,
            parse_float=number,
        )
    except RecursionError:
        return JournalError("the line is nested too deep", "BB-LIM-001")
    except ValueError:
        pass
    else:
        if "ecursion" in str(error):
            return JournalError("the line is nested too deep", "BB-LIM-001")
        if beyond:
            return JournalError(f"{beyond[0]:.40} is beyond 64 bits", "BB-JNL-012")
    return JournalError(f"the line is not strict JSON: {error}", "BB-JNL-001")


def _refuse_constant(name: str) -> Any:
    """Refuse NaN and Infinity, which JSON does not have."""
    message = f"{name} is not JSON"
    raise ValueError(message)


def count_lines(blocks: list[bytes]) -> int:
    """Return the number of lines."""
    return sum(block.count(b"\n") for block in blocks)


def read_last(line: bytes, default: int) -> tuple[int, bool]:
    """Return the automatic step after the last of some lines, and whether it ends the attempt."""
    document = orjson.loads(line[line.rfind(b"\n", 0, -1) + 1 :])
    step = document.get("step")
    return step + 1 if isinstance(step, int) else default, "end" in document
