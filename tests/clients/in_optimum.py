"""`in_optimum.py FOLDER TEXTS.json FILE`: prints the probabilities of optimum's pipeline, a row per text."""

import json
import sys
from pathlib import Path

from optimum.onnxruntime import ORTModelForSequenceClassification
from transformers import AutoTokenizer, pipeline

folder, texts, file = sys.argv[1:]
model = ORTModelForSequenceClassification.from_pretrained(folder, subfolder="onnx", file_name=file)
classify = pipeline("text-classification", model, tokenizer=AutoTokenizer.from_pretrained(folder))
found = classify(json.loads(Path(texts).read_text()), top_k=None, truncation=True)
order = [model.config.id2label[index] for index in range(len(model.config.id2label))]
print(json.dumps([[{each["label"]: each["score"] for each in row}[label] for label in order] for row in found]))
