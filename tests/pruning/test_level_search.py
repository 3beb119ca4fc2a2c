"""Levels within a budget against all choices there are, and the search for weights."""

import itertools

import numpy as np
import pytest

from gated_bert.pruning.level_search import Unreachable, best_levels, measured_weights, search_levels


def drawn(seed, parts=4, levels=5):
    rng = np.random.default_rng(seed)
    costs = [np.sort(rng.uniform(0, 3, levels))[::-1] for _ in range(parts)]
    errors = [np.sort(rng.uniform(0, 1, levels)) for _ in range(parts)]
    return costs, errors


def total(values, levels):
    return sum(each[level] for each, level in zip(values, levels, strict=True))


@pytest.mark.parametrize("seed", range(8))
def test_no_choice_within_the_budget_has_a_smaller_error(seed):
    costs, errors = drawn(seed)
    budget = 0.6 * total(costs, (0, 0, 0, 0))
    found = best_levels(costs, errors, budget)
    assert total(costs, found) <= budget
    # All but choices that only rounding to buckets keeps out.
    within = [each for each in itertools.product(range(5), repeat=4) if total(costs, each) <= budget * (1 - 1e-3)]
    assert total(errors, found) <= min(total(errors, each) for each in within) + 1e-12


def test_whatever_costs_as_little_as_can_be_is_found_and_less_is_refused():
    costs, errors = drawn(0)
    least = sum(each.min() for each in costs)
    assert best_levels(costs, errors, least) == (4, 4, 4, 4)
    assert best_levels(costs, errors, 100) == (0, 0, 0, 0)
    with pytest.raises(Unreachable) as refused:
        best_levels(costs, errors, least - 1e-6)
    assert refused.value.least == pytest.approx(least)


def test_weights_are_what_each_part_loses_alone():
    costs, errors = drawn(1, parts=6)
    for error in errors:
        # Nothing is lost where nothing is pruned, and perhaps where what goes was dead.
        error -= error[0]
    errors[3][1] = 0
    errors[5][:] = 0
    true = np.array([1.0, 1.0, 10.0, 0.0, 5.0, 2.0])
    levels = []

    def evaluate(each):
        levels.append(each)
        return float(sum(one * error[level] for one, error, level in zip(true, errors, each, strict=True)))

    weights = list(measured_weights(costs, errors, evaluate))
    assert weights == pytest.approx([*true[:5], 1.0]), "one that cannot lose counts as any"
    assert len(levels) == 5 and all(sum(level > 0 for level in each) == 1 for each in levels)
    for part, each in enumerate(levels):
        half = costs[part][0] / 2
        lossy = [level for level in range(5) if errors[part][level] > 0]
        assert each[part] in lossy and abs(costs[part][each[part]] - half) == min(abs(costs[part][level] - half)
                                                                                 for level in lossy)  # fmt: skip
    # With these the best levels are those of the true loss at once, even where a part loses nothing.
    budget = 0.5 * total(costs, (0,) * 6)
    start = next(search_levels(costs, errors, budget, evaluate, steps=0, weights=weights))
    within = [each for each in itertools.product(range(5), repeat=6) if total(costs, each) <= budget * (1 - 1e-3)]
    assert start.loss <= min(map(evaluate, within)) + 1e-5 * max(map(evaluate, within))


def test_the_search_finds_what_matters_and_is_that_of_its_seed():
    costs, errors = drawn(1, parts=6)
    # The true loss counts one part ten times, another five times.
    evaluated = []

    def evaluate(levels):
        evaluated.append(levels)
        return total(errors, levels) + 9 * errors[2][levels[2]] + 4 * errors[4][levels[4]]

    budget = 0.5 * total(costs, (0,) * 6)
    found = list(search_levels(costs, errors, budget, evaluate, steps=60, seed=4))
    assert len(found) == 61 and len(evaluated) == len(set(evaluated)) == found[-1].tried
    assert all(later.loss <= earlier.loss for earlier, later in itertools.pairwise(found))
    assert found[-1].loss < found[0].loss and total(costs, found[-1].levels) <= budget
    within = [each for each in itertools.product(range(5), repeat=6) if total(costs, each) <= budget]
    best = min(total(errors, each) + 9 * errors[2][each[2]] + 4 * errors[4][each[4]] for each in within)
    assert found[-1].loss <= best + 0.5 * (found[0].loss - best)
    again = list(search_levels(costs, errors, budget, evaluate, steps=60, seed=4))
    assert [each.levels for each in again] == [each.levels for each in found]
