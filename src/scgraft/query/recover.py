"""Counts from log1p-normalised values where that is provable, and what other transformed values look like."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from scgraft.query.evidence import NO_SPREAD, spread_of_totals

# A cell of fewer values could share a factor by accident: each is even about every second time, all ten once in a thousand.
FEWEST_VALUES = 10
LARGEST_LOG = 30.0  # exp(30) is more molecules than any cell has
USUAL_TARGETS = (1e4, 1e6)  # totals that cells are normalised to
MOST_COUNTS = 1e12  # of one gene in one normalised cell: a transformation that gives more was not made
LOOKED_AT = 200  # cells that tell a transformation

CLOSE, MOST = 0.005, 0.9  # a known total gives the unit but for rounding, and does so in nearly every cell


def _undo_log2(values: np.ndarray) -> np.ndarray:
    return np.exp2(values) - 1


def _undo_log10(values: np.ndarray) -> np.ndarray:
    return 10.0**values - 1


# How values were made of normalised counts, and how that is undone.
TRANSFORMS: tuple[tuple[str, Callable[[np.ndarray], np.ndarray]], ...] = (
    ("natural logarithms, log1p", np.expm1),
    ("log2 values, log2(x + 1)", _undo_log2),
    ("log10 values, log10(x + 1)", _undo_log10),
    ("normalised values without a logarithm (CP10k, CPM)", np.positive),
    ("square roots", np.square),
)


@dataclass(frozen=True)
class Recovered:
    """Counts in CSR float32, how far from integers they were, and cells whose counts could also be a multiple of these."""

    matrix: sparse.csr_matrix
    deviation: float
    ambiguous: np.ndarray


def recover(matrix: sparse.csr_matrix, totals: Sequence[np.ndarray] = ()) -> Recovered | None:
    """Counts from log1p(count / size * target): in each cell the values are integer multiples of one unit.

    The unit comes from the cells' total counts where they are known, else it is the smallest value (one count in nearly
    every cell) or a half to a tenth of it; it is then refined by least squares. Accepted only when *every* value of every
    cell is a multiple within what the stored digits resolve.

    Parameters
    ----------
    matrix
        Values, CSR (n, m).
    totals
        Total counts of the cells, each (n,), as far as they are known.
    """
    data = matrix.data.astype(np.float64)
    if not len(data) or not np.isfinite(data).all() or data.min() < 0 or data.max() > LARGEST_LOG:
        return None
    blur = _resolution(data)
    return _whole(np.expm1(data), blur * np.exp(data), matrix, totals)


def looks_like(matrix: sparse.csr_matrix) -> str | None:
    """What fractional values are, where it shows: a transformation, or centred and scaled values.

    Tried in turn: each transformation undone, do the cells have one total, or are the values multiples of one unit a cell?
    """
    data = matrix.data.astype(np.float64)
    if len(data) and np.isfinite(data).all() and data.min() < 0:
        return "scaled or centred values: some are negative"
    small = matrix[:LOOKED_AT].astype(np.float64)
    if not small.nnz or not np.isfinite(small.data).all():
        return None
    for name, inverse in TRANSFORMS:
        with np.errstate(over="ignore"):
            made = inverse(small.data)
        if not (np.isfinite(made).all() and made.max() < MOST_COUNTS):
            continue
        linear = sparse.csr_matrix((made, small.indices, small.indptr), shape=small.shape)
        slope = np.abs(inverse(small.data + 1e-6) - made) / 1e-6
        if spread_of_totals(linear) < NO_SPREAD or _whole(made, _resolution(small.data) * slope, small, ()) is not None:
            return name
    return None


def _whole(
    linear: np.ndarray, blur: np.ndarray, matrix: sparse.csr_matrix, totals: Sequence[np.ndarray]
) -> Recovered | None:
    """Counts of which `linear` are multiples, cell by cell; `blur` is how far each value may be off."""
    n, sizes = matrix.shape[0], np.diff(matrix.indptr)
    cell, filled = np.repeat(np.arange(n), sizes), sizes > 0
    smallest, sums = np.full(n, np.inf), np.bincount(cell, linear, n)
    np.minimum.at(smallest, cell, linear)
    known = [unit for total in totals for unit in _units(total, sums, smallest, filled)]
    counts, deviation, certain = np.zeros(len(linear)), np.full(n, np.inf), sizes >= FEWEST_VALUES
    for i, unit in enumerate([*known, *(smallest / k for k in range(1, 11))]):
        multiple, error, refined = _multiples(linear, blur, cell, unit)
        if i < len(known):
            error = np.where(np.abs(refined / unit - 1) < CLOSE, error, np.inf)
            if (error[filled] < 1).mean() < MOST:
                continue  # the totals are of something else: any unit's half or fifth has whole multiples, too
        better = (error < 1) & ~(deviation < 1)
        counts = np.where(better[cell], np.rint(multiple), counts)
        deviation = np.where(better, error, deviation)
        certain |= better & (i < len(known))
        if (deviation[filled] < 1).all():
            off = np.abs(multiple - np.rint(multiple))[better[cell]]
            out = sparse.csr_matrix((counts.astype(np.float32), matrix.indices, matrix.indptr), shape=matrix.shape)
            return Recovered(out, float(off.max(initial=0.0)), np.flatnonzero(filled & ~certain))
    return None


def _units(total: np.ndarray, sums: np.ndarray, smallest: np.ndarray, filled: np.ndarray) -> list[np.ndarray]:
    """One count of each cell, (n,), if its total is known: of all genes at hand, or normalised to what most cells show."""
    with np.errstate(divide="ignore", invalid="ignore"):
        own = float(np.median((smallest * total)[filled])) if filled.any() else 0.0
        return [sums / total, *(target / total for target in (own, *USUAL_TARGETS))]


def _resolution(data: np.ndarray) -> np.ndarray:
    """Largest rounding error of each stored value: of float32, or of as many decimals as the file was rounded to."""
    for decimals in (3, 4, 5):
        if np.abs(data - np.round(data, decimals)).max() < 2e-6:
            return np.full(len(data), 0.5 * 10.0**-decimals + 1e-6)
    return np.maximum(np.abs(data), 1.0) * 3e-7


def _multiples(
    linear: np.ndarray, blur: np.ndarray, cell: np.ndarray, unit: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values in units of each cell, the unit refined; each cell's worst distance from an integer over what is allowed; the unit.

    More than one is a failure. Where the stored digits cannot tell two integers apart, it is infinite.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        for _ in range(3):
            whole = np.rint(linear / unit[cell])
            weight = 1 / blur**2
            n = len(unit)
            refined = np.bincount(cell, weight * whole * linear, n) / np.bincount(cell, weight * whole**2, n)
            unit = np.where(np.isfinite(refined) & (refined > 0), refined, unit)
        multiple = linear / unit[cell]
        allowed = 0.01 + 2 * blur / unit[cell]
        error = np.abs(multiple - np.rint(multiple)) / allowed
        error[~np.isfinite(error) | (np.rint(multiple) < 1) | (allowed > 0.45)] = np.inf
    worst = np.zeros(len(unit))
    np.maximum.at(worst, cell, error)
    return multiple, worst, unit
