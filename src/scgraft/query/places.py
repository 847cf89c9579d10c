"""Where the counts of a query could be: every matrix, in memory or on disk, with what is needed to judge it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from scgraft.errors import CorruptFile, NotCounts
from scgraft.files.structure import check_sparse

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

CHUNK = 4096  # cells of a matrix on disk read at a time; chosen for memory, the speed was not measured
LIKELY_LAYERS = ("counts", "raw_counts", "count", "umi", "umis", "raw")
TOTALS = ("n_counts", "total_counts", "nCount_RNA", "n_umi", "nUMI")
# Cells that every place is judged by, in blocks so that a file is read in few pieces; chosen by eye.
JUDGED, BLOCKS = 2000, 8


@dataclass(frozen=True)
class Place:
    """Somewhere counts could be.

    `source` names it for the user; `matrix` (n, m) gives rows for a slice; `var` (m,) is what is known of its genes; `layer` is
    its key where it is a layer; `problem` says why it cannot be looked at.
    """

    source: str
    matrix: Any
    var: pd.DataFrame
    layer: str | None = None
    problem: str | None = None

    @property
    def genes(self) -> np.ndarray:
        """Names of the genes, (m,) str."""
        return np.asarray(self.var.index.astype(str))


@dataclass(frozen=True)
class Cells:
    """Cells whose counts are looked for.

    Parameters
    ----------
    places
        Where they could be, the likeliest first.
    n
        Number of cells.
    totals
        Total counts of the cells as obs gives them, by column, each (n,) float64.
    names
        Names of the cells at some positions.
    """

    places: tuple[Place, ...]
    n: int
    totals: Mapping[str, np.ndarray]
    names: Callable[[np.ndarray], list[str]]


def cells_of(adata: AnnData, prefer: str | None = None) -> Cells:
    """Every place of an AnnData: the reference's own layer, X, named layers, the rest, raw."""
    layers = {name: adata.layers[name] for name in adata.layers if name is not None}  # anndata 0.13 lists X as one
    raw = _raw(adata)
    return Cells(
        in_order(_x(adata), layers, adata.var, None if raw is None else (raw, adata.raw.var), prefer),
        adata.n_obs,
        totals_of(adata.obs),
        lambda rows: [str(name) for name in adata.obs_names[rows]],
    )


def in_order(
    x: Any | None,
    layers: Mapping[str, Any],
    var: pd.DataFrame,
    raw: tuple[Any, pd.DataFrame] | None,
    prefer: str | None,
) -> tuple[Place, ...]:
    """Places, the likeliest first."""
    order = sorted(layers, key=lambda n: (n != prefer, n.lower() not in LIKELY_LAYERS))
    found = [Place(f"layers[{n!r}]", layers[n], var, n) for n in order]
    if x is not None:
        found.insert(int(prefer in layers), Place("X", x, var))
    if raw is not None:
        found.append(Place("raw.X", raw[0], joined_var(raw[1], var)))
    return tuple(found)


def joined_var(var: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """What is known of raw's genes, and also what var says of the same names."""
    if not (other.index.is_unique and var.index.is_unique):
        return var
    return var.join(other[[name for name in dict.fromkeys(other.columns) if name not in var and other[name].ndim == 1]])


def totals_of(obs: pd.DataFrame) -> dict[str, np.ndarray]:
    """Columns of obs that give the cells' total counts, (n,) float64 each."""
    columns = [name for name in TOTALS if name in obs and obs[name].ndim == 1]
    numbers = [name for name in columns if getattr(obs[name].dtype, "kind", "O") in "iuf"]
    return {name: obs[name].to_numpy(dtype=np.float64, na_value=np.nan) for name in numbers}


def _x(adata: AnnData) -> Any:
    try:
        return adata.X
    except KeyError:  # a backed file without X
        return None


def _raw(adata: AnnData) -> Any:
    try:
        return None if adata.raw is None else adata.raw.X
    except AttributeError:  # a backed file whose raw is empty
        return None


def blocks(n: int) -> list[slice]:
    """Blocks of cells, evenly over the whole: all of them where they are few."""
    if n <= JUDGED:
        return [slice(0, n)]
    starts = np.linspace(0, n - JUDGED // BLOCKS, BLOCKS).astype(int)
    return [slice(int(s), int(s) + JUDGED // BLOCKS) for s in starts]


def judged_rows(n: int) -> np.ndarray:
    """Positions of the cells that a place is judged by."""
    return np.concatenate([np.arange(s.start, s.stop) for s in blocks(n)])


def sample(matrix: Any) -> sparse.csr_matrix:
    """The cells that a place is judged by, CSR float32."""
    parts = [to_csr(matrix[block]) for block in blocks(matrix.shape[0])]
    return sparse.vstack(parts, format="csr") if len(parts) > 1 else parts[0]


def some_rows(matrix: Any, rows: np.ndarray) -> Any:
    """Rows at sorted positions, in memory, in the kind of matrix that it is."""
    return here(matrix[rows])


def _chunks(matrix: Any) -> Iterator[Any]:
    for start in range(0, matrix.shape[0], CHUNK):
        yield here(matrix[start : start + CHUNK])


def here(matrix: Any) -> Any:
    """Rows in memory; what dask would compute is computed in this thread, as a worker may be doing."""
    return matrix.compute(scheduler="synchronous") if hasattr(matrix, "compute") else matrix


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


def joined(matrices: list[sparse.csr_matrix]) -> sparse.csr_matrix:
    """Rows of several matrices, one after the other. The list is emptied on the way, so that no value is in memory twice."""
    if len(matrices) == 1:
        return matrices.pop()
    n, width = sum(part.shape[0] for part in matrices), matrices[0].shape[1]
    size = sum(part.nnz for part in matrices)
    kind = np.int32 if max(size, width) <= np.iinfo(np.int32).max else np.int64
    data, indices, ends = np.empty(size, matrices[0].dtype), np.empty(size, kind), np.zeros(n + 1, kind)
    row = filled = 0
    matrices.reverse()
    while matrices:
        part = matrices.pop()
        data[filled : filled + part.nnz], indices[filled : filled + part.nnz] = part.data, part.indices
        ends[row + 1 : row + 1 + part.shape[0]] = part.indptr[1:].astype(kind) + filled
        row, filled = row + part.shape[0], filled + part.nnz
    return sparse.csr_matrix((data, indices, ends), shape=(n, width))


def _sound(matrix: Any) -> Any:
    """The matrix, whose indices compiled code is going to follow."""
    try:
        check_sparse(matrix, "The matrix of counts")
    except CorruptFile as error:
        raise NotCounts(str(error)) from error
    return matrix
