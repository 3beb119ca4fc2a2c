"""`PruningCallback` in a `fit` of models that know nothing of this package."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from any_models import IMAGES, LABELS, LOSS, ROWS, array, mlp, vit
from keras import layers

import gated_bert
from gated_bert import ConfigError, PruningCallback, UserError
from gated_bert.config.parts import CRITERIA
from gated_bert.pruning.pruner import sparsity

PAGE = Path(__file__).parents[2] / "docs" / "library.md"
VARIANTS = [
    *({"method": criterion} for criterion in CRITERIA if criterion not in ("mask_tuning", "cofi")),
    {"method": "taylor", "taylor_variant": "published"},
    {"method": "spt", "spt_reward": "taylor"},
    {"method": "spt", "spt_credit": "regression", "pattern": "row"},
    {"method": "GlobalMagGrad"},
]


def pruned(model, inputs, labels, method, score_multiplier=10.0, epochs=2, optimizer=None, **options):
    """The model after a `fit` with pruning, its callback, and the history."""
    variant = {name: options[name] for name in ("taylor_variant", "spt_reward") if name in options}
    gated_bert.gate(model, method, **variant)
    callback = PruningCallback.for_model(
        model, method, pruning_end_epoch=epochs, data=(inputs, labels), batch_size=16, **options
    )
    optimizer = callback.optimizer(optimizer or keras.optimizers.AdamW(1e-3), score_multiplier)
    # Eagerly: a few steps are done before a graph is traced.
    model.compile(optimizer, LOSS, run_eagerly=True)
    history = model.fit(inputs, labels, batch_size=16, epochs=epochs, callbacks=[callback], verbose=0).history
    return model, callback, history


@pytest.mark.parametrize("options", VARIANTS, ids=lambda options: "-".join(options.values()))
@pytest.mark.daily_every(5)
def test_every_criterion_reaches_its_sparsity_and_closed_weights_are_without_effect(options):
    options = {"end_sparsity": 0.75, "smooth_passes": 2, "score_batches": 2, **options}
    if options["method"] == "taylor":
        options["pruning_start_epoch"] = 2
    penalised = options["method"] in ("soft_movement", "l0")
    rate = 1000.0 if penalised else 10.0
    model, callback, history = pruned(mlp(), ROWS, LABELS, score_multiplier=rate, **options)
    gated = gated_bert.gated_layers(model)
    assert np.isfinite(history["loss"]).all()
    assert set(callback.columns) <= set(history)
    assert history["sparsity"][-1] == sparsity(gated)
    if penalised:
        assert history["sparsity"][-1] > 0
    else:
        assert history["target_sparsity"][-1] == 0.75
        # Within half a unit of the scope; the smallest matrix has 32 weights, its rows 2 each.
        assert history["sparsity"][-1] == pytest.approx(0.75, abs=0.04)
    before = array(model(ROWS))
    for layer in gated:
        closed = array(layer.effective_gates()) == 0
        noise = np.random.default_rng(0).normal(size=closed.shape)
        layer.raw_kernel.assign(np.where(closed, noise, array(layer.raw_kernel)))
    assert np.array_equal(array(model(ROWS)), before)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("method", ["soft_movement", "l0"])
@pytest.mark.daily_every(4)
def test_a_penalty_that_would_close_everything_leaves_the_floor_of_every_matrix(method, jit, tmp_path):
    """In training, after it, in a file, and when training goes on."""
    model = gated_bert.gate(mlp(), method)
    penalty = {"l0_penalty": 1e4, "soft_movement_penalty": 1e4, "soft_movement_threshold": 0.9}
    callback = PruningCallback.for_model(model, method, pruning_end_epoch=2, min_kept=0.1, **penalty)
    model.compile(callback.optimizer(keras.optimizers.Adam(0.1), 10.0), LOSS, jit_compile=jit)
    seen = []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append([open_gates(layer, True) for layer in callback.layers])
    )
    history = model.fit(ROWS, LABELS, epochs=4, batch_size=16, callbacks=[callback, watch], verbose=0).history
    floors = [20, 4]  # ⌈0.1 · 192⌉ and ⌈0.1 · 32⌉
    assert (np.array(seen) >= floors).all()
    assert [open_gates(layer) for layer in callback.layers] == floors
    assert history["sparsity"][-1] == pytest.approx(1 - 24 / 224)
    model.save_weights(tmp_path / "gated.weights.h5")
    again = gated_bert.gate(mlp(), method)
    goes_on = PruningCallback.for_model(again, method, pruning_end_epoch=2, min_kept=0.1, **penalty)
    again.load_weights(tmp_path / "gated.weights.h5")
    np.testing.assert_array_equal(array(again(ROWS)), array(model(ROWS)))
    again.compile(goes_on.optimizer(keras.optimizers.Adam(0.1), 10.0), LOSS, jit_compile=jit)
    again.fit(ROWS, LABELS, epochs=3, initial_epoch=2, batch_size=16, callbacks=[goes_on], verbose=0)
    assert [open_gates(layer) for layer in goes_on.layers] == floors


def open_gates(layer, training=False):
    return np.count_nonzero(array(layer.effective_gates(training)))


def test_training_leaves_kernels_under_closed_gates_alone():
    model = gated_bert.gate(vit(), exclude="head")
    callback = PruningCallback.for_model(model, schedule="one_shot", end_sparsity=0.6, pruning_end_epoch=1)
    model.compile(keras.optimizers.SGD(0.5), LOSS, run_eagerly=True)
    before = {layer: array(layer.raw_kernel) for layer in gated_bert.gated_layers(model)}
    model.fit(IMAGES, LABELS[:32], batch_size=16, callbacks=[callback], verbose=0)
    for layer, kernel in before.items():
        is_open = array(layer.gates) != 0
        assert np.mean(~is_open) == pytest.approx(0.6, abs=0.02)
        changed = array(layer.raw_kernel) != kernel
        assert not changed[~is_open].any()
        assert changed[is_open].mean() > 0.9, layer.label


@pytest.mark.parametrize(
    "options, unit",
    [
        ({"pattern": "row"}, (1, 0)),
        ({"pattern": "column"}, (0, 1)),
        ({"pattern": "block", "block_size": (4, 8)}, (4, 8)),
        ({"pattern": "tile", "granularity": 4}, (1, 4)),
        ({"pattern": "k_tile", "granularity": 4}, (1, 4)),
    ],
)
def test_patterns_close_whole_units_of_an_attention_layers_matrices(options, unit):
    model = gated_bert.gate(vit(), exclude="head")
    callback = PruningCallback.for_model(model, end_sparsity=0.5, pruning_end_epoch=1, **options)
    callback.pruner.update(0.5, step=0)
    for layer in gated_bert.gated_layers(model):
        gates = array(layer.gates)
        height, width = unit[0] or gates.shape[0], unit[1] or gates.shape[1]
        blocks = gates.reshape(gates.shape[0] // height, height, gates.shape[1] // width, width)
        assert np.array_equal(blocks.min((1, 3)), blocks.max((1, 3)))
        assert gates.mean() == 0.5
        shape = {"query": (16, 4, 4), "attention_output": (4, 4, 16)}.get(layer.name)
        if shape:
            # What the layer multiplies by: the matrix in the kernel's own shape.
            assert np.array_equal(array(layer.kernel_shaped(layer.gates)), gates.reshape(shape))


@pytest.mark.parametrize(
    "options", [{"pattern": "vector", "vector_size": 4}, {"pattern": "tile_element", "granularity": 8}]
)
def test_patterns_of_chosen_weights(options):
    model = gated_bert.gate(vit(), exclude="head")
    callback = PruningCallback.for_model(model, end_sparsity=0.5, pruning_end_epoch=1, **options)
    callback.pruner.update(0.5, step=0)
    gated = gated_bert.gated_layers(model)
    assert sparsity(gated) == pytest.approx(0.5, abs=1e-3)
    if options["pattern"] == "vector":
        assert all((array(layer.gates).reshape(-1, 4, layer.gates.shape[1]).sum(1) == 2).all() for layer in gated)


def test_saliency_of_einsum_layers_against_numpy():
    """|W| × mean |input| and |W g| × |mean output|, over positions and for every head."""
    x = np.random.default_rng(0).normal(size=(16, 3, 6)).astype("float32")
    inputs = keras.Input((3, 6))
    heads = layers.EinsumDense("abc,cde->abde", (None, 2, 4), bias_axes="de", name="heads")(inputs)
    joined = layers.EinsumDense("abcd,cde->abe", (None, 5), name="joined")(heads)
    model = keras.Model(inputs, layers.GlobalAveragePooling1D()(joined))
    gated_bert.gate(model)
    model.compile("sgd", LOSS)
    found = {}
    for method in ("activation_magnitude", "gradient_magnitude", "grad_cam"):
        callback = PruningCallback.for_model(model, method, pruning_end_epoch=1, data=(x, LABELS[:16]), batch_size=16)
        callback.criterion.prepare(model, callback.dataset)
        found[method] = {layer.name: callback.criterion.scores(layer) for layer in callback.layers}
    kernels = {name: array(model.get_layer(name)._kernel) for name in ("heads", "joined")}
    outputs = {"heads": np.einsum("abc,cde->abde", x, kernels["heads"])}
    outputs["joined"] = np.einsum("abcd,cde->abe", outputs["heads"], kernels["joined"])
    strength = {"heads": np.abs(x).mean((0, 1)), "joined": np.abs(outputs["heads"]).mean((0, 1)).ravel()}
    for name, shape in (("heads", (6, 8)), ("joined", (8, 5))):
        expected = np.abs(kernels[name]).reshape(shape) * strength[name][:, None]
        np.testing.assert_allclose(found["activation_magnitude"][name], expected, rtol=1e-4)
        mean = np.abs(outputs[name].mean((0, 1))).ravel()
        np.testing.assert_allclose(
            found["grad_cam"][name], found["gradient_magnitude"][name] * mean, rtol=1e-3, atol=1e-7
        )


def test_layers_of_one_name_are_told_apart():
    model = gated_bert.gate(vit())
    PruningCallback.for_model(model, "random", end_sparsity=0.5, pruning_end_epoch=1).pruner.update(0.5, step=0)
    masks = [array(layer.gates) for layer in gated_bert.gated_layers(model) if layer.name == "query"]
    assert len(masks) == 2
    assert not np.array_equal(*masks)


def test_a_role_is_the_layers_of_one_name():
    model = gated_bert.gate(vit())
    callback = PruningCallback.for_model(model, end_sparsity=0.5, pruning_end_epoch=1, scope="role")
    first, second = (layer for layer in callback.layers if layer.name == "query")
    first._kernel.assign(np.full((16, 4, 4), 0.1))
    second._kernel.assign(np.ones((16, 4, 4)))
    callback.pruner.update(0.5, step=0)
    # All but the floor of the weaker one.
    assert (array(first.gates).sum(), array(second.gates).sum()) == (2, 254)


def test_scores_move_by_their_own_rate_and_are_not_decayed():
    """S ← S − 10 η ∂L/∂G, where η is the weights' rate."""
    model, callback, _ = pruned(
        mlp(), ROWS[:16], LABELS[:16], "movement", epochs=1, end_sparsity=0.0, optimizer=keras.optimizers.SGD(0.1)
    )
    layer = model.layers[1]
    first, scores, plain = array(layer.scores), array(layer.raw_kernel), mlp()
    # One step of SGD moved the kernel by −η ∂L/∂W, and with open gates ∂L/∂G = W ∂L/∂W.
    kernel = array(plain.layers[1].kernel)
    np.testing.assert_allclose(first, 10 * kernel * (scores - kernel), atol=1e-6)
    decayed = callback.optimizer(keras.optimizers.AdamW(1e-9, weight_decay=0.5), 1.0)
    layer.scores.assign(np.ones(layer.scores.shape))
    decayed.build(model.trainable_variables)
    decayed.learning_rate = 1.0
    decayed._apply_weight_decay(model.trainable_variables)
    assert (array(layer.scores) == 1).all()
    np.testing.assert_allclose(array(layer.raw_kernel), 0.5 * scores, rtol=1e-6)


