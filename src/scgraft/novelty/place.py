"""A new type or a new state: which of the query's types lie where the reference has them.

A stimulated, diseased or knocked-out cell of a known type is explained worse than the reference's own, and so is every cell of
a type that the model fits badly in another laboratory. All cells of the type share this. A missing type shares its errors too,
but it also lies apart from the type whose label it gets, before the fit. So a type of the query whose best explained cells are
no farther from the reference than those of a further batch of the reference may be is *in its place*: what its cells share is a
state, not a type.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scgraft.novelty.limits import scale_of

LEAST_TYPE = 20  # cells whose first quartile is known to a tenth; chosen by eye, not measured
LEAST_FOLD = 10  # held-out cells of a type in a batch that have a median; chosen by eye, not measured
REACH = 0.95  # of further batches have a type no farther away: the level that novelty is declared at
# Times as far: where held-out batches differ a lot, a missing type would be in place. Chosen on pancreas, pig airways and sorted
# PBMC by benchmarks/trust.py; 1.05 leaves false alarms, and without it left-out beta cells of islets are a state of gamma cells.
FARTHEST = 1.1


@dataclass(frozen=True)
class HeldOut:
    """Held-out cells of the reference: what the novelty of a query's cells is compared with.

    Parameters
    ----------
    score, distance
        Novelty scores, and relative distances to the rest of the reference before the fit, (m,) each. Without `distance` (all
        ones) nothing is known of places.
    code, fold
        Class of each, -1 for none, and the batches that it was held out with, (m,) int.
    evidence
        That they are novel, (m,) (:func:`scgraft.novelty.limits.evidence`).
    mixture
        How much better a mixture of types explains them than one type, (m,); None where that is not known.
    """

    score: np.ndarray
    distance: np.ndarray
    code: np.ndarray
    fold: np.ndarray
    evidence: np.ndarray
    mixture: np.ndarray | None = None


@dataclass(frozen=True)
class Placed:
    """A type of the query, and whether it lies where the reference has it.

    Parameters
    ----------
    code
        The class.
    rows, best
        Positions of its cells, and of the better explained half of them.
    farther, reach
        How many times as far from the reference as held-out cells of the type the better explained half lies, and how far a
        further batch of the reference may lie.
    scale
        How many times as badly explained as held-out cells its cells are, 1 at least.
    """

    code: int
    rows: np.ndarray
    best: np.ndarray
    farther: float
    reach: float
    scale: float

    @property
    def in_place(self) -> bool:
        """Whether its cells are known ones, perhaps in another state."""
        return self.farther <= self.reach


def usual_distances(held: HeldOut) -> tuple[dict[int, float], float]:
    """Distance of each type's cells in a held-out batch, and how many times as far those of a further batch may lie.

    The distance of a type is the geometric mean over folds of its median. How much folds differ is estimated from all types
    together; the reach is the prediction interval of one more draw (Student's t), 1.1 at most. It is 0, so that nothing is in
    its place, where no type is in two folds.
    """
    from scipy.special import stdtrit  # scipy.stats has the same quantiles, and takes a second to import

    usual, deviations, free, most = {}, [np.zeros(0)], 0, 1
    for code in np.unique(held.code):
        own = [held.distance[(held.code == code) & (held.fold == f)] for f in np.unique(held.fold)]
        medians = np.log([max(float(np.median(part)), 1e-12) for part in own if len(part) >= LEAST_FOLD])
        if len(medians):
            usual[int(code)] = float(np.exp(medians.mean()))
            deviations.append(medians - medians.mean())
            free, most = free + len(medians) - 1, max(most, len(medians))
    if not free:
        return usual, 0.0
    spread = float(np.sqrt((np.concatenate(deviations) ** 2).sum() / free))
    return usual, min(float(np.exp(stdtrit(free, REACH) * spread * np.sqrt(1 + 1 / most))), FARTHEST)


def place_types(score: np.ndarray, distance: np.ndarray, code: np.ndarray, held: HeldOut) -> list[Placed]:
    """Where the types of a query lie, for those with 20 cells and with held-out cells of their own.

    Parameters
    ----------
    score, distance
        Of the query's cells, (n,): novelty scores, and relative distances before the fit.
    code
        Their classes by the neighbours' vote, (n,); -1 for none.
    held
        Held-out cells of the reference.
    """
    usual, reach = usual_distances(held)
    all_farther, out = scale_of(distance, held.distance), []
    for own in np.unique(code[code >= 0]):
        rows = np.flatnonzero(code == own)
        if len(rows) < LEAST_TYPE or int(own) not in usual:
            continue
        best = rows[np.argsort(score[rows], kind="stable")[: len(rows) // 2]]
        farther = float(np.median(distance[best])) / (usual[int(own)] * all_farther)
        out.append(Placed(int(own), rows, best, farther, reach, scale_of(score[rows], held.score)))
    return out
