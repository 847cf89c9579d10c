"""What the page's map shows: places of query and reference cells, and the reference's types."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from scgraft.calibration.store import cache_folder
from scgraft.errors import QueryError
from scgraft.files.text import visible
from scgraft.results.expressed import decoded_in_reference, measured_in_query, telling_genes
from scgraft.results.placement import Placement, place
from scgraft.values.mapping import MappedQuery
from scgraft.values.names import column_text, level_name
from scgraft.values.reference import Reference

if TYPE_CHECKING:
    from anndata import AnnData

LOG = logging.getLogger(__name__)
# Genes that the page can colour the map by, of at most so many cells: eight genes of 100,000 cells are 1.2 MB of a page that is
# to stay below 8 MB (tests/results/test_page.py).
GENES, MOST_CELLS = 8, 100_000
DIGITS = 2  # of log1p of counts per ten thousand: a colour shows no more


def map_points(mapped: MappedQuery, adata: AnnData, reference: Reference) -> dict[str, Any]:
    """Arrays that ``map.npz`` holds, cells in the order of ``mapped.latent.cells``.

    ``reference`` (n, 2) and ``query`` (m, 2) float32, ``tray`` (m,) bool, ``batch`` (m,) and ``source`` text; ``types``, the
    labels of the reference cells by column as JSON, with ``types_0`` (n,), ``types_1``... int32 as positions in them; where the
    query's counts are at hand, ``genes`` with ``gene_0_query`` (m,), ``gene_0_reference`` (n,)... float32 (:mod:`.expressed`).
    """
    import pandas as pd

    found = placed(mapped, reference)
    position = pd.Index(adata.obs_names.astype(str)).get_indexer(pd.Index(mapped.latent.cells))
    key = mapped.alignment.batch_key
    batch = (
        np.full(len(position), "query") if key is None else adata.obs[key].iloc[position].map(level_name).to_numpy(str)
    )
    return {
        "reference": found.reference,
        "query": found.query,
        "tray": found.tray,
        "batch": batch.astype(str),
        "source": np.array(found.source),
        **_reference_types(reference, found.reference_cells, list(mapped.labels)),
        **_expression(mapped, adata, reference, found.reference_cells),
    }


def _expression(mapped: MappedQuery, adata: AnnData, reference: Reference, cells: np.ndarray) -> dict[str, Any]:
    """A few telling genes on the map: ``genes``, their names as JSON, with ``gene_0_query`` (m,) and ``gene_0_reference`` (n,).

    None where the query's counts are not at hand, or there are very many cells: the genes would be most of the page.
    """
    n = len(mapped.latent.cells)
    most = GENES if n <= MOST_CELLS else 0
    names = telling_genes(reference, mapped, most=most)
    if not names or not adata.n_vars:
        return {}
    try:
        query = measured_in_query(reference, mapped, adata, names)
    except QueryError as error:
        LOG.warning("The page shows no genes: %s", error)
        return {}
    shown = decoded_in_reference(reference, names, cells)
    out: dict[str, Any] = {"genes": np.array(json.dumps([visible(name) for name in names]))}
    for i in range(len(names)):
        out |= {f"gene_{i}_query": query[:, i].round(DIGITS), f"gene_{i}_reference": shown[:, i].round(DIGITS)}
    return out


def placed(mapped: MappedQuery, reference: Reference) -> Placement:
    """The cells of a mapping on the reference's map; one that has to be computed is kept in the user's cache."""
    novel, cluster = (None, None) if mapped.novelty is None else (mapped.novelty.novel, mapped.novelty.cluster)
    keep = cache_folder(reference, ())
    return place(reference, mapped.latent.mean, novel=novel, cluster=cluster, near=mapped.near, keep=keep)


def _reference_types(reference: Reference, cells: np.ndarray, keys: list[str]) -> dict[str, Any]:
    """Labels of the reference cells on the map, by column: the names as JSON, and codes into them."""
    names: dict[str, list[str]] = {}
    codes: dict[str, Any] = {}
    for key in keys:
        if reference.obs is None or key not in reference.obs:
            continue
        found, code = np.unique([visible(name) for name in column_text(reference.obs[key])[cells]], return_inverse=True)
        codes[f"types_{len(names)}"] = code.astype(np.int32)
        names[visible(key)] = found.tolist()
    return codes | {"types": np.array(json.dumps(names))} if names else {}
