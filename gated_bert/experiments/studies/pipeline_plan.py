"""What the pipeline from a base model to its report runs: the models and the commands, one after another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gated_bert.experiments.studies.compress import MODELS, PRECISIONS
from gated_bert.support.paths import number_name

EXPLAINED, PICKED, SIMILARITY, POS, TOKENS, STUDENTS = (
    "explained", "sp_lime", "similarity", "pos", "token_explanations", "students"
)  # fmt: skip
"""Folders of the steps."""


@dataclass(frozen=True)
class Variant:
    """A model of the study.

    Attributes:
        name: what tables and plots call it, as `pruned_20_int8`.
        kind: base or shrunk.
        level: per cent of the units that are removed.
        form: onnx, int8 or fp16.
        path: its file.
    """

    name: str
    kind: str
    level: float
    form: str
    path: Path


@dataclass(frozen=True)
class Pipeline:
    """What is run.

    Attributes:
        output: folder of all results.
        skip: names of the steps that are left out.
        compress: the words of `gated-bert compress`.
        levels: per cent of the units that its models lack; None takes the models that are there.
        data: words that name the data.
        seed: of LIME's samples.
        options: numbers of documents, samples and students, by the names of their flags.
    """

    output: Path
    skip: tuple[str, ...]
    compress: tuple[str, ...]
    levels: tuple[str, ...] | None
    data: tuple[str, ...]
    seed: int
    options: Mapping[str, Any]

    def steps(self) -> Iterator[tuple[str, list[str]]]:
        """Name and command of every step but the report, in their order; a command is made when its turn has come."""
        out, options = self.output, {name: str(value) for name, value in self.options.items()}
        yield "compress", ["compress", *self.compress, "--resume"]
        base, *variants = self.variants()
        lime = ["--num-samples", options["num_samples"], "--seed", str(self.seed), *self._data]
        yield "explain", [
            "explain", str(base.path), "--documents", options["documents"], "--per-class", "--classes", "all",
            "--num-features", options["num_features"], *lime, "-o", str(out / EXPLAINED), "--resume",
        ]  # fmt: skip
        explanations = out / SIMILARITY / "explanations"
        yield "sp-lime", [
            "sp-lime", str(out / EXPLAINED), "--pick", options["pick"], "--picked", str(explanations / base.name),
            "-o", str(out / PICKED),
        ]  # fmt: skip
        names = ",".join(each.name for each in (base, *variants))
        yield "similarity", [
            "compare-explanations", str(explanations / base.name), *(str(each.path) for each in variants),
            "--names", names, *self._data, "-o", str(out / SIMILARITY), "--resume",
        ]  # fmt: skip
        folders = [str(explanations / name) for name in (base.name, "noise_floor", *(each.name for each in variants))]
        yield "pos", ["pos", *folders, "-o", str(out / POS)]
        yield "tokens", [
            "explain", str(base.path), "--split", "train", "--documents", options["token_documents"], "--per-class",
            "--token-level", *lime, "-o", str(out / TOKENS), "--resume",
        ]  # fmt: skip
        yield "students", [
            "student", str(out / TOKENS), "--seeds", _listed(self.options["student_seeds"]), "--xai-weights",
            _listed(self.options["xai_weights"]), "-e", options["student_epochs"], *self._data,
            # Keras for both, so that their latencies can be compared.
            "--model", str(out / MODELS / "base"), "-o", str(out / STUDENTS), "--resume",
        ]  # fmt: skip

    @property
    def _data(self) -> list[str]:
        return ["-d", *self.data]

    def variants(self) -> list[Variant]:
        """All models that are explained, the base model first: as files, which are the fastest."""
        folder = self.output / MODELS
        if self.levels is None:
            levels = [path.stem.removeprefix("shrunk_") for path in (folder / "onnx").glob("shrunk_*.onnx")]
        else:
            levels = list(self.levels)
        found = []
        for level in [0.0, *sorted(map(float, levels))]:
            kind = f"shrunk_{number_name(level)}" if level else "base"
            for form in ("onnx", *PRECISIONS):
                name = kind.replace("shrunk", "pruned") + (f"_{form}" if form != "onnx" else "")
                found.append(Variant(name, kind.partition("_")[0], level, form, folder / form / f"{kind}.onnx"))
        return found


def _listed(value: str | Iterable) -> str:
    return value if isinstance(value, str) else ",".join(map(str, value))
