"""Hugging Face folders: what transformers computes from them, what comes back, what is refused."""

import json

import numpy as np
import pytest
import tokenizers
from in_transformers import logits, needs_transformers, run
from texts import many_texts
from tokenizers import normalizers

from gated_bert.compression.export import export_hugging_face
from gated_bert.compression.shrink import shrink
from gated_bert.compression.source import load_source
from gated_bert.models.architecture import LayerSizes
from gated_bert.models.folder import LoadedModel, load_model, save_model
from gated_bert.support.errors import UserError
from gated_bert.tasks.task import TASKS, Task
from gated_bert.tasks.tokenizer_rules import AddedToken, WordPieceRules
from gated_bert.tasks.wordpiece import Tokenizer

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "##s"]
LABELS_AND_IDS = """
import json, sys, transformers
labels = transformers.AutoConfig.from_pretrained(sys.argv[1]).id2label
print(json.dumps([labels, transformers.AutoTokenizer.from_pretrained(sys.argv[1])("Good films", "bad")["input_ids"]]))
"""
ZEROED = """
import sys, torch, transformers
torch.manual_seed(0)
sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 12}
config = transformers.BertConfig(vocab_size=40, num_labels=3, initializer_range=0.5, **sizes)
model = transformers.BertForSequenceClassification(config)
with torch.no_grad():
    model.bert.encoder.layer[0].intermediate.dense.weight[:4] = 0
    model.bert.encoder.layer[0].intermediate.dense.bias[:] = torch.linspace(-1, 1, 12)
model.save_pretrained(sys.argv[1])
"""


@pytest.fixture
def masked(make_model):
    """A model with random gates, and all neurons of its second layer's upper half closed."""
    model = make_model()
    rng = np.random.default_rng(3)
    for layer in model.gated_layers(("query", "key", "value", "attention_output", "ffn_intermediate")):
        layer.gates.assign(rng.integers(0, 2, layer.gates.shape))
    model.encoder.blocks[1].ffn.output_dense.gates.assign(np.repeat([[1.0], [0.0]], 6, axis=0).repeat(16, axis=1))
    return loaded(model)


def loaded(model, task=TASKS["sst2"]):
    return LoadedModel(model, Tokenizer.from_vocab(TOKENS), task, model.bert_config, {})


@pytest.mark.nightly
@needs_transformers
def test_transformers_computes_the_same_logits(masked, inputs, tmp_path):
    export_hugging_face(tmp_path / "hf", masked)
    (found,) = logits("BertForSequenceClassification", tmp_path / "hf", inputs, tmp_path)
    assert np.abs(found - masked.model.predict(inputs, verbose=0)).max() < 1e-4
    labels, ids = json.loads(run(LABELS_AND_IDS, tmp_path / "hf"))
    assert labels == {"0": "negative", "1": "positive"}
    assert ids == masked.tokenizer.encode(["Good films"], ["bad"]).input_ids.tolist()


def test_zeroed_weights_come_back_as_closed_gates_and_shrink(masked, inputs, tmp_path):
    export_hugging_face(tmp_path / "hf", masked)
    with pytest.warns(UserWarning, match="of the weights are zeros, which count as closed"):
        found = load_source(tmp_path / "hf")
    assert np.abs(found.model.predict(inputs, verbose=0) - masked.model.predict(inputs, verbose=0)).max() < 1e-6
    assert found.task.labels == ("negative", "positive") and found.task.name == "hf"
    for one, other in zip(found.model.gated_layers(), masked.model.gated_layers(), strict=True):
        assert np.array_equal(np.asarray(one.gates), np.asarray(other.gates))
    small = shrink(found.model)
    assert small.bert_config.layers[1] == LayerSizes(4, 4, 4, 6)
    assert np.abs(small.predict(inputs, verbose=0) - found.model.predict(inputs, verbose=0)).max() < 1e-5


@pytest.mark.nightly
@needs_transformers
def test_transformers_folders_with_zeroed_weights_shrink(inputs, tmp_path):
    run(ZEROED, tmp_path / "hf")
    (found,) = logits("BertForSequenceClassification", tmp_path / "hf", inputs, tmp_path)
    (tmp_path / "hf" / "vocab.txt").write_text("\n".join(TOKENS))
    small = shrink(load_source(tmp_path / "hf").model)
    assert small.bert_config.layers == (LayerSizes(4, 4, 4, 8),)
    assert np.abs(found - small.predict(inputs, verbose=0)).max() < 1e-4


def test_uniformly_fewer_neurons_are_exported_and_other_sizes_refused(make_model, tmp_path):
    model = make_model()
    for block in model.encoder.blocks:
        block.ffn.output_dense.gates.assign(np.repeat([[1.0], [0.0]], 6, axis=0).repeat(16, axis=1))
    small = shrink(model)
    export_hugging_face(tmp_path / "hf", loaded(small))
    assert load_source(tmp_path / "hf").config.layers == (LayerSizes(4, 4, 4, 6),) * 2
    small.encoder.blocks[1].ffn.intermediate.gates.assign(np.zeros((16, 6)))
    for sub_layer in (small.encoder.blocks[1].ffn, small.encoder.blocks[0].attention):
        sub_layer.output_dense.gates.assign(np.zeros(sub_layer.output_dense.gates.shape))
        smaller = shrink(small)
        with pytest.raises(UserError, match="--format: 'hf' is refused: layer . has .*no (heads|neurons)") as caught:
            export_hugging_face(tmp_path / "none", loaded(smaller))
        assert "\n" not in str(caught.value) and not (tmp_path / "none").exists()


