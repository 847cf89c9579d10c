"""Names of covariates and of their levels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

BATCH = "batch"


def covariate_name(key: str) -> str:
    """Name of an extra categorical covariate among slots and levels."""
    return f"covariate:{key}"


def level_name(value: Any) -> str:
    """Text of one level of a categorical column: ``3``, ``3.0`` and ``"3"`` are the same level."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)


def column_text(column: pd.Series[Any]) -> np.ndarray:
    """A column as text, (n,) str; a missing value is ``"nan"`` (pandas 3 would leave it missing, and not sortable)."""
    return np.asarray(column.astype(object), dtype=object).astype(str)
