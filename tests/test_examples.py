"""The examples for frameworks run as they stand; those of `docs/` are in `test_docs.py`."""

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


@pytest.mark.parametrize("name", ["keras", "lightning", "transformers"])
def test_an_example_records_a_training(tmp_path: Path, name: str) -> None:
    """In a process of its own: frameworks warn of many things, and set what is global."""
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / f"train_{name}.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    (path,) = find_runs(tmp_path / "blackboxml_logs")
    assert f"recorded {path}" in done.stdout
    reader = open_run(path)
    assert (reader.status, validate(path).ok) == ("completed", True)
    assert len(list(reader.records())) > 3


def test_the_table_has_a_row_for_each_frontend_of_a_framework() -> None:
    text = (ROOT / "docs" / "frameworks.md").read_text("utf-8")
    files = (ROOT / "src" / "blackboxml" / "frontends").glob("*.py")
    names = {p.stem for p in files if "frontends.driven" in p.read_text("utf-8")}
    assert names == set(re.findall(r"`blackboxml\[(\w+)\]` \|", text))
