"""`gated-bert export MODEL OUT --format optimum`: folders that optimum and transformers.js load."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from gated_bert.compression.export import head_fields, write_json, write_tokenizer
from gated_bert.compression.onnx_export import export_onnx
from gated_bert.compression.onnx_file import data_file, weight_files
from gated_bert.compression.quantize import quantize
from gated_bert.models.architecture import Architecture, LayerSizes
from gated_bert.models.family import family_of
from gated_bert.models.folder import LoadedModel, replaced_folder
from gated_bert.support.errors import UserError
from gated_bert.support.partial import temporary_folder
from gated_bert.tasks.kinds import OF_SPAN
from gated_bert.tasks.tokenizer_rules import say

ONNX = "onnx"
"""Where both look for the graphs."""
MODEL, QUANTIZED = "model.onnx", "model_quantized.onnx"


def export_optimum(folder: str | Path, loaded: LoadedModel) -> None:
    """Writes `onnx/model.onnx`, the same in 8 bits, `config.json`, the tokeniser and a model card.

    The graph is the portable one, and may be that of a shrunk model: its sizes stand in `config.json` under
    `gated_bert`, in whose other fields layers are as wide as the widest.

    Args:
        folder: where to; one that is there is replaced as a whole.
        loaded: the model, with its tokeniser and task.

    Raises:
        UserError: a model that answers by spans, whose graph has one output for start and end, logits that differ from
            the model's, or a folder that cannot be written.
    """
    if loaded.task.traits.head == OF_SPAN:
        raise UserError("--format: 'optimum' is refused for answers as spans; allowed: classes, regressions, tags")
    family = family_of(loaded.model)
    with replaced_folder(Path(folder)) as new:
        (new / ONNX).mkdir()
        with temporary_folder() as place:
            export_onnx(place / MODEL, loaded)
            quantize(place / MODEL, place / QUANTIZED, "int8")
            files = [file for name in (MODEL, QUANTIZED) for file in weight_files(place / name)]
            for file in files:
                shutil.copyfile(file, new / ONNX / file.name)
        layers = loaded.config.to_dict()["layers"]
        write_json(new / "config.json", {
            **head_fields(loaded.task, family.class_prefix),
            "pad_token_id": loaded.tokenizer.special_id("pad"),
            **family.write_config(widest(loaded.config)),
            "gated_bert": {"layers": layers},
            **_in_two_files({file.name for file in files}),
        })  # fmt: skip
        write_tokenizer(new, loaded)
        if loaded.tokenizer.template.segment and len(loaded.tokenizer.input_names) > 1:
            _name_class(new / "tokenizer_config.json", loaded)
        (new / "README.md").write_text(model_card(loaded), encoding="utf-8")


def _in_two_files(names: set[str]) -> dict:
    """What transformers.js must be told of graphs whose arrays have a file of their own."""
    apart = {name: True for name in (MODEL, QUANTIZED) if data_file(Path(name)).name in names}
    return {"transformers.js_config": {"use_external_data_format": apart}} if apart else {}


def _name_class(path: Path, loaded: LoadedModel):
    """Names BERT's class, which alone makes transformers.js tell two texts apart, where it cuts texts as the file says.

    In Python that class takes the vocabulary alone from the file.
    """
    if _cuts_as_bert(json.loads(loaded.tokenizer.fingerprint)):
        settings = json.loads(path.read_text(encoding="utf-8"))
        write_json(path, settings | {"tokenizer_class": "BertTokenizer"})
    elif loaded.task.pair:
        say(f"{path.parent.name}: transformers.js does not tell the two texts of a pair apart with a tokeniser that is "
            "none of BERT's")  # fmt: skip


def _cuts_as_bert(record: dict) -> bool:
    """Whether a `tokenizer.json` holds what BERT's class makes of its vocabulary and settings."""
    model, normalizer, cutter = (record.get(name) or {} for name in ("model", "normalizer", "pre_tokenizer"))
    usual = {"type": "WordPiece", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
    return (
        all(model.get(name) == value for name, value in usual.items())
        and (normalizer.get("type"), normalizer.get("clean_text")) == ("BertNormalizer", True)
        and cutter.get("type") == "BertPreTokenizer"
        and all(token["special"] for token in record.get("added_tokens") or ())
    )


def widest(config: Architecture) -> Architecture:
    """An architecture all of whose layers have the heads it once had, and as many neurons as the widest."""
    size = config.original_head_dim
    neurons = max((sizes.intermediate_size for sizes in config.layers), default=0)
    heads = LayerSizes(config.hidden_size // size, size, size, max(1, neurons))
    return config.replace(layers=(heads,) * config.num_layers)


def model_card(loaded: LoadedModel) -> str:
    """What a reader needs to know of the model, in Markdown, as far as its record says it."""
    made, task = loaded.metadata, loaded.task
    lines = [("task", f"{task.title} ({task.traits.words})"), ("classes", ", ".join(task.labels)),
             ("family", family_of(loaded.model).title), ("layers", loaded.config.describe_layers().replace("\n", "; ")),
             ("parameters", f"{loaded.config.num_parameters:,}"), ("data", _of(made, "data", "label")),
             ("method", made.get("label")), ("sparsity", _share(_of(made, "row", "sparsity")))]  # fmt: skip
    row: dict[str, Any] = made["row"] if isinstance(made.get("row"), dict) else {}
    lines += [(name.removeprefix("val_"), f"{value:.4f}") for name, value in row.items()
              if name.startswith("val_") and isinstance(value, float)]  # fmt: skip
    table = "\n".join(f"| {name} | {str(value).replace('|', chr(92) + '|')} |" for name, value in lines if value)
    return f"""---
license: # fill in
pipeline_tag: {task.traits.pipeline}
library_name: transformers.js
tags: [onnx, pruning]
---

# {task.title}

| | |
| --- | --- |
{table}

`{ONNX}/{MODEL}` computes in 32 bits, `{ONNX}/{QUANTIZED}` in 8. Pruned and written by gated_bert.
"""


def _share(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else ""


def _of(record: dict, *names: str) -> Any:
    """A value inside a record; None where a part of the way is missing."""
    found: Any = record
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return found
