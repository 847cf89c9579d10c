"""A reference: its identity, its files, what it asks of a query, and what is known of its cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scgraft.numerics.atlas import Atlas, atlas_of
from scgraft.numerics.index import Index
from scgraft.numerics.sealed import seal_fields
from scgraft.values.blocks import Block
from scgraft.values.names import BATCH, covariate_name
from scgraft.values.shown import as_html, fields_as_html, fields_as_text, some

if TYPE_CHECKING:
    import pandas as pd


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
    cells
        Hash of ``adata.h5ad``, in hex, where the model was read from a folder; "" without cells, and where the commit tells.
    """

    repo: str
    revision: str
    sha256: str
    family: str
    cells: str = ""

    @property
    def title(self) -> str:
        """What a reader calls it: the repository and its commit, or the name of the folder, not where that lies."""
        if self.revision != "local":
            return f"{self.repo}@{self.revision[:12]}"
        return f"{Path(self.repo).name or self.repo} (a folder)"

    _repr_html_ = fields_as_html


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
class Covariate:
    """An extra categorical covariate of the reference: its obs column and known levels, in code order.

    Where it is the combination of other covariates, `of` names these (``"batch"``, ``"covariate:<key>"``), and its levels are
    their levels joined by ``"_"``, as scArches writes them. No column of obs is then read.
    """

    key: str
    levels: tuple[str, ...]
    of: tuple[str, ...] = ()


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
    label_levels
        obs columns of all levels of the annotation, where the model was trained with several; `labels_key` is one of them.
    layer
        Layer that held the counts, None for X.
    categorical, continuous
        Extra covariates.
    size_factor_key
        obs column of the size factors, or None.
    blocks
        Inputs beside the genes: the proteins of TOTALVI and MULTIVI.
    n_regions
        How many of `genes`, the last of them, are regions of chromatin beside genes: MULTIVI takes both from one matrix of counts.
    """

    genes: np.ndarray
    batch_key: str | None
    batches: tuple[str, ...]
    labels_key: str | None = None
    labels: tuple[str, ...] = ()
    unlabeled: str | None = None
    label_levels: tuple[str, ...] = ()
    layer: str | None = None
    categorical: tuple[Covariate, ...] = ()
    continuous: tuple[str, ...] = ()
    size_factor_key: str | None = None
    blocks: tuple[Block, ...] = ()
    n_regions: int = 0

    @property
    def kinds(self) -> dict[str, slice]:
        """Where the features of each kind are among `genes`: of most models one kind."""
        n = len(self.genes) - self.n_regions
        found = {"genes": slice(0, n), "regions": slice(n, len(self.genes))}
        return {name: at for name, at in found.items() if at.stop > at.start or not self.n_regions and name == "genes"}

    def block(self, name: str) -> Block:
        """The input of that name, which the model has."""
        return next(block for block in self.blocks if block.name == name)

    def __post_init__(self) -> None:
        seal_fields(self)

    @property
    def label_keys(self) -> tuple[str, ...]:
        """Columns of obs with labels that the model knows: all levels of its annotation."""
        return self.label_levels or (() if self.labels_key is None else (self.labels_key,))

    @property
    def obs_keys(self) -> dict[str, str | None]:
        """Column of obs of the batch and of every categorical covariate that has one, by name; None where there is no batch."""
        return {BATCH: self.batch_key} | {covariate_name(c.key): c.key for c in self.categorical if not c.of}

    @property
    def levels(self) -> dict[str, tuple[str, ...]]:
        """Known levels of the batch and of every categorical covariate, in the order of the model's inputs."""
        return {BATCH: self.batches} | {covariate_name(c.key): c.levels for c in self.categorical}

    __repr__ = fields_as_text
    _repr_html_ = fields_as_html


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

    def __post_init__(self) -> None:
        seal_fields(self)

    @cached_property
    def atlas(self) -> Atlas:
        """These cells in clusters, from :func:`scgraft.numerics.atlas.atlas_of`: made once, and kept with them."""
        return atlas_of(self.mean, self.variance)

    @cached_property
    def index(self) -> Index:
        """What nearest neighbours among these cells are looked up with: made once, and kept with them."""
        return Index(self.mean)

    __repr__ = fields_as_text
    _repr_html_ = fields_as_html


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
        Observed library size of each reference cell (counts over the model's genes; PEAKVI's depth, in [0, 1]), shape
        (n,), or None. MULTIVI's are (n, 2): the RNA library that it predicts, and the depth of the regions.
    mean_count
        Mean of the reference's counts that are not zero, of each kind of features (genes, regions), where its cells were encoded from
        counts, else None.
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
    notes
        What is odd about the files and was read as it is, in sentences: a model that says it was not trained, a column of obs
        that its cells lack.
    remarks
        What was left out of the repository's files because it cannot be used, a sentence each.
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
    mean_count: tuple[float, ...] | None = None
    minified: str | None = None
    latent_source: str = "none"
    scvi_version: str = "unknown"
    registry: Mapping[str, Any] = field(default_factory=dict)
    card: str | None = None
    adata_path: Path | None = None
    remarks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        seal_fields(self)

    def _repr_html_(self) -> str:
        s = self.schema
        labels = "none"
        if s.labels_key is not None:
            known = self.obs is not None and s.labels_key in self.obs
            counts = self.obs[s.labels_key].astype(str).value_counts().items() if known and self.obs is not None else []
            labels = f"{s.labels_key}: {some(f'{name} ({n:,})' for name, n in counts if n) or some(s.labels)}"
        cells = "none" if self.latent is None else f"{len(self.latent.mean):,} ({self.latent_source})"
        title = f"Reference {self.base.family} {self.base.title}"
        return as_html(
            title,
            [
                ("saved by", f"scvi-tools {self.scvi_version}"),
                ("genes", f"{len(s.genes):,}: {some(map(str, s.genes))}"),
                ("batches", f"{s.batch_key or 'no batch column'}: {some(s.batches)}"),
                ("labels", labels),
                ("covariates", some([*(c.key for c in s.categorical), *s.continuous]) or "none"),
                ("cells", cells),
                ("maps", some(self.maps) or "none"),
            ],
        )

    def __repr__(self) -> str:
        cells = "no cells" if self.latent is None else f"{self.latent.mean.shape[0]} cells ({self.latent_source})"
        s = self.schema
        return (
            f"Reference {self.base.family} {self.base.title} "
            f"(scvi-tools {self.scvi_version}): "
            f"{' and '.join(f'{at.stop - at.start} {kind}' for kind, at in s.kinds.items())}, {len(s.batches)} batches ({s.batch_key or 'no batch key'}), "
            f"{len(s.labels)} labels ({s.labels_key or 'no labels key'}), {cells}"
        )


def own_map(reference: Reference) -> tuple[str, np.ndarray] | None:
    """The map that the repository holds of its cells: its name and the points, (n, 2) float32. A UMAP is taken before others."""
    if reference.latent is None:
        return None
    names = sorted(reference.maps, key=lambda name: ("umap" not in name.lower(), "tsne" not in name.lower(), name))
    for name in names:
        points = np.asarray(reference.maps[name], np.float32)
        if points.shape == (len(reference.latent.mean), 2) and np.isfinite(points).all():
            return name, points
    return None
