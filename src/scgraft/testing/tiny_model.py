"""A tiny model of a supported class with random weights: its options, and the names and shapes of its tensors.

Written from the layout of the files alone and without the package's model code, so that it can be a yardstick for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import numpy as np

Model = Literal["SCVI", "SCANVI", "LinearSCVI", "POISSONVI", "PEAKVI"]
MODELS: tuple[Model, ...] = ("SCVI", "SCANVI", "LinearSCVI", "POISSONVI", "PEAKVI")
# What else each of the smaller classes has fixed: options of TinyConfig that it must be given.
FIXED: Mapping[str, Mapping[str, object]] = MappingProxyType({
    "LinearSCVI": {"covariates": {}, "continuous": (), "encode_covariates": False, "size_factor": False, "minified": None,
                   "batch_representation": "one-hot", "use_batch_norm": "both", "use_layer_norm": "none"},
    "POISSONVI": {"gene_likelihood": "poisson", "dispersion": "gene", "use_observed_lib_size": True, "minified": None,
                  "batch_representation": "one-hot", "use_batch_norm": "none", "use_layer_norm": "both"},
    "PEAKVI": {"size_factor": False, "minified": None, "batch_representation": "one-hot", "use_layer_norm": "both",
               "use_observed_lib_size": True, "dispersion": "gene"},
})  # fmt: skip
Scope = Literal["both", "none", "encoder", "decoder"]
Shape = tuple[int, ...]
EMBEDDING = "_embeddings_dict.batch.weight"
BATCH_NORM = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class TinyConfig:
    """Options of a tiny reference: the model's, the registry's and the file's. Everything random follows from `seed`.

    Parameters
    ----------
    model
        Model class. The smaller ones fix some of the options, see `FIXED`.
    n_genes, n_cells, n_hidden, n_latent, n_layers
        Sizes. There are at least as many cells as batches, levels of a covariate, or labels.
    batches
        Batch names in code order, all text or all whole numbers; ``()`` or None for a model without a batch key.
        The obs column is ``"batch"``.
    covariates
        Extra categorical covariates: obs column -> levels in code order.
    continuous
        Extra continuous covariates: obs columns.
    labels, unlabeled
        Classes of the obs column ``"cell_type"``; ``()`` for an SCVI model without a labels key. SCANVI's category
        of the cells without a label; SCVI has none.
    all_labeled
        Whether every reference cell of SCANVI has a label; otherwise every sixth has none.
    encode_covariates, deeply_inject_covariates, use_batch_norm, use_layer_norm, dispersion, gene_likelihood
        The model's options, with scvi-tools' names, values and defaults.
    latent_distribution, use_observed_lib_size, batch_representation, embedding_dim, linear_classifier
        More of them. `embedding_dim` matters with ``batch_representation="embedding"``, `linear_classifier` for SCANVI.
    size_factor
        Whether the model has size factors, in the obs column ``"size_factor"``.
    minified
        Minify type of the AnnData file; None keeps counts and no latent.
    key_style
        How the minified latent is named in the AnnData: as scvi-tools since 1.2.2, in 1.2.1, or up to 1.2.0.
    layer
        Layer that holds the counts, None for X.
    scvi_version
        Version that the files claim, which also decides which attributes they hold.
    seed
        Seed of the weights and the cells.

    Raises
    ------
    ValueError
        Options that scvi-tools cannot combine.
    """

    model: Model = "SCVI"
    n_genes: int = 30  # tiny, for tests of milliseconds
    n_cells: int = 60  # tiny, for tests of milliseconds
    n_hidden: int = 16  # tiny, for tests of milliseconds
    n_latent: int = 4  # tiny, for tests of milliseconds
    n_layers: int = 1
    batches: tuple[str, ...] | tuple[int, ...] | None = ("b0", "b1")
    covariates: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    continuous: tuple[str, ...] = ()
    labels: tuple[str, ...] = ("alpha", "beta", "delta")
    unlabeled: str | None = "Unknown"
    all_labeled: bool = False
    encode_covariates: bool = False
    deeply_inject_covariates: bool = True
    use_batch_norm: Scope = "both"
    use_layer_norm: Scope = "none"
    dispersion: Literal["gene", "gene-batch", "gene-label", "gene-cell"] = "gene"
    gene_likelihood: Literal["zinb", "nb", "poisson", "normal"] = "zinb"
    latent_distribution: Literal["normal", "ln"] = "normal"
    use_observed_lib_size: bool = True
    size_factor: bool = False
    batch_representation: Literal["one-hot", "embedding"] = "one-hot"
    embedding_dim: int = 5  # the default of scvi-tools
    linear_classifier: bool = False
    minified: Literal["latent_posterior_parameters", "latent_posterior_parameters_with_counts"] | None = None
    key_style: Literal["current", "1.2.1", "old"] = "current"
    layer: str | None = None
    scvi_version: str = "1.4.2"
    seed: int = 0

    def __post_init__(self) -> None:
        problem = _problem(self)
        if problem:
            raise ValueError(f"This TinyConfig is not a model that scvi-tools could have saved: {problem}.")

    @property
    def n_batches(self) -> int:
        """Number of batches; 1 without a batch key."""
        return len(self.batches or (0,))

    @property
    def n_labels(self) -> int:
        """Number of classes of the model, without SCANVI's unlabeled category; 1 without a labels key."""
        return max(len(self.labels), 1)

    @property
    def categories(self) -> tuple[str, ...]:
        """Categories of the labels in code order.

        scvi-tools swaps SCANVI's unlabeled category with the last one; where no cell has it, it is appended.
        """
        names = sorted(self.labels)
        if self.model == "SCANVI" and self.unlabeled is not None:
            names = [*names, self.unlabeled] if self.all_labeled else sorted([*names, self.unlabeled])
            i = names.index(self.unlabeled)
            names[i], names[-1] = names[-1], names[i]
        return tuple(names)

    @property
    def one_hot(self) -> tuple[int, ...]:
        """Number of one-hot columns by covariate, batch first; a covariate with a single level has none."""
        batch = () if self.batch_representation == "embedding" else (self.n_batches,)
        return tuple(n if n > 1 else 0 for n in (*batch, *map(len, self.covariates.values())))

    @property
    def models_library(self) -> bool:
        """Whether the library size is a latent variable of the model."""
        return not self.use_observed_lib_size and not self.size_factor


