"""Messages in TensorBoard's event files: the few of them that matter, read from the wire.

The messages are described by `event.proto`, `summary.proto`, `tensor.proto` and `histogram.proto`
in https://github.com/tensorflow/tensorboard/tree/master/tensorboard/compat/proto and by
`api.proto` and `plugin_data.proto` in its `plugins/hparams`; the wire by
https://protobuf.dev/programming-guides/encoding. Members of an unknown number are passed over, as
every reader of protocol buffers does. This package uses three such numbers in `Summary.Value` (see
`EXACT_FLOAT`), so that TensorBoard shows what it can and nothing of a run is lost.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy.typing as npt

VARINT: Final = 0
FIXED64: Final = 1
LENGTH: Final = 2
FIXED32: Final = 5

EXACT_FLOAT: Final = 2001
"""Member of `Summary.Value`, fixed64: a float64 whose `simple_value` is rounded."""
EXACT_INT: Final = 2002
"""Member of `Summary.Value`, fixed64: an int64 whose `simple_value` is a float."""
EXACT_BOOL: Final = 2003
"""Member of `Summary.Value`, varint: a bool whose `simple_value` is a float."""
EXACT_MEDIUM: Final = 2004
"""Member of `Summary.Value`, JSON: kind, and value if TensorBoard is shown something else."""

MOST_ELEMENTS: Final = 2**22
"""Elements of a tensor that are accepted where the file holds fewer and the last is repeated."""

_DTYPES: Final[dict[int, str]] = {
    1: "<f4",
    2: "<f8",
    3: "<i4",
    4: "<u1",
    5: "<i2",
    6: "<i1",
    8: "<c8",
    9: "<i8",
    10: "?",
    17: "<u2",
    18: "<c16",
    19: "<f2",
    22: "<u4",
    23: "<u8",
}
BFLOAT16: Final = 14
STRING: Final = 7

_LAST: Final = 0x7F  # the last byte of an integer is at most this, the others above
_ALL_BITS: Final = 0xFFFFFFFFFFFFFFFF

View: TypeAlias = "memoryview | bytes"


class MalformedError(ValueError):
    """Bytes are not the message they were taken for, although their checksum is right."""


# -- the wire


def varint(data: View, at: int) -> tuple[int, int]:
    """Return the unsigned integer at a place, and the place after it.

    Raises:
        MalformedError: If there is none.
    """
    value = 0
    for shift, byte in zip(range(0, 70, 7), data[at : at + 10], strict=False):
        value |= (byte & 0x7F) << shift
        if byte <= _LAST:
            return value & _ALL_BITS, at + shift // 7 + 1
    raise MalformedError("an integer has no end")


def signed(value: int) -> int:
    """Return an int64 from its bits."""
    return value - 2**64 if value >= 2**63 else value


class Field(NamedTuple):
    """A member of a message.

    Attributes:
        number: Which it is.
        wire: How it is written.
        value: An integer, or the bytes.
        at: Where the value begins.
    """

    number: int
    wire: int
    value: Any
    at: int


def fields(data: View) -> Iterator[Field]:
    """Yield the members of a message in their order.

    Raises:
        MalformedError: If it is no message.
    """
    at, end = 0, len(data)
    while at < end:
        key, at = varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            value, after = varint(data, at)
            yield Field(number, wire, value, at)
            at = after
            continue
        if wire == LENGTH:
            size, at = varint(data, at)
        elif wire in {FIXED64, FIXED32}:
            size = 8 if wire == FIXED64 else 4
        else:
            raise MalformedError(f"a member is written in the unknown way {wire}")
        if not number or at + size > end:
            raise MalformedError("a member is longer than its message")
        yield Field(number, wire, data[at : at + size], at)
        at += size


def blobs(data: View) -> dict[int, Any]:
    """Return the members of a message that are bytes, by number; the last of a number counts."""
    return {each.number: each.value for each in fields(data) if each.wire == LENGTH}


def integers(data: View) -> dict[int, int]:
    """Return the members of a message that are integers, by number."""
    return {each.number: each.value for each in fields(data) if each.wire == VARINT}


def doubles(data: View) -> dict[int, float]:
    """Return the members of a message that are float64, by number."""
    return {each.number: double(each.value) for each in fields(data) if each.wire == FIXED64}


def text(data: View) -> str:
    r"""Return a text; bytes that are not UTF-8 stand in it as `\xNN`."""
    return bytes(data).decode("utf-8", "backslashreplace")


def double(data: View) -> float:
    """Return a float64."""
    return float(struct.unpack("<d", data)[0])


# -- what an event holds


@dataclass(slots=True)
class Event:
    """A record of an event file.

    Attributes:
        time: Unix seconds; None where it is not said.
        step: An int64.
        what: Number of the member that says what happened; 0 if there is none.
        data: That member.
        writer: What wrote the file, if it says so.
    """

    time: float | None = None
    step: int = 0
    what: int = 0
    data: Any = b""
    writer: str = ""


FILE_VERSION, GRAPH, SUMMARY, LOG, SESSION_LOG, RUN_METADATA, META_GRAPH, SOURCE = range(3, 11)
"""Numbers of members of an event."""


def read_event(data: View) -> Event:
    """Read an event.

    Raises:
        MalformedError: If it is none.
    """
    event = Event()
    for number, wire, value, _ in fields(data):
        if number == 1 and wire == FIXED64:
            event.time = double(value)
        elif number == 2 and wire == VARINT:  # noqa: PLR2004 - step
            event.step = signed(value)
        elif FILE_VERSION <= number <= META_GRAPH and wire == LENGTH:
            event.what, event.data = number, value
        elif number == SOURCE and wire == LENGTH:
            event.writer = text(blobs(value).get(1, b""))
    return event


@dataclass(slots=True)
class Metadata:
    """What the first value of a tag says about all of them."""

    plugin: str = ""
    content: Any = b""
    display_name: str = ""
    description: str = ""


@dataclass(slots=True)
class Value:
    """One thing of a summary.

    Attributes:
        tag: Its name.
        metadata: What is said about the tag.
        what: Number of the member that holds it; 0 if there is none.
        data: That member.
        at: Where it begins.
        exact: Number and content of the member that holds what this package wrote beside it.
    """

    tag: str = ""
    metadata: Metadata | None = None
    what: int = 0
    data: Any = b""
    at: int = 0
    exact: Field | None = None


SIMPLE, OLD_HISTOGRAM, IMAGE, HISTOGRAM, AUDIO = range(2, 7)
TENSOR: Final = 8
_WIRES: Final = {
    SIMPLE: FIXED32,
    **dict.fromkeys((OLD_HISTOGRAM, IMAGE, HISTOGRAM, AUDIO, TENSOR), LENGTH),
}
_EXACT_WIRES: Final = {
    EXACT_FLOAT: FIXED64,
    EXACT_INT: FIXED64,
    EXACT_BOOL: VARINT,
    EXACT_MEDIUM: LENGTH,
}


def read_values(data: View) -> Iterator[tuple[Value, int]]:
    """Yield what a summary holds, and where each begins.

    Raises:
        MalformedError: If it is none.
    """
    for number, wire, message, at in fields(data):
        if number == 1 and wire == LENGTH:
            yield _read_value(message), at


def _read_value(data: View) -> Value:
    found, node = Value(), ""
    for member in fields(data):
        number, wire, value, at = member
        if wire == _WIRES.get(number):
            found.what, found.data, found.at = number, value, at
        elif wire == _EXACT_WIRES.get(number):
            found.exact = member
        elif wire == LENGTH and number == 1:
            found.tag = text(value)
        elif wire == LENGTH and number == 7:  # noqa: PLR2004 - node_name, of TensorFlow 1.0
            node = text(value)
        elif wire == LENGTH and number == 9:  # noqa: PLR2004 - metadata
            found.metadata = read_metadata(value)
    found.tag = found.tag or node
    return found


def read_metadata(data: View) -> Metadata:
    """Read what is said about a tag."""
    members = blobs(data)
    plugin = blobs(members.get(1, b""))
    return Metadata(
        plugin=text(plugin.get(1, b"")),
        content=plugin.get(2, b""),
        display_name=text(members.get(2, b"")),
        description=text(members.get(3, b"")),
    )


def exact_number(member: Field) -> bool | int | float:
    """Return the number that this package wrote beside a float32."""
    if member.number == EXACT_BOOL:
        return bool(member.value)
    if member.number == EXACT_INT:
        return int.from_bytes(member.value, "little", signed=True)
    return double(member.value)


# -- tensors


@dataclass(slots=True)
class Tensor:
    """A tensor as it stands in a file.

    Attributes:
        dtype: Number of its type.
        shape: Its dimensions.
        content: Its elements in memory order, if they stand so.
        content_at: Where they begin.
        strings: Its texts.
        parts: Its elements by number of the member, if they stand so.
        parts_at: Where the only such member begins.
    """

    dtype: int = 0
    shape: list[int] = field(default_factory=list)
    content: Any = b""
    content_at: int = 0
    strings: list[Any] = field(default_factory=list)
    parts: dict[int, list[Any]] = field(default_factory=dict)
    parts_at: int = 0


_PART_DTYPES: Final = {5: "<f4", 6: "<f8", 9: "<f4", 12: "<f8"}
_STRING_PART: Final = 8
_HALF_PART: Final = 13
_INTEGER_PARTS: Final = {7, 10, 11, _HALF_PART, 16, 17}
_PART_OF: Final = {
    1: 5,
    2: 6,
    8: 9,
    18: 12,
    9: 10,
    10: 11,
    22: 16,
    23: 17,
    **dict.fromkeys((3, 4, 5, 6, 17), 7),
    **dict.fromkeys((BFLOAT16, 19), _HALF_PART),
}


def read_tensor(data: View) -> Tensor:
    """Read a tensor.

    Raises:
        MalformedError: If it is none.
    """
    found = Tensor()
    for number, wire, value, at in fields(data):
        if number == 1 and wire == VARINT:
            found.dtype = value
        elif number == 2 and wire == LENGTH:  # noqa: PLR2004 - tensor_shape
            found.shape = [
                signed(integers(dim.value).get(1, 0))
                for dim in fields(value)
                if dim.number == 2 and dim.wire == LENGTH  # noqa: PLR2004 - dim
            ]
        elif number == 4 and wire == LENGTH:  # noqa: PLR2004 - tensor_content
            found.content, found.content_at = value, at
        elif number == _STRING_PART and wire == LENGTH:
            found.strings.append(value)
        elif number in _PART_DTYPES:
            if wire == VARINT or len(value) % int(_PART_DTYPES[number][2]):
                raise MalformedError("the elements of a tensor are cut")
            found.parts.setdefault(number, []).append(value)
            found.parts_at = at
        elif number in _INTEGER_PARTS:
            found.parts.setdefault(number, []).extend(
                [value] if wire == VARINT else _varints(value)
            )
    return found


def _varints(data: View) -> list[int]:
    found, at = [], 0
    while at < len(data):
        value, at = varint(data, at)
        found.append(value)
    return found


def array(tensor: Tensor) -> npt.NDArray[Any]:
    """Return the numbers of a tensor; bfloat16 becomes float32, which holds it exactly.

    Where there are fewer elements than its shape asks for, the last is repeated, as in TensorFlow.

    Raises:
        MalformedError: If its type is unknown, or its elements do not fit its shape.
    """
    bits = "<u2" if tensor.dtype == BFLOAT16 else _DTYPES.get(tensor.dtype)
    if bits is None:
        raise MalformedError(f"a tensor has the type {tensor.dtype}, which has no counterpart")
    dtype = np.dtype(bits)
    count = 1
    for size in tensor.shape:
        count *= size
    if min(tensor.shape, default=0) < 0:
        raise MalformedError("a tensor has a negative dimension")
    if len(tensor.content):
        if len(tensor.content) != count * dtype.itemsize:
            raise MalformedError("a tensor has more or fewer elements than its shape")
        flat = np.frombuffer(tensor.content, dtype)
    else:
        flat = _from_parts(tensor, dtype)
        if len(flat) > count or (count > len(flat) and count > MOST_ELEMENTS):
            raise MalformedError("a tensor has more or fewer elements than its shape")
        if len(flat) < count:
            last = flat[-1:] if len(flat) else np.zeros(1, dtype)
            flat = np.concatenate([flat, np.repeat(last, count - len(flat))])
    if tensor.dtype == BFLOAT16:
        flat = (flat.astype("<u4") << np.uint32(16)).view("<f4")
    try:
        return flat.reshape(tensor.shape)
    except ValueError as error:
        raise MalformedError(f"a tensor has an impossible shape: {error}") from None


def _from_parts(tensor: Tensor, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return the elements that stand one by one."""
    number = _PART_OF[tensor.dtype]
    parts = tensor.parts.get(number, [])
    if number in _PART_DTYPES:
        flat = np.frombuffer(b"".join(parts), _PART_DTYPES[number])
        if dtype.kind == "c" and len(flat) % 2:
            raise MalformedError("the elements of a tensor are cut")
        return flat.view(dtype) if dtype.kind == "c" else flat
    if number == _HALF_PART:
        return np.array([part & 0xFFFF for part in parts], "<u2").view(dtype)
    return np.array(parts, "<u8").astype(dtype)


