"""What a pattern cannot close in a run's matrices is refused before anything is planned or started."""

import pytest

from gated_bert.cli.main import main
from gated_bert.config import ConfigError, GatedBertConfig
from gated_bert.config.matrix_checks import check_matrices
from gated_bert.config.space import PATTERNS, ROLES, TIED_ROLES
from gated_bert.models.architecture import BertConfig
from gated_bert.models.bert import BertClassifier
from gated_bert.pruning.named_patterns import get_pattern
from gated_bert.pruning.pruner import Pruner

SIZES = {"model_size": "tiny", "num_layers": 1, "d_model": 16, "num_heads": 2, "dff": 24}
MODEL = BertClassifier(BertConfig.uniform(1, 16, 2, 24, vocab_size=30, num_outputs=2))
UNITS = [
    *({"pattern": "vector", "vector_size": size, "vector_axis": axis} for size in (2, 3, 8, 12, 16) for axis in "kn"),
    *({"pattern": "block", "block_size": (rows, columns)} for rows in (1, 3, 8, 16) for columns in (2, 3, 24)),
    *({"pattern": "k_tile", "granularity": size} for size in (1, 3, 8, 16, 32)),
]


@pytest.mark.parametrize(
    "roles", [ROLES[:1], ROLES[:6], ("ffn_intermediate",), ("ffn_output",), ("pooler", "classifier")]
)
@pytest.mark.parametrize("units", UNITS, ids=lambda units: " ".join(map(str, units.values())))
def test_the_record_refuses_what_the_pruner_would(units, roles):
    config = GatedBertConfig(pruning_method="magnitude", prunable_roles=roles, **SIZES, **units)

    def refused(check):
        try:
            check()
        except ConfigError as error:
            return error.field
        return None

    found = refused(lambda: Pruner.from_config(config, MODEL.gated_layers(roles), [2]))
    # Only the run knows how many classes there are.
    known = [layer for layer in MODEL.gated_layers(roles) if layer.role != "classifier"]
    by_classes = refused(lambda: Pruner.from_config(config, known, [2])) is None
    assert refused(lambda: check_matrices(config)) == (None if by_classes else found)


def test_tied_roles_are_those_of_the_patterns():
    for pattern in PATTERNS:
        roles = get_pattern(GatedBertConfig(pruning_method="magnitude", pattern=pattern)).roles()
        assert roles == (frozenset(TIED_ROLES[pattern]) if pattern in TIED_ROLES else roles)
        if pattern in TIED_ROLES:
            with pytest.raises(ConfigError, match=f"also {TIED_ROLES[pattern][-1]}: pattern {pattern} closes"):
                GatedBertConfig(pruning_method="magnitude", pattern=pattern,
                                prunable_roles=(*TIED_ROLES[pattern][:-1], "pooler"))  # fmt: skip


@pytest.mark.parametrize("command", ["sweep", "stages", "lottery"])
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--pattern vector --vector-size 5", "--vector-size: 5 is refused; allowed: divisors of the 256 rows of query"),
        ("--pattern neuron --prunable-roles ffn_output", "--prunable-roles: 'ffn_output' is refused; allowed: also"),
    ],
)
def test_no_plan_is_shown_that_will_not_run(command, flags, message, capsys, tmp_path):
    steps = ["--stages", "25"] if command == "stages" else []
    line = [command, *f"-d embedded -t sst2 -m tiny -p magnitude -o {tmp_path} --dry-run {flags}".split(), *steps]
    assert main(line) == 2
    assert message in capsys.readouterr().err
