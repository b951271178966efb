"""What the file system refuses is no reason to seal less, nor to call a run changed."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from blackboxml import Run
from blackboxml.seal import seal


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("name", ["weights", "media.jsonl", "metrics.jsonl"])
def test_a_run_of_which_a_file_is_refused_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, sealed: bool
) -> None:
    with Run("refused", log_dir=tmp_path, seal=sealed, environment=()) as run:
        run.log({"train/loss": 1.0}, step=0)
        run.log_array("train/weights", np.arange(4.0), step=0)
    path = run.path
    assert path is not None
    before, real = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}, os.open

    def refuse(place: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if name in Path(place).name:
            raise OSError(errno.EIO, os.strerror(errno.EIO), place)
        return real(place, flags, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        with pytest.raises(OSError, match=name):
            seal(path)
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before
    seal(path)
    with h5py.File(path / "train.h5") as file:
        assert file["weights"][0].tolist() == [0.0, 1.0, 2.0, 3.0]
