"""The operations that a tensor is the result of, as nodes and edges.

A graph may be as deep as it likes: nothing here calls itself. Nodes are numbered in the order in
which they are met from the result, so that the same computation gives the same graph in every
process.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import time
import warnings
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Graph = dict[str, list[dict[str, Any]]]

_BLOCK: Final = 2**20


def build_graph(tensor: Any) -> Graph:
    """Return the graph of a tensor of PyTorch, or of one of simplegrad's shape.

    Tensors are `{"id", "type": "tensor", "label", "shape", "comp_grad", "is_leaf"}`, operations
    `{"id", "type": "operation", "label"}`, and edges `{"source", "target"}` lead from tensors to
    operations and on to their results.

    Args:
        tensor: One with `grad_fn`, or one with `prev`, `oper`, `label`, `shape`, `comp_grad` and
            `is_leaf`.

    Raises:
        ValueError: If it is neither.
    """
    if hasattr(tensor, "grad_fn"):

        def walk(most: int | None) -> Graph | None:
            return _walk(_Torch(tensor), _Torch.describe, _Torch.parents, most)

        return walk(_SAFE_OPERATIONS) or in_a_fork(lambda: walk(None))
    if hasattr(tensor, "prev") and hasattr(tensor, "oper"):
        return _walk(tensor, _describe, _Order(tensor).parents) or {}
    kind = type(tensor).__name__
    raise ValueError(f"a {kind} has neither `grad_fn` nor `prev` and `oper`; give a tensor")


def _walk(
    result: Any,
    describe: Callable[[Any], tuple[dict[str, Any], str | None]],
    parents: Callable[[Any], list[Any]],
    most: int | None = None,
) -> Graph | None:
    """Return the graph that leads to a result, depth first; None if it has too many tensors.

    Args:
        result: A tensor that can be told from others by `hash` and `==`.
        describe: Returns what is to be said of a tensor, and the operation that made it or None.
        parents: Returns the tensors that the operation was applied to, in order.
        most: How many tensors there may be.
    """
    nodes: list[dict[str, Any]] = []
    edges: list[dict[str, Any]] = []
    names: dict[Any, str] = {}

    def enter(tensor: Any) -> tuple[str, Iterator[Any]]:
        name = names[tensor] = f"t{len(names)}"
        said, operation = describe(tensor)
        nodes.append({"id": name, "type": "tensor", **said})
        if operation is None:
            return "", iter(())
        made = f"{name}_{operation}"
        nodes.append({"id": made, "type": "operation", "label": operation})
        edges.append({"source": made, "target": name})
        return made, iter(parents(tensor))

    path = [enter(result)]
    while path:
        made, left = path[-1]
        if most is not None and len(names) > most:
            return None
        for parent in left:
            new = None if parent in names else enter(parent)
            edges.append({"source": names[parent], "target": made})
            if new is not None:
                path.append(new)
                break
        else:
            path.pop()
    return {"nodes": nodes, "edges": edges}


# ---- simplegrad --------------------------------------------------------------------------------


def _describe(tensor: Any) -> tuple[dict[str, Any], str | None]:
    """Return what is said of a tensor, and the operation that made it."""
    said = {
        "label": str(tensor.label or ""),
        "shape": [int(length) for length in tensor.shape],
        "comp_grad": bool(tensor.comp_grad),
        "is_leaf": bool(tensor.is_leaf),
    }
    return said, None if tensor.oper is None else str(tensor.oper)


class _Order:
    """The order of parents: as they stand, and in a set, which has none, by their own graphs."""

    def __init__(self, result: Any) -> None:
        """Take the tensor that all others lead to."""
        self._result = result
        self._digests: dict[Any, bytes] = {}

    def parents(self, tensor: Any) -> list[Any]:
        """Return the parents of a tensor."""
        if len(tensor.prev) < 2 or not isinstance(tensor.prev, (set, frozenset)):  # noqa: PLR2004 - one needs no order
            return list(tensor.prev)
        if not self._digests:
            self._digests = _digests(self._result)
        return sorted(tensor.prev, key=self._digests.__getitem__)


def _digests(result: Any) -> dict[Any, bytes]:
    """Return a digest of the graph of each tensor that a result was made from."""
    found: dict[Any, bytes] = {}
    path = [(result, iter(result.prev))]
    entered = {result}
    while path:
        tensor, left = path[-1]
        for parent in left:
            if parent not in entered:
                entered.add(parent)
                path.append((parent, iter(parent.prev)))
                break
        else:
            said = repr(_describe(tensor)).encode(errors="backslashreplace")
            inner = sorted(found.get(parent, b"") for parent in tensor.prev)
            found[tensor] = blake2b(b"".join([said, *inner]), digest_size=16).digest()
            path.pop()
    return found


# ---- PyTorch -----------------------------------------------------------------------------------
#
# PyTorch takes a graph apart by recursion as soon as Python has seen its nodes, and overflows the
# stack where some ten thousand of them follow each other. So a large graph is looked at in a forked
# process: its nodes here stay unseen.

_SAFE_OPERATIONS: Final = 5_000
_FORK_SECONDS: Final = 120.0


def in_a_fork(build: Callable[[], Graph | None]) -> Graph:
    """Return what a function returns in a forked process, which does nothing else.

    Raises:
        ValueError: If that process dies, or takes minutes.
    """
    readable, writable = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which the child lets be
        child = os.fork()
    if not child:
        try:
            gc.disable()
            with os.fdopen(writable, "wb") as file:
                file.write(orjson.dumps(build()))
        finally:
            os._exit(0)
    os.close(writable)
    parts = []
    ends = time.monotonic() + _FORK_SECONDS
    try:
        while select.select([readable], [], [], max(0.0, ends - time.monotonic()))[0]:
            if not (part := os.read(readable, _BLOCK)):
                break
            parts.append(part)
        else:
            os.kill(child, signal.SIGKILL)
    finally:
        os.close(readable)
        os.waitpid(child, 0)
    try:
        found: Graph = orjson.loads(b"".join(parts))
    except ValueError:
        raise ValueError("its graph is too large to be looked at") from None
    return found


class _Torch:
    """What autograd knows of one tensor: a leaf, or the result of an operation."""

    __slots__ = ("function", "output", "tensor")

    def __init__(self, tensor: Any, function: Any = None, output: int = 0) -> None:
        """Take a tensor, or the function whose result it is; a leaf's function holds the tensor."""
        if tensor is not None and tensor.grad_fn is not None:
            function, output = tensor.grad_fn, tensor.output_nr
        elif tensor is None and hasattr(function, "variable"):
            tensor, function = function.variable, None
        self.tensor, self.function, self.output = tensor, function, output

    def __hash__(self) -> int:
        """Return the same for the same result."""
        return hash(self.function or id(self.tensor))

    def __eq__(self, other: object) -> bool:
        """Tell whether it is the same result."""
        return (
            isinstance(other, _Torch)
            and self.function == other.function
            and (self.output == other.output if self.function else self.tensor is other.tensor)
        )

    def describe(self) -> tuple[dict[str, Any], str | None]:
        """Return what is said of it, and the operation that made it."""
        if self.tensor is not None:
            shape, gradient = self.tensor.shape, self.tensor.requires_grad
        else:
            known = getattr(self.function, "_input_metadata", ())
            shape = known[self.output].shape if self.output < len(known) else ()
            gradient = True
        said = {
            "label": "" if self.tensor is None else str(getattr(self.tensor, "name", None) or ""),
            "shape": [int(length) for length in shape],
            "comp_grad": bool(gradient),
            "is_leaf": self.function is None,
        }
        if self.function is None:
            return said, None
        name = self.function.name().rpartition("::")[2]
        return said, name.rstrip("0123456789").removesuffix("Backward")

    def parents(self) -> list[_Torch]:
        """Return the tensors that the operation was applied to and that need a gradient."""
        if self.function is None:
            return []
        following = self.function.next_functions
        return [_Torch(None, each, output) for each, output in following if each is not None]
