"""The values that flow between functions: frozen, printable, and easy to build by hand in a test.

``BATCH`` names the batch among the categorical covariates; another covariate ``donor`` is named
``covariate:donor`` (see :func:`covariate_name`), so the two can never be confused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from scgraft.atlas import Atlas, atlas_of
from scgraft.confidence import Calibration, Novelty, Quality

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_matrix

BATCH = "batch"
GRAFT_FORMAT = 1

Role = Literal["encoder", "decoder", "dispersion", "library", "prior", "background"]
Init = Literal["mean", "data"]


def covariate_name(key: str) -> str:
    """Name of an extra categorical covariate among slots and levels."""
    return f"covariate:{key}"


def level_name(value: Any) -> str:
    """Text of one level of a categorical column: ``3``, ``3.0`` and ``"3"`` are the same level."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)


def column_text(column: pd.Series[Any]) -> np.ndarray:
    """A column as text, (n,) str; a missing value is ``"nan"`` (pandas 3 would leave it missing, and not sortable)."""
    return np.asarray(column.astype(object), dtype=object).astype(str)


@dataclass(frozen=True)
class BaseId:
    """Identity of a reference model.

    Parameters
    ----------
    repo
        Hub repository (``org/name``), or the folder it was read from.
    revision
        40-hex commit, or ``"local"`` for a folder.
    sha256
        Hash of ``model.pt``, in hex.
    family
        scvi-tools class name, for example ``"SCVI"``.
    """

    repo: str
    revision: str
    sha256: str
    family: str


@dataclass(frozen=True)
class Bundle:
    """Files of one hub repository at one commit, all on this machine."""

    repo: str
    revision: str
    folder: Path
    model: Path
    adata: Path | None
    metadata: Path | None
    card: Path | None


@dataclass(frozen=True)
class Slot:
    """A place in a named tensor whose columns belong to the levels of one categorical covariate.

    Parameters
    ----------
    key
        Name of the tensor in the state dict.
    axis
        Axis along which the levels lie.
    start
        Index of the first level's column.
    size
        Number of columns in the file. 0 when the reference has a single level and the layout is one-hot:
        scvi-tools writes no column then.
    levels
        Number of levels that the reference knows; ``levels - size`` columns are implicit zeros.
    covariate
        ``"batch"`` or ``"covariate:<key>"``.
    role
        What the tensor does. Only ``"encoder"`` slots can move the latent.
    trainable
        False for columns that the loss does not depend on, or that are estimated from the data.
    init
        ``"mean"``: new columns start from the mean of the reference's; ``"data"``: computed from the query.
    """

    key: str
    axis: int
    start: int
    size: int
    levels: int
    covariate: str
    role: Role
    trainable: bool = True
    init: Init = "mean"

    @property
    def name(self) -> str:
        """Name of the slot, unique in a model: tensor and covariate."""
        return f"{self.key}[{self.covariate}]"


@dataclass(frozen=True)
class Covariate:
    """An extra categorical covariate of the reference: its obs column and known levels, in code order."""

    key: str
    levels: tuple[str, ...]


@dataclass(frozen=True)
class Schema:
    """What the reference was trained on, and so what it asks of a query.

    Parameters
    ----------
    genes
        Gene names in the model's order, shape (G,), as saved (symbols or Ensembl ids).
    batch_key, batches
        obs column of the reference's batches (None when it was trained without) and their names in code order.
    labels_key, labels, unlabeled
        obs column of the labels, class names in code order **without** the unlabeled category, and that category.
    layer
        Layer that held the counts, None for X.
    categorical, continuous
        Extra covariates.
    size_factor_key
        obs column of the size factors, or None.
    """

    genes: np.ndarray
    batch_key: str | None
    batches: tuple[str, ...]
    labels_key: str | None = None
    labels: tuple[str, ...] = ()
    unlabeled: str | None = None
    layer: str | None = None
    categorical: tuple[Covariate, ...] = ()
    continuous: tuple[str, ...] = ()
    size_factor_key: str | None = None

    @property
    def levels(self) -> dict[str, tuple[str, ...]]:
        """Known levels of the batch and of every categorical covariate, in the order of the model's inputs."""
        return {BATCH: self.batches} | {covariate_name(c.key): c.levels for c in self.categorical}


@dataclass(frozen=True)
class Latent:
    """Posterior of cells in the latent space.

    Parameters
    ----------
    mean, variance
        Posterior mean and variance, shape (n, d), float32.
    cells
        Cell names, shape (n,), str.
    """

    mean: np.ndarray
    variance: np.ndarray
    cells: np.ndarray

    @cached_property
    def atlas(self) -> Atlas:
        """These cells in clusters, from :func:`scgraft.atlas.atlas_of`: made once, and kept with them."""
        return atlas_of(self.mean, self.variance)


