"""The fast LIME against the library's own, on the same model with the same seeds."""

import numpy as np
import pytest
from keras import ops
from lime.lime_text import LimeTextExplainer
from scipy import special

from gated_bert.explain import lime
from gated_bert.explain.lime import document_seed, explain_texts, perturb, predict_samples
from gated_bert.explain.tokens import token_weights
from gated_bert.models.folder import LoadedModel
from gated_bert.support.errors import UserError
from gated_bert.tasks.task import TASKS
from tests.explain.conftest import TOKENS, WORDS, loaded_model

TEXTS = (
    "The plot was not good, the cast was very, very bad and its film was a long, long, dull joy.",
    "good film",
    "dull - not very dull, but joyless; films' casts and a plot: the good, the bad and the long one was not it",
    "bad",
    "a good plot and a bad cast",
)


@pytest.fixture(scope="module")
def loaded():
    return loaded_model()


def plain_probabilities(loaded, max_len=24):
    """What a user of the library would hand it: every text in one batch, padded to the longest."""

    def predict(texts):
        rows = [loaded.tokenizer.encode([text], None, max_len).input_ids for text in texts]
        ids = np.zeros((len(rows), max(map(len, rows))), np.int32)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = row
        mask = (np.arange(ids.shape[1]) < np.array([len(row) for row in rows])[:, None]).astype(np.int32)
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        return special.softmax(np.asarray(loaded.model.predict_on_batch(inputs), np.float64), axis=1)

    return predict


def by_library(loaded, text, document, label, num_features, num_samples, seed, **options):
    explainer = LimeTextExplainer(random_state=document_seed(seed, document), **options)
    return explainer.explain_instance(
        text, plain_probabilities(loaded), (label,), num_features=num_features, num_samples=num_samples
    )


def assert_same(found, expected):
    assert list(found.words) == [word for word, _ in expected.as_list(found.label)]
    assert np.abs(found.weights - [weight for _, weight in expected.as_list(found.label)]).max() < 1e-6
    assert abs(found.intercept - expected.intercept[found.label]) < 1e-6
    assert abs(found.fidelity - expected.score) < 1e-6


@pytest.mark.parametrize("num_features", [10, 3])
def test_words_and_weights_are_those_of_the_library(loaded, monkeypatch, num_features):
    monkeypatch.setattr(lime, "SAMPLES_TOGETHER", 200)
    labels = [(0, 2), (1,), (3, 1), (2,), (0,)]
    options = {"num_features": num_features, "num_samples": 80, "seed": 5}
    found = list(explain_texts(loaded, TEXTS, labels, batch_size=16, **options))
    assert [document for document, _ in found] == [0, 1, 2, 3, 4]
    for (document, explanations), text, wanted in zip(found, TEXTS, labels, strict=True):
        assert [(each.document, each.label) for each in explanations] == [(document, label) for label in wanted]
        for each in explanations:
            assert_same(each, by_library(loaded, text, document, each.label, **options))


def test_all_words_are_the_librarys_without_a_choice_of_features(loaded):
    [(_, [found])] = explain_texts(loaded, TEXTS[:1], [(1,)], num_features=None, num_samples=60, seed=1)
    assert len(found.words) == 16
    assert_same(found, by_library(loaded, TEXTS[0], 0, 1, 3, 60, 1, feature_selection="none"))


def test_a_document_is_explained_the_same_whatever_is_explained_with_it(loaded):
    alone = next(explain_texts(loaded, TEXTS[2:3], [(0,)], documents=[2], num_samples=50))
    among = list(explain_texts(loaded, TEXTS, [(0,)] * 5, num_samples=50))[2]
    assert alone[0] == among[0] == 2 and alone[1][0].words == among[1][0].words
    assert np.abs(alone[1][0].weights - among[1][0].weights).max() < 1e-6
    other = next(explain_texts(loaded, TEXTS[2:3], [(0,)], documents=[3], num_samples=50))[1][0]
    assert not np.array_equal(other.weights, alone[1][0].weights)


def test_samples_are_the_librarys_whatever_the_model():
    seen = []

    def watch(texts):
        seen.extend(texts)
        return np.tile([0.5, 0.5], (len(texts), 1))

    LimeTextExplainer(random_state=document_seed(7, 3)).explain_instance(TEXTS[0], watch, num_samples=40)
    assert perturb(TEXTS[0], 40, document_seed(7, 3)).texts == seen
    assert document_seed(7, 3) == document_seed(7, 3) != document_seed(3, 7) < 2**32


def test_positions_are_where_the_words_stand(loaded):
    [(_, [found])] = explain_texts(loaded, TEXTS[:1], [(0,)], num_features=None, num_samples=40)
    for word, places in zip(found.words, found.positions, strict=True):
        assert places and all(TEXTS[0][place : place + len(word)] == word for place in places)
    assert len(found.positions[found.words.index("was")]) == 3 and found.positions[found.words.index("The")] == (0,)


