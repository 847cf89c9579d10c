"""Finds the raw counts of a query: every place is judged, the best is taken, and doubt is said."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from scgraft.errors import CorruptFile, NotCounts
from scgraft.files.structure import check_sparse
from scgraft.query.evidence import FACTOR_VALUES, common_divisor, doubt, refusal
from scgraft.query.recover import FEWEST_VALUES, Recovered, looks_like, recover

if TYPE_CHECKING:
    from anndata import AnnData

CHUNK = 4096  # cells of a matrix on disk read at a time; chosen for memory, the speed was not measured
INTEGER_TOLERANCE = 1e-3  # float32 holds counts up to 16,000 so exactly; what quantifiers estimate is rarely that close
LIKELY_LAYERS = ("counts", "raw_counts", "count", "umi", "umis", "raw")
# Layers that hold whole numbers, and not the counts that references are trained on.
OTHER_LAYERS = re.compile(
    r"unspliced|nascent|ambiguous|binar|mask|log|norm|scale|rank|cpm|tpm|smooth|imput|magic|denois|residual|pearson",
    re.IGNORECASE,
)
TOTALS = ("n_counts", "total_counts", "nCount_RNA", "n_umi", "nUMI")
# Cells that every place is judged by, in blocks so that a file is read in few pieces.
JUDGED, BLOCKS = 2000, 8
AS_GOOD = 0.01  # of the reference's weight: less than this more is not worth a likelier place
FEW = 3  # examples in a sentence; chosen by eye

# Columns of a place that the reference uses, and the share of its weight that they have.
Used = Callable[["Place"], tuple[np.ndarray, float]]


@dataclass(frozen=True)
class Place:
    """Somewhere counts could be: its name, the matrix (n, m), and the names of its genes."""

    source: str
    matrix: Any
    genes: np.ndarray


@dataclass(frozen=True)
class Counts:
    """Raw counts in CSR (n, m) float32, the place that they come from, and how far from integers they were.

    `source` says it in words. `notes` are sentences for the user: what is odd, and why another place was passed over.
    """

    matrix: sparse.csr_matrix
    source: str
    place: Place
    deviation: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def genes(self) -> np.ndarray:
        """Names of the genes, (m,) str."""
        return self.place.genes


@dataclass(frozen=True)
class _Judged:
    """A place, what it is worth to the reference, its kind (a smaller one is better evidence), and what is wrong or odd."""

    place: Place
    used: np.ndarray
    weight: float
    kind: int
    factor: int = 1
    problem: str | None = None
    doubt: str | None = None


@dataclass(frozen=True)
class _Asked:
    """The layer to prefer, whether the place was named by the user, and whether counts of molecules are looked for."""

    prefer: str | None
    forced: bool
    molecules: bool


NAMED, RECOVERED, UNNAMED, DOUBTFUL, REFUSED = range(5)


def places(adata: AnnData, prefer: str | None = None) -> list[Place]:
    """Everywhere counts could be, the likeliest first: the reference's own layer, X, named layers, the rest, raw."""
    names = [name for name in adata.layers if name is not None]  # anndata 0.13 lists X as the layer None
    genes = np.asarray(adata.var_names.astype(str))
    order = sorted(names, key=lambda n: (n != prefer, n.lower() not in LIKELY_LAYERS))
    layers = [Place(f"layers[{n!r}]", adata.layers[n], genes) for n in order]
    first = [layers.pop(0)] if prefer in names else []
    x = _x(adata)
    found = first + ([Place("X", x, genes)] if x is not None else []) + layers
    if adata.raw is not None and adata.raw.X is not None:
        found.append(Place("raw.X", adata.raw.X, np.asarray(adata.raw.var_names.astype(str))))
    return found


def _x(adata: AnnData) -> Any:
    try:
        return adata.X
    except KeyError:  # a backed file without X
        return None


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
    candidates = places(adata, prefer)
    if layer is not None:
        wanted = {"X": "X", "raw": "raw.X"}.get(layer, f"layers[{layer!r}]")
        chosen = [p for p in candidates if p.source == wanted]
        if not chosen:
            raise NotCounts(
                f"The query has no {wanted}; it has {', '.join(p.source for p in candidates) or 'nothing'}."
            )
        candidates = chosen
    use = used or (lambda place: (np.arange(len(place.genes)), 1.0))
    ask = _Asked(prefer, layer is not None, molecules)
    judged = [_judge(place, adata, use(place), ask) for place in candidates]
    problems = []
    while usable := [j for j in judged if j.kind < REFUSED]:
        enough = max(j.weight for j in usable if j.kind < DOUBTFUL or all(k.kind == DOUBTFUL for k in usable)) - AS_GOOD
        best = min(usable, key=lambda j: (j.kind == DOUBTFUL, j.weight < enough, j.kind))
        others = [j for j in judged if j is not best]
        found = _read(best, adata, others)
        if isinstance(found, Counts):
            return replace(found, notes=(*found.notes, *_passed_over(best, others)))
        judged = [replace(j, kind=REFUSED, problem=found) if j is best else j for j in judged]
    problems = [f"{j.place.source} {j.problem}" for j in judged]
    raise NotCounts(
        "No raw counts were found, and none can be recovered exactly: "
        + "; ".join(problems or ["the query holds no matrix"])
        + ". Put the raw UMI counts into X or a layer (before normalisation, scaling or batch correction)."
        + _rounding([j for j in judged if j.problem and "has fractions" in j.problem])
    )


