"""Rows of simplegrad's tables as items, whatever stands in them."""

from __future__ import annotations

import math
import struct
import zlib
from typing import TYPE_CHECKING, Any, Final

from blackboxml.base.scalar import spell
from blackboxml.foreign import values as foreign
from blackboxml.foreign.interchange import Medium, Point

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from blackboxml.foreign.interchange import Item, Kind, Ledger
    from blackboxml.model import Number

_COLOURS: Final = {1: 0, 2: 4, 3: 2, 4: 6}  # channels to the colour type of PNG
_EXACT: Final = 2**53
_LEAST_NORMAL: Final = 0x00800000  # bits of the least float32 that is not subnormal
_PLAUSIBLE: Final = 1e30
_QUIET: Final = frozenset([0x7FC00000, 0xFFC00000])  # the NaNs that programs make


class Decoder:
    """Makes items of rows."""

    def __init__(self, ledger: Ledger, name: foreign.Names) -> None:
        """Begin."""
        self._ledger = ledger
        self._name = name
        self._step = 0

    def records(self, rows: Iterator[tuple[Any, ...]], names: Mapping[Any, str]) -> Iterator[Item]:
        """Yield the numbers; rows that follow each other at one step and time are one point."""
        known: dict[Any, str] = {}
        point: Point | None = None
        for row, metric, raw_step, value, raw_time in rows:
            name = known.get(metric)
            if name is None:
                name = known[metric] = self._name(names.get(metric, f"metric_{metric}"))
            step = raw_step if type(raw_step) is int else self._whole(raw_step, row)
            plain = type(raw_time) is float and raw_time - raw_time == 0
            time = raw_time if plain else self._time(raw_time, row)
            number = value if type(value) is float else self._number(value, row)
            if number is None:
                if point is not None:
                    yield point
                    point = None
                yield foreign.to_medium(name, value, step, time, self._ledger)
            elif (
                point is not None
                and (point.step, point.time) == (step, time)
                and (name not in point.metrics)
            ):
                point.metrics[name] = number
            else:
                if point is not None:
                    yield point
                point = Point(step, time, {name: number})
        if point is not None:
            yield point

    def _number(self, value: object, row: int, kind: Kind = "scalar") -> Number | None:
        """Return a value of a metric, or None if it is none.

        NumPy's scalars other than float64 stand in the database as their bytes.
        """
        if isinstance(value, int):
            return value
        if not isinstance(value, bytes):
            return None
        found = _unpack(value)
        if found is not None:
            what = "the bytes of a NumPy scalar, whose type is not said, are read as the likeliest"
            self._ledger.changed(kind, what, where=f"row {row}")
        return found

    def _whole(self, value: object, row: int) -> int:
        """Return a step."""
        number = value if isinstance(value, float) else self._number(value, row, "step")
        where = f"step of row {row}"
        if number is None or not math.isfinite(number):
            self._ledger.unreadable(
                "step", "a step that is no number; the one before is taken", where=where
            )
            return self._step
        step = math.floor(number)
        if step != number:
            self._ledger.changed(
                "step", "a step with a fraction is cut", where=where, by=number - step
            )
        self._step = step
        return step

    def _time(self, value: object, row: int) -> float | None:
        """Return a time."""
        number = value if isinstance(value, float) else self._number(value, row, "time")
        if number is None or not math.isfinite(number):
            self._ledger.unreadable("time", "a time that is no number", where=f"row {row}")
            return None
        return float(number)

    def _place(self, row: int, name: object, step: object, time: object) -> dict[str, Any]:
        """Return name, step and time of a medium."""
        return {
            "name": self._name(name if isinstance(name, str) else repr(name)),
            "step": step if type(step) is int else self._whole(step, row),
            "time": self._time(time, row),
        }

    def _other(self, place: dict[str, Any], kind: Any, value: Any, what: str, row: int) -> Medium:
        """Keep what is not what its table says."""
        self._ledger.unreadable(kind, what, where=f"row {row}")
        return foreign.to_medium(place["name"], value, place["step"], place["time"], self._ledger)

    def texts(self, row: tuple[Any, ...]) -> Medium:
        """Return a text."""
        number, name, step, content, time = row
        place = self._place(number, name, step, time)
        return foreign.to_medium(place["name"], content, place["step"], place["time"], self._ledger)

    def histograms(self, row: tuple[Any, ...]) -> Medium:
        """Return a histogram."""
        number, name, step, edges, counts, time = row
        place = self._place(number, name, step, time)
        value = [foreign.parse(edges), foreign.parse(counts)]
        numbers = [
            all(isinstance(each, (int, float)) for each in found)
            for found in value
            if isinstance(found, list)
        ]
        if numbers != [True, True] or not len(value[0]) == len(value[1]) + 1 > 1:
            what = "a histogram whose edges and counts do not fit; kept as it is"
            return self._other(place, "histogram", {"edges": edges, "counts": counts}, what, number)
        spelled = [[spell(each) for each in found] for found in value]
        return Medium(kind="histogram", value={"edges": spelled[0], "counts": spelled[1]}, **place)

    def images(self, row: tuple[Any, ...]) -> Medium:
        """Return an image: PNG where that can hold it, otherwise an array of bytes."""
        number, name, step, width, height, channels, data, time = row
        place = self._place(number, name, step, time)
        shape = (height, width, channels)
        if (
            not isinstance(data, bytes)
            or not all(type(each) is int and each > 0 for each in shape)
            or math.prod(shape) != len(data)
        ):
            what = "an image whose size does not fit its data; kept as it is"
            return self._other(place, "image", data, what, number)
        if channels in _COLOURS:
            return Medium(kind="image", data=_png(data, *shape), media_type="image/png", **place)
        import numpy as np

        array = foreign.to_npy(np.frombuffer(data, np.uint8).reshape(shape))
        return Medium(kind="array", data=array, media_type=foreign.NPY, **place)

    def graphs(self, row: tuple[Any, ...]) -> Medium:
        """Return a computation graph."""
        number, text, time = row
        self._ledger.made("step", "a computation graph has no step and stands at 0")
        place = self._place(number, "graph", 0, time)
        graph = foreign.parse(text)
        parts = graph if isinstance(graph, dict) else {}
        if all(isinstance(parts.get(key), list) for key in ("nodes", "edges")):
            try:
                return Medium(kind="graph", value=foreign.to_json(graph), **place)
            except ValueError:
                graph = None
        what = "a graph without nodes and edges; kept as it is"
        return self._other(place, "graph", text if graph is None else graph, what, number)


