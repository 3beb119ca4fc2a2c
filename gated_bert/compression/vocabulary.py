"""Models without the rows of the token embedding that a corpus never uses."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops

from gated_bert.compression.benchmark import read_judged
from gated_bert.compression.folders import weights_size
from gated_bert.compression.parity import TOLERANCE, in_float32, refuse_not_finite
from gated_bert.compression.source import load_source
from gated_bert.models.folder import WEIGHTS, LoadedModel, save_model
from gated_bert.support.errors import UserError
from gated_bert.support.progress_bar import progress_bar
from gated_bert.tasks.columns import find_columns
from gated_bert.tasks.examples import Examples
from gated_bert.tasks.kinds import OF_TOKEN
from gated_bert.tasks.pipeline import BucketedDataset
from gated_bert.tasks.tables import read_chunks
from gated_bert.tasks.trimmed_vocabulary import CHUNK, check_same, trimmed, used_tokens
from gated_bert.tasks.wordpiece import Tokenizer

CHECKED = 64
"""Texts on which the smaller model is compared."""


def trim_vocabulary(loaded: LoadedModel, texts: Sequence[str]) -> LoadedModel:
    """A model without the tokens that texts never use, which computes the same of these texts.

    Single characters, bytes and special tokens stay, so that other texts are cut into more, shorter pieces, and nothing
    becomes unknown that was not (Abdaoui et al. 2020, "Load What You Need"). Time is saved by none of this: a row that
    is not looked up costs nothing but space.

    Args:
        loaded: a model with its tokeniser; it is not changed.
        texts: the corpus, e.g. the training and development texts of the task; of pairs both.

    Returns:
        The smaller model, not compiled, with its tokeniser; `metadata["vocabulary_trimmed"]` says what went.

    Raises:
        UserError: no texts, a tokeniser whose vocabulary cannot be made smaller, or a text that would be cut otherwise.
    """
    if not len(texts):
        raise UserError("trim-vocabulary: no texts; give at least one")
    tokenizer, model = loaded.tokenizer, loaded.model
    if not isinstance(tokenizer, Tokenizer):
        raise UserError(f"{tokenizer.origin}: a tokeniser of the kind {type(tokenizer).__name__} is refused; allowed: "
                        "one that tokenizer.json describes")  # fmt: skip
    padding = getattr(loaded.config, "padding_index", None)
    # Where positions are counted from behind the padding's id, that must stay what it is.
    below = 0 if padding is None else padding + 1
    parts = texts
    if loaded.task.traits.head == OF_TOKEN:
        # Tagged words are cut one by one.
        parts = list(dict.fromkeys(word for text in texts for word in text.split(" ")))
    with progress_bar("texts", 2 * len(parts)) as advance:
        used = used_tokens(_as_read(loaded, tokenizer), parts, partial(advance, "looking for tokens"))
        small, old = trimmed(tokenizer, used, below)
        known = partial(advance, "cutting by the rest")
        check_same(_as_read(loaded, tokenizer), _as_read(loaded, small), old, parts, known)
    record = {"tokens_before": loaded.config.vocab_size, "tokens": len(old), "texts": len(texts)}
    metadata = loaded.metadata | {"vocabulary_trimmed": record}
    smaller = model.rebuilt(loaded.config.replace(vocab_size=len(old)))
    for source, target in zip(model.weights, smaller.weights, strict=True):
        values = ops.convert_to_numpy(source)
        target.assign(values if source.shape == target.shape else values[old])
    return LoadedModel(smaller, small, loaded.task, smaller.architecture, metadata)


def _as_read(loaded: LoadedModel, tokenizer: Any) -> Any:
    """The tokeniser as it cuts what the model reads."""
    return tokenizer.for_words if loaded.task.traits.head == OF_TOKEN else tokenizer


@dataclass(frozen=True)
class Corpus:
    """Where the texts are that a vocabulary is kept for.

    Attributes:
        files: .tsv, .csv, .jsonl or .txt files, whose labels are not read.
        columns: `text_column` and `text_pair_column` of these, as far as the user names them.
        data: hub, embedded, a folder or a file: training and development texts of the model's task.
        allow_partial: whether `*_partial` files are accepted.
    """

    files: Sequence[Path] = ()
    columns: Mapping[str, str | None] = field(default_factory=dict)
    data: str | None = None
    allow_partial: bool = False

    def texts(self, loaded: LoadedModel) -> list[str]:
        """All of them, of pairs both.

        Raises:
            UserError: a file or data that cannot be read, or of another task.
        """
        found: list[str] = []
        for path in self.files:
            columns = find_columns(path, loaded.task, self.columns, loaded.metadata.get("config") or {})
            for table in read_chunks(path, CHUNK, columns.header):
                _add(found, dataclasses.replace(columns, label=None).examples(table, loaded.task))
        if self.data is not None:
            judged = partial(read_judged, {"the model": loaded}, self.data, allow_partial=self.allow_partial)
            first = judged()
            _add(found, first.train)
            for split in first.splits:
                if split != "test":
                    _add(found, judged(split=split).examples)
        return found


def _add(texts: list[str], examples: Examples) -> None:
    texts += examples.texts
    texts += examples.pairs or ()


def trim_folder(source: Path, out: Path, corpus: Corpus) -> None:
    """Trims the vocabulary of the model in a folder, checks that it computes the same, writes it, prints what it saved.

    Args:
        source: a model folder, or a folder that `load_source` reads.
        out: the model folder to be written.
        corpus: whose texts those of `trim_vocabulary` are.

    Raises:
        UserError: as of `trim_vocabulary` and `Corpus.texts`; a model that cannot be read, or a folder that cannot be
            written.
    """
    loaded = load_source(source)
    refuse_not_finite(loaded.model)
    texts = corpus.texts(loaded)
    small = trim_vocabulary(loaded, texts)
    difference = _difference(loaded, small, texts)
    if not difference <= TOLERANCE:
        raise UserError(f"{source}: the trimmed model's logits differ by {difference:.1e}, more than {TOLERANCE:.0e}; "
                        "nothing was written")  # fmt: skip
    save_model(out, small.model, small.tokenizer, small.task, small.metadata)
    before, after = weights_size(source, loaded.model), (out / WEIGHTS).stat().st_size
    rows = f"{loaded.config.vocab_size:,} → {small.config.vocab_size:,}"
    parameters = f"{loaded.config.num_parameters:,} → {small.config.num_parameters:,}"
    print(f"tokens {rows}; parameters {parameters}; model.keras {before / 1e6:.1f} → {after / 1e6:.1f} MB")
    print(f"{len(texts):,} texts are cut as before; largest difference of a logit, on {min(CHECKED, len(texts))} of "
          f"them: {difference:.1e}; written to {out}")  # fmt: skip


def _difference(loaded: LoadedModel, small: LoadedModel, texts: Sequence[str]) -> float:
    """The largest absolute difference between the logits of two models that cut texts each by its own tokeniser."""
    chosen = [texts[index] for index in np.linspace(0, len(texts) - 1, min(CHECKED, len(texts))).astype(int)]
    length = min(128, loaded.config.max_position)
    pairs = chosen[::-1] if loaded.task.pair else None
    logits = []
    for each in (loaded, small):
        encoded = _as_read(loaded, each.tokenizer).encode(chosen, pairs, length)
        batch = BucketedDataset(encoded, None, len(chosen), length, buckets=(length,))[0]
        logits.append(in_float32(each.model).predict_on_batch(batch))
    return float(np.abs(logits[0] - logits[1]).max())
