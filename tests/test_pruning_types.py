"""What TileSparsity's numbers fill into a record, and what they refuse."""

import pytest

from gated_bert.config import ConfigError, GatedBertConfig

TINY = {"model_size": "tiny", "pruning_method": "taylor"}


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({"pruning_type": 0}, ("head", "k", "layer", "published", False, (32, 32))),
        ({"pruning_type": 5, "granularity": 64}, ("block", "k", "layer", "published", False, (64, 64))),
        ({"pruning_type": 5, "block_size": (16, 8)}, ("block", "k", "layer", "published", False, (16, 8))),
        ({"pruning_type": 7}, ("tile", "k", "global", "published", False, (32, 32))),
        ({"pruning_type": 8}, ("tile", "kn", "global", "published", True, (32, 32))),
        ({"pruning_type": 8, "pooling": "l1", "sparsity_per_dim": False},
         ("tile", "kn", "global", "l1", False, (32, 32))),
        ({"pruning_type": 0, "pruning_method": "movement"}, ("head", "k", "layer", None, False, (32, 32))),
    ],
)  # fmt: skip
def test_the_code_has_defaults_of_its_own(options, fields):
    record = GatedBertConfig(**TINY | {"tilesparsity_variant": "code"} | options)
    names = ("pattern", "tile_dims", "scope", "pooling", "sparsity_per_dim", "block_size")
    assert tuple(getattr(record, name) for name in names) == fields
    assert GatedBertConfig.from_json(record.to_json()) == record == record.replace(seed=42)


def test_type_6_has_one_meaning_with_or_without_the_variant():
    record = GatedBertConfig(pruning_type=6, **TINY)
    assert (record.tilesparsity_variant, record.pattern, record.tile_dims) == ("code", "k_tile", "kn")
    assert record == GatedBertConfig(pruning_type=6, tilesparsity_variant="code", **TINY)
    assert record == GatedBertConfig(pattern="k_tile", tile_dims="kn", **TINY)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tilesparsity_variant": "code"}, "tilesparsity_variant: 'code' is refused; allowed: readme, or code with a"),
        ({"pruning_type": 0, "tilesparsity_variant": "cod"}, "tilesparsity_variant: 'cod' is refused; .*mean code"),
        ({"pruning_type": 6, "tilesparsity_variant": "readme"}, "'readme' is refused; allowed: code, with pruning_ty"),
        ({"pruning_type": 0, "tilesparsity_variant": "code", "scope": "global"},
         "scope: 'global' is refused; allowed: layer, with pruning_type=0 and tilesparsity_variant=code"),
        ({"pruning_type": 8, "tilesparsity_variant": "code", "scope": "layer"}, "allowed: global, with pruning_type=8"),
        ({"pruning_type": 2, "tile_dims": "kn"}, "tile_dims: 'kn' is refused; allowed: k, with pruning_type=2"),
        ({"pruning_type": 9}, "pruning_type: 9 is refused; allowed: 0, 1, 2, 3, 4, 5, 6, 7, 8"),
        ({"pruning_type": 0, "tilesparsity_variant": "code", "sparsity_per_dim": True}, "sparsity_per_dim: True"),
        *(({"pruning_method": "spt", "pruning_type": number, "tilesparsity_variant": "code"}, "units stay the same")
          for number in (0, 1, 2, 3, 4, 6, 8)),
        ({"pruning_method": "soft_movement", "pruning_type": 0, "tilesparsity_variant": "code"}, "allowed: element"),
    ],
)  # fmt: skip
def test_what_the_code_does_not_do_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        GatedBertConfig(**TINY | options)


def test_runs_of_another_variant_have_another_name():
    def label(**options):
        return GatedBertConfig(**TINY | options).label

    assert label(pruning_type=0) == "taylor-head-layer-linear"
    assert label(pruning_type=0, tilesparsity_variant="code") == "taylor-head-code-layer-linear"
    assert label(pruning_type=6) == "taylor-k_tile-kn-code-layer-linear"
    assert label(pruning_type=8, tilesparsity_variant="code") == "taylor-tile-kn-code-global-linear"
    names = [label(pruning_type=n, tilesparsity_variant=v) for n in range(9) for v in ("readme", "code") if n != 6]
    assert len(set(names)) == 16


@pytest.mark.parametrize(
    ("criterion", "variant"),
    [("taylor", "taylor_variant"), ("activation_magnitude", "activation_variant")],
)
def test_a_variant_is_in_the_name_however_the_criterion_is_asked_for(criterion, variant):
    for options in (
        {"pruning_method": criterion},
        {"pruning_method": criterion, "pattern": "head"},
        {"pruning_method": "magnitude", "criterion": criterion},
    ):
        plain, other = (GatedBertConfig(model_size="tiny", **options, **{variant: v}) for v in ("default", "published"))
        assert other.label != plain.label
        assert other.label.startswith(f"{criterion}-published")
