"""Folders of explanations, read: what a model said of documents, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gated_bert.experiments.explanations.explanation_folder import AGAIN, DOCUMENTS, RECORD, read_documents
from gated_bert.support.checks import MOST
from gated_bert.support.errors import UserError
from gated_bert.support.records import read_record
from gated_bert.support.schemas import ExplanationRecord

_REPEATED = {"num_features": (1, MOST), "num_samples": (10, 1_000_000), "seed": (0, MOST), "max_len": (8, MOST)}
"""How explanations are made once more, of another model or seed, and the bounds of each."""
SHARED = ("task", "labels", "num_features", "num_samples", "max_len")
"""What explanations must have in common to be compared, besides the documents and the seed."""


@dataclass(frozen=True)
class Explained:
    """What a folder of explanations holds.

    Attributes:
        folder: where it was read.
        record: how the explanations were made.
        texts: document → its text.
        labels: document → its class where it is known, by name.
        predicted: document → the class that the model predicts, by name.
        weights: (document, class) → word → weight.
    """

    folder: Path
    record: dict
    texts: dict[int, str]
    labels: dict[int, str | None]
    predicted: dict[int, str]
    weights: dict[tuple[int, str], dict[str, float]]

    @property
    def model(self) -> Path:
        """The model that was explained."""
        return Path(self.record["model"])

    @property
    def accuracy(self) -> float | None:
        """Share of the documents whose class is known that are predicted right; None where no class is known."""
        right = [self.predicted[number] == label for number, label in self.labels.items() if label is not None]
        return sum(right) / len(right) if right else None

    def of_predicted_and_own(self) -> dict[tuple[int, str], dict[str, float]]:
        """The weights for the class that the model predicts and for the document's own, where it is known."""
        return {
            (number, label): weights
            for (number, label), weights in self.weights.items()
            if label in (self.predicted[number], self.labels[number])
        }


def is_explained(path: Path) -> bool:
    """Whether a path is a folder of explanations, of words or of word pieces."""
    return (path / RECORD).is_file()


def read_explained(folder: Path) -> Explained:
    """A folder that `gated-bert explain` wrote, to the end.

    Raises:
        UserError: none, malformed, not complete, or explanations of word pieces.
    """
    if not is_explained(folder):
        raise UserError(f"{folder}: no explanations here; `gated-bert explain MODEL … -o {folder}` writes some")
    record = read_record(folder / RECORD, ExplanationRecord, remedy=AGAIN)
    if record.get("kind") != "words":
        raise UserError(f"{folder}: no explanations by words; explain the documents without --token-level")
    if not record["complete"]:
        raise UserError(f"{folder}: not all documents are explained; go on with `gated-bert explain … --resume`")
    lines = sorted(read_documents(folder), key=lambda line: line["document"])
    _check_repeatable(folder, record, lines)
    texts, labels, predicted = ({line["document"]: line[name] for line in lines}
                                for name in ("text", "label", "predicted"))  # fmt: skip
    weights = {
        (line["document"], each["class"]): {word["word"]: word["weight"] for word in each["words"]}
        for line in lines
        for each in line["explanations"]
    }
    return Explained(folder, record, texts, labels, predicted, weights)


def _check_repeatable(folder: Path, record: dict, lines: Sequence[dict]):
    """Refuses what other models could not be explained by alike: `explain` itself takes no such flags."""
    for name, (low, high) in _REPEATED.items():
        value = record[name]
        if value is not None and not low <= value <= high:
            raise UserError(f"{folder / RECORD}: {name} is {value}; allowed: {low} to {high:,}; {AGAIN}")
    for line in lines:
        for name in ("label", "predicted"):
            if line[name] is not None and line[name] not in record["labels"]:
                raise UserError(f"{folder / DOCUMENTS}, document {line['document']}: the {name} {line[name]!r:.60} is "
                                f"no class of {RECORD}; {AGAIN}")  # fmt: skip


def read_comparable(folders: Sequence[Path]) -> list[Explained]:
    """Folders of the same documents, explained alike but for the model.

    Raises:
        UserError: one that cannot be read or differs from the first, or two of one model and seed.
    """
    found = [read_explained(folder) for folder in folders]
    for other in found[1:]:
        _check_comparable(found[0], other)
    seen: dict[tuple, Explained] = {}
    for each in found:
        twice = seen.setdefault((each.model.resolve(), each.record["seed"]), each)
        if twice is not each:
            raise UserError(f"{each.folder}: of the same model and seed as {twice.folder}, {each.model}; give each "
                            "model once")  # fmt: skip
    return found


def _check_comparable(base: Explained, other: Explained):
    for name in SHARED:
        if base.record[name] != other.record[name]:
            raise UserError(f"{other.folder}: its {name} is {other.record[name]}, and that of {base.folder} "
                            f"{base.record[name]}; explain both alike")  # fmt: skip
    if base.texts != other.texts:
        counts = f"{len(other.texts)} documents, and {base.folder} {len(base.texts)}"
        differing = [number for number in base.texts if base.texts[number] != other.texts.get(number)]
        where = f", the first that differs is document {differing[0]}" if differing else ""
        raise UserError(f"{other.folder}: other documents than those of {base.folder} ({counts}{where}); explain the "
                        "same ones, to the end")  # fmt: skip
    labelled = [number for number in base.labels if base.labels[number] != other.labels[number]]
    if labelled:
        raise UserError(f"{other.folder}: document {labelled[0]} is of class {other.labels[labelled[0]]}, and in "
                        f"{base.folder} of {base.labels[labelled[0]]}; explain both from the same data")  # fmt: skip


def check_variant(base: Explained, variant: Explained):
    """Refuses a variant's explanations that are of other samples than those of the base model.

    Raises:
        UserError: names both folders and seeds.
    """
    seeds = variant.record["seed"], base.record["seed"]
    if seeds[0] != seeds[1]:
        raise UserError(f"{variant.folder}: its seed is {seeds[0]}, and that of {base.folder} {seeds[1]}; explain both "
                        "with the same, so that they see the same samples")  # fmt: skip


def check_noise_floor(base: Explained, floor: Explained):
    """Refuses explanations that are not of the base model, or of the same samples.

    Raises:
        UserError: one of these.
    """
    if base.model.resolve() != floor.model.resolve():
        raise UserError(
            f"--noise-floor: {floor.folder} explains {floor.model}; it must be {base.model}, with another seed"
        )
    if base.record["seed"] == floor.record["seed"]:
        raise UserError(f"--noise-floor: {floor.folder} has the seed of {base.folder}, {base.record['seed']}; it must "
                        "have another")  # fmt: skip
