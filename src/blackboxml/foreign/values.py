"""Values of other systems as items of a run, and items as values again.

A value that is no number becomes a medium of the nearest kind: a text, an array, bytes, and for all
else an `event` of the form `{"value": tree}`, where the tree is typed as in `config.json`, so that
tuples, None and numbers that JSON cannot write come back as they were.
"""

from __future__ import annotations

import io
import json
import marshal
import math
import re
from contextlib import suppress
from hashlib import sha256
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from blackboxml.base import naming, npy
from blackboxml.base.scalar import NON_FINITE, spell, to_number
from blackboxml.config import decode_config, encode_config
from blackboxml.errors import ConfigError, MetricError
from blackboxml.foreign.interchange import Medium, count_as
from blackboxml.model import INT64_MAX, INT64_MIN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import pyarrow as pa

    from blackboxml.foreign.interchange import ForeignRun, Ledger
    from blackboxml.model import MediaRecord, Number
    from blackboxml.reader import RunReader

NPY: Final = npy.MEDIA_TYPE
_MENDED: Final = "the name of a metric cannot stand in the format and is mended"
_MEMBERS: Final = ("exception", "environment", "lineage")
_SHORTENED: Final = 8
_MOST_DIGITS: Final = 12
_BATCH: Final = 8192
_PART: Final = 16


class Names:
    """Names of metrics as the format can hold them; two of them never become one."""

    def __init__(self, ledger: Ledger) -> None:
        """Begin with none; each name that has to be mended is entered into the ledger once."""
        self._ledger = ledger
        self._known: dict[Any, str] = {}
        self._taken: set[str] = set()

    def __call__(self, name: str) -> str:
        """Return the name, mended as little as possible where it cannot stand."""
        found = self._known.get(name)
        return self._learn(name) if found is None else found

    def _learn(self, name: str) -> str:
        """Find the name of one that comes for the first time."""
        mended = _mend(name)
        short = mended.encode()[: naming.MAX_NAME_BYTES - _MOST_DIGITS].decode(errors="ignore")
        mended = naming.distinct(mended, self._taken.__contains__, short)
        if mended != name:
            self._ledger.changed("field", _MENDED, where=f"{name!r:.80} is {mended!r:.80}")
        self._taken.add(mended)
        self._known[name] = mended
        return mended


def _mend(name: str) -> str:
    """Return a name that the format can hold."""
    try:
        naming.check_metric_name(name)
    except MetricError:
        text = re.sub("[\x00-\x1f\x7f-\x9f\ud800-\udfff]", "_", name).strip("/")
        data = text.encode()
        if len(data) > naming.MAX_NAME_BYTES:
            digest = sha256(data).hexdigest()[:_SHORTENED]
            kept = data[: naming.MAX_NAME_BYTES - _SHORTENED - 10].decode(errors="ignore")
            text = f"{kept.rstrip('/')}-{digest}"
        return text or "unnamed"
    return name


def number(value: object) -> Number | None:
    """Return a value as one that a metric can have, or None if it is of another kind."""
    kind = type(value)
    if kind is float or kind is bool:
        return value  # type: ignore[return-value]
    if value is None or kind in (str, bytes, list, tuple, dict):
        return None
    try:
        return to_number(value)
    except ValueError:
        return None


def to_medium(name: str, value: Any, step: int, time: float | None, ledger: Ledger) -> Medium:
    """Return a value that is no number as a medium.

    Args:
        name: As the name of a metric.
        value: A text, bytes, a NumPy array, or what a configuration may hold.
        step: An int64.
        time: Unix seconds, or None where the source does not say.
        ledger: Told where the value cannot be kept as it is.
    """
    if isinstance(value, str):
        text = to_text(value)
        if text != value:
            ledger.changed("text", "surrogates in a text are spelled out", where=name)
        return Medium(name, "text", step, time, value=text)
    if isinstance(value, (bytes, bytearray)):
        kind = "application/octet-stream"
        return Medium(name, "artifact", step, time, data=bytes(value), media_type=kind)
    if hasattr(value, "dtype") and value.dtype.kind in "biufc" and value.shape:
        return Medium(name, "array", step, time, data=to_npy(value), media_type=NPY)
    tree = to_tree(value)
    if isinstance(tree, dict) and "$repr" in tree:
        ledger.changed("event", "a value of an unknown kind, or too deep, is described", where=name)
    return Medium(name, "event", step, time, value={"value": tree})


