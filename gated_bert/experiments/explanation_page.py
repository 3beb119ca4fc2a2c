"""Explained documents as an HTML page: the text, with its words coloured by what they add to a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from gated_bert.experiments.page import page

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


def explanation_page(title: str, note: str, groups: Mapping[str, Sequence[Mapping]]) -> bytes:
    """The page.

    Args:
        title: its title.
        note: a line below it.
        groups: heading, empty for none, → documents as `explanation_folder.document_line` records them.
    """
    legend = ('<p class="note">against the class <span class="scale"></span> for it. The largest weight of an '
              "explanation has the full colour; a weight is what the word, in all its places, adds to the probability "
              "of the class in the linear model around the text, whose R² on the samples stands beside the class.</p>"
              )  # fmt: skip
    parts = [f"<h1>{escape(title)}</h1>", f'<p class="note">{escape(note)}</p>', legend]
    for heading, documents in groups.items():
        parts += [f"<h2>{escape(heading)}</h2>"] * bool(heading)
        parts += [_document(line) for line in documents]
    return page(title, parts, _STYLE)


def _document(line: Mapping) -> str:
    predicted, label = line["predicted"], line["label"]
    said = f"{escape(predicted)}, {100 * line['probabilities'][predicted]:.1f} %"
    head = f"<b>document {line['document']}</b>predicted: {said}"
    if label is not None:
        head += f' · <span class="{"right" if label == predicted else "wrong"}">gold: {escape(label)}</span>'
    parts = [_explanation(line["text"], each) for each in line["explanations"]]
    return f'<div class="document"><p class="head">{head}</p>{"".join(parts)}</div>'


def _explanation(text: str, each: Mapping) -> str:
    words, fidelity = each["words"], each["fidelity"]
    quality = "a text without words" if fidelity is None else f"R² {fidelity:.2f}"
    head = f'<p class="note">for {escape(each["class"])}, {quality}</p>'
    largest = max((abs(word["weight"]) for word in words), default=0.0) or 1.0
    shown = "".join(f'<span style="{_colour(word["weight"] / largest)}">{escape(word["word"])} '
                    f"{_signed(word['weight'])}</span>" for word in words)  # fmt: skip
    marked = _marked(text, words, largest)
    return f'{head}<p class="text">{marked}</p>' + (f'<p class="words">{shown}</p>' if words else "")


def _marked(text: str, words: Sequence[Mapping], largest: float) -> str:
    places = sorted(((place, word) for word in words for place in word["positions"]), key=lambda each: each[0])
    parts, end = [], 0
    for place, word in places:
        last = place + len(word["word"])
        parts.append(escape(text[end:place]))
        parts.append(f'<mark style="{_colour(word["weight"] / largest)}" title="{_signed(word["weight"])}">'
                     f"{escape(text[place:last])}</mark>")  # fmt: skip
        end = last
    return "".join(parts) + escape(text[end:])


def _colour(share: float) -> str:
    return f"background: rgba({_FOR if share > 0 else _AGAINST}, {_STRONGEST * abs(share):.3f})"


def _signed(weight: float) -> str:
    return f"{weight:+.3f}".replace("-", "\N{MINUS SIGN}")
