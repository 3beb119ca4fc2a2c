"""Explanations by word pieces for many documents, in shards that stay when the command is stopped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gated_bert.experiments.explanations.documents import Wanted
from gated_bert.experiments.explanations.explaining import Lime, Opened, explained, not_done, open_explained
from gated_bert.experiments.explanations.explanation_folder import RECORD, making
from gated_bert.explain.lime import Explanation
from gated_bert.explain.tokens import SHARDS, TokenExplanations, join, read_shard, token_weights
from gated_bert.support.files import replaced_file

SHARD = 25
"""Documents in a shard: what a kill loses at most."""


def explain_tokens(source: Path, out: Path, wanted: Wanted, lime: Lime, resume: bool) -> list[Path]:
    """Explains documents by all their words for all classes, and writes what `explain.tokens` describes.

    Args:
        source: a model folder or an ONNX file.
        out: the folder.
        wanted: which documents.
        lime: how they are explained; its `classes` and `num_features` are not read.
        resume: whether to go on with what is in the folder.

    Returns:
        The files written.

    Raises:
        UserError: a model, documents or a folder that cannot be read, written or gone on with.
        KeyboardInterrupt: stopped; its text says what was written.
    """
    opened = open_explained(source, wanted, lime)
    opened.record.update(kind="tokens", classes=["all"], num_features=None)
    numbers = opened.documents.numbers
    waiting: list[tuple[int, TokenExplanations]] = []

    def interrupted() -> str:
        _write(out, waiting)
        return (f"stopped; {len(list(out.glob(SHARDS)))} files of documents are in {out}, and the same command with "
                "--resume goes on")  # fmt: skip

    with making(out, opened.record, resume, interrupted):
        shards = [read_shard(path) for path in out.glob(SHARDS)]
        done = {number: shares for each in shards
                for number, shares in zip(each.documents.tolist(), each.probabilities, strict=True)}  # fmt: skip
        rest = not_done(opened, done, out)
        for index, explanations in explained(opened, rest, lime, num_features=None):
            waiting.append((index, _document(opened, index, explanations)))
            if len(waiting) == SHARD:
                _write(out, waiting)
        _write(out, waiting)
    print(f"{len(numbers):,} documents, {len(opened.loaded.task.labels)} classes, every word piece")
    return [*sorted(out.glob(SHARDS)), out / RECORD]


def _document(opened: Opened, index: int, explanations: Sequence[Explanation]) -> TokenExplanations:
    documents = opened.documents
    label = documents.labels[index]
    ids, weights = token_weights(opened.loaded.tokenizer, documents.texts[index], explanations, opened.max_len)
    return TokenExplanations(
        documents=np.array([documents.numbers[index]], np.int64),
        labels=np.array([-1 if label is None else label], np.int32),
        offsets=np.array([0, len(ids)], np.int64),
        input_ids=ids,
        weights=weights,
        probabilities=opened.shares[index : index + 1].astype(np.float32),
        intercepts=np.array([[each.intercept for each in explanations]], np.float32),
        fidelity=np.array([[each.fidelity for each in explanations]], np.float32),
    )


def _write(out: Path, waiting: list[tuple[int, TokenExplanations]]):
    """Writes a shard, named by the place of its first document, and empties the list."""
    if not waiting:
        return
    shard = join([part for _, part in waiting])
    with replaced_file(out / SHARDS.replace("*", f"{waiting[0][0]:05d}")) as file:
        np.savez_compressed(file, **vars(shard))
    waiting.clear()
