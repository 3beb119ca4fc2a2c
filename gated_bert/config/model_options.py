"""What model a run trains."""

from __future__ import annotations

from dataclasses import dataclass

from gated_bert.config.option import MODEL, RUN, option, takes_other_spellings
from gated_bert.config.presets import MOST_LAYERS, MOST_ROWS, MOST_WIDTH, PRESETS


@takes_other_spellings
@dataclass(frozen=True)
class ModelOptions:
    """Sizes and weights; sizes left at None are those of the preset, or of the pretrained weights."""

    model_size: str = option("base", ", ".join(PRESETS), "-m", "--model-size", group=RUN, metavar="SIZE",
                             choices=tuple(PRESETS))  # fmt: skip
    num_layers: int | None = option(None, "encoder layers; of pretrained weights the first so many", "--num-layers",
                                    group=MODEL, low=1, high=MOST_LAYERS)  # fmt: skip
    d_model: int | None = option(None, "hidden size", "--d-model", "--hidden-size", group=MODEL, low=1, high=MOST_WIDTH,
                                 also="hidden_size")  # fmt: skip
    num_heads: int | None = option(None, "attention heads", "--num-heads", group=MODEL, low=1, high=MOST_WIDTH)
    dff: int | None = option(None, "intermediate size", "--dff", "--intermediate-size", group=MODEL, low=1,
                             high=MOST_WIDTH, also="intermediate_size")  # fmt: skip
    vocab_size: int | None = option(None, "rows of the token embedding", "--vocab-size", group=MODEL, low=1,
                                    high=MOST_ROWS)  # fmt: skip
    dropout_rate: float = option(0.0, "dropout rate", "--dropout", group=MODEL, metavar="RATE", low=0, high=0.99,
                                 fraction=True)  # fmt: skip
    gate_init_value: float = option(1.0, "what open gates start at", "--gate-init-value", group=MODEL, metavar="VALUE",
                                    low=0, high=10, open_low=True)  # fmt: skip
    gate_trainable: bool = option(False, "train the gates as well", "--gate-trainable", group=MODEL)
    pretrained: str | None = option(None, "weights: a Hugging Face id or a folder; without -pt and -l the learning "
                                    "rate is one that learns from scratch", "-pt", "--pretrained", group=MODEL,
                                    metavar="FROM")  # fmt: skip

    def sizes(self) -> tuple[int, int, int, int]:
        """Layers, hidden size, heads and intermediate size, those of the preset where none are given."""
        preset = PRESETS[self.model_size]
        return (preset.num_layers if self.num_layers is None else self.num_layers,
                preset.d_model if self.d_model is None else self.d_model,
                preset.num_heads if self.num_heads is None else self.num_heads,
                preset.dff if self.dff is None else self.dff)  # fmt: skip
