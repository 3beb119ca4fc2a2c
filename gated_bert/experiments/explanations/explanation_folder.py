"""Folders of explanations: what is in them, and how they are gone on with after a stop.

`documents.jsonl` is the record: a line per explained document, written as a whole when the document is done. The table
and the page are made from it, and `record.json` says how the explanations came to be.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from gated_bert.experiments.explanations.explanation_page import explanation_page
from gated_bert.experiments.reports.names import short_names
from gated_bert.experiments.runs.lifecycle import FINISHED, RUNNING, lifecycle
from gated_bert.experiments.runs.output_folder import locked
from gated_bert.experiments.runs.same_record import changes
from gated_bert.explain.lime import Explanation
from gated_bert.support.checks import shown
from gated_bert.support.disk import own
from gated_bert.support.errors import UserError
from gated_bert.support.files import write_bytes_atomic, write_csv_atomic, write_json_atomic
from gated_bert.support.records import parse_record, read_record
from gated_bert.support.schemas import ExplainedDocument, ExplanationRecord

DOCUMENTS, TABLE, PAGE, RECORD = "documents.jsonl", "explanations.csv", "explanations.html", "record.json"
AGAIN = "explain the documents again"
NOT_COMPARED = ("versions", "hardware", "complete", "state", "message")
"""What of a record may differ between a command and its continuation."""


@contextmanager
def making(
    out: Path, record: Mapping[str, object], resume: bool, interrupted: Callable[[], str], what: str = "explanations"
) -> Iterator[None]:
    """Holds a folder while what is made there is made, and says in its record how far that is.

    Args:
        out: the folder.
        record: JSON values; all but `NOT_COMPARED` must be the same to go on.
        resume: whether to go on with what is there.
        interrupted: makes of what is there what can be made of it, and says what that is.
        what: what is made, for messages.

    Raises:
        UserError: there are explanations already, without `resume` or made otherwise, or another uses the folder.
        KeyboardInterrupt: stopped; its text is what `interrupted` says.
    """
    with locked(out):
        before = _record_to_go_on_with(out, record, resume, what)
        states = _states(out, record)
        states(RUNNING, "")

        def put_back(error: BaseException):
            # What was whole is as whole when a command that had nothing to add to it is refused.
            if before.get("complete"):
                write_json_atomic(out / RECORD, before)

        with lifecycle(states, interrupted, put_back):
            yield


def _record_to_go_on_with(out: Path, record: Mapping[str, object], resume: bool, what: str) -> dict:
    if not (out / RECORD).is_file():
        return {}
    if not resume:
        raise UserError(f"{out}: holds {what} already; go on with them by --resume, or choose another folder")
    found = read_record(out / RECORD)
    for name, (was, now) in changes(found, record, NOT_COMPARED).items():
        raise UserError(f"--resume: {out} was begun with {name} {shown(was)}, not {shown(now)}; give the same, or "
                        "choose another folder")  # fmt: skip
    return found


def _states(out: Path, record: Mapping[str, object]) -> Callable[[str, str], None]:
    """Writes a record with a state, as `lifecycle` calls it; whole is what is finished."""

    def write(state: str, message: str):
        about = {"message": message} if message else {}
        write_json_atomic(out / RECORD, {**record, "complete": state == FINISHED, "state": state, **about})

    return write


def go_on(out: Path) -> list[dict]:
    """The documents that are explained already, as `read_documents`; a line that a kill cut off is removed.

    Raises:
        UserError: a malformed file.
    """
    path = out / DOCUMENTS
    if not path.is_file():
        write_bytes_atomic(path, b"")
    content = path.read_bytes()
    if not content.endswith(b"\n"):
        write_bytes_atomic(path, content[: content.rfind(b"\n") + 1])
    return read_documents(out)


def document_line(
    number: int, text: str, label: int | None, shares: Sequence[float], explanations: Sequence[Explanation],
    classes: Sequence[str],
) -> dict:  # fmt: skip
    """The record of one document.

    Args:
        number: number of the document.
        text: its text.
        label: its class, where it is known.
        shares: the model's probability of each class.
        explanations: of this document.
        classes: names of the classes.
    """
    return {
        "document": number,
        "text": text,
        "label": None if label is None else classes[label],
        "predicted": classes[max(range(len(shares)), key=lambda index: shares[index])],
        "probabilities": {name: float(share) for name, share in zip(classes, shares, strict=True)},
        "explanations": [_explanation_entry(each, classes) for each in explanations],
    }


def _explanation_entry(each: Explanation, classes: Sequence[str]) -> dict:
    words = [{"word": word, "weight": float(weight), "positions": list(places)}
             for word, weight, places in zip(each.words, each.weights, each.positions, strict=True)]  # fmt: skip
    fidelity = None if each.fidelity != each.fidelity else each.fidelity
    return {"class": classes[each.label], "intercept": each.intercept, "fidelity": fidelity, "words": words}


def append_document(out: Path, line: Mapping[str, object]):
    """Adds a document to the record, in one piece, so that a kill leaves whole lines."""
    with open(own(out / DOCUMENTS), "ab", buffering=0) as file:
        file.write((json.dumps(line) + "\n").encode())


def read_documents(out: Path) -> list[dict]:
    """The lines of a folder's `documents.jsonl`, see `document_line`, without one that a kill cut off.

    Raises:
        UserError: no such file, or a malformed one.
    """
    path = out / DOCUMENTS
    if not path.is_file():
        raise UserError(f"{path}: no such file; `gated-bert explain MODEL … -o {out}` writes it")
    found, numbers = [], set()
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        where = f"{path}, line {number}"
        document = parse_record(line, ExplainedDocument, where=where, remedy=AGAIN, file_names=False, lines=False)
        classes = document["probabilities"].keys()
        for name in (document["predicted"], *(each["class"] for each in document["explanations"])):
            if name not in classes:
                raise UserError(f"{where}: the class {name!r:.60} has no probability; {AGAIN}")
        if document["document"] in numbers:
            raise UserError(f"{where}: document {document['document']} is there twice; {AGAIN}")
        numbers.add(document["document"])
        found.append(document)
    return found


def write_views(out: Path, title: str, note: str) -> list[Path]:
    """Writes `explanations.csv`, a row per word, and `explanations.html` from what is explained so far.

    Args:
        out: the folder.
        title: title of the page.
        note: a line below it.
    """
    documents = sorted(read_documents(out), key=lambda line: line["document"])
    rows = [{"document": line["document"], "class": each["class"], "word": word["word"], "weight": word["weight"],
             "fidelity": each["fidelity"]}
            for line in documents for each in line["explanations"] for word in each["words"]]  # fmt: skip
    columns = ("document", "class", "word", "weight", "fidelity")
    return [
        write_csv_atomic(out / TABLE, pd.DataFrame(rows, columns=columns)),
        write_bytes_atomic(out / PAGE, explanation_page(title, note, {"": documents})),
    ]


def write_some(folder: Path, out: Path, documents: Collection[int]):
    """Makes a folder of the explanations of some of another folder's documents.

    Args:
        folder: of explanations.
        out: the new folder; explanations in it are replaced.
        documents: numbers of the documents that it holds.
    """
    record = read_record(folder / RECORD, ExplanationRecord, remedy=AGAIN)
    lines = [line for line in read_documents(folder) if line["document"] in documents]
    write_json_atomic(out / RECORD, {**record, "complete": False, "state": RUNNING})
    write_bytes_atomic(out / DOCUMENTS, "".join(json.dumps(line) + "\n" for line in lines).encode())
    write_views(out, f"Explanations of {short_names([Path(record['model'])])[0]}", str(record["data"]))
    kept = [number for number in record.get("documents", sorted(documents)) if number in documents]
    write_json_atomic(out / RECORD, {**record, "documents": kept})
