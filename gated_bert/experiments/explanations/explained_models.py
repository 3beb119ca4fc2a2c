"""Models explained on the same documents with the same samples, each in a folder of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gated_bert.compression.onnx_model import open_model
from gated_bert.experiments.explanations.documents import Documents, Wanted
from gated_bert.experiments.explanations.explained import Explained, is_explained, read_explained
from gated_bert.experiments.explanations.explaining import Lime, explain
from gated_bert.experiments.explanations.similarity_table import NOISE
from gated_bert.experiments.reports.names import short_names
from gated_bert.support.errors import UserError

FOLDER = "explanations"
"""Where, below the folder of a comparison, models' explanations go."""


@dataclass(frozen=True)
class Explaining:
    """How the models of a comparison are explained.

    Attributes:
        out: folder of the comparison; a model's explanations go to `explanations/NAME` in it.
        wanted: which documents; not read where the first model comes as a folder of explanations.
        lime: how, where the first is not such a folder; else as there.
        resume: whether to go on with explanations that are there.
    """

    out: Path
    wanted: Wanted | Documents = Wanted()
    lime: Lime = Lime()
    resume: bool = False

    def explained(self, sources: Sequence[Path], names: Sequence[str] | None = None) -> dict[str, Path]:
        """Folders of explanations of the same documents, for which all models see the samples that the first sees.

        All classes of a document are explained, since models may predict different ones.

        Args:
            sources: models, or folders of explanations.
            names: what they are called; by default the ends of their paths.

        Returns:
            Name of each → its folder.

        Raises:
            UserError: one that cannot be read, models of different tasks, or one twice.
        """
        names = names or short_names(sources)
        _check_tasks(sources)
        folders, alike = {}, replace(self, lime=replace(self.lime, classes=("all",)))
        for name, source in zip(names, sources, strict=True):
            folders[name] = source if is_explained(source) else alike._explain(name, source)
            if len(folders) == 1:
                alike = _as_in(read_explained(folders[name]), alike)
        return folders

    def noise_floor(self, base: Path) -> Path:
        """The first model's explanations once more, with the seed after its own.

        Args:
            base: its folder of explanations.

        Raises:
            UserError: the model is not there any more.
        """
        found = read_explained(base)
        source = found.model
        if not source.exists():
            raise UserError(f"{base}: its model, {source}, is not there to be explained with another seed; give the "
                            "folder of such explanations, --noise-floor FOLDER")  # fmt: skip
        alike = _as_in(found, replace(self, lime=replace(self.lime, classes=("all",))))
        other = replace(alike, lime=replace(alike.lime, seed=alike.lime.seed + 1))
        return other._explain(NOISE.replace(" ", "_"), source)

    def _explain(self, name: str, source: Path) -> Path:
        print(f"{name}: {source}, seed {self.lime.seed}", flush=True)
        folder = self.out / FOLDER / name.replace("/", "_")
        explain(source, folder, self.wanted, self.lime, self.resume)
        return folder


def _check_tasks(sources: Sequence[Path]):
    """Reads every model before the first is explained, since that may take hours."""
    first = None
    for source in sources:
        if is_explained(source):
            record = read_explained(source).record
            task = record["task"], tuple(record["labels"])
        else:
            found = open_model(source).task
            task = found.name, found.labels
        first = first or (source, task)
        if task != first[1]:
            described = [f"{name} ({', '.join(labels)})" for name, labels in (first[1], task)]
            raise UserError(f"{source}: of task {described[1]}, and {first[0]} of {described[0]}; give models of one "
                            "task")  # fmt: skip


def _as_in(base: Explained, explaining: Explaining) -> Explaining:
    """For the documents of a folder of explanations, and made as these were."""
    classes = base.record["labels"]
    labels = [None if label is None else classes.index(label) for label in base.labels.values()]
    documents = Documents(list(base.texts), list(base.texts.values()), labels, base.record["data"])
    alike = {name: base.record[name] for name in ("num_features", "num_samples", "seed", "max_len")}
    return replace(explaining, wanted=documents, lime=replace(explaining.lime, **alike))
