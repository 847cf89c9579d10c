"""The query as the user gives it: an AnnData of any kind, as one whose annotation is in memory and can be indexed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from scgraft.errors import CorruptFile, QueryError
from scgraft.files.h5mu import joined
from scgraft.query.places import cells_of, here, some_rows

if TYPE_CHECKING:
    from anndata import AnnData

# What to do with objects of other kinds.
INSTEAD = {
    "str": "Read the file first: anndata.read_h5ad(path).",
    "PosixPath": "Read the file first: anndata.read_h5ad(path).",
    "WindowsPath": "Read the file first: anndata.read_h5ad(path).",
    "MuData": "Give its modality of genes: mdata['rna'].",
    "DataFrame": "Make one of it: anndata.AnnData(table), cells in rows and genes in columns.",
    "SpatialData": "Give its table: sdata['table'].",
}


def given(adata: Any) -> AnnData:
    """An AnnData whose obs and var are tables in memory; matrices stay where they are, and nothing of the user's is changed.

    Parameters
    ----------
    adata
        In memory, backed, a view of either, or lazy (:func:`anndata.experimental.read_lazy`).

    Raises
    ------
    QueryError
        It is not an AnnData.
    """
    import pandas as pd

    require_anndata(adata)
    if adata.isbacked and adata.is_view:  # no view can be made of it
        return some_cells(adata, np.arange(adata.n_obs))
    if isinstance(adata.obs, pd.DataFrame) and isinstance(adata.var, pd.DataFrame):
        return adata
    return _with_tables(adata)


def as_anndata(adata: Any) -> AnnData:
    """The query as one AnnData; a MuData in memory with its genes in X and its other modalities in obsm.

    Raises
    ------
    QueryError
        It is neither.
    """
    if hasattr(adata, "mod") and hasattr(adata, "obsmap"):  # told without the package mudata
        try:
            return joined(adata.mod, adata.obs, "The MuData")
        except CorruptFile as error:
            raise QueryError(str(error)) from error
    require_anndata(adata)
    found: AnnData = adata
    return found


def require_anndata(adata: Any) -> None:
    """Refuse a query that is no AnnData, and say what to do with what it is."""
    import anndata

    if not isinstance(adata, anndata.AnnData):
        kind = type(adata).__name__
        raise QueryError(f"The query is a {kind}; an AnnData was expected. {INSTEAD.get(kind, '')}".rstrip())


def some_cells(adata: AnnData, rows: np.ndarray) -> AnnData:
    """Some cells with their annotation and every matrix that could hold counts, in memory; of other cells nothing is read.

    Parameters
    ----------
    adata
        From :func:`given`.
    rows
        Sorted positions of the cells, each once.
    """
    import anndata

    out = anndata.AnnData(obs=adata.obs.iloc[rows], var=adata.var, shape=(len(rows), adata.n_vars))
    for place in cells_of(adata).places:
        matrix = some_rows(place.matrix, rows)
        if place.source == "X":
            out.X = matrix
        elif place.layer is None:
            out.raw = anndata.AnnData(matrix, obs=out.obs[[]], var=adata.raw.var)
        else:
            out.layers[place.layer] = matrix
    for name, table in adata.obsm.items():
        out.obsm[name] = table.iloc[rows] if hasattr(table, "iloc") else here(table[rows])
    for name in adata.uns:
        out.uns[name] = adata.uns[name]
    return out


def _with_tables(adata: AnnData) -> AnnData:
    """A lazy AnnData whose obs and var were read."""
    import anndata

    obs, var = (t.to_memory() if hasattr(t, "to_memory") else t for t in (adata.obs, adata.var))
    layers = {name: matrix for name, matrix in adata.layers.items() if name is not None}
    out = anndata.AnnData(adata.X, obs=obs, var=var, layers=layers)
    if adata.raw is not None and adata.raw.X is not None:
        raw_var = adata.raw.var
        raw_var = raw_var.to_memory() if hasattr(raw_var, "to_memory") else raw_var
        out.raw = anndata.AnnData(adata.raw.X, obs=obs[[]], var=raw_var)
    return out
