"""Train a tiny BERT with Transformers to tell odd from even sequences, and record it."""

from __future__ import annotations

import tempfile

import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from blackboxml.frontends.transformers import BlackBoxCallback

tokens = torch.randint(1, 50, (200, 8), generator=torch.Generator().manual_seed(0))
data = [{"input_ids": row, "labels": row[0] % 2} for row in tokens]
model = BertForSequenceClassification(
    BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
)

callback = BlackBoxCallback("parity_transformers", tags=["example"])
with tempfile.TemporaryDirectory() as folder:
    arguments = TrainingArguments(
        output_dir=folder,
        num_train_epochs=2,
        per_device_train_batch_size=20,
        learning_rate=0.005,
        logging_steps=5,
        eval_strategy="epoch",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    Trainer(
        model, arguments, train_dataset=data[:160], eval_dataset=data[160:], callbacks=[callback]
    ).train()
print("recorded", callback.run.path)
