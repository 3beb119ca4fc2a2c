"""What `gate` sees of transformer blocks in models that know nothing of this package, and what it leaves out."""

import warnings

import keras
import numpy as np
import pytest
from any_models import IMAGES, PADDED, Block, array, encoder, mlp, subclassed, vit
from hub_models import FAMILIES, backbone, classifier
from keras import layers

import gated_bert
from gated_bert import ConfigError, PruningCallback, UserError
from gated_bert.config.space import ENCODER_ROLES
from gated_bert.models.roles import heads_of

ROLES = {"ffn_intermediate": "up_*", "ffn_output": "down_*"}


def places(model):
    return {layer.label: (layer.role, layer.layer_index) for layer in gated_bert.gated_layers(model)
            if layer.layer_index is not None}  # fmt: skip


def others(model):
    return [layer.label for layer in gated_bert.gated_layers(model) if layer.layer_index is None]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("make", [backbone, classifier], ids=["backbone", "classifier"])
@pytest.mark.daily_every(2)
def test_the_encoders_of_keras_hub(family, make):
    model = gated_bert.gate(make(family))
    inside = ("self_attention_layer/query", "self_attention_layer/key", "self_attention_layer/value",
              "self_attention_layer/attention_output", "feedforward_intermediate_dense",
              "feedforward_output_dense")  # fmt: skip
    assert places(model) == {f"transformer_layer_{block}/{path}": (role, block) for block in range(2)
                             for path, role in zip(inside, ENCODER_ROLES, strict=True)}  # fmt: skip
    # Poolers, of heads too, and Electra's projection of embeddings have none.
    assert others(model) == ([] if make is backbone else ["logits"])
    assert heads_of(gated_bert.gated_layers(model)) == (4, 4)


def test_the_pooler_is_taken_where_it_is_asked_for():
    model = gated_bert.gate(backbone("Bert"), include="pooled_dense")
    assert others(model) == ["pooled_dense"]
    assert others(gated_bert.gate(backbone("Electra"), include="*")) == ["embeddings_projection", "pooled_dense"]


def test_alberts_blocks_stand_in_several_places_and_are_taken_where_they_are_asked_for():
    path = "group_0_inner_layer_0/self_attention_layer/query"
    with pytest.raises(UserError, match=rf"not on {path} \(called 2 times; include='{path}' takes it\)"):
        gated_bert.gate(backbone("Albert"))
    model = gated_bert.gate(backbone("Albert"), include="group_0_*")
    assert set(places(model).values()) == {(role, 0) for role in ENCODER_ROLES}
    assert others(model) == []


def test_shared_layers_and_tied_kernels_are_left_with_the_reason():
    inputs = keras.Input((4, 6))
    twice, alone = layers.Dense(6, name="twice"), layers.Dense(6, name="alone")
    tied = layers.Dense(6, name="tied")
    outputs = twice(alone(twice(tied(inputs))))
    model = keras.Model(inputs, outputs)
    alone._tracker.unlock()
    alone.other = tied._kernel
    alone._tracker.lock()
    with pytest.warns(UserWarning) as found:
        gated_bert.gate(model)
    assert "twice (called 2 times; include='twice' takes it)" in str(found[0].message)
    assert "tied (its kernel is another layer's too" in str(found[0].message)
    assert others(model) == ["alone"]
    gated_bert.ungate(model)
    assert others(gated_bert.gate(model, include=["twice", "tied"])) == ["tied", "twice", "alone"]


def test_a_model_that_is_called_twice_is_shared_as_a_whole():
    tower = keras.Sequential([keras.Input((6,)), layers.Dense(5, name="inside")], name="tower")
    one, other = keras.Input((6,)), keras.Input((6,))
    model = keras.Model([one, other], layers.Dense(1, name="head")(tower(one) - tower(other)))
    with pytest.warns(UserWarning, match=r"inside \(called 2 times"):
        assert others(gated_bert.gate(model)) == ["head"]


def test_blocks_of_ones_own_that_look_like_them():
    model = gated_bert.gate(encoder(3))
    assert [layer.layer_index for layer in gated_bert.gated_layers(model) if layer.role == "query"] == [0, 1, 2]
    assert [layer.layer_index for layer in gated_bert.gated_layers(model) if layer.role == "ffn_output"] == [0, 1, 2]
    assert others(model) == ["head"]


def test_of_other_networks_roles_say_it():
    model = gated_bert.gate(vit())
    assert [role for role, _ in places(model).values()] == list(ENCODER_ROLES[:4]) * 2
    assert others(model) == ["up_0", "down_0", "up_1", "down_1", "head"]
    model = vit()
    before = array(model(IMAGES))
    gated_bert.gate(model, roles=ROLES)
    assert np.array_equal(array(model(IMAGES)), before)
    assert places(model)["up_1"] == ("ffn_intermediate", 1) and places(model)["down_0"] == ("ffn_output", 0)
    assert others(model) == ["head"]
    model = gated_bert.gate(mlp(), roles={"ffn_intermediate": "hidden", "ffn_output": "head"})
    assert places(model) == {"hidden": ("ffn_intermediate", 0), "head": ("ffn_output", 0)}


