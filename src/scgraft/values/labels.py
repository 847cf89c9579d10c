"""Labels of query cells, and why a cell has its label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from scgraft.errors import NoLabels
from scgraft.numerics.sealed import seal_fields
from scgraft.values.hierarchy import no_label
from scgraft.values.options import within
from scgraft.values.shown import ENTRIES, Rows, as_html, as_text, shares, some

if TYPE_CHECKING:
    from scgraft.values.calibration import GeneClassifier


@dataclass(frozen=True)
class Explanation:
    """Why a cell has its label.

    Parameters
    ----------
    cell, label, probability, runner_up
        Name of the cell, its label, the calibrated probability of the label, and the second most probable class.
    prediction_set
        Classes that cannot be excluded at the error rate `alpha`, the most probable first.
    alpha
        Error rate of the prediction set.
    novelty, threshold
        The cell's ``Novelty.strength``, which is already divided by the cell's own limit, and 1.0: the cell is novel if
        `novelty` is larger than `threshold`. NaN and infinity where the mapping has no novelty.
    votes
        For each class that got at least 0.01: the vote of the nearest reference cells in the latent, the vote of the gene
        classifier (NaN without one), and the calibrated probability made of both, or of the votes of the label method that was chosen.
    neighbours
        Nearest reference cells: name, label, batch, distance.
    genes
        Genes that speak most for the label and against the runner-up, each with its part of `log_odds`: the difference of the
        coefficients of both classes, times log-normalised expression. The coefficients are those of the gene classifier that
        voted for this cell, after it learnt from the query (:attr:`Labels.classifier`).
    sentence
        The explanation in words.
    log_odds, remainder
        Natural logarithm of the gene vote for the label over the gene vote for the runner-up, and what all genes that are not
        listed in `genes` add to it together with the intercepts: the parts of `genes` and the `remainder` add up to
        `log_odds`. Both are NaN where no genes are listed.
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
    log_odds: float = float("nan")
    remainder: float = float("nan")

    def _shown(self) -> tuple[str, Rows]:
        votes = [
            f"{name}: latent {latent:.2f}, genes {genes:.2f}, together {both:.2f}"
            for name, (latent, genes, both) in self.votes.items()
        ]
        return f"{self.cell}: {self.label} (probability {self.probability:.2f})", [
            ("in words", self.sentence),
            (f"not excluded at {self.alpha:.0%} error", some(self.prediction_set) or "none: unknown"),
            ("novelty", f"{self.novelty:.3g} (novel above {self.threshold:.3g})"),
            ("votes", "; ".join(votes[:ENTRIES])),
            ("neighbours", some(f"{name} ({label})" for name, label, *_ in self.neighbours)),
            ("genes", some(f"{gene} {weight:+.2f}" for gene, weight in self.genes)),
            (
                "genes together",
                f"log-odds {self.log_odds:+.2f}, of which {self.remainder:+.2f} by genes that are not listed",
            ),
        ]

    def __repr__(self) -> str:
        return as_text(*self._shown())

    def _repr_html_(self) -> str:
        return as_html(*self._shown())


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
        Most and second most probable class of each cell, shape (n,), str.
    probability
        Probability of `label`, shape (n,), float32, in [0, 1]. With a calibration it is calibrated: of cells with 0.8 about
        80 % are right. Without one it is the label's share of the vote.
    distance
        Distance to the reference in the latent, divided by the spacing of the reference's own cells there (so about 1 inside
        the reference), (n,); NaN where the repository holds no cells.
    unknown
        True where the label should not be believed, shape (n,), bool.
    classes
        Names of the classes, in the order of the columns of `matrix`.
    matrix
        Probability of every class, shape (n, C), float32; shares of the vote without a calibration.
    pvalues
        Conformal p-value of every class, shape (n, C), float32; None without a calibration.
    votes
        The votes that `matrix` was made of: ``"latent"`` (nearest reference cells) and ``"genes"`` (classifier on genes), each
        (n, C). Empty without a calibration. Where a label method was chosen, its votes are ``"method"``: `matrix` was made of them
        alone, and the two others say how far it agrees.
    classifier
        The gene classifier that cast ``votes["genes"]``: that of the calibration after it learnt from this query. None
        without a calibration.
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
    classifier: GeneClassifier | None = None

    @property
    def believed(self) -> np.ndarray:
        """The label, and what :func:`no_label` says ("unknown") where it should not be believed, shape (n,), str."""
        return np.where(self.unknown, no_label(self.classes), self.label.astype(str))

    # alpha: the error rate of scgraft.labels.transfer.ALPHA.
    def included(self, alpha: float = 0.1) -> np.ndarray:
        """Prediction sets as a mask, shape (n, C), bool: for each cell the classes that cannot be excluded at the error rate `alpha`.

        The most probable class is in every set that is not empty: a class is compared with held-out cells of its own, so one whose
        cells are always recognised with certainty can drop out of the set of a cell that is merely leaning towards it.

        Among cells like the held-out cells of the reference, the true class is outside its set for at most a share `alpha`.

        Raises
        ------
        NoLabels
            There is no calibration.
        BadOption
            `alpha` is not between 0 and 1.

        Examples
        --------
        >>> import scgraft
        >>> folder, adata = scgraft.testing.example()
        >>> reference = scgraft.load_reference(folder)
        >>> mapped = scgraft.map_query(reference, adata, batch_key="batch")
        >>> mapped.labels["cell_type"].included(alpha=0.1).shape
        (40, 3)
        """
        if self.pvalues is None:
            raise NoLabels(
                "These labels were made without a calibration, so they have no prediction sets. Map with one."
            )
        within("alpha", alpha, 0, 1, open_ends=True)
        included = self.pvalues > alpha
        some = np.flatnonzero(included.any(axis=1))
        included[some, self.matrix[some].argmax(axis=1)] = True
        return included

    # alpha: the error rate of scgraft.labels.transfer.ALPHA.
    def sets(self, alpha: float = 0.1) -> tuple[tuple[str, ...], ...]:
        """Prediction set of each cell at an error rate, as names, best first; empty where no class fits.

        Examples
        --------
        >>> import scgraft
        >>> folder, adata = scgraft.testing.example()
        >>> reference = scgraft.load_reference(folder)
        >>> mapped = scgraft.map_query(reference, adata, batch_key="batch")
        >>> sets = mapped.labels["cell_type"].sets(alpha=0.1)
        >>> len(sets), set(sets[0]) <= {"alpha", "beta", "delta"}
        (40, True)
        """
        included, order = self.included(alpha), np.argsort(-self.matrix, axis=1, kind="stable")
        return tuple(
            tuple(self.classes[c] for c in ranked if own[c]) for own, ranked in zip(included, order, strict=True)
        )

    # alpha: the error rate of scgraft.labels.transfer.ALPHA.
    def resolve(self, alpha: float = 0.1, *, parents: Mapping[str, str] | None = None) -> np.ndarray:
        """One text for each cell at the error rate `alpha`, shape (n,), str, made from its prediction set.

        If the set holds one class, it is that class. If it holds several, it is their nearest common parent (`parents` maps
        child to parent), or, if they have none, all of them, the most probable first, joined by ``" | "``. If it is empty,
        it is ``"unknown"``, or ``"unknown (no label fits)"`` where the reference has a class that is called "unknown".

        Examples
        --------
        >>> import scgraft
        >>> folder, adata = scgraft.testing.example()
        >>> reference = scgraft.load_reference(folder)
        >>> mapped = scgraft.map_query(reference, adata, batch_key="batch")
        >>> resolved = mapped.labels["cell_type"].resolve(alpha=0.1)
        >>> resolved.shape
        (40,)
        """
        from scgraft.values.hierarchy import name_sets

        return name_sets(self.included(alpha), self.matrix, self.classes, parents or {})

    def __post_init__(self) -> None:
        seal_fields(self)

    def _shown(self) -> tuple[str, Rows]:
        rows = [
            ("made by", self.method),
            (
                "cells",
                f"{len(self.label):,}, of which {self.unknown.mean():.1%} are unknown" if len(self.label) else "0",
            ),
            ("classes", some(self.classes)),
        ]
        if len(self.label):
            rows.append(("labels", shares(self.label)))
            rows.append(("probability", f"median {np.median(self.probability):.2f}"))
        return f"Labels {self.key!r}", rows

    def __repr__(self) -> str:
        return as_text(*self._shown())

    def _repr_html_(self) -> str:
        return as_html(*self._shown())
