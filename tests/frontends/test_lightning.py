"""The logger for Lightning, under both of its names, on real trainings."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import lightning
import pytest
import pytorch_lightning
import torch

from blackboxml import Run, open_run, validate
from blackboxml.collection import find_runs
from blackboxml.frontends.lightning import BlackBoxLogger

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated.*"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.* is deprecated.*"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
]

DATA = torch.utils.data.TensorDataset(torch.linspace(0, 1, 8)[:, None])


def module(base: Any = lightning.LightningModule, **options: Any) -> Any:
    class Line(base):  # type: ignore[misc]
        def __init__(
            self, lr: float = 0.1, api_token: str = "s3cr3t-token", at: Any = None
        ) -> None:
            super().__init__()
            self.save_hyperparameters(ignore=["at"])
            self.layer = torch.nn.Linear(1, 1)
            self.at = at or {}

        def loss(self, batch: Any) -> torch.Tensor:
            return torch.nn.functional.mse_loss(self.layer(batch[0]), 2 * batch[0])

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            self.at.get(self.global_step, lambda _: None)(self)
            loss = self.loss(batch)
            self.log("train/loss", loss)
            return loss

        def validation_step(self, batch: Any, index: int) -> None:
            self.log("val/loss", self.loss(batch))

        def test_step(self, batch: Any, index: int) -> None:
            self.log("test/loss", self.loss(batch))

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), self.hparams.lr)

    return Line(**options)


def trainer(logger: Any, kind: Any = lightning.Trainer, **options: Any) -> Any:
    return kind(
        logger=logger,
        accelerator="cpu",
        devices=1,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **{"max_epochs": 2, "enable_checkpointing": False} | options,
    )


def loader() -> Any:
    return torch.utils.data.DataLoader(DATA, batch_size=4)


def steps(run: Run, metric: str, view: Any = "effective") -> list[int]:
    found = open_run(run.path).records(view)
    return [record.step for record in found if metric in record.metrics]


@pytest.mark.parametrize("package", [lightning, pytorch_lightning])
def test_what_a_module_logs_is_recorded_at_the_steps_of_the_trainer(
    tmp_path: Path, package: Any
) -> None:
    logger = BlackBoxLogger("line", ["x"], tmp_path, config={"corpus": "line"})
    line = module(package.LightningModule)
    trainer(logger, package.Trainer).fit(line, loader(), loader())
    reader = open_run(logger.run.path)
    assert (reader.tags, reader.status) == (["x"], "completed")
    assert steps(logger.run, "train/loss") == [0, 1, 2, 3]
    assert steps(logger.run, "val/loss") == [1, 3]
    assert [r.metrics["epoch"] for r in reader.records() if "val/loss" in r.metrics] == [0, 1]
    assert reader.config == {"corpus": "line", "lr": 0.1, "api_token": "<hidden>"}
    assert validate(logger.run.path).ok


@pytest.mark.parametrize(
    ("error", "raised", "status"),
    [
        (ValueError("bad batch"), ValueError, "failed"),
        (KeyboardInterrupt(), SystemExit, "interrupted"),
    ],
)
def test_a_crash_keeps_the_steps_so_far(
    tmp_path: Path, error: BaseException, raised: type[BaseException], status: str
) -> None:
    import signal

    def throw(_: Any) -> None:
        raise error

    logger = BlackBoxLogger("r", log_dir=tmp_path)
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(raised):
            trainer(logger).fit(module(at={2: throw}), loader(), loader())
    finally:
        signal.signal(signal.SIGINT, before)  # Lightning ignores it from here on
    reader = open_run(logger.run.path)
    assert (reader.status, steps(logger.run, "train/loss")) == (status, [0, 1])
    if status == "failed":
        assert reader.manifest["exception"]["message"] == "bad batch"
    assert validate(logger.run.path).ok


def test_an_early_stop_is_a_completed_run(tmp_path: Path) -> None:
    def stop(line: Any) -> None:
        line.trainer.should_stop = True

    logger = BlackBoxLogger("r", log_dir=tmp_path)
    trainer(logger, max_epochs=5).fit(module(at={1: stop}), loader(), loader())
    assert open_run(logger.run.path).status == "completed"
    assert steps(logger.run, "train/loss") == [0, 1]


def test_a_test_after_the_training_belongs_to_its_run(tmp_path: Path) -> None:
    logger = BlackBoxLogger("r", log_dir=tmp_path)
    train = trainer(logger)
    line = module()
    train.validate(line, loader(), verbose=False)
    train.fit(line, loader())
    train.test(line, loader(), verbose=False)
    (path,) = find_runs(tmp_path)
    reader = open_run(path)
    assert reader.status == "completed"
    assert len(reader.manifest["attempts"]) == 3
    for metric, found in (("val/loss", [0]), ("train/loss", [0, 1, 2, 3]), ("test/loss", [4])):
        assert steps(logger.run, metric) == found
    assert validate(path).ok


def test_a_training_from_a_checkpoint_supersedes_what_came_after_it(tmp_path: Path) -> None:
    def throw(_: Any) -> None:
        raise ValueError("bad batch")

    logger = BlackBoxLogger("r", log_dir=tmp_path)
    train = trainer(logger, enable_checkpointing=True, max_epochs=3)
    with pytest.raises(ValueError, match="bad batch"):
        train.fit(module(at={5: throw}), loader(), loader())
    (checkpoint,) = logger.run.path.glob(f"artifacts/r/{logger.version}/checkpoints/epoch=1*.ckpt")
    assert train.checkpoint_callback.best_model_path == str(checkpoint)
    again = BlackBoxLogger("r", log_dir=tmp_path, resume=True)
    trainer(again, max_epochs=3).fit(module(), loader(), loader(), ckpt_path=str(checkpoint))
    assert again.run.path == logger.run.path
    assert steps(again.run, "train/loss") == [0, 1, 2, 3, 4, 5]
    assert steps(again.run, "train/loss", "all") == [0, 1, 2, 3, 4, 4, 5]
    assert validate(again.run.path).ok


def test_a_given_run_stays_open(tmp_path: Path) -> None:
    with Run("mine", log_dir=tmp_path) as run:
        logger = BlackBoxLogger(run=run)
        assert logger.experiment is run
        trainer(logger).fit(module(), loader(), loader())
        assert run.status == "running"
        assert (logger.log_dir, logger.name) == (str(run.path), "mine")
    assert steps(run, "train/loss") == [0, 1, 2, 3]


def test_a_logger_alone_makes_no_run(tmp_path: Path) -> None:
    BlackBoxLogger("r", log_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


TWO_RANKS = """\
import sys
import lightning, torch
from blackboxml.frontends.lightning import BlackBoxLogger
from lightning.pytorch.demos.boring_classes import BoringModel

class Model(BoringModel):
    def training_step(self, batch, index):
        loss = self.step(batch)
        self.log("train/loss", loss, sync_dist=True)
        return loss

lightning.Trainer(
    logger=BlackBoxLogger("ddp", log_dir=sys.argv[1]), accelerator="cpu", devices=2, strategy="ddp",
    max_steps=3, log_every_n_steps=1, limit_val_batches=0, enable_progress_bar=False,
    enable_model_summary=False,
).fit(Model())
"""


def test_of_two_ranks_one_records(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(TWO_RANKS)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "logs")],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    (path,) = find_runs(tmp_path / "logs")
    reader = open_run(path)
    assert reader.status == "completed"
    assert [record.step for record in reader.records()] == [0, 1, 2]
    assert not list(path.glob("*.r1*"))
    assert list(path.glob("artifacts/ddp/*/checkpoints/*.ckpt"))
