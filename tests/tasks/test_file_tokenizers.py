"""Tokenisers as their `tokenizer.json` has them: what `tokenizers` and transformers make of the same files."""

import json
import random

import numpy as np
import pytest
import tokenizers
from in_transformers import needs_transformers, run
from texts import FIXED
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

from gated_bert.models.family import _MODULES, get_family
from gated_bert.support.errors import UserError
from gated_bert.tasks.file_tokenizers import PlainTokenizer, RobertaTokenizer
from gated_bert.tasks.tokenizer import tokenizer_from_folder
from gated_bert.tasks.wordpiece import Tokenizer

SCRIPTS = (
    "abc DEF,.!", "àéîøßþ", "αβγΔΩ", "абвЖЩъ", "աբգԴ", "אבגד", "ابتثج", "अआकखग", "অআকখ", "ਅਆਕਖ", "અઆકખ", "அஆகங", "అఆకఖ",
    "ಅಆಕಖ", "กขคงา", "ກຂຄງ", "ཀཁགང", "ကခဂဃ", "აბგდ", "አበገደ", "កខគឃ", "가나다각", "あいうカキ", "电影很好中", "😀👍🏽",
)  # fmt: skip
ROBERTA = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"),
                   ("<pad>", "<unk>", "<s>", "</s>", "<mask>"), strict=True))  # fmt: skip
BERT = dict(zip(ROBERTA, ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), strict=True))
READ = """
import json, sys, transformers
texts = json.load(open(sys.argv[1]))
for folder in sys.argv[2:]:
    read = transformers.AutoTokenizer.from_pretrained(folder)
    print(json.dumps([read(texts)["input_ids"], read(texts, texts[::-1])["input_ids"]]))
"""


def many_texts(count=500):
    """Runs of characters of one script each, with blanks between them."""
    draw = random.Random(3)

    def text(index):
        runs = ("".join(draw.choices(draw.choice((SCRIPTS[index % len(SCRIPTS)], *SCRIPTS)), k=draw.randint(1, 6)))
                for _ in range(draw.randint(1, 8)))  # fmt: skip
        return draw.choice((" ", " ", "  ", "\n", "\t", "\u00a0", "")).join(runs)

    return [*FIXED, "<s> a </s>", " the <mask> of", *map(text, range(count - len(FIXED) - 2))]


TEXTS = many_texts()


def around(first, second, between=1, types=(0, 0)):
    """A template of the library: `first A second`, and `first A second×between B second`."""
    return dict(single=[first, "$A", second],
                pair=[first, "$A", *[second] * between, f"$B:{types[1]}", f"{second}:{types[1]}"])  # fmt: skip


def train(model, trainer, special, pre_tokenizer, normalizer=None, processor=None, **options):
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.train_from_iterator(TEXTS[::3], trainer(
        vocab_size=600, special_tokens=list(special.values()), show_progress=False, **options))  # fmt: skip
    first, second = special["cls_token"], special["sep_token"]
    ids = [(token, tokenizer.token_to_id(token)) for token in (first, second)]
    if isinstance(processor, dict):
        tokenizer.post_processor = processors.TemplateProcessing(**processor, special_tokens=ids)
    elif processor is not None:
        tokenizer.post_processor = processor(ids[1], ids[0])
    return tokenizer


def byte_level(blank=False, processor=processors.RobertaProcessing):
    pre = pre_tokenizers.ByteLevel(add_prefix_space=blank)
    return train(models.BPE(), trainers.BpeTrainer, ROBERTA, pre, processor=processor,
                 initial_alphabet=pre_tokenizers.ByteLevel.alphabet())  # fmt: skip


def unigram(normalizer=None, special=ROBERTA, processor=None):
    return train(models.Unigram(), trainers.UnigramTrainer, special, pre_tokenizers.Metaspace(), normalizer,
                 processor or around("<s>", "</s>", 2), unk_token=special["unk_token"])  # fmt: skip


def word_piece(normalizer, pre=None):
    return train(models.WordPiece(unk_token="[UNK]"), trainers.WordPieceTrainer, BERT,
                 pre or pre_tokenizers.BertPreTokenizer(), normalizer, processors.BertProcessing)  # fmt: skip


