"""Small models of every family, from their fixtures."""

from pathlib import Path

import keras

from gated_bert.models.family import get_family
from gated_bert.models.pretrained import load_pretrained, read_pretrained_architecture

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
FOLDERS = FIXTURES / "families"


def load(folder, **changes):
    config = read_pretrained_architecture(str(folder)).replace(**changes)
    model = get_family(config.model_type).model()(config)
    load_pretrained(model, str(folder))
    return model


def predict(model, inputs):
    return keras.ops.convert_to_numpy(model(inputs))
