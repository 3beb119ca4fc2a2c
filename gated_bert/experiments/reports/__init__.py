"""Runs read again: tables, plots, pages."""
