"""What is known of how far results can be trusted: frozen values of numpy arrays and plain text, easy to print and to save."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Grade = Literal["ok", "repaired", "warning", "stop"]
Light = Literal["green", "amber", "red"]


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


@dataclass(frozen=True)
class Novelty:
    """What the reference lacks, beside (not inside) the doubt about labels.

    Two things make a cell novel, each at half of the declared rate: genes that the model does not explain, and a place
    in the latent where the reference has no cells (a type that the model has seen, but whose cells are not there).

    Parameters
    ----------
    score
        (n,) float32: squared mean residual of the cell and its nearest query cells, 1 where the model is right, and
        what the best explained half of a batch shares taken out.
    misfit
        Median over the cells before anything is taken out.
    threshold, distance_threshold
        Scores above the first, (n,), are novel, and so are relative distances to the reference above the second.
    novel
        Either of them, (n,).
    strength
        The larger of the score and the squared distance over their thresholds, (n,) float32: novel above 1.
    false_alarms
        Declared share of reference-like cells above the threshold.
    cluster
        Community of the query's neighbour graph, (n,) int.
    dossiers
        One for each group of novel cells that chance does not explain.
    """

    score: np.ndarray
    misfit: float
    threshold: np.ndarray
    distance_threshold: float
    novel: np.ndarray
    strength: np.ndarray
    false_alarms: float
    cluster: np.ndarray
    dossiers: tuple[Dossier, ...]


@dataclass(frozen=True)
class Dossier:
    """A group of query cells that the reference does not explain.

    Parameters
    ----------
    cluster
        Query cluster that they are in.
    n_cells, n_cluster
        Novel cells, and cells of the whole cluster.
    batches
        Novel cells by query batch.
    nearest
        Reference types nearest in the latent, with their share of the votes.
    genes
        Genes that the cells have more of than the reference explains: name and mean residual (in standard deviations).
    lacking
        The same for genes that they have less of.
    cells
        Names of up to ten of them, worst first.
    sentence
        All of it in words.
    """

    cluster: int
    n_cells: int
    n_cluster: int
    batches: Mapping[str, int]
    nearest: Mapping[str, float]
    genes: tuple[tuple[str, float], ...]
    lacking: tuple[tuple[str, float], ...]
    cells: tuple[str, ...]
    sentence: str


@dataclass(frozen=True)
class Finding:
    """One line of a check: what was looked at, how it is, a sentence, and the next action ("" when there is none)."""

    name: str
    grade: Grade
    sentence: str
    action: str = ""
    values: Mapping[str, object] | None = None


@dataclass(frozen=True)
class Check:
    """Pre-flight of a query on a reference."""

    findings: tuple[Finding, ...]

    @property
    def grade(self) -> Grade:
        """The worst grade."""
        order: tuple[Grade, ...] = ("ok", "repaired", "warning", "stop")
        return max((f.grade for f in self.findings), key=order.index, default="ok")


@dataclass(frozen=True)
class Measure:
    """One line of a mapping's quality: a number beside its null distribution, and what to do about it."""

    name: str
    light: Light
    value: float
    null: tuple[float, ...]
    sentence: str
    action: str = ""


@dataclass(frozen=True)
class Quality:
    """Whether the mapping was good: a light, a sentence, and the measures behind them.

    Parameters
    ----------
    light, sentence, measures
        The verdict, and its lines.
    distance
        Of each cell to the nearest cluster of the reference, in its standard deviations, (n,); small is well mapped.
    preservation
        Of each query cluster, by its number: 1 where its neighbourhoods survive in the latent, 0 where nothing of it is
        left, NaN for a single cell.
    """

    light: Light
    sentence: str
    measures: tuple[Measure, ...]
    distance: np.ndarray | None = None
    preservation: np.ndarray | None = None


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
