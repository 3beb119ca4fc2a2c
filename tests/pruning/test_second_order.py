"""The quadratic problem of a layer against brute force, and against NumPy written from the papers."""

import itertools

import numpy as np
import pytest

from gated_bert.pruning.second_order import (
    add_outer_products,
    as_blocks,
    block_costs,
    damped,
    from_blocks,
    inverse_factor,
    invert_blocks,
    optimal_in_blocks,
    optimal_update,
    ordered_update,
)


def problem(inputs=12, outputs=5, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(60, inputs)) @ rng.normal(size=(inputs, inputs))
    return damped(x.T @ x), rng.normal(size=(inputs, outputs)).astype(np.float32)


def loss(hessian, change):
    return 0.5 * np.einsum("io,ij,jo->", change, hessian, change)


def least(hessian, column, open_):
    """The least of ½ Δᵀ H Δ with the closed weights at 0, by the multipliers of the constraints."""
    closed = np.flatnonzero(~open_)
    size, count = len(column), len(closed)
    system = np.zeros((size + count, size + count))
    system[:size, :size] = hessian
    system[size + np.arange(count), closed] = system[closed, size + np.arange(count)] = 1
    right = np.concatenate([np.zeros(size), -column[closed]])
    return column + np.linalg.solve(system, right)[:size]


def test_the_factor_is_the_cholesky_factor_of_the_inverse():
    hessian, _ = problem()
    factor = inverse_factor(hessian)
    np.testing.assert_allclose(factor, np.linalg.cholesky(np.linalg.inv(hessian)).T, rtol=1e-9, atol=1e-12)


def test_dead_inputs_do_not_make_a_hessian_singular():
    hessian, _ = problem()
    hessian[3] = hessian[:, 3] = 0
    found = damped(hessian, 0.01)
    live = np.arange(12) != 3
    added = 0.01 * np.diag(hessian)[live].mean()
    np.testing.assert_allclose(np.diag(found), np.where(live, np.diag(hessian), 1.0) + added)
    assert found[3, 4] == 0 and np.isfinite(inverse_factor(found)).all()


