"""Options of the autoencoder, and every place of its state dict where columns belong to a covariate; no torch.

Source of the layout: the state dicts of scvi-tools 0.8-1.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scgraft.errors import CorruptFile, UnsupportedModel
from scgraft.values.names import BATCH
from scgraft.values.reference import Schema
from scgraft.values.slot import Role, Slot

Weights = Mapping[str, np.ndarray]
EMBEDDING = "_embeddings_dict.batch.weight"
NORM_SCOPES = ("encoder", "decoder", "none", "both")


@dataclass(frozen=True)
class Hyper:
    """Hyper-parameters of the autoencoder that change shapes or numbers."""

    n_latent: int
    n_layers: int
    dispersion: str = "gene"
    gene_likelihood: str = "zinb"
    latent_distribution: str = "normal"
    log_variational: bool = True
    encode_covariates: bool = False
    deeply_inject_covariates: bool = True
    use_batch_norm: str = "both"
    use_layer_norm: str = "none"
    batch_representation: str = "one-hot"
    use_observed_lib_size: bool = True
    use_size_factor: bool = False
    linear_classifier: bool = False

    @property
    def models_library(self) -> bool:
        """Whether the library size is a latent variable of the model."""
        return not self.use_observed_lib_size and not self.use_size_factor


# Options that change neither the shapes nor the numbers of a model in eval mode, or that the weights tell.
_SILENT = {
    "n_hidden", "dropout_rate", "batch_embedding_kwargs", "datamodule", "unlabeled_category", "pretrained_model",
    "use_cuda", "adata", "registry", "use_gpu", "labels_groups", "classifier_parameters", "y_prior",
    "library_log_means", "library_log_vars", "n_input", "n_batch", "n_labels", "n_continuous_cov", "n_cats_per_cov",
}  # fmt: skip
_CHOICES = {
    "dispersion": ("gene", "gene-batch", "gene-label", "gene-cell"),
    "gene_likelihood": ("zinb", "nb", "poisson", "normal"),
    "latent_distribution": ("normal", "ln"),
    "use_batch_norm": NORM_SCOPES,
    "use_layer_norm": NORM_SCOPES,
    "batch_representation": ("one-hot", "embedding"),
}


def read_hyper(options: Mapping[str, Any], weights: Weights, schema: Schema, *, model: str) -> Hyper:
    """Hyper-parameters from the flattened ``init_params_``; what is absent has scvi-tools' default.

    Raises
    ------
    UnsupportedModel
        An option that is unknown, or known with a value that is not supported.
    """
    known = set(Hyper.__dataclass_fields__) - {"use_size_factor"}
    values: dict[str, Any] = {"n_latent": 10, "n_layers": 1}
    for name, value in options.items():
        if name in known and value is not None:
            values[name] = value
        elif name == "use_size_factor_key":
            values["use_size_factor"] = bool(value)
        elif name not in _SILENT and value not in (None, False, {}, [], ()):
            raise UnsupportedModel(
                f"The {model} model was made with the option {name}={value!r}, which scgraft does not know. "
                "Its numbers could not be trusted, so it is not loaded."
            )
    for name, choices in _CHOICES.items():
        if name in values and values[name] not in choices:
            raise UnsupportedModel(
                f"The {model} model has {name}={values[name]!r}; supported are {', '.join(choices)}."
            )
    values["use_size_factor"] = values.get("use_size_factor", False) or schema.size_factor_key is not None
    hyper = Hyper(**values)
    if EMBEDDING in weights:
        hyper = replace(hyper, batch_representation="embedding")
    return replace(hyper, n_latent=int(weights["z_encoder.mean_encoder.weight"].shape[0]))


def slots(hyper: Hyper, schema: Schema, weights: Weights) -> tuple[Slot, ...]:
    """Every slot of the model: all places whose columns belong to batches or to levels of a covariate.

    Raises
    ------
    CorruptFile
        A tensor's shape does not fit the registry.
    """
    one_hot = {name: len(levels) for name, levels in schema.levels.items()}
    embedded = hyper.batch_representation == "embedding"
    if embedded:
        del one_hot[BATCH]
    n_continuous, width = len(schema.continuous), weights[EMBEDDING].shape[1] if embedded else 0
    found: list[Slot] = []

    def stack(prefix: str, n_input: int, injects: bool, role: Role, trainable: bool) -> None:
        i = 0
        while (key := f"{prefix}.fc_layers.Layer {i}.0.weight") in weights:
            start = n_input if i == 0 else weights[f"{prefix}.fc_layers.Layer {i - 1}.0.weight"].shape[0]
            if injects and (i == 0 or hyper.deeply_inject_covariates):
                for name, levels in one_hot.items():
                    size = levels if levels > 1 else 0
                    found.append(Slot(key, 1, start, size, levels, name, role, trainable))
                    start += size
            if weights[key].shape[1] != start:
                raise CorruptFile(
                    f"{key} has {weights[key].shape[1]} inputs, but the registry (genes, covariates and their levels) "
                    f"makes {start}. The files of this model contradict one another."
                )
            i += 1

    extra = n_continuous + width if hyper.encode_covariates else 0
    stack("z_encoder.encoder", len(schema.genes) + extra, hyper.encode_covariates, "encoder", True)
    if "l_encoder.encoder.fc_layers.Layer 0.0.weight" in weights:
        n_input = len(schema.genes) + extra
        stack("l_encoder.encoder", n_input, hyper.encode_covariates, "library", hyper.models_library)
    stack("decoder.px_decoder", hyper.n_latent + n_continuous + width, True, "decoder", True)
    n_batch = len(schema.batches)
    if embedded:
        role: Role = "encoder" if hyper.encode_covariates else "decoder"
        found.append(Slot(EMBEDDING, 0, 0, n_batch, n_batch, BATCH, role))
    if hyper.dispersion == "gene-batch":
        found.append(Slot("px_r", 1, 0, n_batch, n_batch, BATCH, "dispersion", hyper.gene_likelihood != "poisson"))
    for key in ("library_log_means", "library_log_vars"):
        if key in weights:
            found.append(Slot(key, 1, 0, n_batch, n_batch, BATCH, "prior", False, "data"))
    return tuple(found)
