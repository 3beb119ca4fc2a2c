"""Trains, evaluates and predicts on bucketed batches; run on one backend by test_pipeline.py."""

import keras
import numpy as np

from gated_bert.tasks.encoded import Encoded
from gated_bert.tasks.metrics import streaming_metric
from gated_bert.tasks.pipeline import BucketedDataset
from gated_bert.tasks.task import TASKS

# Nearly all examples are short: batches of one length in a row are the rule, except where the order prevents it.
RANDOM = np.random.default_rng(0)
LENGTHS = np.where(RANDOM.random(300) < 0.9, RANDOM.integers(2, 9, 300), RANDOM.integers(9, 25, 300))
OFFSETS = np.concatenate([[0], np.cumsum(LENGTHS)])
IDS = RANDOM.integers(1, 20, OFFSETS[-1]).astype(np.int32)
ENCODED = Encoded({"input_ids": IDS, "token_type_ids": np.zeros_like(IDS)}, OFFSETS)
LABELS = ENCODED.input_ids[OFFSETS[:-1]].astype(np.int32) % 2


def make_model(task) -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = {
        name: keras.Input((None,), dtype="int32", name=name)
        for name in ("input_ids", "token_type_ids", "attention_mask")
    }
    hidden = keras.layers.Embedding(20, 8)(inputs["input_ids"])
    hidden = keras.layers.GlobalAveragePooling1D()(hidden, mask=inputs["attention_mask"])
    model = keras.Model(inputs, keras.layers.Dense(task.num_outputs)(hidden))
    regression = task.kind == "regression"
    loss = "mse" if regression else keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-2), loss, metrics=[streaming_metric(task)])
    return model


class SetEpoch(keras.callbacks.Callback):
    def __init__(self, dataset):
        super().__init__()
        self.dataset = dataset

    def on_epoch_begin(self, epoch, logs=None):
        self.dataset.set_epoch(epoch)


def main():
    for name in ("sst2", "stsb"):
        task = TASKS[name]
        labels = LABELS if task.kind == "classification" else LABELS.astype(np.float32) * 5
        train = BucketedDataset(ENCODED, labels, 16, 64, seed=1)
        dev = BucketedDataset(ENCODED, labels, 32, 64)
        model = make_model(task)
        callbacks = [SetEpoch(train)]
        history = model.fit(train, validation_data=dev, epochs=2, callbacks=callbacks, shuffle=False, verbose=0).history
        assert history["loss"][-1] < history["loss"][0]
        scores = model.evaluate(dev, return_dict=True, verbose=0)
        outputs = model.predict(BucketedDataset(ENCODED, None, 32, 64), verbose=0)[np.argsort(dev.row_order())]
        expected = [model.predict_on_batch(dev[index][0]) for index in range(len(dev))]
        np.testing.assert_allclose(outputs[dev.row_order()], np.concatenate(expected), atol=1e-6)
        if name == "sst2":
            assert abs(scores["accuracy"] - np.mean(outputs.argmax(axis=1) == labels)) < 1e-6
        single = model.predict(BucketedDataset(ENCODED, None, 9999, 64), verbose=0)
        assert single.shape == (300, task.num_outputs)

    whole, halves = make_model(task), make_model(task)
    train.set_epoch(0)
    start = next(index for index in range(4, len(train)) if train.can_start_at(index))
    whole.fit(train, shuffle=False, verbose=0)
    train.set_epoch(0)
    for index in range(start):
        halves.train_on_batch(*train[index])
    train.set_epoch(0, first_batch=start)
    halves.fit(train, shuffle=False, verbose=0)
    for one, other in zip(whole.weights, halves.weights, strict=True):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other), atol=1e-6)
    print(f"{keras.backend.backend()}: the two halves of a fit equal the whole")


if __name__ == "__main__":
    main()
