"""Models without the rows that a corpus never looks up."""

import json

import keras
import numpy as np
import pytest

from gated_bert import GatedBertConfig, UserError, train, trim_vocabulary
from gated_bert.cli.main import main
from gated_bert.compression.source import load_source
from gated_bert.models.folder import LoadedModel, load_model, save_model
from gated_bert.models.pretrained import read_pretrained_architecture
from gated_bert.tasks.pipeline import BucketedDataset
from gated_bert.tasks.task import TASKS, Task
from tests.models.family_models import FOLDERS, load
from tests.refused import refusal
from tests.tasks.test_file_tokenizers import RobertaTokenizer, byte_level

TEXTS = ["a film that moves", "a bore, and long", "The end.", "(no) end"]


def logits(loaded, texts):
    encoded = loaded.tokenizer.encode(texts, None, 16)
    return loaded.model.predict_on_batch(BucketedDataset(encoded, None, len(texts), 16, buckets=(16,))[0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The model of a short run on embedded data."""
    out = tmp_path_factory.mktemp("run")
    train(GatedBertConfig(
        model_size="tiny", num_layers=1, d_model=16, num_heads=2, dff=16, task="rte", data="embedded", epochs=1,
        batch_size=16, max_len=32, train_examples=32, pruning_method="baseline",
    ), out)  # fmt: skip
    return out / "model"


@pytest.fixture
def roberta():
    """A RoBERTa of random weights with a tokeniser of byte pairs."""
    tokenizer = RobertaTokenizer(byte_level())
    config = read_pretrained_architecture(str(FOLDERS / "roberta"))
    rows = tokenizer.vocab_size + 24
    model = load(FOLDERS / "roberta", num_outputs=3).rebuilt(config.replace(
        vocab_size=rows, num_outputs=2, padding_index=tokenizer.special_id("pad")))  # fmt: skip
    return LoadedModel(model, tokenizer, TASKS["sst2"], model.architecture, {})


def test_logits_of_the_texts_are_the_same_bit_for_bit(roberta, tmp_path):
    small = trim_vocabulary(roberta, TEXTS)
    assert small.config.vocab_size == small.tokenizer.vocab_size < roberta.tokenizer.vocab_size
    assert small.metadata["vocabulary_trimmed"] == {
        "tokens_before": roberta.config.vocab_size, "tokens": small.config.vocab_size, "texts": 4}  # fmt: skip
    # Positions are counted from behind the padding, whose id says how.
    assert small.tokenizer.special_id("pad") == small.config.padding_index
    np.testing.assert_array_equal(logits(roberta, TEXTS), logits(small, TEXTS))
    save_model(tmp_path / "small", small.model, small.tokenizer, small.task, small.metadata)
    np.testing.assert_array_equal(logits(load_model(tmp_path / "small"), TEXTS), logits(small, TEXTS))
    assert np.isfinite(logits(small, ["żółć 電影 😀"])).all()


def test_tagged_words_are_cut_one_by_one(roberta):
    """Of byte pairs the first word of a text of tagged words has a blank before it, too."""
    labels = ("O", "B-X", "I-X")
    task = Task("names", "names", "token_classification", labels, ("accuracy",))
    config = roberta.config.for_task(task)
    tagger = LoadedModel(roberta.model.rebuilt(config), roberta.tokenizer, task, config, {})
    small = trim_vocabulary(tagger, ["abc x", "don't"])
    words = [("abc", "x"), ("don't",)]
    before, after = (
        list(map(each.tokenizer.backend.id_to_token, each.tokenizer.words(words)[0])) for each in (tagger, small)
    )
    assert before == after


def test_gates_stay_closed_and_the_given_model_is_left_alone(roberta):
    layer = roberta.model.gated_layers(("ffn_intermediate",))[0]
    layer.mask_variable.assign(np.arange(layer.raw_kernel.shape[1]) % 2 * np.ones(layer.raw_kernel.shape))
    before = [keras.ops.convert_to_numpy(each) for each in roberta.model.weights]
    small = trim_vocabulary(roberta, TEXTS)
    kept = small.model.gated_layers(("ffn_intermediate",))[0]
    np.testing.assert_array_equal(
        *map(keras.ops.convert_to_numpy, (kept.mask_variable, layer.mask_variable)))  # fmt: skip
    for was, variable in zip(before, roberta.model.weights, strict=True):
        np.testing.assert_array_equal(was, keras.ops.convert_to_numpy(variable))


def test_the_command_takes_the_tasks_own_texts_and_files(folder, tmp_path, capsys):
    assert main(["trim-vocabulary", str(folder), str(tmp_path / "small"), "-d", "embedded"]) == 0
    said = capsys.readouterr().out
    whole, small = load_model(folder), load_model(tmp_path / "small")
    assert f"tokens {whole.config.vocab_size:,} → {small.config.vocab_size:,}" in said and "cut as before" in said
    (tmp_path / "more.csv").write_text("sentence1,sentence2\nA man sleeps.,A man is awake.\n")
    (tmp_path / "other.jsonl").write_text(json.dumps({"sentence1": "He sings", "sentence2": "He is silent"}) + "\n")
    files = ["--texts", str(tmp_path / "more.csv"), "--texts", str(tmp_path / "other.jsonl")]
    assert main(["trim-vocabulary", str(folder), str(tmp_path / "least"), *files]) == 0
    least = load_source(tmp_path / "least")
    assert least.metadata["vocabulary_trimmed"]["texts"] == 4
    assert least.config.vocab_size < small.config.vocab_size
    texts = ["A man sleeps.", "He is silent"]
    np.testing.assert_array_equal(logits(least, texts), logits(whole, texts))


@pytest.mark.parametrize(("words", "said"), [
    ([], "trim-vocabulary: needs texts; name files with --texts, or the data of the task with -d"),
    (["--texts", "nowhere.txt"], "nowhere.txt: no such file; give a .tsv"),
    (["-d", "nowhere"], "nowhere"),
    (["--texts", "texts.txt", "--allow-partial"], "--allow-partial: only with -d"),
    (["-d", "embedded", "--text-column", "a"], "--text-column: only with --texts"),
    (["--texts", "texts.txt"], "texts.txt"),
])  # fmt: skip
def test_what_makes_no_corpus_is_refused(folder, tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts.txt").write_text("")
    assert said in refusal(capsys, "trim-vocabulary", str(folder), "out", *words)
    assert not (tmp_path / "out").exists()


def test_no_texts_are_refused(roberta):
    with pytest.raises(UserError, match="no texts; give at least one"):
        trim_vocabulary(roberta, [])

