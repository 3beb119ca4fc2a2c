"""Weights in several files, in PyTorch's format, and in folders of other tools."""

import json
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from in_transformers import needs_transformers, run
from safetensors.numpy import load_file, save_file

from gated_bert.compression.source import load_source
from gated_bert.models import torch_file
from gated_bert.models.checkpoints import open_checkpoint, read_head
from gated_bert.models.family import get_family
from gated_bert.models.pretrained import load_pretrained, read_pretrained_architecture
from gated_bert.models.torch_file import convert
from gated_bert.support.errors import UserError
from gated_bert.tasks.module_folder import encoder_folder
from gated_bert.tasks.task import TASKS
from gated_bert.tasks.tokenizer import tokenizer_from_folder

FOLDERS = Path(__file__).resolve().parent.parent / "fixtures" / "families"
TO_TORCH = """
import sys, torch
from safetensors.torch import load_file
tensors = load_file(sys.argv[1])
names = sorted(tensors)
tensors[names[0]] = tensors[names[0]].to(torch.bfloat16).to(torch.float32).to(torch.bfloat16)
tensors["tied"] = tensors[names[1]]
for path, kept in zip(sys.argv[2:], (names + ["tied"],) if len(sys.argv) < 4 else (names[::2], names[1::2])):
    torch.save({name: tensors[name] for name in kept}, path)
"""


def load(folder, **changes):
    config = read_pretrained_architecture(str(folder)).replace(**changes)
    model = get_family(config.model_type).model()(config)
    load_pretrained(model, str(folder))
    return model


def weights(model):
    return [np.asarray(each) for each in model.weights]


def same(one, other, atol=0.0):
    return all(np.allclose(a, b, rtol=0, atol=atol) for a, b in zip(weights(one), weights(other), strict=True))


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(FOLDERS / "roberta", tmp_path / "roberta"))


@pytest.fixture(scope="module")
def whole():
    return load(FOLDERS / "roberta", num_outputs=3)


def split(folder, names=("a.safetensors", "b.safetensors")):
    """Puts the tensors of a folder into two files, and an index beside them."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    places = {name: names[index % 2] for index, name in enumerate(tensors)}
    for file in names:
        save_file({name: tensors[name] for name, place in places.items() if place == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def test_weights_in_several_files_are_those_of_one(folder, whole):
    split(folder)
    assert same(load(folder, num_outputs=3), whole)
    assert read_head(str(folder)) == read_head(str(FOLDERS / "roberta"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "a.safetensors").unlink(), "no a.safetensors in it, which model"),
        (lambda folder: (folder / "a.safetensors").write_bytes(b"x" * 50_000), "a.safetensors: not a whole safet"),
        (lambda folder: index(folder, {}), "names no file; allowed: files beside it"),
        (lambda folder: index(folder, {"a": "../a.safetensors"}), r"names '\.\./a.safetensors'; allowed: files beside"),
        (lambda folder: index(folder, ["a"]), "weight_map"),
    ],
)
def test_what_is_no_whole_set_of_files_is_refused_in_one_line(folder, damage, message):
    split(folder)
    damage(folder)
    with pytest.raises(UserError, match=message) as caught:
        load(folder, num_outputs=3)
    assert "\n" not in str(caught.value)


def index(folder, places):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


@needs_transformers
def test_weights_of_pytorch_are_read_by_pytorch(folder, whole):
    run(TO_TORCH, folder / "model.safetensors", folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert same(load(folder, num_outputs=3), whole, atol=1e-2)
    assert load_source(folder).task.labels == ("LABEL_0", "LABEL_1", "LABEL_2")


@needs_transformers
@pytest.mark.nightly
def test_weights_of_pytorch_in_several_files_are_read(folder, whole):
    names = ("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin")
    run(TO_TORCH, folder / "model.safetensors", *(folder / name for name in names))
    places = {name: names[index % 2] for index, name in enumerate(sorted(load_file(folder / "model.safetensors")))}
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    assert same(load(folder, num_outputs=3), whole, atol=1e-2)


class Harmful:
    """What makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@needs_transformers
