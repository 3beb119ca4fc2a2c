"""LIME's weights of words as weights of word pieces."""

import numpy as np
import pytest

from gated_bert.explain.lime import Explanation, explain_texts
from gated_bert.explain.tokens import TokenExplanations, join, read_token_explanations, token_weights
from gated_bert.support.errors import UserError
from tests.explain.conftest import TOKENS, loaded_model


def test_a_words_weight_is_shared_by_its_pieces_in_all_places():
    # [CLS] bad film ##s , bad [SEP]
    loaded = loaded_model()
    words, positions = ("bad", "films"), ((0, 11), (4,))
    weights = (np.array([0.4, -0.3]), np.array([1.0, 0.0]))
    explanations = [Explanation(0, label, words, positions, weights[label], 0.1, 0.9) for label in range(2)]
    ids, found = token_weights(loaded.tokenizer, "bad films, bad", explanations, 24)
    assert [TOKENS[index] for index in ids] == ["[CLS]", "bad", "film", "##s", ",", "bad", "[SEP]"]
    assert found[:, 0].tolist() == pytest.approx([0, 0.2, -0.15, -0.15, 0, 0.2, 0])
    assert found[:, 1].tolist() == pytest.approx([0, 0.5, 0, 0, 0, 0.5, 0])
    # Cut after the second piece: the weights of what is left are those of the words still.
    ids, found = token_weights(loaded.tokenizer, "bad films, bad", explanations, 4)
    assert len(ids) == 4 and found[:, 0].tolist() == pytest.approx([0, 0.4, -0.3, 0])


def test_tokens_and_intercept_add_up_to_the_local_models_prediction():
    loaded, text = loaded_model(), "The plot was not good, its films' cast - a very long, long joy?!"
    [(_, explanations)] = explain_texts(loaded, [text], [range(4)], documents=[3], num_features=None, num_samples=90)
    _, weights = token_weights(loaded.tokenizer, text, explanations, 24)
    for label, each in enumerate(explanations):
        assert weights[:, label].sum() == pytest.approx(each.weights.sum(), abs=1e-6)
    # Classes' probabilities add up to 1 in every sample, so the weights of a word add up to nothing.
    assert np.abs(weights.sum(axis=1)).max() < 1e-6 and np.abs(weights).max() > 0.01
    assert sum(each.intercept for each in explanations) == pytest.approx(1, abs=1e-6)


def one(number, ids):
    size = len(ids)
    return TokenExplanations(
        np.array([number]), np.array([1]), np.array([0, size]), np.array(ids, np.int32), np.full((size, 2), number),
        np.zeros((1, 2)), np.zeros((1, 2)), np.zeros((1, 2)),
    )  # fmt: skip


def test_parts_are_joined_and_read_back_in_their_order(tmp_path):
    joined = join([one(4, [2, 5, 3]), one(9, [2, 3])])
    assert joined.offsets.tolist() == [0, 3, 5] and joined.input_ids.tolist() == [2, 5, 3, 2, 3]
    np.savez(tmp_path / "tokens_00000.npz", **vars(joined))
    np.savez(tmp_path / "tokens_00002.npz", **vars(one(11, [2, 7, 3])))
    found = read_token_explanations(tmp_path)
    assert len(found) == 3 and found.documents.tolist() == [4, 9, 11] and found.offsets.tolist() == [0, 3, 5, 8]
    assert found.weights[5:].tolist() == [[11, 11]] * 3
    (tmp_path / "tokens_00002.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"tokens_00002.npz: not a whole file of token explanations"):
        read_token_explanations(tmp_path)
    with pytest.raises(UserError, match="no token explanations in it"):
        read_token_explanations(tmp_path / "nowhere")
