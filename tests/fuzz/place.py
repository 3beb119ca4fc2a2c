"""A folder with one of everything that commands read, small, and the command lines that read each of it."""

import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from gated_bert.config import GatedBertConfig
from gated_bert.explain.student import Student
from gated_bert.explain.student_training import TrainedStudent, save_student
from gated_bert.models.architecture import BertConfig
from gated_bert.models.bert import BertClassifier
from gated_bert.models.folder import save_model
from gated_bert.tasks.task import TASKS
from gated_bert.tasks.wordpiece import Tokenizer
from tests.experiments.explained_folders import write_folder
from tests.experiments.synthetic_runs import write_run

FAMILIES = Path(__file__).resolve().parents[1] / "fixtures" / "families"
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "##s"]
ROWS = [("good film", "positive"), ("bad films", "negative"), ("good good", "positive"), ("bad bad", "negative")]
RUN = ("--num-layers", "1", "--d-model", "8", "--num-heads", "2", "--dff", "8", "-m", "tiny", "-e", "1", "-b", "2",
       "-p", "baseline")  # fmt: skip
TRAIN = ("train", *RUN, "--vocab", "broken.txt", "-o", "out", "-d")
"""The vocabulary is refused once the data is read: nothing trains, whatever a mutation leaves whole."""
MODEL = (("inspect", "m"), ("predict", "m", "a.tsv", "-o", "out/p.csv"), ("iou", "m", "n", "-o", "out"),
         ("shrink", "m", "out/s"))  # fmt: skip
EXPORTED = (("inspect", "a.onnx"), ("predict", "a.onnx", "a.tsv", "-o", "out/p.csv"))
RUNS = (("compare", "runs", "-o", "out"),)
EXPLAINED = (("sp-lime", "e", "-o", "out"),)
FOREIGN = (("shrink", "hf", "out/s"), ("export", "hf", "out/e", "--format", "hf"))
OTHERS = (("shrink", "st", "out/s"),)
QUESTIONS = ((*TRAIN, "squad", "-t", "squad"),)
READERS = {
    "m/config.json": MODEL, "m/metadata.json": MODEL, "m/tokenizer.json": MODEL, "m/model.keras": MODEL,
    "a.json": EXPORTED, "a.tokenizer.json": EXPORTED, "a.onnx": EXPORTED,
    "hf/config.json": FOREIGN, "hf/model.safetensors": FOREIGN, "hf/tokenizer_config.json": FOREIGN,
    "hf/vocab.txt": FOREIGN,
    **{f"st/{name}": OTHERS for name in ("modules.json", "0_Transformer/model.safetensors.index.json",
                                         "0_Transformer/tokenizer.json", "0_Transformer/config.json")},
    "runs/results_spt_sst2/metadata_spt_20250102_030405.json": RUNS, "runs/results_spt_sst2/status.json": RUNS,
    "runs/results_spt_sst2/results_spt_20250102_030405.csv": RUNS,
    "e/record.json": EXPLAINED, "e/documents.jsonl": EXPLAINED,
    **{f"a.{suffix}": ((*TRAIN, f"a.{suffix}"), ("predict", "m", f"a.{suffix}", "-o", "out/p.csv"))
       for suffix in ("tsv", "csv", "jsonl")},
    **{name: ((*TRAIN, name),) for name in ("a.conll", "tags.jsonl", "labels.jsonl")},
    "a.txt": (("predict", "m", "a.txt", "-o", "out/p.csv"),),
    "squad/train.json": QUESTIONS, "squad/dev.json": QUESTIONS,
    "job.json": (("train", "--config-file", "job.json", "--run-dir", "out/run"),),
    "tracked/tracking.json": ((*TRAIN, "a.tsv", "--run-dir", "tracked", "--resume", "--track", "tensorboard"),),
    "sweep.yaml": (("sweep", "--sweep-file", "sweep.yaml", *RUN[:8], "-d", "embedded", "-o", "out", "--dry-run"),),
    "change.json": (("activation-change", "--config", "change.json", "-d", "nowhere", "-o", "out"),),
}  # fmt: skip
"""File → the command lines that read it; all of them write into `out` alone."""


