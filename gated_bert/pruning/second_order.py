"""The quadratic problem behind one-shot pruning of a layer: which weights close, and what the others become.

A layer's output changes by X ΔW, with X its inputs as rows, so that of every output column w the error is ½ Δwᵀ H Δw
with H = (2/n) XᵀX (LeCun et al. 1990, Optimal brain damage; Hassibi & Stork 1993, Optimal brain surgeon). Kernels are
[inputs, outputs] throughout: what is published as a row is a column here.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.linalg

BLOCK = 128
"""Inputs that SparseGPT works on before it hands on their error."""
DAMPING = 0.01
"""Share of the mean of H's diagonal that is added to it."""
_CHUNK = 64 * 2**20

Choose = Callable[[slice, np.ndarray], np.ndarray]
"""(rows, error of closing each of their weights [rows, outputs]) → which of them stay, bool [rows, outputs]."""


def damped(hessian: np.ndarray, damping: float = DAMPING) -> np.ndarray:
    """A Hessian that can be inverted.

    Args:
        hessian: H, array [inputs, inputs].
        damping: share of the mean of its diagonal, over inputs that are not dead, that is added to the diagonal.

    Returns:
        The damped H, float64, in which dead inputs (H_ii = 0) have 1 on the diagonal before.
    """
    h = np.array(hessian, np.float64)
    diagonal = np.einsum("ii->i", h)
    dead = diagonal == 0
    added = damping * diagonal[~dead].mean() if not dead.all() else 0.0
    diagonal[dead] = 1.0
    diagonal += added
    return h


def inverse_factor(hessian: np.ndarray) -> np.ndarray:
    """The upper triangular U with H⁻¹ = UᵀU, array [inputs, inputs].

    U_jj² is [H⁻¹]_jj where of the inputs only those from j on may still change, and row j of U over U_jj is what
    closing input j does to the later ones (Frantar & Alistarh 2023, SparseGPT).

    Raises:
        np.linalg.LinAlgError: H is not positive definite.
    """
    # Of the reversed matrix: H = RRᵀ with R upper triangular, so that U is the inverse of R.
    reverse = scipy.linalg.cholesky(hessian[::-1, ::-1], lower=True)[::-1, ::-1]
    return scipy.linalg.solve_triangular(reverse, np.eye(len(hessian)), lower=False, overwrite_b=True)


