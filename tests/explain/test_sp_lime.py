"""SP-LIME: the library's submodular pick, and the least summed cosine."""

from types import SimpleNamespace

import numpy as np
import pytest
from lime.submodular_pick import SubmodularPick

from gated_bert.explain.sp_lime import pick_by_coverage, pick_by_diversity, word_matrix


def library_pick(explanations, count):
    """What `SubmodularPick` picks of explanations that are there already."""

    def ready(row, predict, num_features, top_labels):
        return SimpleNamespace(mode="regression", as_list=lambda label: list(explanations[row].items()))

    explainer = SimpleNamespace(explain_instance=ready)
    pick = SubmodularPick(explainer, list(range(len(explanations))), None, method="full", num_exps_desired=count)
    return pick.V


@pytest.mark.parametrize("seed", range(5))
def test_coverage_is_the_librarys_pick(seed):
    rng = np.random.default_rng(seed)
    words = [f"w{index}" for index in range(40)]
    explanations = [
        {words[place]: float(rng.normal()) for place in rng.choice(40, rng.integers(1, 11), replace=False)}
        for _ in range(30)
    ]
    # Two that say the same, and more picks than new words: equal gains.
    explanations[7] = dict(explanations[20])
    weights, _ = word_matrix(explanations)
    rows, shares = pick_by_coverage(weights, 30)
    assert rows == library_pick(explanations, 30)
    assert shares[-1] == pytest.approx(1) and all(np.diff(shares) >= 0)


def test_importance_is_the_root_of_the_summed_weights():
    # Importances: a 2, b 1, c √2: the second alone covers most, then what it lacks.
    weights, words = word_matrix([{"a": 3.0}, {"b": -1.0, "c": 2.0}, {"a": -1.0}])
    assert words == ["a", "b", "c"] and weights.tolist() == [[3, 0, 0], [0, -1, 2], [-1, 0, 0]]
    rows, shares = pick_by_coverage(weights, 2)
    assert rows == [1, 2]
    assert shares[0] == pytest.approx((1 + 2**0.5) / (3 + 2**0.5)) and shares[1] == pytest.approx(1)


def test_diversity_picks_the_least_summed_cosine():
    # Cosines: 0-1 1, 0-2 0, 0-3 -1, 1-2 0, 1-3 -1, 2-3 0; sums with all others: 0, 0, 0, -2.
    weights = np.array([[1.0, 0], [2, 0], [0, 3], [-1, 0]])
    rows, means = pick_by_diversity(weights, 4)
    assert rows == [3, 0, 1, 2] and means == pytest.approx([-2 / 3, -1, 0, 0])


def test_diversity_is_the_greedy_minimum():
    weights = np.random.default_rng(0).normal(size=(12, 5))
    unit = weights / np.linalg.norm(weights, axis=1, keepdims=True)
    rows, means = pick_by_diversity(weights, 5)
    for step in range(1, 5):
        sums = {row: sum(unit[row] @ unit[other] for other in rows[:step]) for row in set(range(12)) - set(rows[:step])}
        assert rows[step] == min(sums, key=sums.get) and means[step] == pytest.approx(min(sums.values()) / step)


def test_no_more_than_there_are_and_none_without_words():
    for pick in (pick_by_coverage, pick_by_diversity):
        rows, values = pick(np.array([[1.0, 0.0], [0.0, 0.0], [2.0, -1.0]]), 5)
        assert sorted(rows) == [0, 2] and np.isfinite(values).all()
        assert pick(np.zeros((2, 0)), 1) == pick(np.zeros((2, 3)), 1) == ([], [])


@pytest.mark.parametrize("seed", range(5))
def test_documents_without_words_change_nothing(seed):
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(12, 6)) * (rng.random((12, 6)) < 0.5)
    weights[0, 0] = 1.0
    kept = np.flatnonzero(weights.any(axis=1))
    empty = np.insert(weights, [0, 5, 12], 0.0, axis=0)
    places = np.flatnonzero(empty.any(axis=1))
    for pick in (pick_by_coverage, pick_by_diversity):
        rows, values = pick(weights[kept], 15)
        found, others = pick(empty, 15)
        assert [list(places).index(row) for row in found] == rows
        np.testing.assert_allclose(others, values)
