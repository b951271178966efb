"""Arrays and tensors of any framework as NumPy arrays, and as `.npy` files."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from blackboxml.base.npy import MEDIA_TYPE, write_array
from blackboxml.encoding import Encoded

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt


def to_array(value: Any) -> npt.NDArray[Any]:
    """Return numbers of any framework as a NumPy array; numbers of less than 16 bits are widened.

    A tensor on an accelerator is copied from there. The array may share memory with the value.

    Args:
        value: A number, a sequence of them, or an array or tensor of NumPy, PyTorch, TensorFlow,
            JAX and others that offer `numpy()` or `__array__`.

    Raises:
        ValueError: If it holds anything but numbers, or has masked values.
    """
    import numpy as np

    kind = type(value).__name__
    try:
        array = np.asanyarray(_unwrap(value))
    except Exception as error:  # noqa: BLE001 - the value is foreign, and may raise what it likes
        reason = str(error).partition("\n")[0]
        raise ValueError(f"a {kind} gives no array ({reason:.120})") from None
    if isinstance(array, np.ma.MaskedArray):
        raise ValueError(  # noqa: TRY004 - one kind of error for all arguments
            "masked values cannot be stored; give array.filled(value)"
        )
    if array.dtype.name.startswith(("bfloat16", "float8_", "float6_", "float4_")):  # of ml_dtypes
        array = array.astype(np.float32)
    elif array.dtype.name in {"int4", "uint4", "int2", "uint2"}:
        array = array.astype(np.int8)
    if array.dtype.kind not in "biufc":
        raise ValueError(f"a {kind} of type {array.dtype} holds no numbers; give an array of them")
    return np.asarray(array)


def _unwrap(value: Any) -> Any:
    """Return what NumPy understands."""
    torch: Any = sys.modules.get("torch")
    if hasattr(torch, "Tensor") and isinstance(value, torch.Tensor):
        if value.is_floating_point() and value.dtype not in {
            torch.float16,
            torch.float32,
            torch.float64,
        }:
            value = value.float()  # NumPy has no such numbers
        return value.numpy(force=True)
    numpy = getattr(value, "numpy", None)
    return numpy() if callable(numpy) and hasattr(value, "shape") else value


def encode_array(value: Any, dims: Sequence[str] | None = None) -> Encoded:
    """Return an array as a `.npy` file of version 1.0.

    Args:
        value: As for `to_array`.
        dims: Names of its dimensions.

    Raises:
        ValueError: If it holds anything but numbers, or has another number of dimensions.
    """
    array = to_array(value)
    if dims is not None and len(dims) != array.ndim:
        raise ValueError(f"dims are {dims!r:.80} for an array of shape {array.shape}")
    if array.dtype.itemsize > 16 or array.dtype.name in {"longdouble", "float128"}:  # noqa: PLR2004
        raise ValueError(f"numbers of type {array.dtype} differ between machines; give float64")
    return Encoded("array", data=write_array(array), media_type=MEDIA_TYPE)
