"""Fetching what a machine without a network will need, with checksums that a rerun verifies."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gated_bert.support.checks import choose
from gated_bert.support.errors import UserError
from gated_bert.support.partial import partial, partial_folder, remove_leftovers
from gated_bert.support.paths import user_path
from gated_bert.support.progress_bar import progress_bar
from gated_bert.tasks.ag_news import AG_NEWS_ID
from gated_bert.tasks.glue import LAYOUTS
from gated_bert.tasks.hub import GLUE_ID, hub_file, load_hub_dataset
from gated_bert.tasks.kinds import TARGET
from gated_bert.tasks.squad import SQUAD_ID
from gated_bert.tasks.task import GLUE_TASKS, Task
from gated_bert.tasks.text_lines import read_text
from gated_bert.tasks.tokenizer import BERT_ID

CHECKSUMS = "SHA256SUMS"
REMEDY = "run this where there is a network and copy the folder; without any data there is -d embedded"


@dataclass(frozen=True)
class Part:
    """Files that are fetched together.

    Attributes:
        title: name in the progress.
        files: paths in the download's folder.
        fetch: writes these files into the folder it is given.
    """

    title: str
    files: tuple[str, ...]
    fetch: Callable[[Path], object]


@dataclass(frozen=True)
class Downloaded:
    """What a download did.

    Attributes:
        folder: folder of the files.
        fetched: files that were fetched.
        verified: files that were there already, their checksums right.
        replaced: files among `fetched` that were there with a wrong checksum.
    """

    folder: Path
    fetched: list[str]
    verified: list[str]
    replaced: list[str]


def download(what: str, folder: str | os.PathLike) -> Downloaded:
    """Fetches data or a model from the hub into `folder`/`what`, in the layout that `-d`, `--vocab` and `-pt` read.

    `SHA256SUMS` holds the checksums (as of `sha256sum`); a rerun verifies them and fetches what is missing or damaged.

    Args:
        what: glue (all eight tasks, official layout), ag_news, squad, or bert (bert-base-uncased).
        folder: created if needed.

    Returns:
        The files fetched and verified.

    Raises:
        ConfigError: an unknown `what`.
        UserError: no network, an unwritable folder, or a file there that is not of a download.
    """
    choose("what", what, tuple(DOWNLOADS))
    place = user_path(folder) / what
    try:
        place.mkdir(parents=True, exist_ok=True)
        return _fetch_all(what, place, DOWNLOADS[what]())
    except OSError as error:
        raise UserError(f"{place}: cannot be written ({error.strerror or error}); choose another folder") from error


def _fetch_all(what: str, place: Path, parts: list[Part]) -> Downloaded:
    sums = _read_sums(place)
    done = Downloaded(place, [], [], [])
    with _progress(what, len(parts)) as advance:
        for part in parts:
            advance(part.title, 0)
            states = {name: _state(place, name, sums) for name in part.files}
            if set(states.values()) == {"right"}:
                done.verified.extend(part.files)
            else:
                _fetch(part, place, sums)
                done.fetched.extend(part.files)
                done.replaced.extend(name for name, state in states.items() if state == "wrong")
            advance(part.title, 1)
    return done


def _state(place: Path, name: str, sums: dict[str, str]) -> str:
    path = place / name
    if not path.exists():
        return "missing"
    if name not in sums:
        raise UserError(f"{path}: there already, and not of a download (not in {CHECKSUMS}); move it away")
    return "right" if checksum(path) == sums[name] else "wrong"


def _fetch(part: Part, place: Path, sums: dict[str, str]):
    # All parts of a place leave the same kind behind, so that a kill in one is mended by the next download of any.
    with partial_folder(place / "download") as temporary:
        part.fetch(temporary)
        for name in part.files:
            sums[name] = checksum(temporary / name)
        # Checksums first: a download killed between the two finds a missing file, not one it does not know.
        _write_sums(place, sums)
        for name in part.files:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(temporary / name, place / name)


def checksum(path: Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _read_sums(place: Path) -> dict[str, str]:
    path = place / CHECKSUMS
    if not path.is_file():
        return {}
    lines = [line.split("  ", 1) for line in read_text(path).splitlines()]
    if any(len(line) != 2 for line in lines):
        raise UserError(f"{path}: malformed (a line is `checksum  file`); remove it and {place}'s files to start again")
    return {name: value for value, name in lines}


def _write_sums(place: Path, sums: dict[str, str]):
    remove_leftovers(place / CHECKSUMS)
    temporary = partial(place / CHECKSUMS)
    temporary.write_text("".join(f"{sums[name]}  {name}\n" for name in sorted(sums)), encoding="utf-8")
    os.replace(temporary, place / CHECKSUMS)


@contextmanager
def _progress(what: str, parts: int):
    import datasets
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    # The libraries' own bars would be drawn across this one.
    disable_progress_bars()
    datasets.disable_progress_bars()
    try:
        with progress_bar(what, parts) as advance:
            yield advance
    finally:
        enable_progress_bars()
        datasets.enable_progress_bars()


def _glue() -> list[Part]:
    parts = []
    for task in GLUE_TASKS.values():
        splits = {"train": "train", **{split: split.replace("dev", "validation") for split in task.dev_splits}}
        files = {f"{LAYOUTS[task.name].folder}/{split}.tsv": hub_split for split, hub_split in splits.items()}

        def fetch(folder: Path, task=task, files=files):
            data = load_hub_dataset(GLUE_ID, task.name, REMEDY)
            for name, hub_split in files.items():
                (folder / name).parent.mkdir(exist_ok=True)
                write_glue_split(folder / name, task, data[hub_split].to_dict())

        parts.append(Part(task.title, tuple(files), fetch))
    return parts


def write_glue_split(path: Path, task: Task, columns: dict[str, list]) -> None:
    """Writes one split of a GLUE task as the official file is written.

    Args:
        path: the .tsv file.
        task: one of the GLUE tasks.
        columns: the hub's columns.
    """
    layout = LAYOUTS[task.name]
    breaks = str.maketrans("\t\r\n", "   ")
    texts = [[text.translate(breaks) for text in columns[name]] for name in layout.hub_texts]
    if task.kind == TARGET:
        labels = [f"{value:.3f}" for value in columns["label"]]
    else:
        labels = [layout.file_labels[value] for value in columns["label"]]
    index = [str(number) for number in range(len(labels))]
    header: tuple[str, ...] | None
    if task.name == "cola":
        header, rows = None, zip(["hub"] * len(labels), labels, [""] * len(labels), *texts, strict=True)
    elif task.name == "sst2":
        header, rows = ("sentence", "label"), zip(*texts, labels, strict=True)
    elif task.name == "mrpc":
        # The official file starts with a byte-order mark.
        header = ("\ufeffQuality", "#1 ID", "#2 ID", "#1 String", "#2 String")
        rows = zip(labels, index, index, *texts, strict=True)
    else:
        header, rows = ("index", *layout.texts, layout.label), zip(index, *texts, labels, strict=True)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in ([header] if header else []) + list(rows):
            file.write("\t".join(row) + "\n")


def _ag_news() -> list[Part]:
    def fetch(folder: Path):
        data = load_hub_dataset(AG_NEWS_ID, None, REMEDY)
        for split in ("train", "test"):
            columns = data[split].to_dict()
            with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
                # Official columns: class from 1, title, description; the hub has the last two as one text.
                writer.writerows(
                    (label + 1, "", text) for label, text in zip(columns["label"], columns["text"], strict=True)
                )

    return [Part("AG News", ("train.csv", "test.csv"), fetch)]


def _squad() -> list[Part]:
    names = {"train-v1.1.json": "train", "dev-v1.1.json": "validation"}

    def fetch(folder: Path):
        data = load_hub_dataset(SQUAD_ID, None, REMEDY)
        for name, split in names.items():
            (folder / name).write_text(json.dumps(squad_json(data[split].to_dict())), encoding="utf-8")

    return [Part("SQuAD v1.1", tuple(names), fetch)]


def squad_json(columns: dict[str, list]) -> dict:
    """The official SQuAD v1.1 JSON structure from the hub's columns: articles, their paragraphs, their questions."""
    articles: dict[str, dict[str, list]] = {}
    for title, context, question, name, answers in zip(
        *(columns[key] for key in ("title", "context", "question", "id", "answers")), strict=True
    ):
        pairs = zip(answers["text"], answers["answer_start"], strict=True)
        found = [{"answer_start": start, "text": text} for text, start in pairs]
        questions = articles.setdefault(title, {}).setdefault(context, [])
        questions.append({"id": name, "question": question, "answers": found})
    return {
        "version": "1.1",
        "data": [
            {"title": title, "paragraphs": [{"context": context, "qas": qas} for context, qas in paragraphs.items()]}
            for title, paragraphs in articles.items()
        ],
    }


def _bert() -> list[Part]:
    def part(name: str) -> Part:
        return Part(name, (name,), lambda folder: shutil.copyfile(hub_file(BERT_ID, (name,), REMEDY), folder / name))

    names = ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "config.json", "model.safetensors")
    return [part(name) for name in names]


DOWNLOADS = {"glue": _glue, "ag_news": _ag_news, "squad": _squad, "bert": _bert}
"""What can be fetched, by name."""
