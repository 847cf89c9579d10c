"""Labels of query cells, and why a cell has its label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Explanation:
    """Why a cell has its label.

    Parameters
    ----------
    cell, label, probability, runner_up
        The cell, its label, calibrated probability, and second class.
    prediction_set
        Classes that cannot be excluded at `alpha`.
    novelty, threshold
        Its novelty score, and the score above which a cell is novel.
    votes
        For each class with a share: the latent's vote, the genes' vote, and the calibrated blend.
    neighbours
        Nearest reference cells: name, label, batch, distance.
    genes
        Genes that speak for the label against the runner-up, with their weight times expression.
    sentence
        In words.
    """

    cell: str
    label: str
    probability: float
    runner_up: str
    prediction_set: tuple[str, ...]
    alpha: float
    novelty: float
    threshold: float
    votes: Mapping[str, tuple[float, float, float]]
    neighbours: tuple[tuple[str, str, str, float], ...]
    genes: tuple[tuple[str, float], ...]
    sentence: str


@dataclass(frozen=True)
class Labels:
    """Labels transferred to query cells, for one label column.

    Parameters
    ----------
    key
        Column of the reference's obs, or ``"classifier"`` for a model's own.
    method
        How they were made, in words with its source.
    label, runner_up
        Best and second class of each cell, shape (n,), str.
    probability
        Share of the vote of `label`, shape (n,), float32, in [0, 1].
    distance
        Distance to the reference relative to the reference's own spacing (about 1 inside it), (n,); NaN if unknown.
    unknown
        True where the label should not be believed, shape (n,).
    classes
        Class names, in the order of `matrix`.
    matrix
        Share of the vote of every class, shape (n, C), float32; calibrated probabilities where `pvalues` are.
    pvalues
        Conformal p-value of every class, shape (n, C), float32; None without a calibration.
    votes
        Votes before blending, by source (``"latent"``, ``"genes"``), each (n, C).
    """

    key: str
    method: str
    label: np.ndarray
    probability: np.ndarray
    runner_up: np.ndarray
    distance: np.ndarray
    unknown: np.ndarray
    classes: tuple[str, ...]
    matrix: np.ndarray
    pvalues: np.ndarray | None = None
    votes: Mapping[str, np.ndarray] = field(default_factory=dict)

    def sets(self, alpha: float = 0.1) -> np.ndarray:
        """Prediction sets at an error rate, shape (n, C), bool: classes that held-out reference cells do not exclude.

        Raises
        ------
        ValueError
            There is no calibration, or `alpha` is not between 0 and 1.
        """
        if self.pvalues is None:
            raise ValueError("These labels were made without a calibration, so they have no prediction sets.")
        if not 0 < alpha < 1:
            raise ValueError(f"alpha is an error rate between 0 and 1, not {alpha}.")
        return self.pvalues > alpha

    def at(self, alpha: float = 0.1, *, parents: Mapping[str, str] | None = None) -> np.ndarray:
        """Labels at a declared error rate, shape (n,), str.

        One label where the prediction set is a single one; where it holds several, their nearest common parent
        (`parents` maps child to parent), or, without one, all of them, best first, joined by ``" | "``; ``"unknown"``
        where it is empty.
        """
        from scgraft.values.hierarchy import name_sets

        return name_sets(self.sets(alpha), self.matrix, self.classes, parents or {})
