"""Folders for optimum and transformers.js: what the tokeniser's class is, what is refused, and the command."""

import json

import pytest
from in_transformers import needs_transformers, run
from test_export import PIECES, READ, TEXTS, all_kinds, rows

from gated_bert.cli.main import main
from gated_bert.compression.optimum_export import export_optimum
from gated_bert.models.folder import LoadedModel, save_model
from gated_bert.support.errors import UserError
from gated_bert.tasks.task import TASKS
from gated_bert.tasks.wordpiece import Tokenizer

BERTS = {"default", "cased", "accents kept", "cased, accents removed", "Chinese as it is", "odd names", "no mask"}


@pytest.mark.nightly
@needs_transformers
def test_transformers_cuts_texts_as_here_whichever_class_is_named(make_model, tmp_path):
    written = {name: (tokenizer, tmp_path / name) for name, tokenizer in all_kinds().items()}
    model = make_model(num_layers=1, vocab_size=len(PIECES) + 20)
    for name, (tokenizer, folder) in written.items():
        export_optimum(folder, LoadedModel(model, tokenizer, TASKS["rte"], model.bert_config, {}))
        named = json.loads((folder / "tokenizer_config.json").read_text())["tokenizer_class"]
        assert (named == "BertTokenizer") == (name in BERTS), name
    (tmp_path / "texts.json").write_text(json.dumps(TEXTS))
    folders = [folder for _, folder in written.values()]
    lines = run(READ, tmp_path / "texts.json", *folders).splitlines()
    for (name, (tokenizer, _)), line in zip(written.items(), lines, strict=True):
        encoded = tokenizer.encode(TEXTS, TEXTS[::-1], 2000)
        ids, types = rows(encoded, encoded.input_ids), rows(encoded, encoded.inputs["token_type_ids"])
        assert json.loads(line)[:2] == [ids, types], name


def test_the_command_writes_a_folder_and_refuses_spans(make_model, tmp_path, capsys):
    model = make_model(num_layers=1, vocab_size=len(PIECES) + 20)
    save_model(tmp_path / "model", model, Tokenizer.from_vocab(PIECES), TASKS["sst2"], {"row": {"val_accuracy": 0.5}})
    assert main(["export", str(tmp_path / "model"), str(tmp_path / "out"), "--format", "optimum"]) == 0
    found = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert found == {"README.md", "config.json", "onnx/model.onnx", "onnx/model_quantized.onnx", "tokenizer.json",
                     "tokenizer_config.json", "vocab.txt"}  # fmt: skip
    assert json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())["tokenizer_class"] == "BertTokenizer"
    assert "| accuracy | 0.5000 |" in (tmp_path / "out" / "README.md").read_text()
    spans = make_model(num_layers=1, span_head=True)
    with pytest.raises(UserError, match="--format: 'optimum' is refused for answers as spans") as caught:
        export_optimum(tmp_path / "spans", LoadedModel(spans, None, TASKS["squad"], spans.bert_config, {}))
    assert "\n" not in str(caught.value) and not (tmp_path / "spans").exists()
