"""Scalars of TensorBoard's event files, read and written column by column.

Events that log the same tags with steps of the same size differ only in a few bytes: the time, the
step and the values. So they are read as a matrix, one column an event: what must be constant is
compared with one event that was read in full, and the rest is taken over as numbers.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import numpy as np

from blackboxml.foreign.tensorboard import messages
from blackboxml.foreign.tensorboard.records import FOOT, HEAD, seal_records

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from blackboxml.foreign.tensorboard.messages import Metadata, Value
    from blackboxml.foreign.tensorboard.records import Group

    Array: TypeAlias = npt.NDArray[Any]
    Bools: TypeAlias = npt.NDArray[np.bool_]
    Floats: TypeAlias = npt.NDArray[np.float64]
    Integers: TypeAlias = npt.NDArray[np.int64]

LEAST: Final = 32
"""Events of one length that are worth the effort."""

_TIME_KEY, _STEP_KEY, _SUMMARY_KEY, _VALUE_KEY, _SIMPLE_KEY = 0x09, 0x10, 0x2A, 0x0A, 0x15
_TIME_END: Final = 9
_WIDEST_STEP: Final = 10
_LAST: Final = 0x7F  # the last byte of an integer is at most this, the others above
_MOST_ROUNDS: Final = 4
_MOST_LAYOUTS: Final = 10_000
_PLAIN_KEYS: Final = (_VALUE_KEY, 0x0A, _SIMPLE_KEY)
_TIME: Final = struct.Struct("<d")
_EXACT_DTYPES: Final = {messages.EXACT_FLOAT: "<f8", messages.EXACT_INT: "<i8"}
_FLOAT_DTYPES: Final = {1: "<f4", 2: "<f8"}
_FLOAT_PARTS: Final = {1: 5, 2: 6}

_WEIGHTS: Final = np.random.default_rng(0).integers(1, 2**30, 2**14).astype(np.float64)
"""Tell rows apart: sums of 16,384 bytes with these are exact in float64."""

_NUMBERS: Final = {
    4: (b"", struct.Struct("<f")),
    14: (messages.integer(messages.EXACT_FLOAT << 3 | messages.FIXED64), struct.Struct("<d")),
}


class Slot(NamedTuple):
    """Where the value of a tag stands in an event, and as what."""

    at: int
    dtype: str


class Layout(NamedTuple):
    """An event that holds nothing but scalars.

    Attributes:
        slots: Where they stand.
        variable: Where each stretch of bytes begins and ends that differs between events.
        tags: Their names.
        metadata: What is said about each.
    """

    slots: tuple[Slot, ...]
    variable: tuple[tuple[int, int], ...]
    tags: tuple[str, ...]
    metadata: tuple[Metadata | None, ...]


class Batch(NamedTuple):
    """Events that hold nothing but scalars.

    Attributes:
        rows: Which records of the chunk they are.
        steps: An int64 for each.
        times: Unix seconds for each.
        layouts: The different ones; they differ in their tags alone.
        which: The layout of each.
        values: A column for each tag.
    """

    rows: Integers
    steps: Integers
    times: Floats
    layouts: list[Layout]
    which: Integers
    values: list[Array]


def find_layout(body: bytes) -> Layout | None:
    """Return where the scalars stand in an event whose time and step are cut off, if it is plain.

    Raises:
        MalformedError: If it is no event.
    """
    members = list(messages.fields(body))
    if len(members) != 1 or (members[0].number, members[0].wire) != (
        messages.SUMMARY,
        messages.LENGTH,
    ):
        return None
    slots, variable, tags, metadata = [], [], [], []
    for value, at in messages.read_values(members[0].value):
        found = _find_slot(value, members[0].at + at)
        if found is None:
            return None
        slots.append(found[0])
        variable.extend(found[1])
        tags.append(value.tag)
        metadata.append(value.metadata)
    if not tags or len(set(tags)) < len(tags):
        return None
    return Layout(tuple(slots), tuple(variable), tuple(tags), tuple(metadata))


def _find_slot(value: Value, at: int) -> tuple[Slot, list[tuple[int, int]]] | None:
    """Return where a value stands, and what differs between events."""
    if value.what == messages.TENSOR:
        return None if value.exact else _find_tensor_slot(value, at + value.at)
    if value.what != messages.SIMPLE:
        return None
    simple = (at + value.at, at + value.at + 4)
    if value.exact is None:
        return Slot(simple[0], "<f4"), [simple]
    dtype = _EXACT_DTYPES.get(value.exact.number)
    if dtype is None:
        return None
    exact = at + value.exact.at
    return Slot(exact, dtype), [simple, (exact, exact + 8)]


def _find_tensor_slot(value: Value, at: int) -> tuple[Slot, list[tuple[int, int]]] | None:
    tensor = messages.read_tensor(value.data)
    dtype = _FLOAT_DTYPES.get(tensor.dtype)
    if dtype is None or tensor.shape or tensor.strings:
        return None
    size = int(dtype[2])
    if len(tensor.content) == size and not tensor.parts:
        at += tensor.content_at
    else:
        part = tensor.parts.get(_FLOAT_PARTS[tensor.dtype], [])
        if len(tensor.content) or len(tensor.parts) != 1 or [len(p) for p in part] != [size]:
            return None
        at += tensor.parts_at
    return Slot(at, dtype), [(at, at + size)]


def read_plain(data: bytes) -> tuple[float, int, dict[bytes, float]] | None:
    """Return time, step and numbers by tag of an event of floats alone; None for any other.

    It is for events that are not like others, such as those with ever other metrics.
    """
    if len(data) <= _TIME_END or data[0] != _TIME_KEY:
        return None
    at, step = _TIME_END, 0
    try:
        if data[at] == _STEP_KEY:
            step, at = messages.varint(data, at + 1)
        if data[at] != _SUMMARY_KEY:
            return None
        size, at = messages.varint(data, at + 1)
        if at + size != len(data):
            return None
        numbers = _read_numbers(data, at)
    except (messages.MalformedError, IndexError, struct.error):
        return None
    return None if not numbers else (_TIME.unpack_from(data, 1)[0], messages.signed(step), numbers)


def _read_numbers(data: bytes, at: int) -> dict[bytes, float] | None:
    """Return the numbers of a summary by tag, if they are plain: short, and without metadata."""
    found: dict[bytes, float] = {}
    while at < len(data):
        end = at + 2 + data[at + 1]
        begin = at + 4 + data[at + 3]  # of the value, after its tag
        form = _NUMBERS.get(end - begin - 1)
        tag = data[at + 4 : begin]
        if (
            (data[at], data[at + 2], data[begin]) != _PLAIN_KEYS
            or form is None
            or max(data[at + 1], data[at + 3]) > _LAST
            or end > len(data)
            or tag in found
            or not data.startswith(form[0], begin + 5)
        ):
            return None
        found[tag] = form[1].unpack_from(data, end - form[1].size)[0]
        at = end
    return found


class Decoder:
    """Reads groups of events of one file after the other."""

    def __init__(self) -> None:
        """Begin with no layout known."""
        self._layouts: dict[bytes, Layout | None] = {}

    def decode(self, group: Group) -> tuple[list[Batch], Integers]:
        """Return the events that hold nothing but scalars, and which columns are left over."""
        columns = group.columns
        length, count = columns.shape
        if length <= _TIME_END + 1:
            return [], np.arange(count)
        times = np.ascontiguousarray(columns[1:_TIME_END].T).view("<f8")[:, 0]
        widths = _step_widths(columns)
        plain = (columns[0] == _TIME_KEY) & np.isfinite(times)
        batches: list[Batch] = []
        left = [np.flatnonzero(~plain)]
        for width in np.unique(widths).tolist():
            chosen = np.flatnonzero(plain & (widths == width))
            begin = _TIME_END + (1 + width if width else 0)
            steps = _read_steps(columns[_TIME_END + 1 : begin, chosen])
            body = columns[begin:, chosen]
            for layouts, picked, which, values in self._split(body, left, chosen):
                rows = chosen[picked]
                batches.append(
                    Batch(group.rows[rows], steps[picked], times[rows], layouts, which, values)
                )
        return batches, np.concatenate(left)

    def _split(
        self, body: Array, left: list[Integers], chosen: Integers
    ) -> list[tuple[list[Layout], Integers, Integers, list[Array]]]:
        """Return the columns that have a layout, by where their values stand."""
        found: list[tuple[list[Layout], Integers, Integers, list[Array]]] = []
        rest = np.arange(body.shape[1])
        for _ in range(_MOST_ROUNDS):
            if not len(rest):
                break
            first = self._layout(body[:, rest[0]].tobytes())
            if first is None:
                left.append(chosen[rest[:1]])
                rest = rest[1:]
                continue
            part = body[:, rest]
            same, layouts, which = self._match(part, first)
            kept, which = _drop_none(layouts, which[same])
            picked = np.flatnonzero(same)[which >= 0]
            which = which[which >= 0]
            values = [_column(part, slot, picked) for slot in first.slots]
            found.append((kept, rest[picked], which, values))
            rest = np.delete(rest, picked)
        left.append(chosen[rest])
        return found

    def _match(self, part: Array, first: Layout) -> tuple[Bools, list[Layout | None], Integers]:
        """Return which columns are like one of few that were read in full, and which that is."""
        variable = [at for begin, end in first.variable for at in range(begin, end)]
        constant = np.delete(part, variable, axis=0)
        sums = _WEIGHTS[: len(constant)] @ constant.astype(np.float64)
        _, samples, which = np.unique(sums, return_index=True, return_inverse=True)
        if len(samples) > LEAST + part.shape[1] // 8:  # too many to be worth it
            samples, which = np.zeros(1, np.intp), np.zeros(part.shape[1], np.intp)
        same = np.asarray((constant == constant[:, samples][:, which]).all(axis=0))
        layouts = [self._layout(part[:, sample].tobytes(), first.variable) for sample in samples]
        return (
            same,
            [
                layout if layout is not None and layout.variable == first.variable else None
                for layout in layouts
            ],
            which,
        )

    def _layout(self, body: bytes, variable: tuple[tuple[int, int], ...] = ()) -> Layout | None:
        """Return the layout of an event; such as differ in values alone are read once."""
        key = bytearray(body)
        for begin, end in variable:
            key[begin:end] = bytes(end - begin)
        known = bytes(key) + repr(variable).encode()
        if known not in self._layouts:
            try:
                found = find_layout(body)
            except messages.MalformedError:
                found = None
            if len(self._layouts) >= _MOST_LAYOUTS:
                self._layouts.clear()
            self._layouts[known] = found
        return self._layouts[known]


def _drop_none(layouts: list[Layout | None], which: Integers) -> tuple[list[Layout], Integers]:
    """Return the layouts there are, and which each is now; -1 where there is none."""
    places: list[int] = []
    kept: list[Layout] = []
    for layout in layouts:
        places.append(-1 if layout is None else len(kept))
        if layout is not None:
            kept.append(layout)
    return kept, np.array(places, np.intp)[which]


def _column(part: Array, slot: Slot, picked: Integers) -> Array:
    size = int(slot.dtype[2])
    raw = np.ascontiguousarray(part[slot.at : slot.at + size, picked].T).view(slot.dtype)[:, 0]
    return raw if slot.dtype == "<i8" else raw.astype(np.float64)


def _step_widths(columns: Array) -> Integers:
    """Return how many bytes the step of each event has; 0 where it is left out, being 0."""
    more = columns[_TIME_END] == _STEP_KEY
    widths = np.zeros(columns.shape[1], np.int64)
    for k in range(_TIME_END + 1, min(_TIME_END + 1 + _WIDEST_STEP, len(columns))):
        widths += more
        more = more & (columns[k] > _LAST)
        if not more.any():
            break
    return widths


def _read_steps(columns: Array) -> Integers:
    """Return the integers that stand in columns, seven bits a byte."""
    found = np.zeros(columns.shape[1], np.uint64)
    for k, row in enumerate(columns):
        found |= (row & 0x7F).astype(np.uint64) << np.uint64(7 * k)
    return found.view(np.int64)


# -- writing


class Series(NamedTuple):
    """The values of one metric at some steps.

    Attributes:
        tag: Its name.
        present: At which of the steps there is a value.
        values: Those values: bool, int64 or float64.
        metadata: What is said about the tag; empty for nothing.
    """

    tag: str
    present: Bools
    values: Array
    metadata: bytes = b""

    def messages(self) -> Array:
        """Return the values as messages, a row each; all have one length."""
        with np.errstate(over="ignore"):
            rounded = self.values.astype("<f4")
        key, exact = self._exact(rounded)
        said = messages.member(9, self.metadata) if self.metadata else b""
        head = messages.member(1, self.tag) + bytes([_SIMPLE_KEY])
        size = len(head) + 4 + len(key) + exact.itemsize * bool(key) + len(said)
        lead = bytes([_VALUE_KEY]) + messages.integer(size) + head
        parts = [_repeat(lead, rounded), rounded]
        if key:
            parts += [_repeat(key, rounded), exact]
        if said:
            parts.append(_repeat(said, rounded))
        count = len(rounded)
        return np.hstack([part.view(np.uint8).reshape(count, -1) for part in parts])

    def _exact(self, rounded: Array) -> tuple[bytes, Array]:
        """Return the key of the exact values, if float32 is not enough, and these."""
        kind = self.values.dtype.kind
        if kind == "b":
            return messages.integer(messages.EXACT_BOOL << 3 | messages.VARINT), self.values
        if kind == "i":
            exact = self.values.astype("<i8")
            return messages.integer(messages.EXACT_INT << 3 | messages.FIXED64), exact
        if not _is_exact(self.values, rounded):
            exact = self.values.astype("<f8")
            return messages.integer(messages.EXACT_FLOAT << 3 | messages.FIXED64), exact
        return b"", self.values


def _repeat(part: bytes, like: Array) -> Array:
    """Return bytes as a row for each of some values."""
    return np.tile(np.frombuffer(part, np.uint8), (len(like), 1))


def _is_exact(values: Array, rounded: Array) -> bool:
    """Tell whether float32 holds all of some numbers."""
    return bool(((values == rounded) | np.isnan(values)).all())


def encode(steps: Integers, times: Floats, series: Sequence[Series]) -> bytes:
    """Return records, one for each step, that hold the values of the metrics there.

    Args:
        steps: The steps.
        times: Unix seconds of each.
        series: The metrics; every step has a value of at least one.
    """
    rows = [one.messages() for one in series]
    sizes = np.zeros(len(steps), np.int64)
    for one, block in zip(series, rows, strict=True):
        sizes[one.present] += block.shape[1]
    bits = steps.view(np.uint64)
    step_widths = np.where(steps == 0, 0, _widths(bits))
    size_widths = _widths(sizes.view(np.uint64))
    lead = _TIME_END + np.where(step_widths > 0, 1 + step_widths, 0)
    lengths = lead + 1 + size_widths + sizes
    ends = np.cumsum(lengths + HEAD + FOOT)
    starts = ends - lengths - FOOT
    out = np.zeros(int(ends[-1]) if len(ends) else 0, np.uint8)
    out[starts] = _TIME_KEY
    out[(starts + 1)[:, None] + np.arange(8)] = times.astype("<f8").view(np.uint8).reshape(-1, 8)
    stepped = step_widths > 0
    out[starts[stepped] + _TIME_END] = _STEP_KEY
    _write_integers(out, starts + _TIME_END + 1, bits, step_widths)
    at = starts + lead
    out[at] = _SUMMARY_KEY
    _write_integers(out, at + 1, sizes.view(np.uint64), size_widths)
    at = at + 1 + size_widths
    for one, block in zip(series, rows, strict=True):
        out[at[one.present][:, None] + np.arange(block.shape[1])] = block
        at[one.present] += block.shape[1]
    seal_records(out, starts, lengths)
    return out.tobytes()


def _widths(bits: Array) -> Integers:
    """Return how many bytes integers take, seven bits a byte."""
    found = np.ones(len(bits), np.int64)
    for k in range(1, _WIDEST_STEP):
        found += bits >= np.uint64(1 << (7 * k))
    return found


def _write_integers(out: Array, at: Integers, bits: Array, widths: Integers) -> None:
    for k in range(int(widths.max(initial=0))):
        chosen = widths > k
        low = (bits[chosen] >> np.uint64(7 * k)) & np.uint64(0x7F)
        more = np.where(widths[chosen] > k + 1, 0x80, 0).astype(np.uint8)
        out[at[chosen] + k] = low.astype(np.uint8) | more
