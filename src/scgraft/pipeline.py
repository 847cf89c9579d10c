"""The chain: load a reference, align, fit, embed, transfer, annotate. Nothing is computed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from scgraft.align import align
from scgraft.confidence import Calibration, Quality
from scgraft.embed import classify, embed
from scgraft.errors import QueryError
from scgraft.fit import fit
from scgraft.hub import fetch
from scgraft.scvi_format import read
from scgraft.transfer import transfer_labels
from scgraft.trust import trust
from scgraft.values import FitConfig, Graft, Labels, Latent, MappedQuery, Query, Reference

if TYPE_CHECKING:
    from anndata import AnnData


def load_reference(source: str | Path, revision: str | None = None) -> Reference:
    """Load a pretrained model from a HuggingFace repository or a folder, without running any code from it.

    Parameters
    ----------
    source
        Repository (``"org/name"``) or folder in the format of scvi-hub.
    revision
        Branch, tag or commit of the repository; it is resolved to a commit, which is recorded.

    Returns
    -------
    Reference
        With the stored posterior of its cells, or, where the repository holds counts instead, with the posterior
        encoded from them.

    Raises
    ------
    HubError
        The repository cannot be fetched; the subclasses say why.
    UnsafeFile, CorruptFile
        The files hold something that is not on the allow-list, or are damaged.
    UnsupportedModel
        A class or an option that scgraft does not know.
    """
    reference = read(fetch(source, revision))
    if reference.latent is not None or reference.adata_path is None:
        return reference
    return _with_encoded_cells(reference)


def _with_encoded_cells(reference: Reference) -> Reference:
    """The reference with the posterior of its own cells, encoded from the counts that its repository holds."""
    import anndata

    assert reference.adata_path is not None and reference.obs is not None
    adata = anndata.read_h5ad(reference.adata_path, backed="r")
    try:
        query = align(adata, reference, batch_key=reference.schema.batch_key, drop_empty=True)
    except QueryError as error:
        return replace(reference, latent_source=f"none: the stored cells cannot be encoded ({error})")
    finally:
        adata.file.close()
    if reference.schema.batch_key is None:
        levels = dict(query.levels) | {"batch": reference.schema.batches}
        query = replace(query, codes=_first_level(query.codes), levels=levels)
    latent = embed(reference, query)
    kept = reference.obs.index.astype(str).isin(latent.cells)
    return replace(
        reference,
        latent=latent,
        latent_source="encoded from the stored counts",
        obs=reference.obs.loc[kept],
        maps={key: points[np.asarray(kept)] for key, points in reference.maps.items()},
        library=np.asarray(query.counts.sum(axis=1), dtype=np.float32).ravel(),
    )


def _first_level(codes: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros_like(codes[:, :1]), codes[:, 1:]], axis=1)


def map_query(
    reference: Reference,
    adata: AnnData,
    *,
    batch_key: str | None = None,
    labels: Literal["auto"] | Sequence[str] | None = "auto",
    config: FitConfig | None = None,
    graft: Graft | None = None,
    layer: str | None = None,
    drop_empty: bool = False,
    calibration: Literal["auto"] | Mapping[str, Calibration] | None = "auto",
) -> MappedQuery:
    """Map a query onto a reference: align, fit (or re-apply a graft), embed, transfer labels.

    Parameters
    ----------
    reference
        From :func:`load_reference`.
    adata
        The query with raw UMI counts somewhere (X, a layer, raw); it is not changed.
    batch_key
        obs column of the query's batches; None makes the whole query one new batch.
    labels
        ``"auto"`` for the label column of the reference's registry, a list of columns of the reference's obs, or None.
    config
        Settings of the fit.
    graft
        A graft to re-apply instead of fitting one.
    layer
        Where the counts are, if they should not be looked for.
    drop_empty
        Leave out cells without any count in the reference's genes.
    calibration
        ``"auto"`` calibrates labels and novelty on held-out batches of the reference, once for each reference and label
        column (kept in the user's cache); a calibration from before; or None for bare votes.

    Returns
    -------
    MappedQuery
        `latent.mean` is (n, d); `labels` is keyed by column. Where calibrated, they have prediction sets, `novelty` says
        which cells the reference does not explain, and `verdict` whether the mapping was good.

    Raises
    ------
    QueryError
        The query cannot be used as it is; the subclasses say why.
    UnknownBatch
        The graft does not know a batch of the query.
    NoLabels
        Labels were asked for and there is nothing to transfer them from.
    """
    query = align(adata, reference, batch_key=batch_key, layer=layer, drop_empty=drop_empty)
    if graft is None:
        graft = fit(reference, query, _with_labels(config or FitConfig(), labels))
    latent = embed(reference, query, graft, device="auto" if config is None else config.device)
    transferred = _labels(reference, latent, labels)
    mapped = MappedQuery(
        reference.base, query.alignment, graft, latent, transferred, summary(query, graft, transferred)
    )
    if calibration is None or labels is None or reference.latent is None or reference.obs is None:
        return mapped
    given = None if calibration == "auto" else calibration
    trusted = trust(reference, query, graft, latent, transferred, calibration=given)
    return replace(
        mapped,
        labels=trusted.labels,
        novelty=trusted.novelty,
        calibration=trusted.calibration,
        verdict=trusted.verdict,
        quality=summary(query, graft, trusted.labels),
    )


def _with_labels(config: FitConfig, wanted: Literal["auto"] | Sequence[str] | None) -> FitConfig:
    """The config, judging the fit by the first label column that is to be transferred."""
    if config.labels is not None or wanted is None or wanted == "auto":
        return config
    return replace(config, labels=wanted if isinstance(wanted, str) else next(iter(wanted), None))


def _labels(
    reference: Reference, latent: Latent, wanted: Literal["auto"] | Sequence[str] | None
) -> Mapping[str, Labels]:
    if wanted is None:
        return {}
    if wanted == "auto" and reference.schema.labels_key is None:
        return {}
    keys = None if wanted == "auto" else [wanted] if isinstance(wanted, str) else list(wanted)
    return transfer_labels(reference, latent, keys=keys, classifier=classify(reference, latent))


def summary(query: Query, graft: Graft, labels: Mapping[str, Labels]) -> dict[str, Any]:
    """Numbers on a mapping, ready for JSON."""
    alignment, record = query.alignment, graft.record
    return {
        "cells": len(query.cells),
        "genes_found": alignment.n_found,
        "genes_of_reference": alignment.n_genes,
        "found_weight": round(alignment.found_weight, 4),
        "counts_from": alignment.counts_from,
        "trained": record.trained,
        "reason": record.reason,
        "moved": dict(record.moved),
        "labels": {
            key: {
                "unknown_share": round(float(result.unknown.mean()), 4),
                "median_probability": round(float(np.median(result.probability)), 4),
                "median_relative_distance": None
                if np.isnan(result.distance).all()
                else round(float(np.nanmedian(result.distance)), 4),
            }
            for key, result in labels.items()
        },
    }


def quality(
    reference: Reference, adata: AnnData, mapped: MappedQuery, *, batch_key: str | None = None, layer: str | None = None
) -> Quality:
    """Was the mapping good? One verdict, with a sentence and a next action for each measure.

    Every number stands beside its null distribution: the same number for batches of the reference that were held out and
    mapped through the same pipeline. ``map_query`` has it ready in ``mapped.verdict``; this judges a mapping that was made
    without a calibration.

    Parameters
    ----------
    reference, adata, mapped
        The reference, the query with its raw counts, and its mapping (with labels, if the reference has any).
    batch_key, layer
        As for :func:`map_query`.

    Raises
    ------
    QueryError
        The query cannot be used as it is.
    NoLabels
        The reference holds no cells to compare with.
    """
    if mapped.verdict is not None:
        return mapped.verdict
    query = align(adata, reference, batch_key=batch_key, layer=layer, drop_empty=bool(mapped.alignment.dropped))
    return trust(reference, query, mapped.graft, mapped.latent, mapped.labels).verdict


def annotate(adata: AnnData, mapped: MappedQuery) -> AnnData:
    """Write the results of a mapping into the query, in place.

    Writes ``obsm["X_scgraft"]`` (n, d) float32 and, for each label column, ``obs["scgraft_<key>"]``,
    ``obs["scgraft_<key>_probability"]`` and ``obs["scgraft_<key>_unknown"]``; where calibrated also
    ``obs["scgraft_<key>_set"]`` (labels at an error rate of 10 %), ``obs["scgraft_novelty"]`` and ``obs["scgraft_novel"]``.
    ``uns["scgraft"]`` holds the base, its commit and hash, versions and settings. Cells that the mapping left out get NaN.

    Raises
    ------
    QueryError
        The cells of the mapping are not cells of `adata`.
    """
    import pandas as pd

    names = pd.Index(adata.obs_names.astype(str))
    position = names.get_indexer(pd.Index(mapped.latent.cells))
    if (position < 0).any():
        first = mapped.latent.cells[position < 0][:3]
        raise QueryError(f"Cells {', '.join(first)} of the mapping are not in this AnnData; annotate the query itself.")
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
            sets = pd.Series(index=names[position], data=result.at(0.1)).reindex(names)
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
