"""Exported models in 8 or 16 bits, by ONNX Runtime's own tools."""

from __future__ import annotations

import contextlib
import logging
import platform
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from gated_bert.compression.benchmark import EVALUATION_BATCH, JudgedOn, judge, read_judged
from gated_bert.compression.inspect_onnx import read_onnx
from gated_bert.compression.onnx_export import replaced_export
from gated_bert.compression.onnx_file import check_saved, data_file, not_finite, save_onnx, weight_files
from gated_bert.compression.onnx_model import open_model, session_errors, write_record
from gated_bert.compression.preconditions import PRECISIONS, PRECISIONS_OF, has_utf8_name
from gated_bert.compression.predict import evaluation_config
from gated_bert.models.folder import LoadedModel
from gated_bert.models.keras_file import faults_text
from gated_bert.support.checks import choose
from gated_bert.support.errors import UserError, one_line
from gated_bert.support.partial import temporaries_in, temporary_folder
from gated_bert.tasks.evaluation import make_dataset
from gated_bert.tasks.pipeline import BucketedDataset

CALIBRATION_BATCHES = 8
CPU_FLAGS = Path("/proc/cpuinfo")
_EXACT_PRODUCTS = ("avx512_vnni", "avx_vnni", "amx_int8")
"""x86 instructions whose 8-bit products do not saturate."""


def quantize(
    source: str | Path,
    out: str | Path,
    precision: str = "int8",
    reduce_range: bool | None = None,
    calibration: BucketedDataset | None = None,
) -> LoadedModel:
    """Writes an exported model in fewer bits.

    `int8`: matrices in 8 bits, a scale per column; what they multiply is rounded when it is known, with a scale per
    batch (dynamic). `int8-static`: that scale is fixed beforehand, from calibration data. `fp16`: all weights in 16
    bits, widened to 32 when the file is loaded, so that it is smaller and no faster.

    Args:
        source: an ONNX file in 32 bits, with what stands beside it.
        out: the file to be written.
        precision: `int8`, `fp16` or `int8-static`.
        reduce_range: whether matrices take 7 bits, for processors whose 8-bit products saturate; None asks this one.
        calibration: batches that `int8-static` takes the ranges of, 8 at most.

    Returns:
        The model that was written, opened.

    Raises:
        ConfigError: another precision.
        UserError: a source that is no export in 32 bits, a graph that cannot be quantised so, or a file that cannot be
            written.
    """
    choose("precision", precision, PRECISIONS)
    source, out = Path(source), Path(out)
    loaded = open_model(source)
    record = loaded.model.record
    if record["precision"] != "fp32":
        raise UserError(f"{source}: has {record['precision']} already; quantise the fp32 export it was made from")
    if record["graph"] == "tiled" and precision not in PRECISIONS_OF["tiled"]:
        raise UserError(f"{source}: tile-wise products, which ONNX Runtime has in 16 and 32 bits only; quantise a "
                        "standard or fused export")  # fmt: skip
    faulty = not_finite(read_onnx(source))
    if faulty:
        raise UserError(f"{source}: {faults_text(faulty)}; nothing was written")
    reduce_range = needs_reduced_range() if reduce_range is None else reduce_range
    with replaced_export(out) as new:
        if precision == "fp16":
            _store_in_16_bits(source, new)
        else:
            with _plain_names(source, new) as (read, written):
                if precision == "int8-static":
                    try:
                        _quantize_statically(read, written, reduce_range, loaded, calibration)
                    except session_errors() as error:
                        raise UserError(f"{source}: ONNX Runtime cannot run it ({one_line(error)}); export it "
                                        "again") from error  # fmt: skip
                else:
                    quantize_dynamically(read, written, reduce_range)
        bits = {} if precision == "fp16" else {"reduce_range": reduce_range}
        write_record(new, record | {"precision": precision, "quantized_from": source.name} | bits, loaded.tokenizer)
    return open_model(out)


def quantize_file(
    source: Path,
    out: Path,
    precision: str,
    reduce_range: bool | None = None,
    data: str | None = None,
    allow_partial: bool = False,
) -> None:
    """Quantises an exported model and prints what became of its size and, with data, of its metrics.

    Args:
        source: as of `quantize`.
        out: as of `quantize`.
        precision: as of `quantize`.
        reduce_range: as of `quantize`.
        data: source of the task's data; its training part calibrates, its last development split measures.
        allow_partial: whether incomplete files are taken.

    Raises:
        UserError: as of `quantize`, or data that cannot be read.
    """
    before, calibration, judged = open_model(source), None, None
    if data is not None:
        judged = read_judged({source.name: before}, data, allow_partial=allow_partial)
        if precision == "int8-static":
            calibration = _calibration_data(before, judged)
    after = quantize(source, out, precision, reduce_range, calibration)
    sizes = [sum(file.stat().st_size for file in weight_files(path)) / 1e6 for path in (source, out)]
    print(f"written to {out}: {sizes[1]:.1f} MB, {sizes[1] / sizes[0]:.3f} of the {sizes[0]:.1f} MB of fp32")
    if judged is not None:
        name = judged.task.primary_metric
        old, new = (judge(model, judged)[name] for model in (before, after))
        print(f"{name} on {judged.label}, {len(judged.examples):,} examples: {old:.4f} → {new:.4f} ({new - old:+.4f})")


