"""Removal of whole units of a layer's inputs one at a time, the others making up for each (structured optimal brain
surgeon).

A sublayer of an encoder block ends in a matrix whose rows belong to heads, or to neurons: what a unit gives is its rows
times its inputs. Kernels are [inputs, outputs].

Paper: Kurtic et al. 2023, ZipLM (https://arxiv.org/abs/2302.04089).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from scipy.linalg.blas import dger


@dataclass(frozen=True, eq=False)
class Removal:
    """In what order the units of a layer go, and what that costs.

    Attributes:
        order: units, the first to go first, int [removed].
        errors: ‖Δ output‖² when so many are gone, as a share of ‖output‖², float64 [removed + 1].
        kernels: number of units that are gone → the kernel then, float32 [inputs, outputs], for the numbers asked for;
            of these only the rows that stay are in memory.
    """

    order: np.ndarray
    errors: np.ndarray
    kernels: Mapping[int, np.ndarray]


class _Kernels(Mapping[int, np.ndarray]):
    """Kernels of which rows of whole units are zero, by their other rows.

    Args:
        shape: of each kernel.
        units: consecutive runs of rows.
    """

    def __init__(self, shape: tuple[int, ...], units: int):
        self._shape = units, shape[0] // units, *shape[1:]
        self._rows: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def keep(self, gone: int, there: np.ndarray, rows: np.ndarray) -> None:
        """Keeps the kernel of which `there` are the units that stay, with their rows."""
        self._rows[gone] = there.copy(), rows.astype(np.float32).reshape(-1, *self._shape[1:])

    def __getitem__(self, gone: int) -> np.ndarray:
        there, rows = self._rows[gone]
        found = np.zeros(self._shape, np.float32)
        found[there] = rows
        return found.reshape(-1, *self._shape[2:])

    def __iter__(self) -> Iterator[int]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def remove_units(
    kernel: np.ndarray, hessian: np.ndarray, units: int, wanted: Collection[int] = (), most: int | None = None
) -> Removal:
    """Removes units one after another, always the one that costs least, with the update of what stays.

    Removing unit S costs Σ W_Sᵀ ([H⁻¹]_SS)⁻¹ W_S over the outputs; then W −= [H⁻¹]_:S ([H⁻¹]_SS)⁻¹ W_S, and H⁻¹
    becomes that of the inputs that stay. So the kernel is at every moment the least squares of the first one's outputs
    by the units that are there.

    Args:
        kernel: W, [inputs, outputs].
        hessian: H, the damped products of every two inputs, [inputs, inputs].
        units: consecutive runs of inputs that go together.
        wanted: numbers of removed units of which the kernel is kept.
        most: how many are removed; by default all.

    Raises:
        np.linalg.LinAlgError: H is not positive definite.
    """
    size, most = len(kernel) // units, units if most is None else most
    wanted, kernels, order = set(wanted), _Kernels(kernel.shape, units), np.empty(most, np.int64)
    w = np.asfortranarray(kernel, np.float64)
    h = np.asarray(hessian, np.float64)
    whole = float(np.einsum("io,io->", w, h @ w)) or 1.0
    inverse = np.asfortranarray(_inverse(h))
    errors, alive, there = np.zeros(most + 1), np.ones(units, bool), np.arange(units)
    for place in range(most + 1):
        if place in wanted:
            kernels.keep(place, there[alive], w[np.repeat(alive, size)])
        if place == most:
            break
        chosen, cost = _cheapest(w, inverse, size, alive)
        _eliminate(w, inverse, slice(chosen * size, (chosen + 1) * size))
        order[place], errors[place + 1] = there[chosen], errors[place] + cost / whole
        alive[chosen] = False
        if 2 * np.count_nonzero(alive) <= len(alive):
            # What is gone no longer takes part.
            rows = np.repeat(alive, size)
            w, inverse = np.asfortranarray(w[rows]), np.asfortranarray(inverse[np.ix_(rows, rows)])
            there, alive = there[alive], np.ones(np.count_nonzero(alive), bool)
    return Removal(order, errors, kernels)


def remove_in_order(
    kernel: np.ndarray, hessian: np.ndarray, order: np.ndarray, wanted: Collection[int] = ()
) -> Removal:
    """Removes units in a given order, and nothing makes up for them; arguments and result as of `remove_units`.

    Args:
        kernel: W, [inputs, outputs].
        hessian: H, [inputs, inputs].
        order: all units, the first to go first.
        wanted: numbers of removed units of which kernel and error are known; of others the error is NaN.
    """
    units, w, h = len(order), np.array(kernel, np.float64), np.asarray(hessian, np.float64)
    whole = float(np.einsum("io,io->", w, h @ w)) or 1.0
    errors, kernels = np.full(units + 1, np.nan), _Kernels(kernel.shape, units)
    for gone in wanted:
        closed = np.zeros(units, bool)
        closed[order[:gone]] = True
        rows = np.repeat(closed, len(w) // units)
        errors[gone] = np.einsum("io,io->", w[rows], h[np.ix_(rows, rows)] @ w[rows]) / whole
        kernels.keep(gone, np.flatnonzero(~closed), kernel[~rows])
    return Removal(order, errors, kernels)


def _inverse(h: np.ndarray) -> np.ndarray:
    return scipy.linalg.cho_solve((scipy.linalg.cholesky(h, lower=True), True), np.eye(len(h)))


def _cheapest(w: np.ndarray, inverse: np.ndarray, size: int, alive: np.ndarray) -> tuple[int, float]:
    """The unit whose removal costs least, and what it costs."""
    if size == 1:
        with np.errstate(divide="ignore", invalid="ignore"):
            costs = np.einsum("io,io->i", w, w) / np.diag(inverse)
    else:
        costs = np.zeros(len(alive))
        for unit in np.flatnonzero(alive):
            own = slice(unit * size, (unit + 1) * size)
            costs[unit] = np.sum(w[own] * np.linalg.solve(inverse[own, own], w[own]))
    costs = np.where(alive, costs, np.inf)
    chosen = int(np.argmin(costs))
    return chosen, max(float(costs[chosen]), 0.0)


def _eliminate(w: np.ndarray, inverse: np.ndarray, own: slice) -> None:
    """Takes the rows `own` out of both, in place; their diagonal stays 1, so that nothing divides by zero."""
    if own.stop - own.start == 1:
        column, row = inverse[:, own.start].copy(), w[own.start].copy()
        factor = -1.0 / column[own.start]
        dger(factor, column, row, a=w, overwrite_a=1)
        dger(factor, column, column, a=inverse, overwrite_a=1)
    else:
        columns = inverse[:, own].copy()
        solved = np.linalg.solve(columns[own], np.concatenate([w[own], columns.T], axis=1))
        w -= columns @ solved[:, : w.shape[1]]
        inverse -= columns @ solved[:, w.shape[1] :]
    w[own] = 0
    inverse[own], inverse[:, own] = 0, 0
    diagonal = np.arange(own.start, own.stop)
    inverse[diagonal, diagonal] = 1
