"""Options of the autoencoder, and every place of its state dict where columns belong to a covariate; no torch.

Source of the layout: the state dicts of scvi-tools 0.8-1.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

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
    activation: Literal["relu", "leaky_relu"] = "relu"
    variance_floor: float = 1e-4  # what scvi-tools adds to the posterior's variance, where it does
    linear_decoder: bool = False

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


def read_hyper(
    options: Mapping[str, Any],
    weights: Weights,
    schema: Schema,
    *,
    model: str,
    defaults: Mapping[str, Any] | None = None,
    silent: frozenset[str] = frozenset(),
) -> Hyper:
    """Hyper-parameters from the flattened ``init_params_``; what is absent has the class's default.

    `defaults` are those in which a class differs from SCVI; `silent` are further options that change no number, or that
    the weights tell.

    Raises
    ------
    UnsupportedModel
        An option that is unknown, or known with a value that is not supported.
    """
    own = {"use_size_factor", "activation", "variance_floor", "linear_decoder"}
    known = set(Hyper.__dataclass_fields__) - own - silent
    values: dict[str, Any] = {"n_latent": 10, "n_layers": 1, **(defaults or {})}
    for name, value in options.items():
        if name in known and value is not None:
            values[name] = value
        elif name == "use_size_factor_key":
            values["use_size_factor"] = bool(value)
        elif name not in _SILENT | silent and value not in (None, False, {}, [], ()):
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


def stack_slots(
    weights: Weights,
    prefix: str,
    n_input: int,
    levels: Mapping[str, int],
    *,
    deep: bool,
    role: Role,
    trainable: bool = True,
) -> list[Slot]:
    """Slots of the FCLayers saved under `prefix`: one for each layer that sees covariates, and each covariate.

    Parameters
    ----------
    weights
        State dict of the model.
    prefix
        Name of the stack in it.
    n_input
        Inputs of the first layer before the columns of the covariates.
    levels
        Number of levels by covariate, in the order of the columns; empty for a stack that sees none.
    deep
        Whether the layers after the first see the covariates, too.
    role, trainable
        Of the slots.

    Raises
    ------
    CorruptFile
        A tensor's shape does not fit the registry.
    """
    found: list[Slot] = []
    i = 0
    while (key := f"{prefix}.fc_layers.Layer {i}.0.weight") in weights:
        start = n_input if i == 0 else weights[f"{prefix}.fc_layers.Layer {i - 1}.0.weight"].shape[0]
        if i == 0 or deep:
            for name, n in levels.items():
                size = n if n > 1 else 0
                found.append(Slot(key, 1, start, size, n, name, role, trainable))
                start += size
        if weights[key].shape[1] != start:
            raise CorruptFile(
                f"{key} has {weights[key].shape[1]} inputs, but the registry (genes, covariates and their levels) "
                f"makes {start}. The files of this model contradict one another."
            )
        i += 1
    return found


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
        deep, own = hyper.deeply_inject_covariates, one_hot if injects else {}
        found.extend(stack_slots(weights, prefix, n_input, own, deep=deep, role=role, trainable=trainable))

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
    return (*found, *batch_slots(hyper, schema, weights))


def batch_slots(hyper: Hyper, schema: Schema, weights: Weights) -> tuple[Slot, ...]:
    """Slots outside of the layers: a dispersion by batch, and the prior of the library size in each batch."""
    n_batch, found = len(schema.batches), []
    if hyper.dispersion == "gene-batch":
        found.append(Slot("px_r", 1, 0, n_batch, n_batch, BATCH, "dispersion", hyper.gene_likelihood != "poisson"))
    for key in ("library_log_means", "library_log_vars"):
        if key in weights:
            found.append(Slot(key, 1, 0, n_batch, n_batch, BATCH, "prior", False, "data"))
    return tuple(found)
