"""Write the results of a mapping into the user's AnnData."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from scgraft.errors import QueryError
from scgraft.results.points import placed
from scgraft.values.colours import in_order
from scgraft.values.mapping import MappedQuery
from scgraft.values.reference import Reference

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

LOG = logging.getLogger(__name__)
COLUMNS, COORDINATES = "scgraft_", "X_scgraft"
JOINED = ("scgraft_batch", "scgraft_source")  # columns of files that were joined or exported, no results of a mapping


def annotate(adata: AnnData, mapped: MappedQuery, *, reference: Reference | None = None) -> AnnData:
    """Write the results of a mapping into the query, in place.

    Writes ``obsm["X_scgraft"]`` (n, d) float32 and every column of ``mapped.to_frame()`` as ``obs["scgraft_<column>"]``: for each
    label column ``scgraft_<key>``, which says "unknown" where the label should not be believed, ``scgraft_<key>_call``, the label
    in any case, ``_probability``, ``_runner_up``, ``_distance``, ``_unknown``; where calibrated also ``_set`` (labels at an error
    rate of 10 %), ``_cluster`` (the most common call in the cell's query cluster), ``scgraft_novelty``, ``scgraft_novel``,
    ``scgraft_cluster`` and ``scgraft_map_distance``. ``uns["scgraft"]`` holds the base, its commit and hash, versions and
    settings. Cells that the mapping left out get NaN, and are marked unknown.

    With the `reference`, ``obsm["X_scgraft_map"]`` (n, 2) float32 are the cells' places on its map.

    Every ``obs`` column that starts with ``scgraft_``, and every ``X_scgraft`` in ``obsm``, belongs to this function: those of an earlier
    mapping are removed, and a warning says so; those of the same mapping are written once more, without a word.

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
    latent = _spread(mapped.latent.mean, position, adata.n_obs)
    _remove_earlier(adata, latent)
    adata.obsm["X_scgraft"] = latent
    if reference is not None and reference.latent is not None:
        write_places(adata, mapped, placed(mapped, reference).query)
    for name, column in mapped.to_frame().items():
        adata.obs[f"{COLUMNS}{name}"] = _of_all_cells(str(name), column, position, adata.n_obs)
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


def write_places(adata: AnnData, mapped: MappedQuery, places: np.ndarray) -> None:
    """Places on the map (m, 2) of the mapped cells into ``obsm["X_scgraft_map"]``, NaN for cells that the mapping left out."""
    import pandas as pd

    position = pd.Index(adata.obs_names.astype(str)).get_indexer(pd.Index(mapped.latent.cells))
    adata.obsm["X_scgraft_map"] = _spread(places, position, adata.n_obs)


def _spread(values: np.ndarray, position: np.ndarray, n: int) -> np.ndarray:
    """Rows (m, d) of some of `n` cells as rows of all of them, float32."""
    out = np.full((n, values.shape[1]), np.nan, np.float32)
    out[position] = values
    return out


def _of_all_cells(name: str, column: pd.Series[Any], position: np.ndarray, n: int) -> Any:
    """A column of the mapped cells for all `n` cells: one that was left out has no text, NaN, or is unknown and not novel."""
    import pandas as pd

    kind = column.dtype.kind
    if kind in "bf":
        blank: Any = np.nan if kind == "f" else name.endswith("_unknown")
        out = np.full(n, blank, bool if kind == "b" else np.float32)
        out[position] = column.to_numpy()
        return out
    text = column.astype(str).to_numpy()
    names = in_order(text)
    codes = np.full(n, -1, np.int32)
    codes[position] = pd.Index(names).get_indexer(pd.Index(text))
    return pd.Categorical.from_codes(codes, pd.Index(names))


def _remove_earlier(adata: AnnData, latent: np.ndarray) -> None:
    """Take out what an earlier mapping wrote, so that no column of it stands beside the new ones; said if its latents were others."""
    columns = [c for c in adata.obs.columns if str(c).startswith(COLUMNS) and c not in JOINED]
    arrays = [key for key in adata.obsm if str(key).startswith(COORDINATES)]
    if not columns and not arrays:
        return
    if "X_scgraft" not in adata.obsm or not np.array_equal(adata.obsm["X_scgraft"], latent, equal_nan=True):
        LOG.warning(
            "The results of an earlier mapping in this AnnData are replaced: what starts with %s in obs, and with %s in obsm.",
            *(COLUMNS, COORDINATES),
        )
    adata.obs = adata.obs.drop(columns=columns)
    for key in arrays:
        del adata.obsm[key]
