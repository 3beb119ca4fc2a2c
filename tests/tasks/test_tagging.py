"""Words, their pieces and their tags: alignment as in transformers, entities as in seqeval, losses of first pieces."""

import json

import keras
import numpy as np
import pytest
import tokenizers
from in_transformers import needs_transformers, run
from scipy import special
from sklearn import metrics as sklearn_metrics
from tokenizers import pre_tokenizers

from gated_bert.config import GatedBertConfig
from gated_bert.models.distillation import hard_loss, soft_loss
from gated_bert.models.family import get_family
from gated_bert.tasks.arrangement import with_blank_before_words
from gated_bert.tasks.evaluation import evaluate_model, make_dataset, task_loss
from gated_bert.tasks.examples import TaggedExamples
from gated_bert.tasks.kinds import TOKENS
from gated_bert.tasks.metrics import streaming_metric
from gated_bert.tasks.tagging import IGNORED, encode_words, predicted_tags, tag_metrics, unread_words
from gated_bert.tasks.task import TASKS, Task, entity_tags, usual_metrics
from gated_bert.tasks.tokenizer import tokenizer_from_folder
from gated_bert.tasks.wordpiece import SPECIAL_TOKENS, Tokenizer
from tests.models.family_models import FOLDERS

pytest.importorskip("seqeval")

WORDS = [
    ["the", "film", "is", "unplayable", ",", "they", "said"],
    ["naïve", "\x01", "déjà", "vu"],
    ["(good)", "don't", "U.S.", "電影很好", "книга", "\u200b", "the"],
    ["Bad"],
    ["New York", "पुस्तक", "책이", "a", "</s>", "[SEP]"],
]
FAMILIES = ("bert", "distilbert", "electra", "modernbert", "roberta", "xlm-roberta")
TAGS = Task("own", "own", TOKENS, ("O", "B-X", "I-X"), usual_metrics(TOKENS, ("O", "B-X", "I-X")))
TOKENIZER = Tokenizer.from_vocab([*SPECIAL_TOKENS, *"abcd", "##a", "##b"])

_WORD_IDS = """
import json, sys
import tokenizers, transformers
folders, texts = json.loads(sys.argv[1])
found = {}
for name, folder in folders.items():
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=folder + "/tokenizer.json")
    if name in ("roberta", "modernbert"):
        # What add_prefix_space=True does, without which RoBERTa's class refuses words.
        tokenizer.backend_tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
    encoded = tokenizer(texts, is_split_into_words=True)
    found[name] = [(encoded["input_ids"][row], encoded.word_ids(row)) for row in range(len(texts))]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def word_ids():
    """What transformers' fast tokenisers give: family → token ids and words of each text."""
    folders = {name: str(FOLDERS / name) for name in FAMILIES}
    return json.loads(run(_WORD_IDS, json.dumps([folders, WORDS])).splitlines()[-1])


@needs_transformers
@pytest.mark.parametrize("family", FAMILIES)
def test_pieces_and_their_words_are_those_of_transformers(family, word_ids):
    tokenizer = tokenizer_from_folder(FOLDERS / family, kind=get_family(family).tokenizer)
    pieces = encode_words(tokenizer, TaggedExamples.of(WORDS, None), 512)
    place = 0
    for row, (ids, of_words) in enumerate(word_ids[family]):
        assert pieces.encoded.row(row).tolist() == ids
        for word in range(len(WORDS[row])):
            first = of_words.index(word) + pieces.encoded.offsets[row] if word in of_words else -1
            assert pieces.first[place] == first, WORDS[row][word]
            place += 1


def test_every_word_of_byte_level_pairs_is_cut_as_in_the_middle_of_a_text():
    tokenizer = tokenizer_from_folder(FOLDERS / "roberta", kind=get_family("roberta").tokenizer)
    ids, of_words, offsets = tokenizer.words([["film", "film"]])
    assert ids[of_words == 0].tolist() == ids[of_words == 1].tolist() and offsets.tolist() == [0, len(ids)]
    assert tokenizer.for_words.encode(["film film"]).row(0)[1:-1].tolist() == ids.tolist()
    assert tokenizer.encode(["film film"]).row(0)[1:-1].tolist() != ids.tolist()