def separate(
    values: Mapping[str, Any], name: Names, step: int, time: float | None, ledger: Ledger
) -> tuple[dict[str, Number], list[Medium]]:
    """Return the numbers among values by metric, and all others as media; see `to_medium`."""
    metrics: dict[str, Number] = {}
    media: list[Medium] = []
    for key, value in values.items():
        scalar = number(value)
        if scalar is None:
            media.append(to_medium(name(key), value, step, time, ledger))
        else:
            metrics[name(key)] = scalar
    return metrics, media


def to_json(tree: Any, depth: int = 50) -> Any:
    """Return JSON as a medium may hold it: numbers that are not finite by their names.

    Raises:
        ValueError: If it nests too deep, or has an integer beyond 64 bits.
    """
    if depth < 0:
        raise ValueError("it nests too deep")
    if isinstance(tree, float):
        return spell(tree)
    if isinstance(tree, int) and not INT64_MIN <= tree <= INT64_MAX:
        raise ValueError("it has an integer beyond 64 bits")
    if isinstance(tree, list):
        return [to_json(each, depth - 1) for each in tree]
    if isinstance(tree, dict):
        return {to_text(key): to_json(each, depth - 1) for key, each in tree.items()}
    return to_text(tree) if isinstance(tree, str) else tree


def to_text(text: str) -> str:
    """Return a text with surrogates, which stand for no character, spelled out."""
    return text.encode(errors="backslashreplace").decode()


def from_json(tree: Any) -> Any:
    """Return what `to_json` was given."""
    if isinstance(tree, list):
        return [from_json(each) for each in tree]
    if isinstance(tree, dict):
        return {key: from_json(each) for key, each in tree.items()}
    return NON_FINITE.get(tree, tree) if isinstance(tree, str) else tree


to_npy: Final = npy.write_array


def from_npy(data: bytes) -> Any:
    """Return the array of a `.npy` file.

    Raises:
        ValueError: If it is damaged, or holds pickled objects.
    """
    import numpy as np

    try:
        return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except (EOFError, SyntaxError, TypeError, MemoryError) as error:
        raise ValueError(f"the array is damaged: {error}") from None


def from_medium(run: RunReader, record: MediaRecord) -> Any:
    """Return what `to_medium` made a medium of; of other media their value, or their bytes.

    Raises:
        ValueError: If its file is missing or damaged.
    """
    if record.kind == "text" and record.value is None:
        return run.load(record).decode(errors="replace")
    if record.kind == "array":
        return from_npy(run.load(record))
    value = record.value
    if value is None:
        data = run.load(record)
        if record.media_type != "application/json":
            return data
        value = json.loads(data)
    if record.kind == "event" and _is_value(value):
        return decode_config(value)["value"]
    return value


def _is_value(event: Any) -> bool:
    """Tell whether an event is what `to_medium` makes of a value."""
    return isinstance(event, dict) and list(event) == ["value"]


def declare_event(record: MediaRecord, ledger: Ledger) -> None:
    """Enter what happens to an event in a system that has values: it comes back as one."""
    if record.kind == "event" and record.value is not None and not _is_value(record.value):
        ledger.changed("event", "what happened becomes a value", where=record.name)


def declare(record: MediaRecord, ledger: Ledger) -> bool:
    """Enter what other systems do not keep of a medium; tell whether that leaves anything."""
    if record.reference is not None:
        what = "there is no place for a reference to what is outside a run"
        ledger.lost(count_as(record.kind), what, where=record.name)
        return False
    if record.dims:
        ledger.lost("field", "the dimensions of an array have no names", where=record.name)
    if record.entry is not None:
        ledger.lost("field", "an artifact is a file and no folder", where=record.name)
    return True