def _problem(config: TinyConfig) -> str | None:
    """Say what cannot be combined, or None."""
    c = config
    names = (c.batches or (), c.labels, *c.covariates.values())
    rules = {
        f"model is {c.model!r}, but only {', '.join(MODELS)} are known": c.model not in MODELS,
        f"{c.model} has other options": any(
            getattr(c, name) != value for name, value in FIXED.get(c.model, {}).items()
        ),
        "LinearSCVI has no such dispersion or likelihood": c.model == "LinearSCVI"
        and (c.dispersion not in ("gene", "gene-batch") or c.gene_likelihood == "normal"),
        "SCANVI needs labels": c.model == "SCANVI" and not c.labels,
        "SCANVI needs an unlabeled category that is not a label": (
            c.model == "SCANVI" and (c.unlabeled is None or c.unlabeled in c.labels)
        ),
        "only SCANVI has a classifier": c.linear_classifier and c.model != "SCANVI",
        "the dispersion gene-label needs labels": c.dispersion == "gene-label" and not c.labels,
        # Both fail in scvi-tools' own training: its SCANVI tells neither the dispersion nor the classifier.
        "SCANVI has no dispersion by label": c.dispersion == "gene-label" and c.model == "SCANVI",
        "SCANVI does not encode a batch embedding": (
            c.model == "SCANVI" and c.batch_representation == "embedding" and c.encode_covariates
        ),
        "a model with a latent library size cannot be minified": c.models_library and c.minified is not None,
        "a batch embedding needs batches": c.batch_representation == "embedding" and not c.batches,
        "a covariate needs levels": not all(c.covariates.values()),
        "names occur twice": any(len(set(group)) < len(group) for group in names),
        f"{c.n_cells} cells are too few to have every level": c.n_cells < max(map(len, names), default=1),
        "sizes must be positive": min(c.n_genes, c.n_cells, c.n_hidden, c.n_latent, c.n_layers) < 1,
    }
    return next((problem for problem, holds in rules.items() if holds), None)


