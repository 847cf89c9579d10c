"""Write the results of a mapping into the user's AnnData."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from scgraft.errors import QueryError
from scgraft.values.mapping import MappedQuery

if TYPE_CHECKING:
    from anndata import AnnData

LOG = logging.getLogger(__name__)
COLUMNS, COORDINATES = "scgraft_", "X_scgraft"
JOINED = ("scgraft_batch", "scgraft_source")  # columns of files that were joined or exported, no results of a mapping


def annotate(adata: AnnData, mapped: MappedQuery) -> AnnData:
    """Write the results of a mapping into the query, in place.

    Writes ``obsm["X_scgraft"]`` (n, d) float32 and, for each label column, ``obs["scgraft_<key>"]``,
    ``obs["scgraft_<key>_probability"]`` and ``obs["scgraft_<key>_unknown"]``; where calibrated also
    ``obs["scgraft_<key>_set"]`` (labels at an error rate of 10 %), ``obs["scgraft_novelty"]`` and ``obs["scgraft_novel"]``.
    ``uns["scgraft"]`` holds the base, its commit and hash, versions and settings. Cells that the mapping left out get NaN.
    Every ``obs`` column that starts with ``scgraft_``, and every ``X_scgraft`` in ``obsm``, belongs to this function: those of an earlier
    mapping are removed, and a warning is logged that lists them.

    Raises
    ------
    QueryError
        The cells of the mapping are not cells of `adata`.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> mapped = scgraft.map_query(reference, adata, batch_key="batch")
    >>> annotated = scgraft.annotate(adata, mapped)
    >>> annotated.obsm["X_scgraft"].shape, "scgraft_cell_type" in annotated.obs
    ((40, 4), True)
    """
    import pandas as pd

    names = pd.Index(adata.obs_names.astype(str))
    position = names.get_indexer(pd.Index(mapped.latent.cells))
    if (position < 0).any():
        first = mapped.latent.cells[position < 0][:3]
        raise QueryError(
            f"Cells {', '.join(first)} of the mapping are not in this AnnData. Annotate the query that was mapped."
        )
    _remove_earlier(adata)
    coordinates = np.full((adata.n_obs, mapped.latent.mean.shape[1]), np.nan, np.float32)
    coordinates[position] = mapped.latent.mean
    adata.obsm["X_scgraft"] = coordinates
    for key, result in mapped.labels.items():
        column = pd.Series(index=names[position], data=result.label).reindex(names)
        adata.obs[f"scgraft_{key}"] = pd.Categorical(column, categories=sorted(set(result.label)))
        probability = np.full(adata.n_obs, np.nan, np.float32)
        probability[position] = result.probability
        adata.obs[f"scgraft_{key}_probability"] = probability
        unknown = np.ones(adata.n_obs, bool)
        unknown[position] = result.unknown
        adata.obs[f"scgraft_{key}_unknown"] = unknown
        if result.pvalues is not None:
            sets = pd.Series(index=names[position], data=result.resolve(0.1)).reindex(names)
            adata.obs[f"scgraft_{key}_set"] = pd.Categorical(sets)
    if mapped.novelty is not None:
        score, novel = np.full(adata.n_obs, np.nan, np.float32), np.zeros(adata.n_obs, bool)
        score[position], novel[position] = mapped.novelty.strength, mapped.novelty.novel
        adata.obs["scgraft_novelty"], adata.obs["scgraft_novel"] = score, novel
    config = {k: v for k, v in asdict(mapped.graft.record.config).items() if v is not None}
    adata.uns["scgraft"] = {
        "base": asdict(mapped.base),
        "batches": list(mapped.graft.batches),
        "batch_key": mapped.alignment.batch_key or "",
        "config": config,
        "versions": dict(mapped.graft.record.versions),
        "trained": mapped.graft.record.trained,
        "reason": mapped.graft.record.reason,
    }
    return adata


def _remove_earlier(adata: AnnData) -> None:
    """Take out what an earlier mapping wrote, so that no column of it stands beside the new ones."""
    columns = [c for c in adata.obs.columns if str(c).startswith(COLUMNS) and c not in JOINED]
    arrays = [key for key in adata.obsm if str(key).startswith(COORDINATES)]
    if not columns and not arrays:
        return
    LOG.warning("The results of an earlier mapping are replaced: %s.", ", ".join(map(str, [*columns, *arrays])))
    adata.obs = adata.obs.drop(columns=columns)
    for key in arrays:
        del adata.obsm[key]
