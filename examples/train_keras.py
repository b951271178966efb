"""Train a small network with Keras on handwritten digits, stop early, and record it."""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
from sklearn.datasets import load_digits

from blackboxml.callback import BlackBoxCallback

images, labels = load_digits(return_X_y=True)
network = keras.Sequential(
    [
        keras.layers.Input((64,)),
        keras.layers.Dense(32, activation="relu"),
        keras.layers.Dense(10, activation="softmax"),
    ]
)
network.compile("adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])

callback = BlackBoxCallback("digits_keras", tags=["example"], system_metrics=1)
network.fit(
    images / 16,
    labels,
    batch_size=128,
    epochs=5,
    validation_split=0.2,
    verbose=0,
    callbacks=[keras.callbacks.EarlyStopping(patience=2), callback],
)
print("recorded", callback.run.path)