def _stack(config: TinyConfig, prefix: str, widths: Iterable[int], *, norm: bool) -> dict[str, Shape]:
    """Tensors of a stack of layers with the given input widths."""
    found: dict[str, Shape] = {}
    for i, width in enumerate(widths):
        layer = f"{prefix}.fc_layers.Layer {i}"
        found |= {f"{layer}.0.weight": (config.n_hidden, width), f"{layer}.0.bias": (config.n_hidden,)}
        if norm:
            found |= {f"{layer}.1.{name}": (config.n_hidden,) for name in BATCH_NORM}
            found[f"{layer}.1.num_batches_tracked"] = ()
    return found


def _heads(prefix: str, names: Iterable[str], n_out: int, n_in: int) -> dict[str, Shape]:
    """Tensors of plain linear layers."""
    return {
        f"{prefix}.{name}.{part}": shape
        for name in names
        for part, shape in (("weight", (n_out, n_in)), ("bias", (n_out,)))
    }


def state_shapes(config: TinyConfig) -> dict[str, Shape]:
    """Names and shapes of every tensor of the model, in the order of its state dict."""
    if config.model == "LinearSCVI":
        return _linear_shapes(config)
    if config.model == "PEAKVI":
        return _peak_shapes(config)
    c, columns = config, sum(config.one_hot)
    width = c.embedding_dim if c.batch_representation == "embedding" else 0
    beside = len(c.continuous) + width
    encoded = columns if c.encode_covariates else 0
    deep = c.n_hidden + columns * c.deeply_inject_covariates
    deep_encoded = c.n_hidden + encoded * c.deeply_inject_covariates
    enters = c.n_genes + beside * c.encode_covariates + encoded
    norm_encoder, norm_decoder = c.use_batch_norm in ("encoder", "both"), c.use_batch_norm in ("decoder", "both")

    per_gene: dict[str, Shape] = {"gene": (), "gene-batch": (c.n_batches,), "gene-label": (c.n_labels,)}
    found: dict[str, Shape] = {}
    if c.dispersion in per_gene:
        found["px_r"] = (c.n_genes, *per_gene[c.dispersion])
    if c.model == "SCANVI":
        found["y_prior"] = (1, c.n_labels)
    if c.models_library:
        found |= {"library_log_means": (1, c.n_batches), "library_log_vars": (1, c.n_batches)}
    if width:
        found[EMBEDDING] = (c.n_batches, width)

    heads = ("mean_encoder", "var_encoder")
    widths = [enters] + [deep_encoded] * (c.n_layers - 1)
    found |= _stack(c, "z_encoder.encoder", widths, norm=norm_encoder)
    found |= _heads("z_encoder", heads, c.n_latent, c.n_hidden)
    found |= _stack(c, "l_encoder.encoder", widths[:1], norm=norm_encoder)
    found |= _heads("l_encoder", heads, 1, c.n_hidden)
    widths = [c.n_latent + beside + columns] + [deep] * (c.n_layers - 1)
    found |= _stack(c, "decoder.px_decoder", widths, norm=norm_decoder)
    found |= _heads("decoder", ("px_scale_decoder.0", "px_r_decoder", "px_dropout_decoder"), c.n_genes, c.n_hidden)
    return found | (_scanvi_shapes(c, norm_encoder, norm_decoder) if c.model == "SCANVI" else {})


def _linear_shapes(config: TinyConfig) -> dict[str, Shape]:
    """Tensors of LinearSCVI: SCVI's encoders without covariates, and a decoder of one layer with a batch norm."""
    c, heads = config, ("mean_encoder", "var_encoder")
    found: dict[str, Shape] = {"px_r": (c.n_genes, c.n_batches) if c.dispersion == "gene-batch" else (c.n_genes,)}
    if c.models_library:
        found |= {"library_log_means": (1, c.n_batches), "library_log_vars": (1, c.n_batches)}
    widths = [c.n_genes] + [c.n_hidden] * (c.n_layers - 1)
    found |= _stack(c, "z_encoder.encoder", widths, norm=True) | _heads("z_encoder", heads, c.n_latent, c.n_hidden)
    found |= _stack(c, "l_encoder.encoder", widths[:1], norm=True) | _heads("l_encoder", heads, 1, c.n_hidden)
    for name in ("factor_regressor", "px_dropout_decoder"):
        layer = f"decoder.{name}.fc_layers.Layer 0"
        found[f"{layer}.0.weight"] = (c.n_genes, c.n_latent + sum(c.one_hot))
        found |= {f"{layer}.1.{part}": (c.n_genes,) for part in BATCH_NORM}
        found[f"{layer}.1.num_batches_tracked"] = ()
    return found


