"""Explanations of models, and their comparison."""
