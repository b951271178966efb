"""Texts, images, histograms and other tensors of TensorBoard's event files, as media."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from blackboxml.foreign.interchange import Medium
from blackboxml.foreign.tensorboard import messages
from blackboxml.foreign.values import NPY, to_npy
from blackboxml.model import INT64_MAX

if TYPE_CHECKING:
    import numpy.typing as npt

    from blackboxml.foreign.interchange import Ledger
    from blackboxml.foreign.tensorboard.messages import Event, Tensor, Value
    from blackboxml.foreign.values import Names

PROTO: Final = "application/x-protobuf"
_SIZE: Final = 2  # strings before the images: width and height in pixels

SILENT: Final = frozenset(["hparams", "blackbox"])
"""Plugins whose tags are read before all others; see `hparams`."""

_GREATEST: Final = 1.7976931348623157e308
_IMAGES: Final = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"BM": "image/bmp",
}


@dataclass(slots=True)
class Media:
    """Makes media of values.

    Attributes:
        names: Names for tags.
        ledger: Receives what is changed.
        rank: The rank that logged them.
    """

    names: Names
    ledger: Ledger
    rank: int

    def read(self, value: Value, event: Event, plugin: str) -> bool | int | float | list[Medium]:
        """Return the number or the media that a value of a summary is.

        Args:
            value: The value.
            event: The event it stands in.
            plugin: Which of TensorBoard's plugins its tag belongs to.

        Raises:
            MalformedError: If it is not what it says.
        """
        exact = value.exact
        if exact is not None and exact.number != messages.EXACT_MEDIUM:
            return messages.exact_number(exact)
        if value.what == messages.SIMPLE:
            return float(np.frombuffer(value.data, "<f4")[0])
        found: bool | int | float | list[Medium] = self._other(value, event, plugin)
        return found

    def _other(self, value: Value, event: Event, plugin: str) -> Any:
        said = {"kind": ""} if value.exact is None else _exact_medium(value.exact.value)
        if "value" in said:
            return [self.of_value(event, value.tag, said["kind"], said["value"])]
        if value.what == messages.TENSOR:
            return self._tensor(value, event, plugin, said["kind"])
        if value.what == messages.HISTOGRAM:
            return [self._old_histogram(value, event)]
        return [self._old_file(value, event)] if value.what else []  # metadata alone

    def _old_file(self, value: Value, event: Event) -> Medium:
        """Return a file that is no tensor, as TensorFlow 1 wrote them."""
        if value.what == messages.OLD_HISTOGRAM:
            return self.of_file(event, value.tag, value.data, PROTO)
        parts = messages.blobs(value.data)
        if value.what == messages.IMAGE:
            return self._image(event, value.tag, parts.get(4, b""), "image")
        form = messages.text(parts.get(5, b"audio/wav"))
        return self.of_file(event, value.tag, parts.get(4, b""), form, "audio")

    def _tensor(self, value: Value, event: Event, plugin: str, kind: str) -> Any:
        if plugin in SILENT:
            return []
        tensor = messages.read_tensor(value.data)
        if tensor.dtype == messages.STRING:
            return self._strings(tensor, value.tag, event, plugin, kind)
        found = messages.array(tensor)
        if kind != "array":
            single = found.size == 1 and (not found.shape or plugin == "scalars")
            if single and found.dtype.kind != "c":
                return self._number(found.reshape(()), value.tag)
            if plugin == "histograms" and found.shape[1:] == (3,):
                return [self._histogram(found.astype(np.float64), value.tag, event)]
        return [self.of_file(event, value.tag, to_npy(found), NPY, "array")]

    def _number(self, found: npt.NDArray[Any], tag: str) -> bool | int | float:
        number = found.item()
        if isinstance(number, int) and number > INT64_MAX:
            by = abs(int(float(number)) - number)
            what = "an integer above the greatest int64 became a float64"
            self.ledger.changed("scalar", what, where=tag, by=float(by))
            return float(number)
        return number  # type: ignore[no-any-return]

    def _strings(
        self, tensor: Tensor, tag: str, event: Event, plugin: str, kind: str
    ) -> list[Medium]:
        """Return what a tensor of strings is."""
        if plugin == "images" and len(tensor.strings) >= _SIZE:
            images = tensor.strings[_SIZE:]
            return [self._image(event, tag, image, kind or "image") for image in images]
        if plugin == "audio":
            return self._audio(tensor, tag, event)
        try:
            texts = [bytes(each).decode() for each in tensor.strings]
        except UnicodeDecodeError:
            texts = []
        if plugin not in {"", "text"} or len(texts) < len(tensor.strings):
            return [self.of_file(event, tag, each, None) for each in tensor.strings]
        return [self._texts(texts, tensor.shape, tag, event)]

    def _texts(self, texts: list[str], shape: list[int], tag: str, event: Event) -> Medium:
        """Return a text, or a table of texts."""
        if len(texts) == 1 and shape in ([], [1]):
            return self.of_value(event, tag, "text", texts[0])
        if len(shape) not in {1, 2} or math.prod(shape) != len(texts):
            said: dict[str, Any] = {"shape": shape, "texts": texts}
            return self.of_value(event, tag, "event", said)
        width = 1 if len(shape) == 1 else shape[1]
        rows = [texts[at : at + width] for at in range(0, len(texts), max(width, 1))]
        said = {"columns": [str(column) for column in range(width)], "rows": rows}
        return self.of_value(event, tag, "table", said)

    def _audio(self, tensor: Tensor, tag: str, event: Event) -> list[Medium]:
        """Return clips, and the labels that stand beside them."""
        clips, labels = tensor.strings, []
        if tensor.shape[1:] == [2]:
            clips, labels = tensor.strings[::2], tensor.strings[1::2]
        found = [self.of_file(event, tag, clip, "audio/wav", "audio") for clip in clips]
        found += [
            self.of_value(event, f"{tag}/label", "text", messages.text(label))
            for label in labels
            if len(label)
        ]
        return found

    def _old_histogram(self, value: Value, event: Event) -> Medium:
        """Return a histogram of TensorFlow 1, with its statistics.

        `limits` are the right edges. What lies below the first one has `min` for its left edge,
        and a last edge that stands for infinity becomes `max`; without a count there is no bucket.
        """
        said = messages.read_histogram(value.data)
        limits, counts = said.pop("limits"), said.pop("counts")
        while counts and not counts[-1] and limits[-1] >= _GREATEST:
            limits, counts = limits[:-1], counts[:-1]
        while len(counts) > 1 and not counts[0] and limits[0] <= -_GREATEST:
            limits, counts = limits[1:], counts[1:]
        if counts and counts[0]:
            limits, counts = [said["min"], *limits], [0.0, *counts]
        if limits and limits[-1] >= _GREATEST:
            limits = [*limits[:-1], said["max"]]
        return self._buckets(limits, counts[1:], said, value.tag, event)

    def _histogram(self, found: npt.NDArray[Any], tag: str, event: Event) -> Medium:
        """Return a histogram of TensorFlow 2: rows of left edge, right edge and count."""
        left, right, counts = found.T
        if len(found) and np.array_equal(left[1:], right[:-1]):
            edges = [float(left[0]), *right.tolist()]
            return self._buckets(edges, counts.tolist(), {}, tag, event)
        said = {"columns": ["left", "right", "count"], "rows": found.tolist()}
        what = "a histogram whose buckets do not adjoin became a table"
        self.ledger.changed("histogram", what, where=f"{tag} at step {event.step}")
        return self.of_value(event, tag, "table", said)

    def _buckets(
        self, edges: list[float], counts: list[float], more: dict[str, Any], tag: str, event: Event
    ) -> Medium:
        """Return a histogram, if edges and counts make one."""
        if len(edges) == len(counts) + 1 and counts and sorted(edges) == edges:
            return self.of_value(
                event, tag, "histogram", {"edges": edges, "counts": counts, **more}
            )
        what = "a histogram without buckets, or whose edges do not ascend, became an event"
        self.ledger.changed("histogram", what, where=f"{tag} at step {event.step}")
        return self.of_value(event, tag, "event", {"edges": edges, "counts": counts, **more})

    def _image(self, event: Event, tag: str, data: Any, kind: str) -> Medium:
        begin = bytes(data[:12])
        form = next((form for mark, form in _IMAGES.items() if begin.startswith(mark)), None)
        if begin[:4] == b"RIFF" and begin[8:] == b"WEBP":
            form = "image/webp"
        return self.of_file(event, tag, data, form, kind)

    def of_value(self, event: Event, tag: str, kind: str, value: Any) -> Medium:
        """Return a small medium."""
        return Medium(self.names(tag), kind, event.step, event.time, value=value, rank=self.rank)

    def of_file(
        self, event: Event, tag: str, data: Any, media_type: str | None, kind: str = "artifact"
    ) -> Medium:
        """Return a medium that is a file."""
        return Medium(
            self.names(tag),
            kind,
            event.step,
            event.time,
            data=bytes(data),
            media_type=media_type,
            rank=self.rank,
        )


def _exact_medium(data: Any) -> dict[str, Any]:
    """Return what this package says about a medium that TensorBoard is shown otherwise.

    Raises:
        MalformedError: If it is nothing of the kind.
    """
    try:
        said = json.loads(bytes(data))
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict) or not isinstance(said.get("kind"), str):
        raise messages.MalformedError("what stands beside a medium is damaged")
    return said
