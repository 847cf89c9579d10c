"""Options of the autoencoder, and every place of its state dict where columns belong to a covariate; no torch.

Source of the layout: the state dicts of scvi-tools 0.8-1.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from scgraft.errors import CorruptFile, UnsupportedModel
from scgraft.values.names import BATCH, shown
from scgraft.values.reference import Schema
from scgraft.values.slot import Role, Slot

Weights = Mapping[str, np.ndarray]
EMBEDDING = "_embeddings_dict.batch.weight"
NORM_SCOPES = ("encoder", "decoder", "none", "both")


@dataclass(frozen=True)
class ClassifierOptions:
    """The hidden layers of SCANVI's classifier, before its last linear map; none for a linear classifier."""

    n_layers: int = 1
    n_hidden: int = 128  # the default of scvi-tools
    bias: bool = True
    use_activation: bool = True


@dataclass(frozen=True)
class PeakOptions:
    """What PEAKVI has beside the autoencoder: layers of its decoder, and whether there are depths and region factors."""

    n_layers_decoder: int = 2  # the default of scvi-tools
    model_depth: bool = True
    region_factors: bool = True


@dataclass(frozen=True)
class Hyper:
    """Hyper-parameters of the autoencoder that change shapes or numbers.

    `n_labels` counts the labels that the model itself tells apart. For SCANVI it is one more than the labels of the
    registry where the unlabeled category has a place of its own among the classes: the last one.
    """

    n_latent: int
    n_layers: int
    n_hidden: int = 128  # the default of scvi-tools
    n_labels: int = 1
    embedding_dim: int = 5  # the default of scvi-tools
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
    decoder_bias: bool = False  # of a linear decoder
    classifier: ClassifierOptions | None = None
    peaks: PeakOptions | None = None
    hidden_sizes: tuple[int, ...] = ()  # of scPoli, from the genes to the latent
    embedding_dims: tuple[int, ...] = ()  # of scPoli, for each condition
    embedding_norm: float | None = None  # longest that scPoli lets an embedding be
    n_layers_decoder: int = 1  # of TOTALVI, whose encoder and decoder differ
    protein_dispersion: str = "protein"
    normalises_input: bool = False  # whether TOTALVI's encoder takes counts over one plus their mean
    background_activation: str = "softplus"
    background_floor: float = 0.0
    modality_penalty: str = "None"  # of MULTIVI, between the posteriors of a cell by its genes, regions and proteins
    weighted_cells: int = 0  # of MULTIVI: cells of the reference that have weights of their own
    takes_values: bool = False  # whether the input is any values that are not negative, and not counts

    @property
    def models_library(self) -> bool:
        """Whether the library size is a latent variable of the model."""
        return not self.use_observed_lib_size and not self.use_size_factor


