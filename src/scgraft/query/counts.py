"""Finds the raw counts of a query, recovers them exactly from log1p-normalised data, or says what was found instead."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from scgraft.errors import CorruptFile, NotCounts
from scgraft.files.structure import check_sparse

if TYPE_CHECKING:
    from anndata import AnnData

CHUNK = 4096
INTEGER_TOLERANCE = 1e-3
LIKELY_LAYERS = ("counts", "raw_counts", "count", "umi", "umis", "raw", "spliced")
FEW = 3


@dataclass(frozen=True)
class Counts:
    """Raw counts in CSR (n, m) float32, where they were, the names of their genes, and how far from integers they were."""

    matrix: sparse.csr_matrix
    source: str
    genes: np.ndarray
    deviation: float = 0.0


@dataclass(frozen=True)
class _Place:
    source: str
    matrix: Any
    genes: np.ndarray


def places(adata: AnnData, prefer: str | None = None) -> list[_Place]:
    """Everywhere counts could be, the likeliest first: the reference's own layer, X, named layers, the rest, raw."""
    names = [name for name in adata.layers if name is not None]  # anndata 0.13 lists X as the layer None
    genes = np.asarray(adata.var_names.astype(str))
    order = sorted(names, key=lambda n: (n != prefer, n.lower() not in LIKELY_LAYERS))
    layers = [_Place(f"layers[{n!r}]", adata.layers[n], genes) for n in order]
    first = [layers.pop(0)] if prefer in names else []
    found = first + ([_Place("X", adata.X, genes)] if adata.X is not None else []) + layers
    if adata.raw is not None:
        found.append(_Place("raw.X", adata.raw.X, np.asarray(adata.raw.var_names.astype(str))))
    return found


def find_counts(adata: AnnData, *, layer: str | None = None, prefer: str | None = None) -> Counts:
    """Raw counts of an AnnData.

    Parameters
    ----------
    adata
        In memory or backed; not changed.
    layer
        Where they must be: ``"X"``, ``"raw"`` or a layer. None looks everywhere.
    prefer
        Layer to look in first.

    Returns
    -------
    Counts
        Non-negative integers as float32; recovered from log1p-normalised data where that is provable.

    Raises
    ------
    NotCounts
        Negative, NaN or infinite values, fractions that cannot be undone, or nothing at all.
    """
    candidates = places(adata, prefer)
    if layer is not None:
        wanted = {"X": "X", "raw": "raw.X"}.get(layer, f"layers[{layer!r}]")
        chosen = [p for p in candidates if p.source == wanted]
        if not chosen:
            raise NotCounts(
                f"The query has no {wanted}; it has {', '.join(p.source for p in candidates) or 'nothing'}."
            )
        candidates = chosen
    problems, fractional = [], []
    for place in candidates:
        problem = _peek(place.matrix)
        if problem is None:
            matrix = to_csr(place.matrix)
            problem = _problem(matrix, place, adata)
            if problem is None:
                return Counts(matrix, place.source, place.genes)
        if problem == "fractions":
            fractional.append(place)
            problem = "has fractions"
        problems.append(f"{place.source} {problem}")
    for place in fractional:
        recovered = _recover(to_csr(place.matrix), adata)
        if recovered is not None:
            matrix, deviation = recovered
            how = f"recovered from log1p-normalised {place.source} (largest deviation from an integer {deviation:.1g})"
            return Counts(matrix, how, place.genes, deviation)
    raise NotCounts(
        "No raw counts were found, and none can be recovered exactly: "
        + "; ".join(problems or ["the query holds no matrix"])
        + ". Put the raw UMI counts into X or a layer (before normalisation, scaling or batch correction). Counts that a "
        "tool has corrected to fractions (CellBender, SoupX) can be rounded: adata.layers['counts'] = adata.X.round()."
    )


def _peek(matrix: Any) -> str | None:
    """A cheap look at the first cells, so that a matrix which is clearly not counts is not read whole."""
    head = to_csr(matrix[: min(50, matrix.shape[0])])
    if not np.isfinite(head.data).all():
        return None  # the full look names the cells
    if len(head.data) and head.data.min() >= 0 and np.abs(head.data - np.rint(head.data)).max() > INTEGER_TOLERANCE:
        return "fractions"
    return None


def _chunks(matrix: Any) -> Iterator[Any]:
    for start in range(0, matrix.shape[0], CHUNK):
        yield matrix[start : start + CHUNK]


