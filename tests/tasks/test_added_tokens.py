"""Tokens beside a vocabulary, in `added_tokens.json` or in the settings: what transformers makes of the same files."""

import json

import pytest
from in_transformers import needs_transformers, run

from gated_bert.support.errors import UserError
from gated_bert.tasks.file_tokenizers import RobertaTokenizer
from gated_bert.tasks.tokenizer import tokenizer_from_folder
from gated_bert.tasks.wordpiece import Tokenizer
from tests.models.family_models import FOLDERS

KINDS = {"roberta": RobertaTokenizer, "bert": Tokenizer}
TEXTS = ["the film <extra> is good", "a<extra>b <Two Words> end", "the film", "a <mask> b", "a [MASK] b", "<EXTRA>"]
FLAGS = dict.fromkeys(("rstrip", "single_word", "normalized"), False)
READ = """
import json, sys, transformers
texts = json.load(open(sys.argv[1]))
for folder in sys.argv[2:]:
    kind = "RobertaTokenizer" if "roberta" in folder else "BertTokenizer"
    print(json.dumps(getattr(transformers, kind).from_pretrained(folder)(texts)["input_ids"]))
"""


def vocabulary(family):
    model = json.loads((FOLDERS / family / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    return sorted(model["vocab"], key=model["vocab"].get), model.get("merges", ())


def write(folder, family, leave_out=(), **files):
    """A folder without a `tokenizer.json`; `files`: name without its end → what it holds."""
    pieces, merges = vocabulary(family)
    pieces = [each for each in pieces if each not in leave_out]
    folder.mkdir(parents=True)
    if family == "roberta":
        (folder / "vocab.json").write_text(json.dumps({each: place for place, each in enumerate(pieces)}))
        lines = [each if isinstance(each, str) else " ".join(each) for each in merges]
        (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *lines, ""]), encoding="utf-8")
    else:
        (folder / "vocab.txt").write_text("\n".join([*pieces, ""]), encoding="utf-8")
    for name, content in {"tokenizer_config": {}, **files}.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def variants(family):
    """Name → what is written."""
    count, mask = len(vocabulary(family)[0]), "<mask>" if family == "roberta" else "[MASK]"
    decoded = {str(count): {"content": "<extra>", "lstrip": True, "special": True, **FLAGS}}
    return {
        "added": dict(added_tokens={"<Two Words>": count + 1, "<extra>": count}),
        "decoded": dict(tokenizer_config={"added_tokens_decoder": decoded}),
        "named": dict(added_tokens={"<extra>": count}, tokenizer_config={"additional_special_tokens": ["<extra>"]}),
        "both": dict(added_tokens={"<Two Words>": count}, tokenizer_config={"added_tokens_decoder": decoded}),
        "mask": dict(leave_out=[mask], added_tokens={mask: count - 1, "<extra>": count}),
    }  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("added")
    return {(family, name): write(place / family / name, family, **files)
            for family in KINDS for name, files in variants(family).items()}  # fmt: skip


def ids(folder, family):
    read = tokenizer_from_folder(folder, kind=KINDS[family])
    return [read.encode([text]).input_ids.tolist() for text in TEXTS]


@pytest.mark.parametrize("family", KINDS)
def test_added_tokens_are_pieces_with_the_ids_that_are_said(folders, family):
    count = len(vocabulary(family)[0])
    for name in variants(family):
        found = ids(folders[family, name], family)
        assert count in found[0] and count in found[1], name
        assert (count + 1 in found[1]) == (name == "added")
    mask = next(index for index, text in enumerate(TEXTS) if (family == "roberta") == ("<mask>" in text) and "mask" in
                text.lower())  # fmt: skip
    assert count - 1 in ids(folders[family, "mask"], family)[mask]


@needs_transformers
@pytest.mark.nightly
def test_transformers_makes_the_same_of_them(folders, tmp_path):
    (tmp_path / "texts.json").write_text(json.dumps(TEXTS))
    lines = run(READ, tmp_path / "texts.json", *folders.values()).splitlines()
    for ((family, name), folder), line in zip(folders.items(), lines, strict=True):
        for text, found, known in zip(TEXTS, ids(folder, family), json.loads(line), strict=True):
            # Here as in RoBERTa's own files the mask takes the blank before it.
            assert found == known or (family, text) == ("roberta", "a <mask> b"), (family, name, text)


@pytest.mark.parametrize("family", KINDS)
def test_another_id_than_is_said_is_refused(family, tmp_path):
    folder = write(tmp_path / family, family, added_tokens={"<extra>": 4000})
    with pytest.raises(UserError, match="added token '<extra>' would have id .*, and the files beside it say 4000"):
        ids(folder, family)