def _judge(place: Place, adata: AnnData, matters: tuple[np.ndarray, float], asked: _Asked) -> _Judged:
    """What a sample of the cells says of a place."""
    used, weight = matters
    used = used if len(used) else np.arange(len(place.genes))
    sample = to_csr(_sample(place.matrix))
    judged = _Judged(place, used, weight, UNNAMED)
    name = place.source.removeprefix("layers['").removesuffix("']")
    if place.source in ("X", "raw.X") or name == asked.prefer or name.lower() in LIKELY_LAYERS:
        judged = replace(judged, kind=NAMED)
    if not len(sample.data):
        return (
            judged if place.matrix.shape[0] > JUDGED else replace(judged, kind=REFUSED, problem="has no count at all")
        )
    if (problem := _first_problem(sample[:, used])) is not None:
        # What is wrong is named when the place is read whole, if nothing better is there.
        return replace(judged, kind=RECOVERED if problem == "fractions" and _fits_log1p(sample) else DOUBTFUL)
    if not asked.forced and judged.kind == UNNAMED and OTHER_LAYERS.search(name):
        return replace(judged, kind=REFUSED, problem="holds something else than the counts of a cell, by its name")
    if not asked.molecules:
        return judged
    whole = sample if _first_problem(sample) is None else sparse.csr_matrix(sample[:, used])
    whole.data = np.rint(whole.data)
    factor = common_divisor(whole) if whole.nnz >= FACTOR_VALUES else 1
    if factor > 1:
        whole = sparse.csr_matrix(whole / factor)
    if (problem := refusal(whole)) is not None:
        return replace(judged, kind=REFUSED, problem=problem)
    if (odd := doubt(whole) or _too_large(whole, adata, place)) is not None:
        return replace(judged, kind=DOUBTFUL, factor=factor, doubt=odd)
    return replace(judged, factor=factor)


def _read(judged: _Judged, adata: AnnData, others: list[_Judged]) -> Counts | str:
    """The counts of a place, read whole; or what is wrong with them, where the sample did not show it."""
    place, matrix = judged.place, to_csr(judged.place.matrix)
    problem = _first_problem(matrix[:, judged.used])
    if problem == "fractions":
        return _recovered(judged, matrix, adata, others)
    if problem is not None:
        return problem + _where(matrix, judged, adata) + _likeness(matrix)
    if not len(matrix[:, judged.used].data):
        return "has no count at all"
    notes = () if judged.doubt is None else (f"{place.source} {judged.doubt}: look whether these are raw counts.",)
    if judged.factor > 1 and common_divisor(matrix) % judged.factor == 0:
        how = f"recovered from {place.source}, where every value is {judged.factor} times a count"
        return Counts(sparse.csr_matrix(matrix / judged.factor, dtype=np.float32), how, place, 0.0, notes)
    return Counts(matrix, place.source, place, 0.0, notes)


def _recovered(judged: _Judged, matrix: sparse.csr_matrix, adata: AnnData, others: list[_Judged]) -> Counts | str:
    """Counts from log1p-normalised values; a layer of the same counts is taken in their stead."""
    place = judged.place
    found = recover(matrix, [np.asarray(adata.obs[c], dtype=np.float64) for c in _total_columns(adata)])
    if found is None:
        return "has fractions" + _where(matrix, judged, adata) + _likeness(matrix)
    if len(found.ambiguous):
        names = ", ".join(adata.obs_names[found.ambiguous[:FEW]].astype(str))
        return (
            f"is log1p-normalised, but {len(found.ambiguous)} cells have fewer than {FEWEST_VALUES} values and no total, so that "
            f"their counts could be multiples ({names}): filter these cells, or give the total counts in obs['n_counts']"
        )
    if (problem := refusal(found.matrix[:JUDGED])) is not None:
        return f"is made by log1p of values that are no counts: it {problem}"
    for other in others:
        if other.kind in (NAMED, UNNAMED) and _equal(found, other.place):
            return Counts(to_csr(other.place.matrix), other.place.source, other.place)
    how = f"recovered from log1p-normalised {place.source} (largest deviation from an integer {found.deviation:.1g})"
    return Counts(found.matrix, how, place, found.deviation)


