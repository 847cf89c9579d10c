"""The chain: align, fit, embed, transfer, calibrate. Nothing is computed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from scgraft.calibration.calibrate import calibration_of
from scgraft.errors import GraftError
from scgraft.graft.embed import embed
from scgraft.graft.fit import fit
from scgraft.judgement.verdict import measure_quality
from scgraft.labels.classifier import classifier_for
from scgraft.labels.transfer import calibrated_labels, transfer_labels
from scgraft.labels.votes import cast_votes, classify
from scgraft.novelty.find import find_novelty
from scgraft.novelty.query_graph import query_graph
from scgraft.numerics.index import Near
from scgraft.query.align import align_as
from scgraft.values.calibration import Calibration
from scgraft.values.graft import FitConfig, Graft
from scgraft.values.labels import Labels
from scgraft.values.mapping import MappedQuery
from scgraft.values.quality import Verdict
from scgraft.values.query import AlignOptions, Query
from scgraft.values.reference import Latent, Reference

if TYPE_CHECKING:
    from anndata import AnnData


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
    min_found: float = 0.5,
    gene_map: Mapping[str, str] | None = None,
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
    min_found
        Least share of the reference's genes, by weight, that the query must have.
    gene_map
        Query gene to reference gene, taken before anything else.
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

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> mapped = scgraft.map_query(reference, adata, batch_key="batch")
    >>> mapped.latent.mean.shape, mapped.labels["cell_type"].label.shape
    ((40, 4), (40,))
    >>> mapped.novelty.novel.dtype, mapped.verdict.light in ("green", "amber", "red")
    (dtype('bool'), True)
    """
    query = align_as(reference, adata, AlignOptions(batch_key, layer, drop_empty, min_found, gene_map))
    if graft is None:
        graft = fit(reference, query, _with_labels(config or FitConfig(), labels))
    latent = embed(reference, query, graft, device="auto" if config is None else config.device)
    near = None if reference.latent is None else reference.latent.index.near(latent.mean)
    transferred = _labels(reference, latent, labels, near)
    mapped = MappedQuery(
        reference.base, query.alignment, graft, latent, transferred, summary(query, graft, transferred), near=near
    )
    if calibration is None or labels is None or reference.latent is None or reference.obs is None:
        return mapped
    return calibrated(reference, query, mapped, None if calibration == "auto" else calibration)


def calibrated(
    reference: Reference, query: Query, mapped: MappedQuery, calibration: Mapping[str, Calibration] | None = None
) -> MappedQuery:
    """A mapping whose labels have probabilities that mean something, with its novel cells and a verdict.

    Parameters
    ----------
    reference, query, mapped
        The mapping, with labels from :func:`scgraft.transfer_labels`.
    calibration
        By label column; None takes the one in the cache, or makes it.

    Raises
    ------
    GraftError
        The calibration lacks a label column, or its classes are not those of the reference.
    """
    labels, graft, latent = mapped.labels, mapped.graft, mapped.latent
    keys = [key for key, result in labels.items() if key == result.key and not key.endswith(":classifier")]
    keys = [key for key in keys if reference.obs is not None and key in reference.obs]
    if calibration is None:
        calibration = calibration_of(reference, keys)
    for key in keys:
        if key not in calibration or calibration[key].classes != labels[key].classes:
            raise GraftError(
                f"The calibration has no column {key!r} with the classes of this reference (it has "
                f"{', '.join(calibration) or 'none'}). Leave it out, and one is made."
            )
    first = calibration[keys[0]] if keys else next(iter(calibration.values()))
    graph = query_graph(query.counts)
    novelty = find_novelty(
        reference,
        query,
        graft,
        latent,
        first.novelty,
        null_distance=first.distance,
        null_misfit=first.quality.get("misfit", ()),
        key=first.key or None,
        graph=graph,
        near=mapped.near,
    )
    out = dict(labels)
    for key in keys:
        classifier = classifier_for(reference, calibration[key], query)
        votes = cast_votes(classifier, query, labels[key].matrix, novelty.score)
        made = calibrated_labels(labels[key], calibration[key], votes)
        out[key] = replace(made, unknown=made.unknown | novelty.novel)
    return replace(
        mapped,
        labels=out,
        novelty=novelty,
        calibration=dict(calibration),
        verdict=measure_quality(reference, query, graft, latent, out, novelty, graph, first),
        summary=summary(query, graft, out),
    )


def _with_labels(config: FitConfig, wanted: Literal["auto"] | Sequence[str] | None) -> FitConfig:
    """The config, judging the fit by the first label column that is to be transferred."""
    if config.labels is not None or wanted is None or wanted == "auto":
        return config
    return replace(config, labels=wanted if isinstance(wanted, str) else next(iter(wanted), None))


def _labels(
    reference: Reference, latent: Latent, wanted: Literal["auto"] | Sequence[str] | None, near: Near | None
) -> Mapping[str, Labels]:
    if wanted is None:
        return {}
    if wanted == "auto" and reference.schema.labels_key is None:
        return {}
    names = None if wanted == "auto" else [wanted] if isinstance(wanted, str) else list(wanted)
    return transfer_labels(reference, latent, labels=names, classifier=classify(reference, latent), near=near)


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


def verdict(reference: Reference, adata: AnnData, mapped: MappedQuery) -> Verdict:
    """Was the mapping good? One verdict, with a sentence and a next action for each measure.

    Every number stands beside its null distribution: the same number for batches of the reference that were held out and
    mapped through the same pipeline. ``map_query`` has it ready in ``mapped.verdict``; this judges a mapping that was made
    without a calibration.

    Parameters
    ----------
    reference, adata, mapped
        The reference, the query with its raw counts, and its mapping (with labels, if the reference has any).

    Raises
    ------
    QueryError
        The query cannot be used as it is.
    NoLabels
        The reference holds no cells to compare with.

    Examples
    --------
    >>> import scgraft
    >>> folder, adata = scgraft.testing.example()
    >>> reference = scgraft.load_reference(folder)
    >>> mapped = scgraft.map_query(reference, adata, batch_key="batch")
    >>> found = scgraft.verdict(reference, adata, mapped)
    >>> found.light == mapped.verdict.light
    True
    >>> [measure.name for measure in found.measures][:3]
    ['genes', 'distance', 'preservation']
    """
    if mapped.verdict is not None:
        return mapped.verdict
    query = align_as(reference, adata, mapped.alignment.options)
    judged = calibrated(reference, query, mapped).verdict
    assert judged is not None
    return judged