@pytest.mark.parametrize("name", ["BertBackbone", "DistilBertBackbone"])
def test_a_backbone_of_keras_hub_with_a_head_of_ones_own(name):
    keras_hub = pytest.importorskip("keras_hub", reason="keras-hub is not installed")
    sizes = {"num_layers": 1, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 16, "max_sequence_length": 6}
    backbone = getattr(keras_hub.models, name)(vocabulary_size=20, **sizes)
    outputs = backbone.output["sequence_output"] if isinstance(backbone.output, dict) else backbone.output
    model = keras.Model(backbone.input, layers.Dense(2, name="head")(outputs[:, 0]))
    ids = np.random.default_rng(0).integers(1, 20, (32, 6)).astype("int32")
    inputs = {"token_ids": ids, "padding_mask": np.ones_like(ids), "segment_ids": np.zeros_like(ids)}
    inputs = {key: inputs[key] for key in backbone.input}
    _, _, history = pruned(model, inputs, LABELS[:32], "spt", pattern="row", end_sparsity=0.5)
    assert history["sparsity"] == pytest.approx([0.0, 0.5], abs=0.02)


class Indexed(keras.utils.PyDataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return ROWS[16 * index : 16 * index + 16], LABELS[16 * index : 16 * index + 16]


def test_data_may_be_a_dataset_indexed_by_batch():
    model = gated_bert.gate(mlp())
    callback = PruningCallback.for_model(model, "spt", end_sparsity=0.5, pruning_end_epoch=2, data=Indexed())
    model.compile("adam", LOSS, run_eagerly=True)
    history = model.fit(Indexed(), epochs=2, callbacks=[callback], verbose=0).history
    assert history["sparsity"] == pytest.approx([0.0, 0.5], abs=0.01)
    assert callback.criterion.explored[0].sum() > 0


@pytest.mark.parametrize(
    "options, message",
    [
        ({"method": "movement"}, r"rule fixed, movement needs straight_through: gate\(model, 'movement'"),
        ({"pattern": "head"}, "pattern: heads are refused: hidden, head are not known as query, key"),
        ({"pattern": "neuron"}, "pattern: neurons are refused: hidden, head are not known"),
        ({"pattern": "block", "block_size": (5, 1)}, "a divisor of the 12 rows of hidden"),
        ({"method": "spt"}, r"spt: no data was given.*data=\(x, y\)"),
        ({"method": "grad_cam", "data": iter(())}, "grad_cam: data of class .*iterator was given"),
        ({"vocab_size": 9}, "option: 'vocab_size' is refused"),
        ({"end_sparsity": 1.5}, "end_sparsity: 1.5 is refused"),
        ({"pruning_end_epoch": 0}, "pruning_end_epoch: 0 is refused|epochs: 0 is refused"),
        ({"method": "taylor"}, "pruning_start_epoch: 1 is refused"),
    ],
)  # fmt: skip
def test_refusals(options, message):
    with pytest.raises((UserError, ConfigError), match=message):
        PruningCallback.for_model(gated_bert.gate(mlp()), **{"pruning_end_epoch": 2, **options})


def test_a_model_without_gates_is_refused():
    with pytest.raises(UserError, match=r"has no gates: gate\(model, 'magnitude'\)"):
        PruningCallback.for_model(mlp(), pruning_end_epoch=2)


def test_an_optimiser_that_knows_no_scores_is_refused():
    model = gated_bert.gate(mlp(), "movement")
    callback = PruningCallback.for_model(model, "movement", pruning_end_epoch=2)
    with pytest.raises(UserError, match="class AdamW, Adam, SGD"):
        callback.optimizer(keras.optimizers.RMSprop())
    for optimizer, steps in (("adam", 1), (callback.optimizer(keras.optimizers.Adam()), 2)):
        model.compile(optimizer, LOSS, steps_per_execution=steps)
        with pytest.raises(UserError, match="callback.optimizer" if steps == 1 else "steps_per_execution=1"):
            model.fit(ROWS, LABELS, callbacks=[callback], verbose=0)


def test_methods_that_act_between_epochs_need_no_length():
    model = gated_bert.gate(mlp())
    callback = PruningCallback.for_model(model, end_sparsity=0.5, pruning_end_epoch=1)
    model.compile("sgd", LOSS, run_eagerly=True)
    with pytest.warns(UserWarning, match="ran out of data"):
        one_batch = (batch for batch in [(ROWS, LABELS)])
        history = model.fit(one_batch, callbacks=[callback], verbose=0, shuffle=False).history
    assert history["sparsity"] == history["target_sparsity"] == [0.5]


@pytest.mark.parametrize(
    "options, sparsities",
    [
        ({"schedule": "linear", "pruning_start_epoch": 2}, [0.0, 0.0, 0.45, 0.9]),
        ({"schedule": "one_shot", "pruning_start_epoch": 3}, [0.0, 0.0, 0.9, 0.9]),
        ({"sparsity_steps": (25, 50, 75)}, [0.25, 0.5, 0.75, 0.75]),
        ({"schedule": "cubic"}, [0.0, 0.5801, 0.8777, 0.9]),
        ({"schedule": "auto", "method": "spt"}, None),
    ],
)
def test_schedules(options, sparsities):
    model = gated_bert.gate(mlp())
    callback = PruningCallback.for_model(
        model, **{"method": "magnitude", "pruning_end_epoch": 4, "data": (ROWS, LABELS), **options}
    )
    found = [callback.target(epoch) for epoch in range(1, 5)]
    if sparsities is None:
        assert found == sorted(found) and found[-1] == 0.9
    else:
        assert found == pytest.approx(sparsities, abs=1e-4)


def test_steps_must_be_known_to_methods_that_act_inside_an_epoch():
    model = gated_bert.gate(mlp(), "movement")
    callback = PruningCallback.for_model(model, "movement", end_sparsity=0.5, pruning_end_epoch=1)
    model.compile(callback.optimizer(keras.optimizers.Adam()), LOSS, run_eagerly=True)
    with pytest.raises(UserError, match="known length"):
        model.fit((batch for batch in [(ROWS, LABELS)]), callbacks=[callback], verbose=0, shuffle=False)
    endless = ((ROWS, LABELS) for _ in iter(int, 1))
    history = model.fit(endless, steps_per_epoch=2, callbacks=[callback], verbose=0, shuffle=False).history
    assert history["sparsity"] == pytest.approx([0.5], abs=0.01)


@pytest.mark.nightly
def test_the_examples_of_the_page_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 8
    pytest.importorskip("keras_hub", reason="keras-hub is not installed")
    namespace = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), namespace)
    lines = capsys.readouterr().out.splitlines()
    assert json.loads(lines[0]) == [0.0, 0.375, 0.75, 0.75]
    assert all(0 < float(line) < 1 for line in lines[-2:])


