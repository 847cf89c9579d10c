"""What a query's sample says of novelty, so that any further cell of the query is judged alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from scgraft.novelty.limits import evidence
from scgraft.novelty.mixtures import SPOTS, Profiles
from scgraft.novelty.score import shared_residual
from scgraft.numerics.sealed import seal_fields

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

MISSED = 0.1  # of a query's cells pass under its limits where none is known, at most; chosen by eye, not measured
FOREIGN = 5.0  # misfit from which a verdict is red; two queries with ambient RNA, of which nearly all looks mixed, have 1.9 and 2.3
LEAST = 1e-12  # limit of the evidence; numerical floor


@dataclass(frozen=True)
class NoveltyRule:
    """Residuals of the query's anchors, and the limit that its sample set.

    Parameters
    ----------
    residual
        Pearson residuals of the anchors over the genes that the query has, (a, G') float32.
    centres
        What the best explained half of each batch shares, (G',) by batch code.
    markers, farther
        Markers of the anchors, and their distance to the reference before the fit over the sample's first quartile, (a,) each.
    usual
        First quartile of the sample's scores.
    misfit
        Median score of the sample before anything is taken out.
    limit
        Evidence above which a cell is novel (:func:`scgraft.novelty.limits.limit_of`).
    profiles
        What cells of each type are made of, to tell mixtures of types; None where that is not known.
    """

    residual: np.ndarray
    centres: Mapping[int, np.ndarray]
    markers: np.ndarray
    farther: np.ndarray
    usual: float
    misfit: float
    limit: float
    profiles: Profiles | None = None

    def __post_init__(self) -> None:
        seal_fields(self)

    def score(self, neighbours: np.ndarray, batch: np.ndarray) -> np.ndarray:
        """Novelty score (n,) of cells with given neighbours among the anchors (n, k) and batch codes (n,)."""
        return shared_residual(self.residual, neighbours, batch, self.centres)

    def strength(self, score: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
        """Evidence over its limit, (n,) float32, of cells with given scores (n,) and neighbours (n, k): novel above 1."""
        found = evidence(score / self.usual, self.markers, self.farther, neighbours)
        return (found / self.limit).astype(np.float32)

    def mixture(self, counts: csr_matrix, batch: np.ndarray) -> np.ndarray:
        """Evidence that cells hold several types, (n,) float32: mixed above 1; 0 if nothing is known.

        From their counts (n, G) and the codes of their batches (n,).
        """
        return np.zeros(counts.shape[0], np.float32) if self.profiles is None else self.profiles.strength(counts, batch)


def none_known(
    rule: NoveltyRule, mixed: np.ndarray, score: np.ndarray, neighbours: np.ndarray, rate: float
) -> NoveltyRule:
    """The rule, by which every cell of the query is novel where hardly any of its sample (n,) is explained.

    The evidence follows the query, so that a query without a single known cell has too little of it, and its cells get the label of
    the nearest type. It shows in two ways. Fewer than a tenth of the cells are not novel: they are those that are missed. Or the model
    explains the query as badly as no query of known types, more than three cells of ten are `mixed` (n,), as types that the reference
    lacks look like mixtures of those that it has, and fewer than the declared `rate` are novel: nothing stands out, as there is nothing
    known to stand out from.
    """
    strength = rule.strength(score, neighbours)
    novel = float((strength > 1).mean())
    all_alike = rule.misfit >= FOREIGN and mixed.mean() > SPOTS and novel < rate
    if novel <= 1 - MISSED and not all_alike:
        return rule
    least = rule.limit * float(strength.min(initial=np.inf))
    return replace(rule, limit=min(rule.limit, max(least / 2, LEAST)))
