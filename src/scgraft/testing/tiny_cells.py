"""The cells of a tiny reference: simulated counts of a few cell types, as the AnnData that scvi-tools would store.

The posterior of the cells comes from the slow, obvious encoder, not from the package's own model code.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from scgraft.testing.tiny_model import BATCH_NORM, EMBEDDING, TinyConfig

if TYPE_CHECKING:
    from anndata import AnnData

BATCH_KEY = "batch"
LABELS_KEY = "cell_type"
SIZE_FACTOR_KEY = "size_factor"
MINIFY_TYPE = "_scvi_adata_minify_type"
CATEGORICAL, CONTINUOUS = "_scvi_extra_categorical_covs", "_scvi_extra_continuous_covs"
DEFAULT_TYPES = ("alpha", "beta", "delta")


@dataclass(frozen=True)
class Cells:
    """Simulated cells: raw UMI counts (n, G) and what the model is told of each cell.

    `codes` holds the batch and each categorical covariate, shape (n, 1 + c); `types` the true cell types, as text.
    """

    counts: np.ndarray
    types: np.ndarray
    codes: np.ndarray
    continuous: np.ndarray

    @property
    def library(self) -> np.ndarray:
        """Total count of each cell, shape (n,), float32."""
        return self.counts.sum(1)

    @property
    def size_factor(self) -> np.ndarray:
        """Total count relative to the mean cell, shape (n,), float32."""
        return self.library / self.library.mean()


def gene_names(config: TinyConfig) -> np.ndarray:
    """Gene names, shape (G,), object; for PEAKVI and POISSONVI intervals of a genome."""
    if config.model in ("PEAKVI", "POISSONVI"):
        return np.array([f"chr1:{1000 * i + 1}-{1000 * i + 500}" for i in range(config.n_genes)], object)
    return np.array([f"g{i:04d}" for i in range(config.n_genes)], object)


def draw_cells(config: TinyConfig, n: int, sizes: Sequence[int], stream: Sequence[int]) -> Cells:
    """Simulate cells of the configuration's cell types: Poisson counts around a profile per type, batch by batch.

    `sizes` are the number of batches and of levels of each covariate; `stream` names the random stream, so that a
    query differs from the reference while the cell types' profiles stay the same.
    """
    types = config.labels or DEFAULT_TYPES
    shared = np.random.default_rng([config.seed, 2])
    profiles = np.exp(1.5 * shared.standard_normal((len(types), config.n_genes)))
    rng = np.random.default_rng([config.seed, *stream])
    kind, *columns = (rng.permutation(np.arange(n) % size) for size in (len(types), *sizes))
    effects = np.exp(0.2 * rng.standard_normal((sizes[0], config.n_genes)))
    rate = profiles[kind] * effects[columns[0]]
    library = rng.lognormal(np.log(10 * config.n_genes), 0.25, (n, 1))
    counts = rng.poisson(rate / rate.sum(1, keepdims=True) * library).astype(np.float32)
    counts[counts.sum(1) == 0, 0] = 1
    continuous = rng.standard_normal((n, len(config.continuous)))
    return Cells(counts, np.array(types)[kind], np.stack(columns, axis=1), continuous)


def encode(
    config: TinyConfig,
    weights: Mapping[str, np.ndarray],
    counts: np.ndarray,
    codes: np.ndarray,
    continuous: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Posterior of cells, computed in float64 by the textbook: one-hot vectors and matrix products.

    Parameters
    ----------
    config, weights
        The model.
    counts
        Raw UMI counts, dense, shape (n, G).
    codes
        Codes of the batch and of each categorical covariate, shape (n, 1 + c).
    continuous
        Continuous covariates, shape (n, k).

    Returns
    -------
    tuple
        Posterior mean (before the softmax of a logistic-normal latent) and variance, shape (n, d), float64.
    """
    w = {key: np.asarray(value, np.float64) for key, value in weights.items()}
    x, hot = np.log1p(counts.astype(np.float64)), np.zeros((len(counts), 0))
    if config.encode_covariates:
        x = np.hstack([x, continuous])
        categorical = codes
        if config.batch_representation == "embedding":
            x, categorical = np.hstack([x, w[EMBEDDING][codes[:, 0]]]), codes[:, 1:]
        hot = np.hstack([hot, *(np.eye(n)[c] for n, c in zip(config.one_hot, categorical.T, strict=True) if n)])
    for i in range(config.n_layers):
        layer = f"z_encoder.encoder.fc_layers.Layer {i}"
        if i == 0 or config.deeply_inject_covariates:
            x = np.hstack([x, hot])
        x = x @ w[f"{layer}.0.weight"].T + w[f"{layer}.0.bias"]
        if f"{layer}.1.weight" in w:
            scale, shift, mean, variance = (w[f"{layer}.1.{name}"] for name in BATCH_NORM)
            x = (x - mean) / np.sqrt(variance + 1e-3) * scale + shift
        if config.use_layer_norm in ("encoder", "both"):
            x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
        x = np.maximum(x, 0)
    mean, variance = (
        x @ w[f"z_encoder.{head}.weight"].T + w[f"z_encoder.{head}.bias"] for head in ("mean_encoder", "var_encoder")
    )
    return mean, np.exp(variance) + 1e-4


