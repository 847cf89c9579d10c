"""What held-out cells of the reference say about labels and novelty."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scgraft.numerics.sealed import seal_fields
from scgraft.values.shown import fields_as_html, fields_as_text

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


@dataclass(frozen=True)
class GeneClassifier:
    """Multinomial logistic regression on genes (log1p of counts per ten thousand), trained on cells of the reference.

    It is the second of the two votes for a label; the first is that of the nearest reference cells in the latent.

    Parameters
    ----------
    classes
        Names of the classes, in the order of the rows.
    coefficient, intercept
        Weights (C, G) and intercepts (C,), float32, over all G genes of the reference in its order; zero for genes that were
        not used, minus infinity for the intercept of a class without cells.
    genes
        Genes that were used, shape (G,), bool.
    source
        Where the training cells came from: ``"stored counts"`` or ``"generated from the stored posterior"``.
    anchors, anchor_codes
        Raw counts (a, G) of some training cells of every class, and their class codes (a,). When the classifier is trained
        further on a query's cells, it sees these again, so that it does not unlearn types that the query lacks.
    """

    classes: tuple[str, ...]
    coefficient: np.ndarray
    intercept: np.ndarray
    genes: np.ndarray
    source: str
    anchors: csr_matrix
    anchor_codes: np.ndarray

    def __post_init__(self) -> None:
        seal_fields(self)


@dataclass(frozen=True)
class Calibration:
    """What cells of held-out reference batches say about labels and novelty.

    Made once for a reference and a label column, by :func:`scgraft.calibrate`.

    Parameters
    ----------
    base_sha256, base_cells, key
        Hashes of the reference's model.pt, and of its adata.h5ad where it was read from a folder ("" elsewhere), and the label
        column.
    classes
        Names of the classes, in the order of the votes.
    classifier
        The gene classifier trained on all of the reference.
    class_weights
        Weight of each class, (C,) float32. The blended vote for a class is multiplied by its weight before it is normalised:
        below 1 for a class that was named too often in held-out batches, above 1 for one that was named too rarely. All are
        1 where the weights did not transfer from one held-out batch to another.
    temperature
        The weighted vote is raised to the power 1 / temperature and normalised. Above 1 it makes probabilities less sure.
    scores, score_class
        Nonconformity (1 minus the probability of the true class) of each held-out cell, (m,), and its class code, (m,).
    novelty
        Novelty scores of the held-out cells whose class the rest of the reference has, (m',).
    distance
        Distances of the same cells, in the same order, to the rest of the reference in the latent before the fit, divided by
        the spacing of the reference's cells there, (m',).
    novelty_class, novelty_fold
        Class code of the same cells, -1 for none, and number of the fold that each was held out in, (m',).
    evidence
        That the same held-out cells are novel (:attr:`Novelty.strength` before it is divided by its limit), (m',).
    mixture
        How much better a mixture of types explains the same held-out cells than the best single type, (m',);
        all 0
        without types or counts (:mod:`scgraft.novelty.mixtures`).
    reliability
        One row for each bin of probability: mean probability, share of right labels, number of held-out cells; (bins, 3).
    expected_error
        Expected calibration error on held-out cells, in [0, 1]: mean gap between probability and share of right labels.
    accuracy
        Share of held-out cells with the right label, by class.
    quality
        By measure of the verdict, its value in each held-out fold: what a query's value is compared with.
    folds
        Names of the reference batches that were held out together, fold by fold.
    source
        Where the held-out cells came from: ``"stored counts"`` or ``"generated from the stored posterior"``.
    guarantee
        What may be claimed of prediction sets and novelty limits, in words.
    method
        Name of the label method whose votes on held-out cells were compared with their classes
        (:func:`scgraft.register_label_method`); None for the product of the latent's and the genes' vote.
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
    novelty_class: np.ndarray
    novelty_fold: np.ndarray
    evidence: np.ndarray
    mixture: np.ndarray
    reliability: np.ndarray
    expected_error: float
    accuracy: Mapping[str, float]
    quality: Mapping[str, tuple[float, ...]]
    folds: tuple[tuple[str, ...], ...]
    source: str
    guarantee: str
    base_cells: str = ""
    method: str | None = None

    def __post_init__(self) -> None:
        seal_fields(self)

    __repr__ = fields_as_text
    _repr_html_ = fields_as_html


def held_out_batches(folds: tuple[tuple[str, ...], ...]) -> int:
    """How many batches a calibration held out; 1 where random cells of a single batch stood in."""
    return max(sum(map(len, folds)), 1)
