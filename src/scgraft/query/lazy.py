"""An AnnData whose counts are not in memory (backed, read lazily, or made of dask arrays), as cells that are read in runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scgraft.errors import BadOption, QueryError
from scgraft.query.cell_file import BYTES, CellFile, bytes_in_memory, found_cells
from scgraft.query.judge import Asked, Used
from scgraft.query.on_disk import BY_GENES, OnDisk, opened, row_names
from scgraft.query.places import TOTALS, Cells, here, in_order, to_csr, totals_of
from scgraft.query.spatial import spatial_messages

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

LOOKED_AT = 200  # cells of each of three runs that say how many counts are stored; chosen by eye, not measured


def is_lazy(adata: AnnData) -> bool:
    """Whether any matrix of a query, or its annotation, is not in memory, and can be read from there in pieces.

    A file that this process has open for writing is locked: nothing else can read it.
    """
    if adata.isbacked:
        return not adata.file.is_open or adata.file["obs"].file.mode == "r"
    return _is_table_on_disk(adata.obs) or any(map(_is_dask, _matrices(adata).values()))


def in_memory(adata: AnnData) -> AnnData:
    """The whole query in memory; what is there already is left as it is."""
    return adata.to_memory() if not adata.isbacked and is_lazy(adata) else adata


def lazy_bytes(adata: AnnData) -> int:
    """Memory in bytes that mapping it in one piece would take; of dask arrays from what their cells store in three places."""
    if adata.isbacked:
        path = Path(str(adata.filename))
        with opened(path) as group:
            share = adata.n_obs / max(int(row_names(group["obs"]).shape[0]), 1)
        return int(share * bytes_in_memory(path))
    n, most = adata.n_obs, 0.0
    for matrix in _matrices(adata).values():
        size = min(LOOKED_AT, n)
        runs = [here(matrix[start : start + size]) for start in np.unique([0, (n - size) // 2, n - size])]
        most = max(most, float(np.mean([to_csr(run).nnz / max(size, 1) for run in runs])))
    return int(BYTES * most * n)


def open_lazy(
    adata: AnnData,
    columns: Sequence[str],
    *,
    layer: str | None = None,
    prefer: str | None = None,
    used: Used | None = None,
    molecules: bool = True,
    by_cells: Path | None = None,
) -> CellFile:
    """A query that stays where it is, with some columns of obs where it has them.

    Parameters
    ----------
    adata
        Backed, from ``anndata.experimental.read_lazy``, or with dask arrays; a view or not.
    columns
        Columns of obs to read.
    layer, prefer, used, molecules
        As for :func:`scgraft.query.counts.find_counts`.
    by_cells
        Where the matrices that its file stores gene by gene are stored cell by cell (:func:`scgraft.query.by_cells.write_by_cells`).

    Raises
    ------
    QueryError
        There are no cells, or its counts are stored gene by gene.
    NotCounts
        None of its matrices holds counts, or what they can be recovered from.
    """
    if adata.n_obs == 0:
        raise QueryError("The query has no cells.")
    found = {place: _rows(adata, place, matrix) for place, matrix in _matrices(adata).items()}
    if by_cells is not None:
        found |= {
            place: replace(m, path=by_cells) for place, m in found.items() if isinstance(m, OnDisk) and _is_by_genes(m)
        }
    obs = _table(adata.obs[[name for name in dict.fromkeys([*columns, *TOTALS]) if name in adata.obs.columns]])
    names = np.asarray(adata.obs_names.astype(str), dtype=object)
    places = in_order(
        found.get("X"),
        {place.removeprefix("layers/"): matrix for place, matrix in found.items() if place.startswith("layers/")},
        _table(adata.var),
        (found["raw/X"], _table(adata.raw.var)) if "raw/X" in found else None,
        prefer,
    )
    places = tuple(replace(p, problem=BY_GENES) if _is_by_genes(p.matrix) else p for p in places)
    cells = Cells(places, adata.n_obs, totals_of(obs), lambda rows: names[rows].tolist())
    file = found_cells(
        str(adata.filename) if adata.isbacked else "the query",
        cells,
        obs[[name for name in obs if name in columns]].set_axis(range(adata.n_obs), axis=0),
        Asked(prefer, layer, molecules),
        used,
        found.__getitem__,
        names,
    )
    return replace(file, notes=(*file.notes, *spatial_messages(adata.obsm, adata.uns, adata.obs.columns)))


def _is_by_genes(matrix: Any) -> bool:
    """Whether a matrix on disk is stored gene by gene."""
    if not isinstance(matrix, OnDisk):
        return getattr(matrix, "format", "") == "csc" and not hasattr(matrix, "indptr")
    with opened(matrix.path) as group:
        element = group[matrix.place]
        return element.attrs.get("encoding-type") == "csc_matrix"


def for_workers(file: CellFile) -> CellFile:
    """The same cells, if other processes can read them themselves.

    Raises
    ------
    BadOption
        The counts are in this process's memory.
    """
    if isinstance(file.matrix, OnDisk) or _is_dask(file.matrix):
        return file
    raise BadOption(
        "The counts are in memory, from where workers cannot read them. Open the file with anndata.experimental.read_lazy, or "
        "use `scgraft map FILE --scheduler ADDRESS`."
    )


def _matrices(adata: AnnData) -> dict[str, Any]:
    """Every matrix of cells by genes, by its place in a file; unread."""
    found: dict[str, Any] = {}
    if not adata.isbacked or _has_x(adata):
        x = adata.X if not (adata.isbacked and adata.is_view) else OnDisk(Path(str(adata.filename)), "X")
        found = {} if x is None else {"X": x}
    found |= {f"layers/{name}": adata.layers[name] for name in adata.layers if name is not None}
    if adata.raw is not None and _has_raw(adata):
        found["raw/X"] = OnDisk(Path(str(adata.filename)), "raw/X") if adata.isbacked else adata.raw.X
    return found


def _has_raw(adata: AnnData) -> bool:
    try:
        return adata.raw.X is not None
    except AttributeError:  # a backed file whose raw is empty
        return False


def _has_x(adata: AnnData) -> bool:
    with opened(Path(str(adata.filename))) as group:
        return "X" in group


def _rows(adata: AnnData, place: str, matrix: Any) -> Any:
    """Something that gives rows for a slice, and that can be sent to another process where that is possible."""
    if _is_dask(matrix):
        from dask.array import Array

        return Array(matrix.dask, matrix.name, matrix.chunks, meta=matrix._meta)  # a view carries its parent along
    if not adata.isbacked or place.startswith("layers/"):
        return matrix
    path = Path(str(adata.filename))
    if not adata.is_view:
        return OnDisk(path, place)
    with opened(path) as group:
        cells = row_names(group["obs"])
        genes = row_names(group["raw/var" if place == "raw/X" else "var"])
        own = adata.raw.var_names if place == "raw/X" else adata.var_names
        return OnDisk(path, place, _positions(cells, adata.obs_names), _positions(genes, own))


def _positions(names: Any, wanted: Any) -> np.ndarray:
    """Where the names of a view are in its file.

    Raises
    ------
    QueryError
        They are not, or not once: the view was renamed since.
    """
    import pandas as pd

    index = pd.Index(np.asarray(names.asstr()[:] if hasattr(names, "asstr") else names[:], dtype=object).astype(str))
    at = index.get_indexer(wanted.astype(str)) if index.is_unique else np.array([-1])
    if (at < 0).any():
        raise QueryError(
            "The query is a view of a file whose names have changed or are not unique. Write the view to a file of its own "
            "(adata.to_memory().write_h5ad(...)), and open that."
        )
    return at


def _table(frame: Any) -> pd.DataFrame:
    import pandas as pd

    return frame if isinstance(frame, pd.DataFrame) else frame.to_memory()


def _is_table_on_disk(frame: Any) -> bool:
    return hasattr(frame, "to_memory")


def _is_dask(matrix: Any) -> bool:
    return hasattr(matrix, "dask") and hasattr(matrix, "chunks")