def _unpack(data: bytes) -> Number | None:
    """Return the number whose bytes SQLite was given, None if there is none of that size.

    The size alone is known. Four bytes are a float32 and eight an int64, unless they would make a
    number that nobody logs and the other reading would not.
    """
    match len(data):
        case 1:
            return bool(data[0]) if data[0] <= 1 else int(struct.unpack("<b", data)[0])
        case 2:
            return float(struct.unpack("<e", data)[0])
        case 4:
            bits = struct.unpack("<I", data)[0]
            single = float(struct.unpack("<f", data)[0])
            tiny = 0 < bits & 0x7FFFFFFF < _LEAST_NORMAL
            if tiny or (math.isnan(single) and bits not in _QUIET):
                return int(struct.unpack("<i", data)[0])
            return single
        case 8:
            whole, double = struct.unpack("<q", data)[0], struct.unpack("<d", data)[0]
            likely = 1 / _PLAUSIBLE < abs(double) < _PLAUSIBLE
            return float(double) if abs(whole) > _EXACT and likely else int(whole)
        case _:
            return None


def _png(data: bytes, height: int, width: int, channels: int) -> bytes:
    """Return raw rows of 8 bits a channel as PNG (https://www.w3.org/TR/png-3/)."""
    stride = width * channels
    rows = b"".join(b"\0" + data[at : at + stride] for at in range(0, len(data), stride))
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOURS[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