def read_histogram(data: View) -> dict[str, Any]:
    """Read a histogram of TensorFlow 1: its statistics, `limits` and `counts`.

    Raises:
        MalformedError: If it is none.
    """
    names = {1: "min", 2: "max", 3: "num", 4: "sum", 5: "sum_squares"}
    statistics = doubles(data)
    found: dict[str, Any] = {name: statistics.get(number, 0.0) for number, name in names.items()}
    for number, name in ((6, "limits"), (7, "counts")):
        parts = [each.value for each in fields(data) if each.number == number and each.wire]
        joined = b"".join(parts)
        if len(joined) % 8:
            raise MalformedError("the buckets of a histogram are cut")
        found[name] = np.frombuffer(joined, "<f8").tolist()
    if len(found["limits"]) != len(found["counts"]):
        raise MalformedError("a histogram has not one limit for each count")
    return found


# -- writing


def integer(value: int) -> bytes:
    """Return an integer as it stands on the wire; a negative one takes ten bytes."""
    value &= _ALL_BITS
    found = bytearray()
    while value > _LAST:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def member(number: int, value: bytes | str | float) -> bytes:
    """Return a member of a message: bytes and texts by length, floats as float64, integers."""
    if isinstance(value, float):
        return integer(number << 3 | FIXED64) + struct.pack("<d", value)
    if isinstance(value, int):
        return integer(number << 3 | VARINT) + integer(value)
    data = value.encode("utf-8", "replace") if isinstance(value, str) else value
    return integer(number << 3 | LENGTH) + integer(len(data)) + data


def event(time: float, step: int, what: int, data: bytes | str) -> bytes:
    """Return an event."""
    at = member(2, step) if step else b""
    return member(1, time) + at + member(what, data)


def tensor(values: npt.NDArray[Any] | Iterable[bytes], shape: Iterable[int]) -> bytes:
    """Return a tensor of numbers or of strings.

    Raises:
        ValueError: If there is no such type of numbers.
    """
    dims = b"".join(member(2, member(1, size)) for size in shape)
    if isinstance(values, np.ndarray):
        little = values.astype(values.dtype.newbyteorder("<"))
        name = "?" if little.dtype.kind == "b" else little.dtype.str.replace("|", "<")
        number = next((key for key, dtype in _DTYPES.items() if dtype == name), None)
        if number is None:
            raise ValueError(f"no tensor has elements of the type {values.dtype}")
        return member(1, number) + member(2, dims) + member(4, little.tobytes())
    return member(1, STRING) + member(2, dims) + b"".join(member(8, value) for value in values)


def metadata(plugin: str, content: bytes = b"", description: str = "") -> bytes:
    """Return what the first value of a tag says about all of them."""
    said = member(1, member(1, plugin) + (member(2, content) if content else b""))
    return said + (member(3, description) if description else b"")