JAX = """
import keras, numpy as np
import gated_bert
from any_models import IMAGES, LABELS, LOSS, PADDED, ROWS, encoder, mlp, vit
from gated_bert.pruning.patterns import HeadDims
from gated_bert.pruning.structured import StructuredRemoval

assert keras.backend.backend() == "jax"
for method, make, x in (("movement", lambda: vit(1), IMAGES), ("spt", mlp, ROWS[:32])):
    model = make()
    before = np.asarray(model(x))
    gated_bert.gate(model, method)
    assert np.array_equal(np.asarray(model(x)), before)
    callback = gated_bert.PruningCallback.for_model(
        model, method, end_sparsity=0.5, pruning_end_epoch=2, data=(x, LABELS[:32]), batch_size=16
    )
    model.compile(callback.optimizer(keras.optimizers.Adam(1e-3)), LOSS)
    history = model.fit(x, LABELS[:32], batch_size=16, epochs=2, callbacks=[callback], verbose=0).history
    gated = gated_bert.gated_layers(model)
    kernels = [layer._kernel for layer in gated]
    closed = sum(np.count_nonzero(np.asarray(layer.effective_gates()) == 0) for layer in gated)
    assert abs(history["sparsity"][-1] - 0.5) < 0.01, history
    pruned = np.asarray(model(x))
    gated_bert.ungate(model)
    np.testing.assert_allclose(np.asarray(model(x)), pruned, atol=1e-6)
    assert sum(np.count_nonzero(np.asarray(kernel) == 0) for kernel in kernels) == closed

for dropout in (0.0, 0.1):
    model = gated_bert.gate(encoder(dropout=dropout), exclude="head")
    layers = gated_bert.gated_layers(model)
    gated_bert.Pruner(layers, gated_bert.Magnitude(), gated_bert.HEADS, "global").update(0.4)
    gated_bert.Pruner(layers, gated_bert.Magnitude(), HeadDims()).update(0.6)
    removal = StructuredRemoval(model, "classification", [(PADDED, LABELS[:32])])
    list(removal.look())
    list(removal.prune([1, 4] * 2))
    small = gated_bert.shrink(model)
    np.testing.assert_allclose(np.asarray(small(PADDED)), np.asarray(model(PADDED)), atol=1e-5)
    small.compile("adam", LOSS)
    small.fit(PADDED, LABELS[:32], verbose=0)
"""


@pytest.mark.nightly
def test_jax():
    pytest.importorskip("jax")
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    environment["PYTHONPATH"] = os.pathsep.join([str(PAGE.parents[1]), str(PAGE.parents[1] / "tests")])
    finished = subprocess.run([sys.executable, "-c", JAX], env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-3000:]
