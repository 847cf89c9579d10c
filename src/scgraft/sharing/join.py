"""Reference + annotated queries -> one AnnData of all cells: latent, labels, batches, a map, and where each cell is from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from scgraft.calibration.store import cache_folder
from scgraft.errors import BaseMismatch, NoLabels, QueryError
from scgraft.results.placement import place, published_map
from scgraft.values.names import column_text, level_name
from scgraft.values.reference import Reference

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

REFERENCE = "reference"
MAP = "X_scgraft_map"


def join(reference: Reference, queries: Mapping[str, AnnData], *, labels: Sequence[str] | None = None) -> AnnData:
    """One AnnData of the reference's cells and of annotated queries, without any count.

    No count is needed: the reference's cells come from their stored posterior, the queries' from what
    :func:`scgraft.annotate` wrote, so each lab can send its query without X.

    Parameters
    ----------
    reference
        The reference, with a latent.
    queries
        Annotated queries by a name of yours (a lab, a study). Each was mapped onto `reference`, with a graft of its own
        or with a merged one.
    labels
        Label columns of the reference's obs that the queries carry as ``scgraft_<key>``; None takes all that every
        query has.

    Returns
    -------
    anndata.AnnData
        X is empty. ``obsm["X_scgraft"]`` is the latent (n, d) float32. ``obsm["X_scgraft_map"]`` (n, 2) is the
        reference's own map where it has one, unchanged, else a UMAP of its latent; a query's cells lie where `scgraft map`
        put them in ``mapped.h5ad``, or where it would put them. obs holds ``source`` (``"reference"`` or the query's
        name), ``cell`` (its name there), ``batch``, and for each label its column, ``<key>_probability`` (NaN in the
        reference) and ``<key>_unknown``. ``uns["scgraft"]`` holds the base and each query's own record. Cells that a
        mapping left out are not in it.

    Raises
    ------
    NoLabels
        The reference has no latent, or no such label column.
    QueryError
        A query is not annotated, or its name is "reference".
    BaseMismatch
        A query was mapped onto another reference.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> mapped = scgraft.map_query(reference, adata, batch_key="batch")
    >>> annotated = scgraft.annotate(adata, mapped)
    >>> joined = scgraft.join(reference, {"my lab": annotated})
    >>> joined.obs["source"].value_counts().to_dict()
    {'reference': 60, 'my lab': 40}
    """
    import anndata
    import pandas as pd

    if reference.latent is None or reference.obs is None:
        raise NoLabels(
            f"{reference.base.repo} holds no cells ({reference.latent_source}), so there is nothing to join. Take a revision with "
            "adata.h5ad."
        )
    for name, adata in queries.items():
        _check(reference, name, adata)
    keys = _keys(reference.obs, queries) if labels is None else list(labels)
    tables = [_reference_table(reference, reference.obs, keys)]
    tables += [_query_table(name, adata, keys) for name, adata in queries.items()]
    latents = [reference.latent.mean]
    latents += [np.asarray(adata.obsm["X_scgraft"], np.float32)[_mapped(adata)] for adata in queries.values()]
    obs = pd.concat(tables)
    obs.index = (obs["source"] + ":" + obs["cell"]).astype(str)
    for key in ("source", "batch", *keys):
        obs[key] = pd.Categorical(obs[key])
    latent = np.concatenate(latents)
    where, points = _map(reference, list(queries.values()), latents[1:])
    uns: dict[str, Any] = {
        "base": {"repo": reference.base.repo, "revision": reference.base.revision, "sha256": reference.base.sha256},
        "map": where,
        "queries": {name: adata.uns["scgraft"] for name, adata in queries.items()},
    }
    return anndata.AnnData(obs=obs, obsm={"X_scgraft": latent, MAP: points}, uns={"scgraft": uns})


def _map(reference: Reference, queries: Sequence[AnnData], latents: Sequence[np.ndarray]) -> tuple[str, np.ndarray]:
    """Where the map comes from, and positions (n, 2) of the reference's cells and of the queries' mapped cells.

    A query keeps the positions that its own mapping gave it on the same map.
    """
    assert reference.latent is not None
    keep = cache_folder(reference, ())
    points, shown, source = published_map(reference, keep=keep)
    own = np.empty((len(reference.latent.mean), 2), np.float32)
    others = np.setdiff1d(np.arange(len(own)), shown)
    own[shown], own[others] = points, place(reference, reference.latent.mean[others], keep=keep).query
    parts = [own]
    for adata, latent in zip(queries, latents, strict=True):
        given = np.asarray(adata.obsm[MAP], np.float32)[_mapped(adata)] if MAP in adata.obsm else None
        whole = given is not None and given.shape == (len(latent), 2) and np.isfinite(given).all()
        parts.append(given if given is not None and whole else place(reference, latent, keep=keep).query)
    return source, np.concatenate(parts)


def _check(reference: Reference, name: str, adata: AnnData) -> None:
    if name == REFERENCE:
        raise QueryError(f"A query cannot be named {REFERENCE!r}: that is the reference's own name. Choose another.")
    record = adata.uns.get("scgraft")
    if not isinstance(record, Mapping) or "X_scgraft" not in adata.obsm or "base" not in record:
        raise QueryError(
            f"Query {name!r} is not annotated. Map it and call scgraft.annotate(adata, mapped) first, or give the mapped.h5ad that `scgraft map` wrote."
        )
    if str(record["base"]["sha256"]) != reference.base.sha256:
        raise BaseMismatch(
            f"Query {name!r} was mapped onto {record['base']['repo']} (model sha256 {record['base']['sha256'][:12]}), "
            f"not onto {reference.base.repo} ({reference.base.sha256[:12]}). Their latents cannot be compared."
        )


def _keys(obs: pd.DataFrame, queries: Mapping[str, AnnData]) -> list[str]:
    return [key for key in obs.columns if queries and all(f"scgraft_{key}" in adata.obs for adata in queries.values())]


def _reference_table(reference: Reference, obs: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    assert reference.latent is not None
    schema = reference.schema
    table: dict[str, Any] = {"source": REFERENCE, "cell": reference.latent.cells}
    known = schema.batch_key in obs
    table["batch"] = [level_name(value) for value in obs[schema.batch_key]] if known else schema.batches[0]
    for key in keys:
        if key not in obs:
            raise NoLabels(
                f"The reference's cells have no column {key!r}; they have {', '.join(map(str, obs.columns))}. Choose one of these."
            )
        table[key] = column_text(obs[key])
        table[f"{key}_probability"] = np.full(len(obs), np.nan, np.float32)
        table[f"{key}_unknown"] = np.zeros(len(obs), bool)
    return pd.DataFrame(table)


def _mapped(adata: AnnData) -> np.ndarray:
    return ~np.isnan(np.asarray(adata.obsm["X_scgraft"])).any(axis=1)


def _query_table(name: str, adata: AnnData, keys: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    obs = adata.obs.loc[_mapped(adata)]
    batch_key = str(adata.uns["scgraft"].get("batch_key") or "")
    batches = list(adata.uns["scgraft"].get("batches", []))
    if batch_key and batch_key not in obs:
        raise QueryError(
            f"Query {name!r} has lost its batch column obs[{batch_key!r}]; put it back beside the annotation."
        )
    batch = [level_name(v) for v in obs[batch_key]] if batch_key else (str(batches[0]) if batches else name)
    table: dict[str, Any] = {"source": name, "cell": obs.index.astype(str).to_numpy(), "batch": batch}
    for key in keys:
        column = f"scgraft_{key}"
        if column not in obs:
            raise QueryError(
                f"Query {name!r} carries no transferred label {key!r} (obs[{column!r}]). Map it with labels={key!r} "
                f"(--labels {key}), and annotate it again."
            )
        table[key] = column_text(obs[f"{column}_call" if f"{column}_call" in obs else column])
        table[f"{key}_probability"] = obs[f"{column}_probability"].to_numpy(np.float32)
        table[f"{key}_unknown"] = obs[f"{column}_unknown"].to_numpy(bool)
    return pd.DataFrame(table)
