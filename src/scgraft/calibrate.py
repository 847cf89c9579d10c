"""Calibration on held-out reference batches: each is mapped, through the same pipeline, onto the reference without it.

The cells are what the repository holds: stored counts, or cells generated from the stored posterior. The weights of the
model have seen the held-out batches; the neighbours, the new columns and the classifier have not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from scgraft.adaptation import adapted, best_explained
from scgraft.classifier import predict, train_classifier, without_classes
from scgraft.confidence import Calibration, GeneClassifier, held_out_batches
from scgraft.conformal import expected_error, fit_temperature, proven_class_weights, reliability, sharpen
from scgraft.embed import embed
from scgraft.errors import NoLabels
from scgraft.fit import fit
from scgraft.generate import reference_cells, reference_codes
from scgraft.measures import VOTE_NUMBERS, mapping_numbers, vote_numbers
from scgraft.neighbors import nearest
from scgraft.novelty import distance_to, novelty_score
from scgraft.query_graph import QueryGraph, query_graph
from scgraft.reconstruction import decoder, residuals
from scgraft.transfer import K, blend, neighbour_vote, reference_classes
from scgraft.values import BATCH, FitConfig, Graft, Latent, Query, Reference

MOST_FOLDS = 5
CELLS = 500
LEAST_CELLS = 8


@dataclass(frozen=True)
class Fold:
    """Held-out cells mapped onto the rest of the reference.

    Parameters
    ----------
    batches
        Reference batches that are held out.
    rest
        The reference without their cells.
    kept, index
        The reference's other cells, and the held-out ones that are used, as positions in the whole reference.
    query, graft, latent
        The held-out cells, as new batches, and their mapping.
    graph, novelty, misfit
        Their own neighbour graph, novelty scores, and the median misfit of their reconstruction.
    """

    batches: tuple[str, ...]
    rest: Reference
    kept: np.ndarray
    index: np.ndarray
    query: Query
    graft: Graft
    latent: Latent
    graph: QueryGraph
    novelty: np.ndarray
    misfit: float


def subset(reference: Reference, kept: np.ndarray) -> Reference:
    """The reference with some of its cells (positions or a mask); the model stays."""
    assert reference.latent is not None
    latent = reference.latent
    return replace(
        reference,
        latent=Latent(latent.mean[kept], latent.variance[kept], latent.cells[kept]),
        obs=None if reference.obs is None else reference.obs.iloc[np.flatnonzero(kept) if kept.dtype == bool else kept],
        library=None if reference.library is None else np.asarray(reference.library).ravel()[kept],
        maps={key: points[kept] for key, points in reference.maps.items()},
    )


def choose_folds(reference: Reference, seed: int) -> list[tuple[tuple[str, ...], np.ndarray]]:
    """Batches held out together, and the mask of their cells; random fifths where the reference has one batch."""
    codes = reference_codes(reference)[:, 0]
    names, number = np.unique(codes, return_counts=True)
    if len(codes) < LEAST_CELLS:
        return []
    if len(names) == 1:
        fifth = np.random.default_rng(seed).permutation(len(codes)) % min(MOST_FOLDS, len(codes) // 2)
        return [((), fifth == i) for i in np.unique(fifth)]
    n_folds = min(MOST_FOLDS, len(names))
    groups: list[list[int]] = [[] for _ in range(n_folds)]
    size = np.zeros(n_folds)
    for i in np.argsort(-number, kind="stable"):
        smallest = int(np.argmin(size))
        groups[smallest].append(int(names[i]))
        size[smallest] += number[i]
    batches = reference.schema.batches
    return [(tuple(batches[c] for c in sorted(group)), np.isin(codes, group)) for group in groups]


def hold_out(
    reference: Reference, batches: tuple[str, ...], members: np.ndarray, *, seed: int, config: FitConfig
) -> Fold:
    """Map the cells of some reference batches onto the reference without them, as if they were new (seeded)."""
    rng = np.random.default_rng(seed)
    index = np.sort(rng.permutation(np.flatnonzero(members))[:CELLS])
    rest = subset(reference, ~members)
    query = as_new_batches(reference_cells(reference, index, seed=seed), reference)
    graft = fit(rest, query, config)
    latent = embed(rest, query, graft)
    graph = query_graph(query.counts, seed=seed)
    residual = residuals(decoder(rest, query, graft), query.counts, latent.mean)[graph.anchors]
    every = np.ones(residual.shape[1], bool)
    score, misfit = novelty_score(residual, graph, query.codes[:, 0], every)
    kept = np.flatnonzero(~members)
    return Fold(batches, rest, kept, index, query, graft, latent, graph, score, misfit)


def as_new_batches(query: Query, reference: Reference) -> Query:
    """Cells of the reference as cells of batches that it does not know."""
    schema, used = reference.schema, np.unique(query.codes[:, 0])
    new = tuple(f"held out: {schema.batches[c]}" for c in used)
    codes = query.codes.copy()
    codes[:, 0] = len(schema.batches) + np.searchsorted(used, query.codes[:, 0])
    number = np.bincount(codes[:, 0])[len(schema.batches) :]
    alignment = replace(
        query.alignment,
        new_levels={BATCH: new},
        known_batches=(),
        cells_per_batch=dict(zip(new, number.tolist(), strict=True)),
    )
    return replace(
        query, codes=codes, levels=dict(query.levels) | {BATCH: (*schema.batches, *new)}, alignment=alignment
    )


def calibrate(
    reference: Reference,
    keys: Sequence[str] | None = None,
    *,
    genes: np.ndarray | None = None,
    seed: int = 0,
) -> dict[str, Calibration]:
    """Calibrate label transfer and novelty on held-out batches of the reference: once for a reference, in seconds.

    Parameters
    ----------
    reference
        With a latent.
    keys
        Label columns; None takes that of the registry. Without any, only novelty is calibrated, under the key "".
    genes
        Genes that the query has, (G,) bool; None takes all of them.
    seed
        Random are which cells are used, what is generated, and the fits.

    Returns
    -------
    dict
        A :class:`Calibration` for each key.

    Raises
    ------
    NoLabels
        The reference has no cells, or no such column.

    Notes
    -----
    At most 500 cells of each of at most five folds. With one batch, random fifths of its cells are held out: then nothing
    is known of shifts between batches, and the guarantee says so.
    """
    if reference.latent is None or reference.obs is None:
        raise NoLabels(
            f"{reference.base.repo} holds no cells ({reference.latent_source}): there is nothing to calibrate on."
        )
    if keys is None:
        keys = [] if reference.schema.labels_key is None else [reference.schema.labels_key]
    missing = [key for key in keys if key not in reference.obs]
    if missing:
        raise NoLabels(f"The reference has no label column {', '.join(missing)}.")
    plan = choose_folds(reference, seed)
    config = FitConfig(labels=next(iter(keys), None), seed=seed, device="cpu")
    folds = [hold_out(reference, batches, members, seed=seed, config=config) for batches, members in plan]
    nulls = tuple(
        np.sort(np.concatenate([np.zeros(0, np.float32), *parts]))
        for parts in ([fold.novelty for fold in folds], [distance_to(fold.rest, fold.latent) for fold in folds])
    )
    return {key: _calibration(reference, key, folds, nulls, genes=genes, seed=seed) for key in keys or [""]}


def _calibration(
    reference: Reference,
    key: str,
    folds: list[Fold],
    nulls: tuple[np.ndarray, ...],
    *,
    genes: np.ndarray | None,
    seed: int,
) -> Calibration:
    source = reference_cells(reference, np.zeros(1, np.int64)).alignment.counts_from
    classes: tuple[str, ...] = ()
    everything = np.ones(len(reference.schema.genes), bool) if genes is None else genes
    classifier = without_classes(everything, source)
    votes: list[tuple[np.ndarray, np.ndarray]] = []
    measured = [mapping_numbers(fold.rest.latent, fold.latent, fold.graph, fold.misfit) for fold in folds]
    if key:
        names, codes = reference_classes(reference, key)
        classes = tuple(names.tolist())
        classifier = train_classifier(reference, codes, classes, genes=genes, seed=seed)
        parts = [_held_out_votes(fold, codes, classes, classifier, seed) for fold in folds]
        votes = [(matrix, true) for matrix, true, _ in parts]
        measured = [numbers | part[2] for numbers, part in zip(measured, parts, strict=True)]
    votes.append((np.zeros((0, len(classes)), np.float32), np.zeros(0, np.int64)))  # there may be none
    blended, true = (np.concatenate(part) for part in zip(*votes, strict=True))
    class_weights = proven_class_weights(votes)
    weighted = sharpen(blended * class_weights, 1.0)
    temperature = fit_temperature(weighted, true)
    matrix = sharpen(weighted, temperature)
    best, own = matrix.max(axis=1, initial=0.0), matrix[np.arange(len(true)), true]
    right = own >= best
    table = reliability(best, right)
    accuracy = {name: float(right[true == c].mean()) for c, name in enumerate(classes) if (true == c).any()}
    batches = tuple(fold.batches for fold in folds)
    return Calibration(
        base_sha256=reference.base.sha256,
        key=key,
        classes=classes,
        classifier=classifier,
        class_weights=class_weights,
        temperature=temperature,
        scores=(1 - own).astype(np.float32),
        score_class=true.astype(np.int64),
        novelty=nulls[0].astype(np.float32),
        distance=nulls[1].astype(np.float32),
        reliability=table,
        expected_error=expected_error(table),
        accuracy=accuracy,
        quality={name: tuple(m[name] for m in measured) for name in (measured[0] if measured else {})},
        folds=batches,
        source=source,
        guarantee=guarantee_of(batches, len(nulls[0]), source),
    )


def _held_out_votes(
    fold: Fold, codes: np.ndarray, classes: tuple[str, ...], start: GeneClassifier, seed: int
) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """Blended votes and true classes of held-out cells whose class the rest of the reference has; numbers of all."""
    assert fold.rest.latent is not None
    rest_codes, true = codes[fold.kept], codes[fold.index]
    known = np.isin(true, rest_codes[rest_codes >= 0])
    if not known.any():
        return np.zeros((0, len(classes)), np.float32), np.zeros(0, np.int64), dict.fromkeys(VOTE_NUMBERS, np.nan)
    found = nearest(fold.rest.latent.mean, fold.latent.mean, k=min(K, len(rest_codes)))
    latent_vote = neighbour_vote(rest_codes, len(classes), found)
    classifier = train_classifier(fold.rest, rest_codes, classes, genes=start.genes, seed=seed)
    explained = best_explained(fold.novelty, fold.query.codes[:, 0])
    gene_vote = predict(adapted(classifier, fold.query.counts, latent_vote, explained), fold.query.counts)
    numbers = vote_numbers(fold.rest.latent, fold.latent, rest_codes, latent_vote, gene_vote)
    return blend(latent_vote, gene_vote)[known], true[known], numbers


def guarantee_of(folds: tuple[tuple[str, ...], ...], n_cells: int, source: str) -> str:
    """What may be claimed of sets and thresholds, in a sentence for the user."""
    if not folds:
        return "none: the reference has too few cells to hold any out"
    made, n_batches = f"{n_cells} cells of the reference ({source})", held_out_batches(folds)
    if folds == ((),) * len(folds):
        return (
            f"error rates hold for cells like {made}; it has a single batch, so nothing is known of shifts between batches: "
            "sets are made at half of the declared rate, and a query from another laboratory may still exceed it"
        )
    return (
        f"error rates hold on average for batches that differ from the reference as its own batches differ from each other, "
        f"estimated on {made} of {n_batches} batches held out in {len(folds)} folds; for so many, sets are made at "
        f"{n_batches / (n_batches + 1):.0%} of the declared rate"
    )
