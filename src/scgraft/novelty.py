"""What the reference cannot explain: residuals of the model's own reconstruction, averaged over query neighbours.

A single cell's counts are too noisy to tell a missing type from an unlucky cell. Cells of a missing type are wrong in
the *same genes*: the mean of their Pearson residuals over neighbours stays, where noise cancels. The score is the squared
mean residual over its expectation under the model, so it is about 1 for cells that the model describes. It knows nothing of
labels, so a cell between two known types is doubtful, but not novel. How large a score must be for a cell to be novel does
depend on them: what is unexplained is held against what the batch's misfit could be, and against how far types are apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scgraft.confidence import Dossier, Novelty
from scgraft.conformal import threshold_at
from scgraft.errors import NoLabels
from scgraft.model import take_cells
from scgraft.neighbors import Neighbours, nearest
from scgraft.query_graph import QueryGraph, query_graph
from scgraft.reconstruction import decoder, residuals, type_distances
from scgraft.transfer import K, reference_classes, relative_distance
from scgraft.values import BATCH, Graft, Latent, Query, Reference, column_text

GATHERED = 128
FALSE_ALARMS = 0.05
TYPE_MISFIT = 2.5
TOWARDS = 1 / 3  # of a squared distance: more than half of the way
LEAST_TOWARDS = 0.5  # of what noise leaves: types that are nearer to each other say nothing
LEAST_BATCH = 20
LEAST_GROUP = 5
CHANCE = 1e-3
GENES = 12
COMMON = 0.25
NEAR = 15


def novelty_score(
    residual: np.ndarray, graph: QueryGraph, batch: np.ndarray, present: np.ndarray
) -> tuple[np.ndarray, float]:
    """Novelty of each cell, (n,) float32: squared mean residual of its neighbours over what noise leaves; and the misfit.

    The misfit is the median over the cells before anything is taken out: 1 where the model is right.

    Parameters
    ----------
    residual
        Of the graph's anchors, (a, G).
    graph
        The query's neighbours.
    batch
        Code of each cell's batch, (n,). What the best explained half of a batch shares is the batch's own misfit and is
        taken out; a batch of fewer than 20 cells is left as it is.
    present
        Genes that the query has, (G,); the others say nothing.
    """
    kept = _columns(residual, present)
    first, centres = _shared(kept, graph, batch, {}), {}
    for code in np.unique(batch):
        own = np.flatnonzero(batch == code)
        if len(own) >= LEAST_BATCH:
            best = own[np.argsort(first[own], kind="stable")[: len(own) // 2]]
            weight = np.bincount(graph.neighbours[best].ravel(), minlength=len(kept)).astype(np.float32)
            centres[int(code)] = weight @ kept / weight.sum()
    return _shared(kept, graph, batch, centres), float(np.median(first))


def present_genes(reference: Reference, query: Query) -> np.ndarray:
    """Genes of the reference that the query has, (G,) bool."""
    return ~np.isin(reference.schema.genes.astype(str), np.array(query.alignment.missing, dtype=str))


def _columns(residual: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Some columns; the array itself, which can be large, where these are all."""
    return residual if present.all() else np.ascontiguousarray(residual[:, present])


def _shared(kept: np.ndarray, graph: QueryGraph, batch: np.ndarray, centres: dict[int, np.ndarray]) -> np.ndarray:
    """Squared mean residual over the neighbours, each batch relative to its centre, over its expectation under noise."""
    n, k = graph.neighbours.shape
    score = np.empty(n, np.float32)
    for start in range(0, n, GATHERED):
        rows = np.arange(start, min(start + GATHERED, n))
        shared = kept[graph.neighbours[rows]].mean(axis=1)
        for code, centre in centres.items():
            shared[batch[rows] == code] -= centre
        score[rows] = (shared**2).mean(axis=1) * k
    return score


def scaled_null(null: np.ndarray, score: np.ndarray) -> np.ndarray:
    """The null scores on the query's scale: the medians are matched, and the null never shrinks.

    Held-out cells that were generated lack what the model gets wrong about every real cell; the median cell of a query
    shows that common misfit (the idea of an empirical null; Efron 2004, doi:10.1198/016214504000000089). It is a known cell
    as long as less than half of the query is novel; beyond that, novel cells are increasingly missed, never invented.
    """
    if not len(null) or not len(score):
        return null
    ratio = np.median(score) / max(float(np.median(null)), 1e-12)
    return null * max(float(ratio), 1.0)


