"""The HDF5 files of ezpz's History: plain arrays along draws, with no names for dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from blackboxml.base.files import raise_hdf5_refusal
from blackboxml.foreign import values as foreign
from blackboxml.foreign.interchange import Medium, Point

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from blackboxml.foreign.interchange import Item, Ledger
    from blackboxml.model import Number

_ENDING: Final = "_dataset.h5"
_MAGIC: Final = b"\x89HDF\r\n\x1a\n"
_FILTERS: Final = frozenset(range(1, 7))  # those that HDF5 brings itself; others are plug-ins
_MOST_BYTES: Final = 2**26
_DIMENSIONS: Final = 3
_MOST_VARIABLES: Final = 100_000
_DRAWS: Final = 4096
_ERRORS: Final = (OSError, RuntimeError, KeyError, ValueError, TypeError)


def is_dataset(path: Path) -> bool:
    """Tell whether a file is called as History calls its datasets, and is HDF5."""
    if not path.name.endswith(_ENDING) or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def read_dataset(path: Path, name: foreign.Names, ledger: Ledger) -> Iterator[Item]:
    """Yield the draws of a file; float32 is widened exactly, and the draw taken for the step.

    A file of one group only is called `dataset`, and its metrics have no prefix.
    """
    import h5py

    label = path.name.removesuffix(_ENDING)
    prefix = "" if label == "dataset" else f"{label}/"

    def lost(variable: str, why: object) -> None:
        where = f"{path.name}: {variable}: {why}"
        ledger.unreadable("scalar", "a variable that cannot be read", where=where)

    try:
        file = h5py.File(path, "r")
    except _ERRORS as error:
        raise_hdf5_refusal(error, str(path))
        lost("", error)
        return
    with file:
        variables: dict[str, Any] = {}
        for key in sorted(file)[:_MOST_VARIABLES]:
            try:
                variables[key] = _check(file, key)
            except _ERRORS as error:
                raise_hdf5_refusal(error, str(path))
                lost(key, error)
        length = max((each.shape[-1] for each in variables.values()), default=0)
        stride = _stride(variables)
        for start in range(0, length, stride):
            parts: dict[str, Any] = {}
            for key, variable in list(variables.items()):
                try:
                    parts[key] = variable[..., start : start + stride]
                except _ERRORS as error:
                    raise_hdf5_refusal(error, str(path))
                    lost(f"{key} from draw {start}", error)
                    del variables[key]
            yield from _draws(start, parts, prefix, name)
        if length:
            what = "the place of a draw is taken for a step that is not said"
            ledger.made("step", what, length)


def _check(file: Any, key: str) -> Any:
    """Return a variable that lies in the file itself.

    Raises:
        ValueError: If it is something else.
    """
    import h5py

    if not isinstance(file.get(key, getlink=True), h5py.HardLink):
        raise ValueError("a link is not followed")  # noqa: TRY004 - of the file, not the caller
    if file.get(key, getclass=True) is not h5py.Dataset:
        raise ValueError("it is no array")
    variable = file[key]
    creation = variable.id.get_create_plist()
    filters = {creation.get_filter(at)[0] for at in range(creation.get_nfilters())}
    if variable.is_virtual or variable.external or not filters <= _FILTERS:
        raise ValueError("its values are outside the file, or need a plug-in")
    if variable.dtype.kind not in "biuf" or not 0 < variable.ndim <= _DIMENSIONS:
        raise ValueError(f"it is of type {variable.dtype} and has {variable.ndim} dimensions")
    chunk = variable.dtype.itemsize
    for size in variable.chunks or variable.shape[:-1]:
        chunk *= size
    if chunk > _MOST_BYTES:
        raise ValueError(f"a part of it has {chunk:,} bytes")
    return variable


def _stride(variables: dict[str, Any]) -> int:
    """Return how many draws of all variables are read at once."""
    size = 1
    for variable in variables.values():
        each = variable.dtype.itemsize
        for length in variable.shape[:-1]:
            each *= length
        size += each
    return max(1, min(_DRAWS, _MOST_BYTES // size))


def _draws(start: int, parts: dict[str, Any], prefix: str, name: foreign.Names) -> Iterator[Item]:
    """Yield some draws: the numbers of each as a point, its vectors and matrices as arrays."""
    flat = {key: part.tolist() for key, part in parts.items() if part.ndim == 1}
    for at in range(max((part.shape[-1] for part in parts.values()), default=0)):
        numbers: dict[str, Number] = {
            name(prefix + key): values[at] for key, values in flat.items() if at < len(values)
        }
        if numbers:
            yield Point(start + at, None, numbers)
        for key, part in parts.items():
            if part.ndim > 1 and at < part.shape[-1]:
                data = foreign.to_npy(part[..., at].copy())
                yield Medium(
                    name(prefix + key), "array", start + at, None, data=data, media_type=foreign.NPY
                )
