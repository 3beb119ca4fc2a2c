"""Exported models: an ONNX file, what stands beside it, and predictions from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gated_bert.compression.onnx_file import check_tensors, data_file
from gated_bert.compression.preconditions import session_source
from gated_bert.models.architecture import Architecture
from gated_bert.models.backbone import refuse_empty_batch
from gated_bert.models.family import get_family, read_architecture_of
from gated_bert.models.folder import LoadedModel, load_model
from gated_bert.support.errors import UserError, one_line
from gated_bert.support.paths import user_path
from gated_bert.support.records import read_record
from gated_bert.support.schemas import OnnxRecord
from gated_bert.tasks.download import checksum
from gated_bert.tasks.task import Task
from gated_bert.tasks.tokenizer_protocol import TokenizerProtocol

if TYPE_CHECKING:
    import onnxruntime

SUFFIX = ".onnx"
TASK_PROPERTY = "gated_bert_task"
"""Key of the task's name in an ONNX file's own metadata, by which a record of another file is seen."""
_DATA_SUM = "data_sha256"


class OnnxModel:
    """An exported model in ONNX Runtime; predicts as a Keras model does.

    Attributes:
        path: the ONNX file.
        architecture: that of the model it was exported from.
        record: what stands beside the file in JSON: `architecture`, `task`, `graph` (standard or fused), `precision`
            (fp32, fp16, int8 or int8-static) and `metadata`.
        session: the `onnxruntime.InferenceSession`.

    Args:
        path: the ONNX file.
        record: see above.
        threads: threads of one product; by default as many as ONNX Runtime finds cores.

    Raises:
        UserError: a file that ONNX Runtime cannot load.
    """

    def __init__(self, path: Path, record: dict, threads: int | None = None):
        self.path, self.record = path, record
        self.architecture: Architecture = read_architecture_of(record["architecture"], str(beside(path)[0]))
        self.session = _open_session(path, threads)
        self._inputs = [each.name for each in self.session.get_inputs()]

    def predict_on_batch(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Logits, float32, of a batch: name → input of the model, int [batch, length].

        Raises:
            UserError: no sequence in it, or a graph that computes no logits of it.
        """
        refuse_empty_batch(inputs["input_ids"])
        arrays = {name: inputs[name].astype(np.int64, copy=False) for name in self._inputs}
        try:
            found = self.session.run(None, arrays)[0]
        except session_errors() as error:
            raise UserError(f"{self.path}: ONNX Runtime cannot run it ({one_line(error)}); export it again") from error
        rows, length = inputs["input_ids"].shape
        shape = tuple(self.architecture.output_shape(rows, length))
        if getattr(found, "shape", None) != shape or found.dtype.kind != "f":
            what = f"{found.dtype} {list(found.shape)}" if isinstance(found, np.ndarray) else type(found).__name__
            raise UserError(f"{self.path}: its output is {what}; allowed: floating-point numbers {list(shape)}; export "
                            "it again")  # fmt: skip
        return found

    def predict(self, dataset: Any, verbose: int = 0) -> np.ndarray:
        """Logits, float32, of the batches of a data set in their order; of tokens, batches must be of one length.

        `verbose` is there as in Keras' method; nothing is shown.

        Raises:
            UserError: no batch in it.
        """
        refuse_empty_batch(dataset)
        batches = (dataset[index] for index in range(len(dataset)))
        return np.concatenate([self.predict_on_batch(each[0] if isinstance(each, tuple) else each) for each in batches])


def beside(path: Path) -> tuple[Path, Path]:
    """The files that belong to an ONNX file: its record and its tokeniser."""
    return path.with_suffix(".json"), path.with_suffix(".tokenizer.json")


def is_onnx(path: str | Path) -> bool:
    """Whether a path names an ONNX file, rather than a folder."""
    return Path(path).suffix == SUFFIX


