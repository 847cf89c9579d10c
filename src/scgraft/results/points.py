"""What the page's map shows: places of query and reference cells, and the reference's types."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from scgraft.calibration.store import cache_folder
from scgraft.files.text import visible
from scgraft.results.placement import place
from scgraft.values.mapping import MappedQuery
from scgraft.values.names import column_text, level_name
from scgraft.values.reference import Reference

if TYPE_CHECKING:
    from anndata import AnnData


def map_points(mapped: MappedQuery, adata: AnnData, reference: Reference) -> dict[str, Any]:
    """Arrays that ``map.npz`` holds, cells in the order of ``mapped.latent.cells``.

    ``reference`` (n, 2) and ``query`` (m, 2) float32, ``tray`` (m,) bool, ``batch`` (m,) and ``source`` text; ``types``, the
    labels of the reference cells by column as JSON, with ``types_0`` (n,), ``types_1``... int32 as positions in them.
    """
    import pandas as pd

    novel, cluster = (None, None) if mapped.novelty is None else (mapped.novelty.novel, mapped.novelty.cluster)
    keep = cache_folder(reference, ())
    placed = place(reference, mapped.latent.mean, novel=novel, cluster=cluster, near=mapped.near, keep=keep)
    position = pd.Index(adata.obs_names.astype(str)).get_indexer(pd.Index(mapped.latent.cells))
    key = mapped.alignment.batch_key
    batch = (
        np.full(len(position), "query") if key is None else adata.obs[key].iloc[position].map(level_name).to_numpy(str)
    )
    return {
        "reference": placed.reference,
        "query": placed.query,
        "tray": placed.tray,
        "batch": batch.astype(str),
        "source": np.array(placed.source),
        **_reference_types(reference, placed.reference_cells, list(mapped.labels)),
    }


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