def needs_reduced_range() -> bool:
    """Whether 8-bit products of this processor may saturate: x86 without VNNI, or what cannot be told."""
    if platform.machine().lower() not in ("x86_64", "amd64", "x86", "i686"):
        return False
    return not CPU_FLAGS.is_file() or not any(flag in CPU_FLAGS.read_text() for flag in _EXACT_PRODUCTS)


def quantize_dynamically(source: Path, out: Path, reduce_range: bool) -> None:
    """Writes an ONNX file with 8-bit matrices, and a scale per batch for what they multiply."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # ONNX Runtime's operators have no shapes that ONNX could infer, hence the default type; products of two
    # activations, in attention, stay in 32 bits.
    options = {"DefaultTensorType": onnx.TensorProto.FLOAT, "MatMulConstBOnly": True}
    with _quiet(), _in_as_many_files(source, out) as apart:
        quantize_dynamic(source, out, per_channel=True, reduce_range=reduce_range, weight_type=QuantType.QInt8,
                         use_external_data_format=apart, extra_options=options)  # fmt: skip


def _quantize_statically(
    source: Path, out: Path, reduce_range: bool, loaded: LoadedModel, calibration: BucketedDataset | None
):
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    if loaded.model.record["graph"] != "standard":
        raise UserError(f"{source}: a fused graph; int8-static needs the standard one, exported without --fused")
    if calibration is None:
        raise UserError("int8-static: needs data to take the ranges of activations from; name some with -d")

    names = loaded.model.architecture.input_names

    class Reader(CalibrationDataReader):
        """Batches as the calibrator asks for them."""

        def __init__(self):
            self.batches = _calibration_inputs(calibration, names)

        def get_next(self):
            return next(self.batches, None)

    options = {"MatMulConstBOnly": True}
    with _quiet(), _in_as_many_files(source, out) as apart:
        quantize_static(source, out, Reader(), op_types_to_quantize=["MatMul", "Gather"], per_channel=True,
                        reduce_range=reduce_range, weight_type=QuantType.QInt8, use_external_data_format=apart,
                        extra_options=options)  # fmt: skip


def _calibration_data(loaded: LoadedModel, judged: JudgedOn) -> BucketedDataset:
    """Some training examples, drawn at random."""
    rows = np.random.default_rng(0).permutation(len(judged.train))[: CALIBRATION_BATCHES * EVALUATION_BATCH]
    config = evaluation_config(loaded, EVALUATION_BATCH)
    return make_dataset(judged.task, loaded.tokenizer, judged.train.take(np.sort(rows)), config)


def _calibration_inputs(dataset: BucketedDataset, names: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
    for index in range(min(CALIBRATION_BATCHES, len(dataset))):
        batch = dataset[index]
        inputs = batch[0] if isinstance(batch, tuple) else batch
        yield {name: inputs[name].astype(np.int64) for name in names}


def _store_in_16_bits(source: Path, out: Path):
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    proto = onnx.load(source)
    widened = []
    for tensor in proto.graph.initializer:
        values = numpy_helper.to_array(tensor)
        # Scalars stay: epsilons and masks do not exist in 16 bits.
        if values.dtype != np.float32 or not values.ndim:
            continue
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if np.isfinite(half).all():
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(half, f"{name}_fp16"))
            widened.append(helper.make_node("Cast", [tensor.name], [name], f"{name}_widened", to=TensorProto.FLOAT))
    nodes = [*widened, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    save_onnx(proto, out)
    check_saved(proto, out)


@contextlib.contextmanager
def _in_as_many_files(source: Path, out: Path) -> Iterator[bool]:
    """Whether ONNX Runtime's tools have to write arrays apart; what they wrote is put into one file where it fits."""
    import onnx

    apart = data_file(source).is_file()
    yield apart
    if apart:
        written = onnx.load(out)
        out.with_name(f"{out.name}.data").unlink(missing_ok=True)
        save_onnx(written, out)


@contextlib.contextmanager
def _plain_names(source: Path, out: Path) -> Iterator[tuple[Path, Path]]:
    """The files by names that ONNX Runtime's tools take: others than their own where these are not UTF-8; what these
    tools put beside goes with the block."""
    if has_utf8_name(source) and has_utf8_name(out):
        with temporaries_in(out.parent):
            yield source, out
        return
    with temporary_folder() as folder, temporaries_in(folder):
        read, written = folder / "source.onnx", folder / "quantised.onnx"
        read.symlink_to(source.resolve())
        yield read, written
        shutil.copyfile(written, out)


@contextlib.contextmanager
def _quiet():
    """Without the advice that ONNX Runtime's tools log."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