@dataclass(frozen=True)
class Reference:
    """A pretrained model, read from its files, with what is known of its cells.

    Parameters
    ----------
    base, schema
        Identity of the model, and what it asks of a query.
    hyper
        The family's own frozen dataclass of hyper-parameters.
    weights
        State dict as numpy arrays, float32, unchanged.
    latent
        Posterior of the reference cells: stored (minified) or encoded from stored counts; None without cells.
    obs, var
        Annotation of the reference's cells and genes as saved; None when the repository holds no AnnData.
    maps
        Two-dimensional embeddings of the reference cells, for example ``{"X_umap": (n, 2)}``.
    library
        Observed library size of each reference cell (counts over the model's genes), shape (n,), or None.
    minified
        Minify type as found in the file (``"latent_posterior_parameters"``...), None when it holds counts or nothing.
    latent_source
        Where the latent comes from, in words.
    scvi_version
        Version of scvi-tools that saved the model.
    registry
        The registry as saved: a plain nested mapping.
    card
        Text of the model card, or None.
    adata_path
        The AnnData file of the repository, or None.
    attributes
        Options of the constructor (``init_params_``) and the split of the cells (``train_indices_``,
        ``validation_indices_``, ``test_indices_``) as saved.
    """

    base: BaseId
    schema: Schema
    hyper: Any
    weights: Mapping[str, np.ndarray]
    latent: Latent | None = None
    obs: pd.DataFrame | None = None
    var: pd.DataFrame | None = None
    maps: Mapping[str, np.ndarray] = field(default_factory=dict)
    library: np.ndarray | None = None
    minified: str | None = None
    latent_source: str = "none"
    scvi_version: str = "unknown"
    registry: Mapping[str, Any] = field(default_factory=dict)
    card: str | None = None
    adata_path: Path | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        cells = "no cells" if self.latent is None else f"{self.latent.mean.shape[0]} cells ({self.latent_source})"
        s = self.schema
        return (
            f"Reference {self.base.family} {self.base.repo}@{self.base.revision[:12]} "
            f"(scvi-tools {self.scvi_version}): "
            f"{len(s.genes)} genes, {len(s.batches)} batches ({s.batch_key or 'no batch key'}), "
            f"{len(s.labels)} labels ({s.labels_key or 'no labels key'}), {cells}"
        )


@dataclass(frozen=True)
class Alignment:
    """How a query was brought into the reference's genes and batches: found, repaired, missing.

    Parameters
    ----------
    counts_from
        Where the raw counts were: ``"X"``, ``"layers['counts']"``, ``"raw.X"``, or "recovered from ...".
    n_cells, n_genes, n_found
        Cells kept, genes of the reference, and how many of them the query has.
    found_weight
        Share of the found genes weighted by how much each matters to the encoder, in [0, 1].
    matched_by
        Number of genes by the way they were matched, for example ``{"var_names": 1980, "version stripped": 12}``.
    missing
        Genes of the reference that the query lacks (filled with zeros).
    summed
        Reference genes for which several query genes were added up, with the query's names.
    n_unused
        Genes of the query that the reference does not use.
    batch_key
        obs column of the query, or None when the whole query is one new batch.
    new_levels
        New levels by covariate (``"batch"``, ``"covariate:<key>"``), in code order.
    known_batches
        Batches of the query that the reference has: they keep the reference's columns.
    cells_per_batch
        Number of cells in each batch of the query.
    dropped
        Names of cells left out because they had no count.
    messages
        Sentences for the user, in order.
    """

    counts_from: str
    n_cells: int
    n_genes: int
    n_found: int
    found_weight: float
    matched_by: Mapping[str, int]
    missing: tuple[str, ...]
    summed: Mapping[str, tuple[str, ...]]
    n_unused: int
    batch_key: str | None
    new_levels: Mapping[str, tuple[str, ...]]
    known_batches: tuple[str, ...]
    cells_per_batch: Mapping[str, int]
    dropped: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Query:
    """Cells in the reference's genes.

    Parameters
    ----------
    counts
        Raw UMI (or read) counts, CSR float32, shape (n, G), columns in the reference's gene order.
    codes
        Codes of the batch and of each categorical covariate, shape (n, 1 + c), int32, into `levels`.
    levels
        Level names by covariate, in code order: the reference's levels first, then the query's new ones.
    continuous
        Continuous covariates, shape (n, k), float32.
    cells
        Cell names, shape (n,), str.
    size_factor
        Size factors, shape (n,), float32, when the reference was trained with them.
    label_codes
        Codes into ``schema.labels`` where the query's labels are known, else -1; shape (n,), int32, or None.
    alignment
        How the query was brought into this form.
    """

    counts: csr_matrix
    codes: np.ndarray
    levels: Mapping[str, tuple[str, ...]]
    continuous: np.ndarray
    cells: np.ndarray
    size_factor: np.ndarray | None
    label_codes: np.ndarray | None
    alignment: Alignment


