"""Exact selection, against sorting."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gated_bert.pruning.selection import Pool, _sample_stride, kth_smallest, smallest


def pools(arrays, unit_weights=1):
    return [Pool(lambda every, a=a: a[::every], len(a), unit_weights, f"pool {i}") for i, a in enumerate(arrays)]


def choose(groups, weights, seed=0):
    chosen = {}
    smallest(groups, weights, np.random.default_rng(seed), chosen.__setitem__)
    return [chosen[i] for i in range(len(groups))]


values = st.lists(
    st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, 3.0]) | st.floats(-5, 5, width=32), min_size=1, max_size=40
)


@settings(max_examples=200, deadline=None)
@given(st.lists(values, min_size=1, max_size=4), st.floats(0, 1))
def test_chooses_the_smallest_and_exactly_as_many_as_asked(lists, share):
    arrays = [np.array(values, np.float32) for values in lists]
    everything = np.concatenate(arrays)
    k = round(share * len(everything))
    chosen = np.concatenate(choose(pools(arrays), k))
    assert chosen.sum() == k
    np.testing.assert_array_equal(np.sort(everything[chosen]), np.sort(everything)[:k])


@pytest.mark.parametrize("k", [1, 5_000, 399_999, 600_000, 1_000_000])
def test_the_sampled_bracket_finds_the_rank_in_a_million_scores(k):
    rng = np.random.default_rng(3)
    arrays = [
        rng.standard_normal(700_000).astype(np.float32),
        np.round(rng.standard_normal(300_000), 1).astype(np.float32),
    ]
    value, below, equal = kth_smallest(pools(arrays), k)
    everything = np.sort(np.concatenate(arrays))
    assert value == everything[k - 1]
    assert below == np.searchsorted(everything, value, "left")
    assert below + equal == np.searchsorted(everything, value, "right")


@pytest.mark.parametrize("size", [10_000, 1_000_000])
def test_a_sample_that_misses_is_widened_to_all_scores_if_need_be(size):
    # Every entry of the sample is 0, so the bracket around the rank is empty at first.
    scores = np.arange(size, dtype=np.float32)
    scores[:: _sample_stride(size)] = 0
    for k in (size // 2, size - 1):
        assert kth_smallest(pools([scores]), k)[0] == np.sort(scores)[k - 1]


@pytest.mark.parametrize("columns", [384, 768, 1000, 1536, 3072])
def test_a_sample_sees_every_column_alike(columns):
    total = 100 * columns
    seen = np.arange(0, total, _sample_stride(total)) % columns
    counts = np.bincount(seen, minlength=columns)
    assert counts.max() - counts.min() <= 1


def test_where_thousands_equal_the_threshold_as_many_of_them_as_needed_are_chosen():
    scores = np.round(np.abs(np.random.default_rng(4).standard_normal(600_000)), 2).astype(np.float32)
    chosen = choose(pools([scores]), 250_000)[0]
    assert chosen.sum() == 250_000
    np.testing.assert_array_equal(np.sort(scores[chosen]), np.sort(scores)[:250_000])
    threshold = scores[chosen].max()
    assert 0 < np.count_nonzero(chosen[scores == threshold]) < np.count_nonzero(scores == threshold)


def test_ties_are_spread_over_all_layers_and_follow_the_seed():
    arrays = [np.zeros(10_000, np.float32), np.zeros(30_000, np.float32)]
    first, second = choose(pools(arrays), 20_000)
    assert first.sum() + second.sum() == 20_000
    # 5,000 of the first layer's 10,000 are expected; the hypergeometric deviation is 43.
    assert abs(int(first.sum()) - 5_000) < 300
    again = choose(pools(arrays), 20_000)
    np.testing.assert_array_equal(again[0], first)
    assert not np.array_equal(choose(pools(arrays), 20_000, seed=1)[0], first)


def test_all_and_nothing():
    arrays = [np.array([3.0, 1.0], np.float32)]
    assert not choose(pools(arrays), 0)[0].any()
    assert choose(pools(arrays), 2)[0].all()


def test_units_of_several_sizes_are_chosen_by_weights():
    small, large = np.array([0.1, 0.4, 0.9]), np.array([0.2, 0.3])
    groups = [Pool(lambda every: small[::every], 3, 10), Pool(lambda every: large[::every], 2, 100)]
    first, second = choose(groups, 110)
    assert first.tolist() == [True, False, False] and second.tolist() == [True, False]


def test_a_nan_score_is_refused_by_name():
    with pytest.raises(ValueError, match="pool 0: a score is NaN"):
        choose(pools([np.array([1.0, np.nan], np.float32)]), 1)
