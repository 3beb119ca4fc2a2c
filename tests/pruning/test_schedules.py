"""Schedules, by hand-made numbers."""

import pytest

from gated_bert import ConfigError, UserError
from gated_bert.config import GatedBertConfig
from gated_bert.config.presets import STEP_PRESETS
from gated_bert.pruning.schedules import Cubic, Every, Linear, OneShot, Steps, build_schedule, every, resample


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
    window = {"epochs": 8, "pruning_start_epoch": 2, "pruning_end_epoch": 7}
    schedule = build_schedule(GatedBertConfig(model_size="tiny", pruning_method="spt", **window))
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


def published_threshold(step, total, warmup_steps, initial, final, initial_warmup, final_warmup):
    """`schedule_threshold` of Sanh et al.'s code in its own terms: what is kept in a forward pass."""
    if step <= initial_warmup * warmup_steps:
        return initial
    if step > total - final_warmup * warmup_steps:
        return final
    moving = total - (final_warmup + initial_warmup) * warmup_steps
    return final + (initial - final) * (1 - (step - initial_warmup * warmup_steps) / moving) ** 3


@pytest.mark.parametrize("shares", [True, False], ids=["shares", "steps"])
def test_the_published_cubic_schedule_in_steps_is_met_at_every_step(shares):
    """i · w warm-up and f · w cool-down steps, i = 1, f = 2, w = 12 of 120 steps."""
    steps, epochs, w = 20, 6, 12
    total = steps * epochs
    config = GatedBertConfig(
        pruning_method="movement", epochs=epochs, schedule="cubic", end_sparsity=0.9,
        pruning_warmup=w / total if shares else w, pruning_cooldown=2 * w / total if shares else 2 * w,
    )  # fmt: skip
    schedule = build_schedule(config, steps)
    for step in range(total + 1):
        kept = published_threshold(step, total, w, 1.0, 0.1, 1, 2)
        assert schedule(1 + step / steps) == pytest.approx(1 - kept, abs=1e-9)
        # Soft movement's threshold and penalty go the same way.
        assert schedule.moved(1 + step / steps) == pytest.approx((1 - kept) / 0.9, abs=1e-9)


def test_seventy_per_cent_go_at_once_and_the_rest_by_a_cubic_every_four_epochs():
    """oBERT of 30 epochs: two before the first event, four after the last."""
    config = GatedBertConfig(
        pruning_method="magnitude", epochs=30, schedule="cubic", start_sparsity=0.7, end_sparsity=0.9,
        pruning_warmup=2 / 30, pruning_cooldown=4 / 30, pruning_every=4,
    )  # fmt: skip
    schedule = build_schedule(config, inside_epochs=False)
    by_hand = {1: 0.0, 3: 0.7} | {3 + 4 * i: 0.9 - 0.2 * (1 - 4 * i / 24) ** 3 for i in range(1, 7)}
    due = 0.0
    for epoch in range(1, 31):
        due = by_hand.get(epoch, due)
        assert schedule(epoch) == schedule(epoch + 0.99) == pytest.approx(due), epoch
    assert schedule(27) == 0.9
    assert (config.pruning_start_epoch, config.pruning_end_epoch) == (3, 27)


def test_the_end_is_reached_where_it_is_no_whole_number_of_rises_away():
    schedule = every(3, Linear(0.0, 0.8, 2, 6))
    assert [round(schedule(time), 6) for time in (1, 2, 4.9, 5, 5.9, 6, 9)] == [0, 0, 0, 0.6, 0.6, 0.8, 0.8]
    assert schedule.to_dict()["epochs"] == 3 and isinstance(schedule, Every)


def test_what_moves_masks_at_the_beginning_of_epochs_reaches_the_end_with_the_last_of_them():
    options = {"epochs": 8, "end_sparsity": 0.9, "pruning_warmup": 0.1, "pruning_cooldown": 0.05, "schedule": "linear"}
    assert build_schedule(GatedBertConfig(pruning_method="magnitude", **options), inside_epochs=False)(8.0) == 0.9
    assert build_schedule(GatedBertConfig(pruning_method="movement", **options))(8.0) < 0.9


@pytest.mark.parametrize(
    "options, steps, refused",
    [({"pruning_warmup": 0.4, "pruning_cooldown": 0.6}, None, "pruning_warmup: 0.4"),
     ({"pruning_start_epoch": 7, "pruning_cooldown": 0.5}, None, "pruning_cooldown: 0.5"),
     ({"pruning_warmup": 0.9, "pruning_end_epoch": 5}, None, "pruning_warmup: 0.9"),
     ({"pruning_warmup": 50, "pruning_cooldown": 0.5}, 10, "pruning_warmup: 50"),
     ({"pruning_warmup": 5400, "pruning_cooldown": 5400}, 10, "pruning_warmup: 5400")],
)  # fmt: skip
def test_a_warm_up_and_a_cool_down_that_leave_no_steps_are_refused(options, steps, refused):
    """As transformers' movement example runs into a division by zero or a negative exponent."""
    with pytest.raises(ConfigError, match=f"{refused} is refused; allowed: less: of 10 epochs .* no steps for pruning"):
        build_schedule(GatedBertConfig(pruning_method="movement", epochs=10, schedule="cubic", **options), steps)


def test_schedules_that_cannot_be_are_refused():
    with pytest.raises(UserError, match="Cubic: window=0.5 is refused; .* no steps for pruning"):
        Cubic(0.0, 0.5, 1, 3, window=0.5)
    with pytest.raises(UserError, match="Linear: last=2 is refused; allowed: first=3 up"):
        Linear(0.0, 0.5, 3, 2)
    movement = {"pruning_method": "movement", "epochs": 10, "schedule": "cubic"}
    for options, message in (
        ({"pruning_warmup": 10.5}, "pruning_warmup: 10.5 is refused; allowed: a share"),
        ({"pruning_warmup": 0.1, "pruning_start_epoch": 5}, "pruning_start_epoch: 5 is refused; allowed: 2, or"),
        ({"pruning_cooldown": 0.1, "schedule": "auto"}, "no value with schedule=auto, which counts epochs"),
    ):
        with pytest.raises(ConfigError, match=message):
            GatedBertConfig(**{**movement, **options})
    with pytest.raises(UserError, match="pruning_warmup: 5 steps are refused; allowed: a share"):
        build_schedule(GatedBertConfig(**movement, pruning_warmup=5))