def test_a_regression_comes_back_as_one(make_model, tmp_path):
    export_hugging_face(tmp_path / "hf", loaded(make_model(num_outputs=1), TASKS["stsb"]))
    found = load_source(tmp_path / "hf").task
    assert found == Task("hf", "hf", "regression", metrics=("pearson", "spearman"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "no model.safetensors in it"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 9), "not a whole safetensors file"),
        (lambda folder: [(folder / name).unlink() for name in ("vocab.txt", "tokenizer.json")], "no tokenizer.json or"),
        (lambda folder: change(folder, problem_type="ranking"), "problem_type 'ranking"),
        (lambda folder: change(folder, model_type="gpt2"), "model_type is 'gpt2'"),
    ],
)
def test_what_is_no_whole_bert_is_refused_in_one_line(make_model, tmp_path, damage, message):
    export_hugging_face(tmp_path / "hf", loaded(make_model(num_layers=1, vocab_size=len(PIECES) + 20)))
    damage(tmp_path / "hf")
    with pytest.raises(UserError, match=message) as caught:
        load_source(tmp_path / "hf")
    assert "\n" not in str(caught.value)


def change(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


TEXTS = many_texts(200)
SEEN = {each for text in TEXTS for form in (text, text.lower()) for each in form}
LETTERS = sorted(each for each in SEEN if each.isprintable() and each != " ")
PIECES = [*TOKENS[:5], *LETTERS, *(f"##{letter}" for letter in LETTERS)]
READ = """
import json, sys, transformers
texts = json.load(open(sys.argv[1]))
for folder in sys.argv[2:]:
    read = [transformers.AutoTokenizer.from_pretrained(folder, use_fast=fast) for fast in (True, False)]
    print(json.dumps([each(texts, texts[::-1])[key] for each in read for key in ("input_ids", "token_type_ids")]))
"""


def normalised(normalizer):
    record = json.loads(Tokenizer.from_vocab(PIECES).backend.to_str())
    record["normalizer"] = normalizer and json.loads(normalizer.__getstate__())
    return Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(record)))


def all_kinds():
    cased = WordPieceRules(lowercase=False)
    odd = WordPieceRules(special=dict(zip(TOKENS[:5], ("<pad>", "<unk>", "<s>", "</s>", "<mask>"), strict=True)))
    added = WordPieceRules(added=(AddedToken("C++"), AddedToken("<e1>", special=True)), max_length=9)
    mixed = normalizers.Sequence([normalizers.NFD(), normalizers.BertNormalizer(lowercase=False)])
    return {
        "default": Tokenizer.from_vocab(PIECES),
        "cased": Tokenizer.from_vocab(PIECES, cased),
        "accents kept": Tokenizer.from_vocab(PIECES, WordPieceRules(strip_accents=False)),
        "cased, accents removed": Tokenizer.from_vocab(PIECES, WordPieceRules(lowercase=False, strip_accents=True)),
        "Chinese as it is": Tokenizer.from_vocab(PIECES, WordPieceRules(chinese_chars=False)),
        "controls kept": Tokenizer.from_vocab(PIECES, WordPieceRules(clean_text=False)),
        "spaces only": Tokenizer.from_vocab(PIECES, WordPieceRules(basic=False)),
        "added": Tokenizer.from_vocab(PIECES, added),
        "odd names": Tokenizer.from_vocab([*odd.special.values(), *PIECES[5:]], odd),
        "no mask": Tokenizer.from_vocab([token for token in PIECES if token != "[MASK]"]),
        "none": normalised(None),
        "NFC": normalised(normalizers.NFC()),
        "sequence": normalised(normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])),
        "with BERT's": normalised(mixed),
    }


def rows(encoded, values):
    return [values[start:end].tolist() for start, end in zip(encoded.offsets, encoded.offsets[1:], strict=False)]


def test_every_tokeniser_comes_back_from_each_kind_of_folder(make_model, tmp_path):
    model = make_model(num_layers=1, vocab_size=len(PIECES) + 20)
    for name, tokenizer in all_kinds().items():
        export_hugging_face(tmp_path / name, LoadedModel(model, tokenizer, TASKS["sst2"], model.bert_config, {}))
        found = load_source(tmp_path / name).tokenizer
        save_model(tmp_path / "model", model, found, TASKS["sst2"], {})
        again = load_model(tmp_path / "model").tokenizer
        expected = tokenizer.encode(TEXTS, TEXTS[::-1], 2000)
        for each in (found, again):
            assert np.array_equal(each.encode(TEXTS, TEXTS[::-1], 2000).input_ids, expected.input_ids), name
            special = ("pad", "unk", "begin", "separator")
            assert [each.special_id(one) for one in special] == [tokenizer.special_id(one) for one in special]
    assert json.loads((tmp_path / "added" / "tokenizer_config.json").read_text())["model_max_length"] == 9


@pytest.mark.nightly
@needs_transformers
def test_transformers_cuts_texts_as_every_exported_tokeniser(make_model, tmp_path):
    kinds, model = all_kinds(), make_model(num_layers=1, vocab_size=len(PIECES) + 20)
    for name, tokenizer in kinds.items():
        export_hugging_face(tmp_path / name, LoadedModel(model, tokenizer, TASKS["sst2"], model.bert_config, {}))
    (tmp_path / "texts.json").write_text(json.dumps(TEXTS))
    lines = run(READ, *(tmp_path / name for name in ("texts.json", *kinds))).splitlines()
    for (name, tokenizer), line in zip(kinds.items(), lines, strict=True):
        encoded = tokenizer.encode(TEXTS, TEXTS[::-1], 2000)
        ids, types = rows(encoded, encoded.input_ids), rows(encoded, encoded.inputs["token_type_ids"])
        assert json.loads(line) == [ids, types, ids, types], name
