"""Python values as media: what is taken, what becomes of it, and what is refused."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from matplotlib.figure import Figure
from PIL import Image

from blackboxml.encoding.array import encode_array, to_array
from blackboxml.encoding.figure import encode_figure
from blackboxml.encoding.graph import encode_graph
from blackboxml.encoding.histogram import encode_histogram
from blackboxml.encoding.image import encode_image
from blackboxml.encoding.table import encode_table
from blackboxml.media.medium import value_fault

if TYPE_CHECKING:
    from pathlib import Path

    from blackboxml.encoding import Encoded

PIXELS = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)


def pixels(encoded: Encoded) -> Any:
    assert encoded.data is not None
    return np.asarray(Image.open(io.BytesIO(encoded.data)))


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (PIXELS, PIXELS),
        (PIXELS[:, :, 0], PIXELS[:, :, 0]),
        (PIXELS[:, :, :1], PIXELS[:, :, 0]),
        (np.dstack([PIXELS, PIXELS[:, :, 0]]), np.dstack([PIXELS, PIXELS[:, :, 0]])),
        (PIXELS[::-1].astype(np.int64), PIXELS[::-1]),
        (PIXELS / 255, PIXELS),
        ((PIXELS / 255).astype(np.float16), PIXELS),
        (PIXELS > 5, (PIXELS > 5) * np.uint8(255)),
        (torch.tensor([[0.0, 1.0]], requires_grad=True), [[0, 255]]),
        (torch.tensor([[0.0, 1.0]], dtype=torch.bfloat16), [[0, 255]]),
        (jnp.asarray([[0.0, 0.5]]), [[0, 128]]),
        (Image.fromarray(PIXELS), PIXELS),
    ],
)
def test_pixels_become_png(image: Any, expected: Any) -> None:
    encoded = encode_image(image)
    assert (encoded.kind, encoded.media_type) == ("image", "image/png")
    assert np.array_equal(pixels(encoded), expected)


def test_encoded_images_stay_as_they_are(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "JPEG")
    encoded = encode_image(file.getvalue())
    assert (encoded.data, encoded.media_type) == (file.getvalue(), "image/jpeg")
    (tmp_path / "a.webp").write_bytes(b"RIFF0000WEBP")
    encoded = encode_image(tmp_path / "a.webp")
    assert (encoded.path, encoded.media_type) == (tmp_path / "a.webp", "image/webp")
    with pytest.raises(FileNotFoundError):
        encode_image(tmp_path / "nowhere.png")


def test_a_picture_with_other_colours_becomes_rgb() -> None:
    assert pixels(encode_image(Image.new("CMYK", (2, 2)))).shape == (2, 2, 3)


@pytest.mark.parametrize(
    ("image", "error"),
    [
        (np.zeros(3), r"shape \(3,\) are no image"),
        (np.zeros((0, 3)), "no image"),
        (np.zeros((2, 2, 2)), "no image"),
        (np.zeros((3, 8, 8)), "channels come last"),
        (np.full((2, 2), 1.5), r"reach from 1.5 to 1.5, wanted 0 … 1 .*clip"),
        (np.full((2, 2), np.nan), "wanted 0 … 1"),
        (np.full((2, 2), 256), "wanted 0 … 255"),
        (np.full((2, 2), -1), "wanted 0 … 255"),
        (np.zeros((2, 2), complex), "complex128"),
        (np.array([["a"]]), "holds no numbers"),
        (b"GIF9", "is no PNG"),
        (object(), "holds no numbers"),
    ],
)
def test_what_is_no_image_is_refused(image: Any, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        encode_image(image)


@pytest.mark.parametrize("values", [[1, 2, 3.5, 2], torch.tensor([1, 2, 3.5, 2]), 7, [True, False]])
def test_numbers_become_bins_of_equal_width(values: Any) -> None:
    value = encode_histogram(values, bins=5).value
    counts, edges = np.histogram(np.asarray(values, dtype=float), 5)
    assert value == {"edges": edges.tolist(), "counts": counts.tolist()}


def test_numbers_that_are_not_finite_are_counted_apart() -> None:
    value = encode_histogram([1.0, np.nan, 3.0, np.inf, -np.inf], bins=2).value
    assert value == {"edges": [1.0, 2.0, 3.0], "counts": [1, 1], "nonfinite": 3}
    assert encode_histogram([], bins=1).value == {"edges": [0.0, 1.0], "counts": [0]}
    assert encode_histogram([np.nan], bins=1).value["nonfinite"] == 1


@given(hnp.arrays(np.float64, st.integers(0, 20), elements=st.floats()), st.integers(1, 40))
def test_every_finite_number_is_in_a_bin(values: Any, bins: int) -> None:
    value = encode_histogram(values, bins).value
    assert value_fault("histogram", value) is None
    assert len(value["counts"]) == bins
    finite = np.isfinite(values)
    assert sum(value["counts"]) == finite.sum()
    assert value.get("nonfinite", 0) == (~finite).sum()
    assert np.isfinite(value["edges"]).all()
    if finite.any():
        assert value["edges"][0] <= values[finite].min()
        assert value["edges"][-1] >= values[finite].max()


@pytest.mark.parametrize("bins", [0, -1, 2.0, True, 10**7, "auto"])
def test_a_number_of_bins_that_is_none_is_refused(bins: Any) -> None:
    with pytest.raises(ValueError, match="bins"):
        encode_histogram([1], bins)
    with pytest.raises(ValueError, match="complex"):
        encode_histogram([1j])


@pytest.mark.parametrize(
    "value",
    [
        np.arange(6).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(3, dtype=">f4"),
        np.zeros((0, 3), np.float16),
        np.array(True),
        torch.ones(2, requires_grad=True),
        3.5,
        [[1, 2], [3, 4]],
        [1 + 2j],
    ],
)
def test_an_array_is_read_back_as_it_was(value: Any) -> None:
    encoded = encode_array(value)
    assert encoded.data is not None
    found = np.load(io.BytesIO(encoded.data), allow_pickle=False)
    expected = value.detach().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    assert found.dtype == expected.dtype
    assert np.array_equal(found, expected)
    assert encoded.data[6:8] == b"\1\0"


def test_small_floats_are_widened() -> None:
    for value in (jnp.asarray([1.5], "bfloat16"), torch.tensor([1.5]).to(torch.float8_e5m2)):
        assert to_array(value).dtype == np.float32
        assert to_array(value).tolist() == [1.5]


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (np.array([None]), "type object holds no numbers"),
        (np.array(["a"]), "holds no numbers"),
        (np.zeros(2, [("a", "f4")]), "holds no numbers"),
        (np.ma.masked_array([1, 2], [True, False]), "masked"),
        ([[1], [1, 2]], "gives no array"),
        (np.zeros(1, np.longdouble), "differ between machines"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused(value: Any, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        encode_array(value)


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        ([[1, "x"], (2, None)], ["a", "b"]),
        ([{"a": 1, "b": "x"}, {"a": 2}], None),
        ({"a": [1, 2], "b": ["x", None]}, None),
        (pl.DataFrame({"a": [1, 2], "b": ["x", None]}), None),
        (pl.LazyFrame({"a": [1, 2], "b": ["x", None]}), None),
        (pa.table({"a": [1, 2], "b": ["x", None]}), None),
        (pd.DataFrame({"a": [1, 2], "b": ["x", None]}), None),
    ],
)
def test_a_small_table_is_columns_and_rows(rows: Any, columns: Any) -> None:
    encoded = encode_table(rows, columns)
    assert encoded.value == {"columns": ["a", "b"], "rows": [[1, "x"], [2, None]]}


@pytest.mark.parametrize(
    "frame",
    [
        pl.DataFrame({"a": range(10_000)}),
        pl.DataFrame({"a": [1]}).with_columns(t=pl.lit("2026-01-01").str.to_date()),
    ],
)
def test_a_large_frame_or_one_of_other_cells_is_parquet(frame: pl.DataFrame) -> None:
    encoded = encode_table(frame)
    assert encoded.media_type == "application/vnd.apache.parquet"
    found = pl.from_arrow(pq.read_table(pa.py_buffer(encoded.data)))
    assert isinstance(found, pl.DataFrame)
    assert found.equals(frame)


@pytest.mark.parametrize(
    ("rows", "columns", "error"),
    [
        ([[1]], None, "give `columns`"),
        ([], None, "give `columns`"),
        ([{"c": 1}], ["a"], "has the column 'c'"),
        ({"a": [1], "b": []}, None, r"columns of \[0, 1\] cells"),
        (pl.DataFrame({"a": [1]}), ["b"], "columns of its own"),
        (pd.DataFrame({"a": [1, "x"]}), None, "cannot be stored"),
        (7, ["a"], "no list of rows"),
        ([7], ["a"], "row 0 is a int"),
        (["ab"], ["a", "b"], "row 0 is a str"),
    ],
)
def test_what_is_no_table_is_refused(rows: Any, columns: Any, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        encode_table(rows, columns)


def test_a_figure_is_drawn_in_each_format() -> None:
    figure = Figure(figsize=(2, 1))
    axes = figure.add_subplot()
    axes.plot([1, 2])
    png, svg = encode_figure(axes, ["png", "svg"], dpi=50)
    assert pixels(png).shape[:2] == (50, 100)
    assert b"<svg" in (svg.data or b"")
    assert [each.media_type for each in (png, svg)] == ["image/png", "image/svg+xml"]
    with pytest.raises(ValueError, match="formats"):
        encode_figure(figure, ["pdf"])
    with pytest.raises(ValueError, match="int is no figure"):
        encode_figure(7)


def test_a_graph_keeps_its_nodes_and_edges() -> None:
    encoded = encode_graph(({"id": n} for n in range(2)), [(0, 1)])
    assert json.loads(json.dumps(encoded.value)) == {
        "nodes": [{"id": 0}, {"id": 1}],
        "edges": [[0, 1]],
    }
    for wrong in ("ab", {"a": 1}, 7):
        with pytest.raises(ValueError, match="nodes is a"):
            encode_graph(wrong, [])  # type: ignore[arg-type]
