"""The media methods of a run: what a caller has, encoded and recorded at a step."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from blackboxml.encoding import artifact
from blackboxml.encoding.array import encode_array
from blackboxml.encoding.figure import encode_figure
from blackboxml.encoding.graph import encode_graph
from blackboxml.encoding.histogram import encode_histogram
from blackboxml.encoding.image import encode_image
from blackboxml.encoding.table import encode_table
from blackboxml.errors import MetricError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Unpack

    from blackboxml.encoding import Encoded
    from blackboxml.media.medium import Content
    from blackboxml.writer import RunWriter

How = Literal["copy", "link", "reference"]
"""What becomes of an artifact: its bytes are copied, linked, or stay where they are."""

Level = Literal["info", "warning", "error"]

ALERT: Final = "alert"
"""The name of the events that `alert` records."""


class MediaLog:
    """Records what is no number: texts, images, histograms, arrays, tables, figures, files.

    Each method takes a name as that of a metric, with its group before the first `/`, and a step:
    an int64, by default that of the last point, or 0. What is recorded survives that the process is
    killed; files become durable in the background, as points do. A full disk leaves a medium out
    with one warning. All methods raise these errors:

    - MetricError: If the name, the step or the thing itself cannot be stored; nothing was recorded.
    - RunStateError: If the run was not started, or has ended.
    - WriteError: If the file system refuses and `strict` is set.
    """

    def _require(self) -> RunWriter:
        """Return the writer of a run that was started."""
        raise NotImplementedError

    def log_media(
        self, name: str, kind: str, step: int | None = None, **content: Unpack[Content]
    ) -> None:
        """Record something other than numbers, as it is to be kept; see `RunWriter.log_media`.

        Args:
            name: As the name of a metric.
            kind: `text`, `image`, `histogram`, `array`, `table`, `figure`, `graph`, `artifact`,
                `event`, or another word.
            step: An int64.
            **content: One of `value`, `data`, `path` and `reference`, and what else is to be said
                of it; see `medium.Content`.
        """
        self._require().log_media(name, kind, step, **content)

    def log_text(self, name: str, text: str, step: int | None = None) -> None:
        """Record a text of any length."""
        self._require().log_media(name, "text", step, value=text)

    def log_image(self, name: str, image: Any, step: int | None = None) -> None:
        """Record an image: pixels as PNG, anything else as it is.

        Args:
            name: As the name of a metric.
            image: Pixels of shape (height, width) or (height, width, channels) with 1, 3 or 4
                channels, from NumPy, PyTorch or another framework: integers 0 … 255, bools, or
                floats 0 … 1, where another value or NaN is an error; an image of Pillow; the path
                of a file; or the bytes of one.
            step: An int64.

        Raises:
            MissingDependencyError: If pixels are given and Pillow is not installed.
        """
        with _naming("image", name):
            encoded = encode_image(image)
        self._log(name, encoded, step)

    def log_histogram(
        self, name: str, values: Any, bins: int = 30, step: int | None = None
    ) -> None:
        """Record how many of some numbers fall into bins of equal width.

        Args:
            name: As the name of a metric.
            values: Real numbers of any shape and framework. NaN and the infinities are in no bin
                and are counted apart.
            bins: How many, from 1 to 1,000,000.
            step: An int64.
        """
        with _naming("histogram", name):
            encoded = encode_histogram(values, bins)
        self._log(name, encoded, step)

    def log_array(
        self,
        name: str,
        values: Any,
        step: int | None = None,
        *,
        dims: Sequence[str] | None = None,
    ) -> None:
        """Record an array of numbers, which stands in the dataset of its group when it is sealed.

        Args:
            name: As the name of a metric.
            values: Numbers of any shape and framework.
            step: An int64.
            dims: Names of its dimensions, such as `["chain", "parameter"]`.
        """
        with _naming("array", name):
            encoded = encode_array(values, dims)
        self._log(name, encoded, step, dims)

    def log_table(
        self, name: str, rows: Any, columns: Sequence[str] | None = None, step: int | None = None
    ) -> None:
        """Record a table; a large frame is kept as Parquet.

        Args:
            name: As the name of a metric.
            rows: A list of rows, each a list of cells or a mapping by column; a mapping of columns;
                or a frame of polars, pandas or Arrow.
            columns: Names of the columns, where the rows do not say them.
            step: An int64.
        """
        with _naming("table", name):
            encoded = encode_table(rows, columns)
        self._log(name, encoded, step)

    def log_figure(
        self,
        name: str,
        figure: Any,
        step: int | None = None,
        *,
        formats: Iterable[str] = ("png",),
        dpi: float | None = None,
    ) -> None:
        """Record a figure of matplotlib, once in each format.

        Args:
            name: As the name of a metric.
            figure: The figure.
            step: An int64.
            formats: Some of `png` and `svg`.
            dpi: Dots per inch of a PNG; by default what the figure says.
        """
        with _naming("figure", name):
            drawn = encode_figure(figure, formats, dpi=dpi)
        step = self._require().last_step if step is None else step
        for encoded in drawn:
            self._log(name, encoded, step)

    def log_graph(
        self, name: str, nodes: Iterable[Any], edges: Iterable[Any], step: int | None = None
    ) -> None:
        """Record a graph of any size, such as the operations of a model.

        Args:
            name: As the name of a metric.
            nodes: Any JSON each, usually an object with an `id`.
            edges: Any JSON each, usually an object with `source` and `target`, or a pair.
            step: An int64.
        """
        with _naming("graph", name):
            encoded = encode_graph(nodes, edges)
        self._log(name, encoded, step)

    def log_artifact(
        self,
        name: str,
        source: str | os.PathLike[str],
        step: int | None = None,
        *,
        how: How = "copy",
        digest: bool = True,
    ) -> None:
        """Record a file, or a folder with all files in it.

        Args:
            name: As the name of a metric.
            source: Path of the file or folder; or a URI, which is recorded as it is.
            step: An int64.
            how: `copy` it into the run; `link` it, where the file system can, so that it takes no
                room twice, but what is written into the file later changes the run too; or record
                a `reference` to it, which holds as long as it stays where it is.
            digest: Compute the SHA-256 of what is only referred to, which reads all of it.
        """
        with _naming("artifact", name):
            if how not in get_args(How):
                raise ValueError(f"how is {how!r:.80}, wanted {', '.join(get_args(How))}")
            outside = artifact.is_uri(source)
            if outside and how != "reference":
                raise ValueError('a URI is not fetched; give a path, or how="reference"')
            files = [] if outside else artifact.list_files(source)
        writer = self._require()
        step = writer.last_step if step is None else step
        if outside:
            writer.log_media(name, "artifact", step, reference={"uri": source})
        for entry, path in files:
            content: Content = {"entry": entry, "media_type": artifact.media_type_of(path)}
            if how == "reference":
                with _naming("artifact", name):
                    content["reference"] = artifact.refer_to(path, digest=digest)
            else:
                content |= {"path": path, "link": how == "link", "folder": "artifacts"}
            writer.log_media(name, "artifact", step, **content)

    def alert(
        self, title: str, text: str = "", level: Level = "info", step: int | None = None
    ) -> None:
        """Record that something happened that a person should know, as the event `alert`.

        Args:
            title: In a few words.
            text: At any length.
            level: `info`, `warning` or `error`.
            step: An int64.
        """
        with _naming("event", ALERT):
            if level not in get_args(Level):
                raise ValueError(f"level is {level!r:.80}, wanted {', '.join(get_args(Level))}")
            for what, said in (("title", title), ("text", text)):
                if not isinstance(said, str):
                    message = f"the {what} is {said!r:.80}, wanted text"
                    raise ValueError(message)  # noqa: TRY004 - one kind of error for all arguments
        value = {"level": level, "title": title, "text": text}
        self._require().log_media(ALERT, "event", step, value=value)

    def _log(
        self, name: str, encoded: Encoded, step: int | None, dims: Sequence[str] | None = None
    ) -> None:
        """Record what was encoded."""
        kind, value, data, path, media_type = encoded
        content: Content = {"value": value, "data": data, "path": path, "media_type": media_type}
        content["dims"] = dims
        self._require().log_media(name, kind, step, **content)


@contextmanager
def _naming(kind: str, name: object) -> Iterator[None]:
    """Let an error of an argument say which medium it is about.

    Raises:
        MetricError: In place of it.
    """
    try:
        yield
    except (ValueError, OSError) as error:
        message = f"the {kind} {name!r:.80}: {error}"
        raise MetricError(message) from None
