"""Names of covariates and of their levels."""

from __future__ import annotations

import reprlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

BATCH = "batch"


def covariate_name(key: str) -> str:
    """Name of an extra categorical covariate among slots and levels."""
    return f"covariate:{key}"


def level_name(value: Any) -> str:
    """Text of one level of a categorical column: ``3``, ``3.0`` and ``"3"`` are the same level.

    A date is written as pandas writes it, whichever library it comes from.
    """
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    if isinstance(value, np.datetime64):
        return str(value.astype("datetime64[us]").item())
    return str(value)


def column_text(column: pd.Series[Any]) -> np.ndarray:
    """A column as text, (n,) str, every value named by :func:`level_name`; a missing value is ``"nan"``."""
    import pandas as pd

    codes, values = pd.factorize(np.asarray(column.astype(object), dtype=object))
    return np.array([*(level_name(value) for value in values), "nan"], dtype=str)[codes]  # a missing value has code -1


def shown(value: object) -> str:
    """A value from a file in an error message: short, however large or deep it is."""
    return reprlib.repr(value)
