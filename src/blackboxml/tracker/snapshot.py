"""What was logged, as it was at that moment: nothing in it changes with the caller's objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from blackboxml.base.scalar import to_number

_PLAIN: Final = frozenset({float, int, bool, str, bytes, type(None)})


def snapshot(value: Any) -> Any:
    """Return a value that shares nothing with the given one.

    Numbers of any origin become Python numbers where these are exact; arrays and tensors become
    copies outside of any graph, on the CPU; containers are copied with what is in them. Objects of
    any other kind, such as `wandb.Image`, are what they are.
    """
    kind = type(value)
    if kind in _PLAIN:
        return value
    if isinstance(value, Mapping):
        return {key: snapshot(member) for key, member in value.items()}
    if kind in (list, tuple, set, frozenset):
        members = map(snapshot, value)
        return tuple(members) if kind is tuple else list(members)
    try:
        return to_number(value)
    except ValueError:
        return _copy(value) if hasattr(value, "shape") and hasattr(value, "dtype") else value


def _copy(value: Any) -> Any:
    if hasattr(value, "detach"):  # a tensor of PyTorch
        return value.detach().cpu().clone()
    return value.copy() if hasattr(value, "copy") else value