@pytest.mark.daily_every(3)
@pytest.mark.parametrize("content", ["harmful", "pickle", "cut"])
def test_what_is_no_file_of_tensors_is_refused_and_never_run(folder, content, tmp_path):
    (folder / "model.safetensors").unlink()
    harmful = pickle.dumps({"a": Harmful(tmp_path / "run")})
    bytes_of = {"pickle": pickle.dumps([1, 2]), "harmful": harmful, "cut": b"PK\x03\x04" * 9}
    (folder / "pytorch_model.bin").write_bytes(bytes_of[content] + b"\0" * 40_000)
    with pytest.raises(UserError, match="pytorch_model.bin: .*; give the same weights as model.safetensors") as caught:
        load(folder, num_outputs=3)
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_without_pytorch_its_format_is_refused_in_one_sentence(folder, monkeypatch):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    monkeypatch.setattr(torch_file.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pytorch_model.bin: reading it needs PyTorch \(pip install torch\); or give"):
        load(folder, num_outputs=3)


@pytest.mark.parametrize("inner", ["", "0_Transformer"])
def test_folders_of_sentence_transformers_are_read(tmp_path, inner, whole):
    outer = tmp_path / "sentences"
    shutil.copytree(FOLDERS / "roberta", outer / inner, dirs_exist_ok=True)
    kinds = {inner: "Transformer", "1_Pooling": "Pooling"}
    modules = [{"path": path, "type": f"sentence_transformers.models.{name}"} for path, name in kinds.items()]
    (outer / "modules.json").write_text(json.dumps(modules))
    assert same(load(outer, num_outputs=3), whole)
    kind = get_family("roberta").tokenizer
    assert tokenizer_from_folder(outer, kind=kind).fingerprint == tokenizer_from_folder(
        FOLDERS / "roberta", kind=kind).fingerprint  # fmt: skip
    assert load_source(outer).config.model_type == "roberta"
    for path, message in (("../roberta", "is no folder in"), ("2_Dense", "is no folder in")):
        modules[0]["path"] = path
        (outer / "modules.json").write_text(json.dumps(modules))
        with pytest.raises(UserError, match=message):
            open_checkpoint(str(outer))
    (outer / "modules.json").write_text(json.dumps(modules[1:]))
    with pytest.raises(UserError, match="its modules are Pooling; allowed: one of the type Transformer"):
        open_checkpoint(str(outer))


def test_a_prompt_that_is_put_before_no_text_is_said(tmp_path, capsys):
    shutil.copytree(FOLDERS / "bert", tmp_path, dirs_exist_ok=True)
    (tmp_path / "modules.json").write_text(json.dumps([{"path": "", "type": "a.Transformer"}]))
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps({"default_prompt_name": "query"}))
    open_checkpoint(str(tmp_path))
    assert "its prompt 'query' is put before no text" in capsys.readouterr().err


def test_an_adapter_is_refused_with_what_to_do(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"PEFT adapter .* merge_and_unload\(\), .* save_pretrained\(F") as caught:
        open_checkpoint(str(tmp_path))
    assert "\n" not in str(caught.value)


