"""`report.md` and `run_info.json`: what was run where, and what came of it, with relative links."""

from __future__ import annotations

import os
import platform
import sys
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from blackboxml.frontends.history.curves import Curve

_VARIABLES: Final = ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK", "LOCAL_RANK")
_STATISTICS: Final = ("mean", "max", "min", "std")
_MOST_NOTES: Final = 200


def environment(rank: int, world: int) -> dict[str, dict[str, str]]:
    """Return what is known of the process: `Python`, `Torch`, `Environment Variables` and so on."""
    found = {
        "Python": {
            "Version": platform.python_version(),
            "Implementation": sys.implementation.name,
            "Executable": sys.executable,
            "Platform": platform.platform(),
        },
        "Torch": {"Version": _version("torch")},
    }
    own = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    if own:
        found["Environment Variables"] = own
    found["Distributed"] = {
        "Rank": str(rank),
        "World size": str(world),
        "Backend": _backend(),
        "Hostname": platform.node(),
    }
    return found


def header(title: str, run: Mapping[str, str]) -> list[str]:
    """Return the first lines of a report.

    Args:
        title: Of the report.
        run: Facts about the run, by name; a value may be Markdown.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    facts = [f"- **{name}**: {value}" for name, value in run.items()]
    return [f"# {_line(title)}", "", f"_Generated at {now}_", "", *facts, ""]


def environment_section(details: Mapping[str, Any]) -> list[str]:
    """Return what is known of the process, a list for each part."""
    lines = ["## Environment", ""]
    for part, facts in details.items():
        if isinstance(facts, dict):
            lines += [f"### {_line(part)}", ""]
            lines += [f"- **{_line(name)}**: {_line(value)}" for name, value in facts.items()]
            lines.append("")
        else:
            lines += [f"- **{_line(part)}**: {_line(facts)}", ""]
    return lines


def overview(curves: Sequence[Curve], latest: Mapping[str, float]) -> list[str]:
    """Return one table a metric: its latest value, across ranks and over the steps.

    Args:
        curves: The metrics.
        latest: Their last values, where these are numbers.
    """
    lines = ["## Metric Overview", ""]
    for curve in curves:
        rows = [("Latest", _number(latest.get(curve.name, curve.latest)))]
        rows += [
            (each.capitalize(), _number(_last(curve.statistics[each])))
            for each in _STATISTICS
            if each in curve.statistics
        ]
        finite = curve.y[np.isfinite(curve.y)]
        if len(finite):
            rows += [("Lowest", _number(finite.min())), ("Highest", _number(finite.max()))]
        there = ~np.isnan(curve.y)
        rows.append(("Points", str(int(there.sum()))))
        if there.any():
            rows.append((f"Last {_cell(curve.label)}", f"{curve.x[there][-1]:.12g}"))
        unit = f" [{_line(curve.unit)}]" if curve.unit else ""
        lines += [f"### {_line(curve.name)}{unit}", "", *_table(rows), ""]
    return lines


def pictures(title: str, images: Iterable[tuple[str, str, Sequence[str]]]) -> list[str]:
    """Return pictures with links to their other forms.

    Args:
        title: Of the section.
        images: Name, path of the picture, and paths of other forms, relative to the report.
    """
    lines = [f"## {_line(title)}", ""]
    for name, path, others in images:
        lines += [f"![{_line(name)}]({_link(path)})", ""]
        if others:
            shown = (f"[{_line(each.rpartition('/')[2])}]({_link(each)})" for each in others)
            lines += [" · ".join(shown), ""]
    return lines


def notes(happened: Sequence[str]) -> list[str]:
    """Return what else there is to know; nothing if there is not."""
    if not happened:
        return []
    shown = [f"- {_line(each)}" for each in happened[:_MOST_NOTES]]
    left = len(happened) - len(shown)
    return ["## Notes", "", *shown, *([f"- and {left} more"] if left else []), ""]


def files(paths: Iterable[str]) -> list[str]:
    """Return links to files beside the report."""
    listed = [f"- [{_line(path)}]({_link(path)})" for path in paths]
    return ["## Files", "", *listed, ""] if listed else []


def _last(values: Any) -> float | None:
    """Return the last value that is there."""
    there = np.flatnonzero(~np.isnan(values))
    return float(values[there[-1]]) if len(there) else None


def _table(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Return a table of two columns."""
    left = max(len("Statistic"), *(len(name) for name, _ in rows))
    right = max(len("Value"), *(len(value) for _, value in rows))
    return [
        f"| {'Statistic':<{left}} | {'Value':>{right}} |",
        f"|:{'-' * left} | {'-' * right}:|",
        *(f"| {name:<{left}} | {value:>{right}} |" for name, value in rows),
    ]


def _number(value: float | None) -> str:
    """Return a number for a table."""
    if value is None:
        return "nan"
    number = float(value)
    fixed = f"{number:.6f}"
    return fixed if number == 0 or 1e-4 <= abs(number) < 1e9 else f"{number:.6g}"  # noqa: PLR2004


def _link(path: str) -> str:
    """Return a path as the target of a link."""
    return quote(path)


def _line(value: object) -> str:
    """Return anything as one line."""
    return " ".join(str(value).split())


def _cell(text: str) -> str:
    """Return a text for a cell of a table."""
    return _line(text).replace("|", "\\|")


def _version(package: str) -> str:
    """Return the version of a package, `not installed` if there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _backend() -> str:
    """Return by what the ranks of the training talk, `none` if they do not."""
    distributed: Any = getattr(sys.modules.get("torch"), "distributed", None)
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return str(distributed.get_backend())
    return "none"