def minified_keys(config: TinyConfig) -> tuple[str, str, str]:
    """Where the minified latent lies: obsm keys of its mean and variance, and obs key of the library size."""
    name = config.model.lower()
    prefix = {"current": f"{name}_", "1.2.1": "", "old": f"_{name}_"}[config.key_style]
    library = f"_{name}_observed_lib_size" if config.key_style == "old" else "observed_lib_size"
    return f"{prefix}latent_qzm", f"{prefix}latent_qzv", library


def make_uuid(config: TinyConfig, stream: int) -> str:
    """Make an identifier that follows from the seed, so that the same configuration gives the same files."""
    return str(uuid.UUID(bytes=np.random.default_rng([config.seed, stream]).bytes(16), version=4))


def reference_adata(config: TinyConfig, weights: Mapping[str, np.ndarray]) -> AnnData:
    """Simulate the reference's cells as scvi-tools stores them, minified when the configuration says so."""
    import anndata

    sizes = (config.n_batches, *map(len, config.covariates.values()))
    cells = draw_cells(config, config.n_cells, sizes, (3,))
    counts = csr_matrix(cells.counts)
    removed = csr_matrix(counts.shape, dtype=np.float64)
    emptied = config.minified == "latent_posterior_parameters"
    layers = {} if config.layer is None else {config.layer: removed if emptied else counts}
    x = counts if config.layer is None else csr_matrix(np.log1p(cells.counts / cells.library[:, None] * 1e4))
    names = pd.Index([f"cell{i}" for i in range(config.n_cells)])
    adata = anndata.AnnData(
        removed if emptied else x,
        obs=_reference_obs(config, cells, names),
        var=pd.DataFrame(index=pd.Index(gene_names(config))),
        layers=layers,
        uns={"_scvi_uuid": make_uuid(config, 5), "_scvi_manager_uuid": make_uuid(config, 6)},
        obsm={"X_umap": _flat_map(cells.counts)},
    )
    if config.covariates:
        codes = cells.codes[:, 1:].astype(np.int8)
        adata.obsm[CATEGORICAL] = pd.DataFrame(codes, index=names, columns=list(config.covariates))
    if config.continuous:
        adata.obsm[CONTINUOUS] = pd.DataFrame(cells.continuous, index=names, columns=list(config.continuous))
    if config.minified is not None:
        mean_key, variance_key, library_key = minified_keys(config)
        mean, variance = encode(config, weights, cells.counts, cells.codes, cells.continuous)
        adata.obsm[mean_key], adata.obsm[variance_key] = mean.astype(np.float32), variance.astype(np.float32)
        adata.obs[library_key] = cells.library
        adata.uns[MINIFY_TYPE] = config.minified
    return adata


def _flat_map(counts: np.ndarray) -> np.ndarray:
    """Two principal components of the log counts, shape (n, 2): a stand-in for the UMAP that an atlas comes with."""
    log = np.log1p(counts)
    left, scale, _ = np.linalg.svd(log - log.mean(0), full_matrices=False)
    flat = np.zeros((len(counts), 2), np.float32)
    flat[:, : scale[:2].size] = left[:, :2] * scale[:2]
    return flat


def _reference_obs(config: TinyConfig, cells: Cells, names: pd.Index) -> pd.DataFrame:
    """Annotation of the reference's cells."""
    labels = cells.types.astype(object)
    if config.model == "SCANVI" and not config.all_labeled:
        labels[::6] = config.unlabeled
    obs: dict[str, Any] = {}
    if config.batches:
        obs[BATCH_KEY] = _column(config.batches, cells.codes[:, 0])
    obs[LABELS_KEY] = pd.Categorical(labels)
    for i, (key, levels) in enumerate(config.covariates.items(), start=1):
        obs[key] = _column(levels, cells.codes[:, i])
    obs |= {key: cells.continuous[:, i] for i, key in enumerate(config.continuous)}
    if config.size_factor:
        obs[SIZE_FACTOR_KEY] = cells.size_factor
    obs["_scvi_batch"] = cells.codes[:, 0].astype(np.int8)
    codes = [config.categories.index(label) for label in labels] if config.labels else 0
    obs["_scvi_labels"] = np.array(codes, np.int8)
    return pd.DataFrame(obs, index=names)


def _column(levels: Sequence[str] | Sequence[int], codes: np.ndarray) -> Any:
    """Column of an obs table: whole numbers stay numbers, text becomes a categorical in the given order."""
    if all(isinstance(level, int) for level in levels):
        return np.array(levels)[codes]
    return pd.Categorical.from_codes(codes, categories=pd.Index([str(level) for level in levels]))
