"""Parts of speech of the words that explanations rest on."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy import stats

from gated_bert.support.errors import UserError
from gated_bert.tasks.graphemes import words as words_of

DATA = {
    "averaged_perceptron_tagger_eng": "taggers",
    "punkt_tab": "tokenizers",
    "universal_tagset": "taggers",
}
"""What is needed of NLTK's data, and the folder each part lies in."""

CORE = ("noun", "adjective")
CONTEXTUAL = ("preposition", "conjunction", "to", "modal")
TAGSETS = {
    "penn": ("noun", "adjective", "verb", "adverb", "preposition", "conjunction", "to", "modal", "other"),
    "universal": ("NOUN", "ADJ", "VERB", "ADV", "ADP", "CONJ", "PRT", "DET", "PRON", "NUM", "X", "."),
    "role": ("core", "contextual", "other"),
}
"""Sets of groups: of Penn tags, the universal tags, and core and contextual words."""

_PENN = {"NN": "noun", "JJ": "adjective", "VB": "verb", "RB": "adverb", "WRB": "adverb", "IN": "preposition",
         "CC": "conjunction", "TO": "to", "MD": "modal"}  # fmt: skip
"""Penn tag, or the first two letters, without number, degree or tense → group; all other tags are `other`."""


def penn_group(tag: str) -> str:
    """The group of a Penn tag; subordinating conjunctions are prepositions, as their tag `IN` is."""
    return _PENN.get(tag) or _PENN.get(tag[:2], "other")


def role(group: str) -> str:
    """Whether a group of Penn tags is of core or contextual words."""
    return "core" if group in CORE else "contextual" if group in CONTEXTUAL else "other"


class Tagger:
    """NLTK's averaged perceptron tagger, on the sentences and words that its tokenisers find.

    Raises:
        UserError: NLTK's data are not on its search path.
    """

    def __init__(self):
        check_data()
        from nltk.tag.mapping import tagset_mapping
        from nltk.tag.perceptron import PerceptronTagger
        from nltk.tokenize import NLTKWordTokenizer
        from nltk.tokenize.punkt import PunktTokenizer

        self._sentences, self._words, self._tagger = PunktTokenizer(), NLTKWordTokenizer(), PerceptronTagger()
        self._universal = tagset_mapping("en-ptb", "universal")
        self._known: dict[str, list[tuple[int, int, str]]] = {}

    def tokens(self, text: str) -> list[tuple[int, int, str]]:
        """(start, end, Penn tag) of each token of a text, in characters; tagged sentence by sentence, and once."""
        if text not in self._known:
            self._known[text] = self._tokens(text)
        return self._known[text]

    def _tokens(self, text: str) -> list[tuple[int, int, str]]:
        found = []
        for start, end in self._sentences.span_tokenize(text):
            sentence = text[start:end]
            places = list(self._words.span_tokenize(sentence))
            tagged = self._tagger.tag([sentence[first:last] for first, last in places])
            found += [(start + first, start + last, tag)
                      for (first, last), (_, tag) in zip(places, tagged, strict=True)]  # fmt: skip
        return found

    def tags(self, text: str, words: Sequence[str]) -> dict[str, str]:
        """The Penn tag of each word in its sentence.

        An explanation's weight is that of all occurrences of a word: it has the tag that most of them have, of equally
        many the first. A part of a token (`S` of `U.S.`) has the token's tag.

        Args:
            text: a document.
            words: words in it as LIME takes them, see `graphemes.words`.

        Returns:
            Word → tag.

        Raises:
            UserError: a word that is not in the text.
        """
        tokens = self.tokens(text)
        starts, wanted = [start for start, _, _ in tokens], set(words)
        found: dict[str, Counter] = {word: Counter() for word in words}
        for word, start in words_of(text):
            if word in wanted:
                found[word][tokens[bisect.bisect_right(starts, start) - 1][2]] += 1
        missing = [word for word in words if not found[word]]
        if missing:
            raise UserError(f"{missing[0]!r} is an explained word, and not in its text, {text[:40]!r}…")
        return {word: tags.most_common(1)[0][0] for word, tags in found.items()}

    def groups(self, tag: str) -> dict[str, str]:
        """Set of `TAGSETS` → the group that a Penn tag belongs to in it."""
        universal = self._universal.get(tag, "X")
        return {"penn": penn_group(tag), "universal": universal, "role": role(penn_group(tag))}


def check_data() -> None:
    """Refuses to tag without NLTK's data.

    Raises:
        UserError: some of `DATA` are missing.
    """
    import nltk

    missing = []
    for name, folder in DATA.items():
        try:
            nltk.data.find(f"{folder}/{name}")
        except LookupError:
            missing.append(name)
    if missing:
        raise UserError(f"NLTK data {', '.join(missing)} not found in NLTK_DATA or NLTK's usual places; "
                        f"`python -m nltk.downloader {' '.join(missing)}` fetches them")  # fmt: skip


def shares(counts: Mapping[str, int], groups: Sequence[str]) -> list[float]:
    """The share of each group in the words of all groups; 0 where there is no word."""
    total = sum(counts.values())
    return [counts.get(group, 0) / total if total else 0.0 for group in groups]


def count_groups(tagged: Iterable[Mapping[str, str]]) -> dict[str, Counter]:
    """How many words belong to each group.

    Args:
        tagged: of each word, set of `TAGSETS` → group.

    Returns:
        Set → group → number of words.
    """
    found: dict[str, Counter[str]] = {name: Counter() for name in TAGSETS}
    for groups in tagged:
        for name, group in groups.items():
            found[name][group] += 1
    return found


def chi_square(base: Mapping[str, int], other: Mapping[str, int]) -> dict[str, float]:
    """Pearson's chi-square test of whether two models' words are of the same groups, without a correction.

    Args:
        base: group → number of words.
        other: those of the other model.

    Returns:
        `chi_square`, `degrees_of_freedom`, `p_value`, `least_expected` (the smallest expected number of words, which
        should not be far below 5) and `cramers_v`, the size of the difference from 0 to 1; where there is nothing to
        compare, as with a single group in both, the p-value is 1.
    """
    groups = [group for group in {**base, **other} if base.get(group, 0) + other.get(group, 0)]
    table = np.array([[counts.get(group, 0) for group in groups] for counts in (base, other)])
    if len(groups) < 2 or not table.sum(axis=1).all():
        return {"chi_square": 0.0, "degrees_of_freedom": 0, "p_value": 1.0, "least_expected": float(table.sum() / 2),
                "cramers_v": 0.0}  # fmt: skip
    found = stats.chi2_contingency(table, correction=False)
    return {"chi_square": float(found.statistic), "degrees_of_freedom": int(found.dof), "p_value": float(found.pvalue),
            "least_expected": float(found.expected_freq.min()),
            "cramers_v": float(np.sqrt(found.statistic / table.sum()))}  # fmt: skip
