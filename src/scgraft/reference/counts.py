"""The reference's own raw counts, where its repository stores them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from scgraft.errors import NotCounts, QueryError
from scgraft.files.h5ad import read_h5ad
from scgraft.query.align import align
from scgraft.values.names import BATCH
from scgraft.values.query import Query
from scgraft.values.reference import Reference

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy.sparse import csr_matrix

STORED_COUNTS = "stored counts"


def stored_counts(reference: Reference, index: np.ndarray) -> csr_matrix | None:
    """Raw counts (m, G) of reference cells as the repository stores them; None where it holds none."""
    if reference.adata_path is None or reference.minified == "latent_posterior_parameters" or not len(index):
        return None
    assert reference.latent is not None
    adata = read_h5ad(reference.adata_path, backed=True)
    try:
        used, inverse = np.unique(index, return_inverse=True)
        rows = adata.obs_names.astype(str).get_indexer(reference.latent.cells[used])
        order = np.argsort(rows)
        if rows.min() < 0:
            return None
        query = align(reference, adata[rows[order]].to_memory(), batch_key=reference.schema.batch_key)
    except QueryError:
        return None
    finally:
        adata.file.close()
    return query.counts[np.argsort(order)][inverse]


def own_query(reference: Reference, adata: AnnData) -> Query:
    """The reference's own cells as a query of its known batches."""
    query = align(reference, adata, batch_key=reference.schema.batch_key, drop_empty=True)
    if reference.schema.batch_key is None:
        levels = {**query.levels, BATCH: reference.schema.batches}
        codes = np.concatenate([np.zeros_like(query.codes[:, :1]), query.codes[:, 1:]], axis=1)
        query = replace(query, codes=codes, levels=levels)
    return query


def _own_counts(reference: Reference) -> AnnData:
    if reference.adata_path is None or reference.minified == "latent_posterior_parameters":
        raise NotCounts(
            f"{reference.base.repo} holds no counts ({reference.minified or 'no AnnData'}), and the metrics compare the model "
            "with counts. Give those of the reference's cells as adata."
        )
    return read_h5ad(reference.adata_path)
