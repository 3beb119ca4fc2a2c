"""What stands beside the similarity of models' explanations: their sizes, and how often they are right."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gated_bert.compression.benchmark import JudgedOn, judge, read_judged, stored_parameters
from gated_bert.compression.onnx_model import open_model
from gated_bert.experiments.explanations.explained import Explained
from gated_bert.models.folder import LoadedModel
from gated_bert.support.errors import UserError
from gated_bert.support.files import write_json_atomic
from gated_bert.support.progress_bar import progress_bar
from gated_bert.support.records import read_record
from gated_bert.support.schemas import JudgedRecord

JUDGED = "judged.json"


@dataclass(frozen=True)
class Judging:
    """On what models are judged besides the explained documents, and how.

    Attributes:
        data: hub, embedded, a folder or a file; None leaves that out.
        split: which of the task's splits; by default its test set where it has one.
        allow_partial: whether `*_partial` files are accepted.
        resume: whether to take what was found out before of the same models.
    """

    data: str | None = None
    split: str | None = None
    allow_partial: bool = False
    resume: bool = False


def model_facts(models: Mapping[str, Explained], judging: Judging, store: Path) -> tuple[str | None, dict[str, dict]]:
    """What else is known of explained models: size, accuracy, metric on a test set, and each one's loss of it.

    Args:
        models: by name, the base model first.
        judging: what the models are judged on.
        store: a JSON file that keeps what was found out, model by model, since that may take long.

    Returns:
        What they were judged on besides the documents, and name → `parameters`, `nonzero_parameters` and
        `removed_percent` (of the base model's non-zero ones) where the model is still there, `document_accuracy` and
        `document_accuracy_drop` where classes are known, `same_prediction` (share of the documents predicted as the
        base model does) and, where judged, `test_metric`, `test_value` and `test_drop`.

    Raises:
        UserError: data to judge on, and a model that is not there.
    """
    base = next(iter(models))
    facts = {name: _of_documents(each, models[base]) for name, each in models.items()}
    missing = [each.model for each in models.values() if not each.model.exists()]
    if missing and judging.data is not None:
        raise UserError(f"-d/--data: {missing[0]}, an explained model, is not there to be judged; leave out -d, or "
                        "explain it from where it is now")  # fmt: skip
    known, judged = _known(judging, store), None
    with progress_bar("models", len(models)) as advance:
        for name, each in models.items():
            advance(name, 0)
            path = str(each.model.resolve())
            if path not in known["models"] and each.model.exists():
                # One at a time: of many models, memory might not hold all.
                loaded = open_model(each.model)
                if judging.data is not None and judged is None:
                    judged = read_judged({name: loaded}, judging.data, judging.split, judging.allow_partial)
                    known["judged_on"] = judged.label
                known["models"][path] = _of_model(each.model, loaded, judged)
                write_json_atomic(store, known)
            facts[name] |= known["models"].get(path, {})
            if facts[name].get("test_value", 0.0) is None:
                # A metric that is no number is null in the store.
                facts[name]["test_value"] = math.nan
            advance(name, 1)
    for fact in facts.values():
        _add_differences(fact, facts[base])
    return known["judged_on"], facts


def _known(judging: Judging, store: Path) -> dict:
    nothing = _unknown(judging)
    if judging.resume and store.is_file():
        found = read_record(store, JudgedRecord)
        if found.get("judging") == nothing["judging"]:
            return found
    return nothing


def keep_benchmark(measured: Mapping, judging: Judging, store: Path) -> None:
    """Keeps what a benchmark has found out, in place of what was known: models may have been made anew since.

    Args:
        measured: what `benchmark.json` holds; its models were judged as `judging` says.
        judging: how the comparison is going to judge them.
        store: as for `model_facts`.
    """
    if measured.get("complete"):
        names = {"parameters": "parameters", "nonzero_parameters": "nonzero_parameters", "test_metric": "metric",
                 "test_value": "value"}  # fmt: skip
        models = {str(Path(row["path"]).resolve()): {ours: row[theirs] for ours, theirs in names.items()}
                  for row in measured["models"]}  # fmt: skip
        write_json_atomic(store, {**_unknown(judging), "judged_on": measured["data"], "models": models})


def _unknown(judging: Judging) -> dict:
    how = {name: value for name, value in asdict(judging).items() if name != "resume"}
    return {"judging": how, "judged_on": None, "models": {}}


def _of_documents(explained: Explained, base: Explained) -> dict:
    same = [predicted == base.predicted[number] for number, predicted in explained.predicted.items()]
    return {"document_accuracy": explained.accuracy, "same_prediction": sum(same) / len(same)}


def _of_model(path: Path, loaded: LoadedModel, judged: JudgedOn | None) -> dict:
    parameters, nonzero = stored_parameters(path, loaded)
    found: dict[str, Any] = {"parameters": parameters, "nonzero_parameters": nonzero}
    if judged is not None:
        values = judge(loaded, judged)
        found |= {"test_metric": values["metric"], "test_value": values["value"]}
    return found


def _add_differences(facts: dict, base: Mapping):
    if facts["document_accuracy"] is not None:
        facts["document_accuracy_drop"] = base["document_accuracy"] - facts["document_accuracy"]
    if "nonzero_parameters" in facts and "nonzero_parameters" in base:
        facts["removed_percent"] = 100 * (1 - facts["nonzero_parameters"] / base["nonzero_parameters"])
    if "test_value" in facts:
        facts["test_drop"] = base["test_value"] - facts["test_value"]
