"""JSON: a list of reports, each by `validation-report.schema.json`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from blackboxml.validation.renderers import run_path

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from blackboxml.validation.report import Report


def render(reports: Sequence[Report], base: Path) -> str:
    """Return the reports as one document."""
    documents = [{**report.document(), "path": run_path(report, base)} for report in reports]
    return json.dumps(documents, indent=2) + "\n"
