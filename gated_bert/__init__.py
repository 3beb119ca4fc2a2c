"""Pruning BERT-style models in Keras 3: gated layers, criteria, patterns, scopes and schedules."""