OTHER_HEADS = {
    "bert": (("BertForTokenClassification", {"classifier.weight": (5, 18)}),
             ("BertForMaskedLM", {"cls.predictions.bias": (320,)})),
    "roberta": (("RobertaForTokenClassification", {"classifier.weight": (5, 18)}),
                ("RobertaForMultipleChoice", {"classifier.weight": (1, 18)}),
                ("RobertaForMaskedLM", {"lm_head.dense.weight": (18, 18)})),
    "distilbert": (("DistilBertForTokenClassification", {"classifier.weight": (5, 18)}),
                   ("DistilBertForMultipleChoice", {"classifier.weight": (1, 18), "pre_classifier.weight": (18, 18)}),
                   ("DistilBertForMaskedLM", {"vocab_transform.weight": (18, 18)})),
    "electra": (("ElectraForTokenClassification", {"classifier.weight": (5, 18)}),
                ("ElectraForMultipleChoice",
                 {"classifier.weight": (1, 18), "sequence_summary.summary.weight": (18, 18)}),
                ("ElectraForPreTraining", {"discriminator_predictions.dense.weight": (18, 18)}),
                ("ElectraForMaskedLM", {"generator_predictions.dense.weight": (18, 18)})),
}  # fmt: skip
MEANT = {"ForTokenClassification": "tags of words (LABEL_0, LABEL_1, LABEL_2, LABEL_3, LABEL_4)",
         "ForMultipleChoice": "multiple choice",
         "ForMaskedLM": "masked language modelling", "ForPreTraining": "pretraining"}  # fmt: skip


ALL_HEADS = [(family, *each) for family, heads in OTHER_HEADS.items() for each in heads]


@pytest.mark.parametrize(("family", "name", "head"), ALL_HEADS, ids=[name for _, name, _ in ALL_HEADS])
@pytest.mark.parametrize("named", [True, False])
def test_other_heads_give_their_encoder_with_a_new_head(tmp_path, family, name, head, named):
    folder = Path(shutil.copytree(FOLDERS / family, tmp_path / "other"))
    fields = json.loads((folder / "config.json").read_text())
    fields["architectures"] = [name] if named else None
    for each in ("id2label", "label2id"):
        fields.pop(each)
    (folder / "config.json").write_text(json.dumps(fields))
    prefix = get_family(family).prefix
    tensors = {key: each for key, each in load_file(folder / "model.safetensors").items() if key.startswith(prefix)}
    # The pooler of BERT is part of the encoder, which these are saved without.
    tensors = {key: each for key, each in tensors.items() if "pooler" not in key}
    save_file(tensors | {key: np.ones(shape, np.float32) for key, shape in head.items()}, folder / "model.safetensors")
    found = read_head(str(folder)).description
    ending = next(each for each in MEANT if name.endswith(each))
    # A head for a choice is known by its name alone where its tensors are those of another one.
    if named or (family, ending) != ("roberta", "ForMultipleChoice"):
        assert found == MEANT[ending]
    with pytest.warns(UserWarning) as said:
        config = read_pretrained_architecture(str(folder))
        model = get_family(family).model()(config)
        load_pretrained(model, str(folder), TASKS["sst2"])
    first, *others = (str(each.message) for each in said if each.category is UserWarning)
    assert re.search("its head is for .*; the model's head starts from random values", first)
    # A head for a choice of DistilBERT has the layer that one for classes has.
    assert len(others) == ("pre_classifier.weight" not in head)
    assert all(f"no {get_family(family).pooled} in it" in each for each in others)
    if ending == "ForTokenClassification":
        assert load_source(folder).task.labels == tuple(f"LABEL_{number}" for number in range(5))
        return
    with pytest.raises(UserError, match="its head is for .*; .* trains a new one"):
        load_source(folder)


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000, "..", "/etc"])
def test_a_module_that_is_nowhere_is_refused_in_one_line(tmp_path, path):
    (tmp_path / "modules.json").write_text(json.dumps([{"path": path, "type": "a.Transformer"}]))
    with pytest.raises(UserError) as refused:
        encoder_folder(tmp_path)
    assert "modules.json" in str(refused.value) and "\n" not in str(refused.value) and len(str(refused.value)) < 400


def test_a_version_of_pytorch_that_can_be_got_round_reads_nothing(tmp_path, monkeypatch, capsys):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
    monkeypatch.setattr(torch, "load", None)
    assert convert(str(tmp_path / "pytorch_model.bin"), str(tmp_path / "out")) == 1
    assert "PyTorch 2.5.1+cpu; allowed: from 2.6 on" in capsys.readouterr().err
