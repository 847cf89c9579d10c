"""Tells names of chromatin regions from names of genes: intervals of a genome, written in several ways."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

REGION = re.compile(r"(chr[\w.]+|[\dXYM]{1,2}|[A-Z]{2}\d{6}\.\d)[:_-](\d+)[_-](\d+)", re.IGNORECASE)
SAMPLED = 200  # names that are looked at to tell what all of them are


def are_regions(names: Sequence[str] | np.ndarray) -> bool:
    """Whether the names are intervals of a genome, judged by the first two hundred."""
    sample = [str(name) for name in names[:SAMPLED]]
    return bool(sample) and sum(REGION.fullmatch(name) is not None for name in sample) > len(sample) / 2


def regions_among(names: Sequence[str] | np.ndarray) -> np.ndarray:
    """Which names are intervals of a genome, (m,) bool."""
    return np.array([REGION.fullmatch(str(name)) is not None for name in names], dtype=bool)
