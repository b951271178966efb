"""Schemas and rules are found wherever the package is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from blackboxml import published
from blackboxml.errors import BlackboxError

ROOT = Path(__file__).resolve().parents[1]
SCHEMAS = ROOT / "schemas" / published.VERSION
RULES = ROOT / "spec" / published.VERSION / "rules.json"
ASK = """
from blackboxml import published
from blackboxml.base import schema
from blackboxml.validation import catalogue
print(schema.folder())
print(published.folder("spec"))
print(len(catalogue.rules()))
[schema.validator(name) for name in schema.names()]
"""


def ask(folder: Path, **environment: str) -> list[str]:
    """What an installation says that is imported by a fresh process."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", ASK],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=folder,
        env={**os.environ, **environment},
    )
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder],
        check=True,
        cwd=ROOT,
    )
    (built,) = folder.glob("blackboxml-*.whl")
    return built


def test_an_editable_install_reads_what_stands_in_the_repository(tmp_path: Path) -> None:
    count = len(json.loads(RULES.read_bytes())["rules"])
    assert ask(tmp_path) == [str(SCHEMAS), str(RULES.parent), str(count)]


def test_a_wheel_carries_every_schema_and_the_rules_unchanged(wheel: Path) -> None:
    published_files = {
        f"blackboxml/{path.relative_to(ROOT)}": path.read_bytes()
        for path in [*SCHEMAS.iterdir(), RULES]
    }
    with zipfile.ZipFile(wheel) as archive:
        inside = {
            name: archive.read(name)
            for name in archive.namelist()
            if name.startswith(("blackboxml/schemas/", "blackboxml/spec/"))
        }
    assert inside == published_files


def test_an_installed_wheel_finds_its_schemas_and_rules(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    # The path names the unpacked wheel alone, so that the checkout is not what is imported.
    found = ask(tmp_path, PYTHONPATH=str(tmp_path))
    package = tmp_path.resolve() / "blackboxml"
    count = len(json.loads(RULES.read_bytes())["rules"])
    assert found == [str(package / "schemas" / "1.0"), str(package / "spec" / "1.0"), str(count)]


def test_a_folder_that_is_not_installed_is_named_with_the_cure() -> None:
    with pytest.raises(BlackboxError, match=r"nonsense of version 1\.0 are not installed.*pip"):
        published.folder("nonsense")
