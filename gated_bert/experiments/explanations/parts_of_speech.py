"""Parts of speech of the words that models' explanations rest on: counted, tested against the first model, drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gated_bert.experiments.explanations.explained import Explained, read_comparable
from gated_bert.experiments.models.benchmark_table import model_style
from gated_bert.experiments.reports.drawing import label_text, png, tolerated
from gated_bert.explain.pos import TAGSETS, Tagger, chi_square, count_groups, shares
from gated_bert.explain.similarity import top_words
from gated_bert.support.errors import UserError
from gated_bert.support.files import write_bytes_atomic, write_csv_atomic
from gated_bert.support.progress_bar import progress_bar
from gated_bert.support.text_table import aligned

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TABLE, TESTS, WORDS, PLOT = "pos.csv", "pos_tests.csv", "pos_words.csv", "pos.png"
_SETS = {"penn": "groups of Penn tags", "universal": "universal tags", "role": "core and contextual words"}


def compare_parts_of_speech(folders: Mapping[str, Path], out: Path, top_k: int) -> list[Path]:
    """Tags the top words of explanations and writes tables and bars of their parts of speech.

    Of each document the words for the class that the model predicts are taken.

    Args:
        folders: name → folder of explanations; the others are tested against the first.
        out: where `pos.csv` (a row per model and group), `pos_tests.csv` (per model and set of groups), `pos_words.csv`
            (a row per word) and `pos.png` go.
        top_k: words of each document, those of the largest absolute weights.

    Returns:
        The files written.

    Raises:
        UserError: NLTK's data or a folder cannot be read, folders of other documents, or no word is explained.
    """
    tagger = Tagger()
    models = dict(zip(folders, read_comparable(list(folders.values())), strict=True))
    words: dict[str, list[dict]] = {}
    with progress_bar("tag", len(models)) as advance:
        for name, each in models.items():
            advance(name, 0)
            words[name] = word_rows(name, each, top_k, tagger)
            advance(name, 1)
    counts = {name: count_groups({kind: row[kind] for kind in TAGSETS} for row in rows) for name, rows in words.items()}
    tests = tested_rows(counts)
    base = next(iter(models.values()))
    about = f"up to {top_k} words of each of {len(base.texts)} documents of {base.record['data']}"
    print(pos_text(counts, tests, about))
    written = [
        write_csv_atomic(out / TABLE, group_rows(counts)),
        write_csv_atomic(out / TESTS, tests),
        write_csv_atomic(out / WORDS, [row for rows in words.values() for row in rows]),
    ]
    with tolerated(out / PLOT):
        written.append(write_bytes_atomic(out / PLOT, png(pos_figure(counts, tests, about))))
    return written


def word_rows(name: str, explained: Explained, top_k: int, tagger: Tagger) -> list[dict]:
    """A row per top word of each document's predicted class: its weight, its tag and its groups.

    Raises:
        UserError: nothing is explained, or a word is not in its document's text.
    """
    rows = []
    for document, text in explained.texts.items():
        label = explained.predicted[document]
        weights = explained.weights.get((document, label), {})
        words = top_words(weights, top_k)
        tags = tagger.tags(text, words)
        rows += [{"model": name, "document": document, "class": label, "word": word, "weight": weights[word],
                  "tag": tags[word], **tagger.groups(tags[word])} for word in words]  # fmt: skip
    if not rows:
        raise UserError(f"{explained.folder}: no word of a predicted class is explained; explain the documents again")
    return rows


Counts = Mapping[str, Mapping[str, Counter]]
"""Model → set of groups → group → number of words."""


def group_rows(counts: Counts) -> list[dict]:
    """A row per model, set of groups and group: `words` and their `share` in all of the model."""
    return [
        {"model": name, "tagset": kind, "group": group, "words": sets[kind][group], "share": share}
        for name, sets in counts.items()
        for kind, groups in TAGSETS.items()
        for group, share in zip(groups, shares(sets[kind], groups), strict=True)
    ]


def tested_rows(counts: Counts) -> list[dict]:
    """A row per set of groups and model after the first: its chi-square test against the first."""
    base, *others = counts
    return [
        {"model": name, "base": base, "tagset": kind, **chi_square(counts[base][kind], counts[name][kind])}
        for name in others
        for kind in TAGSETS
    ]


def pos_text(counts: Counts, tests: Sequence[Mapping], about: str) -> str:
    """Shares in per cent, a table per set of groups, with the p-value of each model's test.

    Args:
        counts: of all models.
        tests: of `tested_rows`.
        about: what words were tagged.
    """
    parts = [f"shares in %, of {about}; p: chi-square test against {next(iter(counts))}"]
    for kind, title in _SETS.items():
        lines = [(title, "words", *TAGSETS[kind], "p")]
        for name, sets in counts.items():
            found = [test for test in tests if (test["model"], test["tagset"]) == (name, kind)]
            lines.append((name, str(sets[kind].total()), *(f"{100 * share:.1f}" for share in
                          shares(sets[kind], TAGSETS[kind])), _p_value(found[0]) if found else ""))  # fmt: skip
        parts.append(aligned(lines))
    return "\n\n".join(parts)


def _p_value(test: Mapping) -> str:
    return f"{test['p_value']:.3f}" if test["p_value"] >= 0.001 else "< 0.001"


def pos_figure(counts: Counts, tests: Sequence[Mapping], about: str) -> Figure:
    """Bars of the shares: the groups of Penn tags above, universal tags, and core and contextual words below.

    Args:
        counts: of all models.
        tests: of `tested_rows`.
        about: what words were tagged.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 8.5), layout="constrained")
    above, below = figure.subfigures(2, 1, squeeze=False)[:, 0]
    left, right = below.subplots(1, 2, width_ratios=(3, 1))
    for axes, kind in ((above.subplots(), "penn"), (left, "universal"), (right, "role")):
        _bars(axes, counts, kind)
    figure.suptitle(f"parts of speech of {about}", fontsize="medium", color="0.25")
    labels = []
    for name in counts:
        found = {test["tagset"]: _p_value(test) for test in tests if test["model"] == name}
        values = ", ".join(found.values())
        labels.append(f"{name} (p {values})" if found else f"{name} (the base of the tests)")
    handles = above.axes[0].get_legend_handles_labels()[0]
    figure.legend(handles, labels, loc="outside lower center", frameon=False, ncols=min(3, len(labels)),
                  title="p: chi-square tests of Penn groups, universal tags, core and contextual words")  # fmt: skip
    return figure


def _bars(axes: Axes, counts: Counts, kind: str):
    groups = [group for group in TAGSETS[kind] if any(sets[kind][group] for sets in counts.values())]
    width = 0.8 / len(counts)
    for index, (name, sets) in enumerate(counts.items()):
        places = [place + (index - (len(counts) - 1) / 2) * width for place in range(len(groups))]
        heights = [100 * share for share in shares(sets[kind], groups)]
        axes.bar(places, heights, width, color=model_style(index)["color"], label=label_text(name))
    axes.set_xticks(range(len(groups)), groups)
    axes.set_ylabel("share of the words (%)")
    axes.set_title(_SETS[kind], fontsize="medium")
    axes.grid(alpha=0.3, axis="y")
    axes.set_axisbelow(True)
