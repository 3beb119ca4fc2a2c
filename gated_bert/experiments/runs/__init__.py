"""One run: training, evaluation, resume points."""
