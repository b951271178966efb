"""What became of each run that was converted, counted by kind."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from blackboxml.base.scalar import spell
from blackboxml.foreign.interchange import Kind

if TYPE_CHECKING:
    from blackboxml.foreign.interchange import Ledger, Remark

KINDS: tuple[Kind, ...] = get_args(Kind)

Outcome = Literal["converted", "unchanged", "failed"]


@dataclass(slots=True)
class RunReport:
    """What became of one run.

    Attributes:
        source: Where it comes from.
        key: What tells it from other runs of that source; empty if there is one.
        source_format: Name of the format it was in.
        target: What was made; empty if nothing was.
        target_format: Name of the format of that.
        outcome: `unchanged` if the target had it already.
        error: Why it failed.
        came_in: How many of each kind the source holds, as far as it can be read.
        went_out: How many of each kind the target holds.
        remarks: What was lost, changed, made up or unreadable, and how often.
        greatest: The greatest absolute change of a number, by remark.
        differences: What comparing the target with the source found, if that was asked for.
        verified: Whether it was asked for.
    """

    source: str
    key: str
    source_format: str
    target: str = ""
    target_format: str = ""
    outcome: Outcome = "converted"
    error: str | None = None
    came_in: Counter[Kind] = field(default_factory=Counter)
    went_out: Counter[Kind] = field(default_factory=Counter)
    remarks: dict[Remark, int] = field(default_factory=dict)
    greatest: dict[Remark, float] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)
    verified: bool = False

    def enter(self, ledger: Ledger) -> None:
        """Take over what a ledger holds."""
        self.remarks |= ledger.counts
        self.greatest |= ledger.greatest

    def total(self, effect: str, kind: Kind | None = None) -> int:
        """Return how many things, of one kind or all, met with an effect."""
        return sum(
            count
            for remark, count in self.remarks.items()
            if remark.effect == effect and kind in (None, remark.kind)
        )

    @property
    def undeclared(self) -> int:
        """How many things were lost or appeared without a word of the converter."""
        return sum(count for remark, count in self.remarks.items() if not remark.declared)

    @property
    def ok(self) -> bool:
        """Whether everything came over, or its loss was declared."""
        return self.outcome != "failed" and not self.undeclared and not self.differences

    @property
    def lossy(self) -> bool:
        """Whether a part of the source could not be read."""
        return self.total("unreadable") > 0

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        counts = {
            kind: {
                "in": self.came_in[kind],
                "out": self.went_out[kind],
                **{
                    effect: self.total(effect, kind) for effect in ("changed", "lost", "unreadable")
                },
            }
            for kind in KINDS
            if self.came_in[kind] or self.went_out[kind] or self._is_remarked(kind)
        }
        remarks = [
            {
                "effect": remark.effect,
                "kind": remark.kind,
                "what": remark.what,
                "count": count,
                "declared": remark.declared,
                **({"where": remark.where} if remark.where else {}),
                **({"by": spell(self.greatest[remark])} if self.greatest.get(remark) else {}),
            }
            for remark, count in self.remarks.items()
        ]
        return {
            "source": self.source,
            **({"key": self.key} if self.key else {}),
            "from": self.source_format,
            "target": self.target,
            "to": self.target_format,
            "outcome": self.outcome,
            **({"error": self.error} if self.error else {}),
            "ok": self.ok,
            "counts": counts,
            "remarks": remarks,
            **({"differences": self.differences} if self.verified else {}),
        }

    def _is_remarked(self, kind: Kind) -> bool:
        """Tell whether something is said of a kind."""
        return any(remark.kind == kind for remark in self.remarks)


@dataclass(slots=True)
class ConversionReport:
    """What became of all runs of a conversion.

    Attributes:
        runs: One report for each run that was found, in the order of the source.
        unreadable: Sources that could not be read at all, and why.
    """

    runs: list[RunReport] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every run came over, with no loss that was not declared."""
        return not self.unreadable and all(run.ok for run in self.runs)

    @property
    def lossy(self) -> bool:
        """Whether a part of a source could not be read."""
        return any(run.lossy for run in self.runs)

    def to_json(self) -> str:
        """Return the report as a JSON document."""
        document = {
            "format": {"name": "blackbox-conversion", "version": "1.0"},
            "ok": self.ok,
            "lossy": self.lossy,
            "runs": [run.to_dict() for run in self.runs],
            "unreadable": self.unreadable,
        }
        return json.dumps(document, indent=2, ensure_ascii=False)
