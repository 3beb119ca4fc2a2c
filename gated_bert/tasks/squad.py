"""SQuAD v1.1: its JSON files and its columns on the hub as questions, contexts and answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gated_bert.support.errors import UserError
from gated_bert.support.records import parse_record
from gated_bert.tasks.examples import SpanExamples, TaskData
from gated_bert.tasks.hub import load_hub_dataset
from gated_bert.tasks.own import SPLIT_SEED
from gated_bert.tasks.task import Task
from gated_bert.tasks.text_lines import read_text

SQUAD_ID = "rajpurkar/squad"
NO_SQUAD = "use -d embedded, or -d FOLDER with SQuAD's JSON files"
FOLDERS = ("squad", "SQuAD")
FORMAT = "a file in the format of SQuAD v1.1 is needed"
DEV_SHARE = 5
"""One article in so many is kept for development where there is a single file."""


@dataclass(frozen=True)
class Question:
    """One question as it stands in a file.

    Attributes:
        article: title of the article, or its number where it has none.
        name: the question's id.
        text: the question.
        context: the paragraph it is asked about.
        answers: accepted answers as (text, first character in the context).
    """

    article: str
    name: str
    text: str
    context: str
    answers: tuple[tuple[str, int], ...]


def read_hub_squad(task: Task) -> TaskData:
    """SQuAD from the hub, or from its cache where there is no network.

    Raises:
        UserError: no network and nothing cached, or unexpected columns.
    """
    splits = load_hub_dataset(SQUAD_ID, None, NO_SQUAD)
    train, dev = (_checked(_hub_questions(splits, name), f"{SQUAD_ID}, {name}") for name in ("train", "validation"))
    source = {"kind": "hub", "label": task.title, "path": SQUAD_ID, "partial": False}
    return TaskData(task, _examples(train), {"dev": _examples(dev)}, source)


def read_squad_folder(folder: Path, task: Task) -> TaskData:
    """SQuAD from JSON files (`.gz` accepted), in `folder` or in its sub-folder `squad`.

    There are `train*.json` and `dev*.json`, or a single file, of which one article in five, drawn with a fixed seed, is
    kept for development.

    Raises:
        UserError: a missing or malformed file, a question without an answer, an answer that is not where it should be.
    """
    place = next((folder / name for name in FOLDERS if (folder / name).is_dir()), folder)
    files = sorted(path for path in place.iterdir() if path.name.removesuffix(".gz").endswith(".json"))
    source = {"kind": "folder", "label": task.title, "path": str(place), "partial": False}
    if len(files) == 1:
        train, dev, split = _split(_checked(_file_questions(files[0]), str(files[0])), files[0])
        source |= {"label": f"{task.title} ({files[0].name} split by article)", "split": split}
    else:
        paths = [_one(place, files, split) for split in ("train", "dev")]
        train, dev = (_checked(_file_questions(path), str(path)) for path in paths)
    return TaskData(task, _examples(train), {"dev": _examples(dev)}, source)


def _one(place: Path, files: list[Path], split: str) -> Path:
    found = [path for path in files if path.name.startswith(split)]
    if len(found) > 1:
        raise UserError(f"{place}: both {found[0].name} and {found[1].name} are there; keep one of them")
    if not found:
        others = f" (found: {', '.join(path.name for path in files[:5])})" if files else ""
        raise UserError(
            f"{place}: no {split}*.json in it{others}; put {split}-v1.1.json there, "
            "or fetch it with `gated-bert download squad FOLDER`"
        )
    return found[0]


def _file_questions(path: Path) -> Iterator[Question]:
    content = parse_record(read_text(path), where=str(path), remedy=FORMAT, file_names=False)
    if not isinstance(content.get("data"), list):
        raise UserError(f"{path}: no list 'data' of articles in it; {FORMAT}")
    for number, article in enumerate(content["data"], 1):
        try:
            title = str(article.get("title") or number)
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    if question.get("is_impossible"):
                        raise UserError(_unanswerable(path, question["id"]))
                    answers = tuple((answer["text"], answer["answer_start"]) for answer in question["answers"])
                    yield Question(title, question["id"], question["question"], paragraph["context"], answers)
        except KeyError as error:
            raise UserError(f"{path}, article {number}: no field {error}; {FORMAT}") from error
        except (TypeError, AttributeError) as error:
            raise UserError(f"{path}, article {number}: an object or a list is out of place; {FORMAT}") from error


def _hub_questions(splits, name: str) -> Iterator[Question]:
    if name not in splits:
        raise UserError(f"{SQUAD_ID}: no split {name!r}; found: {', '.join(splits)}")
    names = ("title", "id", "question", "context", "answers")
    for column in names:
        if column not in splits[name].column_names:
            raise UserError(f"{SQUAD_ID}, {name}: no column {column!r}; found: {', '.join(splits[name].column_names)}")
    columns = splits[name].to_dict()
    for title, key, question, context, answers in zip(*(columns[column] for column in names), strict=True):
        yield Question(title, key, question, context, tuple(zip(answers["text"], answers["answer_start"], strict=True)))


def _unanswerable(where: object, name: object) -> str:
    return f"{where}: question {name} has no answer, as in SQuAD v2; remove such questions, {FORMAT}"


def _checked(questions: Iterable[Question], where: str) -> list[Question]:
    questions, seen, misplaced = list(questions), set(), []
    if not questions:
        raise UserError(f"{where}: no questions in it; {FORMAT}")
    for question in questions:
        for what, text in (("id", question.name), ("question", question.text), ("context", question.context)):
            if not isinstance(text, str) or not text.strip():
                raise UserError(f"{where}: question {question.name}: {what} is {text!r}, no text; correct or remove it")
        if question.name in seen:
            raise UserError(f"{where}: question {question.name} is there twice; keep one of the two")
        seen.add(question.name)
        if not question.answers:
            raise UserError(_unanswerable(where, question.name))
        misplaced += [(question, *answer) for answer in question.answers if not _is_there(question.context, *answer)]
    if misplaced:
        question, text, start = misplaced[0]
        raise UserError(
            f"{where}: question {question.name}: answer {text!r} does not stand at character {start} of its context"
            + (f" ({len(misplaced)} such answers in all)" if len(misplaced) > 1 else "")
            + "; correct answer_start, which counts characters from 0"
        )
    return questions


def _is_there(context: str, text: object, start: object) -> bool:
    if not isinstance(text, str) or not isinstance(start, int):
        return False
    return bool(text.strip()) and start >= 0 and context.startswith(text, start)


def _split(questions: list[Question], path: Path) -> tuple[list[Question], list[Question], str]:
    articles = list(dict.fromkeys(question.article for question in questions))
    if len(articles) < 2:
        raise UserError(f"{path}: one article only; at least two are needed to keep one for development")
    order = np.random.default_rng(SPLIT_SEED).permutation(len(articles))
    chosen = {articles[index] for index in order[: max(1, len(articles) // DEV_SHARE)]}
    train = [question for question in questions if question.article not in chosen]
    dev = [question for question in questions if question.article in chosen]
    split = (
        f"{len(chosen)} of the {len(articles)} articles of {path.name}, drawn with seed {SPLIT_SEED}, "
        "are the development examples"
    )
    return train, dev, split


def _examples(questions: list[Question]) -> SpanExamples:
    firsts = [question.answers[0] for question in questions]
    labels = np.array([(start, start + len(text)) for text, start in firsts], dtype=np.int32)
    texts, contexts, names = (
        [getattr(question, name) for question in questions] for name in ("text", "context", "name")
    )
    answers = [tuple(dict.fromkeys(text for text, _ in question.answers)) for question in questions]
    return SpanExamples(texts, contexts, labels, names, answers)
