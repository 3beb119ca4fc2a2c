"""A run by a recipe: stopped in the middle of a window and of a cycle, it goes on as an unbroken one."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from gated_bert.config import GatedBertConfig
from gated_bert.experiments.reports.results import read_run
from gated_bert.experiments.runs.run import train
from gated_bert.models.folder import load_model
from gated_bert.support.errors import UserError

RUN = {
    "recipe": "platon", "freeze": "embeddings", "lr_schedule": "cyclic", "lr_cycle_epochs": 1.5, "platon_window": 3,
    "data": "embedded", "model_size": "tiny", "num_layers": 1, "d_model": 16, "num_heads": 2, "dff": 32, "epochs": 4,
    "batch_size": 16, "train_examples": 80, "learning_rate": 1e-2, "end_sparsity": 0.8, "pruning_warmup": 2,
    "checkpoint_steps": 1, "max_len": 16,
}  # fmt: skip


def rows_of(folder):
    return read_run(folder).rows.drop(columns=["seconds", "examples_per_second"])


@pytest.mark.nightly
def test_it_goes_on_where_it_was_stopped_and_only_with_the_same_values(tmp_path, stopped):
    config = GatedBertConfig(**RUN)
    whole = train(config, tmp_path / "whole")
    stopped(config, tmp_path / "broken", 2, 2)
    with pytest.raises(UserError, match="--resume with platon_window=10, but the run was begun with 3"):
        train(config.replace(platon_window=10), tmp_path / "broken", resume=True)
    with pytest.raises(UserError, match="--resume with freeze='none', but the run was begun with 'embeddings'"):
        train(config.replace(freeze="none"), tmp_path / "broken", resume=True)
    train(config, tmp_path / "broken", resume=True)
    pd.testing.assert_frame_equal(rows_of(tmp_path / "broken"), rows_of(tmp_path / "whole"), check_exact=True)
    assert whole.final["sparsity"] == pytest.approx(0.8, abs=2e-3)
    written = json.loads(next((tmp_path / "whole").glob("metadata_*.json")).read_text())["config"]
    assert (written["recipe"], written["pruning_cooldown"], written["platon_beta2"]) == ("platon", 0.275, 0.95)
    assert GatedBertConfig.from_dict(written) == config
    counted = read_run(tmp_path / "whole").metadata["parameters"]
    # What was frozen is as random as it began, and is trained on by whoever takes the model over.
    best, last = (load_model(tmp_path / "whole" / name).model for name in ("model_best", "model"))
    for one, other in zip(best.encoder.embeddings.variables, last.encoder.embeddings.variables, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    assert counted["total"] == last.architecture.num_parameters, "what is frozen is a part of the model"
    assert last.encoder.embeddings.trainable and last.encoder.embeddings.trainable_variables
