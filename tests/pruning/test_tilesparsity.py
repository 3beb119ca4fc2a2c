"""TileSparsity's types as its code computes them, against a port to NumPy by percentiles of float64 norms."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import ops

from gated_bert.config import ConfigError, GatedBertConfig
from gated_bert.models.gated_dense import GatedDense
from gated_bert.pruning.pruner import Pruner, sparsity

ROLES = ("query", "key", "value", "attention_output", "ffn_intermediate", "ffn_output")
TINY, BASE_LIKE, SMALLEST = (2, 256, 4, 512), (1, 768, 12, 3072), (2, 64, 4, 128)


def make_layers(blocks, hidden, heads, neurons):
    layers = []
    for index in range(blocks):
        for role in ROLES:
            layer = GatedDense(
                neurons if role == "ffn_intermediate" else hidden,
                role=role,
                layer_index=index,
                name=f"encoder_{index}_{role}",
            )
            layer.build((None, neurons if role == "ffn_output" else hidden))
            layers.append(layer)
    return layers


def draw(layers, rng, skewed):
    """Squares, as taylor's scores are; skewed: some rows, columns and matrices far above others."""
    scores = []
    for layer in layers:
        rows, columns = layer.raw_kernel.shape
        values = rng.standard_normal((rows, columns)) ** 2
        if skewed:
            values *= np.exp(rng.standard_normal((rows, 1)) / 3 + rng.standard_normal(columns) + rng.standard_normal())
        scores.append(values.astype(np.float32))
    return scores


def above(norms, percent):
    return norms > np.percentile(norms, percent)


def rows_of_tiles(scores, width, percent):
    """Every tile of `width` columns ranks its rows alone."""
    mask = np.zeros(scores.shape, bool)
    for start in range(0, scores.shape[1], width):
        tile = scores[:, start : start + width]
        mask[above(np.sqrt((tile**2).sum(1)), percent), start : start + width] = True
    return mask


def input_heads(scores, heads, percent, dims):
    """Rows are heads × dimensions; whole heads go, or one dimension of all heads."""
    cube = (scores**2).reshape(heads, -1, scores.shape[1])
    keep = above(np.sqrt(cube.sum((1, 2) if not dims else (0, 2))), percent)
    kept = np.broadcast_to(keep[None, :, None] if dims else keep[:, None, None], cube.shape)
    return kept.reshape(scores.shape)


def best_of_vectors(scores, percent, size=16):
    mask = np.zeros(scores.shape, bool)
    best = int((1 - percent / 100) * size)
    for start in range(0, len(scores), size):
        order = np.argsort(scores[start : start + size], axis=0)
        np.put_along_axis(mask[start : start + size], order[size - best :], True, axis=0)
    return mask


