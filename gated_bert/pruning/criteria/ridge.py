"""Who earned a shared reward: ridge regression of rewards on explored sets."""

from __future__ import annotations

from collections import deque

import numpy as np
from scipy.sparse import csr_array

from gated_bert.support.errors import UserError

_DECAY = 0.999
_LEAST_WEIGHT = 0.01
_RIDGE = 1.0


class RidgeCredit:
    """Weighted ridge regression r ≈ Σ q over the explored units, with q shrunk towards the mean reward per unit.

    Older rewards count less (a factor 0.999 a step), since the model goes on learning; those that count less than a
    hundredth, 4,602 steps later, are forgotten. The system solved has the units' or the rewards' number of equations,
    whichever is smaller: a model's neurons are more than its steps.

    Args:
        units: number of units.
    """

    def __init__(self, units: int):
        self._units = units
        self._rows: deque[tuple[np.ndarray, float]] = deque(maxlen=int(np.log(_LEAST_WEIGHT) / np.log(_DECAY)))
        self._solution: np.ndarray | None = None

    def add(self, explored: np.ndarray, reward: float) -> None:
        """Takes in one reward for the unit indices `explored` (no index twice)."""
        self._rows.append((np.asarray(explored, np.int32), reward))
        self._solution = None

    def solve(self) -> np.ndarray:
        """The reward of every unit, float32 [units]; the mean for units never explored, 0 before any reward."""
        if self._solution is None:
            self._solution = self._solved() if self._rows else np.zeros(self._units, np.float32)
        return self._solution

    def _solved(self) -> np.ndarray:
        explored, firsts, rewards = self._arrays()
        roots = np.sqrt(_DECAY ** np.arange(len(rewards) - 1, -1, -1.0))
        sizes = np.diff(firsts)
        mean = (roots**2 @ rewards) / (roots**2 @ sizes)
        rows = csr_array((np.repeat(roots, sizes), explored, firsts), (len(rewards), self._units))
        right = roots * (rewards - mean * sizes)
        if self._units <= len(rewards):
            gram = (rows.T @ rows).toarray()
            return (mean + np.linalg.solve(_with_ridge(gram), rows.T @ right)).astype(np.float32)
        gram = (rows @ rows.T).toarray()
        return (mean + rows.T @ np.linalg.solve(_with_ridge(gram), right)).astype(np.float32)

    def _arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The explored units of one row after the other, where each row begins and the last ends, and the rewards."""
        explored = [row for row, _ in self._rows]
        firsts = np.cumsum([0, *map(len, explored)])
        return np.concatenate(explored), firsts, np.array([reward for _, reward in self._rows])

    def state(self) -> dict[str, np.ndarray]:
        """Arrays for a checkpoint; none before the first reward, since they grow."""
        names = ("ridge_explored", "ridge_firsts", "ridge_rewards")
        return dict(zip(names, self._arrays(), strict=True)) if self._rows else {}

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Takes back what `state` gave.

        Raises:
            UserError: what an earlier version gave, which held sums.
        """
        if "ridge_gram" in state:
            raise UserError("spt_credit regression: an earlier version wrote this checkpoint; remove it, and --resume "
                            "starts the run afresh")  # fmt: skip
        self._rows.clear()
        if "ridge_rewards" in state:
            rows = np.split(state["ridge_explored"], state["ridge_firsts"][1:-1])
            self._rows.extend(zip(rows, map(float, state["ridge_rewards"]), strict=True))
        self._solution = None


def _with_ridge(gram: np.ndarray) -> np.ndarray:
    gram[np.diag_indices_from(gram)] += _RIDGE
    return gram