def examples(words, tags):
    return TaggedExamples.of([text.split(" ") for text in words], np.array(tags, np.int32))


@pytest.mark.parametrize("parts", [
    [pre_tokenizers.Split(tokenizers.Regex(r"\\p{N}| ?[^\\s\\p{N}]+"), "isolated"),
     pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)],
    [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)],
], ids=["split", "digits"])  # fmt: skip
def test_parts_of_a_word_get_no_blank_of_their_own(parts):
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(parts)
    backend.train_from_iterator(["a1b2 don't", "x"], tokenizers.trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))  # fmt: skip
    made = with_blank_before_words(backend)
    for word in ("a1b2", "don't", "x", "12"):
        whole, before = (backend.encode(text).tokens for text in (f"a {word}", "a"))
        assert made.encode(word).tokens == whole[len(before):]


def test_labels_stand_at_first_pieces_and_words_that_no_token_shows_are_counted():
    found = examples(["ab c d", "a \x01 b c a a a a"], [1, 2, 0, 1, 0, 0, 0, 0, 1, 1, 2])
    dataset = make_dataset(TAGS, TOKENIZER, found, GatedBertConfig(task="ner", max_len=8, batch_size=2))
    inputs, labels = dataset[0]
    assert inputs["input_ids"].shape == labels.shape == (2, 8)
    no = IGNORED
    assert labels.tolist() == [[no, 1, no, 2, 0, no, no, no], [no, 1, 0, 0, 0, 1, 1, no]]
    assert unread_words({"dev": dataset}) == [
        "2 words of dev are behind the longest text (-ml), or hold nothing that the tokeniser keeps; they are taken "
        "for O, or the first tag where there is none"
    ]
    taken = found.take([1, 0])
    assert taken.labels.tolist() == [1, 0, 0, 0, 0, 1, 1, 2, 1, 2, 0] and taken.texts[1] == "ab c d"


class Oracle:
    """Says for each token a tag by its id, and the tag of the second piece of a word wrongly."""

    def __init__(self, logits):
        self.logits = logits

    def predict_on_batch(self, inputs):
        return self.logits[inputs["input_ids"]]


def test_metrics_of_a_model_count_all_words():
    by_token = np.random.default_rng(0).normal(size=(TOKENIZER.vocab_size, 3)).astype(np.float32)
    found = examples(["ab c d", "a \x01 b c a a a a", "d"], [1, 2, 0, 1, 2, 0, 0, 0, 1, 1, 2, 1])
    config = GatedBertConfig(task="ner", max_len=8, batch_size=2)
    dataset = make_dataset(TAGS, TOKENIZER, found, config)
    scores, answers = evaluate_model(Oracle(by_token), TAGS, {"dev": dataset}, {"dev": found}, config)
    flat = [word for words in found.words for word in words]
    hidden = {4, 10}
    tags = [0 if place in hidden else by_token[TOKENIZER.backend.token_to_id(word[0])].argmax()
            for place, word in enumerate(flat)]  # fmt: skip
    assert answers == {} and list(scores) == ["loss", "f1", "precision", "recall", "accuracy"]
    assert scores["accuracy"] == pytest.approx(np.mean(np.array(tags) == found.labels))
    read = [place for place in range(len(flat)) if place not in hidden]
    logits = np.array([by_token[TOKENIZER.backend.token_to_id(flat[place][0])] for place in read])
    losses = -special.log_softmax(logits, axis=1)[np.arange(len(read)), found.labels[read]]
    assert scores["loss"] == pytest.approx(losses.mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("wanted", "found", "scores"),
    [
        # Entities wanted 2, found 2, right 1: the second ends too early.
        ("B-PER I-PER O B-LOC I-LOC", "B-PER I-PER O B-LOC O", (1 / 2, 1 / 2)),
        # Another type is wrong, and a type within a name begins another entity.
        ("B-PER I-PER O O O", "B-PER I-LOC O O O", (0.0, 0.0)),
        # As conlleval has it an I- after O begins an entity (IOB1), and two B- are two.
        ("I-PER I-PER O B-LOC B-LOC", "B-PER I-PER O B-LOC B-LOC", (1.0, 1.0)),
        # Found three, of which one is right.
        ("O O O B-LOC O", "B-PER O B-PER B-LOC O", (1 / 3, 1.0)),
        ("O O O O O", "O O O O O", (0.0, 0.0)),
    ],
)
def test_entities_are_counted_whole(wanted, found, scores):
    task = Task("own", "own", TOKENS, entity_tags(("LOC", "PER")), ("f1", "precision", "recall", "accuracy"))
    labels, predicted = (np.array([task.labels.index(tag) for tag in tags.split()]) for tags in (wanted, found))
    result = tag_metrics(task, labels, predicted, np.array([0, 5]))
    precision, recall = scores
    assert (result["precision"], result["recall"]) == pytest.approx(scores)
    assert result["f1"] == pytest.approx(2 * precision * recall / (precision + recall) if sum(scores) else 0)
    assert result["accuracy"] == pytest.approx(np.mean(labels == predicted))


