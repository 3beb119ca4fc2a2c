"""What the clients people run make of exported folders; each is skipped where it is not installed."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks.client_programs import CLIENTS, FILES, Missing
from benchmarks.clients import COMMANDS, GOALS, SENTENCES, expected, make, sentences

FULL_SCALE = True
DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_documentation_tells_to_type_what_is_tried():
    page = (DOCS / "families.md").read_text(encoding="utf-8").replace("\\\n", " ")
    assert all(command in re.sub(" +", " ", page) for command in ("python -m benchmarks.small_models", *COMMANDS))


@pytest.fixture(scope="module", params=["bert", "bert, not shrunk", "roberta", "modernbert"])
def exported(request, tmp_path_factory):
    """A folder made as the documentation tells, and the model that it holds."""
    family, _, whole = request.param.partition(", ")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VERBOSE", "0")
        return make(family, tmp_path_factory.mktemp(family), shrunk=not whole)


@pytest.mark.nightly
def test_whole_heads_and_neurons_are_gone(exported, request):
    shrunk = "not shrunk" not in request.node.name
    sizes = {(each.num_heads, each.query_key_dim, each.intermediate_size) for each in exported[1].config.layers}
    assert sizes == {(2, 16, 64) if shrunk else (4, 16, 128)}


@pytest.mark.nightly
@pytest.mark.parametrize("precision", FILES)
@pytest.mark.parametrize("client", CLIENTS)
def test_clients_find_the_same_classes_and_probabilities(exported, client, precision):
    folder, loaded = exported
    texts = sentences(SENTENCES)
    try:
        found = CLIENTS[client](folder, texts, precision)
    except Missing as error:
        pytest.skip(str(error))
    known = expected(folder, loaded, texts, precision)
    assert found.shape == (SENTENCES, 2) and 20 < known.argmax(1).sum() < SENTENCES - 20
    np.testing.assert_array_equal(found.argmax(1), known.argmax(1))
    np.testing.assert_allclose(found, known, atol=GOALS[precision])
