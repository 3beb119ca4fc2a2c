"""The span head: its logits and its loss, what it loads, and what a model folder keeps of it."""

from pathlib import Path

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from scipy import special

from gated_bert.config import GatedBertConfig
from gated_bert.models.architecture import BertConfig
from gated_bert.models.bert import BertClassifier
from gated_bert.models.build import build_model
from gated_bert.models.folder import load_model, save_model
from gated_bert.models.pretrained import load_pretrained, read_pretrained_architecture
from gated_bert.tasks.task import TASKS
from gated_bert.tasks.wordpiece import Tokenizer

FIXTURE = Path(__file__).resolve().parent.parent / "fixtures" / "bert"
INPUTS = {
    "input_ids": np.array([[2, 7, 150, 3, 9, 3], [2, 8, 3, 0, 0, 0]], dtype="int32"),
    "token_type_ids": np.array([[0, 0, 0, 0, 1, 1], [0] * 6], dtype="int32"),
    "attention_mask": np.array([[1] * 6, [1, 1, 1, 0, 0, 0]], dtype="int32"),
}


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


def make_model(dtype="float32", **options):
    return BertClassifier(BertConfig.uniform(1, 16, 2, 32, vocab_size=200, span_head=True, **options), dtype=dtype)


def load(path, **options):
    options = {"num_outputs": 2, "span_head": True, **options}
    model = BertClassifier(read_pretrained_architecture(path).replace(**options))
    load_pretrained(model, path)
    return model


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_every_token_has_a_start_and_an_end_logit(dtype):
    model = make_model(dtype)
    model.classifier.bias.assign([0.5, -0.5])
    hidden, pooled = model.encoder(INPUTS)
    logits = array(model(INPUTS))
    wanted = array(hidden).astype("float32") @ array(model.classifier.raw_kernel) + [0.5, -0.5]
    assert pooled is None and logits.dtype == np.float32 and logits.shape == (2, 2, 6)
    real = INPUTS["attention_mask"].astype(bool)
    np.testing.assert_allclose(logits.transpose(0, 2, 1)[real], wanted[real], atol=1e-5)
    probabilities = special.softmax(logits, axis=-1)
    assert probabilities[1, :, 3:].max() == 0, "padding has no share"
    shorter = {name: values[1:, :3] for name, values in INPUTS.items()}
    np.testing.assert_allclose(array(model(shorter)), logits[1:, :, :3], atol=1e-5 if dtype == "float32" else 0.02)


def test_the_loss_is_the_mean_of_start_and_end():
    model = make_model()
    model.compile(keras.optimizers.SGD(0.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    labels = np.array([[3, 4], [0, 0]], dtype="int32")
    found = model.train_on_batch(INPUTS, labels)
    chosen = np.take_along_axis(special.log_softmax(array(model(INPUTS)), axis=-1), labels[:, :, None], axis=-1)
    assert found == pytest.approx(-chosen.mean(), abs=1e-5)


def test_there_is_no_pooler():
    roles = [layer.role for layer in make_model().gated_layers()]
    assert roles[-1] == "classifier" and "pooler" not in roles
    assert not [variable.path for variable in make_model().weights if "pooler" in variable.path]


def test_a_model_folder_keeps_it(tmp_path):
    model = make_model()
    save_model(tmp_path / "model", model, Tokenizer.from_vocab(FIXTURE / "vocab.txt"), TASKS["squad"], {})
    loaded = load_model(tmp_path / "model")
    assert loaded.task == TASKS["squad"] and loaded.config.span_head
    assert np.array_equal(array(loaded.model(INPUTS)), array(model(INPUTS)))


def test_a_head_is_taken_from_a_span_model_only(tmp_path):
    folder = tmp_path / "model"
    tokenizer = Tokenizer.from_vocab(FIXTURE / "vocab.txt")
    span = make_model()
    save_model(folder, span, tokenizer, TASKS["squad"], {})
    assert np.array_equal(array(load(folder).classifier.raw_kernel), array(span.classifier.raw_kernel))
    with pytest.warns(UserWarning, match="its head is for answers as spans, the model needs classification"):
        classifier = load(folder, span_head=False)
    assert not np.array_equal(array(classifier.classifier.raw_kernel), array(span.classifier.raw_kernel))
    save_model(folder, classifier, tokenizer, TASKS["sst2"], {})
    with pytest.warns(UserWarning, match="its head is for classification .* the model needs answers as spans"):
        again = load(folder, gate_trainable=True)
    assert not np.array_equal(array(again.classifier.raw_kernel), array(classifier.classifier.raw_kernel))
    word = "embeddings/token_embedding/embeddings"
    values = [{v.path.split("/", 1)[1]: array(v) for v in model.weights} for model in (span, again)]
    name = next(path for path in values[0] if path.endswith(word))
    assert np.array_equal(values[0][name], values[1][name])


def test_a_hugging_face_span_head_is_loaded_and_a_missing_pooler_is_no_warning(tmp_path, recwarn):
    tensors = {
        name: values for name, values in load_file(FIXTURE / "model.safetensors").items() if "pooler" not in name
    }
    head = np.arange(64, dtype=np.float32).reshape(2, 32)
    tensors |= {"qa_outputs.weight": head, "qa_outputs.bias": np.float32([1, 2])}
    (tmp_path / "config.json").write_bytes((FIXTURE / "config.json").read_bytes())
    save_file(tensors, tmp_path / "model.safetensors")
    model = load(tmp_path)
    assert np.array_equal(array(model.classifier.raw_kernel), head.T)
    assert array(model.classifier.bias).tolist() == [1, 2]
    assert not [warning for warning in recwarn if "pooler" in str(warning.message)]


def test_a_run_on_squad_gets_it():
    record = GatedBertConfig(model_size="tiny", task="squad", num_layers=1, d_model=8, num_heads=2, dff=8)
    config = build_model(record, TASKS["squad"], vocab_size=10).bert_config
    assert config.span_head and config.num_outputs == 2
    assert BertConfig.from_json(config.to_json()) == config