def blocks(scores, size, percent):
    rows, columns = (length // size for length in scores.shape)
    norms = np.sqrt((scores**2).reshape(rows, size, columns, size).sum((1, 3)))
    return np.kron(above(norms, percent), np.ones((size, size), bool))


def both_dims(scores, width, percent):
    return rows_of_tiles(scores, width, percent) & above(np.sqrt((scores**2).sum(0)), percent)


def tiles_of_all(matrices, width, percent):
    """One threshold of all matrices for rows of tiles."""
    norms = [np.sqrt((m**2).reshape(len(m), -1, width).sum(2)) / width for m in matrices]
    threshold = np.percentile(np.concatenate([each.ravel() for each in norms]), percent)
    return [np.repeat(each > threshold, width, axis=1) for each in norms]


def columns_then_spans(matrices, width, percent):
    """Columns by one threshold; then rows of tiles that end with every `width`-th column left, by another."""
    norms = [np.sqrt((m**2).sum(0)) / len(m) for m in matrices]
    threshold = np.percentile(np.concatenate(norms), percent)
    columns = [each > threshold for each in norms]
    tiles, scores = [], []
    for matrix, kept in zip(matrices, columns, strict=True):
        edges, seen = [0], 0
        for column, stays in enumerate(kept):
            seen += stays
            if seen == width and column + 1 < len(kept):
                edges.append(column + 1)
                seen = 0
        edges.append(len(kept))
        tiles.append(edges)
        masked = matrix * kept
        scores.append([
            np.sqrt((masked[:, a:b] ** 2).sum(1)) / (b - a) for a, b in zip(edges, edges[1:], strict=False)
        ])  # fmt: skip
    threshold = np.percentile(np.concatenate([tile for each in scores for tile in each]), percent)
    masks = []
    for kept, edges, each in zip(columns, tiles, scores, strict=True):
        widths = np.diff(edges)
        masks.append(np.repeat(np.stack(each, 1) > threshold, widths, axis=1) & kept)
    return masks


def published(matrices, number, percent, heads, width):
    """The masks that TileSparsity's code makes of scores in BERT's order, Q K V O I O of every block."""
    if number == 7:
        return tiles_of_all(matrices, width, percent)
    if number == 8:
        return columns_then_spans(matrices, width, percent)
    parts = [matrices[start : start + 6] for start in range(0, len(matrices), 6)]
    return [mask for part in parts for mask in published_block(part, number, percent, heads, width)]


def published_block(matrices, number, percent, heads, width):
    alike = {
        2: lambda m: rows_of_tiles(m, width, percent),
        4: lambda m: best_of_vectors(m, percent),
        5: lambda m: blocks(m, width, percent),
    }
    if number in alike:
        return [alike[number](m) for m in matrices]
    qkv, rest = matrices[:3], matrices[3:]
    if number == 6:
        return [both_dims(m, 32, percent) for m in qkv] + [both_dims(m, min(128, m.shape[1]), percent) for m in rest]
    if number == 3:
        first = np.split(rows_of_tiles(np.hstack(qkv), 3 * qkv[0].shape[1], percent), 3, axis=1)
    else:
        first = [input_heads(m, heads, percent, dims=number == 1) for m in qkv]
    return first + [rows_of_tiles(m, width, percent) for m in rest]


def masks_of(layers):
    return [ops.convert_to_numpy(layer.gates) != 0 for layer in layers]


def agreement(ours, theirs):
    same = sum(int((a == b).sum()) for a, b in zip(ours, theirs, strict=True))
    return same / sum(mask.size for mask in ours)


def make_pruner(layers, number, heads, **options):
    options = {"tilesparsity_variant": "code"} | options
    config = GatedBertConfig(model_size="tiny", pruning_method="magnitude", pruning_type=number, **options)
    for layer in layers:
        layer.gates.assign(np.ones(tuple(layer.gates.shape), np.float32))
    return Pruner.from_config(config, layers, [heads] * (len(layers) // 6))


def prune(pruner, scores, percent, step=1):
    for layer, values in zip(pruner.layers, scores, strict=True):
        layer.raw_kernel.assign(values)
    pruner.update(percent / 100, step)
    return masks_of(pruner.layers)


@pytest.fixture(scope="module")
def sized():
    made = {}
    return lambda sizes: made.setdefault(sizes, make_layers(*sizes))


@pytest.mark.parametrize("skewed", [False, True], ids=["alike", "skewed"])
@pytest.mark.parametrize("number", range(9))
@pytest.mark.parametrize(
    ("sizes", "width", "percents"), [(TINY, 64, (25, 50, 75, 80, 90)), (BASE_LIKE, 128, (50, 80))], ids=["tiny", "base"]
)
@pytest.mark.daily_every(6)
def test_masks_are_those_of_the_code(sized, sizes, width, percents, number, skewed):
    layers, heads = sized(sizes), sizes[2]
    scores = draw(layers, np.random.default_rng(number), skewed)
    for percent in percents:
        theirs = published([values.astype(float) for values in scores], number, percent, heads, width)
        ours = prune(make_pruner(layers, number, heads, granularity=width, min_kept=0.0), scores, percent)
        assert agreement(ours, theirs) >= 0.9995


@pytest.mark.parametrize(("number", "share"), [(0, 0.5), (1, 0.52), (3, 0.69)])
def test_the_readme_says_something_else_of_three_types(sized, number, share):
    layers = sized(TINY)
    scores = draw(layers, np.random.default_rng(number), False)
    theirs = published([values.astype(float) for values in scores], number, 50, 4, 64)
    pruner = make_pruner(layers, number, 4, granularity=64, tilesparsity_variant="readme")
    assert agreement(prune(pruner, scores, 50), theirs) == pytest.approx(share, abs=0.02)


@pytest.mark.nightly
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**6), st.integers(0, 8), st.integers(1, 93), st.booleans())
def test_masks_are_those_of_the_code_at_any_percentage(sized, seed, number, percent, skewed):
    layers = sized(SMALLEST)
    scores = draw(layers, np.random.default_rng(seed), skewed)
    theirs = published([values.astype(float) for values in scores], number, percent, 4, 16)
    ours = prune(make_pruner(layers, number, 4, granularity=16, min_kept=0.0), scores, percent)
    # A matrix that the code empties keeps a unit here.
    emptied = [mask.size for mask in theirs if not mask.any()]
    assert agreement(ours, theirs) >= 0.99 - len(emptied) / 1000


@pytest.mark.parametrize("number", range(9))
def test_a_later_stage_scores_what_is_closed_with_zero_as_the_code_does(sized, number):
    layers = sized(TINY)
    pruner, rng = make_pruner(layers, number, 4, granularity=64), np.random.default_rng(number)
    theirs = [np.ones(tuple(layer.gates.shape), bool) for layer in layers]
    for percent in (25, 50, 75):
        scores = draw(layers, rng, True)
        masked = [values.astype(float) * mask for values, mask in zip(scores, theirs, strict=True)]
        theirs = published(masked, number, percent, 4, 64)
        assert agreement(prune(pruner, scores, percent, step=percent), theirs) >= 0.99


def test_a_group_of_rows_of_one_matrix_is_a_head_in_type_0_and_the_same_row_of_all_in_type_1(sized):
    layers = sized(SMALLEST)
    query = np.ones((64, 64), np.float32)
    query[16:32] = 0.1
    scores = [query, *(np.ones(tuple(layer.gates.shape), np.float32) for layer in layers[1:])]
    assert not prune(make_pruner(layers, 0, 4, granularity=16), scores, 25)[0][16:32].any()
    query[:], query[5::16] = 1, 0.1
    masks = prune(make_pruner(layers, 1, 4, granularity=16), scores, 1)
    np.testing.assert_array_equal(np.flatnonzero(~masks[0].any(1)), [5, 21, 37, 53])
    assert masks[0].any(1).sum() == 60


@pytest.mark.parametrize(("per_dim", "closed"), [(None, 0.75), (True, 0.75), (False, 0.5)])
@pytest.mark.parametrize("number", [6, 8])
def test_a_sparsity_is_meant_for_each_dimension_unless_a_record_says_otherwise(sized, number, per_dim, closed):
    layers = sized(TINY)
    scores = [np.abs(np.random.default_rng(1).standard_normal(tuple(each.gates.shape))) + 1 for each in layers]
    # Equal norms per column and row but for noise, so that the dimensions are independent.
    pruner = make_pruner(layers, number, 4, pooling="mean", sparsity_per_dim=per_dim)
    prune(pruner, [values.astype(np.float32) for values in scores], 50)
    # Units are counted; in type 8 they are tiles of unlike widths.
    assert sparsity(layers) == pytest.approx(closed, abs=0.01 if number == 6 else 0.15)


def test_nothing_closes_at_0_and_every_matrix_keeps_its_floor_at_100(sized):
    layers = sized(SMALLEST)
    for number in range(9):
        scores = draw(layers, np.random.default_rng(0), False)
        assert all(mask.all() for mask in prune(make_pruner(layers, number, 4, granularity=16), scores, 0))
        assert all(mask.any() for mask in prune(make_pruner(layers, number, 4, granularity=16), scores, 100))


def test_a_floor_moves_no_threshold(sized):
    layers = sized(SMALLEST)
    scores = draw(layers, np.random.default_rng(0), False)
    scores[0] *= 1e-3
    theirs = published([values.astype(float) for values in scores], 7, 50, 4, 16)
    ours = prune(make_pruner(layers, 7, 4, granularity=16), scores, 50)
    assert not theirs[0].any()
    assert ours[0].any()
    assert agreement(ours[1:], theirs[1:]) == 1.0


def test_query_key_and_value_may_be_missing(sized):
    layers = [layer for layer in sized(SMALLEST) if layer.role.startswith("ffn")]
    config = GatedBertConfig(
        model_size="tiny", pruning_method="magnitude", pruning_type=3, tilesparsity_variant="code", granularity=16
    )
    for layer in layers:
        layer.gates.assign(np.ones(tuple(layer.gates.shape), np.float32))
    Pruner.from_config(config, layers, [4, 4]).update(0.5, 1)
    assert sparsity(layers) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("number", "texts"),
    [
        (0, ["encoder_0_query: 4 × block of 16 rows × 64 columns (1,024 weights each)",
             "encoder_0_attention_output: 64 × one block of 1 rows × 16 columns of each of 4 sets (64 weights each)"]),
        (1, ["encoder_0_query: 16 × every 16th row (256 weights each)"]),
        (8, ["encoder_0_query: 64 × block of 64 rows × 1 columns (64 weights each)"]),
    ],
)  # fmt: skip
def test_groups_say_what_goes_together(sized, number, texts):
    pruner = make_pruner(sized(SMALLEST), number, 4, granularity=16)
    assert set(texts) <= {str(group) for group in pruner.groups}


