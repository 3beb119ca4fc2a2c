"""Tables that an earlier command wrote, read again: what is no table of its columns is one sentence."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from gated_bert.support.errors import UserError, one_line

if TYPE_CHECKING:
    import pandas as pd

_REMEDY = "remove it, and have it written again"


def read_csv(path: Path, numbers: Collection[str] = (), others: Collection[str] = ()) -> pd.DataFrame:
    """A table with a header line.

    Args:
        path: a CSV file.
        numbers: columns that have to be there, and hold numbers or nothing.
        others: columns that have to be there.

    Raises:
        UserError: no such file, no CSV, or a missing column or one of other cells.
    """
    import pandas as pd

    if not Path(path).is_file():
        raise UserError(f"{path}: no such file")
    try:
        table = pd.read_csv(path)
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: cannot be read as CSV ({one_line(error)}); {_REMEDY}") from None
    for name in (*numbers, *others):
        if name not in table:
            raise UserError(f"{path}: no column {name!r}; {_REMEDY}")
    for name in numbers:
        if not pd.api.types.is_numeric_dtype(table[name]):
            raise UserError(f"{path}: column {name}: not all of it is numbers; {_REMEDY}")
    return table
