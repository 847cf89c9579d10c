"""Scores of a mapping against the true labels. Standard ones are scikit-learn's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scgraft.numerics.neighbors import nearest
from scgraft.numerics.votes import neighbour_weights, relative_distance

K = 30


@dataclass(frozen=True)
class Result:
    """What a method says: coordinates of reference and query where it has any, and shares of the vote (n, C)."""

    classes: np.ndarray
    vote: np.ndarray
    seconds: float
    reference: np.ndarray | None = None
    query: np.ndarray | None = None
    novelty: np.ndarray | None = None


def weighted_vote(reference: np.ndarray, query: np.ndarray, labels: np.ndarray, k: int = K) -> tuple[np.ndarray, ...]:
    """Classes and votes of scArches' weighted nearest neighbours."""
    classes, codes = np.unique(labels, return_inverse=True)
    found = nearest(reference, query, k=min(k, len(reference)))
    vote = np.zeros((len(query), len(classes)))
    rows = np.repeat(np.arange(len(query)), found.indices.shape[1])
    np.add.at(vote, (rows, codes[found.indices].ravel()), neighbour_weights(found.distances).ravel())
    return classes, vote


def score(
    result: Result,
    reference_labels: np.ndarray,
    query_labels: np.ndarray,
    query_batches: np.ndarray,
    own: np.ndarray,
) -> dict[str, float]:
    """All scores of one mapping.

    Parameters
    ----------
    result
        From a method.
    reference_labels, query_labels, query_batches
        True labels and batches.
    own
        Principal components (n, p) of each batch of the query by itself: the structure to be preserved.

    Returns
    -------
    dict
        Over cells whose type the reference has: `accuracy`, `balanced`, `macro_f1`. `mixing` and `batch_asw` are within
        cell types. `trust` is the trustworthiness of the query's neighbourhoods. `auroc_distance`, `auroc_vote` and
        `auroc_novelty` tell types that the reference lacks. A score that does not apply is absent.
    """
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

    known = np.isin(query_labels, reference_labels)
    predicted = result.classes[result.vote.argmax(axis=1)]
    scores = {"seconds": result.seconds}
    if known.any():
        truth, said = query_labels[known], predicted[known]
        scores["accuracy"] = accuracy_score(truth, said)
        scores["balanced"] = balanced(truth, said)
        if len(np.unique(truth)) > 1 and set(said) <= set(truth):
            assert abs(scores["balanced"] - balanced_accuracy_score(truth, said)) < 1e-9
        scores["macro_f1"] = f1_score(truth, said, labels=np.unique(truth), average="macro", zero_division=0)
    if known.any() and not known.all():
        scores["auroc_vote"] = auroc(~known, -result.vote.max(axis=1))
        if result.novelty is not None:
            scores["auroc_novelty"] = auroc(~known, result.novelty)
    if result.reference is not None and result.query is not None:
        scores |= mixing(result.reference, result.query, reference_labels, query_labels)
        scores["trust"] = preservation(own, result.query, query_batches)
        if known.any() and not known.all():
            found = nearest(result.reference, result.query, k=15)
            scores["auroc_distance"] = auroc(~known, relative_distance(result.reference, found))
    return scores


def balanced(truth: np.ndarray, said: np.ndarray) -> float:
    """Mean recall of the true types: one that is only among the predictions has none, and counts as errors, not as a class."""
    return float(np.mean([(said[truth == t] == t).mean() for t in np.unique(truth)]))


def auroc(novel: np.ndarray, doubt: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(novel, doubt))


def mixing(
    reference: np.ndarray, query: np.ndarray, reference_labels: np.ndarray, query_labels: np.ndarray
) -> dict[str, float]:
    """Mixing within cell types, so that a difference in composition is no fault and merging types no merit.

    `mixing`: share of reference cells among the 30 nearest of the same type around each query cell, over the share
    expected (1: mixed). `batch_asw`: batch silhouette of scIB (Luecken et al. 2022), 1 - |silhouette| of reference against
    query, averaged over types.
    """
    from sklearn.metrics import silhouette_samples

    shares, counts, silhouettes = [], [], []
    for label in np.unique(query_labels):
        r, q = reference[reference_labels == label], query[query_labels == label]
        if len(r) < 5 or len(q) < 3:
            continue
        points = np.concatenate([r, q])
        k = min(K, len(points) // 3)
        found = nearest(points, q, k=k + 1).indices[:, 1:]
        shares.append((found < len(r)).mean() / (len(r) / (len(points) - 1)))
        counts.append(len(q))
        side = np.repeat([0, 1], [len(r), len(q)])
        silhouettes.append(float((1 - np.abs(silhouette_samples(points, side))).mean()))
    if not shares:
        return {}
    return {"mixing": float(np.average(shares, weights=counts)), "batch_asw": float(np.mean(silhouettes))}


def own_structure(counts: object, batches: np.ndarray) -> np.ndarray:
    """Principal components of log-normalised counts, (n, 20), each batch of the query by itself."""
    import anndata
    import scanpy as sc

    out = np.zeros((len(batches), 20))
    for batch in np.unique(batches):
        rows = np.flatnonzero(batches == batch)
        adata = anndata.AnnData(counts[rows].copy())
        sc.pp.normalize_total(adata, target_sum=1e4)
        sc.pp.log1p(adata)
        n = min(20, len(rows) - 1)
        if n >= 1:
            sc.pp.pca(adata, n_comps=n, svd_solver="full" if len(rows) < 40 else "arpack")
            out[rows, :n] = adata.obsm["X_pca"]
    return out


def preservation(own: np.ndarray, latent: np.ndarray, batches: np.ndarray) -> float:
    """Trustworthiness (Venna and Kaski 2001) of the query's neighbourhoods, the mean over its batches."""
    from sklearn.manifold import trustworthiness

    found = []
    for batch in np.unique(batches):
        rows = batches == batch
        k = min(15, int(rows.sum()) // 3)
        if k >= 2:
            found.append(trustworthiness(own[rows], latent[rows], n_neighbors=k))
    return float(np.mean(found)) if found else float("nan")