def test_no_entity_goes_on_in_the_next_text():
    task = TASKS["ner"]
    labels = np.array([task.labels.index(tag) for tag in ("B-PER", "I-PER", "I-PER")])
    apart = tag_metrics(task, labels, labels, np.array([0, 2, 3]))
    joined = tag_metrics(task, labels, np.array([labels[0], labels[1], 0]), np.array([0, 2, 3]))
    assert apart["f1"] == 1.0 and joined["recall"] == 0.5


def test_the_loss_is_the_mean_over_the_tags_of_a_batch():
    rng = np.random.default_rng(0)
    labels = np.array([[-1, 1, -1, 2, -1], [-1, 0, -1, -1, -1]], np.int32)
    logits, teacher = rng.normal(size=(2, 2, 5, 3)).astype(np.float32)
    known = labels >= 0
    alone = -special.log_softmax(logits[known], axis=1)[np.arange(3), labels[known]].mean()
    assert float(task_loss(TAGS)(labels, logits)) == pytest.approx(alone, rel=1e-5)
    assert np.mean(keras.ops.convert_to_numpy(hard_loss(TOKENS, labels, logits))) == pytest.approx(alone, rel=1e-5)
    wanted, found = (special.log_softmax(each[known] / 2, axis=1) for each in (teacher, logits))
    divergence = 4 * (np.exp(wanted) * (wanted - found)).sum(axis=1).mean()
    soft = keras.ops.convert_to_numpy(soft_loss(TOKENS, teacher, logits, 2.0, known))
    assert np.mean(soft) == pytest.approx(divergence, rel=1e-5)


def test_the_running_f1_is_that_of_tags_other_than_o():
    rng = np.random.default_rng(0)
    metric, seen = streaming_metric(TAGS), []
    for length in (4, 7):
        labels, logits = rng.integers(-1, 3, (6, length)), rng.normal(size=(6, length, 3))
        metric.update_state(labels, logits)
        seen.append((labels[labels >= 0], logits[labels >= 0].argmax(axis=1)))
    labels, predicted = (np.concatenate(parts) for parts in zip(*seen, strict=True))
    wanted = sklearn_metrics.f1_score(labels, predicted, labels=[1, 2], average="micro")
    assert float(metric.result()) == pytest.approx(wanted)
    again = type(metric).from_config(metric.get_config())
    assert again.outside == 0 and metric.name == "f1"


def test_a_word_without_a_piece_is_outside_or_has_the_first_tag():
    logits = np.array([[0.0, 1.0], [np.nan, np.nan]])
    assert predicted_tags(Task("a", "a", TOKENS, ("B-X", "O")), logits).tolist() == [1, 1]
    assert predicted_tags(Task("a", "a", TOKENS, ("ADJ", "NOUN")), logits).tolist() == [1, 0]
