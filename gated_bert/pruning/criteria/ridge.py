"""Who earned a shared reward: ridge regression of rewards on explored sets."""

from __future__ import annotations

import numpy as np

_DECAY = 0.999
_RIDGE = 1.0


class RidgeCredit:
    """Weighted ridge regression r ≈ Σ q over the explored units, with q shrunk towards the mean reward per unit.

    Older rewards count less (a factor 0.999 a step), since the model goes on learning.

    Args:
        units: number of units.
    """

    def __init__(self, units: int):
        self._gram = np.zeros((units, units))
        self._moment = np.zeros(units)
        # The last row's weight, and the weighted sums of rewards and of explored units.
        self._totals = np.array([1.0, 0.0, 0.0])
        self._solution: np.ndarray | None = None

    def add(self, explored: np.ndarray, reward: float) -> None:
        """Takes in one reward for the unit indices `explored` (no index twice)."""
        # A new row weighs more instead of all old rows weighing less: O(explored²) a step.
        weight = self._totals[0] / _DECAY
        self._gram[np.ix_(explored, explored)] += weight
        self._moment[explored] += weight * reward
        self._totals += (weight - self._totals[0], weight * reward, weight * len(explored))
        if weight > 1e6:
            for array in (self._gram, self._moment, self._totals):
                array /= weight
        self._solution = None

    def solve(self) -> np.ndarray:
        """The reward of every unit, float32 [units]; the mean for units never explored."""
        if self._solution is None:
            weight, rewards, units = self._totals
            mean = rewards / units if units else 0.0
            right = (self._moment - self._gram.sum(1) * mean) / weight
            gram = self._gram / weight + _RIDGE * np.eye(len(right))
            self._solution = (mean + np.linalg.solve(gram, right)).astype(np.float32)
        return self._solution

    def state(self) -> dict[str, np.ndarray]:
        """Arrays for a checkpoint."""
        return {"ridge_gram": self._gram, "ridge_moment": self._moment, "ridge_totals": self._totals}

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Takes back what `state` gave."""
        self._gram[:], self._moment[:] = state["ridge_gram"], state["ridge_moment"]
        self._totals[:] = state["ridge_totals"]
        self._solution = None