def build(place: Path):
    """Makes the folder."""
    tokenizer = Tokenizer.from_vocab(TOKENS)
    config = BertConfig.uniform(1, 8, 2, 8, vocab_size=len(TOKENS), max_position=16)
    for name in ("m", "n"):
        model = BertClassifier(config)
        gates = np.ones((8, 8), np.float32)
        gates[:, :2] = 0
        model.encoder.blocks[0].ffn.intermediate.gates.assign(gates)
        save_model(place / name, model, tokenizer, TASKS["sst2"], {"config": {"max_len": 12}})
    from gated_bert.compression.onnx_export import export_onnx
    from gated_bert.models.folder import load_model

    export_onnx(place / "a.onnx", load_model(place / "m"), "fused")
    _foreign(place / "hf", model)
    _sentences(place / "st")
    student = Student(len(TOKENS), 2, 4, 4)
    save_student(place / "student", TrainedStudent(student, tokenizer, TASKS["sst2"], {"seed": 0}))
    run = write_run(place / "runs", epochs=3, several=False)
    (run / "status.json").write_text(json.dumps({"state": "finished", "job": "spt", "epoch": 3, "epochs": 3}))
    write_run(place / "runs", method="magnitude", epochs=3, several=False)
    write_folder(place / "e")
    _data(place)
    job = GatedBertConfig(model_size="tiny", num_layers=1, d_model=8, num_heads=2, dff=8, pruning_method="baseline",
                          data=str(place / "bad.tsv"))  # fmt: skip
    (place / "job.json").write_text(job.to_json())
    (place / "tracked").mkdir()
    known = {"group": "a", "parents": {"mlflow": "b"}, "sent": {"x": 1}}
    (place / "tracked/tracking.json").write_text(json.dumps(known))
    (place / "sweep.yaml").write_text("methods: [baseline, magnitude]\nseeds: [1, 2]\nbatch_size: [2, 4]\n")
    (place / "change.json").write_text(json.dumps({"task_name": "sst2", "num_epochs": 1, "seeds": [1]}))


def _foreign(folder: Path, model: BertClassifier):
    from gated_bert.compression.export import export_hugging_face
    from gated_bert.models.folder import LoadedModel

    export_hugging_face(folder, LoadedModel(model, Tokenizer.from_vocab(TOKENS), TASKS["sst2"], model.bert_config, {}))
    (folder / "tokenizer.json").unlink(missing_ok=True)
    (folder / "vocab.txt").write_text("\n".join(TOKENS) + "\n")
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true}')


def _sentences(folder: Path):
    """A small RoBERTa in a folder of sentence-transformers, its weights in two files."""
    inner = Path(shutil.copytree(FAMILIES / "roberta", folder / "0_Transformer"))
    tensors = load_file(inner / "model.safetensors")
    (inner / "model.safetensors").unlink()
    parts = {name: f"part{index % 2}.safetensors" for index, name in enumerate(tensors)}
    for part in set(parts.values()):
        save_file({name: tensors[name] for name in parts if parts[name] == part}, inner / part)
    (inner / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))
    (folder / "modules.json").write_text(json.dumps([{"path": "0_Transformer", "type": "a.Transformer"}]))


def _data(place: Path):
    lines = [("text", "label"), *ROWS]
    (place / "a.tsv").write_text("".join("\t".join(line) + "\n" for line in lines))
    (place / "a.csv").write_text("".join(",".join(line) + "\n" for line in lines))
    (place / "a.jsonl").write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in ROWS))
    words = [" B-X\n".join(text.split()) + " O\n\n" for text, _ in ROWS]
    (place / "a.conll").write_text("-DOCSTART- O\n\n" + "".join(words))
    tags = [{"tokens": text.split(), "tags": ["B-X", "O"]} for text, _ in ROWS]
    (place / "tags.jsonl").write_text("".join(json.dumps(row) + "\n" for row in tags))
    labels = [{"text": text, "labels": text.split()} for text, _ in ROWS]
    (place / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labels))
    (place / "a.txt").write_text("".join(text + "\n" for text, _ in ROWS))
    (place / "bad.tsv").write_text("text\tlabel\na\t1\nb\t1\n")
    (place / "broken.txt").write_text("[PAD]\n")
    (place / "squad").mkdir()
    for name in ("train", "dev"):
        question = {"id": name, "question": "good?", "answers": [{"text": "film", "answer_start": 5}]}
        article = {"title": "t", "paragraphs": [{"context": "good film", "qas": [question]}]}
        (place / "squad" / f"{name}.json").write_text(json.dumps({"version": "1.1", "data": [article]}))
