"""Predictions whose time is known, because nothing is run."""

import numpy as np
import pytest

SHARE = {"fp32": 1.0, "int8": 0.4}
"""Of the time in 32 bits."""


def known_time(architecture):
    """Milliseconds that parts would take: some for being there, and more with their size."""
    return 2.0 + sum((0.3 + 0.5 * layer.num_heads) * (layer.num_heads > 0)
                     + (0.2 + 0.05 * layer.intermediate_size) * (layer.intermediate_size > 0)
                     for layer in architecture.layers)  # fmt: skip


@pytest.fixture
def timed(monkeypatch):
    return know_times(monkeypatch)


def know_times(monkeypatch):
    """What predictions take (`time`, of an architecture), and the share of it by which they vary, which tests set."""
    from gated_bert.compression import latency_measure
    from gated_bert.experiments.studies import prune_to_speed

    known, rng = {"time": known_time, "noise": 0.0}, np.random.default_rng(0)

    def turns(calls, repeats):
        # The machine is slower by half in every third repeat, for all models.
        busy = np.where(np.arange(repeats) % 3 == 2, 1.5, 1.0)
        return {name: 1e-3 * known["time"](each) * share * busy * (1 + known["noise"] * rng.random(repeats))
                for name, (each, share) in calls.items()}  # fmt: skip

    for module in (latency_measure, prune_to_speed):
        monkeypatch.setattr(module, "prediction",
                            lambda model, conditions: (model.architecture, SHARE[conditions.precision]))  # fmt: skip
        monkeypatch.setattr(module, "take_turns", turns)
    # Nor is anything built that would be timed.
    monkeypatch.setattr(latency_measure._Timing, "_made",
                        lambda self, sizes: (self._sized(sizes), SHARE[self.conditions.precision]))  # fmt: skip
    return known
