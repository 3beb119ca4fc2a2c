"""Configurations of every family of encoders: odd sizes, beside transformers, and what is refused."""

import json

import numpy as np
import pytest
from in_transformers import needs_transformers, run

from gated_bert import UserError
from gated_bert.models.family import get_family
from tests.models.family_models import FIXTURES, FOLDERS, load, predict

ODD = {
    "bert": [{"hidden_size": 10, "num_attention_heads": 5, "intermediate_size": 7, "num_hidden_layers": 1},
             {"type_vocab_size": 1, "num_hidden_layers": 4, "layer_norm_eps": 1e-3}],
    "roberta": [{"pad_token_id": 0}, {"pad_token_id": 7, "type_vocab_size": 2, "max_position_embeddings": 30},
                {"hidden_size": 6, "num_attention_heads": 1, "num_hidden_layers": 3}],
    "xlm-roberta": [{"num_attention_heads": 9, "hidden_act": "silu"}],
    "distilbert": [{"dim": 22, "n_heads": 11, "hidden_dim": 5, "n_layers": 1}, {"sinusoidal_pos_embds": True}],
    "electra": [{"embedding_size": 18}, {"embedding_size": 40, "hidden_act": "relu", "type_vocab_size": 3}],
    "modernbert": [{"classifier_pooling": "mean", "num_attention_heads": 1},
                   {"layer_types": ["sliding_attention", "sliding_attention", "full_attention"], "local_attention": 5},
                   {"num_hidden_layers": 1, "hidden_activation": "silu", "classifier_activation": "relu",
                    "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 50.0}}}],
}  # fmt: skip
"""What is changed in the configuration of the fixtures."""
MAKE = """
import json, sys, numpy as np, torch, transformers
sys.path.insert(0, sys.argv[1])
import make_family_reference as made
for number, (family, changes) in enumerate(json.loads(sys.argv[3])):
    name, options = made.FAMILIES[family]
    options = {**options, **changes}
    if "layer_types" in changes:
        options.pop("global_attn_every_n_layers")
    torch.manual_seed(number)
    config = getattr(transformers, name + "Config")(num_labels=3, **options)
    model = getattr(transformers, name + "ForSequenceClassification")(config).eval()
    made.randomise(model)
    folder = f"{sys.argv[2]}/{number}"
    model.save_pretrained(folder)
    inputs = made.batch(np.random.default_rng(number), family, 14)
    pad = {"roberta": config.pad_token_id, "xlm-roberta": 1}.get(family, 0)
    inputs["input_ids"] = np.where(inputs["attention_mask"] == 1, np.maximum(inputs["input_ids"], 9), pad)
    if getattr(config, "type_vocab_size", 2) < 2 and "token_type_ids" in inputs:
        inputs["token_type_ids"] *= 0
    np.savez(f"{folder}/made.npz", logits=made.outputs(model, inputs), **inputs)
"""


@needs_transformers
@pytest.mark.nightly
def test_models_of_odd_sizes_compute_what_they_do_in_transformers(tmp_path):
    cases = [(family, changes) for family, each in ODD.items() for changes in each]
    run(MAKE, FIXTURES, tmp_path, json.dumps(cases))
    for number, case in enumerate(cases):
        with np.load(tmp_path / str(number) / "made.npz") as made:
            model = load(tmp_path / str(number), num_outputs=3)
            inputs = {name: made[name].astype(np.int32) for name in model.architecture.input_names}
            np.testing.assert_allclose(predict(model, inputs), made["logits"], atol=1e-4, err_msg=str(case))


@pytest.mark.parametrize("change", [
    {"rope_parameters": {"full_attention": "x"}}, {"rope_parameters": {"rope_theta": 5000.0}}, {"rope_parameters": [1]},
    {"rope_parameters": {"full_attention": {"rope_theta": "160000"}}}, {"global_rope_theta": [1]},
    {"layer_types": 3}, {"layer_types": [["a"], "b"]}, {"global_attn_every_n_layers": "3"},
], ids=str)  # fmt: skip
def test_odd_rotations_and_layers_are_refused_in_one_line(change):
    values = json.loads((FOLDERS / "modernbert" / "config.json").read_text())
    if "global_rope_theta" in change:
        values.pop("rope_parameters", None)
    if "global_attn_every_n_layers" in change:
        values.pop("layer_types", None)
    with pytest.raises(UserError) as refused:
        get_family("modernbert").read_config(values | change, "config.json")
    assert str(refused.value).startswith("config.json: ") and "\n" not in str(refused.value)
