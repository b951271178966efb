"""What the README shows works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blackboxml import validate
from blackboxml.cli import main
from blackboxml.collection import find_runs

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text("utf-8")


def test_the_examples_run_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL):
        exec(compile(block, "README.md", "exec"), names)
    assert names["run"].status == "completed"
    assert len(names["steps"]) == 3
    runs = list(find_runs(tmp_path / "blackboxml_logs"))
    assert len(runs) == 2
    assert all(validate(path).ok for path in runs)


def test_the_commands_exist() -> None:
    block = re.search(r"```text\n(blackbox list.*?)```", TEXT, re.DOTALL)
    assert block is not None
    commands = re.findall(r"^blackbox (\w+(?: \| \w+)*)", block[1], re.MULTILINE)
    assert len(commands) == 9
    for command in " | ".join(commands).split(" | "):
        assert main([command, "--help"]) == 0


def test_the_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (ROOT / link).exists()