def test_spans_end_with_the_last_open_column_of_a_tile(sized):
    layers = sized(SMALLEST)
    pruner = make_pruner(layers, 8, 4, granularity=16)
    mask = np.ones((64, 64), np.float32)
    mask[:, :10] = 0
    mask[:, -8:] = 0
    layers[0].gates.assign(mask)
    spans = pruner.pattern.steps(0.5)[1][0].groups(layers[:1])
    assert str(spans[0]) == "encoder_0_query: 192 × row inside a tile of 16 to 26 columns (21 weights each)"
    np.testing.assert_array_equal(spans[0].starts, [0, 26, 42])
    scores = np.ones((64, 64))
    expected = np.tile([16 / 26, 16 / 16, 14 / 22], 64)
    np.testing.assert_allclose(spans[0].pool([scores]), expected, rtol=1e-6)


def test_heads_that_do_not_divide_the_inputs_are_refused(sized):
    with pytest.raises(ConfigError, match=r"pruning_type: 0 is refused; allowed: a model whose heads \(5\) divide"):
        make_pruner(sized(SMALLEST), 0, 5, granularity=16)


@pytest.mark.parametrize("method", ["random", "movement", "taylor"])
@pytest.mark.parametrize("number", range(9))
def test_every_kind_of_criterion_meets_every_type(sized, method, number):
    layers = sized(SMALLEST)
    config = GatedBertConfig(
        model_size="tiny", pruning_method=method, pruning_type=number, tilesparsity_variant="code", granularity=16
    )
    pruner, drawn = Pruner.from_config(config, layers, [4, 4]), np.random.default_rng(0)
    values = {layer.name: drawn.standard_normal(tuple(layer.gates.shape)).astype(np.float32) for layer in layers}
    sign = np.asarray if method == "movement" else np.square
    pruner.criterion.scores = lambda layer: sign(values[layer.name])
    pruner.criterion.after_update = lambda: None
    for layer in layers:
        layer.gates.assign(np.ones(tuple(layer.gates.shape), np.float32))
    pruner.update(0.5, step=1)
    # 50 % of each of two dimensions is 75 %; a tile of type 8 counts once, however wide it is.
    assert sparsity(layers) == pytest.approx(0.75 if number in (6, 8) else 0.5, abs=0.15 if number == 8 else 0.02)
