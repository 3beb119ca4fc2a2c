"""Explanations by word pieces: what each token of a document adds to each class.

A token-level folder, as `gated-bert explain --token-level` writes it, holds `record.json` and shards
`tokens_00000.npz`, `tokens_00025.npz`, …, each of some documents one after the other:

| array | shape | holds |
| --- | --- | --- |
| `documents` | [n] int64 | row of each document in its file or split, from 1 |
| `labels` | [n] int32 | index of its class, −1 where it is not known |
| `offsets` | [n + 1] int64 | document i has the tokens `offsets[i]:offsets[i + 1]` |
| `input_ids` | [tokens] int32 | what the model reads: pieces cut to its longest input, special tokens around them |
| `weights` | [tokens, classes] float32 | LIME weights for the probability of each class |
| `probabilities` | [n, classes] float32 | the model's probabilities |
| `intercepts` | [n, classes] float32 | what the local models say of a text without any word |
| `fidelity` | [n, classes] float32 | R² of the local models, NaN of a text without words |

A word's weight is shared equally by all its pieces in all its places, so that the weights of a document's tokens and
the intercept add up to what its local model predicts. Special tokens have weight 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from gated_bert.explain.lime import Explanation
from gated_bert.support.arrays import DAMAGED, read_npz
from gated_bert.support.errors import UserError
from gated_bert.tasks.tokenizer_protocol import TokenizerProtocol

SHARDS = "tokens_*.npz"


@dataclass(frozen=True)
class TokenExplanations:
    """Explanations of documents by word pieces; the attributes are the arrays of the table above."""

    documents: np.ndarray
    labels: np.ndarray
    offsets: np.ndarray
    input_ids: np.ndarray
    weights: np.ndarray
    probabilities: np.ndarray
    intercepts: np.ndarray
    fidelity: np.ndarray

    def __len__(self) -> int:
        return len(self.documents)


def token_weights(
    tokenizer: TokenizerProtocol, text: str, explanations: Sequence[Explanation], max_len: int
) -> tuple[np.ndarray, np.ndarray]:
    """Weights of words as weights of a text's tokens.

    Args:
        tokenizer: the model's.
        text: the document.
        explanations: of this text, one per class in their order.
        max_len: most tokens, special ones included.

    Returns:
        `input_ids` [tokens] and `weights` [tokens, classes], see above; words beyond the cut are left out.
    """
    ids = tokenizer.encode([text], None, max_len).input_ids
    weights = np.zeros((len(ids), len(explanations)), np.float32)
    _, characters, _ = tokenizer.places([text])
    template = tokenizer.template
    starts, ends = characters[: len(ids) - template.around(1)].T
    pieces: dict[str, np.ndarray] = {}
    for column, each in enumerate(explanations):
        for word, places, weight in zip(each.words, each.positions, each.weights, strict=True):
            if word not in pieces:
                inside = [np.flatnonzero((starts < place + len(word)) & (ends > place)) for place in places]
                pieces[word] = np.concatenate(inside)
            # One piece may hold letters of two words, where accents stand as characters of their own.
            np.add.at(weights[:, column], pieces[word] + len(template.begin), weight / max(1, len(pieces[word])))
    return ids, weights


def join(parts: Sequence[TokenExplanations]) -> TokenExplanations:
    """Several parts as one, in their order."""
    arrays = {each.name: np.concatenate([getattr(part, each.name) for part in parts])
              for each in fields(TokenExplanations) if each.name != "offsets"}  # fmt: skip
    lengths = np.concatenate([np.diff(part.offsets) for part in parts])
    return TokenExplanations(offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), **arrays)


def read_shard(path: Path) -> TokenExplanations:
    """One shard.

    Raises:
        UserError: a damaged file.
    """
    try:
        arrays = read_npz(path)
        found = TokenExplanations(**{each.name: arrays[each.name] for each in fields(TokenExplanations)})
        _check(found)
        return found
    except DAMAGED as error:
        raise UserError(f"{path}: not a whole file of token explanations ({error}); remove it, and go on with "
                        "`gated-bert explain --token-level --resume`") from error  # fmt: skip


def _check(found: TokenExplanations):
    usual = {"documents": ("i", 1), "labels": ("i", 1), "offsets": ("i", 1), "input_ids": ("i", 1),
             **dict.fromkeys(("weights", "probabilities", "intercepts", "fidelity"), ("if", 2))}  # fmt: skip
    for name, (kinds, dimensions) in usual.items():
        array = getattr(found, name)
        if array.dtype.kind not in kinds or array.ndim != dimensions:
            raise ValueError(f"{name} is of another type or shape")
    count, tokens = len(found.documents), len(found.input_ids)
    sizes = {name: len(getattr(found, name)) for name in usual}
    same = sizes["labels"] == sizes["probabilities"] == sizes["intercepts"] == sizes["fidelity"] == count
    if not same or sizes["offsets"] != count + 1 or sizes["weights"] != tokens:
        raise ValueError("its arrays are of different lengths")
    if found.offsets[0] != 0 or found.offsets[-1] != tokens or (np.diff(found.offsets) < 0).any():
        raise ValueError("offsets do not rise from 0 to the number of tokens")


def read_token_explanations(folder: Path) -> TokenExplanations:
    """All shards of a token-level folder.

    Raises:
        UserError: no or damaged shards.
    """
    paths = sorted(folder.glob(SHARDS))
    if not paths:
        raise UserError(f"{folder}: no token explanations in it; `gated-bert explain MODEL -d DATA --token-level -o "
                        f"{folder}` writes them")  # fmt: skip
    return join([read_shard(path) for path in paths])
