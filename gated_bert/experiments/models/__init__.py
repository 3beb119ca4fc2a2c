"""Models measured, shown and compared."""
