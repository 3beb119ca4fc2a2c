"""Texts as token ids: what a tokeniser gives, and how ids are joined to what a model reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

IDS, REAL = "input_ids", "attention_mask"
"""Inputs of every model: token ids, and 1 where a token is none of the padding."""


@dataclass(frozen=True)
class Encoded:
    """n examples, one after the other.

    Attributes:
        inputs: name of an input of the model → [tokens] int32, a value for each token; `input_ids` is one of them.
        offsets: [n + 1] int64; example i is at `offsets[i]:offsets[i + 1]`.
        pad_id: token id of the padding; other inputs are padded by 0.
    """

    inputs: Mapping[str, np.ndarray]
    offsets: np.ndarray
    pad_id: int = 0

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def input_ids(self) -> np.ndarray:
        """Token ids, [tokens] int32."""
        return self.inputs[IDS]

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each example, [n] int64."""
        return np.diff(self.offsets)

    def row(self, index: int) -> np.ndarray:
        """Token ids of one example."""
        return self.input_ids[self.offsets[index] : self.offsets[index + 1]]

    def take(self, indices: Sequence[int] | np.ndarray) -> Encoded:
        """The examples at `indices`, in that order."""
        lengths = self.lengths[indices]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        places = np.repeat(self.offsets[indices] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Encoded({name: values[places] for name, values in self.inputs.items()}, offsets, self.pad_id)


@dataclass(frozen=True)
class Template:
    """The special tokens around texts, as ids.

    Attributes:
        begin: before the first text.
        between: after the first of two texts.
        end: after the last text.
        segment: that of the second text and of what is after it.
    """

    begin: tuple[int, ...]
    between: tuple[int, ...]
    end: tuple[int, ...]
    segment: int = 1

    def around(self, texts: int) -> int:
        """How many special tokens there are around one text, or around two."""
        return len(self.begin) + len(self.between) * (texts - 1) + len(self.end)


@dataclass(frozen=True)
class Column:
    """Parts of texts, one of each example: n first texts, or n second ones.

    Attributes:
        ids: token ids that the parts are taken from.
        starts: [n] where in `ids` each part begins.
        counts: [n] its tokens.
    """

    ids: np.ndarray
    starts: np.ndarray
    counts: np.ndarray


def arrange(columns: Sequence[Column], template: Template, names: Sequence[str], pad_id: int) -> Encoded:
    """One or two texts of every example with the special tokens around them.

    Args:
        columns: first texts, and second ones if there are any.
        template: the special tokens.
        names: the inputs that the model reads for each token: ids, then, where it has them, segments: 0 in the first
            text and the special tokens around it, that of the template from there on.
        pad_id: token id of the padding.
    """
    offsets = np.cumsum(np.concatenate([[0], sum(each.counts for each in columns) + template.around(len(columns))]))
    offsets = offsets.astype(np.int64)
    ids, segments = np.empty(offsets[-1], dtype=np.int32), np.empty(offsets[-1], dtype=np.int32)
    place = offsets[:-1]
    for special in template.begin:
        ids[place], segments[place] = special, 0
        place = place + 1
    after = (template.between,) * (len(columns) - 1) + (template.end,)
    for segment, column, specials in zip((0, template.segment), columns, after, strict=False):
        count = column.counts
        within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        target = np.repeat(place, count) + within
        ids[target] = column.ids[np.repeat(column.starts, count) + within]
        segments[target] = segment
        place = place + count
        for special in specials:
            ids[place], segments[place] = special, segment
            place = place + 1
    return Encoded(dict(zip(names, (ids, segments), strict=False)), offsets, pad_id)


def kept_lengths(lengths: list[np.ndarray], room: int) -> list[np.ndarray]:
    """How many tokens of each text are kept: of a pair the longer is cut first, then both alike.

    Args:
        lengths: tokens of the first texts, and of the second texts if there are any, each [n].
        room: most tokens of an example, special tokens aside.

    Returns:
        Tokens kept, as `lengths`. An odd token goes to the longer text, to the second of equals, as in the
        `tokenizers` library.
    """
    if len(lengths) == 1:
        return [np.minimum(lengths[0], room)]
    first, second = lengths
    short = np.minimum(np.minimum(first, second), room // 2)
    long = room - short
    fits = first + second <= room
    first_is_short = first <= second
    return [
        np.where(fits, first, np.where(first_is_short, short, long)),
        np.where(fits, second, np.where(first_is_short, long, short)),
    ]