def ordered_update(
    kernel: np.ndarray, factor: np.ndarray, keep: np.ndarray, choose: Choose | None = None, run: int = BLOCK
) -> tuple[np.ndarray, np.ndarray]:
    """Closes weights of a layer and lets those behind them make up for it, input after input.

    Args:
        kernel: W, array [inputs, outputs].
        factor: U of the layer's inputs as `inverse_factor` gives it, array [inputs, inputs].
        keep: which weights may stay, bool [inputs, outputs].
        choose: which of these do stay; None: all.
        run: consecutive inputs that are chosen from together, when the first of them is reached.

    Returns:
        The new kernel, zero where closed, float32, and what stays, bool [inputs, outputs].

    Paper: Frantar & Alistarh 2023, SparseGPT (https://arxiv.org/abs/2301.00774).
    """
    w, keep, u = np.array(kernel, np.float32), keep.copy(), factor.astype(np.float32)
    block = max(BLOCK // run, 1) * run
    for first in range(0, len(w), block):
        last = min(first + block, len(w))
        errors = np.empty_like(w[first:last])
        for row in range(first, last):
            if choose is not None and row % run == 0:
                rows = slice(row, min(row + run, last))
                keep[rows] &= choose(rows, np.square(w[rows] / np.diag(u)[rows, None]))
            left = np.where(keep[row], w[row], 0)
            errors[row - first] = (w[row] - left) / u[row, row]
            w[row] = left
            w[row + 1 : last] -= u[row, row + 1 : last, None] * errors[row - first]
        w[last:] -= u[first:last, last:].T @ errors
    return w, keep


def optimal_update(kernel: np.ndarray, hessian: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """The kernel that makes the least error where only `keep` may be other than 0: least squares, column by column.

    Args:
        kernel: W, array [inputs, outputs].
        hessian: H, positive definite, array [inputs, inputs].
        keep: bool [inputs, outputs].
    """
    new = np.zeros(kernel.shape, np.float32)
    target = hessian @ kernel
    for column in range(kernel.shape[1]):
        rows = np.flatnonzero(keep[:, column])
        if len(rows):
            system = np.ascontiguousarray(hessian[np.ix_(rows, rows)])
            factor = scipy.linalg.cho_factor(system, lower=True, overwrite_a=True, check_finite=False)
            new[rows, column] = scipy.linalg.cho_solve(factor, target[rows, column], check_finite=False)
    return new


def as_blocks(matrix: np.ndarray, size: int) -> np.ndarray:
    """Matrices [..., inputs, outputs] as blocks of consecutive inputs of a column, array [..., outputs, blocks, size].

    The last block of a column is filled up with zeros.
    """
    inputs, outputs = matrix.shape[-2:]
    blocks = -(-inputs // size)
    padded = np.zeros((*matrix.shape[:-2], outputs, blocks * size), matrix.dtype)
    padded[..., :inputs] = matrix.swapaxes(-1, -2)
    return padded.reshape(*padded.shape[:-1], blocks, size)


def from_blocks(blocks: np.ndarray, inputs: int) -> np.ndarray:
    """What `as_blocks` cut, whole again, array [inputs, outputs]."""
    return blocks.reshape(len(blocks), -1)[:, :inputs].T


def add_outer_products(fisher: np.ndarray, gradients: np.ndarray) -> None:
    """Adds to blocks [outputs, blocks, B, B] the outer products of gradients [steps, inputs, outputs], in place."""
    cut = as_blocks(gradients, fisher.shape[-1])
    # Blocks of a column side by side, so that all of its steps are one product.
    cut = np.ascontiguousarray(np.moveaxis(cut, 0, -1))
    for one, own in zip(fisher, cut, strict=True):
        one += own @ own.swapaxes(-1, -2)


def invert_blocks(fisher: np.ndarray, count: int, damping: float) -> None:
    """Puts in the place of sums of outer products the inverse of their mean plus damping, in place.

    F⁻¹ = (λI + 1/m Σ ggᵀ)⁻¹, what the recursion F⁻¹ −= (F⁻¹g)(F⁻¹g)ᵀ / (m + gᵀF⁻¹g) from F⁻¹ = I/λ arrives at.

    Args:
        fisher: sums, float32 [outputs, blocks, B, B].
        count: m, gradients in them.
        damping: λ.
    """
    flat = fisher.reshape(-1, *fisher.shape[-2:])
    eye = damping * np.eye(fisher.shape[-1])
    for part in _chunks(flat):
        # Gradients of 1e-4 beside a λ of 1e-7 leave single precision too few digits.
        flat[part] = np.linalg.inv(flat[part].astype(np.float64) / count + eye)


def optimal_in_blocks(weights: np.ndarray, inverse: np.ndarray, closing: np.ndarray) -> np.ndarray:
    """What the weights of blocks become where some close: the least of ½ Δwᵀ F Δw with these at 0.

    Args:
        weights: [outputs, blocks, B].
        inverse: F⁻¹, [outputs, blocks, B, B].
        closing: which weights close, bool [outputs, blocks, B].

    Returns:
        float32 [outputs, blocks, B].
    """
    shape, size = weights.shape, weights.shape[-1]
    weights, closing = weights.reshape(-1, size), closing.reshape(-1, size)
    flat, new = inverse.reshape(-1, size, size), np.empty(weights.shape, np.float32)
    for part in _chunks(flat):
        own, closes = flat[part].astype(np.float64), closing[part]
        system = np.where(closes[:, :, None] & closes[:, None, :], own, 0.0)
        np.einsum("bii->bi", system)[~closes] = 1.0
        values = weights[part].astype(np.float64)
        forces = np.linalg.solve(system, np.where(closes, values, 0.0)[..., None])
        new[part] = values - (own @ forces)[..., 0]
    new[closing] = 0
    return new.reshape(shape)


def block_costs(weights: np.ndarray, inverse: np.ndarray, size: int) -> np.ndarray:
    """What closing `size` consecutive weights of a block at once costs, ½ w_Bᵀ ([F⁻¹]_BB)⁻¹ w_B.

    Args:
        weights: [outputs, blocks, B].
        inverse: F⁻¹, [outputs, blocks, B, B].
        size: a divisor of B.

    Returns:
        Array [outputs, blocks, B / size], float32.
    """
    block = weights.shape[-1]
    cut = weights.reshape(-1, block // size, size)
    flat, costs = inverse.reshape(-1, block, block), np.empty(cut.shape[:2], np.float32)
    for part in _chunks(flat):
        own = flat[part].reshape(-1, block // size, size, block // size, size)
        places = np.arange(block // size)
        diagonal = own[:, places, :, places].swapaxes(0, 1).astype(np.float64)
        values = cut[part].astype(np.float64)
        costs[part] = 0.5 * np.einsum("bps,bps->bp", values, np.linalg.solve(diagonal, values[..., None])[..., 0])
    return costs.reshape(*weights.shape[:2], -1)


def _chunks(flat: np.ndarray):
    """Slices of blocks whose copies in double precision take little memory."""
    step = max(1, _CHUNK // (8 * flat[0].size))
    return [slice(first, first + step) for first in range(0, len(flat), step)]
