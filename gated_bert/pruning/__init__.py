"""Pruning: criterion × pattern × scope × schedule."""
