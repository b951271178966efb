"""What the pages for users show works as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from blackboxml import open_run, validate
from blackboxml.collection import find_runs

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(path.name for path in (ROOT / "docs").glob("*.md"))
ASKED = ("EZPZ_", "WANDB_", "WB_", "MLFLOW_", "AMSC_", "AM_SC_", "TRACKIO_", "RANK")

RECORDED = {"frameworks.md": 10, "companions.md": 1, "many-runs.md": 20}
"""How many runs the examples of a page record."""


def blocks(page: str) -> list[str]:
    """The examples in Python on a page."""
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text("utf-8"), re.DOTALL)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)])
def test_the_examples_run_one_after_another(page: str, tmp_path: Path) -> None:
    """In a process of its own: a page may start what lasts as long as its process."""
    script = tmp_path / "example.py"
    script.write_text("\n".join(blocks(page)), "utf-8")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(ASKED)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", script.name],
        cwd=tmp_path,
        env=kept | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "Tracker backend" not in done.stderr, done.stderr
    runs = list(find_runs(tmp_path / "blackboxml_logs"))
    assert len(runs) == RECORDED.get(page, len(runs))
    for path in runs:
        assert (open_run(path).status, validate(path).ok) == ("completed", True)


@pytest.mark.parametrize("page", PAGES)
def test_the_links_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", (ROOT / "docs" / page).read_text("utf-8")):
        assert (ROOT / "docs" / link).exists()


def test_the_tracker_page_lists_every_backend() -> None:
    from blackboxml.backends import BACKENDS

    text = (ROOT / "docs/tracker.md").read_text("utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == set(BACKENDS)
