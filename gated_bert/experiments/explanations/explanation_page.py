"""Explained documents as an HTML page: the text, with its words coloured by what they add to a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gated_bert.experiments.reports.page import Html, element, joined, note, page, text

_FOR, _AGAINST = "0, 114, 178", "213, 94, 0"
_STRONGEST = 0.6
"""Opacity of the largest weight; the text on it stays readable."""

_STYLE = f"""
.document {{ border-top: 1px solid #d8dee4; padding: 0.6rem 0; }}
.document p {{ margin: 0.3rem 0; overflow-wrap: anywhere; }}
.head b {{ margin-right: 0.6rem; }} .wrong {{ color: #b3261e; }}
mark {{ color: inherit; border-radius: 0.2rem; padding: 0.05rem 0.1rem; }}
.text {{ line-height: 1.9; }}
.words span {{ display: inline-block; border-radius: 0.2rem; padding: 0 0.35rem; margin: 0.1rem 0.3rem 0.1rem 0;
  font-size: 0.85rem; font-variant-numeric: tabular-nums; }}
.scale {{ display: inline-block; width: 9rem; height: 0.9rem; vertical-align: middle; border: 1px solid #d8dee4;
  background: linear-gradient(to right, rgba({_AGAINST}, {_STRONGEST}), white, rgba({_FOR}, {_STRONGEST})); }}
"""


def explanation_page(title: str, about: str, groups: Mapping[str, Sequence[Mapping]]) -> bytes:
    """The page.

    Args:
        title: its title.
        about: a line below it.
        groups: heading, empty for none, → documents as `explanation_folder.document_line` records them.
    """
    legend = note("against the class ", element("span", kind="scale"), " for it. The largest weight of an explanation "
                  "has the full colour; a weight is what the word, in all its places, adds to the probability of the "
                  "class in the linear model around the text, whose R² on the samples stands beside the class."
                  )  # fmt: skip
    parts = [element("h1", title), note(about), legend]
    for heading, documents in groups.items():
        parts += [element("h2", heading)] * bool(heading)
        parts += [_document(line) for line in documents]
    return page(title, parts, _STYLE)


def _document(line: Mapping) -> Html:
    predicted, label = line["predicted"], line["label"]
    said = f"predicted: {predicted}, {100 * line['probabilities'][predicted]:.1f} %"
    head = [element("b", f"document {line['document']}"), said]
    if label is not None:
        head += [" · ", element("span", f"gold: {label}", kind="right" if label == predicted else "wrong")]
    parts = [_explanation(line["text"], each) for each in line["explanations"]]
    return element("div", element("p", *head, kind="head"), *parts, kind="document")


def _explanation(document: str, each: Mapping) -> Html:
    words, fidelity = each["words"], each["fidelity"]
    quality = "a text without words" if fidelity is None else f"R² {fidelity:.2f}"
    largest = max((abs(word["weight"]) for word in words), default=0.0) or 1.0
    parts = [note(f"for {each['class']}, {quality}"), element("p", *_marked(document, words, largest), kind="text")]
    if words:
        shown = (element("span", f"{word['word']} {_signed(word['weight'])}", style=_colour(word["weight"] / largest))
                 for word in words)  # fmt: skip
        parts.append(element("p", *shown, kind="words"))
    return joined(parts)


def _marked(document: str, words: Sequence[Mapping], largest: float) -> list[Html]:
    places = sorted(((place, word) for word in words for place in word["positions"]), key=lambda each: each[0])
    parts, end = [], 0
    for place, word in places:
        last = place + len(word["word"])
        weight = word["weight"]
        parts.append(text(document[end:place]))
        parts.append(element("mark", document[place:last], style=_colour(weight / largest), title=_signed(weight)))
        end = last
    return [*parts, text(document[end:])]


def _colour(share: float) -> str:
    return f"background: rgba({_FOR if share > 0 else _AGAINST}, {_STRONGEST * abs(share):.3f})"


def _signed(weight: float) -> str:
    return f"{weight:+.3f}".replace("-", "\N{MINUS SIGN}")