def kinds():
    """Name → tokeniser, its special tokens, the class that reads it, and what transformers calls its class."""
    nfkc = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(tokenizers.Regex(" {2,}"), " ")])
    sequence = train(models.BPE(), trainers.BpeTrainer, ROBERTA, pre_tokenizers.ByteLevel(),
                     processor=around("<s>", "</s>", 2), initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    sequence.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), sequence.post_processor])
    stripped = normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase(), normalizers.StripAccents()])
    return {
        "byte-level": (byte_level(), ROBERTA, RobertaTokenizer, "RobertaTokenizer"),
        "byte-level, blank": (byte_level(True), ROBERTA, RobertaTokenizer, "PreTrainedTokenizerFast"),
        "byte-level, sequence": (sequence, ROBERTA, RobertaTokenizer, "PreTrainedTokenizerFast"),
        "byte-level, one separator": (
            byte_level(processor=around("<s>", "</s>")), ROBERTA, PlainTokenizer, "PreTrainedTokenizerFast"),
        "unigram": (unigram(nfkc), ROBERTA, RobertaTokenizer, "PreTrainedTokenizerFast"),
        "unigram as it is": (unigram(), ROBERTA, RobertaTokenizer, "PreTrainedTokenizerFast"),
        "unigram of a BERT": (unigram(nfkc), ROBERTA, Tokenizer, "PreTrainedTokenizerFast"),
        "unigram, BERT's names": (
            unigram(nfkc, BERT, around("[CLS]", "[SEP]", types=(0, 1))), BERT, Tokenizer, "PreTrainedTokenizerFast"),
        "lower case": (word_piece(normalizers.BertNormalizer()), BERT, PlainTokenizer, "DistilBertTokenizer"),
        "cased": (word_piece(normalizers.BertNormalizer(lowercase=False)), BERT, Tokenizer, "PreTrainedTokenizerFast"),
        "accents": (word_piece(stripped), BERT, Tokenizer, "PreTrainedTokenizerFast"),
        "no normaliser": (
            word_piece(None, pre_tokenizers.WhitespaceSplit()), BERT, PlainTokenizer, "PreTrainedTokenizerFast"),
    }  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Name → folder of a tokeniser and the class that reads it."""
    found = {}
    for name, (tokenizer, special, kind, called) in kinds().items():
        folder = tmp_path_factory.mktemp("folder")
        # Lengths that somebody trained with count for nobody else.
        tokenizer.enable_truncation(9)
        tokenizer.save(str(folder / "tokenizer.json"))
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": called, **special}))
        found[name] = folder, kind
    return found


def rows(encoded, values):
    return [values[start:end].tolist() for start, end in zip(encoded.offsets, encoded.offsets[1:], strict=False)]


def test_texts_and_pairs_are_cut_and_arranged_as_the_library_does_by_the_file(folders, tmp_path):
    for name, (folder, kind) in folders.items():
        library = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        library.no_truncation()
        read = tokenizer_from_folder(folder, kind=kind)
        read.save(tmp_path / "tokenizer.json")
        for each in (read, kind.from_file(tmp_path / "tokenizer.json")):
            for pairs in (None, TEXTS[::-1]):
                given = TEXTS if pairs is None else list(zip(TEXTS, pairs, strict=True))
                expected, encoded = library.encode_batch(given), each.encode(TEXTS, pairs, 2000)
                assert rows(encoded, encoded.input_ids) == [one.ids for one in expected], name
                if "token_type_ids" in encoded.inputs:
                    found = rows(encoded, encoded.inputs["token_type_ids"])
                    assert found == [one.type_ids for one in expected], name
            assert each.special_id("pad") == library.token_to_id("<pad>" if "<pad>" in library.get_vocab() else "[PAD]")


def test_pieces_stand_where_their_letters_are(folders):
    for name, (folder, kind) in folders.items():
        read = tokenizer_from_folder(folder, kind=kind)
        ids, characters, offsets = read.places(TEXTS)
        assert len(ids) == sum(read.encode(TEXTS, None, 2000).lengths - read.template.around(1)), name
        for text, start, end in zip(TEXTS, offsets, offsets[1:], strict=False):
            places = characters[start:end]
            assert (places >= 0).all() and (places <= len(text)).all() and (places[:, 0] <= places[:, 1]).all()
            shown = [text[first:last] for first, last in places]
            assert all(piece == piece.strip() for piece in shown), (name, text, shown)
        (_, places, _) = read.places(["abc  DEF abc"])
        covered = {index for first, last in places for index in range(first, last)}
        assert covered == {0, 1, 2, 5, 6, 7, 9, 10, 11}, name


@needs_transformers
@pytest.mark.nightly
def test_transformers_cuts_texts_by_the_same_files(folders, tmp_path):
    (tmp_path / "texts.json").write_text(json.dumps(TEXTS))
    written = {}
    for name, (folder, kind) in folders.items():
        written[name] = tmp_path / name
        read = tokenizer_from_folder(folder, kind=kind)
        written[name].mkdir()
        read.save(written[name] / "tokenizer.json")
        for file, text in read.transformers_files(512).items():
            (written[name] / file).write_text(text)
    places = [*(folder for folder, _ in folders.values()), *written.values()]
    found = run(READ, tmp_path / "texts.json", *places).splitlines()
    for index, (name, (folder, kind)) in enumerate(folders.items()):
        read = tokenizer_from_folder(folder, kind=kind)
        single, pair = read.encode(TEXTS, None, 2000), read.encode(TEXTS, TEXTS[::-1], 2000)
        expected = [rows(each, each.input_ids) for each in (single, pair)]
        for line in (found[index], found[index + len(folders)]):
            assert json.loads(line) == expected, name


def test_byte_pairs_are_read_from_vocabulary_and_merges(folders, tmp_path):
    folder, kind = folders["byte-level"]
    tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")).model.save(str(tmp_path))
    read, whole = tokenizer_from_folder(tmp_path, kind=kind), tokenizer_from_folder(folder, kind=kind)
    # Here as in RoBERTa's own files the mask takes the blank before it.
    texts = [text for text in TEXTS if "<mask>" not in text]
    for pairs in (None, texts[::-1]):
        assert np.array_equal(read.encode(texts, pairs).input_ids, whole.encode(texts, pairs).input_ids)
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(UserError, match="no merges.txt beside vocab.json; put it there, or its tokenizer.json"):
        tokenizer_from_folder(tmp_path, kind=kind)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (dict(single="<s> $A </s>", pair="<s> $A </s> $B"), "other special tokens around two texts than around one"),
        (dict(single="<s> $A </s>", pair="<s> $B </s> $A </s>"), "does not put a first text before a second one"),
    ],
)
def test_what_is_no_template_is_refused_in_one_line(folders, tmp_path, template, message):
    library = tokenizers.Tokenizer.from_file(str(folders["unigram"][0] / "tokenizer.json"))
    library.post_processor = processors.TemplateProcessing(**template, special_tokens=[("<s>", 2), ("</s>", 3)])
    library.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match=message) as caught:
        RobertaTokenizer.from_file(tmp_path / "tokenizer.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", sorted(_MODULES))
def test_every_family_reads_a_vocabulary_of_each_kind(folders, family):
    kind = get_family(family).tokenizer
    for folder, _ in folders.values():
        read = tokenizer_from_folder(folder, kind=kind)
        inputs = get_family(family).architecture.input_names
        assert set(read.encode(["a"], ["b"]).inputs) | {"attention_mask"} == set(inputs)


@pytest.mark.parametrize("pair", [None, "[CLS] $B [SEP] $A [SEP]", "$A [SEP] $B"])
def test_a_file_for_single_texts_puts_two_together_as_bert_does(pair):
    """As transformers does, whose class of BERT has an arrangement of its own."""
    ids = {name: place for place, name in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"))}
    backend = tokenizers.Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = [("[CLS]", 2), ("[SEP]", 3)]
    arguments = {"pair": pair} if pair else {}
    backend.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=special, **arguments)
    found = Tokenizer(backend, "file", {}, None).encode(["a"], ["b"])
    assert found.input_ids.tolist() == [2, 5, 3, 6, 3]
    assert found.inputs["token_type_ids"].tolist() == [0, 0, 0, 1, 1]


@pytest.mark.parametrize(("called", "segment"), [
    (None, 1), ("BertTokenizer", 1), ("BertTokenizerFast", 1), ("ElectraTokenizer", 1), ("PreTrainedTokenizerFast", 0),
])  # fmt: skip
def test_the_class_decides_on_the_second_segment_where_the_file_marks_none(folders, tmp_path, called, segment, capfd):
    """As in transformers 5: its class of BERT arranges by itself, others by the file."""
    library = tokenizers.Tokenizer.from_file(str(folders["cased"][0] / "tokenizer.json"))
    ids = [(token, library.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    library.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=ids)  # fmt: skip
    library.save(str(tmp_path / "tokenizer.json"))
    settings = {"tokenizer_class": called} if called else {}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings | BERT))
    for kind in (Tokenizer, PlainTokenizer):
        found = tokenizer_from_folder(tmp_path, kind=kind)
        encoded = found.encode(["abc"], ["DEF"])
        count, has = int(np.argmax(encoded.input_ids == ids[1][1])) + 1, kind is Tokenizer
        assert set(encoded.inputs.get("token_type_ids", [])[count:]) == ({segment} if has else set())
        assert ("marks no second segment" in capfd.readouterr().err) == (has and segment == 1)
        found.save(tmp_path / "again.json")
        again = kind.from_file(tmp_path / "again.json").encode(["abc"], ["DEF"])
        assert all(np.array_equal(again.inputs[name], encoded.inputs[name]) for name in encoded.inputs)