def test_texts_of_the_same_tokens_are_predicted_once(loaded, monkeypatch):
    predicted = []
    predict = loaded.model.predict_on_batch

    def count(batch):
        predicted.append(batch["input_ids"].shape)
        return predict(batch)

    monkeypatch.setattr(loaded.model, "predict_on_batch", count)
    texts = ["good film", "Good  FILM", "bad", "good film", "bad film plot long dull joy"]
    steps = []
    found = predict_samples(loaded, texts, 2, 24, lambda title, done: steps.append(done))
    # Three that differ and one that fills the second batch, in lengths that Keras has been compiled for.
    assert predicted == [(2, 8), (2, 8)] and sum(steps) == 5
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[3])
    assert np.abs(found - plain_probabilities(loaded)(texts)).max() < 1e-6


def test_long_texts_are_cut_where_the_model_cuts_them(loaded):
    text = " ".join(WORDS * 3)
    [(_, [found])] = explain_texts(loaded, [text], [(0,)], num_samples=60, seed=2)
    assert_same(found, by_library(loaded, text, 0, 0, 10, 60, 2))


def test_a_text_without_words_has_an_explanation_of_none(loaded):
    steps = []
    [(_, [found]), _] = explain_texts(
        loaded, ["?!", "bad"], [(1,), (1,)], num_samples=20, progress=lambda title, done: steps.append(done)
    )
    assert found.words == () and found.weights.shape == (0,) and np.isnan(found.fidelity)
    assert found.intercept == pytest.approx(plain_probabilities(loaded)(["?!"])[0, 1], abs=1e-6)
    assert sum(steps) == 40


def test_exported_models_explain_as_their_source_does(loaded, tmp_path):
    pytest.importorskip("onnxruntime")
    from gated_bert.compression.onnx_export import export_onnx
    from gated_bert.compression.onnx_model import open_model
    from gated_bert.compression.quantize import quantize

    export_onnx(tmp_path / "a.onnx", loaded)
    labels = [(0, 1)] * len(TEXTS)
    keras = list(explain_texts(loaded, TEXTS, labels, num_samples=60))
    onnx = list(explain_texts(open_model(tmp_path / "a.onnx"), TEXTS, labels, num_samples=60))
    for (_, here), (_, there) in zip(keras, onnx, strict=True):
        for one, other in zip(here, there, strict=True):
            assert one.words == other.words and np.abs(one.weights - other.weights).max() < 1e-5
    # In 8 bits a text's outputs depend on the batch it is in: on no account on other documents.
    small = quantize(tmp_path / "a.onnx", tmp_path / "b.onnx")
    among = list(explain_texts(small, TEXTS, labels, num_samples=60))[2][1]
    [(_, alone)] = explain_texts(small, TEXTS[2:3], labels[2:3], documents=[2], num_samples=60)
    assert all(np.array_equal(one.weights, other.weights) for one, other in zip(alone, among, strict=True))
    assert np.abs(among[0].weights[:3] - keras[2][1][0].weights[:3]).max() > 1e-6


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("stsb", "STS-B has a regression task; explanations are of classes of single texts"),
        ("squad", "SQuAD has a span task"),
        ("mrpc", "MRPC has pairs of texts"),
    ],
)
def test_other_kinds_of_tasks_are_refused(loaded, task, message):
    other = LoadedModel(loaded.model, loaded.tokenizer, TASKS[task], loaded.config, {})
    with pytest.raises(UserError, match=message):
        list(explain_texts(other, ["good"], [(0,)]))


def test_outputs_that_are_no_numbers_are_refused():
    loaded = loaded_model()
    embedding = loaded.model.encoder.embeddings.token.embeddings
    values = ops.convert_to_numpy(embedding).copy()
    values[TOKENS.index("good")] = np.nan
    embedding.assign(values)
    with pytest.raises(UserError, match="are not finite numbers; explain the model of higher precision"):
        list(explain_texts(loaded, TEXTS[:1], [(0,)], num_samples=20))


def test_words_keep_their_marks_and_their_places(loaded):
    text = "\x00bad,\x00 \u200bcafe\u0301s \u0915\u093f\u0924\u093e\u092c \u2764\ufe0f film"
    words = ["bad", "cafe\u0301s", "\u0915\u093f\u0924\u093e\u092c", "film"]
    perturbed = perturb(text, 60, 1)
    assert [perturbed.indexed.word(index) for index in range(perturbed.indexed.num_words())] == words
    assert not any("\u0301" in sample and "cafe" not in sample for sample in perturbed.texts)
    [(_, [found])] = explain_texts(loaded, [text], [(0,)], num_features=None, num_samples=60)
    assert sorted(found.words) == sorted(words)
    for word, places in zip(found.words, found.positions, strict=True):
        assert places == (text.index(word),)
    ids, weights = token_weights(loaded.tokenizer, text, [found], 24)
    assert weights.sum() == pytest.approx(found.weights.sum(), abs=1e-6)
    assert weights[1, 0] == pytest.approx(found.weights[found.words.index("bad")])