# Options that change neither the shapes nor the numbers of a model in eval mode (how it is trained, what is reported), or
# that the registry tells.
_SILENT = {
    "dropout_rate", "datamodule", "unlabeled_category", "pretrained_model", "use_cuda", "adata", "registry", "use_gpu",
    "labels_groups", "y_prior", "library_log_means", "library_log_vars", "n_input", "n_batch", "n_labels",
    "n_continuous_cov", "n_cats_per_cov", "extra_payload_autotune",
}  # fmt: skip
_CHOICES: dict[str, tuple[str, ...]] = {
    "dispersion": ("gene", "gene-batch", "gene-label", "gene-cell"),
    "gene_likelihood": ("zinb", "nb", "poisson", "normal"),
    "latent_distribution": ("normal", "ln"),
    "use_batch_norm": NORM_SCOPES,
    "use_layer_norm": NORM_SCOPES,
    "batch_representation": ("one-hot", "embedding"),
}
_SIZES = ("n_latent", "n_layers", "n_hidden")
_FLAGS = (
    "log_variational", "encode_covariates", "deeply_inject_covariates", "use_observed_lib_size", "linear_classifier",
)  # fmt: skip
# No published model comes near either; a file that says more would only make us build names for ever.
MOST_LAYERS, LARGEST = 100, 1_000_000


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

    Sizes that the options do not give are taken from the weights.

    Raises
    ------
    UnsupportedModel
        An option that is unknown, or known with a value that is not supported.
    """
    wide = {key: value for key, value in options.items() if value is not None}
    read = {key: value for key, value in wide.items() if key not in silent}
    values: dict[str, Any] = {
        "n_latent": _length(weights, "z_encoder.mean_encoder.weight", 0, 10),
        "n_hidden": _length(weights, "z_encoder.mean_encoder.weight", 1, 128),
        "n_layers": 1,
        "n_labels": max(len(schema.labels), 1),
        "embedding_dim": _length(weights, EMBEDDING, 1, 5),
        **(defaults or {}),
    }
    values |= {name: size(name, read[name], model) for name in _SIZES if name in read}
    values |= {name: flag(name, read[name], model) for name in _FLAGS if name in read}
    values |= {name: _choice(name, read[name], choices, model) for name, choices in _CHOICES.items() if name in read}
    embedding = options_of_option(wide.pop("batch_embedding_kwargs", {}), "batch_embedding_kwargs", model)
    if "embedding_dim" in embedding:
        values["embedding_dim"] = size("embedding_dim", embedding.pop("embedding_dim"), model)
    for name, value in (wide | embedding).items():
        if name not in {*values, *_SILENT, *silent, "use_size_factor_key"} and not _nothing(value):
            raise UnsupportedModel(
                f"The {model} model was made with the option {name}={shown(value)}, which scgraft does not know. "
                "Its numbers could not be trusted, so it is not loaded."
            )
    by_key = not _nothing(wide.get("use_size_factor_key"))
    values["use_size_factor"] = by_key or schema.size_factor_key is not None
    hyper = Hyper(**values)
    return replace(hyper, batch_representation="embedding") if EMBEDDING in weights else hyper


def _length(weights: Weights, key: str, axis: int, default: int) -> int:
    """Length of a tensor along an axis, or scvi-tools' default where the file has no such tensor."""
    shape = weights[key].shape if key in weights else ()
    return int(shape[axis]) if len(shape) == 2 else default


def _nothing(value: object) -> bool:
    """Whether a value leaves an option off."""
    return value is None or value is False or (isinstance(value, (dict, list, tuple)) and not value)


def size(name: str, value: object, model: str, least: int = 1) -> int:
    """An option that is a whole number, within what a model can have."""
    most = MOST_LAYERS if name == "n_layers" else LARGEST
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise UnsupportedModel(
            f"The {model} model has {name}={shown(value)}; a whole number from {least} to {most} was expected."
        )
    return value


def flag(name: str, value: object, model: str) -> bool:
    """An option that is on or off."""
    if not isinstance(value, int) or value not in (True, False):
        raise UnsupportedModel(f"The {model} model has {name}={shown(value)}; True or False was expected.")
    return bool(value)


def _choice(name: str, value: object, choices: tuple[str, ...], model: str) -> str:
    if not isinstance(value, str) or value not in choices:
        raise UnsupportedModel(f"The {model} model has {name}={shown(value)}; supported are {', '.join(choices)}.")
    return value


def options_of_option(value: object, name: str, model: str) -> dict[str, Any]:
    """The options that one option hands on, as a new dictionary."""
    if not isinstance(value, dict):
        raise UnsupportedModel(f"The {model} model has {name}={shown(value)}; a dictionary of options was expected.")
    return dict(value)


def read_classifier(parameters: object, hyper: Hyper) -> ClassifierOptions:
    """SCANVI's classifier: as deep and wide as the encoder, unless its ``classifier_parameters`` say otherwise.

    Raises
    ------
    UnsupportedModel
        A parameter that would change its numbers in a way that scgraft does not know.
    """
    given = options_of_option(parameters, "classifier_parameters", "SCANVI")
    linear = hyper.linear_classifier
    n_layers = size("n_layers", given.pop("n_layers", 0 if linear else hyper.n_layers), "SCANVI", 0)
    n_hidden = size("n_hidden", given.pop("n_hidden", 0 if linear else hyper.n_hidden), "SCANVI", 0)
    flags = {name: flag(name, given.pop(name), "SCANVI") for name in ("bias", "use_activation") if name in given}
    # How it is trained, and whether the softmax is its last layer or follows it.
    rest = {name: value for name, value in given.items() if name not in ("dropout_rate", "logits")}
    if rest:
        raise UnsupportedModel(
            f"The SCANVI model was made with classifier_parameters={shown(rest)}, which scgraft does not know. Its numbers "
            "could not be trusted, so it is not loaded."
        )
    if not n_layers or not n_hidden:
        return ClassifierOptions(0, 0)
    return ClassifierOptions(n_layers, n_hidden, **flags)


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
    """Every slot of the model: all places whose columns belong to batches or to levels of a covariate."""
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
