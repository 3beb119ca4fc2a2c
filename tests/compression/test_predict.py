"""Predictions of a file in parts: the model's own, in the file's order; metrics as of the whole."""

import numpy as np
import pytest
from scipy import special

from gated_bert.compression.predict import (
    CHUNK_ROWS,
    Predicted,
    evaluation_config,
    predict_tables,
)
from gated_bert.compression.predicted_rows import predicted_rows
from gated_bert.config import ConfigError
from gated_bert.models.folder import LoadedModel
from gated_bert.support.errors import UserError
from gated_bert.tasks.columns import find_columns
from gated_bert.tasks.examples import Examples, SpanExamples
from gated_bert.tasks.metrics import evaluate
from gated_bert.tasks.tables import read_chunks
from gated_bert.tasks.task import TASKS
from gated_bert.tasks.wordpiece import CACHED_FROM, Tokenizer

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "##s"]
TEXTS = ["good film", "bad", "good good bad bad films good", "film", "bad films good", "a", "good bad"]


def loaded(make_model, task="sst2", metadata=None, **options):
    model = make_model(num_outputs=TASKS[task].num_outputs, **options)
    return LoadedModel(model, Tokenizer.from_vocab(TOKENS), TASKS[task], model.bert_config, metadata or {})


def predicted(found, path, rows):
    columns, config = find_columns(path, found.task, {}, {}), evaluation_config(found, batch_size=2)
    return list(predict_tables(found, read_chunks(path, rows, columns.header), columns, config))


def test_predictions_in_parts_and_buckets_are_those_of_every_text_alone(make_model, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\n".join(TEXTS))
    found = loaded(make_model)
    parts = predicted(found, path, 3)
    assert [len(part.examples) for part in parts] == [3, 3, 1]
    alone = []
    for text in TEXTS:
        ids = [[2, *found.tokenizer.backend.encode(text, add_special_tokens=False).ids, 3]]
        alone.append(found.model.predict_on_batch({"input_ids": np.array(ids, np.int32)})[0])
    assert np.abs(np.concatenate([part.outputs for part in parts]) - alone).max() < 1e-5
    written = predicted_rows(found.task)
    rows = list(written.rows(parts[1], 4))
    assert written.header(False) == ["row", "prediction", "probability_negative", "probability_positive"]
    assert [row[0] for row in rows] == [4, 5, 6]
    for row, logits in zip(rows, alone[3:6], strict=True):
        assert row[1] == found.task.labels[np.argmax(logits)]
        assert np.abs(np.array(row[2:], float) - special.softmax(logits)).max() < 1e-5


def test_answers_are_cut_out_of_their_contexts(make_model, tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("question\tcontext\tanswer\ngood\tbad film\tbad\nfilm\tgood good bad\tbad\n")
    found = loaded(make_model, "squad", {"config": {"doc_stride": 4, "max_len": 12}}, span_head=True)
    [part] = predicted(found, path, None)
    for answer, context in zip(part.answers, ("bad film", "good good bad"), strict=True):
        assert answer and answer in context
    written = predicted_rows(found.task)
    assert written.header(True) == ["row", "answer", "label"]
    assert [row[2] for row in written.rows(part, 1)] == ["bad", "bad"]


def test_outputs_that_are_no_numbers_are_refused_with_their_line(make_model, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("bad\ngood\n")
    found = loaded(make_model)
    embedding = found.model.encoder.embeddings.token.embeddings
    values = np.array(embedding)
    values[TOKENS.index("good")] = np.nan
    embedding.assign(values)
    with pytest.raises(UserError, match=r"a.txt, line 2: the model's outputs \[nan, nan\] are not finite numbers"):
        predicted(found, path, None)


@pytest.mark.parametrize("task", ["cola", "mrpc", "ag_news", "stsb"])
def test_scores_of_parts_are_those_of_the_whole(task):
    task, rng = TASKS[task], np.random.default_rng(0)
    outputs = rng.normal(size=(50, task.num_outputs)).astype(np.float32)
    labels = rng.random(50).astype(np.float32) if not task.labels else rng.integers(0, len(task.labels), 50)
    scores = predicted_rows(task)
    for start in range(0, 50, 20):
        part = slice(start, start + 20)
        scores.add(Predicted(Examples([""] * len(labels[part]), None, labels[part]), outputs[part], [], 0.0, 0.0))
    found, whole = scores.result(), evaluate(task, outputs, labels)
    assert found["instances"] == 50 and {name: found[name] for name in whole} == pytest.approx(whole)
    if task.labels:
        assert found["correct"] == (outputs.argmax(axis=1) == labels).sum() == round(50 * found["accuracy"])


def test_scores_of_answers():
    scores = predicted_rows(TASKS["squad"])
    for name, answer in (("a", "the film"), ("b", "a bad film")):
        examples = SpanExamples([""], [""], np.zeros((1, 2), np.int32), [name], [("film", "bad")])
        scores.add(Predicted(examples, np.empty((1, 0)), [answer], 0.0, 0.0))
    # "the" and "a" do not count: the first is exact, the second shares one of two words with either answer.
    assert scores.result() == pytest.approx({"instances": 2, "correct": 1, "exact_match": 0.5, "f1": (1 + 2 / 3) / 2})


def test_inputs_are_made_as_in_training(make_model):
    assert evaluation_config(loaded(make_model), 4).max_len == 16
    recorded = loaded(make_model, metadata={"config": {"max_len": 9, "epochs": 3}})
    assert (evaluation_config(recorded, 4).max_len, evaluation_config(recorded, 4).batch_size) == (9, 4)
    assert evaluation_config(recorded, 4, 12).max_len == 12
    with pytest.raises(UserError, match="-ml/--max-len: 17 is refused; allowed: 8 to 16, the model's longest input"):
        evaluation_config(recorded, 4, 17)
    with pytest.raises(ConfigError, match="max_len: 4 is refused"):
        evaluation_config(recorded, 4, 4)


@pytest.mark.parametrize("values", [{"max_len": -5}, {"max_len": 3}, {"doc_stride": -1}, {"n_best_size": 0},
                                    {"max_answer_length": 10**12}])  # fmt: skip
def test_what_a_model_records_out_of_bounds_is_laid_to_its_record_and_to_no_flag(make_model, values):
    found = loaded(make_model, metadata={"config": values})
    with pytest.raises(UserError, match=rf"^config in the model's record: {next(iter(values))}: .* is refused"):
        evaluation_config(found, 4)


def test_a_stream_leaves_no_tokens_in_the_cache():
    assert CHUNK_ROWS < CACHED_FROM
