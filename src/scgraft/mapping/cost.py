"""What missing genes cost, measured before anything is mapped: cells of the reference are generated, blanked and labelled."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from scgraft.errors import GenesNotFound
from scgraft.expression.generate import counted_cells, generate
from scgraft.graft.embed import embed
from scgraft.novelty.score import present_genes
from scgraft.numerics.neighbors import nearest
from scgraft.numerics.votes import K, neighbour_vote
from scgraft.reference.cells import label_key, missing_columns, reference_classes
from scgraft.values.query import Query
from scgraft.values.reference import Reference

DRAWS = 60  # cells of each type, half of which vote and half are asked; chosen for the time of a check, not measured otherwise
MOST_DRAWS = 3000  # cells of all types; chosen for the time of a check, not measured otherwise
FULL_ENOUGH = 0.5  # of the reference's weight: with less, what is missing is measured before a query is mapped
# Mean loss of accuracy over types. Panels of 300 genes lose .02 to .1; genes that were found by accident lose nearly all.
MOST_LOST = 0.25


def judge_missing_genes(reference: Reference, query: Query, *, seed: int = 0, device: str = "auto") -> str:
    """What the missing genes cost, in a sentence for the user; "" where most of the weight was found.

    Raises
    ------
    GenesNotFound
        The types lose more than a quarter of their accuracy, or it cannot be measured, as the reference has no labels or cells.
    """
    found, key = query.alignment, label_key(reference.schema, reference.obs)
    if found.found_weight >= FULL_ENOUGH:
        return ""
    said = f"{found.n_found} of the reference's {found.n_genes} genes were found ({found.found_weight:.0%} by weight)"
    names = f"The reference has {', '.join(reference.schema.genes[:5])}, .... Give the query the same identifiers (a column of "
    names += ".var will do), pass gene_map (--gene-map), or lower min_found (--min-found) if you know that these genes suffice."
    known = reference.latent is not None and reference.obs is not None and not missing_columns(reference)
    if key is None or not known:
        raise GenesNotFound(f"Only {said}, and without labelled cells what that costs cannot be measured. {names}")
    lost, accuracy = cost_of_missing_genes(reference, key, present_genes(reference, query), query, seed, device=device)
    mean, full = float(np.mean(list(lost.values()))), float(np.mean(list(accuracy.values())))
    cost = f"measured on generated cells, the labels' accuracy falls from {full:.1%} to {full - mean:.1%} on the mean of the types"
    if mean > MOST_LOST:
        raise GenesNotFound(f"Only {said}: {cost}. {names}")
    return f"{said}: {cost}."


def cost_of_missing_genes(
    reference: Reference, key: str, present: np.ndarray, query: Query, seed: int, *, device: str = "auto"
) -> tuple[dict[str, float], dict[str, float]]:
    """Loss of accuracy, and accuracy with all genes, of each type: cells generated, blanked, encoded, transferred.

    The cells are drawn at the query's median library size; their own posteriors do not vote.
    """
    assert reference.latent is not None
    classes, codes = reference_classes(reference, key)
    rng = np.random.default_rng(seed)
    most = max(5, min(DRAWS, MOST_DRAWS // len(classes)))
    parts = [rng.permutation(np.flatnonzero(codes == c))[:most] for c in range(len(classes))]
    parts = [part[: max(1, len(part) // 2)] for part in parts]
    index = np.concatenate(parts)
    nominal = float(np.median(np.asarray(query.counts.sum(axis=1)).ravel())) / max(query.alignment.found_weight, 0.1)
    if reference.hyper.log_variational:
        full = generate(reference, index, seed=seed, nominal=max(nominal, 1.0))
    else:  # an encoder of raw counts tells generated zeros and ones from counts: the cells themselves are blanked
        full = counted_cells(reference, index, seed=seed)
    left = full.counts.multiply(present[None, :]).tocsr().astype(np.float32)
    left.eliminate_zeros()
    blanked = replace(full, counts=left)
    empty = np.asarray(blanked.counts.sum(axis=1)).ravel() == 0
    others = np.setdiff1d(np.arange(len(codes)), index)
    right = []
    for cells in (full, blanked):
        if empty.any():
            cells = replace(cells, counts=cells.counts + _one_count(empty, cells.counts.shape[1]))
        latent = embed(reference, cells, device=device)
        found = nearest(reference.latent.mean[others], latent.mean, k=min(K, len(others)))
        right.append(neighbour_vote(codes[others], len(classes), found).argmax(axis=1) == codes[index])
    own = codes[index]
    used = np.unique(own)
    accuracy = {str(classes[c]): float(right[0][own == c].mean()) for c in used}
    lost = {str(classes[c]): float(right[0][own == c].mean() - right[1][own == c].mean()) for c in used}
    return lost, accuracy


def _one_count(rows: np.ndarray, width: int) -> Any:
    from scipy.sparse import csr_matrix

    at = np.flatnonzero(rows)
    return csr_matrix((np.ones(len(at), np.float32), (at, np.zeros(len(at), int))), shape=(len(rows), width))