def open_model(path: str | Path, threads: int | None = None) -> LoadedModel:
    """The model in a model folder or an ONNX file, with its tokeniser and task.

    Args:
        path: a folder that `save_model` wrote, or a file that `export_onnx` or `quantize` wrote.
        threads: as for `OnnxModel`; Keras takes what its backend was started with.

    Returns:
        The record of `load_model`, whose `model` is an `OnnxModel` for an ONNX file.

    Raises:
        UserError: neither of these, or a missing, truncated or malformed file, or files that do not belong together.
    """
    path = user_path(path)
    if not is_onnx(path):
        return load_model(path)
    record_path, tokenizer_path = beside(path)
    for each in (path, record_path, tokenizer_path):
        if not each.is_file():
            raise UserError(f"{each}: no such file; an exported model is NAME.onnx with NAME.json and "
                            "NAME.tokenizer.json beside it (`gated-bert export` writes all three)")  # fmt: skip
    record = read_record(record_path, OnnxRecord, remedy="export it again", nan=True)
    task = Task.from_dict(record["task"], str(record_path))
    check_bytes(path, record)
    check_tensors(path)
    model = OnnxModel(path, record, threads)
    _check_together(model, task)
    tokenizer = get_family(model.architecture.model_type).tokenizer.from_file(tokenizer_path)
    tokenizer.check_rows(model.architecture.vocab_size)
    # It predicts as a Keras model does; who asks for more looks first which of them it is.
    return LoadedModel(model, tokenizer, task, model.architecture, record["metadata"])  # type: ignore[arg-type]


def write_record(path: Path, record: dict, tokenizer: TokenizerProtocol) -> None:
    """Writes what stands beside an ONNX file, with the checksum of its bytes, and that of its arrays' where they have a
    file."""
    record_path, tokenizer_path = beside(path)
    record = {**record, "sha256": checksum(path)}
    record.pop(_DATA_SUM, None)
    if data_file(path).is_file():
        record[_DATA_SUM] = checksum(data_file(path))
    # A name of a file that is not UTF-8 becomes the escape that JSON has for it.
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    record_path.write_text(text, encoding="utf-8", errors="backslashreplace")
    tokenizer.save(tokenizer_path)


def session_options(threads: int | None = None) -> onnxruntime.SessionOptions:
    """Options of an `onnxruntime.InferenceSession`: nothing is logged that is raised too, and so many threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


def _open_session(path: Path, threads: int | None):
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(
            session_source(path), session_options(threads), providers=["CPUExecutionProvider"]
        )
    except session_errors() as error:
        raise UserError(f"{path}: ONNX Runtime cannot load it ({one_line(error)}); export it again") from error


def session_errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises where a graph cannot be loaded or computed."""
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    return (errors.InvalidProtobuf, errors.InvalidGraph, errors.Fail, errors.NotImplemented, errors.RuntimeException,
            errors.InvalidArgument, errors.NoSuchFile)  # fmt: skip


def check_bytes(path: Path, record: Mapping[str, Any]) -> bool:
    """Whether the record has the checksum of an ONNX file, as those that were exported by earlier versions have not.

    Raises:
        UserError: it has another's.
    """
    known = record.get("sha256")
    for file, wanted in ((path, known), (data_file(path), record.get(_DATA_SUM))):
        if wanted is not None and not file.is_file():
            raise UserError(f"{file}: no such file, and {path.name} keeps its arrays there; copy it too")
        if wanted is not None and wanted != checksum(file):
            raise UserError(f"{file}: its bytes are not those that were exported (the checksum in "
                            f"{beside(path)[0].name} is another's); copy the files of one export again")  # fmt: skip
    return known is not None


def _check_together(model: OnnxModel, task: Task):
    found = model.session.get_modelmeta().custom_metadata_map.get(TASK_PROPERTY)
    if found != task.name:
        trained = f"for task {found}" if found else "by another tool"
        raise UserError(f"{model.path}: exported {trained}, and {beside(model.path)[0].name} beside it is of task "
                        f"{task.name}; copy the files of one export")  # fmt: skip
    known = model.architecture.input_names
    if set(model._inputs) - set(known) or "input_ids" not in model._inputs:
        raise UserError(f"{model.path}: its inputs are {', '.join(model._inputs)}; allowed: {', '.join(known)}")
    logits = next((each.shape for each in model.session.get_outputs()), None)
    # A size that is only known once the graph runs has a name, or none.
    if not logits or (isinstance(logits[-1], int) and logits[-1] != task.num_outputs):
        raise UserError(f"{model.path}: its output is of shape {logits}, and the task in {beside(model.path)[0].name} "
                        f"has {task.num_outputs} for each text; copy the files of one export")  # fmt: skip