@dataclass(frozen=True)
class FitConfig:
    """Settings of the fit; the defaults suit queries from one cell to millions.

    Parameters
    ----------
    objective
        ``"match"``: the encoder's columns bring the latents onto the atlas, whatever the query's composition, where that is
        better than doing nothing; the other columns reconstruct the counts. ``"atlas"``: the ELBO with the reference's
        own stored posterior as prior. ``"elbo"``: the published objective, also where the reference stores no latents.
    labels
        obs column of the reference whose votes say how far ``"match"`` may reach; None for that of the registry.
    start
        Where new columns start: ``"mean"`` of the reference's columns, ``"zero"``, or ``"random"`` as scvi-tools.
    epochs
        Passes over the query at most; None runs until the held-out loss stops falling; 0 keeps the start (zero-shot).
    max_steps
        Optimiser steps at most.
    batch_size
        Cells in a step.
    learning_rate
        Adam's, falling along a cosine.
    kl_weight
        Weight of the KL term.
    fit_cells
        Cells of each new batch used for the fit at most; None uses all of them.
    holdout
        Share of the cells held out to decide convergence.
    patience
        Evaluations without improvement before the fit stops.
    seed
        Seed of everything random in the fit.
    device
        ``"cpu"``, ``"cuda"``, or ``"auto"``.
    progress
        Show a progress bar.
    force
        Train even where the latent cannot move, for the sake of decoded expression.
    """

    objective: str = "match"
    labels: str | None = None
    start: Literal["mean", "zero", "random"] = "mean"
    epochs: int | None = None
    max_steps: int = 100
    batch_size: int = 128
    learning_rate: float = 0.05
    kl_weight: float = 1.0
    fit_cells: int | None = 1000
    holdout: float = 0.1
    patience: int = 5
    seed: int = 0
    device: str = "auto"
    progress: bool = False
    force: bool = False


@dataclass(frozen=True)
class FitRecord:
    """What happened in a fit: the receipt of the surgery.

    Parameters
    ----------
    config
        The settings.
    trained
        False when no training was done, with the `reason`.
    reason
        Why the fit stopped, or was skipped.
    objective
        What was minimised; ``"elbo"`` where another was asked for and the reference stores no posterior.
    reach
        Which fit of the columns that move the latent was kept by ``"match"``: ``"start"`` (none was better), ``"near"``
        (within clusters of the atlas) or ``"far"`` (across neighbouring ones); None for other objectives.
    gain, gain_error
        Mean log-density of the latents under the atlas, near fit minus start, in nats per cell, and its standard error.
    confidence
        Mean share of the vote for a cell's label, far fit minus start; None where the far fit was not tried.
    steps, seconds
        Optimiser steps and wall seconds.
    n_cells, n_fit_cells
        Cells of the query, and how many of them were used for the fit.
    loss
        Held-out loss at each evaluation as (step, nats per cell).
    n_parameters
        Numbers that were trained.
    reference_unchanged
        sha256 of the reference's weights before and after the fit; equal by construction, and checked.
    moved
        Mean distance that the latent of each query batch moved from the start, in units of the latent's spread.
    versions
        Versions of scgraft, torch and numpy.
    """

    config: FitConfig
    trained: bool
    reason: str
    objective: str = "elbo"
    reach: Literal["start", "near", "far"] | None = None
    gain: float | None = None
    gain_error: float | None = None
    confidence: float | None = None
    steps: int = 0
    seconds: float = 0.0
    n_cells: int = 0
    n_fit_cells: int = 0
    loss: tuple[tuple[int, float], ...] = ()
    n_parameters: int = 0
    reference_unchanged: tuple[str, str] = ("", "")
    moved: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Graft:
    """New columns for a query's new batches: all that a mapping adds to the reference.

    Parameters
    ----------
    base
        The reference that it was made for.
    levels
        New levels by covariate, in column order.
    rows
        New columns by slot name, levels along the slot's axis, float32.
    record
        How it was fitted.
    format
        Version of the saved format.
    """

    base: BaseId
    levels: Mapping[str, tuple[str, ...]]
    rows: Mapping[str, np.ndarray]
    record: FitRecord
    format: int = GRAFT_FORMAT

    @property
    def batches(self) -> tuple[str, ...]:
        """Names of the new batches, in column order."""
        return tuple(self.levels.get(BATCH, ()))


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
        from scgraft.hierarchy import name_sets

        return name_sets(self.sets(alpha), self.matrix, self.classes, parents or {})


@dataclass(frozen=True)
class MappedQuery:
    """All results of a mapping. `labels` and `calibration` are keyed by the label column.

    `novelty` says which cells the reference does not explain, `verdict` whether the mapping was good; both are None
    where nothing was calibrated.
    """

    base: BaseId
    alignment: Alignment
    graft: Graft
    latent: Latent
    labels: Mapping[str, Labels]
    quality: Mapping[str, Any]
    novelty: Novelty | None = None
    calibration: Mapping[str, Calibration] = field(default_factory=dict)
    verdict: Quality | None = None


@dataclass(frozen=True)
class Family:
    """A supported model class: everything that the package needs to know of it.

    Parameters
    ----------
    name
        scvi-tools class name.
    read_hyper
        (flattened init_params_, weights, schema) -> the family's hyper-parameters.
    slots
        (hyper, schema, weights) -> every slot of the model.
    build
        (reference, device, dtype) -> the frozen model in torch; its methods take the graft's rows.
    source
        The paper.
    """

    name: str
    read_hyper: Callable[..., Any]
    slots: Callable[..., tuple[Slot, ...]]
    build: Callable[..., Any]
    source: str
