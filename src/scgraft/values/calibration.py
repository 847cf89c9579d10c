"""What held-out cells of the reference say about labels and novelty."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


@dataclass(frozen=True)
class GeneClassifier:
    """Multinomial logistic regression on genes (log1p of counts per ten thousand), trained on cells of the reference.

    Parameters
    ----------
    classes
        Class names in the order of the rows.
    coefficient, intercept
        (C, G) and (C,), float32, G genes of the reference in its order; zero for genes that were left out.
    genes
        Genes that were used, shape (G,), bool.
    source
        Where its cells came from.
    anchors, anchor_codes
        Raw counts (a, G) of some training cells of every class, and their class codes (a,): what a query's own cells are
        learnt along with.
    """

    classes: tuple[str, ...]
    coefficient: np.ndarray
    intercept: np.ndarray
    genes: np.ndarray
    source: str
    anchors: csr_matrix
    anchor_codes: np.ndarray


@dataclass(frozen=True)
class Calibration:
    """What cells of held-out reference batches say about labels and novelty; made once for a reference and label column.

    Parameters
    ----------
    base_sha256, key
        Hash of the reference's model.pt, and the label column.
    classes
        Class names in the order of the votes.
    classifier
        The gene classifier trained on all of the reference.
    class_weights
        What the blended vote for each class is multiplied by, (C,) float32: below 1 where it draws the cells of others.
    temperature
        The weighted vote is then raised to 1 / temperature and normalised.
    scores, score_class
        Nonconformity (one minus the probability of the true class) of each held-out cell, (m,), and its class code.
    novelty
        Novelty scores of the held-out cells, sorted, (m,).
    distance
        Their distances to the rest of the reference, relative to its own spacing, sorted, (m,).
    reliability
        Rows (mean probability, share right, cells) of the held-out cells, binned by probability, (bins, 3).
    expected_error
        Expected calibration error on held-out cells, in [0, 1].
    accuracy
        Share of held-out cells with the right label, by class.
    quality
        Numbers of a mapping as measured on each held-out fold: the null distribution of ``scgraft.quality``.
    folds
        Reference batches held out together, fold by fold.
    source
        ``"stored counts"`` or ``"generated from the stored posterior"``.
    guarantee
        What may be claimed, in words.
    """

    base_sha256: str
    key: str
    classes: tuple[str, ...]
    classifier: GeneClassifier
    class_weights: np.ndarray
    temperature: float
    scores: np.ndarray
    score_class: np.ndarray
    novelty: np.ndarray
    distance: np.ndarray
    reliability: np.ndarray
    expected_error: float
    accuracy: Mapping[str, float]
    quality: Mapping[str, tuple[float, ...]]
    folds: tuple[tuple[str, ...], ...]
    source: str
    guarantee: str


def held_out_batches(folds: tuple[tuple[str, ...], ...]) -> int:
    """How many batches a calibration held out; 1 where random cells of a single batch stood in."""
    return max(sum(map(len, folds)), 1)
