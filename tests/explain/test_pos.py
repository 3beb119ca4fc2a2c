"""Parts of speech: groups of tags, tagging in the sentence (with NLTK's data), chi-square by hand."""

from collections import Counter

import pytest

from gated_bert.explain.pos import DATA, TAGSETS, Tagger, chi_square, count_groups, penn_group, role, shares
from gated_bert.support.errors import UserError


@pytest.fixture(scope="module")
def tagger(nltk_data):
    return Tagger()


def test_penn_tags_belong_to_groups():
    expected = {
        "noun": ("NN", "NNS", "NNP", "NNPS"), "adjective": ("JJ", "JJR", "JJS"),
        "verb": ("VB", "VBD", "VBG", "VBN", "VBP", "VBZ"), "adverb": ("RB", "RBR", "RBS", "WRB"),
        "preposition": ("IN",), "conjunction": ("CC",), "to": ("TO",), "modal": ("MD",),
        "other": ("CD", "DT", "PRP", "PRP$", "POS", "RP", "EX", "WDT", "WP", "UH", "$", ".", "''", "SYM"),
    }  # fmt: skip
    assert tuple(expected) == TAGSETS["penn"]
    for group, tags in expected.items():
        assert {penn_group(tag) for tag in tags} == {group}
    assert [group for group in expected if role(group) == "core"] == ["noun", "adjective"]
    assert [group for group in expected if role(group) == "contextual"] == ["preposition", "conjunction", "to", "modal"]


def test_chi_square_by_hand():
    # Expected 15 and 25 in either row: 25 / 15 + 25 / 25, twice.
    found = chi_square({"noun": 10, "verb": 30}, {"verb": 20, "noun": 20, "to": 0})
    assert found["chi_square"] == pytest.approx(2 * (25 / 15 + 25 / 25)) and found["degrees_of_freedom"] == 1
    assert found["p_value"] == pytest.approx(0.02092, abs=1e-5) and found["least_expected"] == 15
    assert found["cramers_v"] == pytest.approx((found["chi_square"] / 80) ** 0.5)
    same = chi_square({"noun": 3, "to": 4}, {"to": 4, "noun": 3})
    assert (same["chi_square"], same["p_value"]) == (0, 1)
    assert chi_square({"noun": 3}, {"noun": 9})["p_value"] == chi_square({"noun": 3}, {})["p_value"] == 1


def test_shares_count_words():
    counts = count_groups([{"penn": "noun", "universal": "NOUN", "role": "core"}] * 3
                          + [{"penn": "to", "universal": "PRT", "role": "contextual"}])  # fmt: skip
    assert shares(counts["penn"], ("noun", "verb", "to")) == [0.75, 0, 0.25]
    assert counts["role"] == Counter(core=3, contextual=1) and shares(Counter(), ("noun",)) == [0]


@pytest.mark.nltk_data
def test_words_are_tagged_in_their_sentence(tagger):
    text = "They plan to go. I saw the plan, and the plan fell. U.S. shares can rise to 3-year-old highs (Reuters)"
    words = ["plan", "They", "U", "S", "shares", "can", "to", "year", "Reuters", "and", "the", "fell"]
    assert tagger.tags(text, words) == {
        "plan": "NN",  # a verb once, a noun twice
        "They": "PRP", "U": "NNP", "S": "NNP", "shares": "NNS", "can": "MD", "to": "TO", "year": "JJ",
        "Reuters": "NNPS", "and": "CC", "the": "DT", "fell": "VBD",
    }  # fmt: skip
    assert tagger.tags("They plan to go.", ["plan"]) == {"plan": "VBP"}
    assert tagger.groups("TO") == {"penn": "to", "universal": "PRT", "role": "contextual"}
    assert tagger.groups("JJR") == {"penn": "adjective", "universal": "ADJ", "role": "core"}
    with pytest.raises(UserError, match="'fish' is an explained word, and not in its text, 'They book'"):
        tagger.tags("They book", ["They", "fish"])


@pytest.mark.nltk_data
def test_tokens_lie_where_they_stand_in_the_text(tagger):
    import nltk

    text = '"Don\'t go," he said. It cost $5.50  (a lot).\nBye'
    places = tagger.tokens(text)
    assert [text[start:end] for start, end, _ in places] == [
        '"', "Do", "n't", "go", ",", '"', "he", "said", ".", "It", "cost", "$", "5.50", "(", "a", "lot", ")", ".", "Bye"
    ]  # fmt: skip
    tagged = nltk.pos_tag(nltk.word_tokenize("It cost $5.50  (a lot)."))
    assert [tag for _, _, tag in places[9:18]] == [tag for _, tag in tagged]
    # What the words of LIME are begins in some token: no word is left without a tag.
    assert set(tagger.tags(text, ["Don", "t", "5", "50", "Bye"]).values()) <= {"VB", "VBP", "RB", "CD", "NN", "NNP"}


@pytest.mark.nltk_data
def test_words_with_marks_are_found(tagger):
    text = "The cafe\u0301 serves nai\u0308ve guests."
    assert tagger.tags(text, ["cafe\u0301", "nai\u0308ve", "guests"]).keys() == {"cafe\u0301", "nai\u0308ve", "guests"}
    with pytest.raises(UserError, match="'cafe' is an explained word, and not in its text"):
        tagger.tags(text, ["cafe"])


@pytest.mark.nltk_data
def test_every_tag_has_a_group_of_each_set(tagger):
    tags = "CC CD DT EX FW IN JJ JJR JJS LS MD NN NNP NNPS NNS PDT POS PRP PRP$ RB RBR RBS RP SYM TO UH VB VBD VBG VBN"
    for tag in [*tags.split(), "VBP", "VBZ", "WDT", "WP", "WP$", "WRB", "#", "$", "''", "(", ")", ",", ".", ":", "``"]:
        for name, group in tagger.groups(tag).items():
            assert group in TAGSETS[name], (tag, name)


def test_missing_data_are_named(tmp_path, monkeypatch):
    nltk = pytest.importorskip("nltk")
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    (tmp_path / "tokenizers" / "punkt_tab").mkdir(parents=True)
    with pytest.raises(UserError) as error:
        Tagger()
    assert str(error.value) == (
        "NLTK data averaged_perceptron_tagger_eng, universal_tagset not found in NLTK_DATA or NLTK's usual places; "
        "`python -m nltk.downloader averaged_perceptron_tagger_eng universal_tagset` fetches them"
    )
    assert set(DATA) == {"averaged_perceptron_tagger_eng", "punkt_tab", "universal_tagset"}
