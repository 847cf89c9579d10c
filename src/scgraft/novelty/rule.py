"""What a query's sample says of novelty, so that any further cell of the query is judged alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from scgraft.novelty.limits import evidence, foreign_limit
from scgraft.novelty.mixtures import Profiles
from scgraft.novelty.score import shared_residual
from scgraft.numerics.sealed import seal_fields

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

MISSED = 0.1  # of a query's cells pass under its limits where none is known, at most; chosen by eye, not measured
LEAST = 1e-12  # limit of the evidence; numerical floor


@dataclass(frozen=True)
class NoveltyRule:
    """Residuals of the query's anchors, and the limits that its sample set.

    Parameters
    ----------
    residual
        Pearson residuals of the anchors over the genes that the query has, (a, G') float32.
    centres
        What the best explained half of each batch shares, (G',) by batch code.
    between
        How far each anchor's type is from the other types, in squared residuals, (a,).
    large
        Whether a batch has cells enough for something to be taken out, (b,) bool by batch code.
    misfit
        Median score of the sample before anything is taken out.
    limit, held_out_limit
        Evidence (score times a power of the distance) above which a cell is novel, and the score that held-out cells have.
    power
        Power of the distance in the evidence; 0 where nothing is known of the distances of held-out cells.
    scales
        How many times the query's own scale of scores each anchor's type has, (a,), see :mod:`scgraft.novelty.place`; None
        takes 1 for all.
    profiles
        What cells of each type are made of, to tell mixtures of types; None where that is not known.
    """

    residual: np.ndarray
    centres: Mapping[int, np.ndarray]
    between: np.ndarray
    large: np.ndarray
    misfit: float
    limit: float
    held_out_limit: float = 0.0
    power: float = 0.0
    scales: np.ndarray | None = None
    profiles: Profiles | None = None

    def __post_init__(self) -> None:
        seal_fields(self)

    def score(self, neighbours: np.ndarray, batch: np.ndarray) -> np.ndarray:
        """Novelty score (n,) of cells with given neighbours among the anchors (n, k) and batch codes (n,)."""
        return shared_residual(self.residual, neighbours, batch, self.centres)

    def apart(self, neighbours: np.ndarray, batch: np.ndarray) -> np.ndarray:
        """Score (n,) of cells that were as far from their type as other types are.

        From a small batch nothing was taken out: what all of its cells share is in every residual, and says nothing.
        """
        distance = self.between[neighbours].mean(axis=1) * neighbours.shape[1]
        return np.where(self.large[batch], distance, np.inf)

    def scale(self, neighbours: np.ndarray) -> np.ndarray:
        """How many times the query's own scale of scores cells with given neighbours (n, k) have, (n,)."""
        if self.scales is None:
            return np.ones(len(neighbours), np.float32)
        found: np.ndarray = self.scales[neighbours].mean(axis=1)
        return found

    def mixture(self, counts: csr_matrix) -> np.ndarray:
        """Evidence that cells hold several types, (n,) float32, from their counts (n, G): mixed above 1; 0 if nothing is known."""
        return np.zeros(counts.shape[0], np.float32) if self.profiles is None else self.profiles.strength(counts)

    def judge(
        self, score: np.ndarray, apart: np.ndarray, distance: np.ndarray, scale: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Threshold of each score, (n,), and the strength (n,) float32 of the evidence: a cell is novel above 1.

        `distance` is that to the reference before the fit, relative to its spacing, and `scale` what the cell's type shares,
        (n,) each.
        """
        foreign, found = foreign_limit(self.held_out_limit, apart), evidence(score, distance, self.power)
        limit = self.limit * scale
        strength = np.maximum(found / limit, score / foreign).astype(np.float32)
        threshold = np.minimum(limit / np.maximum(distance, 1e-6) ** self.power, foreign)
        return threshold.astype(np.float32), strength


def none_known(
    rule: NoveltyRule, mixed: np.ndarray, score: np.ndarray, apart: np.ndarray, distance: np.ndarray, scale: np.ndarray
) -> NoveltyRule:
    """The rule, by which every cell of the query is novel where hardly any of its sample (n,) is explained.

    The limits follow the query, so that those of a query without a single known cell are too high. Some of its cells pass under them,
    and get the label of the nearest type. Where fewer are left than a tenth, they are those that are missed.
    """
    strength = rule.judge(score, apart, distance, scale)[1]
    if (mixed | (strength > 1)).mean() <= 1 - MISSED:
        return rule
    least = float((evidence(score, distance, rule.power) / scale).min(initial=np.inf))
    return replace(rule, limit=min(rule.limit, max(least / 2, LEAST)))
