"""What a query's sample says of novelty, so that any further cell of the query is judged alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from scgraft.novelty.limits import smaller_limit
from scgraft.novelty.score import shared_residual


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
    misfit_limit, held_out_limit
        Scores that a misfit of the whole query may explain, and that held-out reference cells have.
    far
        Relative distance to the reference above which a cell is novel.
    """

    residual: np.ndarray
    centres: Mapping[int, np.ndarray]
    between: np.ndarray
    large: np.ndarray
    misfit: float
    misfit_limit: float
    held_out_limit: float = 0.0
    far: float = float("inf")

    def score(self, neighbours: np.ndarray, batch: np.ndarray) -> np.ndarray:
        """Novelty score (n,) of cells with given neighbours among the anchors (n, k) and batch codes (n,)."""
        return shared_residual(self.residual, neighbours, batch, self.centres)

    def apart(self, neighbours: np.ndarray, batch: np.ndarray) -> np.ndarray:
        """Score (n,) of cells that were as far from their type as other types are.

        From a small batch nothing was taken out: what all of its cells share is in every residual, and says nothing.
        """
        distance = self.between[neighbours].mean(axis=1) * neighbours.shape[1]
        return np.where(self.large[batch], distance, np.inf)

    def judge(self, score: np.ndarray, apart: np.ndarray, distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Threshold of each score, (n,), and the strength (n,) float32 of the evidence: a cell is novel above 1."""
        threshold = smaller_limit(self.misfit_limit, self.held_out_limit, apart)
        strength = np.maximum(score / threshold, (distance / self.far) ** 2)  # the score is a square too
        return threshold, strength.astype(np.float32)