def test_the_exact_update_is_the_constrained_minimum():
    hessian, kernel = problem()
    keep = np.random.default_rng(1).random(kernel.shape) > 0.6
    keep[:, 0] = False
    found = optimal_update(kernel, hessian, keep)
    expected = np.stack([least(hessian, kernel[:, o].astype(float), keep[:, o]) for o in range(5)], 1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert not found[~keep].any()
    assert loss(hessian, found - kernel) < loss(hessian, kernel * keep - kernel)


def test_closing_one_input_after_the_other_is_the_minimum_over_those_behind():
    """Where the first rows close, nothing was frozen before: the ordered update is the constrained minimum."""
    hessian, kernel = problem()
    keep = np.ones(kernel.shape, bool)
    keep[:4] = False
    found, _ = ordered_update(kernel, inverse_factor(hessian), keep, run=5)
    expected = np.stack([least(hessian, kernel[:, o].astype(float), keep[:, o]) for o in range(5)], 1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def published(kernel, hessian, choose, block):
    """Algorithm 1 of SparseGPT, W [rows, columns] as it stands there, H⁻¹ by a plain inverse and Cholesky."""
    w = kernel.T.astype(np.float64).copy()
    inverse = np.linalg.cholesky(np.linalg.inv(hessian)).T
    mask = np.ones(w.shape, bool)
    for i in range(0, w.shape[1], block):
        errors = np.zeros((w.shape[0], min(block, w.shape[1] - i)))
        for j in range(i, min(i + block, w.shape[1])):
            choose(w, inverse, mask, i, j)
            errors[:, j - i] = ~mask[:, j] * w[:, j] / inverse[j, j]
            w[:, j : i + block] -= errors[:, j - i, None] * inverse[j, j : i + block]
        w[:, i + block :] -= errors @ inverse[i : i + block, i + block :]
    return (w * mask).T, mask.T


def share(block, sparsity):
    def choose(w, inverse, mask, i, j):
        if j == i:
            scores = w[:, i : i + block] ** 2 / np.diag(inverse)[i : i + block] ** 2
            limit = np.sort(scores.ravel())[round(sparsity * scores.size)]
            mask[:, i : i + block] = scores >= limit

    return choose


def two_of_four(w, inverse, mask, i, j):
    if j % 4 == 0:
        scores = w[:, j : j + 4] ** 2 / np.diag(inverse)[j : j + 4] ** 2
        mask[:, j : j + 4] = np.argsort(np.argsort(scores, axis=1), axis=1) >= 2


def kept(costs, sparsity, axis=None):
    order = np.argsort(np.argsort(costs, axis=axis), axis=axis).reshape(costs.shape)
    return order >= round(sparsity * (len(costs) if axis == 0 else costs.size))


def test_blocks_close_their_share_as_published():
    hessian, kernel = problem(150, 4)
    expected, mask = published(kernel, hessian, share(50, 0.5), 50)
    found, keep = ordered_update(
        kernel, inverse_factor(hessian), np.ones(kernel.shape, bool), lambda rows, costs: kept(costs, 0.5), 50
    )
    np.testing.assert_array_equal(keep, mask)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-4)


def test_two_of_four_are_chosen_when_they_are_reached():
    hessian, kernel = problem(16, 6)
    expected, mask = published(kernel, hessian, two_of_four, 128)
    found, keep = ordered_update(
        kernel, inverse_factor(hessian), np.ones(kernel.shape, bool), lambda rows, costs: kept(costs, 0.5, 0), 4
    )
    np.testing.assert_array_equal(keep, mask)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def fisher(size=5, steps=9, shape=(12, 4)):
    gradients = np.random.default_rng(3).normal(size=(steps, *shape)).astype(np.float32)
    blocks = np.zeros((*as_blocks(gradients[0], size).shape, size), np.float32)
    add_outer_products(blocks, gradients[:4])
    add_outer_products(blocks, gradients[4:])
    return gradients, blocks


def test_the_inverse_of_a_block_is_the_dense_one_and_that_of_the_recursion():
    gradients, blocks = fisher()
    invert_blocks(blocks, len(gradients), 1e-2)
    for column, first in itertools.product(range(4), (0, 5, 10)):
        rows = np.arange(first, min(first + 5, 12))
        own = gradients[:, rows, column].astype(np.float64)
        dense = np.linalg.inv(1e-2 * np.eye(len(rows)) + own.T @ own / len(own))
        recursion = np.eye(len(rows)) / 1e-2
        for g in own:
            moved = recursion @ g
            recursion -= np.outer(moved, moved) / (len(own) + g @ moved)
        found = blocks[column, first // 5][: len(rows), : len(rows)]
        np.testing.assert_allclose(found, dense, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found, recursion, rtol=1e-4, atol=1e-4)


def test_what_stays_of_a_block_moves_to_the_constrained_minimum():
    gradients, blocks = fisher()
    hessians = 1e-2 * np.eye(5) + blocks.astype(np.float64) / len(gradients)
    invert_blocks(blocks, len(gradients), 1e-2)
    kernel = np.random.default_rng(4).normal(size=(12, 4)).astype(np.float32)
    weights, closing = as_blocks(kernel, 5), as_blocks(np.random.default_rng(5).random((12, 4)) > 0.5, 5)
    found = optimal_in_blocks(weights, blocks, closing)
    for place in np.ndindex(4, 3):
        expected = least(hessians[place], weights[place].astype(np.float64), ~closing[place])
        np.testing.assert_allclose(found[place], expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(from_blocks(as_blocks(kernel, 5), 12), kernel)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_cost_of_a_run_is_the_loss_of_closing_it_at_best(size):
    rng = np.random.default_rng(6)
    root = rng.normal(size=(3, 2, 4, 9))
    hessians = root @ root.swapaxes(-1, -2)
    weights = rng.normal(size=(3, 2, 4)).astype(np.float32)
    found = block_costs(weights, np.linalg.inv(hessians).astype(np.float32), size)
    for place in np.ndindex(3, 2):
        for run in range(4 // size):
            open_ = np.ones(4, bool)
            open_[run * size : (run + 1) * size] = False
            change = least(hessians[place], weights[place].astype(float), open_) - weights[place]
            expected = loss(hessians[place], change[:, None])
            assert found[(*place, run)] == pytest.approx(expected, rel=1e-3)