def test_two_attentions_of_a_block_are_two_blocks():
    class Decoder(layers.Layer):
        def build(self, shape):
            self.parts = [layers.MultiHeadAttention(2, 4, name=f"attention_{each}") for each in range(2)]
            self.up = layers.Dense(10, name="feedforward_intermediate_dense")
            self.down = layers.Dense(shape[-1], name="feedforward_output_dense")

        def call(self, x):
            for part in self.parts:
                x = part(x, x)
            return self.down(self.up(x))

    inputs = keras.Input((3, 8))
    model = gated_bert.gate(keras.Model(inputs, Decoder()(Decoder()(inputs))))
    found = list(places(model).values())
    assert len(set(found)) == len(found) == 4 * 4 + 2 * 2
    assert [index for role, index in found if role == "query"] == [0, 1, 2, 3]
    assert [index for role, index in found if role == "ffn_output"] == [0, 2]


def test_a_subclass_of_keras_attention_loses_whole_heads_alone():
    class Rotated(layers.MultiHeadAttention):
        pass

    inputs = keras.Input((3, 8))
    model = gated_bert.gate(keras.Model(inputs, Rotated(2, 4)(inputs, inputs)))
    assert PruningCallback.for_model(model, pattern="head", pruning_end_epoch=1).pruner.groups[0].num_units == 2
    with pytest.raises(ConfigError, match="rotated"):
        PruningCallback.for_model(model, pattern="head_dim", pruning_end_epoch=1)


@pytest.mark.parametrize(
    "make, options, message",
    [
        (vit, {"roles": {"ffn": "up_*"}}, "roles: 'ffn' is refused; allowed: query, key"),
        (vit, {"roles": {"ffn_intermediate": "up_*"}}, "ffn_intermediate 2, ffn_output 0 layers are refused"),
        (vit, {"roles": {"ffn_intermediate": "up_0", "ffn_output": "down_*"}}, "intermediate 1, ffn_output 2 layers"),
        (vit, {"roles": {**ROLES, "ffn_output": "attention_?/query"}}, "query with 16 inputs is refused; allowed: a "
                                                                       "layer that reads the 32 outputs of up_0"),
        (vit, {"roles": {"query": "up_0"}}, "roles: up_0 are refused; allowed: layers whose kernels show their heads"),
        (vit, {"roles": {"ffn_intermediate": "up_0", "ffn_output": "up_0"}}, "up_0 with 16 inputs is refused"),
        (encoder, {"roles": {"ffn_intermediate": "block_0/*intermediate*", "ffn_output": "block_0/*output_dense"}},
         "block_0/feedforward_intermediate_dense as ffn_intermediate is refused; allowed: ffn_intermediate, which"),
        (vit, {"roles": {"ffn_intermediate": "upp", "ffn_output": "down_*"}}, "roles: 'upp' is no Dense or"),
        (vit, {"include": "conv*"}, "include: 'conv.' is no Dense .* layer but a Conv2D, which gets no gates"),
        (vit, {"exclude": "conv2d*"}, "exclude: .* but a Conv2D"),
        (lambda: keras.Sequential([keras.Input((4, 4, 1)), layers.Conv2D(2, 2, name="conv")]), {},
         r"has no Dense or EinsumDense layer to put gates on; not on conv \(a Conv2D: convolutions get none\)"),
    ],
)  # fmt: skip
def test_refusals(make, options, message):
    model = make()
    with pytest.raises((UserError, ConfigError), match=message):
        gated_bert.gate(model, **options)
    assert not gated_bert.gated_layers(model)


@pytest.mark.parametrize("pattern", ["head", "head_dim", "neuron", "head_neuron", "qkv_row"])
@pytest.mark.parametrize("make", [mlp, subclassed])
def test_layers_of_no_known_role_have_patterns_of_single_matrices(make, pattern):
    model = gated_bert.gate(make())
    with pytest.raises(UserError, match="pattern: .* are refused: .*head.* are not known as (query, key|ffn_inter)"):
        PruningCallback.for_model(model, pattern=pattern, pruning_end_epoch=2)


def test_named_as_a_role_is_not_known_as_one():
    inputs = keras.Input((8,))
    query, key, value = (layers.Dense(8, name=name)(inputs) for name in ("query", "key", "value"))
    model = gated_bert.gate(keras.Model(inputs, query + key + value))
    with pytest.raises(UserError, match="QKV rows are refused: query, key, value are not known as query, key, value"):
        PruningCallback.for_model(model, pattern="qkv_row", pruning_end_epoch=2)


def test_units_of_which_a_part_is_left_out_are_refused():
    model = gated_bert.gate(encoder(), exclude="block_1/*/attention_output")
    with pytest.raises(UserError, match="heads are refused: beside block_1/.*/query there are no gates on attention"):
        PruningCallback.for_model(model, pattern="head", pruning_end_epoch=2)
    model = gated_bert.gate(encoder(), exclude="block_1/self_attention_layer/*")
    assert len(PruningCallback.for_model(model, pattern="head", pruning_end_epoch=2).pruner.groups) == 1


def test_nothing_is_said_of_a_plain_encoder():
    model = encoder(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gated_bert.gate(model)
    assert isinstance(model.get_layer("block_0"), Block)
    assert np.isfinite(array(model(PADDED))).all()