def to_csr(matrix: Any) -> sparse.csr_matrix:
    """CSR float32 without explicit zeros, rows read in chunks; a dense matrix is never copied whole."""
    if sparse.issparse(matrix):
        out = sparse.csr_matrix(_sound(matrix), dtype=np.float32, copy=False)
    else:
        parts = [sparse.csr_matrix(_sound(c), dtype=np.float32) for c in _chunks(matrix)]
        out = sparse.vstack(parts, format="csr") if parts else sparse.csr_matrix(matrix.shape, dtype=np.float32)
    out = sparse.csr_matrix(out)
    if not out.has_canonical_format or (out.data == 0).any():
        out = out.copy()
        out.sum_duplicates()
        out.eliminate_zeros()
    return out


def _sound(matrix: Any) -> Any:
    """The matrix, whose indices compiled code is going to follow."""
    try:
        check_sparse(matrix, "The matrix of counts")
    except CorruptFile as error:
        raise NotCounts(str(error)) from error
    return matrix


def _problem(matrix: sparse.csr_matrix, place: _Place, adata: AnnData) -> str | None:
    data = matrix.data
    for name, wrong in (("NaN", np.isnan(data)), ("infinite", np.isinf(data)), ("negative", data < 0)):
        if wrong.any():
            return f"has {name} values ({_where(matrix, wrong, place, adata)})"
    if len(data) == 0:
        return "has no count at all"
    if np.abs(data - np.rint(data)).max() > INTEGER_TOLERANCE:
        return "fractions"
    return None


def _where(matrix: sparse.csr_matrix, wrong: np.ndarray, place: _Place, adata: AnnData) -> str:
    """The first cells and genes concerned, by name."""
    at = np.flatnonzero(wrong)[:FEW]
    rows = np.searchsorted(matrix.indptr, at, side="right") - 1
    pairs = [f"cell {adata.obs_names[r]} gene {place.genes[matrix.indices[i]]}" for r, i in zip(rows, at, strict=True)]
    return f"{int(wrong.sum())} of {matrix.nnz} stored, e.g. {', '.join(pairs)}; range {matrix.data.min():.3g} to {matrix.data.max():.3g}"


def _recover(matrix: sparse.csr_matrix, adata: AnnData) -> tuple[sparse.csr_matrix, float] | None:
    """Counts from log1p(count / size * target): in each cell the values are integer multiples of one unit.

    The unit is the smallest value (one count in nearly every cell), a half to a tenth of it, or comes from a column with
    the total counts; it is then refined by least squares. Accepted only when *every* value of every cell is a multiple
    within what the stored digits resolve.
    """
    data = matrix.data.astype(np.float64)
    if not len(data) or (data < 0).any() or not np.isfinite(data).all() or data.max() > 30:
        return None
    linear, cell = np.expm1(data), np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    blur = _resolution(data) * (1 + linear)
    n, filled = matrix.shape[0], np.diff(matrix.indptr) > 0
    smallest, sums = np.full(n, np.inf), np.bincount(cell, linear, n)
    np.minimum.at(smallest, cell, linear)
    units = [smallest / k for k in range(1, 11)]
    units += [sums / np.asarray(adata.obs[c], dtype=np.float64) for c in _total_columns(adata)]
    counts, deviation = np.zeros(len(data)), np.full(n, np.inf)
    for unit in units:
        multiple, error = _multiples(linear, blur, cell, unit)
        better = (error < 1) & ~(deviation < 1)
        counts = np.where(better[cell], np.rint(multiple), counts)
        deviation = np.where(better, error, deviation)
        if (deviation[filled] < 1).all():
            off = np.abs(multiple - np.rint(multiple))[better[cell]]
            out = sparse.csr_matrix((counts.astype(np.float32), matrix.indices, matrix.indptr), shape=matrix.shape)
            return out, float(off.max(initial=0.0))
    return None


def _total_columns(adata: AnnData) -> list[str]:
    known = ("n_counts", "total_counts", "nCount_RNA", "n_umi", "nUMI")
    return [c for c in known if c in adata.obs and np.issubdtype(adata.obs[c].dtype, np.number)]


def _resolution(data: np.ndarray) -> np.ndarray:
    """Largest rounding error of each stored value: of float32, or of as many decimals as the file was rounded to."""
    for decimals in (3, 4, 5):
        if np.abs(data - np.round(data, decimals)).max() < 2e-6:
            return np.full(len(data), 0.5 * 10.0**-decimals + 1e-6)
    return np.maximum(np.abs(data), 1.0) * 3e-7


def _multiples(
    linear: np.ndarray, blur: np.ndarray, cell: np.ndarray, unit: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Values in units of each cell, the unit refined; and each cell's worst distance from an integer over what is allowed.

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
    return multiple, worst
