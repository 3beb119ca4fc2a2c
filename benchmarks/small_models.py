"""`python -m benchmarks.small_models FAMILY FOLDER`: a small random model of a family, as transformers writes it, with
a tokeniser of the kind its published models have, made of the embedded sentences."""

from __future__ import annotations

import argparse
from pathlib import Path

import keras
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from gated_bert.compression.export import export_hugging_face
from gated_bert.models.family import Family, get_family, known_families
from gated_bert.models.folder import LoadedModel
from gated_bert.tasks.embedded import embedded_examples, embedded_vocabulary
from gated_bert.tasks.task import TASKS
from gated_bert.tasks.tokenizer_protocol import TokenizerProtocol
from gated_bert.tasks.wordpiece import Tokenizer

PIECES = 1000
LAYERS, HIDDEN, HEADS, NEURONS, POSITIONS = 3, 64, 4, 128, 64
ROBERTA_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
BERT_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def byte_level(special: list[str]) -> tokenizers.Tokenizer:
    """Byte pairs of the embedded sentences."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=PIECES, special_tokens=special, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())  # fmt: skip
    backend.train_from_iterator(embedded_examples("sst2")[0].texts, trainer)
    return backend


def roberta() -> tokenizers.Tokenizer:
    backend = byte_level(ROBERTA_SPECIAL)
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return backend


def xlm_roberta() -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.Unigram())
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(" {2,}", " ")])
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=PIECES, special_tokens=ROBERTA_SPECIAL, unk_token="<unk>",
                                      show_progress=False)  # fmt: skip
    backend.train_from_iterator(embedded_examples("sst2")[0].texts, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single=["<s>", "$A", "</s>"], pair=["<s>", "$A", "</s>", "</s>", "$B", "</s>"],
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )  # fmt: skip
    return backend


def modernbert() -> tokenizers.Tokenizer:
    backend = byte_level(BERT_SPECIAL)
    backend.normalizer = normalizers.NFC()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )  # fmt: skip
    return backend


BACKENDS = {"roberta": roberta, "xlm-roberta": xlm_roberta, "modernbert": modernbert}
OWN_SIZES = {"electra": {"embedding_size": 32}, "modernbert": {"local_attention": 8, "global_layers": (0, 2)}}


def make(family: str, folder: Path) -> None:
    """Writes the model; it is the same every time.

    Args:
        family: its `model_type`.
        folder: where to.
    """
    keras.utils.set_random_seed(1)
    kind = get_family(family)
    tokenizer = _tokenizer(kind)
    config = kind.architecture.uniform(LAYERS, HIDDEN, HEADS, NEURONS, vocab_size=tokenizer.vocab_size,
                                       max_position=POSITIONS, **OWN_SIZES.get(family, {}))  # fmt: skip
    export_hugging_face(folder, LoadedModel(kind.model()(config), tokenizer, TASKS["sst2"], config, {}))


def _tokenizer(kind: type[Family]) -> TokenizerProtocol:
    if kind.model_type in BACKENDS:
        return kind.tokenizer(BACKENDS[kind.model_type]())
    assert issubclass(kind.tokenizer, Tokenizer)
    return kind.tokenizer.from_vocab(embedded_vocabulary())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.small_models", description=__doc__)
    parser.add_argument("family", choices=known_families())
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    make(options.family, options.folder)