def parse(text: object) -> Any:
    """Return what a text says in JSON, None if it says nothing."""
    try:
        return json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return None


def to_tree(value: Any) -> Any:
    """Return a value as a typed tree, or a description of one that nests too deep."""
    try:
        return encode_config({"value": value})["value"]
    except (ConfigError, RecursionError) as error:
        return {"$repr": {"type": type(value).__name__, "text": str(error)[:200]}}


def origin(run: RunReader, name: str) -> dict[str, Any]:
    """Return what a run that was imported from a format had besides, decoded; empty for others."""
    for member in run.manifest.get("extensions", {}).values():
        if isinstance(member, dict) and member.get("format") == name:
            extra = member.get("extra")
            with suppress(ConfigError):
                return decode_config(extra) if isinstance(extra, dict) else {}
    return {}


class Digest:
    """A digest of rows, one after the other."""

    def __init__(self, *about: Any) -> None:
        """Begin with what the rows are about."""
        self._digest = sha256(repr(about).encode(errors="backslashreplace"))
        self.hexdigest = self._digest.hexdigest

    def update(self, rows: Iterable[tuple[Any, ...]], at_once: int = _PART) -> None:
        """Add rows of texts, numbers and bytes, so many of them in memory."""
        left = iter(rows)
        while part := list(islice(left, at_once)):
            # Version 2 knows no references, so that equal rows have equal bytes.
            self._digest.update(marshal.dumps(part, 2))


def document(run: RunReader) -> dict[str, Any]:
    """Return what the tables of another system have no place for, as JSON to be kept beside."""
    return {
        "id": run.id,
        "name": run.name,
        "tags": run.tags,
        "status": run.status,
        "start": run.start.timestamp(),
        "end": None if run.end is None else run.end.timestamp(),
        "config": to_tree(run.config),
        **{name: run.manifest.get(name) for name in _MEMBERS},
    }


def recall(run: ForeignRun, own: Mapping[str, Any]) -> None:
    """Take what `document` kept; whatever is damaged in it is left out."""
    if own.get("status") in ("completed", "failed", "interrupted"):
        run.status = own["status"]
    for name in ("start", "end"):
        moment = own.get(name)
        if isinstance(moment, (int, float)) and math.isfinite(moment):
            setattr(run, name, float(moment))
    if isinstance(title := own.get("name"), str) and title:
        run.name = title
    if isinstance(tags := own.get("tags"), list):
        run.tags = [tag for tag in tags if isinstance(tag, str)]
    for name in _MEMBERS:
        if isinstance(own.get(name), dict):
            setattr(run, name, own[name])
    if isinstance(own.get("id"), str):
        run.extra["blackbox_id"] = own["id"]
    if isinstance(tree := own.get("config"), dict):
        with suppress(ConfigError):
            run.config = decode_config(tree)


def columns(table: pa.Table, group: str) -> list[tuple[str, str, str | None]]:
    """Return column, full name and statistic of what a table of a group holds behind its index.

    A statistic across ranks is called as its column is, with the group before it.
    """
    from blackboxml.journal.table import INDEX, read_keys

    found: list[tuple[str, str, str | None]] = []
    names = table.column_names[len(INDEX) :]
    for column, (metric, statistic) in zip(names, read_keys(table.schema), strict=True):
        own = f"{group}/{column}" if group else column
        found.append((column, metric if statistic is None else own, statistic))
    return found


def points(
    run: RunReader, group: str
) -> Iterator[tuple[pa.Table, list[tuple[str, str, str | None]]]]:
    """Yield the effective rows of a group, some thousands at a time, with `columns`."""
    table = run.arrow(group)
    found = columns(table, group)
    for start in range(0, table.num_rows, _BATCH):
        yield table.slice(start, _BATCH), found
