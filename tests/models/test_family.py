"""A family that is registered from the outside goes all the way, and no other module knows BERT."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

from gated_bert import GatedBertConfig, UserError, load_model, save_model, shrink, train
from gated_bert.compression.export import export_hugging_face
from gated_bert.compression.folders import shrink_folder
from gated_bert.compression.onnx_export import export_onnx
from gated_bert.compression.onnx_model import open_model
from gated_bert.compression.parity import check_inputs, largest_difference
from gated_bert.compression.predict import warm_up
from gated_bert.compression.source import load_source
from gated_bert.explain.lime import Explanation
from gated_bert.explain.student import Student
from gated_bert.explain.student_training import TrainedStudent, load_student, save_student
from gated_bert.explain.tokens import token_weights
from gated_bert.models.bert import BertClassifier
from gated_bert.models.family import _MODULES, BERT, family_mark, get_family
from gated_bert.models.folder import LoadedModel, read_masks
from gated_bert.models.pretrained import load_pretrained, read_pretrained_architecture
from gated_bert.pruning.activation_change import activation_changes
from gated_bert.tasks.embedded import embedded_examples, embedded_vocabulary
from gated_bert.tasks.evaluation import make_dataset
from gated_bert.tasks.examples import SpanExamples
from gated_bert.tasks.task import TASKS
from gated_bert.tasks.windows import encode_windows
from gated_bert.tasks.wordpiece import Tokenizer
from tests.conftest import REPOSITORY
from tests.toy_family import ToyClassifier, ToyConfig, ToyTokenizer

KNOWN = ", ".join(sorted([*_MODULES, "toy"]))
TEXTS = ["the film is good", "a bad plot"]
FRESH = """
import sys
import numpy as np
if sys.argv[3] == "known":
    import tests.toy_family
from gated_bert import load_model
loaded = load_model(sys.argv[1])
with np.load(sys.argv[2]) as inputs:
    np.save(sys.argv[2] + ".npy", loaded.model.predict_on_batch(dict(inputs)))
