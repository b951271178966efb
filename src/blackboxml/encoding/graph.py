"""Graphs: nodes and edges as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blackboxml.encoding import Encoded

if TYPE_CHECKING:
    from collections.abc import Iterable


def encode_graph(nodes: Iterable[Any], edges: Iterable[Any]) -> Encoded:
    """Return a graph; what a node and an edge are is up to the caller.

    Args:
        nodes: Any JSON each, usually an object with an `id`.
        edges: Any JSON each, usually an object with `source` and `target`, or a pair.

    Raises:
        ValueError: If one of them is no list, but a text or a mapping for example.
    """
    for what, given in (("nodes", nodes), ("edges", edges)):
        if isinstance(given, str | bytes | dict) or not hasattr(given, "__iter__"):
            kind = type(given).__name__
            raise ValueError(f"{what} is a {kind}, wanted a list of them")
    return Encoded("graph", value={"nodes": list(nodes), "edges": list(edges)})
