"""Finds the raw counts of a query: every place is judged, the best is taken, and doubt is said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from scgraft.errors import NotCounts
from scgraft.query.evidence import common_divisor, refusal
from scgraft.query.judge import (
    INTEGER_TOLERANCE,
    NAMED,
    REFUSED,
    UNNAMED,
    Asked,
    Judged,
    Used,
    best_of,
    doubts,
    first_problem,
    judge,
    passed_over,
    wrong_values,
)
from scgraft.query.places import JUDGED, Cells, Place, cells_of, judged_rows, sample, to_csr
from scgraft.query.recover import FEWEST_VALUES, looks_like, recover

if TYPE_CHECKING:
    from anndata import AnnData

FEW = 3  # examples in a sentence; chosen by eye


@dataclass(frozen=True)
class Counts:
    """Raw counts in CSR (n, m) float32, the place that they come from, and how far from integers they were.

    `source` says it in words. `notes` are sentences for the user: what is odd, and why another place was passed over. `from_log`
    says whether they were recovered from log1p of normalised counts.
    """

    matrix: sparse.csr_matrix
    source: str
    place: Place
    deviation: float = 0.0
    notes: tuple[str, ...] = ()
    from_log: bool = False

    @property
    def genes(self) -> np.ndarray:
        """Names of the genes, (m,) str."""
        return self.place.genes


def find_counts(
    adata: AnnData,
    *,
    layer: str | None = None,
    prefer: str | None = None,
    used: Used | None = None,
    molecules: bool = True,
) -> Counts:
    """Raw counts of an AnnData.

    Parameters
    ----------
    adata
        In memory or backed; not changed.
    layer
        Where they must be: ``"X"``, ``"raw"`` or a layer. None looks everywhere.
    prefer
        Layer to look in first.
    used
        Columns of a place that matter, and what share of the reference's weight they have; None: all of them, all of it.
    molecules
        Whether the counts are of molecules (or reads) of genes, which have laws of their own; peaks have not.

    Returns
    -------
    Counts
        Non-negative integers as float32: from the place with the most of the reference's weight among those that hold
        counts by the evidence of their values and their name; recovered from log1p-normalised data where that is provable.

    Raises
    ------
    NotCounts
        Negative, NaN or infinite values, fractions that cannot be undone, whole numbers that are no counts (a mask, ranks,
        rounded logarithms), or nothing at all.
    """
    cells, asked = cells_of(adata, prefer), Asked(prefer, layer, molecules)
    _, found = take_first(cells, asked, used, lambda judged, others: _read(judged, cells, others))
    return found


def take_first(
    cells: Cells, asked: Asked, used: Used | None, read: Callable[[Judged, Sequence[Judged]], Any]
) -> tuple[Judged, Any]:
    """The best place by the evidence of a sample, and what `read` makes of it; the next one where that is a problem in words.

    Raises
    ------
    NotCounts
        No place is left; the text says what is wrong with each.
    """
    use = used or (lambda place: (np.arange(len(place.genes)), 1.0))
    judged = [judge(cells, place, use(place), asked) for place in _candidates(cells, asked.layer)]
    while (best := best_of(judged)) is not None:
        others = [j for j in judged if j is not best]
        found = read(best, others)
        if not isinstance(found, str):
            return best, found
        judged = [replace(j, kind=REFUSED, problem=found) if j is best else j for j in judged]
    problems = [f"{j.place.source} {j.problem}" for j in judged]
    raise NotCounts(
        "No raw counts were found, and none can be recovered exactly: "
        + "; ".join(problems or ["the query holds no matrix"])
        + ". Put the raw UMI counts into X or a layer (before normalisation, scaling or batch correction)."
        + _rounding([j for j in judged if j.problem and "has fractions" in j.problem])
    )


def counts_of(
    judged: Judged, matrix: sparse.csr_matrix, totals: Sequence[np.ndarray], names: Callable[[np.ndarray], list[str]]
) -> Counts | str:
    """The counts of some or all cells of a place from its values there; or what is wrong with them.

    Parameters
    ----------
    judged
        What the sample said of the place.
    matrix
        Its values, CSR (k, m).
    totals
        Total counts of these cells, each (k,), as far as they are known.
    names
        Their names by position.
    """
    place, problem = judged.place, first_problem(matrix[:, judged.used])
    if problem == "fractions":
        return _recovered(judged, matrix, totals, names)
    if problem is not None:
        return problem + _where(matrix, judged, names) + _likeness(matrix)
    if judged.factor > 1 and common_divisor(matrix) % judged.factor == 0:
        how = f"recovered from {place.source}, where every value is {judged.factor} times a count"
        return Counts(sparse.csr_matrix(matrix / judged.factor, dtype=np.float32), how, place)
    return Counts(matrix, place.source, place)


def _candidates(cells: Cells, layer: str | None) -> Sequence[Place]:
    if layer is None:
        return cells.places
    wanted = {"X": "X", "raw": "raw.X"}.get(layer, f"layers[{layer!r}]")
    chosen = [p for p in cells.places if p.source == wanted]
    if not chosen:
        raise NotCounts(f"The query has no {wanted}; it has {', '.join(p.source for p in cells.places) or 'nothing'}.")
    return chosen


def _read(judged: Judged, cells: Cells, others: Sequence[Judged]) -> Counts | str:
    """The counts of a place, read whole; or what is wrong with them, where the sample did not show it."""
    matrix = to_csr(judged.place.matrix)
    found = counts_of(judged, matrix, list(cells.totals.values()), cells.names)
    if isinstance(found, str):
        return found
    if not len(matrix[:, judged.used].data):
        return "has no count at all"
    if found.from_log:
        found = _stored(found, others)
    return replace(found, notes=(*doubts(judged), *passed_over(judged, others)))


def _stored(found: Counts, others: Sequence[Judged]) -> Counts:
    """A layer of the same counts, taken in the stead of recovered ones."""
    for other in others:
        if other.kind in (NAMED, UNNAMED) and _equal(found.matrix, other.place):
            return Counts(to_csr(other.place.matrix), other.place.source, other.place)
    return found


def _recovered(
    judged: Judged, matrix: sparse.csr_matrix, totals: Sequence[np.ndarray], names: Callable[[np.ndarray], list[str]]
) -> Counts | str:
    """Counts from log1p-normalised values."""
    place, found = judged.place, recover(matrix, totals)
    if found is None:
        return "has fractions" + _where(matrix, judged, names) + _likeness(matrix)
    if len(found.ambiguous):
        some = ", ".join(names(found.ambiguous[:FEW]))
        return (
            f"is log1p-normalised, but {len(found.ambiguous)} cells have fewer than {FEWEST_VALUES} values and no total, so that "
            f"their counts could be multiples ({some}): filter these cells, or give the total counts in obs['n_counts']"
        )
    if (problem := refusal(found.matrix[:JUDGED])) is not None:
        return f"is made by log1p of values that are no counts: it {problem}"
    how = f"recovered from log1p-normalised {place.source} (largest deviation from an integer {found.deviation:.1g})"
    return Counts(found.matrix, how, place, found.deviation, from_log=True)


def _likeness(matrix: sparse.csr_matrix) -> str:
    kind = looks_like(matrix)
    return f", and looks like {kind}" if kind else ""


def _equal(matrix: sparse.csr_matrix, place: Place) -> bool:
    if place.matrix.shape != matrix.shape:
        return False
    return (sample(place.matrix) != matrix[judged_rows(matrix.shape[0])]).nnz == 0


def _where(matrix: sparse.csr_matrix, judged: Judged, names: Callable[[np.ndarray], list[str]]) -> str:
    """The first cells and genes concerned, by name, among the genes that count."""
    counted = np.zeros(matrix.shape[1], bool)
    counted[judged.used] = True
    wrong = next(w for _, w in ((n, w & counted[matrix.indices]) for n, w in wrong_values(matrix.data)) if w.any())
    at = np.flatnonzero(wrong)[:FEW]
    cells = names(np.searchsorted(matrix.indptr, at, side="right") - 1)
    genes = judged.place.genes[matrix.indices[at]]
    pairs = [f"cell {c} gene {g} {v:.4g}" for c, g, v in zip(cells, genes, matrix.data[at], strict=True)]
    low, high = np.nanmin(matrix.data), np.nanmax(matrix.data)
    return f" ({int(wrong.sum())} of {matrix.nnz} stored, e.g. {', '.join(pairs)}; range {low:.3g} to {high:.3g})"


def _rounding(fractional: list[Judged]) -> str:
    """The advice to round, only for values that are counts but for a correction: most of them whole."""
    for judged in fractional:
        data = sample(judged.place.matrix).data
        if (np.abs(data - np.rint(data)) <= INTEGER_TOLERANCE).mean() > 0.5:
            where = judged.place.source
            return (
                f" Most values of {where} are whole: if a tool has corrected counts (CellBender, SoupX, RSEM), round them: "
                f"adata.layers['counts'] = adata.{where}.round()."
            )
    return ""
