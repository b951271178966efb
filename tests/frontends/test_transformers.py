"""The callback for Hugging Face Transformers, on a real trainer with a model of a few weights."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
import torch

from blackboxml import Run, open_run, validate
from blackboxml.collection import find_runs

os.environ["HF_HUB_OFFLINE"] = "1"
import transformers

from blackboxml.frontends.transformers import BlackBoxCallback

if TYPE_CHECKING:
    from pathlib import Path


class Line(torch.nn.Module):
    """One weight, in the shape that a trainer wants."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.config = transformers.PretrainedConfig(hub_token="s3cr3t-token", hidden_size=1)

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        out = self.layer(x)
        return {"loss": torch.nn.functional.mse_loss(out, labels), "logits": out}


DATA = [{"x": torch.tensor([k / 8]), "labels": torch.tensor([k / 4])} for k in range(8)]


def trainer(folder: Path, callbacks: list[Any], **options: Any) -> transformers.Trainer:
    arguments = transformers.TrainingArguments(
        output_dir=str(folder / "checkpoints"),
        report_to="none",
        logging_steps=1,
        per_device_train_batch_size=2,
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
        **{"num_train_epochs": 2, "save_strategy": "no", "eval_strategy": "epoch"} | options,
    )
    return transformers.Trainer(
        Line(), arguments, train_dataset=DATA, eval_dataset=DATA[:4], callbacks=callbacks
    )


class Stop(transformers.TrainerCallback):
    """Does something at the end of one step."""

    def __init__(self, step: int, what: Any) -> None:
        self.step = step
        self.what = what

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            self.what(control)


def throw(error: BaseException) -> Any:
    def throw(_: Any) -> None:
        raise error

    return throw


def steps(run: Run, metric: str, view: Any = "effective") -> list[int]:
    found = open_run(run.path).records(view)
    return [record.step for record in found if metric in record.metrics]


def test_a_training_is_recorded_at_the_steps_of_the_trainer(tmp_path: Path) -> None:
    callback = BlackBoxCallback("bert", ["nlp"], tmp_path, config={"corpus": "line"})
    train = trainer(tmp_path, [callback])
    train.train()
    reader = open_run(callback.run.path)
    assert (reader.name, reader.tags, reader.status) == ("bert", ["nlp"], "completed")
    assert steps(callback.run, "train/loss") == [1, 2, 3, 4, 5, 6, 7, 8]
    assert steps(callback.run, "eval/loss") == [4, 8]
    logged = [entry for entry in train.state.log_history if "loss" in entry]
    found = [record.metrics for record in reader.records() if "train/loss" in record.metrics]
    for entry, metrics in zip(logged, found, strict=True):
        assert metrics["train/loss"] == entry["loss"]
        assert metrics["train/learning_rate"] == entry["learning_rate"]
        assert metrics["epoch"] == entry["epoch"]
    (last,) = [each for each in reader.records() if "train/train_loss" in each.metrics]
    assert last.step == 8
    config = reader.config
    assert config["corpus"] == "line"
    assert config["args"]["per_device_train_batch_size"] == 2
    assert config["model"]["hidden_size"] == 1
    assert b"s3cr3t" not in (callback.run.path / "config.json").read_bytes()
    assert validate(callback.run.path).ok


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("bad batch"), "failed"), (KeyboardInterrupt(), "interrupted")]
)
def test_a_crash_keeps_the_steps_so_far(tmp_path: Path, error: BaseException, status: str) -> None:
    callback = BlackBoxCallback("r", log_dir=tmp_path)
    with pytest.raises(type(error)):
        trainer(tmp_path, [callback, Stop(3, throw(error))]).train()
    reader = open_run(callback.run.path)
    assert (reader.status, steps(callback.run, "train/loss")) == (status, [1, 2])
    if status == "failed":
        assert reader.manifest["exception"]["message"] == "bad batch"
    assert validate(callback.run.path).ok


def test_an_early_stop_is_a_completed_run(tmp_path: Path) -> None:
    def stop(control: Any) -> None:
        control.should_training_stop = True

    callback = BlackBoxCallback("r", log_dir=tmp_path)
    trainer(tmp_path, [callback, Stop(3, stop)]).train()
    assert open_run(callback.run.path).status == "completed"
    assert steps(callback.run, "train/loss") == [1, 2, 3]


def test_steps_behind_the_checkpoint_supersede_the_old_ones(tmp_path: Path) -> None:
    options = {"save_strategy": "steps", "save_steps": 2, "eval_strategy": "no"}
    first = BlackBoxCallback("r", log_dir=tmp_path)
    with pytest.raises(ValueError, match="bad"):
        trainer(tmp_path, [first, Stop(6, throw(ValueError("bad")))], **options).train()
    callback = BlackBoxCallback("r", log_dir=tmp_path, resume=True)
    trainer(tmp_path, [callback], **options).train(resume_from_checkpoint=True)
    assert callback.run.path == first.run.path
    assert open_run(callback.run.path).status == "completed"
    assert steps(callback.run, "train/loss") == [1, 2, 3, 4, 5, 6, 7, 8]
    assert steps(callback.run, "train/loss", "all") == [1, 2, 3, 4, 5, 5, 6, 7, 8]


def test_each_training_is_a_run_of_its_own_and_a_given_run_stays_open(tmp_path: Path) -> None:
    train = trainer(tmp_path, [BlackBoxCallback("r", log_dir=tmp_path)], num_train_epochs=1)
    train.train()
    train.train()
    assert len(list(find_runs(tmp_path))) == 2
    with Run("mine", log_dir=tmp_path) as run:
        trainer(tmp_path, [BlackBoxCallback(run=run)], num_train_epochs=1).train()
        assert run.status == "running"
    assert steps(run, "train/loss") == [1, 2, 3, 4]


def test_other_ranks_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    callback = BlackBoxCallback("r", log_dir=tmp_path)
    train = trainer(tmp_path / "other", [callback], num_train_epochs=1)
    monkeypatch.setenv("RANK", "1")
    train.train()
    assert list(find_runs(tmp_path)) == []