def _likeness(matrix: sparse.csr_matrix) -> str:
    kind = looks_like(matrix)
    return f", and looks like {kind}" if kind else ""


def _equal(found: Recovered, place: Place) -> bool:
    if place.matrix.shape != found.matrix.shape:
        return False
    rows = np.concatenate([np.arange(s.start, s.stop) for s in _blocks(place.matrix.shape[0])])
    return (to_csr(_sample(place.matrix)) != found.matrix[rows]).nnz == 0


def _fits_log1p(sample: sparse.csr_matrix) -> bool:
    return recover(sample[: min(50, sample.shape[0])]) is not None


def _passed_over(best: _Judged, others: list[_Judged]) -> Iterator[str]:
    """Why a likelier place was not taken, in a sentence."""
    for other in others:
        if other.kind == NAMED and best.place.source != "X" and other.weight < best.weight - AS_GOOD:
            yield (
                f"The counts of {best.place.source} were taken, not those of {other.place.source}: they have {best.weight:.0%} of "
                f"what the reference looks at, those {other.weight:.0%}."
            )


def _too_large(matrix: sparse.csr_matrix, adata: AnnData, place: Place) -> str | None:
    """Whether cells have more than the total counts that obs gives them."""
    rows = np.concatenate([np.arange(s.start, s.stop) for s in _blocks(adata.n_obs)])
    sums = np.asarray(matrix.sum(axis=1)).ravel()
    for column in _total_columns(adata):
        total = np.asarray(adata.obs[column], dtype=np.float64)[rows]
        if (sums > 1.01 * total + 1).mean() > 0.1:
            return f"has larger totals than obs[{column!r}] says"
    return None


def _total_columns(adata: AnnData) -> list[str]:
    return [c for c in TOTALS if c in adata.obs and np.issubdtype(adata.obs[c].dtype, np.number)]


def _blocks(n: int) -> list[slice]:
    """Blocks of cells, evenly over the whole: all of them where they are few."""
    if n <= JUDGED:
        return [slice(0, n)]
    starts = np.linspace(0, n - JUDGED // BLOCKS, BLOCKS).astype(int)
    return [slice(int(s), int(s) + JUDGED // BLOCKS) for s in starts]


def _sample(matrix: Any) -> Any:
    parts = [to_csr(matrix[block]) for block in _blocks(matrix.shape[0])]
    return sparse.vstack(parts, format="csr") if len(parts) > 1 else parts[0]


def _chunks(matrix: Any) -> Iterator[Any]:
    for start in range(0, matrix.shape[0], CHUNK):
        yield _here(matrix[start : start + CHUNK])


def _here(matrix: Any) -> Any:
    """A piece of a matrix in memory: dask computes it."""
    return matrix.compute() if hasattr(matrix, "compute") else matrix


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


def _wrong(data: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """What can be wrong with values, the worst first, and which they are."""
    yield "NaN", np.isnan(data)
    yield "infinite", np.isinf(data)
    yield "negative", data < 0
    with np.errstate(invalid="ignore"):
        yield "fractions", np.abs(data - np.rint(data)) > INTEGER_TOLERANCE


def _first_problem(matrix: sparse.csr_matrix) -> str | None:
    name = next((name for name, wrong in _wrong(matrix.data) if wrong.any()), None)
    return name if name in (None, "fractions") else f"has {name} values"


def _where(matrix: sparse.csr_matrix, judged: _Judged, adata: AnnData) -> str:
    """The first cells and genes concerned, by name, among the genes that count."""
    counted = np.zeros(matrix.shape[1], bool)
    counted[judged.used] = True
    wrong = next(w for _, w in ((n, w & counted[matrix.indices]) for n, w in _wrong(matrix.data)) if w.any())
    at = np.flatnonzero(wrong)[:FEW]
    rows = np.searchsorted(matrix.indptr, at, side="right") - 1
    genes = judged.place.genes[matrix.indices[at]]
    pairs = [
        f"cell {adata.obs_names[r]} gene {g} {v:.4g}" for r, g, v in zip(rows, genes, matrix.data[at], strict=True)
    ]
    low, high = np.nanmin(matrix.data), np.nanmax(matrix.data)
    return f" ({int(wrong.sum())} of {matrix.nnz} stored, e.g. {', '.join(pairs)}; range {low:.3g} to {high:.3g})"


def _rounding(fractional: list[_Judged]) -> str:
    """The advice to round, only for values that are counts but for a correction: most of them whole."""
    for judged in fractional:
        data = to_csr(_sample(judged.place.matrix)).data
        if (np.abs(data - np.rint(data)) <= INTEGER_TOLERANCE).mean() > 0.5:
            where = judged.place.source
            return (
                f" Most values of {where} are whole: if a tool has corrected counts (CellBender, SoupX, RSEM), round them: "
                f"adata.layers['counts'] = adata.{where}.round()."
            )
    return ""
