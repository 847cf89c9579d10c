"""What the reference does not explain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


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
