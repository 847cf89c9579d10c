"""The reference's own raw counts, where its repository stores them."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from scgraft.errors import CorruptFile, MovedFile, NotCounts, QueryError
from scgraft.files.budget import Budget
from scgraft.model.kinds import check_cells
from scgraft.query.align import align, align_as
from scgraft.reference.stored_cells import read_cells
from scgraft.values.blocks import BlockCounts
from scgraft.values.names import BATCH
from scgraft.values.query import AlignOptions, Query
from scgraft.values.reference import Reference

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from scipy.sparse import csr_matrix

LOG = logging.getLogger(__name__)
STORED_COUNTS = "stored counts"


def stored_counts(reference: Reference, index: np.ndarray) -> csr_matrix | None:
    """Raw counts (m, G) of reference cells as the repository stores them; None where it holds none."""
    found = stored_inputs(reference, index)
    return None if found is None else found[0]


def stored_inputs(reference: Reference, index: np.ndarray) -> tuple[csr_matrix, dict[str, BlockCounts]] | None:
    """Raw counts (m, G) of reference cells and their other inputs as the repository stores them; None where it holds none."""
    if reference.adata_path is None or reference.minified == "latent_posterior_parameters" or not len(index):
        return None
    from scipy.sparse import csr_matrix, vstack

    assert reference.latent is not None
    adata = open_own(reference)
    try:
        used, inverse = np.unique(index, return_inverse=True)
        rows = _rows(adata.obs_names.astype(str), reference.latent.cells, used)
        if rows is None:
            return None
        order = np.argsort(rows)
        cells = adata[rows[order]].to_memory().copy()  # frames in obsm of what was on disk are views still
        cells.obs_names = np.arange(len(rows)).astype(str)  # names of cells may stand twice
        options = AlignOptions(reference.schema.batch_key, drop_empty=True)
        # They are not judged: the model was trained on them, whatever they look like.
        query = align_as(reference, cells, options, judged=True)
    except QueryError as error:
        LOG.warning(
            "The counts that %s stores are not used, and its cells are drawn from the model: %s",
            _file(reference),
            error,
        )
        return None
    finally:
        adata.file.close()

    # A cell without a count of these genes was dropped: its row is the last, of zeros.
    def with_none(matrix: csr_matrix) -> csr_matrix:
        return vstack([matrix, csr_matrix((1, matrix.shape[1]), dtype=matrix.dtype)], format="csr")

    place = np.full(len(rows), -1)
    place[query.cells.astype(int)] = np.arange(len(query.cells))
    at = place[np.argsort(order)][inverse]
    blocks = {
        name: BlockCounts(with_none(block.counts)[at], np.vstack([block.measured, block.measured[:1]])[at])
        for name, block in query.blocks.items()
    }
    return with_none(query.counts)[at], blocks


def modality_of(reference: Reference, field: str) -> str | None:
    """Modality of the genes (``"X"``) or regions (``"atac"``) of a model that was set up on MuData."""
    fields = reference.registry.get("field_registries") or {}
    modality: str | None = ((fields.get(field) or {}).get("data_registry") or {}).get("mod_key")
    return modality


def open_own(reference: Reference, budget: Budget | None = None) -> AnnData:
    """The reference's file of cells, on disk: counts of a million cells are read when they are needed, and never all of them.

    But where the cells are encoded: then they are paid from the budget of the reference.
    """
    path = reference.adata_path
    assert path is not None
    if not path.exists():
        raise MovedFile(
            f"{path} was there when {reference.base.repo} was loaded, and is gone. Raw counts of the reference's cells are read from it "
            "when a calibration, the gene classifier or the metrics of a card need them. Put it back, or load the reference again from "
            "where it is now: load_reference(folder)."
        )
    return read_cells(path, modality_of(reference, "X"), modality_of(reference, "atac"), budget)


def _file(reference: Reference) -> str:
    return reference.base.repo if reference.adata_path is None else reference.adata_path.name


def _rows(names: pd.Index[Any], cells: np.ndarray, used: np.ndarray) -> np.ndarray | None:
    """Rows of the file that hold the cells `used`, None where that cannot be told."""
    if len(names) == len(cells) and (np.asarray(names) == cells).all():
        return used
    rows = names.get_indexer(cells[used]) if names.is_unique else np.full(1, -1)
    return rows if rows.min() >= 0 else None


def own_query(reference: Reference, adata: AnnData) -> Query:
    """The reference's own cells as a query of its known batches."""
    query = align(reference, adata, batch_key=reference.schema.batch_key, drop_empty=True)
    if reference.schema.batch_key is None:
        levels = {**query.levels, BATCH: reference.schema.batches}
        codes = np.concatenate([np.zeros_like(query.codes[:, :1]), query.codes[:, 1:]], axis=1)
        query = replace(query, codes=codes, levels=levels)
    return query


def with_own_cells(reference: Reference, query: Query) -> Query:
    """The reference's own cells with their places among all of them: the model has numbers of each."""
    import pandas as pd

    assert reference.obs is not None
    check_cells(reference.hyper, len(reference.obs))
    names = reference.obs.index.astype(str)
    if not names.is_unique:
        raise CorruptFile(
            "Two cells of the reference have one name, and its model has weights of each cell: they cannot be told apart."
        )
    order = np.arange(len(names))
    if "_indices" in reference.obs:  # where scvi-tools numbered them, whatever their order in the file is
        said = np.asarray(reference.obs["_indices"])
        order = said if np.array_equal(np.sort(said), order) else order
    return replace(query, own=order[names.get_indexer(pd.Index(query.cells))])


def _own_counts(reference: Reference) -> AnnData:
    if reference.adata_path is None or reference.minified == "latent_posterior_parameters":
        raise NotCounts(
            f"{reference.base.repo} holds no counts ({reference.minified or 'no AnnData'}), and the metrics compare the model "
            "with counts. Give those of the reference's cells as adata."
        )
    return open_own(reference).to_memory()
