"""What a mapping learns from a sample of the query, frozen: every cell is then mapped by it alone.

The fit, the query's own graph, what each batch shares, the limits of novelty and what the gene classifier learnt are all of the
sample. What is found of a cell depends on them and the cell, so a query of any size is mapped piece by piece, in any order, on
any machine; a small query is its own sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scgraft.errors import UnknownBatch
from scgraft.graft.embed import embed
from scgraft.graft.unfitted import unfitted
from scgraft.judgement.measures import cluster_distance
from scgraft.labels.coherent import coherent
from scgraft.labels.methods.method import Ballot
from scgraft.labels.transfer import calibrated_labels, chosen_votes, transfer_labels, unless_novel
from scgraft.labels.votes import classify, votes_of
from scgraft.novelty.query_graph import QuerySpace
from scgraft.novelty.rule import NoveltyRule
from scgraft.novelty.score import shared_moments
from scgraft.numerics.index import Near
from scgraft.numerics.neighbors import Neighbours
from scgraft.values.calibration import Calibration, GeneClassifier
from scgraft.values.graft import Graft
from scgraft.values.labels import Labels
from scgraft.values.mapping import MappedQuery
from scgraft.values.names import BATCH
from scgraft.values.novelty import Novelty
from scgraft.values.query import Alignment, Query
from scgraft.values.reference import Latent, Reference

# Cells that everything global is learnt from: four times the anchors of the query's graph, in about half a minute.
SAMPLE = 40_000
CELLS = 16_384  # mapped at a time: eight blocks of `embed`, and 0.2 GB with everything that is made of them


@dataclass(frozen=True)
class Judgement:
    """How a calibrated mapping judges a cell's novelty and labels.

    Parameters
    ----------
    calibration
        By label column; the first one's null is that of novelty.
    classifiers
        By label column: the gene classifier after it has learnt from the sample.
    space, rule
        Where a cell lies among the query's own, and when it is novel.
    false_alarms
        Declared share of reference-like cells that are called novel.
    """

    calibration: Mapping[str, Calibration]
    classifiers: Mapping[str, GeneClassifier]
    space: QuerySpace
    rule: NoveltyRule
    false_alarms: float


@dataclass(frozen=True)
class Frozen:
    """All that is not of a single cell in a mapping.

    Parameters
    ----------
    graft
        New columns for the query's batches.
    levels
        Names of the levels that batch and covariate codes stand for.
    labels
        Label columns to transfer.
    judgement
        None for a mapping without a calibration.
    method
        Name of the label method that was chosen; None for scgraft's own way.
    """

    graft: Graft
    levels: Mapping[str, tuple[str, ...]]
    labels: tuple[str, ...]
    judgement: Judgement | None = None
    method: str | None = None


def strata(codes: np.ndarray) -> np.ndarray:
    """Batch of each cell together with its levels of all covariates, (n,), from codes (n, 1 + c): a sample has to have each of them."""
    if codes.shape[1] == 1:
        return codes[:, 0]
    found: np.ndarray = np.unique(codes, axis=0, return_inverse=True)[1].ravel()
    return found


def choose_sample(batch: np.ndarray, key: np.ndarray, *, most: int) -> np.ndarray:
    """Sorted positions of at most about `most` cells of all batches; all where these are few.

    Half of them are shared equally by the batches, so that a small one is not missed, and half by the cells. Of each batch they are the
    cells with the smallest keys: whatever order the cells come in, and whatever the codes of the batches, they are the same cells.

    Parameters
    ----------
    batch
        Batch codes, (n,).
    key
        A random number of each cell, (n,), that goes with the cell: :func:`scgraft.numerics.order.name_keys` of its name and the seed.
    """
    if len(batch) <= most:
        return np.arange(len(batch))
    order = np.lexsort((key, batch))
    names, number = np.unique(batch, return_counts=True)
    wanted = np.ceil(most / 2 / len(names) + number * (most / 2 / len(batch)))
    first = np.cumsum(number) - number
    rank = np.arange(len(batch)) - np.repeat(first, number)
    return np.sort(order[rank < np.repeat(np.minimum(wanted, number), number)])


def map_cells(reference: Reference, frozen: Frozen, query: Query, *, device: str = "auto") -> MappedQuery:
    """Map some cells of a query by what was frozen of its sample.

    Parameters
    ----------
    reference, frozen
        The reference, and what the sample taught.
    query
        The cells, with raw counts (n, G); their batches are among those of the sample.
    device
        As for :func:`scgraft.embed`.

    Returns
    -------
    MappedQuery
        Without a verdict, dossiers and a summary, which are of the whole query.
    """
    query = with_levels(query, frozen.levels)
    latent = embed(reference, query, frozen.graft, device=device)
    near = None if reference.latent is None else reference.latent.index.near(latent.mean)
    alone = frozen.method if frozen.judgement is None else None
    labels = latent_labels(reference, latent, frozen.labels, near, method=alone, query=query, device=device)
    mapped = MappedQuery(reference.base, query.alignment, frozen.graft, latent, labels, {}, near=near)
    if frozen.judgement is not None and near is not None:
        mapped = _judged(frozen.judgement, query, mapped, reference, device)
    return replace(mapped, labels=coherent(reference, mapped.labels))


def unfitted_near(
    reference: Reference, query: Query, mapped: MappedQuery, *, device: str = "auto"
) -> tuple[Latent, Near]:
    """Where the cells of a mapping lie before the fit, and their nearest reference cells there."""
    assert reference.latent is not None
    latent = unfitted(reference, query, mapped.graft, mapped.latent, device=device)
    if latent is mapped.latent and mapped.near is not None:
        return latent, mapped.near
    return latent, reference.latent.index.near(latent.mean)


def _judged(judgement: Judgement, query: Query, mapped: MappedQuery, reference: Reference, device: str) -> MappedQuery:
    distance = unfitted_near(reference, query, mapped, device=device)[1].distance
    rule, batch = judgement.rule, query.codes[:, 0]
    neighbours, cluster = judgement.space.place(query.counts)
    score, markers = shared_moments(rule.residual, neighbours, batch, rule.centres)
    strength = rule.strength(score, neighbours)
    novel, mixture = strength > 1, rule.mixture(query.counts, batch)
    novelty = Novelty(
        score, rule.misfit, markers, distance, novel, strength, judgement.false_alarms, cluster, (), (), mixture
    )
    labels = dict(mapped.labels)
    for key, classifier in judgement.classifiers.items():
        votes = votes_of(classifier, query, labels[key].matrix)
        trusted = judgement.calibration[key]
        chosen = chosen_votes(trusted, Ballot(reference, key, mapped.latent, mapped.near, query, device))
        made = calibrated_labels(labels[key], trusted, votes, chosen)
        labels[key] = replace(made, unknown=made.unknown | novelty.mixed | novel)
    labels = unless_novel(labels, novelty.mixed | novel)
    return replace(mapped, labels=labels, novelty=novelty, calibration=judgement.calibration)


def latent_labels(
    reference: Reference,
    latent: Latent,
    wanted: Sequence[str],
    near: Near | None,
    *,
    method: str | None = None,
    query: Query | None = None,
    device: str = "auto",
) -> Mapping[str, Labels]:
    """Labels of the neighbours in the latent, or of a label method, before any calibration; none where no column is wanted."""
    if not wanted:
        return {}
    if method is not None:
        return transfer_labels(
            reference, latent, labels=list(wanted), near=near, method=method, query=query, device=device
        )
    own = classify(reference, latent, device=device)
    return transfer_labels(reference, latent, labels=list(wanted), classifier=own, near=near, device=device)


def with_levels(query: Query, levels: Mapping[str, tuple[str, ...]]) -> Query:
    """The same cells with codes that stand for given levels, which hold those that the cells have.

    Raises
    ------
    UnknownBatch
        A cell has a level, or a combination of levels, that is not among them.
    """
    if query.levels == levels:
        return query
    columns = []
    for code, (name, own) in zip(query.codes.T, query.levels.items(), strict=True):
        position = {level: i for i, level in enumerate(levels[name])}
        found = np.array([position.get(level, -1) for level in own], np.int32)[code]
        if (found < 0).any():
            names = sorted({own[c] for c in np.unique(code[found < 0])})
            what = "batch" if name == BATCH else name.removeprefix("covariate:")
            raise UnknownBatch(
                f"{int((found < 0).sum())} cells have the {what} {', '.join(map(repr, names[:5]))}, which the sample that the mapping was "
                "learnt from did not have: there are no columns for it. Map the whole query again, or these cells as a query of their own."
            )
        columns.append(found)
    return replace(query, codes=np.stack(columns, axis=1), levels=levels)


def pieces(n: int, most: int | None = None) -> Iterator[slice]:
    """The runs of cells that are mapped at a time, or shorter ones of `most` cells."""
    size = CELLS if most is None else min(most, CELLS)
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def joined(
    reference: Reference, sample: MappedQuery, parts: Sequence[MappedQuery], alignment: Alignment
) -> MappedQuery:
    """One mapping of the cells of all parts, aligned so; verdict and dossiers are those of the sample."""
    latent = Latent(**_concatenated([p.latent for p in parts], ("mean", "variance", "cells")))
    labels = {key: _joined_labels([p.labels[key] for p in parts]) for key in sample.labels}
    novelty, verdict = sample.novelty, sample.verdict
    found = [p.novelty for p in parts if p.novelty is not None]
    if novelty is not None and found:
        names = ("score", "markers", "distance", "novel", "strength", "cluster", "mixture")
        novelty = replace(novelty, **_concatenated(found, names))
    if verdict is not None and reference.latent is not None:
        verdict = replace(verdict, distance=cluster_distance(reference.latent, latent).astype(np.float32))
    return replace(
        sample, alignment=alignment, latent=latent, labels=labels, novelty=novelty, verdict=verdict,
        near=_joined_near([p.near for p in parts if p.near is not None]),
    )  # fmt: skip


def _joined_labels(parts: Sequence[Labels]) -> Labels:
    names = ["label", "probability", "runner_up", "distance", "unknown", "matrix"]
    names += [] if parts[0].pvalues is None else ["pvalues"]
    votes = {source: np.concatenate([p.votes[source] for p in parts]) for source in parts[0].votes}
    return replace(parts[0], votes=votes, **_concatenated(parts, names))


def _concatenated(parts: Sequence[Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}


def _joined_near(parts: Sequence[Near]) -> Near | None:
    if not parts:
        return None
    found = Neighbours(**_concatenated([p.found for p in parts], ("indices", "distances")))
    return Near(found, np.concatenate([p.distance for p in parts]))
