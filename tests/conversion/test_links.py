"""Links: the one that a user names is meant, those within a source lead nowhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from blackboxml import convert, open_run
from blackboxml.errors import ConversionError
from blackboxml.foreign.interchange import fingerprint, open_plain

if TYPE_CHECKING:
    from pathlib import Path

SOURCES = {
    "lightning": ("metrics.csv", "epoch,step,loss\n0,1,0.5\n"),
    "ray": ("result.json", '{"training_iteration": 1, "timestamp": 1700000000, "loss": 0.5}\n'),
    "transformers": (
        "trainer_state.json",
        '{"global_step": 1, "log_history": [{"loss": 0.5, "step": 1}]}',
    ),
    "ultralytics": ("results.csv", "epoch,time,train/box_loss\n1,2.0,0.5\n"),
}


@pytest.mark.parametrize("form", SOURCES)
def test_a_file_that_leads_out_of_its_folder_is_not_read(form: str, tmp_path: Path) -> None:
    name, text = SOURCES[form]
    (tmp_path / "elsewhere").write_text(text)
    for folder in ("link", "file"):
        (tmp_path / folder).mkdir()
    (tmp_path / "link" / name).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "file" / name).write_text(text)
    assert all(run.target for run in convert(tmp_path / "file", tmp_path / "runs").runs)
    with pytest.raises(ConversionError, match="holds nothing"):
        convert(tmp_path / "link", tmp_path / "none")


@pytest.mark.parametrize("form", SOURCES)
def test_a_link_to_a_source_is_taken_for_it(form: str, tmp_path: Path) -> None:
    name, text = SOURCES[form]
    (tmp_path / "trial").mkdir()
    (tmp_path / "trial" / name).write_text(text)
    (tmp_path / "latest").symlink_to(tmp_path / "trial")
    (run,) = convert(tmp_path / "latest", tmp_path / "runs").runs
    assert open_run(run.target).metrics


def test_a_link_is_opened_for_no_importer(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with open_plain(tmp_path / "file") as file:
        assert file.read() == b"a"
    with pytest.raises(OSError, match="link"):
        open_plain(tmp_path / "link")


def test_the_fingerprint_of_a_link_is_where_it_leads(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("one")
    one = fingerprint([link])
    link.unlink()
    link.symlink_to("two")
    assert fingerprint([link]) != one
