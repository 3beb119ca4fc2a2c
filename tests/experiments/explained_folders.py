"""Folders of explanations for tests, as `gated-bert explain` writes them."""

import json

TEXTS = {0: "They plan to beat the champions.", 2: "Shares of the bank rose on Monday.", 5: "Troops can march to war."}
CLASSES = ["World", "Sports", "Business", "Sci/Tech"]
LABELS = {0: "Sports", 2: "Business", 5: None}
WEIGHTS = {
    (0, "Sports"): {"champions": 0.5, "beat": 0.3, "to": -0.1, "plan": 0.05},
    (2, "Business"): {"Shares": 0.6, "bank": 0.4, "on": 0.02},
    (5, "World"): {"Troops": 0.4, "war": 0.3, "can": 0.1, "to": -0.05},
}


def write_folder(place, weights=WEIGHTS, predicted=None, texts=TEXTS, gold=LABELS, **record):
    """Writes a folder; the first class explained of each document is the predicted one unless `predicted` says."""
    place.mkdir(parents=True)
    first = {}
    for document, label in weights:
        first.setdefault(document, label)
    first |= predicted or {}
    lines = []
    for number, text in texts.items():
        found = [
            {"class": label, "intercept": 0.2, "fidelity": 0.9,
             "words": [{"word": word, "weight": weight, "positions": [0]} for word, weight in words.items()]}
            for (document, label), words in weights.items() if document == number
        ]  # fmt: skip
        shares = {name: float(name == first[number]) for name in CLASSES}
        lines.append({"document": number, "text": text, "label": gold[number], "predicted": first[number],
                      "probabilities": shares, "explanations": found})  # fmt: skip
    (place / "documents.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    made = {"kind": "words", "model": f"gone/{place.name}", "task": "ag_news", "labels": CLASSES, "data": "news, test",
            "documents": list(texts), "seed": 0, "num_features": 10, "num_samples": 500, "max_len": 64}  # fmt: skip
    (place / "record.json").write_text(json.dumps({**made, "complete": True, **record}))
    return place
