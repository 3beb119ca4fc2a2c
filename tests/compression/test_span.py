"""Models with a span head: shrunk exactly, counted token by token, exported and read again."""

import numpy as np
import pytest
from in_transformers import logits, needs_transformers

from gated_bert.compression.export import export_hugging_face
from gated_bert.compression.model_statistics import macs, open_macs
from gated_bert.compression.shrink import shrink
from gated_bert.compression.source import load_source
from gated_bert.models.folder import LoadedModel
from gated_bert.tasks.task import TASKS
from gated_bert.tasks.wordpiece import SPECIAL_TOKENS, Tokenizer


@pytest.fixture
def pruned(make_model):
    """A model whose second half of neurons is closed everywhere."""
    model = make_model(span_head=True, num_outputs=2)
    for layer in model.gated_layers(("ffn_intermediate",)):
        gates = np.ones(layer.gates.shape)
        gates[:, gates.shape[1] // 2 :] = 0
        layer.gates.assign(gates)
    return model


def real(logits, inputs):
    return logits.transpose(0, 2, 1)[inputs["attention_mask"] == 1]


def test_shrinking_is_exact_and_the_head_counts_for_every_token(pruned, inputs):
    small = shrink(pruned)
    assert small.bert_config.span_head
    assert small.bert_config.layers[0].intermediate_size == pruned.bert_config.layers[0].intermediate_size // 2
    assert np.abs(small.predict(inputs, verbose=0) - pruned.predict(inputs, verbose=0)).max() < 1e-4
    width = pruned.bert_config.hidden_size
    assert macs(pruned.bert_config, 16).head == open_macs(pruned, 16).head == 2 * width


@pytest.fixture
def exported(pruned, tmp_path):
    tokenizer = Tokenizer.from_vocab([*SPECIAL_TOKENS, "good", "bad", "film", "##s"])
    export_hugging_face(tmp_path / "hf", LoadedModel(pruned, tokenizer, TASKS["squad"], pruned.bert_config, {}))
    return tmp_path / "hf"


def test_an_exported_folder_comes_back(pruned, exported, inputs):
    with pytest.warns(UserWarning, match="of the weights are zeros, which count as closed"):
        found = load_source(exported)
    assert found.task == TASKS["squad"] and found.config.span_head
    assert np.abs(found.model.predict(inputs, verbose=0) - pruned.predict(inputs, verbose=0)).max() < 1e-5


@pytest.mark.nightly
@needs_transformers
def test_transformers_answers_the_same(pruned, exported, inputs, tmp_path):
    found = np.stack([*logits("BertForQuestionAnswering", exported, inputs, tmp_path)], axis=1)
    assert np.abs(real(found, inputs) - real(pruned.predict(inputs, verbose=0), inputs)).max() < 1e-4
