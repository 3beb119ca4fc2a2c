"""Schedules, by hand-made numbers."""

import pytest

from gated_bert.config import GatedBertConfig
from gated_bert.config.presets import STEP_PRESETS
from gated_bert.pruning.schedules import Cubic, Linear, OneShot, Steps, build_schedule, resample


def test_linear_is_zero_before_and_clamped_after():
    schedule = Linear(0.2, 0.8, 4, 10)
    assert [round(schedule(time), 6) for time in (1, 3.9, 4, 7, 10, 12)] == [0, 0, 0.2, 0.5, 0.8, 0.8]


def test_cubic_waits_for_the_warm_up_and_rests_in_the_cool_down():
    schedule = Cubic(0.0, 0.8, 1, 11)
    assert schedule(2) == 0.0  # ten epochs, a tenth of them warm-up
    assert schedule(10) == pytest.approx(0.8)
    assert schedule(6) == pytest.approx(0.8 - 0.8 * 0.5**3)


def test_steps_are_taken_literally_and_stay_at_the_last():
    config = GatedBertConfig(epochs=6, pruning_start_epoch=2, sparsity_steps=(10, 25, 50))
    schedule = build_schedule(config)
    assert [schedule(epoch) for epoch in range(1, 7)] == [0.0, 0.1, 0.25, 0.5, 0.5, 0.5]
    assert schedule(3.7) == 0.25


def test_one_shot():
    assert [OneShot(0.0, 0.7, 3, 3)(time) for time in (2.9, 3, 9)] == [0.0, 0.7, 0.7]


def test_auto_is_the_preset_itself_where_the_epochs_are_twenty():
    schedule = build_schedule(
        GatedBertConfig(model_size="tiny", end_sparsity=1.0, sparsity_steps="auto", schedule="auto")
    )
    assert [round(100 * schedule(epoch), 6) for epoch in range(4, 24)] == list(STEP_PRESETS["tiny"])


def test_auto_resampled_reaches_the_capped_end_at_the_last_pruning_epoch():
    schedule = build_schedule(GatedBertConfig(model_size="tiny", epochs=8, pruning_start_epoch=2, pruning_end_epoch=7))
    assert schedule(1) == 0.0
    assert schedule(2) == pytest.approx(0.10)
    assert schedule(6) < 0.99
    assert schedule(7) == schedule(8) == 0.99  # 99.5 % capped at the default end, 99 %
    values = [schedule(epoch) for epoch in range(1, 9)]
    assert values == sorted(values)


def test_resampling_onto_one_epoch_is_the_last_value():
    assert resample((0.1, 0.5, 0.9), 1, 1.0) == (0.9,)


def test_pruning_ends_with_the_last_epoch():
    assert build_schedule(GatedBertConfig(pruning_method="magnitude", epochs=10, end_sparsity=0.9)).last == 10


@pytest.mark.parametrize(
    ("schedule", "more"),
    [(Linear(0.1, 0.9, 1, 2), {}), (Cubic(0.1, 0.9, 1, 2), {"window": 0.1}), (OneShot(0.1, 0.9, 1, 2), {}),
     (Steps(0.1, 0.9, 1, 2, (0.1, 0.9)), {"values": (0.1, 0.9)})],
)  # fmt: skip
def test_a_schedule_is_written_down_by_its_class_and_fields(schedule, more):
    fields = {"class": type(schedule).__name__, "start": 0.1, "end": 0.9, "first": 1, "last": 2}
    assert schedule.to_dict() == fields | more
