"""Removal of units one at a time against brute force: least squares on every set of what stays."""

import itertools

import numpy as np
import pytest

from gated_bert.pruning.removal import remove_in_order, remove_units
from gated_bert.pruning.second_order import damped


def problem(inputs, outputs, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(200, inputs)) @ rng.normal(size=(inputs, inputs))
    return rng.normal(size=(inputs, outputs)).astype(np.float32), damped(x.T @ x)


def least_squares(kernel, hessian, kept):
    """The kernel of rows `kept` alone whose outputs are nearest to those of all, and ‖Δ output‖² as a share."""
    new = np.zeros(kernel.shape)
    new[kept] = np.linalg.solve(hessian[np.ix_(kept, kept)], hessian[kept] @ kernel.astype(np.float64))
    off = kernel - new
    return new, np.sum(off * (hessian @ off)) / np.sum(kernel * (hessian @ kernel))


@pytest.mark.parametrize(("units", "size"), [(8, 1), (6, 3), (1, 4)])
def test_the_cheapest_unit_goes_and_the_others_are_the_least_squares(units, size):
    kernel, hessian = problem(units * size, 5)
    found = remove_units(kernel, hessian, units, wanted=range(units + 1))
    assert sorted(found.order) == list(range(units))
    gone: list[int] = []
    for place, unit in enumerate(found.order):
        def error_without(one, gone=gone):
            kept = np.flatnonzero(~np.isin(np.arange(units * size) // size, [*gone, one]))
            return least_squares(kernel, hessian, kept)[1]

        others = [each for each in range(units) if each not in gone]
        assert unit == min(others, key=error_without)
        gone.append(unit)
        kept = np.flatnonzero(~np.isin(np.arange(units * size) // size, gone))
        new, error = least_squares(kernel, hessian, kept)
        np.testing.assert_allclose(found.kernels[place + 1], new, atol=1e-4)
        assert found.errors[place + 1] == pytest.approx(error, rel=1e-6)
    assert found.errors[0] == 0 and found.errors[-1] == pytest.approx(1)
    np.testing.assert_array_equal(found.kernels[0], kernel)


def test_the_first_is_the_best_single_one_and_no_set_is_better_than_all_sets():
    kernel, hessian = problem(6, 4, seed=3)
    found = remove_units(kernel, hessian, 6, most=3)
    errors = {each: least_squares(kernel, hessian, [row for row in range(6) if row not in each])[1]
              for each in itertools.combinations(range(6), 3)}  # fmt: skip
    greedy = errors[tuple(sorted(found.order))]
    assert found.errors[3] == pytest.approx(greedy) and len(found.order) == 3 and not found.kernels
    # Greedy need not be the best of all, and is far from the worst.
    assert min(errors.values()) <= greedy < np.median(list(errors.values()))


def test_a_unit_without_inputs_or_weights_goes_first_and_costs_nothing():
    kernel, _ = problem(6, 4)
    x = np.random.default_rng(1).normal(size=(50, 6))
    x[:, 2], kernel[4] = 0, 0
    found = remove_units(kernel, damped(x.T @ x), 6)
    assert set(found.order[:2]) == {2, 4}
    assert found.errors[2] < 0.02


def test_in_a_given_order_nothing_makes_up_for_what_goes():
    kernel, hessian = problem(6, 4)
    order = np.array([2, 0, 1])
    found = remove_in_order(kernel, hessian, order, (0, 2, 3))
    off = kernel.astype(np.float64) * np.isin(np.arange(6) // 2, [2, 0])[:, None]
    error = np.sum(off * (hessian @ off)) / np.sum(kernel * (hessian @ kernel))
    assert found.errors[[0, 2, 3]] == pytest.approx([0, error, 1]) and np.isnan(found.errors[1])
    np.testing.assert_array_equal(found.kernels[2], kernel - off.astype(np.float32))
    assert remove_units(kernel, hessian, 3).errors[2] < error