def novelty_limits(score: np.ndarray, null: np.ndarray, excess: float, apart: np.ndarray, rate: float) -> np.ndarray:
    """Score above which each cell is novel, (n,): the smaller of two limits.

    *What a misfit may explain.* The null on the query's scale, and at least 1 + 2.5 times the excess of the misfit: types
    differ in what the model gets wrong about them, and what it gets wrong of one type is of the order of what it gets wrong
    of all. *What no misfit explains.* The null as it is, and a residual longer than half of the way to other types: such a
    cell is none of its own type, even where so many cells are novel that their median is no yardstick. It counts from 1.5 on:
    subtypes that lie within the noise of one another are no yardstick either.

    Parameters
    ----------
    score
        Of the query's cells, (n,).
    null
        Of held-out cells, (m,).
    excess
        Misfit of the query less that of held-out batches, which counts as 1 at least; what is below 0 counts as 0.
    apart
        Expected score of a cell that was as far from its type as other types are, less 1, (n,): distances between types
        in squared residuals, times the number of neighbours.
    rate
        Declared share of reference-like cells above the threshold.
    """
    misfitted = max(threshold_at(scaled_null(null, score), rate), 1 + TYPE_MISFIT * max(excess, 0.0))
    foreign = np.maximum(threshold_at(null, rate), 1 + np.maximum(TOWARDS * apart, LEAST_TOWARDS))
    return np.minimum(misfitted, foreign).astype(np.float32)


def misfit_excess(misfit: float, held_out: Sequence[float]) -> float:
    """How much larger a query's misfit is than that of the median held-out batch, or than 1, which a right model has."""
    return misfit - max([1.0, float(np.median(held_out))] if len(held_out) else [1.0])


def distance_to(reference: Reference, latent: Latent) -> np.ndarray:
    """Relative distance (n,) of cells to the reference in the latent; about 1 inside it."""
    assert reference.latent is not None
    points = reference.latent.mean
    return relative_distance(points, nearest(points, latent.mean, k=min(NEAR, len(points))))


def find_novelty(
    reference: Reference,
    query: Query,
    graft: Graft | None,
    latent: Latent,
    null: np.ndarray,
    *,
    null_distance: np.ndarray | None = None,
    null_misfit: Sequence[float] = (),
    key: str | None = None,
    graph: QueryGraph | None = None,
    false_alarms: float = FALSE_ALARMS,
) -> Novelty:
    """Find the query's cells that the reference does not explain.

    Parameters
    ----------
    reference, query, graft, latent
        The mapping; `query` holds raw counts (n, G).
    null
        Scores of held-out reference cells, from a calibration; without any, nothing is novel.
    null_distance
        Relative distances of held-out reference cells; without any, distance makes no cell novel.
    null_misfit
        Misfits of held-out batches of the reference, from a calibration.
    key
        Label column of the reference: how far its types are apart, and for the dossiers. Without labels nothing but the
        misfit sets the threshold.
    graph
        The query's neighbours, where they are known already.
    false_alarms
        Declared share of reference-like cells above the threshold.

    Returns
    -------
    Novelty
        Scores and clusters of the cells, and a dossier for each group of at least five novel cells in a cluster that a
        binomial test at the declared rate does not explain (p < 0.001). Nothing is random; seeds are fixed.
    """
    graph = query_graph(query.counts) if graph is None else graph
    seen, at = take_cells(query, graph.anchors), _latent_rows(latent, graph.anchors)
    decode, present = decoder(reference, seen, graft), present_genes(reference, query)
    residual = residuals(decode, seen.counts, at.mean)
    batch = query.codes[:, 0]
    score, misfit = novelty_score(residual, graph, batch, present)
    labels, codes = _types(reference, key)
    assert reference.latent is not None
    points = reference.latent.mean
    found = nearest(points, latent.mean, k=min(K, len(points)))
    near = Neighbours(found.indices[graph.anchors], found.distances[graph.anchors])
    between = type_distances(decode, reference, at, seen.codes[:, 0], codes, near, present=present)
    apart = between[graph.neighbours].mean(axis=1) * graph.neighbours.shape[1]
    # From a small batch nothing was taken out: what all of its cells share is in every residual, and says nothing.
    apart = np.where(np.bincount(batch)[batch] >= LEAST_BATCH, apart, np.inf)
    threshold = novelty_limits(score, null, misfit_excess(misfit, null_misfit), apart, false_alarms / 2)
    far, strength = float("inf"), score / threshold
    if null_distance is not None and len(null_distance):
        distance = relative_distance(points, found)
        far = threshold_at(scaled_null(null_distance, distance), false_alarms / 2)
        strength = np.maximum(strength, (distance / far) ** 2)  # the score is a square too
    strength = strength.astype(np.float32)
    novel = strength > 1
    groups = _Groups(reference, query, latent, graph, residual, present, strength, novel, labels)
    dossiers = tuple(
        _dossier(groups, int(cluster))
        for cluster in np.unique(graph.cluster)
        if _is_group(groups, cluster, false_alarms)
    )
    return Novelty(score, misfit, threshold, far, novel, strength, false_alarms, graph.cluster, dossiers)


