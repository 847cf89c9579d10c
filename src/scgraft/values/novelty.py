"""Which query cells the reference does not explain, and what is known of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from scgraft.numerics.sealed import seal_fields
from scgraft.values.shown import fields_as_html, fields_as_text


@dataclass(frozen=True)
class Novelty:
    """Which query cells the reference does not explain. This is another question than how sure a label is.

    A cell is novel if it and its nearest query cells share a few genes that the model does not expect, as cells of a type that the
    reference lacks have markers. That they lie farther from the reference than most of the query, or are explained worse, adds to
    the evidence.

    Parameters
    ----------
    score
        How badly the model explains each cell's genes, (n,) float32; about 1 where the model is right. It is the squared
        residual, averaged over the cell and its nearest query cells, in units of what noise alone gives. Errors that the
        best explained half of a batch has in common are subtracted first, as they belong to the batch.
    misfit
        Median of the score over all cells before anything is subtracted: how badly the model fits the whole query; 1 where
        it is right.
    markers
        In how few genes the model's errors lie, (n,) float32: the skewness of the averaged residuals, about 1 over the root of the
        number of genes if these are above what is expected, near 0 where errors are in many genes and both directions.
    distance
        Distance of each cell to the reference in the latent before the fit, over the spacing of the reference's cells there,
        (n,) float32: about 1 among them.
    novel
        True where the evidence is above its limit, (n,) bool.
    strength
        The evidence over its limit, (n,) float32: above 1 the cell is novel.
    false_alarms
        Declared share of known cells that may be called novel.
    cluster
        Cluster of each cell in the query's own neighbour graph, (n,) int.
    dossiers
        One for each group of novel cells that is too large to be false alarms.
    states
        One for each type of the query whose cells lie where the reference has them and yet share errors: known cells in
        another state, which keep their label. The largest shift first.
    mixture
        Evidence that a cell holds several types (a doublet, or a spot), (n,) float32: above 1 it is mixed. Empty where that was not
        looked at.
    ambient
        By batch, the share of its counts that look as if they came from the batch's other cells (ambient RNA); a batch of fewer than 20
        cells is left out. Empty where that was not looked at, as in spatial data.
    """

    score: np.ndarray
    misfit: float
    markers: np.ndarray
    distance: np.ndarray
    novel: np.ndarray
    strength: np.ndarray
    false_alarms: float
    cluster: np.ndarray
    dossiers: tuple[Dossier, ...]
    states: tuple[State, ...] = ()
    mixture: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    ambient: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        seal_fields(self)

    @property
    def mixed(self) -> np.ndarray:
        """True where a cell holds several types rather than one, (n,) bool; one label says too little of it."""
        found: np.ndarray = self.mixture > 1 if len(self.mixture) else np.zeros(len(self.novel), bool)
        return found

    __repr__ = fields_as_text
    _repr_html_ = fields_as_html


@dataclass(frozen=True)
class State:
    """A known type of the query in a state that the reference has not: a condition, a treatment, or what a laboratory does to it.

    Parameters
    ----------
    label
        The type.
    n_cells
        Number of its cells that were looked at, with this label.
    shift
        How many times as badly as the query's other cells the model explains the better half of them.
    farther, reach
        How many times as far as held-out cells of the type they lie from the reference before the fit, and how far those of a
        further batch of the reference may lie. A new type lies farther.
    genes, lacking
        Genes that the cells share more, or less, of than the model predicts: name, and mean residual in standard deviations.
    sentence
        The state in words.
    """

    label: str
    n_cells: int
    shift: float
    farther: float
    reach: float
    genes: tuple[tuple[str, float], ...]
    lacking: tuple[tuple[str, float], ...]
    sentence: str

    __repr__ = fields_as_text
    _repr_html_ = fields_as_html


@dataclass(frozen=True)
class Dossier:
    """A group of query cells that the reference does not explain.

    Parameters
    ----------
    cluster
        The query cluster that the cells are in, as in :attr:`Novelty.cluster`.
    n_cells, n_cluster
        Number of novel cells in the cluster, and of all its cells.
    batches
        Number of novel cells in each query batch.
    nearest
        Types of the nearest reference cells in the latent, with their share of the votes.
    genes
        Genes that the cells express more than the model predicts: name, and mean residual in standard deviations.
    lacking
        Genes that the cells express less than the model predicts, in the same form.
    cells
        Names of up to ten of the novel cells, the most novel first.
    sentence
        The dossier in words.
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

    __repr__ = fields_as_text
    _repr_html_ = fields_as_html
