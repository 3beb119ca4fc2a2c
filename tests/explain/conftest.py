from gated_bert.models.architecture import BertConfig
from gated_bert.models.bert import BertClassifier
from gated_bert.models.folder import LoadedModel
from gated_bert.tasks.task import TASKS
from gated_bert.tasks.wordpiece import Tokenizer
from tests.compression.conftest import randomize

WORDS = ("good", "bad", "film", "plot", "the", "a", "was", "not", "very", "long", "dull", "joy", "its", "cast", "and")
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "##s", ",", ".", "-", "'"]


def loaded_model(task="ag_news", seed=0, max_position=24):
    """A small model of random weights that knows `WORDS`."""
    config = BertConfig.uniform(2, 16, 4, 12, vocab_size=40, max_position=max_position,
                                num_outputs=TASKS[task].num_outputs)  # fmt: skip
    model = BertClassifier(config)
    randomize(model, seed)
    return LoadedModel(model, Tokenizer.from_vocab(TOKENS), TASKS[task], config, {})
