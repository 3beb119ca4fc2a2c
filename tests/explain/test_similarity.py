"""Similarities of explanations: hand-computed values, definitions written out, and bootstrap intervals."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import spatial, stats

from gated_bert.explain.similarity import (
    MEASURES,
    bootstrap_mean,
    cosine,
    rank_biased_overlap,
    similarities,
    spearman,
    summarize,
    top_k_jaccard,
)

EXPLANATIONS = st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from([-3, -2, -1, 0.5, 1, 2, 4]), max_size=8)


def ranked(words):
    """An explanation that ranks letters in this order, with weights of either sign."""
    return {word: (len(words) - place) * (-1) ** place for place, word in enumerate(words)}


def test_cosine_takes_the_words_of_both():
    assert cosine({"a": 3, "b": 4}, {"b": 1}) == pytest.approx(4 / 5)
    assert cosine({"a": 1, "b": 2, "c": -1}, {"b": 2, "c": 1, "d": 4}) == pytest.approx(3 / math.sqrt(6 * 21))
    assert cosine({"a": 0.1}, {"a": -7}) == -1 and cosine({"a": 1}, {"b": 1}) == 0
    assert math.isnan(cosine({"a": 0.0}, {"a": 1})) and math.isnan(cosine({}, {"a": 1}))


def test_spearman_ranks_signed_weights_of_shared_words():
    # Ranks 3 1 2 and 2 1 3 of c, a, b: squared differences 1, 0, 1, so 1 - 6 · 2 / (3 · 8); x and y are not shared.
    assert spearman({"c": 5, "a": -9, "b": 0, "x": 1}, {"a": -1, "b": 3, "c": 2, "y": 8}) == pytest.approx(0.5)
    one, other = {"a": 1, "b": 1, "c": 2, "d": 5}, {"a": 3, "b": 2, "c": 2, "d": 9}
    assert spearman(one, other) == pytest.approx(stats.spearmanr([1, 1, 2, 5], [3, 2, 2, 9]).statistic)
    assert math.isnan(spearman({"a": 1, "b": 1}, {"a": 1, "b": 2}))  # no variance
    assert math.isnan(spearman({"a": 1, "b": 2}, {"a": 1, "c": 2})) and math.isnan(spearman({}, {}))


def test_jaccard_takes_the_largest_absolute_weights():
    one, other = {"a": -5, "b": 4, "c": 0.1}, {"b": 2, "a": 0.1, "c": -0.2}
    assert [top_k_jaccard(one, other, k) for k in (1, 2, 3, 9)] == [0, 1 / 3, 1, 1]
    assert top_k_jaccard({"b": 1, "a": -1}, {"a": 5}, 1) == 1  # equal weights: in the order of the alphabet
    assert top_k_jaccard({}, {"a": 1}, 2) == 0 and math.isnan(top_k_jaccard({}, {}, 2))


def test_rank_biased_overlap_by_hand():
    # Agreements 1, 1/2, 1 and 1 for ever: 1/2 · 1 + 1/4 · 1/2 + 1/8 · 1 + 1/8 · 1.
    assert rank_biased_overlap(ranked("abc"), ranked("acb"), 0.5) == pytest.approx(0.875)
    # One word against two: agreements 0, then 1/2 for ever.
    assert rank_biased_overlap(ranked("a"), ranked("ba"), 0.5) == pytest.approx(0.25)
    # a and b share rank 1: agreement 2 · 1 / (2 + 1), then 1 for ever.
    assert rank_biased_overlap({"a": 1, "b": -1}, ranked("ab"), 0.5) == pytest.approx(0.5 * 2 / 3 + 0.5)
    assert rank_biased_overlap(ranked("abc"), ranked("xyz")) == 0 and rank_biased_overlap({}, ranked("ab")) == 0
    assert math.isnan(rank_biased_overlap({}, {}))


def prefix(weights, depth):
    """The words with fewer than `depth` words of larger absolute weight."""
    sizes = [abs(weight) for weight in weights.values()]
    return {word for word, weight in weights.items() if sum(size > abs(weight) for size in sizes) < depth}


def overlap_summed_far(one, other, p):
    """The series of agreements, summed to where nothing is left of it."""
    short, long = sorted((one, other), key=len)
    total, agreement, last = 0.0, 0.0, 0.0
    for depth in range(1, 400):
        if depth <= len(long):
            shared, counts = len(prefix(short, depth) & prefix(long, depth)), len(prefix(long, depth))
            if depth <= len(short):
                agreement = last = 2 * shared / (len(prefix(short, depth)) + counts)
            else:
                agreement = (shared + last * (depth - len(short))) / ((depth + counts) / 2)
        total += (1 - p) * p ** (depth - 1) * agreement
    return total


def webber_equation_32(first, second, p):
    short, long = sorted((first, second), key=len)
    s, l = len(short), len(long)  # noqa: E741
    x = [len(set(short[:d]) & set(long[:d])) for d in range(l + 1)]
    series = sum(x[d] / d * p**d for d in range(1, l + 1))
    series += sum(x[s] * (d - s) / (s * d) * p**d for d in range(s + 1, l + 1))
    return (1 - p) / p * series + ((x[l] - x[s]) / l + x[s] / s) * p**l


@given(EXPLANATIONS, EXPLANATIONS, st.sampled_from([0.3, 0.9]))
@settings(max_examples=150, deadline=None)
def test_rank_biased_overlap_is_its_series_with_ties_and_short_lists(one, other, p):
    if one or other:
        found = rank_biased_overlap(one, other, p)
        assert found == pytest.approx(overlap_summed_far(one, other, p), abs=1e-9)
        assert -1e-12 <= found <= 1 + 1e-12


@given(st.permutations("abcdefgh"), st.permutations("cdefghxy"), st.integers(1, 8), st.integers(1, 8))
@settings(max_examples=80, deadline=None)
def test_rank_biased_overlap_is_the_published_formula(first, second, one_end, other_end):
    first, second = first[:one_end], second[:other_end]
    expected = webber_equation_32(first, second, 0.9)
    assert rank_biased_overlap(ranked(first), ranked(second), 0.9) == pytest.approx(expected, abs=1e-12)


@given(EXPLANATIONS, EXPLANATIONS)
@settings(max_examples=80, deadline=None)
def test_measures_are_symmetric_and_one_for_itself(one, other):
    forth, back = similarities(one, other, 3), similarities(other, one, 3)
    assert tuple(forth) == MEASURES
    np.testing.assert_allclose(list(forth.values()), list(back.values()), atol=1e-12)
    same = [value for value in similarities(one, one, 3).values() if not math.isnan(value)]
    np.testing.assert_allclose(same, 1)


def test_cosine_agrees_with_scipy():
    words, (first, second) = "abcdef", np.random.default_rng(0).normal(size=(2, 6))
    found = cosine(dict(zip(words, first, strict=True)), dict(zip(words, second, strict=True)))
    assert found == pytest.approx(1 - spatial.distance.cosine(first, second))


def test_intervals_of_a_mean():
    values = np.random.default_rng(1).normal(0.6, 0.1, 200)
    found = bootstrap_mean(np.append(values, math.nan), seed=3)
    assert found == bootstrap_mean(values, seed=3) != bootstrap_mean(values, seed=4)
    assert found["documents"] == 200 and found["mean"] == pytest.approx(values.mean())
    half = 1.96 * values.std() / math.sqrt(200)
    assert found["low"] == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found["high"] == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_intervals_of_values_without_variance():
    assert bootstrap_mean(np.array([0.4, 0.4, 0.4]), 0) == {
        "documents": 3, "mean": pytest.approx(0.4), "low": pytest.approx(0.4), "high": pytest.approx(0.4)
    }  # fmt: skip
    single, none = bootstrap_mean(np.array([0.4]), 0), bootstrap_mean(np.array([math.nan]), 0)
    assert single["mean"] == 0.4 and math.isnan(single["low"]) and math.isnan(single["high"])
    assert none["documents"] == 0 and math.isnan(none["mean"])


def test_differences_to_the_noise_floor_are_paired():
    noise = np.random.default_rng(2).uniform(0, 1, 60)
    # 0.05 apart in every document, though documents differ by far more than that.
    found = summarize(noise - 0.05 + np.resize([-0.01, 0.01], 60), noise, 0)
    assert found["difference"] == pytest.approx(-0.05) and found["excludes_zero"]
    assert found["difference_low"] < -0.05 < found["difference_high"] < -0.04
    assert not summarize(noise + np.resize([-0.01, 0.01], 60), noise, 0)["excludes_zero"]
    assert not summarize(noise, noise, 0)["excludes_zero"]
    # A document whose noise floor is not defined counts for the mean, not for the difference.
    gap = np.where(np.arange(60) == 7, math.nan, noise)
    assert summarize(noise, gap, 0)["documents"] == 60 and summarize(noise, gap, 0)["difference"] == 0