def _peak_shapes(config: TinyConfig) -> dict[str, Shape]:
    """Tensors of PEAKVI: an encoder that injects covariates in every layer, a depth in its first, and a decoder."""
    c, columns, beside = config, sum(config.one_hot), len(config.continuous)
    encoded = columns if c.encode_covariates else 0
    enters = c.n_genes + beside * c.encode_covariates + encoded
    norm_encoder, norm_decoder = c.use_batch_norm in ("encoder", "both"), c.use_batch_norm in ("decoder", "both")
    found: dict[str, Shape] = {"region_factors": (c.n_genes,)}
    widths = [enters] + [c.n_hidden + encoded] * (c.n_layers - 1)
    found |= _stack(c, "z_encoder.encoder", widths, norm=norm_encoder)
    found |= _heads("z_encoder", ("mean_encoder", "var_encoder"), c.n_latent, c.n_hidden)
    widths = [c.n_latent + beside + columns] + [c.n_hidden + columns * c.deeply_inject_covariates] * (c.n_layers - 1)
    found |= _stack(c, "z_decoder.px_decoder", widths, norm=norm_decoder)
    found |= _heads("z_decoder", ("output.0",), c.n_genes, c.n_hidden)
    found |= _stack(c, "d_encoder.px_decoder", [enters] + [c.n_hidden] * (c.n_layers - 1), norm=False)
    return found | _heads("d_encoder", ("output.0",), 1, c.n_hidden)


def _scanvi_shapes(config: TinyConfig, norm_encoder: bool, norm_decoder: bool) -> dict[str, Shape]:
    """Tensors that SCANVI has on top of SCVI's."""
    c = config
    labels = c.n_labels if c.n_labels > 1 else 0
    if c.linear_classifier:
        found = _heads("classifier", ("classifier.0",), c.n_labels, c.n_latent)
    else:
        widths = [c.n_latent] + [c.n_hidden] * (c.n_layers - 1)
        found = _stack(c, "classifier.classifier.0", widths, norm=norm_encoder)
        found |= _heads("classifier", ("classifier.1",), c.n_labels, c.n_hidden)
    widths = [c.n_latent + labels] + [c.n_hidden + labels] * (c.n_layers - 1)
    for part, kind, norm in (("encoder_z2_z1", "encoder", norm_encoder), ("decoder_z1_z2", "decoder", norm_decoder)):
        found |= _stack(c, f"{part}.{kind}", widths, norm=norm)
        found |= _heads(part, (f"mean_{kind}", f"var_{kind}"), c.n_latent, c.n_hidden)
    return found


def make_weights(config: TinyConfig) -> dict[str, np.ndarray]:
    """Random weights of the model, float32 (batch counters int64): wide enough that cell types stay apart."""
    rng = np.random.default_rng([config.seed, 1])
    return {key: _draw(rng, key, shape, config) for key, shape in state_shapes(config).items()}


def _draw(rng: np.random.Generator, key: str, shape: Shape, config: TinyConfig) -> np.ndarray:
    if key.endswith("num_batches_tracked"):
        return np.array(100, np.int64)
    if key == "y_prior":
        return np.full(shape, 1 / config.n_labels, np.float32)
    normal = rng.standard_normal(shape)
    if key.endswith(".running_var") or key.endswith(".1.weight") and "fc_layers" in key:
        values = rng.uniform(0.5, 1.5, shape)
    elif key == "library_log_means":
        values = np.log(5 * config.n_genes) + 0.2 * normal
    elif key == "library_log_vars":
        values = rng.uniform(0.05, 0.2, shape)
    elif key.endswith("z_encoder.var_encoder.bias"):
        values = 0.2 * normal - 3
    elif key.endswith("bias") or key.endswith("running_mean"):
        values = 0.1 * normal
    elif key.endswith("weight") and key != EMBEDDING:
        values = normal / np.sqrt(shape[1])
    else:
        values = normal
    return values.astype(np.float32)