def _types(reference: Reference, key: str | None) -> tuple[np.ndarray | None, np.ndarray]:
    """Labels of the reference cells, as text, and their classes; no labels, and -1 for every cell, where there are none."""
    assert reference.latent is not None
    none = np.full(len(reference.latent.mean), -1)
    if key is None or reference.obs is None or key not in reference.obs:
        return None, none
    labels = column_text(reference.obs[key])
    try:
        return labels, reference_classes(reference, key)[1]
    except NoLabels:  # a column without a value: nothing is known of types
        return labels, none


@dataclass(frozen=True)
class _Groups:
    """What a dossier is made from."""

    reference: Reference
    query: Query
    latent: Latent
    graph: QueryGraph
    residual: np.ndarray
    present: np.ndarray
    score: np.ndarray
    novel: np.ndarray
    labels: np.ndarray | None


def _is_group(found: _Groups, cluster: int, rate: float) -> bool:
    """Whether a cluster has more novel cells than false alarms explain."""
    from scipy.stats import binom

    own = found.graph.cluster == cluster
    n_novel = int(found.novel[own].sum())
    return n_novel >= LEAST_GROUP and float(binom.sf(n_novel - 1, int(own.sum()), rate)) < CHANCE


def _dossier(found: _Groups, cluster: int) -> Dossier:
    inside = found.graph.cluster == cluster
    own = np.flatnonzero(inside & found.novel)
    worst = own[np.argsort(-found.score[own], kind="stable")]
    levels = found.query.levels[BATCH]
    names, number = np.unique(found.query.codes[own, 0], return_counts=True)
    batches = {levels[c]: int(n) for c, n in zip(names, number, strict=True)}
    types = _nearest_types(found, own)
    at = np.isin(found.graph.anchors, own)
    mean = np.where(found.present, found.residual[at].mean(axis=0) if at.any() else 0.0, 0.0)
    known = np.isin(found.graph.anchors, np.flatnonzero(~found.novel))
    if known.any():
        mean = mean - np.where(found.present, found.residual[known].mean(axis=0), 0.0)
    genes = found.reference.schema.genes
    # A gene that a few cells have is no marker of the group, however unlikely the model finds it there.
    common = (found.residual[at] > 0).mean(axis=0) >= COMMON if at.any() else found.present
    upward = np.argsort(np.where(common, -mean, 0.0), kind="stable")[:GENES]
    order = np.argsort(-mean, kind="stable")
    more = tuple((str(genes[g]), round(float(mean[g]), 2)) for g in upward if mean[g] > 0 and common[g])
    less = tuple((str(genes[g]), round(float(mean[g]), 2)) for g in order[::-1][:GENES] if mean[g] < 0)
    like = ", ".join(f"{name} ({share:.0%})" for name, share in list(types.items())[:2] if share >= 0.05)
    sentence = f"{len(own)} of the {int(inside.sum())} cells of cluster {cluster} are not explained by the reference."
    sentence += f" They have more {', '.join(g for g, _ in more[:5])} than it expects." if more else ""
    sentence += f" Nearest in the latent: {like}." if like else ""
    return Dossier(
        cluster=cluster,
        n_cells=len(own),
        n_cluster=int(inside.sum()),
        batches=batches,
        nearest=types,
        genes=more,
        lacking=less,
        cells=tuple(found.query.cells[worst[:10]].tolist()),
        sentence=sentence,
    )


def _nearest_types(found: _Groups, own: np.ndarray) -> dict[str, float]:
    reference = found.reference.latent
    if reference is None or found.labels is None:
        return {}
    near = nearest(reference.mean, found.latent.mean[own[:1000]], k=15).indices
    names, number = np.unique(found.labels[near], return_counts=True)
    order = np.argsort(-number, kind="stable")[:5]
    return {str(names[i]): round(float(number[i] / number.sum()), 3) for i in order}


def _latent_rows(latent: Latent, rows: np.ndarray) -> Latent:
    return Latent(latent.mean[rows], latent.variance[rows], latent.cells[rows])
