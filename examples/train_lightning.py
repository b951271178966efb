"""Train a small network with Lightning on handwritten digits, test it, and record both."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset, random_split

from blackboxml.frontends.lightning import BlackBoxLogger


class Digits(lightning.LightningModule):
    def __init__(self, hidden: int = 32, lr: float = 0.01) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.lr = lr
        self.network = torch.nn.Sequential(
            torch.nn.Linear(64, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 10)
        )

    def evaluate(self, group: str, batch: Any) -> torch.Tensor:
        images, labels = batch
        found = self.network(images)
        loss = torch.nn.functional.cross_entropy(found, labels)
        self.log(f"{group}/loss", loss)
        self.log(f"{group}/accuracy", (found.argmax(1) == labels).float().mean())
        return loss

    def training_step(self, batch: Any) -> torch.Tensor:
        return self.evaluate("train", batch)

    def validation_step(self, batch: Any) -> None:
        self.evaluate("eval", batch)

    def test_step(self, batch: Any) -> None:
        self.evaluate("test", batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), self.lr)


images, labels = load_digits(return_X_y=True)
data = TensorDataset(torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels))
parts = random_split(data, [0.7, 0.2, 0.1], torch.Generator().manual_seed(0))
train, evaluation, test = (DataLoader(part, batch_size=64) for part in parts)

logger = BlackBoxLogger("digits_lightning", tags=["example"])
trainer = lightning.Trainer(
    logger=logger,
    max_epochs=3,
    accelerator="cpu",
    log_every_n_steps=5,
    enable_progress_bar=False,
    enable_model_summary=False,
)
model = Digits()
trainer.fit(model, train, evaluation)
trainer.test(model, test, verbose=False)
print("recorded", logger.run.path)
