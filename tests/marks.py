"""What only `./run_tests.sh --nightly` tries."""

import pytest


def nightly(*values, **options):
    """A set of parameters beside others that are tried every time."""
    return pytest.param(*values, marks=pytest.mark.nightly, **options)
