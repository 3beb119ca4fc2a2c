"""Exact match and F1 of SQuAD v1.1, by hand; the random cases were checked against torchmetrics 1.9.0."""

import pytest

from gated_bert.tasks.squad_metrics import exact_match, f1, normalize, squad_scores


@pytest.mark.parametrize(
    ("answer", "normalized"),
    [
        ("The Norman conquest", "norman conquest"),
        ("an apple, a pear and THE  plum.", "apple pear and plum"),
        ("(1895)", "1895"),
        ("U.S.", "us"),
        ("the-end", "theend"),
        ("theatre\tanthem\n", "theatre anthem"),
        ("cat's", "cats"),
        ("“quoted” – café", "“quoted” – café"),
        ("The", ""),
        ("--", ""),
    ],
)
def test_articles_ascii_punctuation_case_and_space_do_not_count(answer, normalized):
    assert normalize(answer) == normalized


@pytest.mark.parametrize(
    ("prediction", "answer", "exact", "overlap"),
    [
        ("the Denver Broncos", "Denver Broncos", 1, 1),
        ("Broncos", "Denver Broncos", 0, 2 / 3),
        ("in Paris in June", "in Paris", 0, 2 * 2 / 6),
        ("a a a", "a", 1, 0),
        ("", "Denver", 0, 0),
        ("", "the", 1, 0),
        ("red red blue", "red blue blue", 0, 2 * 2 / 6),
        ("308", "three hundred", 0, 0),
    ],
)
def test_single_answers(prediction, answer, exact, overlap):
    assert exact_match(prediction, answer) == exact
    assert f1(prediction, answer) == pytest.approx(overlap)


def test_the_best_of_several_answers_counts_for_each_metric_apart():
    answers = [("Santa Clara, California", "Levi's Stadium", "Santa Clara"), ("gold",)]
    scores = squad_scores({"a": "levis stadium", "b": "the gold rush"}, ["a", "b"], answers)
    assert scores == pytest.approx({"f1": (1 + 2 / 3) / 2, "exact_match": 0.5})


def test_a_question_without_a_prediction_is_wrong():
    assert squad_scores({"a": "x", "c": "y"}, ["a", "b"], [("x",), ("y",)]) == {"f1": 0.5, "exact_match": 0.5}