"""


@pytest.fixture(scope="module")
def tokenizer():
    return ToyTokenizer.from_vocab(embedded_vocabulary())


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory, tokenizer):
    """A checkpoint of the family, as a stranger would publish it."""
    folder = tmp_path_factory.mktemp("toy") / "pretrained"
    config = ToyConfig.uniform(2, 16, 4, 32, vocab_size=tokenizer.vocab_size, max_position=64)
    export_hugging_face(folder, LoadedModel(ToyClassifier(config), tokenizer, TASKS["rte"], config, {}))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory, pretrained):
    """The model of a run from that checkpoint, half of its heads and neurons pruned."""
    folder = tmp_path_factory.mktemp("toy") / "run"
    train(GatedBertConfig(
        model_size="tiny", pretrained=str(pretrained), task="rte", data="embedded", epochs=2, batch_size=16, max_len=64,
        train_examples=32, pruning_method="magnitude", pattern="head_neuron", scope="layer", schedule="linear",
        end_sparsity=0.5, pruning_start_epoch=1, pruning_end_epoch=2,
    ), folder)  # fmt: skip
    return load_model(folder / "model")


def test_a_checkpoint_is_written_and_read_under_the_names_of_its_family(pretrained):
    written = json.loads((pretrained / "config.json").read_text())
    assert (written["model_type"], written["architectures"]) == ("toy", ["ToyForSequenceClassification"])
    names = {name.partition(".")[0] for name in load_file(pretrained / "model.safetensors")}
    assert names == {"toy", "classifier"}
    settings = json.loads((pretrained / "tokenizer_config.json").read_text())
    assert settings["model_input_names"] == ["input_ids", "attention_mask"]
    loaded = load_source(pretrained)
    assert type(loaded.model) is ToyClassifier and type(loaded.tokenizer) is ToyTokenizer
    assert loaded.task.labels == TASKS["rte"].labels


def test_texts_are_arranged_as_the_library_does_by_the_saved_file(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.json")
    again, pairs = ToyTokenizer.from_file(tmp_path / "tokenizer.json"), TEXTS[::-1]
    for each in (tokenizer, again):
        encoded, single = each.encode(TEXTS, pairs), each.encode(TEXTS)
        assert set(encoded.inputs) == {"input_ids"}
        for index, (text, pair) in enumerate(zip(TEXTS, pairs, strict=True)):
            assert encoded.row(index).tolist() == each.backend.encode(text, pair).ids
            assert single.row(index).tolist() == each.backend.encode(text).ids
    assert tokenizer.encode(TEXTS, pairs, 11).lengths.tolist() == [11, 11]


def test_many_texts_are_kept_with_the_inputs_of_the_family(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fresh, kept = (tokenizer.encode(TEXTS * 500, TEXTS * 500) for _ in range(2))
    assert len(list(tmp_path.rglob("*.npz"))) == 1
    assert set(kept.inputs) == {"input_ids"} and np.array_equal(fresh.input_ids, kept.input_ids)


def test_windows_of_an_answer_stand_behind_the_special_tokens_of_the_family(tokenizer):
    context = "the film is good and the plot is bad"
    answer = (context.index("plot"), context.index("plot") + 4)
    examples = SpanExamples(["a film"], [context], np.array([answer]), ids=["q"], answers=[["plot"]])
    windows = encode_windows(tokenizer, examples, 12, 2)
    special = tokenizer.special_id("begin"), tokenizer.special_id("separator")
    (word,) = tokenizer.places(["plot"])[0]
    found = [windows.encoded.row(index) for index in range(len(windows.encoded))]
    shown = [(row[first], row[last]) for row, (first, last) in zip(found, windows.labels, strict=True) if first]
    assert shown and set(shown) == {(word, word)}
    for row, at in zip(found, windows.context_at, strict=True):
        assert row[:2].tolist() == [special[0]] * 2 and row[at - 2 : at].tolist() == [special[1]] * 2
        assert row[-1] == special[1] and len(row) <= 12 and row[at - 3] != special[1]


def test_a_run_trains_prunes_and_saves_it(trained):
    assert type(trained.model) is ToyClassifier and type(trained.tokenizer) is ToyTokenizer
    assert trained.config.model_type == "toy" and trained.config.input_names == ("input_ids", "attention_mask")
    layers = trained.model.gated_layers()
    closed = {layer.name: float((np.asarray(layer.mask_variable) == 0).mean()) for layer in layers}
    assert closed["encoder_0_query"] == closed["encoder_1_ffn_output"] == 0.5 and closed["pooler"] == 0


@pytest.mark.nightly
def test_a_fresh_process_that_knows_the_family_predicts_the_same(trained, tmp_path):
    save_model(tmp_path / "model", trained.model, trained.tokenizer, trained.task, {})
    masks = read_masks(tmp_path / "model")
    for layer in trained.model.gated_layers():
        assert np.array_equal(masks[layer.layer_index, layer.role], np.asarray(layer.mask_variable) == 0)
    inputs = check_inputs(trained)[0]
    np.savez(tmp_path / "inputs.npz", **inputs)
    results = {}
    for known in ("known", "unknown"):
        program = (sys.executable, "-c", FRESH, tmp_path / "model", tmp_path / "inputs.npz", known)
        results[known] = subprocess.run(program, capture_output=True, text=True, cwd=REPOSITORY)
    assert results["known"].returncode == 0, results["known"].stderr
    found = np.load(tmp_path / "inputs.npz.npy")
    assert np.array_equal(found, trained.model.predict_on_batch(inputs))
    assert "model/config.json: model_type is 'toy'; known: bert" in results["unknown"].stderr


def test_it_shrinks_to_what_computes_the_same(trained, tmp_path):
    small = shrink(trained.model)
    assert type(small) is ToyClassifier
    assert [sizes.num_heads for sizes in small.architecture.layers] == small.architecture.num_heads == [2, 2]
    assert {sizes.intermediate_size for sizes in small.architecture.layers} == {16}
    assert largest_difference(trained.model, small, check_inputs(trained)) < 1e-5
    save_model(tmp_path / "model", trained.model, trained.tokenizer, trained.task, {})
    shrink_folder(tmp_path / "model", tmp_path / "small", length=16)
    assert largest_difference(small, load_model(tmp_path / "small").model, check_inputs(trained)) < 1e-6


def test_it_is_exported_with_its_own_inputs_and_predicts(trained, tmp_path):
    assert export_onnx(tmp_path / "model.onnx", trained) < 1e-4
    opened = open_model(tmp_path / "model.onnx")
    assert [each.name for each in opened.model.session.get_inputs()] == ["input_ids", "attention_mask"]
    assert type(opened.tokenizer) is ToyTokenizer and opened.config == trained.config
    warm_up(opened)
    examples, _ = embedded_examples("rte")
    config = GatedBertConfig(model_size="tiny", task="rte", batch_size=16, max_len=64)
    dataset = make_dataset(trained.task, trained.tokenizer, examples.take(range(16)), config)
    assert set(dataset[0][0]) == {"input_ids", "attention_mask"}
    assert opened.model.predict(dataset) == pytest.approx(trained.model.predict(dataset, verbose=0), abs=1e-4)
    with pytest.raises(UserError, match="'toy' is no family whose fused graph is known; known: bert"):
        export_onnx(tmp_path / "fused.onnx", trained, "fused")


def test_activations_and_explanations_ask_it_too(trained, tokenizer):
    changes = activation_changes(trained.model, check_inputs(trained))
    assert [len(heads) for heads in changes.heads] == [4, 4]
    explanation = Explanation(0, 0, ("film",), ((4,),), np.array([0.5]), 0.0, 1.0)
    ids, weights = token_weights(tokenizer, "the film", [explanation], 16)
    assert ids.tolist()[:2] == [tokenizer.special_id("begin")] * 2
    assert weights[:, 0].tolist() == [0, 0, 0, 0.5, 0]


def test_weights_of_one_family_do_not_go_into_a_model_of_another(pretrained, trained, tmp_path):
    config = read_pretrained_architecture(str(pretrained))
    model = BertClassifier(get_family(BERT).architecture.from_dict(
        {name: value for name, value in config.to_dict().items() if name != "model_type"}))  # fmt: skip
    save_model(tmp_path / "model", trained.model, trained.tokenizer, trained.task, {})
    for source in (pretrained, tmp_path / "model"):
        with pytest.raises(UserError, match="model_type is toy, the model's is bert"):
            load_pretrained(model, str(source))


def test_a_student_reads_texts_as_the_model_that_it_learnt_from(tokenizer, tmp_path):
    for family, kind in (("toy", ToyTokenizer), (BERT, Tokenizer)):
        student = Student(tokenizer.vocab_size, 2)
        save_student(tmp_path / family, TrainedStudent(student, tokenizer, TASKS["sst2"], family_mark(family)))
        found = load_student(tmp_path / family).tokenizer
        assert type(found) is kind
        # What is put around texts is what the file says, whoever reads it.
        assert found.encode(["film"]).input_ids.tolist() == tokenizer.encode(["film"]).input_ids.tolist()
    assert "model_type" not in json.loads((tmp_path / BERT / "record.json").read_text())


@pytest.mark.parametrize("name", ["config.json", "pretrained", "onnx"])
def test_an_unknown_family_is_refused_by_a_list_of_those_known(trained, pretrained, tmp_path, name):
    if name == "config.json":
        save_model(tmp_path / "model", trained.model, trained.tokenizer, trained.task, {})
        path, load = tmp_path / "model" / "config.json", lambda: load_model(tmp_path / "model")
    elif name == "onnx":
        export_onnx(tmp_path / "model.onnx", trained)
        path, load = tmp_path / "model.json", lambda: open_model(tmp_path / "model.onnx")
    else:
        for file in pretrained.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        path, load = tmp_path / "config.json", lambda: read_pretrained_architecture(str(tmp_path))
    path.write_text(path.read_text().replace('"toy"', '"gpt2"'))
    with pytest.raises(UserError, match=re.escape(f"{path}: model_type is 'gpt2'; known: {KNOWN}")) as caught:
        load()
    assert "\n" not in str(caught.value)


OWN = {
    "__init__": "the public name",
    "models/architecture": "BERT's record of sizes, and the inputs it names",
    "models/bert": "the classifier",
    "models/bert_family": "the family",
    "models/encoder": "BERT's embeddings",
    "compression/onnx_bert": "BERT's embeddings in ONNX Runtime",
    "compression/shrink": "the example",
    "tasks/wordpiece": "BERT's tokeniser",
    "tasks/arrangement": "what a file calls BERT's special tokens",
    "tasks/file_tokenizers": "what RoBERTa calls them",
    "tasks/tokenizer_rules": "the files of BERT's vocabularies",
}
"""Modules that are BERT's own → what of it they hold."""


def test_no_other_module_names_bert_its_segments_or_its_special_tokens():
    names = re.compile(r"\bBertClassifier|token_type_ids|\[CLS\]|\[SEP\]")
    package = REPOSITORY / "gated_bert"
    found = {path.relative_to(package).with_suffix("").as_posix() for path in package.rglob("*.py")
             if names.search(path.read_text(encoding="utf-8"))}  # fmt: skip
    assert found == set(OWN)
