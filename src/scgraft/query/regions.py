"""Names of chromatin regions: the same interval is written in several ways, and other intervals are other features."""

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


def same_spelling(names: np.ndarray) -> np.ndarray:
    """Names as ``chr1:1-2``, from ``chr1:1-2``, ``chr1-1-2``, ``chr1_1_2`` or ``1:1-2``; others as they are."""
    return np.array([_spell(str(name)) for name in names], dtype=str)


def _spell(name: str) -> str:
    match = REGION.fullmatch(name)
    if match is None:
        return name
    chromosome, start, end = match.groups()
    chromosome = chromosome if chromosome.lower().startswith("chr") or "." in chromosome else f"chr{chromosome}"
    return f"{chromosome}:{start}-{end}"


def spelled_as(reference: np.ndarray, query: np.ndarray) -> np.ndarray:
    """The query's regions as the reference spells them; names that are no region of the reference stay as they are."""
    if not are_regions(reference):
        return query
    known = dict(zip(same_spelling(reference).tolist(), reference.astype(str).tolist(), strict=True))
    own = query.tolist()
    return np.array([known.get(s, n) for s, n in zip(same_spelling(query).tolist(), own, strict=True)], dtype=str)


def other_peaks(n_found: int, reference: np.ndarray, query: np.ndarray) -> str | None:
    """What to do where both sides have regions, and they are not the same ones; None where that is not so."""
    if not (are_regions(reference) and are_regions(query)):
        return None
    return (
        f"Only {n_found} of the reference's {len(reference)} regions are among the query's {len(query)}: the query was "
        "counted on another set of peaks, and neighbouring intervals are not the same feature. Count the query's "
        "fragments again on the reference's regions, and check that both use the same genome build. "
        f"The reference has {', '.join(map(str, reference[:3]))}, ...; the query has {', '.join(map(str, query[:3]))}, ...."
    )
